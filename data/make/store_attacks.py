"""Make the stored results of notebook 19 again: data/attacks, in some minutes.

    uv run python data/make/store_attacks.py [curves] [transfer] [views]

All on the scenes of Pocket COCO's validation split that show one category, at 128 pixels. Without
an argument all three tables are made:

* curves: how many answers are wrong after an attack, by net, norm, method and ε;
* transfer: images attacked on one net, or on several, shown to another (ε = 8/255 and 16/255);
* views: whether the aim of an attack is reached when the image is seen turned, nearer or further,
  and in another light, with and without expectation over such views (ε = 16/255).
"""

from __future__ import annotations

import sys
from itertools import product

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from vislib import nets
from vislib.attacks import attack, bim, fgsm, noise, pgd, random_view
from vislib.data.coco import Coco
from vislib.data.images import resize, to_tensor
from vislib.paths import DATA

STORED = DATA / "attacks"
ROBUST = "pocket_allconv_robust"  # pocket_allconv after adversarial training
LEVELS = {"linf": [0.5, 1, 2, 4, 8, 16], "l2": [0.25, 0.5, 1, 2, 4]}
STRENGTHS = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]


def load(name: str) -> nets.Classifier:
    """A course net, or the robust one."""
    if name == ROBUST:
        return nets.load("pocket_allconv", weights=nets.WEIGHTS / f"{ROBUST}.safetensors")
    return nets.load(name)


def scenes() -> tuple[Tensor, Tensor]:
    """The scenes with one category, N×3×128×128, and their classes."""
    coco = Coco(DATA / "pocket_coco", "val")
    single = [i for i in coco.image_ids() if len(coco.objects(i)) == 1]
    size = (nets.POCKET_SIZE, nets.POCKET_SIZE)
    images = [resize(to_tensor(coco.image(i)), size) for i in single]
    return torch.stack(images), torch.tensor(
        [nets.POCKET_CLASSES.index(coco.objects(i)[0]) for i in single]
    )


def right(model: nets.Classifier, x: Tensor, target: Tensor) -> Tensor:
    """Whether the first answer is the class: N booleans."""
    with torch.no_grad():
        return model(x).argmax(1) == target


def curves(x: Tensor, target: Tensor) -> pd.DataFrame:
    """Share of wrong answers; an ε of norm linf is in grey levels of 255."""
    methods = {
        "noise": lambda model, x, c, **o: noise(x, **o),
        "FGSM": fgsm,
        "BIM": bim,
        "PGD": pgd,
    }
    rows = []
    for name in ("pocket_allconv", ROBUST):
        model = load(name)
        rows.append([name, "none", "none", 0, float((~right(model, x, target)).float().mean())])
        for norm, levels in LEVELS.items():
            for level in tqdm(levels, desc=f"{name} {norm}"):
                epsilon = level / 255 if norm == "linf" else level
                for method, function in methods.items():
                    options = {"steps": 10} if method in ("BIM", "PGD") else {}
                    y = function(model, x, target, epsilon=epsilon, norm=norm, **options)
                    wrong = float((~right(model, y, target)).float().mean())
                    rows.append([name, norm, method, level, wrong])
    table = pd.DataFrame(rows, columns=["net", "norm", "method", "epsilon", "share"])
    return table.assign(scenes=len(x))


class Mean(nn.Module):
    """Several nets as one: the mean of their log-probabilities."""

    def __init__(self, models: list[nets.Classifier]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([model(x).log_softmax(1) for model in self.models]).mean(0)


def transfer(x: Tensor, target: Tensor) -> pd.DataFrame:
    """Share of the scenes that the nets know and that one gets wrong after an attack on another.

    "the others" attacks the mean of all course nets but the one that is asked.
    """
    models = {name: load(name) for name in (*nets.POCKET_NETS, ROBUST)}
    known = {name: right(model, x, target) for name, model in models.items()}
    rows = []
    for epsilon, attacked in tqdm([*product((8, 16), ["noise", *models, "the others"])]):
        options = {"epsilon": epsilon / 255, "steps": 10}
        if attacked in models:
            y = pgd(models[attacked], x, target, **options)
        else:
            y = noise(x, epsilon=epsilon / 255)
        for asked, model in models.items():
            both = known[asked] & known.get(attacked, known[asked])
            if attacked == "the others":
                others = [models[name] for name in nets.POCKET_NETS if name != asked]
                seen = pgd(Mean(others), x[both], target[both], **options)
            else:
                seen = y[both]
            wrong = float((~right(model, seen, target[both])).float().mean())
            rows.append([epsilon, attacked, asked, wrong, int(both.sum())])
    return pd.DataFrame(rows, columns=["epsilon", "attacked", "asked", "share", "scenes"])


def views(x: Tensor, target: Tensor) -> pd.DataFrame:
    """Share of random views with the answer that was aimed at, by their strength.

    Strength 1: turned by up to 30 degrees, zoomed by up to 1.25, light changed by up to a quarter.
    """
    model = load("pocket_allconv")
    aim = (target + 5) % 16
    options = {"epsilon": 16 / 255, "steps": 40, "step_size": 2 / 255, "targeted": True}
    seen = {
        "none": x,
        "plain": attack(model, x, aim, **options),
        "expectation": attack(model, x, aim, transform=random_view, samples=4, **options),
    }
    rows = []
    for kind, y in seen.items():
        for strength in tqdm(STRENGTHS, desc=kind):
            generator = torch.Generator().manual_seed(1)  # other views than those of the attack
            limits = {"angle": 30 * strength, "zoom": 1.25**strength, "light": strength / 4}
            looks = [random_view(y, generator, **limits) for _ in range(10 if strength else 1)]
            reached = torch.stack([right(model, look, aim) for look in looks]).float().mean()
            known = torch.stack([right(model, look, target) for look in looks]).float().mean()
            rows.append([kind, strength, float(reached), float(known)])
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
