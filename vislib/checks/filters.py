"""Checks for notebook 05."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vislib.checks import Wrong, call, right, same
from vislib.features import ReceptiveField, filter_pictures


def filter_tiles(function: Callable[..., Any]) -> None:
    """K×3×k×k weights as pictures in [0, 1], zero grey: ``function(weights)``."""
    for k in (3, 7):
        weights = torch.randn(5, 3, k, k) * torch.tensor([0.1, 1, 3, 0.5, 2]).view(-1, 1, 1, 1)
        weights[2] = weights[2].abs()  # a filter without negative weights
        weights[0, 0, 0, 0] = -2 * weights[0].abs().max()  # one whose strongest is negative
        expected = filter_pictures(weights)
        low = weights.amin(dim=(1, 2, 3), keepdim=True)
        high = weights.amax(dim=(1, 2, 3), keepdim=True)
        size = weights.abs().amax(dim=(1, 2, 3), keepdim=True)
        mistakes = {
            "From minimum to maximum, zero gets another grey in each filter: divide by the largest "
            "absolute value, and put zero at 0.5": (weights - low) / (high - low),
            "Each filter has its own largest weight; yours is the largest of all filters": (
                0.5 + 0.5 * weights / weights.abs().max()
            ),
            "Each channel by its own maximum changes the colours: one scale for a whole filter": (
                0.5 + 0.5 * weights / weights.abs().amax(dim=(2, 3), keepdim=True)
            ),
            "The largest weight is not the largest absolute value: negative ones may be larger": (
                0.5 + 0.5 * weights / high
            ),
            "The absolute value hides the sign": weights.abs() / size,
            "Values run from -1 to 1 so far: bring them to [0, 1], with zero at 0.5": weights
            / size,
            "Values run from 0 to 2 so far: halve the weights too": 0.5 + weights / size,
        }
        same(call(function, weights), expected, what="the tiles", mistakes=mistakes)
    zeros = call(function, torch.zeros(2, 3, 3, 3))
    same(zeros, torch.full((2, 3, 3, 3), 0.5), what="the tile of a filter of zeros")
    right("Zero is grey in every tile, and the strongest weight is fully light or dark.")


def dead_units(function: Callable[..., Any]) -> None:
    """Which units are above 0 nowhere, from N×K×h×w values: ``function(maps)`` → K truths."""
    for _ in range(3):
        maps = torch.randn(6, 8, 4, 5) - 0.5
        maps[:, [1, 4]] = -maps[:, [1, 4]].abs()  # dead
        maps[:, 4, 0, 0] = 0.0  # touches zero: dead too
        maps[1:, 2] = -maps[1:, 2].abs()  # alive in the first picture only
        maps[0, 2] = -1.0
        maps[0, 2, 3, 4] = 2.0
        maps[:, 5] = -3.0
        maps[2, 5, 1, 1] = 1.0  # alive at a single place
        maps[:, 6] = -2.0
        maps[0, 6] = 0.5  # alive in one picture, everywhere
        maps[:, 7] = maps[:, 7].abs() + 0.1
        maps[3, 7, 0, 1] = -0.1  # silent at a single place
        expected = maps.amax(dim=(0, 2, 3)) <= 0
        mistakes = {
            "A mean below 0 is not yet dead: one place above 0 is enough to learn from": (
                maps.mean(dim=(0, 2, 3)) <= 0
            ),
            "Those are the living ones: turn it round": ~expected,
            "One picture without an answer is not death: look at all pictures": (
                (maps.amax(dim=(2, 3)) <= 0).any(dim=0)
            ),
            "One place without an answer is not death: look at all places": (
                (maps <= 0).flatten(2).any(dim=2).any(dim=0)
            ),
            "Look at every place of the map, not at its mean": (
                maps.mean(dim=(2, 3)).amax(dim=0) <= 0
            ),
            "A unit whose largest value is exactly 0 is dead too: its ReLU passes no gradient": (
                maps.amax(dim=(0, 2, 3)) < 0
            ),
            "The answer is for each picture still: one truth for each unit": (
                maps.amax(dim=(2, 3)) <= 0
            ),
        }
        same(call(function, maps), expected, what="the list of dead units", mistakes=mistakes)
    right("A unit is dead if no place of any picture brings it above 0.")


def best_places(function: Callable[..., Any]) -> None:
    """k strongest places, one a picture: ``function(maps, k)``, N×h×w → [(picture, row, column)]"""
    for n, height, width in [(7, 4, 6), (8, 6, 3)]:
        maps = torch.randn(n, height, width)
        maps[5] += 5.0  # one picture holds all of the largest values
        maps[3] -= 9.0  # and one those with the largest absolute values
        k = 4
        value, index = maps.flatten(1).max(dim=1)
        order = value.argsort(descending=True)

        def places(numbers: Tensor, width: int = width, index: Tensor = index) -> Tensor:
            return torch.stack([numbers, index[numbers] // width, index[numbers] % width], dim=1)

        expected = places(order[:k])
        flat = maps.flatten().argsort(descending=True)[:k]
        within = flat % (height * width)
        crowded = [flat // (height * width), within // width, within % width]
        mistakes = {
            "One picture fills the list: take the best place of each picture first": (
                torch.stack(crowded, dim=1)
            ),
            "Those are the weakest pictures: sort from large to small": places(order.flip(0)[:k]),
            "The strongest comes first": places(order[:k].flip(0)),
            "The pictures are in the order of the stream: sort them by their best value": (
                places(torch.arange(k))
            ),
            "Row and column are swapped: row = index // width, column = index % width": (
                expected[:, [0, 2, 1]]
            ),
            "To get rows, divide by the width of the map, not by its height": (
                places(order[:k], height)
            ),
            "Return k of them, not all pictures": places(order),
            "The place in the whole batch: take index in each picture's own map": torch.stack(
                [order[:k], index[order[:k]], index[order[:k]]], dim=1
            ),
        }
        found = _triples(call(function, maps, k))
        same(found, expected, what="the list of places", mistakes=mistakes)
    right("The strongest place of each picture, and the strongest pictures first.")


def _triples(found: Any) -> list[Any]:
    try:
        triples = [tuple(one) for one in found]
        wrong = [one for one in triples if len(one) != 3]
    except TypeError:
        raise Wrong("Return a list of triples (picture, row, column)") from None
    if wrong or not triples:
        raise Wrong(f"Return triples (picture, row, column), not {(wrong or [()])[0]}")
    return triples


def crop(function: Callable[..., Any]) -> None:
    """The window of a unit: ``function(image, row, column, size, jump, start)`` → 3×size×size."""
    image = torch.rand(3, 20, 24)
    fields = [(9, 4, -3), (15, 3, -1)]  # the second hangs over much more on the right

    def cut(field: ReceptiveField, place: tuple[int, int], fill: float = 0.5) -> Tensor:
        # both fillings are as wide as any window can hang over
        padded = F.pad(image, (40, 40, 40, 40), value=fill)
        top, bottom, left, right = (edge + 40 for edge in field.box(*place))
        return padded[:, top:bottom, left:right]

    places = [(2, 3), (0, 0), (4, 5), (0, 5)]
    for (size, jump, start), place in itertools.product(fields, places):
        field = ReceptiveField((size, size), (jump, jump), (start, start))
        top, bottom, left, right_ = field.box(*place, (20, 24))
        inside = image[:, top:bottom, left:right_]
        late = torch.full((3, size, size), 0.5)
        late[:, : inside.shape[1], : inside.shape[2]] = inside
        expected = cut(field, place)
        mistakes = {
            "The first unit does not begin at pixel 0: add start": (
                cut(ReceptiveField((size, size), (jump, jump)), place)
            ),
            "Neighbouring units are jump pixels apart: multiply row and column by jump": (
                cut(ReceptiveField((size, size), (1, 1), (start, start)), place)
            ),
            "The window begins at start + row · jump; it is not centred there": (
                cut(ReceptiveField((size, size), (jump, jump), (start - size // 2,) * 2), place)
            ),
            "Row and column are swapped": cut(field, place[::-1]),
            "Fill what lies outside with 0.5, not with 0": cut(field, place, 0.0),
            "The window has to keep its size at the border: fill up what is missing": inside,
            "What is missing above or on the left must be filled there": late,
        }
        found = call(function, image, *place, size, jump, start)
        same(found, expected, what=f"the window of unit {place}", mistakes=mistakes)
    right("This is what the unit saw, to the pixel, also at the border.")
