"""One page for all methods: what each asks, what it costs, and how it fares in two checks.

The questions (`METHODS`) are ours; everything else is measured, with the settings that a method has
in the benchmark (`measure`, one record for each method and scene), and put together by `page`:

* **passes**: how many images the net answers for one map, and how many signals come back from its
  logits (`passes`);
* **two classes**: the rank correlation of the maps of two classes that are both in the scene. A
  method that draws the same map for both cannot tell what speaks for which;
* **last random** and **all random**: the rank correlation of the map's absolute values before and
  after the weights of the last layer, or of all, were made random (the first and the last step of
  Adebayo et al. 2018, "Sanity Checks for Saliency Maps"), mean over several draws of the weights.
  A map that stays the same does not show what the net has learnt;
* **P**: the mean share of energy on the object, from the stored benchmark (`stored_shares`).

Two maps are called alike above a rank correlation of `ALIKE`. A verdict needs the whole 95 %
interval over the scenes on one side of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from vislib import nets
from vislib.core import Target
from vislib.data.coco import Coco
from vislib.data.objects import load_unit
from vislib.errors import InputError
from vislib.explain import cam, gradients
from vislib.explain.gradients import gradient_x_input
from vislib.features import deconvnet
from vislib.layers import last_conv_stage
from vislib.maps import rank_correlation
from vislib.measure import report, sanity
from vislib.measure.benchmark import CONTROLS, MORE, NO_NET, Costly
from vislib.measure.statistics import bootstrap_interval
from vislib.nets import best_of, class_targets
from vislib.paths import DATA

if TYPE_CHECKING:
    import pandas as pd

ALIKE = 0.5  # rank correlation above which two maps are called alike
RANDOM_NETS = 3  # draws of random weights
CHECKS = ("two_classes", "last_random", "all_random")
NO_BREAK, DASH = "\u00a0", "–"
MEASURED = DATA / "benchmark" / "overview.parquet"  # by data/make/store_overview.py


# ------------------------------------------------------------ the methods


def unit_deconvnet(model: nn.Module, x: Tensor, target: Target, *, layer: str) -> Tensor:
    """`deconvnet.reconstruct` for the unit that fires most in each image, N×C×H×W; whatever the class.

    ``ValueError`` for a net that is no chain of modules up to the layer.
    """
    patterns = []
    for image in x[:, None]:
        maps, steps = deconvnet.forward(model, image, layer)
        unit = int(maps[0].amax((1, 2)).argmax())
        patterns.append(deconvnet.project(deconvnet.only_unit(maps, unit), steps))
    return torch.cat(patterns)


class Method(NamedTuple):
    """A method's place in the course: its notebook's number, the question that a map answers, and
    how it is called."""

    notebook: int
    question: str
    run: Costly


def _at_layer(function: Callable[..., Tensor]) -> Costly:
    return Costly(function, at_layer=True)


def _control(name: str) -> Costly:
    """One of `benchmark.CONTROLS`, called as the methods are."""

    def draw(model: nn.Module, x: Tensor, target: Target) -> Tensor:
        return torch.stack([CONTROLS[name](image) for image in x]).to(x)

    return Costly(draw)


METHODS: dict[str, Method] = {
    # the picture, changed by infinitely little
    "gradient": Method(8, "How does the score change with each pixel?", Costly(gradients.gradient)),
    "saliency": Method(11, "Which pixels change it most, up or down?", MORE["saliency"]),
    "sensitivity": Method(14, "What would make the class more, or less?", MORE["sensitivity"]),
    "smoothgrad": Method(11, "As gradient: mean over noisy copies", MORE["smoothgrad"]),
    # patterns
    "unit_deconvnet": Method(7, "Which pattern made a unit fire?", _at_layer(unit_deconvnet)),
    "deconvnet": Method(8, "The same for a class score", Costly(gradients.deconvnet)),
    "guided_backprop": Method(
        8, "The same, through active units alone", Costly(gradients.guided_backprop)
    ),
    # places
    "cam": Method(9, "What does each place add to the score?", _at_layer(cam.cam)),
    "grad_cam": Method(10, "Where are maps active that raise the score?", _at_layer(cam.grad_cam)),
    "grad_cam_pp": Method(10, "… counting positive slopes alone", _at_layer(cam.grad_cam_pp)),
    "xgrad_cam": Method(10, "… with slopes where maps are active", _at_layer(cam.xgrad_cam)),
    "layer_cam": Method(10, "… with a slope for each place", _at_layer(cam.layer_cam)),
    "guided_grad_cam": Method(
        10, "Which guided patterns lie in such places?", _at_layer(cam.guided_grad_cam)
    ),
    "eigen_cam": Method(10, "Where is the layer most active?", MORE["eigen_cam"]),
    # the picture, changed by much
    "score_cam": Method(10, "Which maps, as masks, keep the class?", MORE["score_cam"]),
    "occlusion": Method(13, "What is lost when a part is covered?", MORE["occlusion"]),
    "shapley": Method(15, "What does a part add, on average?", MORE["shapley"]),
    # shares of the score
    "gradient_x_input": Method(
        14, "What does each pixel add, if all is linear?", Costly(gradient_x_input)
    ),
    "integrated_gradients": Method(
        11, "What does each pixel add, on the way from black?", MORE["integrated_gradients"]
    ),
    "simple_taylor": Method(14, "What parts it from a picture of score 0?", MORE["simple_taylor"]),
    "fullgrad": Method(12, "What do pixels and biases add, place by place?", MORE["fullgrad"]),
    "lrp": Method(14, "How is the score shared out, layer by layer?", MORE["lrp"]),
    "lrp_epsilon": Method(14, "… by what each input adds", MORE["lrp_epsilon"]),
    "lrp_alpha_beta": Method(14, "… for and against kept apart", MORE["lrp_alpha_beta"]),
    "lrp_epsilon_gamma_box": Method(
        14, "… favouring what speaks for it", MORE["lrp_epsilon_gamma_box"]
    ),
    # controls
    "sobel_edges": Method(23, "control: Where are edges?", _control("sobel_edges")),
    "centred_gaussian": Method(23, "control: Where is the middle?", _control("centred_gaussian")),
    "uniform": Method(23, "control: nothing", _control("uniform")),
}
"""All methods of the course with a map of one picture, in the order of the page."""

NOTES = {
    "unit_deconvnet": "not in the benchmark: it knows no class",
    "cam": "not in the benchmark: on such nets Grad-CAM is its positive part",
    "uniform": "flat: it has no order to compare",
}
"""Why a method has no number where others have one."""


# ------------------------------------------------------------ measuring


class Passes(NamedTuple):
    """For one image: the images that the net answers, and the signals that leave its logits."""

    forwards: float
    backwards: float


class Scenes(NamedTuple):
    """Pictures that show objects of two classes each: their ids, N×C×H×W, and N of each class."""

    ids: list[int]
    pictures: Tensor
    one: list[int]
    other: list[int]


def scenes(model: nets.Classifier, coco: Coco, count: int) -> Scenes:
    """The first `count` scenes with objects of two categories or more, as the net sees them."""
    ids = [i for i in coco.image_ids() if len(coco.objects(i)) > 1][:count]
    classes, rows = class_targets(model), []
    for i in ids:
        names = coco.objects(i)[:2]
        picture, _ = load_unit(coco, i, names[0], model.input_size)
        with torch.no_grad():
            logits = model(picture[None])
        rows.append((picture, *(int(best_of([classes[name]])(logits)) for name in names)))
    pictures, one, other = zip(*rows, strict=True)
    return Scenes(ids, torch.stack(pictures), list(one), list(other))


def passes(
    method: Costly, model: nn.Module, x: Tensor, target: Target, layer: str
) -> tuple[Tensor, Passes]:
    """The method's map, and how many passes through the net it took for each image of `x`.

    A forward pass is one image that the net answers, however the method puts them into batches;
    also where `vislib.explain._crops` computes only a part of it anew. A backward pass is one signal that
    leaves the logits of one image, whether it is followed down to the pixels or only to a layer.
    What a rule of LRP computes inside a layer is not counted.
    """
    forwards = backwards = 0

    def left(signal: Tensor) -> None:
        nonlocal backwards
        backwards += len(signal)

    def answered(module: nn.Module, inputs: Any, logits: Tensor) -> None:
        nonlocal forwards
        forwards += len(logits)
        if logits.requires_grad:
            logits.register_hook(left)

    handle = model.register_forward_hook(answered)
    try:
        maps = method(model, x, target, layer)
    finally:
        handle.remove()
    return maps, Passes(forwards / len(x), backwards / len(x))


def random_nets(model: nn.Module, x: Tensor) -> dict[str, list[nn.Module]]:
    """Copies of the model with new weights, `RANDOM_NETS` for each check: in the last layer (the
    first step of `sanity.randomised`), and in all layers (its last step)."""
    copies: dict[str, list[nn.Module]] = {"last_random": [], "all_random": []}
    for seed in range(RANDOM_NETS):
        steps = [net for _, net in sanity.randomised(model, x, seed=seed)]
        copies["last_random"].append(steps[0])
        copies["all_random"].append(steps[-1])
    return copies


def examine(
    method: Costly,
    model: nn.Module,
    randoms: Mapping[str, Sequence[nn.Module]],
    x: Tensor,
    classes: Sequence[int],
    layer: str,
) -> dict[str, float]:
    """Passes and likenesses for one image. NaN where a map is flat, for it has no order."""
    learnt, took = passes(method, model, x, classes[0], layer)
    other = method(model, x, classes[1], layer)
    row = {
        **took._asdict(),
        "two_classes": rank_correlation(learnt, other, absolute=False).item(),
    }
    for check, copies in randoms.items():
        maps = torch.cat([method(net, x, classes[0], layer) for net in copies])
        row[check] = rank_correlation(learnt.expand_as(maps), maps).nanmean().item()
    return row


def measure(
    net: str,
    found: Scenes,
    *,
    methods: Sequence[str] = (),
    many: int = 10,
    few: int = 16,
) -> pd.DataFrame:
    """Run methods on scenes: one record for each of both.

    Args:
        net: a name for `nets.load`.
        found: see `scenes`.
        methods: names in `METHODS`, all by default.
        many: passes for one map. A method that needs more sees only
        few: scenes, the first ones.

    Returns:
        A data frame with the columns `net`, `method`, `image_id`, `forwards`, `backwards`, those of
        `CHECKS`, and `note`: why a method does not explain this net, in one record without numbers.
    """
    import pandas as pd

    model = nets.load(net)
    layer = last_conv_stage(model, found.pictures)
    randoms = random_nets(model, found.pictures)
    records: list[dict[str, Any]] = []
    for name in methods or METHODS:
        for number, (i, x, *classes) in enumerate(zip(*found, strict=True)):
            row: dict[str, Any] = {"net": net, "method": name, "image_id": i}
            try:
                row |= examine(METHODS[name].run, model, randoms, x[None], classes, layer)
            except ValueError as error:
                records.append({**row, "note": str(error)})
                break
            records.append(row)
            if row["forwards"] + row["backwards"] > many and number + 1 == few:
                break
    columns = ["net", "method", "image_id", *Passes._fields, *CHECKS, "note"]
    return pd.DataFrame(records, columns=columns)


# ------------------------------------------------------------ the page


class Share(NamedTuple):
    """Mean P over the records of a benchmark, and the ends of its 95 % interval."""

    P: float
    low: float
    high: float


def stored_shares(net: str, folder: str | Path = DATA / "benchmark") -> dict[str, Share]:
    """Mean P of each method on a net, from the stored run of the benchmark with all methods.

    Empty for a net that the run did not use. `InputError` where the file is not there or damaged.
    """
    import pandas as pd

    file = Path(folder) / "all_methods.parquet"
    try:
        records = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read ({error}): copy it again from a whole course"
        ) from error
    if net not in set(records["net"]):
        return {}
    summary = report.table(records[records["net"].isin([net, NO_NET])])
    rows = summary[summary["view"] == "all"].to_dict("records")
    return {row["method"]: Share(row["mean_P"], row["low"], row["high"]) for row in rows}


def page(
    records: pd.DataFrame, net: str, shares: Mapping[str, Share] | None = None
) -> pd.DataFrame:
    """Put the records of a net together: one row for each method, by its name.

    Args:
        records: as `measure` gives them, of one or several nets.
        net: the net to speak of. A method that cannot explain it is taken from the first other net
            that it can explain; `note` says which.
        shares: P by the method's name, see `stored_shares`.

    Returns:
        A data frame with `notebook` and `question`; `forwards` and `backwards`, means over the
        scenes; for each of `CHECKS` the mean likeness (`two_classes`), the ends of its 95 %
        interval (`two_classes_low`, `two_classes_high`) and the `verdict` on it
        (`two_classes_verdict`);
        `P`, `low`, `high`; `note`, why something is missing.
    """
    import pandas as pd

    explained = records[records["note"].isna()]
    rows = []
    for name, method in METHODS.items():
        own, notes = explained[explained["method"] == name], []
        part = own[own["net"] == net]
        if part.empty and len(own):
            other = own["net"].iloc[0]
            part = own[own["net"] == other]
            notes.append(f"passes and checks on {other}")
        row: dict[str, Any] = {"method": name, **method._asdict()}
        row |= {count: part[count].mean() for count in Passes._fields}
        for check in CHECKS:
            told = part[part[check].notna()]
            row[f"{check}_verdict"] = ""
            if len(told):
                values = told[check].to_numpy()
                low, high = bootstrap_interval(values, told["image_id"].to_numpy())
                row |= {check: values.mean(), f"{check}_low": low, f"{check}_high": high}
                row[f"{check}_verdict"] = verdict(low, high)
        if shares and name in shares:
            row |= shares[name]._asdict()
        notes += [NOTES[name]] if name in NOTES else []
        rows.append({**row, "note": "; ".join(notes)})
    columns = ["method", "notebook", "question", *Passes._fields]
    for check in CHECKS:
        columns += [check, *(f"{check}_{what}" for what in ("low", "high", "verdict"))]
    return pd.DataFrame(rows, columns=[*columns, *Share._fields, "note"]).set_index("method")


def verdict(low: float, high: float) -> str:
    """ "✓" if the interval of a likeness lies below `ALIKE`, "✗" if above, "?" if it holds it."""
    return "✓" if high < ALIKE else "✗" if low > ALIKE else "?"


def markdown(rows: pd.DataFrame) -> str:
    """A `page` for reading, in Markdown, with the notes below; a dash for what is not known.

    Passes are forward + backward, and P stands with half the width of its interval.
    """
    titles = [check.replace("_", " ") for check in CHECKS]
    head = ["method", "nb", "question", "passes", *titles, "P"]
    lines = [_line(head), _line(["---"] * len(head))]
    notes: list[str] = []
    for name, row in rows.iterrows():
        title = readable(str(name))
        if row["note"]:
            mark = f"({chr(ord('a') + len(notes))})"
            notes.append(f"{mark} {title}: {row['note']}.")
            title += f" {mark}"
        passes = f"{_number(row['forwards'], 0)} + {_number(row['backwards'], 0)}"
        checks = [f"{_number(row[check])} {row[f'{check}_verdict']}".strip() for check in CHECKS]
        share = f"{_number(row['P'])} ± {_number((row['high'] - row['low']) / 2)}"
        lines.append(
            _line(
                [
                    title.replace(" ", NO_BREAK),
                    f"{row['notebook']:02d}",
                    row["question"],
                    passes.replace(" ", NO_BREAK) if row["forwards"] >= 0 else DASH,
                    *(check.replace(" ", NO_BREAK) for check in checks),
                    share.replace(" ", NO_BREAK) if row["P"] >= 0 else DASH,
                ]
            )
        )
    return "\n".join([*lines, "", " ".join(notes)]).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def readable(name: str) -> str:
    """`report.readable` for the methods that are not in the benchmark, too."""
    return {"cam": "CAM", "unit_deconvnet": "deconvnet of a unit"}.get(name, report.readable(name))


def _number(value: float, digits: int = 2) -> str:
    if value != value:
        return DASH
    return f"{value + 0.0:.{digits}f}".replace("-0.00", "0.00").replace("-", "−")
