"""The checks of notebook 23: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import numpy as np
from answers import answer_tests

from vislib.checks import energy as check


def fraction(maps, mask):
    return (maps**2)[:, mask].sum() / (maps**2).sum()


def strongest(values):
    return np.unravel_index(values.argmax(), values.shape)


def hit(maps, mask):
    return mask[strongest((maps**2).sum(axis=0))]


def defined(values):
    return [np.nanmean(values), np.isnan(values).sum()]


RIGHT = {
    "fraction": (check.energy_fraction, fraction),
    "hit": (check.pointing_hit, hit),
    "hit as a bool": (check.pointing_hit, lambda maps, mask: bool(hit(maps, mask))),
    "mean as a list": (check.mean_of_defined, defined),
    "mean as an array": (check.mean_of_defined, lambda values: np.array(defined(values))),
    "mean as a tuple": (check.mean_of_defined, lambda values: tuple(defined(values))),
}


def in_place(maps, mask):
    maps *= maps
    return maps[:, mask].sum() / maps.sum()


def transposed(maps, mask):
    y, x = strongest((maps**2).sum(axis=0))
    return mask[x % mask.shape[0], y % mask.shape[1]]


WRONG = {
    "energy in each pixel": (
        check.energy_fraction,
        lambda maps, mask: (maps**2).sum(axis=0),
        "shape",
    ),
    "a mask as an index": (
        check.energy_fraction,
        lambda maps, mask: maps[:, mask, mask],
        "stopped with",
    ),
    "another formula": (
        check.energy_fraction,
        lambda maps, mask: fraction(maps, mask) ** 2 + 0.01,
        "off by",
    ),
    "maps that are changed": (check.energy_fraction, in_place, "changes its input"),
    "the signed sum": (
        check.pointing_hit,
        lambda maps, mask: mask[strongest(maps.sum(0))],
        "Both signs",
    ),
    "rows and columns": (check.pointing_hit, transposed, "on the object is .* Rows come first"),
    "always a hit": (
        check.pointing_hit,
        lambda maps, mask: True,
        "off the object is .* is the strongest position one of them",
    ),
    "never a hit": (
        check.pointing_hit,
        lambda maps, mask: False,
        "a strongest position on the object is not right yet",
    ),
    "the mask": (check.pointing_hit, lambda maps, mask: mask, "True or False"),
    "a text": (check.pointing_hit, lambda maps, mask: "True", "True or False"),
    "absolute values": (
        check.pointing_hit,
        lambda maps, mask: mask[strongest(np.abs(maps).sum(0))],
        "Square each channel",
    ),
    "the largest channel": (
        check.pointing_hit,
        lambda maps, mask: mask[strongest((maps**2).max(0))],
        "over all channels",
    ),
    "the last channel": (
        check.pointing_hit,
        lambda maps, mask: mask[strongest(maps[-1] ** 2)],
        "Square each channel",
    ),
    "undefined values as 0": (
        check.mean_of_defined,
        lambda values: (np.nansum(values) / len(values), np.isnan(values).sum()),
        "is not 0",
    ),
    "a number instead of two": (check.mean_of_defined, np.nanmean, "two numbers"),
    "a wrong mean and a wrong count": (
        check.mean_of_defined,
        lambda values: (np.nan_to_num(values).mean(), len(values)),
        "The mean is not right yet. An undefined P is not 0",
    ),
    "always three": (
        check.mean_of_defined,
        lambda values: (np.nanmean(values), 3),
        "where there is none",
    ),
    "texts": (
        check.mean_of_defined,
        lambda values: {"a": 1, "b": 2},
        "The mean should be one number, yours is 'a'",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG, repeats=(30, 10))
)
