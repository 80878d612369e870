"""Checks for the exercises of notebook 09, class activation maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vislib.checks import Exercise, Wrong, call, same
from vislib.maps import upsample
from vislib.measure.localisation import Box, bounding_box, box, iou

# --- The maps of all classes, and the scores ------------------------------------------------------


def _class_maps(features: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("ck,khw->chw", weight, features)


class_maps = Exercise(
    task="``class_maps(features, weight)``: the maps of all classes, K×h×w and C×K to C×h×w.",
    inputs=lambda: (
        (torch.randn(k, h, w).relu(), torch.randn(c, k))
        for k, c, h, w in [(5, 4, 3, 6), (4, 7, 5, 2)]
    ),
    solution=_class_maps,
    what="the C×h×w block of maps",
    mistakes={
        "Sum the weighted maps; do not average them": (
            lambda features, weight: _class_maps(features, weight) / len(features)
        ),
        "Keep both signs: a negative value is evidence against the class": (
            lambda features, weight: _class_maps(features, weight).relu()
        ),
        "The maps are not weighted yet: multiply map k by the weight w_ck before you sum": (
            lambda features, weight: _class_maps(features, torch.ones_like(weight))
        ),
        "The sum runs over the maps k, not over the positions": (
            lambda features, weight: weight @ features.sum(dim=(1, 2))
        ),
        "Each class has its own map: this is one map for all classes together": (
            lambda features, weight: _class_maps(features, weight).sum(dim=0)
        ),
        "The weighted maps are still separate: sum over k": (
            lambda features, weight: weight[:, :, None, None] * features
        ),
        "The axes of the positions are swapped: the result is C×h×w": (
            lambda features, weight: _class_maps(features, weight).transpose(1, 2)
        ),
        "The class axis comes first: the result is C×h×w": (
            lambda features, weight: _class_maps(features, weight).movedim(0, -1)
        ),
    },
    praise="One map for every class, in one line.",
)


scores = Exercise(
    task="``scores(maps, bias)``: the logits of a GAP network, C×h×w and C to C.",
    inputs=lambda: ((torch.randn(c, h, w), torch.randn(c)) for c, h, w in [(4, 3, 5), (7, 2, 6)]),
    solution=lambda maps, bias: maps.mean(dim=(1, 2)) + bias,
    what="the score",
    mistakes={
        "GAP is the mean over the positions, not their sum": (
            lambda maps, bias: maps.sum(dim=(1, 2)) + bias
        ),
        "The bias is missing": lambda maps, bias: maps.mean(dim=(1, 2)),
        "This is GMP, the maximum: GAP takes the mean": (
            lambda maps, bias: maps.amax(dim=(1, 2)) + bias
        ),
        "Add the bias; do not subtract it": lambda maps, bias: maps.mean(dim=(1, 2)) - bias,
        "The mean runs over all positions, and not over the classes": (
            lambda maps, bias: maps.mean(dim=0)
        ),
        "Both signs count: the score has no ReLU": (
            lambda maps, bias: maps.relu().mean(dim=(1, 2)) + bias
        ),
        "The bias is counted once for each class, not once for each position": (
            lambda maps, bias: maps.mean(dim=(1, 2)) + maps[0].numel() * bias
        ),
        "These are probabilities: the score is before the softmax": (
            lambda maps, bias: (maps.mean(dim=(1, 2)) + bias).softmax(0)
        ),
    },
    praise="The score is the mean of the map, plus the bias.",
)


# --- From a map to its box ------------------------------------------------------------------------


def _above(cam_map: Tensor, threshold: float) -> np.ndarray:
    """Pixels above the fraction `threshold` of the maximum."""
    return (cam_map > threshold * cam_map.max()).numpy()


def _parts(mask: np.ndarray, corners: bool = True) -> np.ndarray:
    """Number of the connected part at each pixel; with `corners`, corners connect pixels."""
    from scipy.ndimage import label

    return label(mask, structure=np.ones((3, 3)) if corners else None)[0]


def _largest(mask: np.ndarray, corners: bool = True) -> Box:
    """Bounding box of the largest connected part."""
    parts = _parts(mask, corners)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    return bounding_box(mask & (parts == areas.argmax()))


def _part_of_the_peak(cam_map: Tensor, threshold: float) -> Box:
    parts = _parts(_above(cam_map, threshold))
    return bounding_box(parts == parts.flat[int(cam_map.argmax())])


def _written_as(form: Callable[..., Box]) -> Callable[[Tensor, float], Box]:
    """Function that finds the right box and returns it in another form."""
    return lambda cam_map, threshold: form(*box(cam_map, threshold))


def _cut_by(cut: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float], Box]:
    """Function that finds the largest part of another mask."""
    return lambda cam_map, threshold: _largest(cut(cam_map, threshold).numpy())


# Masks with another threshold than the fraction t of the maximum of the values v.
_CUTS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "The threshold is a fraction of the maximum, not a value of the map": lambda v, t: v > t,
    "The threshold is a fraction of the maximum, not of the range from minimum to maximum": (
        lambda v, t: v > v.min() + t * (v.max() - v.min())
    ),
    "Negative values are evidence against the class: do not take absolute values": (
        lambda v, t: v.abs() > t * v.abs().max()
    ),
}


def _hills() -> tuple[Tensor, float]:
    """Signed map of 24×32 with several hills, of which the highest is not the broadest."""
    small = torch.randn(1, 1, 5, 6)
    cam_map = upsample(small, (24, 32))[0, 0]
    peak = torch.randint(2, 22, (2,)).tolist()
    cam_map[peak[0] : peak[0] + 2, peak[1] : peak[1] + 2] += 2
    return cam_map, float(np.random.default_rng().uniform(0.2, 0.4))


def _hills_with_one_largest_part() -> tuple[Tensor, float]:
    """`_hills` with one largest part, which is the same if corners do not connect pixels."""
    while True:
        cam_map, threshold = _hills()
        above = _above(cam_map, threshold)
        areas = np.bincount(_parts(above).ravel())[1:]
        masks = [above, *(cut(cam_map, threshold).numpy() for cut in _CUTS.values())]
        corners_matter = any(_largest(mask) != _largest(mask, False) for mask in masks)
        if (areas == areas.max()).sum() == 1 and not corners_matter:
            return cam_map, threshold


def _no_value_above_zero(function: Callable[..., Any]) -> None:
    """Check that maps without a positive value get the empty box."""
    for empty in (-torch.rand(6, 9), torch.zeros(6, 9)):
        try:
            same(call(function, empty, 0.2), (0, 0, 0, 0), what="the result")
        except Wrong as error:
            raise Wrong(
                f"A map with no value above zero has the box (0, 0, 0, 0): {error}"
            ) from error


box_of = Exercise(
    task="``box_of(cam_map, threshold)``: from a map to its box, H×W to (x, y, width, height).",
    inputs=lambda: [_hills_with_one_largest_part] * 4,
    solution=box,
    what="(x, y, width, height)",
    mistakes={
        "Only the largest connected part counts, not all pixels above the threshold": (
            lambda cam_map, threshold: bounding_box(_above(cam_map, threshold))
        ),
        "Take the part with the most pixels, not the one with the highest value": (
            _part_of_the_peak
        ),
        "Take the largest part, not the first": (
            lambda cam_map, threshold: bounding_box(_parts(_above(cam_map, threshold)) == 1)
        ),
        "Part 0 is the background: leave it out": (
            lambda cam_map, threshold: bounding_box(_parts(_above(cam_map, threshold)) == 0)
        ),
        "One is missing: from column 3 to column 5 there are three columns": _written_as(
            lambda x, y, width, height: (x, y, width - 1, height - 1)
        ),
        "These are the corners: the last two numbers are width and height": _written_as(
            lambda x, y, width, height: (x, y, x + width, y + height)
        ),
        "These are the corner pixels: the last two numbers are width and height, each one more "
        "than the difference": _written_as(
            lambda x, y, width, height: (x, y, x + width - 1, y + height - 1)
        ),
        "x comes before y, and x is the column": _written_as(
            lambda x, y, width, height: (y, x, height, width)
        ),
        **{advice: _cut_by(cut) for advice, cut in _CUTS.items()},
    },
    praise="The box is right, also where there is none.",
    distinct=True,
    extra=_no_value_above_zero,
)


# --- The overlap of two boxes ---------------------------------------------------------------------


def _sides(a: Box, b: Box) -> tuple[float, float]:
    """Width and height of the intersection; negative where the boxes are apart."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return across, down


def _intersection(a: Box, b: Box) -> float:
    across, down = _sides(a, b)
    return max(across, 0) * max(down, 0)


def _areas(a: Box, b: Box) -> tuple[float, float]:
    return a[2] * a[3], b[2] * b[3]


def _sides_not_clipped(a: Box, b: Box) -> float:
    across, down = _sides(a, b)
    return across * down / (sum(_areas(a, b)) - across * down)


def _as_corners(a: Box, b: Box) -> float:
    across = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    down = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return across * down / max(sum(_areas(a, b)) - across * down, 1)


def _plus_one(a: Box, b: Box) -> float:
    """IoU of boxes that are one pixel wider and higher."""
    return iou((a[0], a[1], a[2] + 1, a[3] + 1), (b[0], b[1], b[2] + 1, b[3] + 1))


def _pairs() -> Iterator[tuple[Box, Box]]:
    """Boxes that cross, one inside the other, side by side, and diagonal to each other."""
    rng = np.random.default_rng()
    for case in ("crossing", "inside", "apart", "diagonal"):
        # The ranges of x and y do not overlap, so that an exchange of x and y is noticed.
        x, y = int(rng.integers(8, 13)), int(rng.integers(14, 19))
        w, h = (int(v) for v in rng.integers(24, 33, 2))
        dx, dy = (int(v) for v in rng.integers(4, 9, 2))
        second = {
            "crossing": (x + dx, y - dy, w + 3, h - 5),
            "inside": (x + dx, y + dy, w - 2 * dx, h - 2 * dy),
            "apart": (x + w + dx, y + 2, w - 4, h + 5),
            "diagonal": (x + w + dx, y + h + dy, w - 7, h + 2),
        }
        yield (x, y, w, h), second[case]


overlap = Exercise(
    task="``overlap(a, b)``: the intersection over union of two boxes (x, y, width, height).",
    inputs=_pairs,
    solution=iou,
    what=lambda a, b: f"the IoU of {a} and {b}",
    mistakes={
        "Boxes that do not meet have an intersection of 0: clip each side at 0 before you "
        "multiply, or two negative sides give a positive product": _sides_not_clipped,
        "The sum of the areas counts the intersection twice, the union once": lambda a, b: (
            _intersection(a, b) / sum(_areas(a, b))
        ),
        "Divide by the union, not by the smaller box": (
            lambda a, b: _intersection(a, b) / min(_areas(a, b))
        ),
        "Divide by the union, not by the larger box": (
            lambda a, b: _intersection(a, b) / max(_areas(a, b))
        ),
        "This is Dice, twice the intersection over the sum of the areas": (
            lambda a, b: 2 * _intersection(a, b) / sum(_areas(a, b))
        ),
        "This is the intersection itself: divide by the union": _intersection,
        "The last two numbers are width and height, not the second corner": _as_corners,
        "Do not add 1: a box with width w ends before x + w": _plus_one,
    },
    praise="Intersection over union, also where nothing meets.",
)
