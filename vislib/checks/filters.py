"""Checks for the exercises of notebook 05, filters and activations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vislib.checks import Exercise, Wrong, call, same
from vislib.features import ReceptiveField, filter_images

# --- Filters as tiles -----------------------------------------------------------------------------


def _weights() -> Iterator[tuple[Tensor]]:
    for k in (3, 7):
        weights = torch.randn(5, 3, k, k) * torch.tensor([0.1, 1, 3, 0.5, 2]).view(-1, 1, 1, 1)
        # One filter has no negative weights; the strongest weight of another one is negative.
        weights[2] = weights[2].abs()
        weights[0, 0, 0, 0] = -2 * weights[0].abs().max()
        yield (weights,)


def _low(weights: Tensor) -> Tensor:
    """Smallest weight of each filter."""
    return weights.amin(dim=(1, 2, 3), keepdim=True)


def _high(weights: Tensor) -> Tensor:
    """Largest weight of each filter."""
    return weights.amax(dim=(1, 2, 3), keepdim=True)


def _filter_of_zeros(function: Callable[..., Any]) -> None:
    tiles = call(function, torch.zeros(2, 3, 3, 3))
    same(tiles, torch.full((2, 3, 3, 3), 0.5), what="the tile of a filter of zeros")


filter_tiles = Exercise(
    task="``filter_tiles(weights)``: K×3×k×k weights as images in [0, 1] in which zero is grey.",
    inputs=_weights,
    solution=filter_images,
    what="the tiles",
    mistakes={
        "With a scale from minimum to maximum, zero is not grey: divide by the largest "
        "absolute value, and put zero at 0.5": lambda w: (w - _low(w)) / (_high(w) - _low(w)),
        "Each filter has its own largest weight: you use the largest weight of all filters": (
            lambda w: 0.5 + 0.5 * w / w.abs().max()
        ),
        "A separate scale for each channel changes the colours: use one scale for a whole filter": (
            lambda w: 0.5 + 0.5 * w / w.abs().amax(dim=(2, 3), keepdim=True)
        ),
        "The largest weight is not the largest absolute value: negative ones may be larger": (
            lambda w: 0.5 + 0.5 * w / _high(w)
        ),
        "The absolute value hides the sign": lambda w: w.abs() / _high(w.abs()),
        "Your values are from -1 to 1: bring them to [0, 1], with zero at 0.5": (
            lambda w: w / _high(w.abs())
        ),
        "Your values are between -0.5 and 1.5: halve the weights too": (
            lambda w: 0.5 + w / _high(w.abs())
        ),
    },
    praise="Zero is grey in every tile, and the strongest weight is fully light or dark.",
    extra=_filter_of_zeros,
)


# --- Dead units -----------------------------------------------------------------------------------


def _units() -> Iterator[tuple[Tensor]]:
    """Maps of eight units; units 1 and 4 are dead, and the largest value of unit 4 is 0."""
    for _ in range(3):
        maps = torch.randn(6, 8, 4, 5) - 0.5
        maps[:, [1, 4]] = -maps[:, [1, 4]].abs()
        maps[:, 4, 0, 0] = 0.0
        # Alive at one position of the first image only.
        maps[1:, 2] = -maps[1:, 2].abs()
        maps[0, 2] = -1.0
        maps[0, 2, 3, 4] = 2.0
        # Alive at one position of a later image only.
        maps[:, 5] = -3.0
        maps[2, 5, 1, 1] = 1.0
        # Alive at all positions of one image.
        maps[:, 6] = -2.0
        maps[0, 6] = 0.5
        # Silent at one position only.
        maps[:, 7] = maps[:, 7].abs() + 0.1
        maps[3, 7, 0, 1] = -0.1
        yield (maps,)


dead_units = Exercise(
    task="``dead_units(maps)``: which units are never above 0, N×K×h×w values to K truths.",
    inputs=_units,
    solution=lambda maps: maps.amax(dim=(0, 2, 3)) <= 0,
    what="the list of dead units",
    mistakes={
        "A unit whose mean is below 0 is not dead: one position above 0 is enough to learn from": (
            lambda maps: maps.mean(dim=(0, 2, 3)) <= 0
        ),
        "These are the living units: invert the result": lambda maps: maps.amax(dim=(0, 2, 3)) > 0,
        "A unit that is silent on one image is not dead: look at all images": (
            lambda maps: (maps.amax(dim=(2, 3)) <= 0).any(dim=0)
        ),
        "A unit that is silent at one position is not dead: look at all positions": (
            lambda maps: (maps <= 0).flatten(2).any(dim=2).any(dim=0)
        ),
        "Look at every position of the map, not at its mean": (
            lambda maps: maps.mean(dim=(2, 3)).amax(dim=0) <= 0
        ),
        "A unit whose largest value is exactly 0 is dead too: its ReLU passes no gradient": (
            lambda maps: maps.amax(dim=(0, 2, 3)) < 0
        ),
        "Your result has one row for each image: return one value for each unit": (
            lambda maps: maps.amax(dim=(2, 3)) <= 0
        ),
    },
    praise="A unit is dead if it is never above 0, at any position of any image.",
)


# --- The strongest positions ----------------------------------------------------------------------


def _maps_with_outliers() -> Iterator[tuple[Tensor, int]]:
    """Maps in which one image has the largest values and another the largest absolute values."""
    for n, height, width in [(7, 4, 6), (8, 6, 3)]:
        maps = torch.randn(n, height, width)
        maps[5] += 5.0
        maps[3] -= 9.0
        yield maps, 4


def _ranking(maps: Tensor) -> Tensor:
    """Images in the order of their largest value, the strongest first."""
    return maps.flatten(1).amax(dim=1).argsort(descending=True)


def _maxima(maps: Tensor, images: Tensor, width: int | None = None) -> Tensor:
    """(image, row, column) of the largest value of each of these images."""
    index = maps.flatten(1).argmax(dim=1)[images]
    width = width or maps.shape[2]
    return torch.stack([images, index // width, index % width], dim=1)


def _largest_values(maps: Tensor, k: int) -> Tensor:
    """(image, row, column) of the k largest values of all maps together."""
    indices = maps.flatten().argsort(descending=True)[:k]
    return torch.stack(torch.unravel_index(indices, maps.shape), dim=1)


def _not_divided(maps: Tensor, k: int) -> Tensor:
    """Index in the flattened map instead of row and column."""
    images = _ranking(maps)[:k]
    index = maps.flatten(1).argmax(dim=1)[images]
    return torch.stack([images, index, index], dim=1)


def _triples(result: Any, *_: Any) -> list[Any]:
    try:
        triples = [tuple(one) for one in result]
        wrong = [one for one in triples if len(one) != 3]
    except TypeError:
        raise Wrong("Return a list of triples (image, row, column)") from None
    if wrong or not triples:
        raise Wrong(f"Return triples (image, row, column), not {(wrong or [()])[0]}")
    return triples


best_positions = Exercise(
    task=(
        "``best_positions(maps, k)``: the k strongest positions, one in each image, N×h×w to "
        "[(image, row, column), …]."
    ),
    inputs=_maps_with_outliers,
    solution=lambda maps, k: _maxima(maps, _ranking(maps)[:k]),
    what="the list of positions",
    mistakes={
        "One image fills the list: take the best position of each image first": _largest_values,
        "These are the weakest images: sort from large to small": (
            lambda maps, k: _maxima(maps, _ranking(maps).flip(0)[:k])
        ),
        "The strongest comes first": lambda maps, k: _maxima(maps, _ranking(maps)[:k].flip(0)),
        "The images are in the order of the stream: sort them by their best value": (
            lambda maps, k: _maxima(maps, torch.arange(k))
        ),
        "Row and column are swapped: row = index // width, column = index % width": (
            lambda maps, k: _maxima(maps, _ranking(maps)[:k])[:, [0, 2, 1]]
        ),
        "To get the row, divide by the width of the map, not by its height": (
            lambda maps, k: _maxima(maps, _ranking(maps)[:k], width=maps.shape[1])
        ),
        "Return k positions, not one for every image": lambda maps, k: _maxima(
            maps, _ranking(maps)
        ),
        "This is the index in the flattened map: turn it into row and column": _not_divided,
    },
    parse=_triples,
    praise="The strongest position of each image, and the strongest images first.",
)


# --- The receptive field of a unit, cut out -------------------------------------------------------


def _positions() -> Iterator[tuple[Tensor, int, int, int, int, int]]:
    """Units inside the image and at its borders; the second field extends further to the right."""
    image = torch.rand(3, 20, 24)
    fields = [(9, 4, -3), (15, 3, -1)]
    for field, (row, column) in itertools.product(fields, [(2, 3), (0, 0), (4, 5), (0, 5)]):
        yield image, row, column, *field


def _crop(
    image: Tensor, row: int, column: int, size: int, jump: int, start: int, *, fill: float = 0.5
) -> Tensor:
    field = ReceptiveField((size, size), (jump, jump), (start, start))
    # The border is as wide as any receptive field can extend beyond the image.
    border = 40
    padded = F.pad(image, (border,) * 4, value=fill)
    top, bottom, left, right = (edge + border for edge in field.box(row, column))
    return padded[:, top:bottom, left:right]


def _clipped(image: Tensor, row: int, column: int, size: int, jump: int, start: int) -> Tensor:
    """Part of the receptive field that is inside the image."""
    field = ReceptiveField((size, size), (jump, jump), (start, start))
    height, width = image.shape[1:]
    top, bottom, left, right = field.box(row, column, (height, width))
    return image[:, top:bottom, left:right]


def _filled_at_the_end(
    image: Tensor, row: int, column: int, size: int, jump: int, start: int
) -> Tensor:
    """Crop with its part inside the image moved to the top left."""
    inside = _clipped(image, row, column, size, jump, start)
    window = torch.full((3, size, size), 0.5)
    window[:, : inside.shape[1], : inside.shape[2]] = inside
    return window


crop = Exercise(
    task="``crop(image, row, column, size, jump, start)``: the receptive field, 3×size×size.",
    inputs=_positions,
    solution=_crop,
    what=lambda image, row, column, *field: f"the receptive field of unit {(row, column)}",
    mistakes={
        "The first unit does not begin at pixel 0: add start": (
            lambda image, row, column, size, jump, start: _crop(image, row, column, size, jump, 0)
        ),
        "Neighbouring units are jump pixels apart: multiply row and column by jump": (
            lambda image, row, column, size, jump, start: _crop(image, row, column, size, 1, start)
        ),
        "start + row · jump is the first pixel of the receptive field, not its centre": (
            lambda image, row, column, size, jump, start: _crop(
                image, row, column, size, jump, start - size // 2
            )
        ),
        "Row and column are swapped": (
            lambda image, row, column, *field: _crop(image, column, row, *field)
        ),
        "Fill the pixels outside the image with 0.5, not with 0": partial(_crop, fill=0.0),
        "The crop has to keep its size at the border: fill in what is missing": _clipped,
        "Fill pixels that are missing at the top or on the left there, too": _filled_at_the_end,
    },
    praise="This is what the unit saw, to the pixel, also at the border.",
)
