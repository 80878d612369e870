"""The checks of notebook 05: other right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vislib.checks import Exercise, Wrong, filters


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
    "tiles": (filters.filter_tiles, tiles),
    "dead units": (filters.dead_units, lambda maps: maps.amax(dim=(0, 2, 3)) <= 0),
    "dead units after ReLU": (
        filters.dead_units,
        lambda maps: maps.relu().sum(dim=(0, 2, 3)) == 0,
    ),
    "best positions": (filters.best_positions, positions),
    "crop": (filters.crop, crop),
}


def test_every_exercise_has_an_independent_right_answer():
    exercises = {value for value in vars(filters).values() if isinstance(value, Exercise)}
    assert exercises == {exercise for exercise, _ in RIGHT.values()}


@pytest.mark.parametrize(("exercise", "answer"), RIGHT.values(), ids=RIGHT)
def test_right_answers_pass(exercise, answer, capsys):
    for _ in range(10):
        exercise(answer)
    assert capsys.readouterr().out.count("✓") == 10


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
        filters.filter_tiles,
        lambda w: 0.5 + 0.5 * w / w.abs().amax((1, 2, 3), True),
        "a filter of zeros",
    ),
    "weights that are changed": (filters.filter_tiles, changes_its_input, "changes its input"),
    "one truth for each column": (
        filters.dead_units,
        lambda maps: maps.amax((0, 2)) <= 0,
        "should have shape",
    ),
    "the first k of all images": (
        filters.best_positions,
        lambda maps, k: sorted(positions(maps, len(maps)))[:k],
        "order of the stream",
    ),
    "images only": (
        filters.best_positions,
        lambda maps, k: [n for n, _, _ in positions(maps, k)],
        "list of triples",
    ),
    "pairs": (
        filters.best_positions,
        lambda maps, k: [(n, i) for n, i, _ in positions(maps, k)],
        "Return triples",
    ),
    "an empty list": (filters.best_positions, lambda maps, k: [], "Return triples"),
    "absolute values": (
        filters.best_positions,
        lambda maps, k: positions(maps.abs(), k),
        "off by|swapped",
    ),
    "texts": (
        filters.best_positions,
        lambda maps, k: [("a", "b", "c")] * k,
        "should have shape",
    ),
    "NaN": (filters.best_positions, lambda maps, k: [(np.nan,) * 3] * k, "NaN"),
    "a crop that ends at the border": (filters.crop, clipped, "keep its size at the border"),
    "a crop filled at the end": (
        filters.crop,
        filled_at_the_end,
        "Fill pixels that are missing at the top or on the left there",
    ),
    "a padding of 3": (filters.crop, padded_by(3), "shape"),
    "a padding for the first unit": (filters.crop, padded_by(None), "shape"),
}


@pytest.mark.parametrize(("exercise", "answer", "message"), WRONG.values(), ids=WRONG)
def test_wrong_answers_are_rejected(exercise, answer, message):
    for _ in range(10):
        with pytest.raises(Wrong, match=message):
            exercise(answer)
