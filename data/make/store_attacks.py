"""Compute the stored results of notebook 19, in the folder data/attacks, in some minutes.

    uv run python data/make/store_attacks.py [curves] [transfer] [views]

The images are the scenes of Emoji COCO's validation split that show one category, at 128 pixels.
Without an argument, all three tables are computed:

* curves: the fraction of wrong predictions after an attack, by network, norm, method and ε;
* transfer: the fraction of wrong predictions of one network for images that were attacked on
  another network or on several others (ε = 8/255 and 16/255);
* views: the fraction of random views (rotated, zoomed, brighter or darker) for which a targeted
  attack succeeds, with and without expectation over such views (ε = 16/255).

In all tables, the column "share" is a fraction between 0 and 1.
"""

from __future__ import annotations

import sys
from itertools import product

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from vislib import nets
from vislib.attacks import add_noise, bim, eot, fgsm, pgd, random_view
from vislib.data.coco import Coco
from vislib.data.images import resize, to_tensor
from vislib.paths import DATA

STORED = DATA / "attacks"
ROBUST = "emoji_allconv_robust"  # emoji_allconv after adversarial training
LEVELS = {"linf": [0.5, 1, 2, 4, 8, 16], "l2": [0.25, 0.5, 1, 2, 4]}
STRENGTHS = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]


def load(name: str) -> nets.Classifier:
    """Network of the course by its name, or the robust network."""
    if name == ROBUST:
        return nets.load("emoji_allconv", weights=nets.WEIGHTS / f"{ROBUST}.safetensors")
    return nets.load(name)


def scenes() -> tuple[Tensor, Tensor]:
    """Scenes with one category, N×3×128×128, and their classes."""
    coco = Coco(DATA / "emoji_coco", "val")
    single = [i for i in coco.image_ids() if len(coco.objects(i)) == 1]
    size = (nets.POCKET_SIZE, nets.POCKET_SIZE)
    images = [resize(to_tensor(coco.image(i)), size) for i in single]
    return torch.stack(images), torch.tensor(
        [nets.EMOJI_CLASSES.index(coco.objects(i)[0]) for i in single]
    )


def correct(model: nets.Classifier, x: Tensor, target: Tensor) -> Tensor:
    """Whether the predicted class is `target`: N booleans."""
    with torch.no_grad():
        return model(x).argmax(1) == target


def curves(x: Tensor, target: Tensor) -> pd.DataFrame:
    """Fractions of wrong predictions; for the norm linf, ε is in grey levels of 255."""
    methods = {
        "noise": lambda model, x, target, **options: add_noise(x, **options),
        "FGSM": fgsm,
        "BIM": bim,
        "PGD": pgd,
    }
    rows = []
    for name in ("emoji_allconv", ROBUST):
        model = load(name)
        rows.append([name, "none", "none", 0, float((~correct(model, x, target)).float().mean())])
        for norm, levels in LEVELS.items():
            for level in tqdm(levels, desc=f"{name} {norm}"):
                epsilon = level / 255 if norm == "linf" else level
                for method, function in methods.items():
                    options = {"steps": 10} if method in ("BIM", "PGD") else {}
                    y = function(model, x, target, epsilon=epsilon, norm=norm, **options)
                    wrong = float((~correct(model, y, target)).float().mean())
                    rows.append([name, norm, method, level, wrong])
    table = pd.DataFrame(rows, columns=["net", "norm", "method", "epsilon", "share"])
    return table.assign(scenes=len(x))


class Mean(nn.Module):
    """Mean of the log-probabilities of several networks."""

    def __init__(self, models: list[nets.Classifier]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W images to N×K mean log-probabilities."""
        return torch.stack([model(x).log_softmax(1) for model in self.models]).mean(0)


def transfer(x: Tensor, target: Tensor) -> pd.DataFrame:
    """Fractions of wrong predictions of one network after an attack on another network.

    Only scenes that both networks classify correctly count. In the rows "the others", the attack is
    on the mean of all networks of the course except the evaluated network.
    """
    models = {name: load(name) for name in (*nets.EMOJI_NETS, ROBUST)}
    right = {name: correct(model, x, target) for name, model in models.items()}
    rows = []
    for epsilon, attacked in tqdm([*product((8, 16), ["noise", *models, "the others"])]):
        options = {"epsilon": epsilon / 255, "steps": 10}
        if attacked in models:
            y = pgd(models[attacked], x, target, **options)
        else:
            y = add_noise(x, epsilon=epsilon / 255)
        for asked, model in models.items():
            both = right[asked] & right.get(attacked, right[asked])
            if attacked == "the others":
                others = [models[name] for name in nets.EMOJI_NETS if name != asked]
                shown = pgd(Mean(others), x[both], target[both], **options)
            else:
                shown = y[both]
            wrong = float((~correct(model, shown, target[both])).float().mean())
            rows.append([epsilon, attacked, asked, wrong, int(both.sum())])
    return pd.DataFrame(rows, columns=["epsilon", "attacked", "asked", "share", "scenes"])


def views(x: Tensor, classes: Tensor) -> pd.DataFrame:
    """Fractions of random views with the target class of the attack, by the strength of the views.

    Views of strength 1 are rotated by up to 30 degrees, zoomed by a factor of up to 1.25, and
    brighter or darker by up to 25 %.
    """
    model = load("emoji_allconv")
    target = (classes + 5) % 16
    options = {"epsilon": 16 / 255, "steps": 40, "step_size": 2 / 255, "targeted": True}
    images = {
        "none": x,
        "plain": bim(model, x, target, **options),
        "expectation": eot(model, x, target, transform=random_view, samples=4, **options),
    }
    rows = []
    for kind, y in images.items():
        for strength in tqdm(STRENGTHS, desc=kind):
            # The seed differs from that of the attack, so that the views differ as well.
            generator = torch.Generator().manual_seed(1)
            limits = {"angle": 30 * strength, "zoom": 1.25**strength, "light": strength / 4}
            shown = [random_view(y, generator, **limits) for _ in range(10 if strength else 1)]
            hit = torch.stack([correct(model, view, target) for view in shown]).float().mean()
            right = torch.stack([correct(model, view, classes) for view in shown]).float().mean()
            rows.append([kind, strength, float(hit), float(right)])
    table = pd.DataFrame(rows, columns=["attack", "strength", "share", "right"])
    return table.assign(scenes=len(x))


if __name__ == "__main__":
    tables = {"curves": curves, "transfer": transfer, "views": views}
    chosen = sys.argv[1:] or list(tables)
    if set(chosen) - tables.keys():
        sys.exit(__doc__)
    STORED.mkdir(exist_ok=True)
    images, classes = scenes()
    for name in chosen:
        tables[name](images, classes).to_csv(
            STORED / f"{name}.csv", index=False, float_format="%.4f", lineterminator="\n"
        )
