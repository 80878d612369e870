"""The checks of notebook 05: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from answers import answer_tests

from vislib.checks import filters as check


def tiles(w):
    return 0.5 + 0.5 * w / w.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)


def positions(maps, k):
    value, index = maps.flatten(1).max(dim=1)
    best = value.argsort(descending=True)[:k].tolist()
    return [(n, *divmod(int(index[n]), maps.shape[2])) for n in best]


def crop(image, row, column, size, jump, start):
    padded = F.pad(image, (30, 30, 30, 30), value=0.5)
    top, left = start + row * jump + 30, start + column * jump + 30
    return padded[:, top : top + size, left : left + size]


RIGHT = {
    "tiles": (check.filter_tiles, tiles),
    "dead units": (check.dead_units, lambda maps: maps.amax(dim=(0, 2, 3)) <= 0),
    "dead units after ReLU": (
        check.dead_units,
        lambda maps: maps.relu().sum(dim=(0, 2, 3)) == 0,
    ),
    "best positions": (check.best_positions, positions),
    "crop": (check.crop, crop),
}


def changes_its_input(weights):
    weights /= weights.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return 0.5 + 0.5 * weights


def clipped(image, row, column, size, jump, start):
    top, left = start + row * jump, start + column * jump
    return image[:, max(top, 0) : top + size, max(left, 0) : left + size]


def filled_at_the_end(image, row, column, size, jump, start):
    inside = clipped(image, row, column, size, jump, start)
    window = torch.full((3, size, size), 0.5)
    window[:, : inside.shape[1], : inside.shape[2]] = inside
    return window


def padded_by(width):
    def crop(image, row, column, size, jump, start):
        border = -start if width is None else width
        image = F.pad(image, (border,) * 4, value=0.5)
        top, left = start + row * jump + border, start + column * jump + border
        return image[:, top : top + size, left : left + size]

    return crop


WRONG = {
    "tiles without clamp": (
        check.filter_tiles,
        lambda w: 0.5 + 0.5 * w / w.abs().amax((1, 2, 3), True),
        "a filter of zeros",
    ),
    "weights that are changed": (check.filter_tiles, changes_its_input, "changes its input"),
    "one truth for each column": (
        check.dead_units,
        lambda maps: maps.amax((0, 2)) <= 0,
        "should have shape",
    ),
    "the first k of all images": (
        check.best_positions,
        lambda maps, k: sorted(positions(maps, len(maps)))[:k],
        "order of the stream",
    ),
    "images only": (
        check.best_positions,
        lambda maps, k: [n for n, _, _ in positions(maps, k)],
        "list of triples",
    ),
    "pairs": (
        check.best_positions,
        lambda maps, k: [(n, i) for n, i, _ in positions(maps, k)],
        "Return triples",
    ),
    "an empty list": (check.best_positions, lambda maps, k: [], "Return triples"),
    "absolute values": (
        check.best_positions,
        lambda maps, k: positions(maps.abs(), k),
        "off by|swapped",
    ),
    "texts": (
        check.best_positions,
        lambda maps, k: [("a", "b", "c")] * k,
        "should have shape",
    ),
    "NaN": (check.best_positions, lambda maps, k: [(np.nan,) * 3] * k, "NaN"),
    "a crop that ends at the border": (check.crop, clipped, "keep its size at the border"),
    "a crop filled at the end": (
        check.crop,
        filled_at_the_end,
        "Fill pixels that are missing at the top or on the left there",
    ),
    "a padding of 3": (check.crop, padded_by(3), "shape"),
    "a padding for the first unit": (check.crop, padded_by(None), "shape"),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG, repeats=(10, 10))
)
