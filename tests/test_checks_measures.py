"""The checks of notebook 24: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from answers import answer_tests
from scipy.ndimage import distance_transform_edt

from vislib.checks import Wrong
from vislib.checks import measures as check


def strongest(values):
    return np.unravel_index(values.argmax(), values.shape)


def near(maps, mask, tolerance, *, values=lambda maps: (maps**2).sum(axis=0)):
    return distance_transform_edt(~mask)[strongest(values(maps))] <= tolerance


def near_by_hypot(maps, mask, tolerance):
    apart = np.argwhere(mask) - strongest((maps**2).sum(axis=0))
    return np.hypot(*apart.T).min() <= tolerance


def without(image, strength, share, fill):
    chosen = strength.argsort(axis=None)[-round(share * strength.size) :]
    new = image.copy()
    new.reshape(len(new), -1)[:, chosen] = fill
    return new


def agreement(a, b):
    return np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1]


RIGHT = {
    "near by a distance transform": (check.hits_near, near),
    "near by hypot": (check.hits_near, near_by_hypot),
    "without the strongest": (check.without_strongest, without),
    "agreement": (check.rank_agreement, agreement),
}


def strictly(maps, mask, tolerance):
    position = strongest((maps**2).sum(axis=0))
    return distance_transform_edt(~mask)[position] < max(tolerance, 0.5)


def transposed(maps, mask, tolerance):
    y, x = strongest((maps**2).sum(axis=0))
    return distance_transform_edt(~mask)[x % 20, y % 24] <= tolerance


def to_one_pixel(choose):
    def answer(maps, mask, tolerance):
        position = strongest((maps**2).sum(axis=0))
        return np.hypot(*(choose(np.argwhere(mask)) - position)) <= tolerance

    return answer


def in_place(image, strength, share, fill):
    image[:, strength > np.quantile(strength, 1 - share)] = fill
    return image


def of(values):
    return lambda *inputs: near(*inputs, values=values)


WRONG = {
    "without the tolerance": (
        check.hits_near,
        lambda maps, mask, tolerance: near(maps, mask, 0),
        "tolerance is not used",
    ),
    "a large tolerance": (
        check.hits_near,
        lambda maps, mask, tolerance: near(maps, mask, 99),
        r"position \(12, 8\), .* the tolerance 0 .* farther from the object",
    ),
    "less than the tolerance": (check.hits_near, strictly, "still counts"),
    "rows and columns": (check.hits_near, transposed, "Rows come first"),
    "the mask": (check.hits_near, lambda maps, mask, tolerance: mask, "True or False"),
    "never": (
        check.hits_near,
        lambda maps, mask, tolerance: False,
        r"\(8, 8\), .* tolerance 30",
    ),
    "the centre of the mask": (
        check.hits_near,
        to_one_pixel(lambda pixels: pixels.mean(0)),
        "not its centre or its first pixel",
    ),
    "the first pixel of the mask": (
        check.hits_near,
        to_one_pixel(lambda pixels: pixels[0]),
        "not its centre or its first pixel",
    ),
    "the signed sum": (check.hits_near, of(lambda maps: maps.sum(0)), "Both signs"),
    "absolute values": (
        check.hits_near,
        of(lambda maps: np.abs(maps).sum(0)),
        "Square each channel",
    ),
    "the square of the sum": (
        check.hits_near,
        of(lambda maps: maps.sum(0) ** 2),
        "Square each channel",
    ),
    "the largest channel": (
        check.hits_near,
        of(lambda maps: (maps**2).max(0)),
        "over all channels",
    ),
    "the first channel": (check.hits_near, of(lambda maps: maps[0] ** 2), "over all channels"),
    "the last channel": (
        check.hits_near,
        of(lambda maps: maps[-1] ** 2),
        "Square each channel",
    ),
    "an image that is changed": (check.without_strongest, in_place, "changes its input"),
    "another number of pixels": (
        check.without_strongest,
        lambda image, strength, share, fill: without(image, strength, share / 2, fill),
        "The image is not right yet: it is off by",
    ),
    "without the sign": (
        check.rank_agreement,
        lambda a, b: abs(agreement(a, b)),
        "not right yet",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG, repeats=(10, 10))
)


@pytest.mark.parametrize(
    ("position", "tolerance", "expected"),
    [((12, 12), 5, False), ((16, 10), 5, False), ((15, 10), 5, True), ((6, 12), 1, False)],
)
def test_a_wrong_truth_for_one_position_is_found(position, tolerance, expected):
    def wrong_there(maps, mask, given):
        truth = near(maps, mask, given)
        there = strongest((maps**2).sum(axis=0)) == position and given == tolerance
        return not truth if there else truth

    with pytest.raises(Wrong, match=rf"position \({position[0]}, {position[1]}\)") as error:
        check.hits_near(wrong_there)
    message = str(error.value)
    assert f"the tolerance {tolerance} " in message
    assert "is not right yet." in message or f"should be {expected}" in message
