"""One page for all methods: the question of each method, its cost, and its results.

The questions are those of the registry. `measure` runs each method on each scene, with the settings
of the registry, and `page` collects its records:

* **passes**: the number of images that go through the network for one attribution map, and the
  number of signals that are propagated back from its logits (`passes`);
* **two classes**: the rank correlation of the maps of two classes that are both in the scene. If a
  method gives the same map for both, the map does not show which part is evidence for which class;
* **last random** and **all random**: the rank correlation of the map's absolute values before and
  after the last layer, or all layers, got random weights, as a mean over several draws of the
  weights. These are the first and the last step of Adebayo et al. 2018. A map that stays the same
  does not show what the network has learnt;
* **P**: the mean fraction of energy on the object, from the stored benchmark (`stored_energy`).

Two maps are called similar if their rank correlation is above `SIMILAR`. A verdict needs the whole
95 % interval over the scenes on one side of this value.

References:
    Adebayo et al. 2018, "Sanity Checks for Saliency Maps".
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

# The methods in the order of the page: by kind of question, then as in the registry.
ORDER = sorted(METHODS, key=lambda name: KINDS.index(METHODS[name].kind))


# --- Measurement ----------------------------------------------------------------------------------


class Passes(NamedTuple):
    """Cost of one attribution map.

    Attributes:
        forwards: number of images that go through the network.
        backwards: number of signals that are propagated back from its logits.
    """

    forwards: float
    backwards: float


class Scenes(NamedTuple):
    """Images, each with objects of two classes.

    Attributes:
        ids: N image ids.
        images: N×C×H×W in [0, 1].
        one: first class of each image, N indices.
        other: second class of each image, N indices.
    """

    ids: list[int]
    images: Tensor
    one: list[int]
    other: list[int]


def scenes(model: nets.Classifier, coco: Coco, count: int) -> Scenes:
    """First scenes of a data set with objects of two or more categories.

    Args:
        model: network whose input size the images get. Of the network's classes for a category, the
            one with the largest logit is chosen.
        coco: data set.
        count: largest number of scenes.
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
    """Attribution maps of a method, and the mean number of passes that an image of `x` needs.

    A forward pass is one image that goes through the network, in a batch of any size, also if
    occlusion computes only a part of the pass. A backward pass is one signal that leaves the logits
    of one image, whether it is propagated to the pixels or only to a layer. The computations of an
    LRP rule inside a layer are not counted.

    Args:
        method: entry of the registry.
        model, x, target: as in `vislib.explain.gradients`.
        layer: dotted name of the layer for class activation maps.
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
    """Copies of the model with random weights in the last layer and in all layers.

    These are the first and the last step of `sanity.randomised`.

    Args:
        model: trained network.
        x: images, N×C×H×W; the first one is used to find the order of the layers.

    Returns:
        `RANDOM_NETS` copies for each of the checks ``"last_random"`` and ``"all_random"``.
    """
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
    """Passes of a method and its rank correlations for one image, by the names of the columns.

    A rank correlation is NaN if a map is constant, because a constant map has no order.

    Args:
        method: entry of the registry.
        model: trained network.
        randoms: result of `random_nets`.
        x: image, 1×C×H×W.
        classes: two classes that the image shows.
        layer: dotted name of the layer for class activation maps.
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
    """Records of methods on scenes, one for each method and scene.

    Args:
        net: name for `nets.load`.
        scenes: result of the function `scenes`.
        methods: names in the registry (default: all).
        max_passes: a method that needs more passes for one map runs only on the first `max_scenes`
            scenes.
        max_scenes: number of scenes for such a method.

    Returns:
        A data frame with the columns `net`, `method`, `image_id`, `forwards`, `backwards`, those of
        `CHECKS`, and `note`. A method that cannot explain this network has one record without
        numbers, with the reason as its note.
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


# --- Page -----------------------------------------------------------------------------------------


class MeanP(NamedTuple):
    """Mean P over the records of a benchmark, with its interval.

    Attributes:
        P: mean, 0 to 1.
        low, high: ends of its 95 % interval.
    """

    P: float
    low: float
    high: float


def stored_energy(net: str, folder: str | Path = DATA / "benchmark") -> dict[str, MeanP]:
    """Mean P of each method on a network, from the stored benchmark with all methods.

    Args:
        net: name of the network. The result is empty if the benchmark did not use this network.
        folder: folder of the stored benchmark.

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
    """Page of a network: a table with one row for each method, by its name.

    Args:
        records: result of `measure` for one or several networks.
        net: network of the page. For a method that cannot explain this network, the numbers are
            those of the first network that it can explain; `note` names that network.
        energies: mean P by the name of the method, see `stored_energy`.

    Returns:
        A data frame with `notebook` and `question`; `forwards` and `backwards`, means over the
        scenes; for each of `CHECKS` the mean rank correlation (`two_classes`), the ends of its 95 %
        interval (`two_classes_low`, `two_classes_high`) and its `verdict` (`two_classes_verdict`);
        `P`, `low`, `high`; and `note`, the reason for missing numbers.
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
"""Reasons for missing numbers, by the name of the method."""


def verdict(low: float, high: float) -> str:
    """Mark of an interval of rank correlations: "✓" below `SIMILAR`, "✗" above, "?" across it."""
    return "✓" if high < SIMILAR else "✗" if low > SIMILAR else "?"


def markdown(rows: pd.DataFrame) -> str:
    """`page` as Markdown, with the notes below the table and a dash for a missing number.

    Passes are written as forward + backward, and P as mean ± half the width of its interval.
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
