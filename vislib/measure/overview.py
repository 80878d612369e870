"""One page for all methods: the question of each, its cost, and its results in four checks.

The questions are those of the registry. Everything else is measured (`measure`, one record for each
method and scene), with the settings that a method has in the registry, and collected by `page`:

* **passes**: how many images go through the network for one attribution map, and how many signals
  are propagated back from its logits (`passes`);
* **two classes**: the rank correlation of the maps of two classes that are both in the scene. A
  method that gives the same map for both cannot tell which part speaks for which class;
* **last random** and **all random**: the rank correlation of the map's absolute values before and
  after the weights of the last layer, or of all layers, were made random (the first and the last
  step of Adebayo et al. 2018, "Sanity Checks for Saliency Maps"), as a mean over several draws of
  the weights. A map that stays the same does not show what the network has learnt;
* **P**: the mean fraction of energy on the object, from the stored benchmark (`stored_energy`).

Two maps are called similar above a rank correlation of `SIMILAR`. A verdict needs the whole 95 %
interval over the scenes on one side of that value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from vislib import nets
from vislib.core import Target
from vislib.data.coco import Coco
from vislib.data.objects import load_unit
from vislib.errors import InputError
from vislib.layers import last_conv_stage
from vislib.maps import rank_correlation
from vislib.measure import report, sanity
from vislib.measure.benchmark import NO_NET
from vislib.measure.methods import KINDS, METHODS, Method, title_of
from vislib.measure.statistics import bootstrap_interval
from vislib.nets import best_of, class_targets
from vislib.paths import DATA

if TYPE_CHECKING:
    import pandas as pd

SIMILAR = 0.5  # rank correlation above which two maps are called similar
RANDOM_NETS = 3  # draws of random weights
CHECKS = ("two_classes", "last_random", "all_random")
NO_BREAK, DASH = "\u00a0", "–"
MEASURED = DATA / "benchmark" / "overview.parquet"  # written by data/make/store_overview.py

# The methods in the order of the page: by kind of question, as in the registry.
ORDER = sorted(METHODS, key=lambda name: KINDS.index(METHODS[name].kind))


# --- Measuring ------------------------------------------------------------------------------------


class Passes(NamedTuple):
    """The cost of one attribution map.

    Attributes:
        forwards: images that go through the network.
        backwards: signals that are propagated back from its logits.
    """

    forwards: float
    backwards: float


class Scenes(NamedTuple):
    """Images that show objects of two classes each.

    Attributes:
        ids: N image ids.
        images: N×C×H×W.
        one: the first class of each image, N indices.
        other: the second class of each image, N indices.
    """

    ids: list[int]
    images: Tensor
    one: list[int]
    other: list[int]


def scenes(model: nets.Classifier, coco: Coco, count: int) -> Scenes:
    """The first `count` scenes with objects of two or more categories.

    Args:
        model: the network that gives the size of the images and the class of each category.
        coco: the data.
        count: the number of scenes.
    """
    ids = [i for i in coco.image_ids() if len(coco.objects(i)) > 1][:count]
    classes, rows = class_targets(model), []
    for i in ids:
        names = coco.objects(i)[:2]
        image, _ = load_unit(coco, i, names[0], model.input_size)
        with torch.no_grad():
            logits = model(image[None])
        rows.append((image, *(int(best_of([classes[name]])(logits)) for name in names)))
    images, one, other = zip(*rows, strict=True)
    return Scenes(ids, torch.stack(images), list(one), list(other))


def passes(
    method: Method, model: nn.Module, x: Tensor, target: Target, layer: str
) -> tuple[Tensor, Passes]:
    """The method's maps, and the passes through the network that it took for each image of `x`.

    A forward pass is one image that goes through the network, however the method forms batches, and
    also where occlusion computes only a part of it. A backward pass is one signal that leaves the
    logits of one image, whether it is propagated to the pixels or only to a layer. What a rule of
    LRP computes inside a layer is not counted.

    Args:
        method: an entry of the registry.
        model, x, target: as in `vislib.explain.gradients`.
        layer: the layer for class activation maps.
    """
    forwards = backwards = 0

    def count_backward(signal: Tensor) -> None:
        nonlocal backwards
        backwards += len(signal)

    def count_forward(module: nn.Module, inputs: Any, logits: Tensor) -> None:
        nonlocal forwards
        forwards += len(logits)
        if logits.requires_grad:
            logits.register_hook(count_backward)

    handle = model.register_forward_hook(count_forward)
    try:
        maps = method(model, x, target, layer)
    finally:
        handle.remove()
    return maps, Passes(forwards / len(x), backwards / len(x))


def random_nets(model: nn.Module, x: Tensor) -> dict[str, list[nn.Module]]:
    """`RANDOM_NETS` copies of the model with new weights for each check: in the last layer (the
    first step of `sanity.randomised`), and in all layers (its last step)."""
    copies: dict[str, list[nn.Module]] = {"last_random": [], "all_random": []}
    for seed in range(RANDOM_NETS):
        steps = [net for _, net in sanity.randomised(model, x, seed=seed)]
        copies["last_random"].append(steps[0])
        copies["all_random"].append(steps[-1])
    return copies


def examine(
    method: Method,
    model: nn.Module,
    randoms: Mapping[str, Sequence[nn.Module]],
    x: Tensor,
    classes: Sequence[int],
    layer: str,
) -> dict[str, float]:
    """Passes and rank correlations for one image. NaN if a map is constant, for it has no order.

    Args:
        method: an entry of the registry.
        model: the trained network.
        randoms: as `random_nets` gives them.
        x: 1×C×H×W.
        classes: two classes that the image shows.
        layer: the layer for class activation maps.
    """
    trained, cost = passes(method, model, x, classes[0], layer)
    other = method(model, x, classes[1], layer)
    row = {
        **cost._asdict(),
        "two_classes": rank_correlation(trained, other, absolute=False).item(),
    }
    for check, copies in randoms.items():
        maps = torch.cat([method(net, x, classes[0], layer) for net in copies])
        row[check] = rank_correlation(trained.expand_as(maps), maps).nanmean().item()
    return row


def measure(
    net: str,
    scenes: Scenes,
    *,
    methods: Sequence[str] = (),
    max_passes: int = 10,
    max_scenes: int = 16,
) -> pd.DataFrame:
    """Examine methods on scenes: one record for each method and scene.

    Args:
        net: a name for `nets.load`.
        scenes: as the function `scenes` gives them.
        methods: names in the registry, all by default.
        max_passes: a method that needs more passes for one map sees only `max_scenes` scenes.
        max_scenes: how many scenes such a method sees, the first ones.

    Returns:
        A data frame with the columns `net`, `method`, `image_id`, `forwards`, `backwards`, those of
        `CHECKS`, and `note`: the reason why a method cannot explain this network, in one record
        without numbers.
    """
    import pandas as pd

    model = nets.load(net)
    layer = last_conv_stage(model, scenes.images)
    randoms = random_nets(model, scenes.images)
    records: list[dict[str, Any]] = []
    for name in methods or ORDER:
        for number, (i, x, *classes) in enumerate(zip(*scenes, strict=True)):
            row: dict[str, Any] = {"net": net, "method": name, "image_id": i}
            try:
                row |= examine(METHODS[name], model, randoms, x[None], classes, layer)
            except ValueError as error:
                records.append({**row, "note": str(error)})
                break
            records.append(row)
            if row["forwards"] + row["backwards"] > max_passes and number + 1 == max_scenes:
                break
    columns = ["net", "method", "image_id", *Passes._fields, *CHECKS, "note"]
    return pd.DataFrame(records, columns=columns)


# --- The page -------------------------------------------------------------------------------------


class MeanP(NamedTuple):
    """Mean P over the records of a benchmark, with its interval.

    Attributes:
        P: the mean, 0 to 1.
        low, high: the ends of its 95 % interval.
    """

    P: float
    low: float
    high: float


def stored_energy(net: str, folder: str | Path = DATA / "benchmark") -> dict[str, MeanP]:
    """Mean P of each method on a network, from the stored benchmark with all methods.

    Args:
        net: the network's name. The result is empty for one that the benchmark did not use.
        folder: where the stored benchmark is.

    Raises:
        InputError: the file is missing or damaged.
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
    return {row["method"]: MeanP(row["mean_P"], row["low"], row["high"]) for row in rows}


def page(
    records: pd.DataFrame, net: str, energies: Mapping[str, MeanP] | None = None
) -> pd.DataFrame:
    """Collect the records of a network: one row for each method, by its name.

    Args:
        records: as `measure` gives them, of one or several networks.
        net: the network of the page. For a method that cannot explain it, the numbers are those of
            the first network that it can explain; `note` says which.
        energies: P by the method's name, see `stored_energy`.

    Returns:
        A data frame with `notebook` and `question`; `forwards` and `backwards`, means over the
        scenes; for each of `CHECKS` the mean rank correlation (`two_classes`), the ends of its 95 %
        interval (`two_classes_low`, `two_classes_high`) and the `verdict` on it
        (`two_classes_verdict`); `P`, `low`, `high`; and `note`, the reason for missing numbers.
    """
    import pandas as pd

    explained = records[records["note"].isna()]
    rows = []
    for name in ORDER:
        method = METHODS[name]
        own, notes = explained[explained["method"] == name], []
        part = own[own["net"] == net]
        if part.empty and len(own):
            other = own["net"].iloc[0]
            part = own[own["net"] == other]
            notes.append(f"passes and checks on {other}")
        row: dict[str, Any] = {
            "method": name,
            "notebook": method.notebook,
            "question": method.question,
        }
        row |= {count: part[count].mean() for count in Passes._fields}
        for check in CHECKS:
            row |= _checked(part, check)
        if energies and name in energies:
            row |= energies[name]._asdict()
        notes += [NOTES[name]] if name in NOTES else []
        rows.append({**row, "note": "; ".join(notes)})
    columns = ["method", "notebook", "question", *Passes._fields]
    for check in CHECKS:
        columns += [check, *(f"{check}_{what}" for what in ("low", "high", "verdict"))]
    return pd.DataFrame(rows, columns=[*columns, *MeanP._fields, "note"]).set_index("method")


def _checked(records: pd.DataFrame, check: str) -> dict[str, Any]:
    """Mean, interval and verdict of one check over the scenes, as far as it is defined."""
    defined = records[records[check].notna()]
    if not len(defined):
        return {f"{check}_verdict": ""}
    values = defined[check].to_numpy()
    low, high = bootstrap_interval(values, defined["image_id"].to_numpy())
    return {
        check: values.mean(),
        f"{check}_low": low,
        f"{check}_high": high,
        f"{check}_verdict": verdict(low, high),
    }


NOTES = {name: method.note for name, method in METHODS.items() if method.note} | {
    "uniform": "constant: it has no order to compare"
}
"""Why a method has no number where others have one."""


def verdict(low: float, high: float) -> str:
    """ "✓" for an interval of rank correlations below `SIMILAR`, "✗" above it, "?" if it contains
    it."""
    return "✓" if high < SIMILAR else "✗" if low > SIMILAR else "?"


def markdown(rows: pd.DataFrame) -> str:
    """A `page` for reading, in Markdown, with the notes below; a dash for an unknown number.

    Passes are written as forward + backward, and P with half the width of its interval.
    """
    titles = [check.replace("_", " ") for check in CHECKS]
    head = ["method", "nb", "question", "passes", *titles, "P"]
    lines = [_line(head), _line(["---"] * len(head))]
    notes: list[str] = []
    for name, row in rows.iterrows():
        title = title_of(str(name))
        if row["note"]:
            mark = f"({chr(ord('a') + len(notes))})"
            notes.append(f"{mark} {title}: {row['note']}.")
            title += f" {mark}"
        count = f"{_number(row['forwards'], 0)} + {_number(row['backwards'], 0)}"
        checks = [f"{_number(row[check])} {row[f'{check}_verdict']}".strip() for check in CHECKS]
        mean = f"{_number(row['P'])} ± {_number((row['high'] - row['low']) / 2)}"
        lines.append(
            _line(
                [
                    title.replace(" ", NO_BREAK),
                    row["notebook"],
                    row["question"],
                    count.replace(" ", NO_BREAK) if row["forwards"] >= 0 else DASH,
                    *(check.replace(" ", NO_BREAK) for check in checks),
                    mean.replace(" ", NO_BREAK) if row["P"] >= 0 else DASH,
                ]
            )
        )
    return "\n".join([*lines, "", " ".join(notes)]).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float, digits: int = 2) -> str:
    if value != value:
        return DASH
    return f"{value + 0.0:.{digits}f}".replace("-0.00", "0.00").replace("-", "−")
