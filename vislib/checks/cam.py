"""Checks for the exercises of notebook 09, class activation maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vislib.checks import Wrong, call, right, same
from vislib.maps import upsample
from vislib.measure.localisation import Box, bounding_box, box, iou


def class_maps(function: Callable[..., Any]) -> None:
    """All maps at once: ``function(features, weight)``, K×h×w and C×K to C×h×w."""
    for k, c, h, w in [(5, 4, 3, 6), (4, 7, 5, 2)]:
        features, weight = torch.randn(k, h, w).relu(), torch.randn(c, k)
        expected = (weight[:, :, None, None] * features).sum(dim=1)
        mistakes = {
            "Add the weighted maps up; do not average them": expected / k,
            "Keep both signs: a negative place speaks against the class": expected.relu(),
            "The maps are not weighted yet: w belongs to the sum": (
                features.sum(dim=0).expand(c, h, w)
            ),
            "The sum runs over the maps k, not over the places": (
                weight @ features.sum(dim=(1, 2))
            ),
            "Each class needs a map of its own: this is one map for all classes together": (
                expected.sum(dim=0)
            ),
            "The maps are still apart: add up over k": weight[:, :, None, None] * features,
            "The places are swapped: the result is C×h×w": expected.transpose(1, 2),
            "The class comes first: C×h×w": expected.movedim(0, -1),
        }
        found = call(function, features, weight)
        same(found, expected, what="the C×h×w block of maps", mistakes=mistakes)
    right("One map for every class, in one line.")


def scores(function: Callable[..., Any]) -> None:
    """The logits of a GAP net from its maps: ``function(maps, bias)``, C×h×w and C to C."""
    for c, h, w in [(4, 3, 5), (7, 2, 6)]:
        maps, bias = torch.randn(c, h, w), torch.randn(c)
        mean = maps.mean(dim=(1, 2))
        mistakes = {
            "GAP is the mean over the places, not their sum": maps.sum(dim=(1, 2)) + bias,
            "The bias is missing": mean,
            "This is GMP, the maximum: GAP takes the mean": maps.amax(dim=(1, 2)) + bias,
            "Subtracted: the bias is added": mean - bias,
            "The mean runs over all places, and not over the classes": maps.mean(dim=0),
            "Both signs count: there is no ReLU in the score": (
                maps.relu().mean(dim=(1, 2)) + bias
            ),
            "The bias is counted once for each class, not once for each place": (
                mean + h * w * bias
            ),
            "These are probabilities: the score is before the softmax": (mean + bias).softmax(0),
        }
        same(call(function, maps, bias), mean + bias, what="the score", mistakes=mistakes)
    right("The score is the mean of the map, plus the bias.")


def box_of(function: Callable[..., Any]) -> None:
    """From a map to its box: ``function(cam_map, threshold)``, H×W to (x, y, width, height)."""
    tried = 0
    while tried < 4:
        cam_map, threshold = _hills(), float(np.random.default_rng().uniform(0.2, 0.4))
        expected, mistakes = _boxes(cam_map, threshold)
        if len({expected, *mistakes.values()}) < 1 + len(mistakes):
            continue  # two mistakes would give the same box: take another map
        tried += 1
        found = call(function, cam_map, threshold)
        same(found, expected, what="(x, y, width, height)", mistakes=mistakes)
    for nothing in (-torch.rand(6, 9), torch.zeros(6, 9)):
        try:
            same(call(function, nothing, 0.2), (0, 0, 0, 0), what="the result")
        except Wrong as error:
            raise Wrong(
                f"A map with no value above zero has the box (0, 0, 0, 0): {error}"
            ) from error
    right("The box is right, also where there is none.")


def _hills() -> Tensor:
    """A signed map of 24×32 with several hills, the highest not the broadest."""
    small = torch.randn(1, 1, 5, 6)
    cam_map = upsample(small, (24, 32))[0, 0]
    peak = torch.randint(2, 22, (2,)).tolist()
    cam_map[peak[0] : peak[0] + 2, peak[1] : peak[1] + 2] += 2
    return cam_map


def _boxes(cam_map: Tensor, threshold: float) -> tuple[Box, dict[str, Box]]:
    """The right box of a map, and those that the usual mistakes give."""
    from scipy.ndimage import label

    values = cam_map.numpy()
    low, top = values.min(), values.max()
    above = values > threshold * top
    parts, _ = label(above, structure=np.ones((3, 3)))
    areas = np.sort(np.bincount(parts.ravel())[1:])
    in_range = values > low + threshold * (top - low)
    magnitude = np.abs(values) > threshold * np.abs(values).max()
    x, y, width, height = expected = box(cam_map, threshold)
    masks = (above, in_range, magnitude, values > threshold)
    if (areas == areas[-1]).sum() > 1 or any(_largest(m) != _largest(m, False) for m in masks):
        return expected, {"": expected}  # corners may count as connected or not: no matter here
    return expected, {
        "Only the largest connected part counts, not all that is above the threshold": (
            bounding_box(above)
        ),
        "Take the part with the most places, not the one with the highest": bounding_box(
            parts == parts[np.unravel_index(values.argmax(), values.shape)]
        ),
        "Take the largest part, not the first": bounding_box(parts == 1),
        "Part 0 is the background: leave it out": bounding_box(parts == 0),
        "One is missing: from column x to column x' there are x' − x + 1": (
            (x, y, width - 1, height - 1)
        ),
        "These are the corners: the last two numbers are width and height": (
            (x, y, x + width, y + height)
        ),
        "These are the corners: the last two numbers are width and height, and one more": (
            (x, y, x + width - 1, y + height - 1)
        ),
        "x comes first, and x is the column": (y, x, height, width),
        "The threshold is a share of the maximum, not a value of the map": _largest(
            values > threshold
        ),
        "The share is of the maximum, not of the range from the smallest value": _largest(in_range),
        "What is negative speaks against the class: no absolute value": _largest(magnitude),
    }


def _largest(mask: np.ndarray, corners: bool = True) -> Box:
    from scipy.ndimage import label

    parts, _ = label(mask, structure=np.ones((3, 3)) if corners else None)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    return bounding_box(mask & (parts == areas.argmax()))


def overlap(function: Callable[..., Any]) -> None:
    """Intersection over union of two boxes, ``function(a, b)``, both (x, y, width, height)."""
    rng = np.random.default_rng()
    for case in ("crossing", "inside", "apart", "diagonal"):
        a, b = _pair(rng, case)
        across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
        down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        both, areas = max(across, 0) * max(down, 0), (a[2] * a[3], b[2] * b[3])
        as_corners = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
        as_corners *= max(min(a[3], b[3]) - max(a[1], b[1]), 0)
        plus_one = max(across + 1, 0) * max(down + 1, 0)
        sizes = (a[2] + 1) * (a[3] + 1) + (b[2] + 1) * (b[3] + 1)
        mistakes = {
            "Boxes that do not meet have an intersection of 0: cut each side at 0 before you "
            "multiply, or two negative ones give a positive product": (
                across * down / (sum(areas) - across * down)
            ),
            "The union counts the intersection once: areas of both, minus the intersection": (
                both / sum(areas)
            ),
            "Divide by the union, not by the smaller box": both / min(areas),
            "Divide by the union, not by the larger box": both / max(areas),
            "Divide by the union, not by the first box": both / areas[0],
            "Divide by the union, not by the second box": both / areas[1],
            "This is Dice, twice the intersection over the sum of the areas": (
                2 * both / sum(areas)
            ),
            "This is the intersection itself: divide by the union": both,
            "The last two numbers are width and height, not the second corner": (
                as_corners / max(sum(areas) - as_corners, 1)
            ),
            "No + 1 here: a box with width w ends before x + w": (
                plus_one / max(sizes - plus_one, 1)
            ),
        }
        same(call(function, a, b), iou(a, b), what=f"IoU (boxes {case})", mistakes=mistakes)
    right("Intersection over union, also where nothing meets.")


def _pair(rng: np.random.Generator, case: str) -> tuple[Box, Box]:
    x, y = int(rng.integers(8, 13)), int(rng.integers(14, 19))  # not the same
    w, h = (int(v) for v in rng.integers(24, 33, 2))
    dx, dy = (int(v) for v in rng.integers(4, 9, 2))
    second = {
        "crossing": (x + dx, y - dy, w + 3, h - 5),
        "inside": (x + dx, y + dy, w - 2 * dx, h - 2 * dy),
        "apart": (x + w + dx, y + 2, w - 4, h + 5),
        "diagonal": (x + w + dx, y + h + dy, w - 7, h + 2),
    }
    return (x, y, w, h), second[case]
