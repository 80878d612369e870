"""The checks of notebook 24 accept the right answer and name the usual mistakes."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_cdt, distance_transform_edt

from vislib.checks import Wrong
from vislib.checks import measures as check


def near(maps, mask, tolerance, *, distance=distance_transform_edt, power=2):
    values = (maps**power).sum(axis=0)
    place = np.unravel_index(values.argmax(), values.shape)
    return distance(~mask)[place] <= tolerance


def square(outside):
    return distance_transform_cdt(outside, metric="chessboard")


def swapped(maps, mask, tolerance):
    y, x = np.unravel_index((maps**2).sum(axis=0).argmax(), mask.shape)
    return distance_transform_edt(~mask)[x % 20, y % 24] <= tolerance


def strictly(maps, mask, tolerance):
    place = np.unravel_index((maps**2).sum(axis=0).argmax(), mask.shape)
    return distance_transform_edt(~mask)[place] < max(tolerance, 0.5)


def without(image, strength, share, fill, *, channels=3, strongest=True, keep=False):
    count = round(share * strength.size)
    order = strength.argsort(axis=None)
    chosen = order[-count:] if strongest else order[:count]
    where = np.zeros(strength.size, bool)
    where[chosen] = True
    where = where.reshape(strength.shape) ^ keep
    new = image.copy()
    new[:channels, where] = fill
    return new


def by_threshold(image, strength, share, fill):
    new = image.copy()
    new[:, strength >= (1 - share) * strength.max()] = fill
    return new


def in_place(image, strength, share, fill):
    image[:, strength > np.quantile(strength, 1 - share)] = fill
    return image


def agreement(a, b):
    return np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1]


@pytest.mark.parametrize(
    ("test", "answer"),
    [
        (check.hits_near, near),
        (check.without_strongest, without),
        (check.rank_agreement, agreement),
    ],
)
def test_right_answers_pass(test, answer, capsys):
    for _ in range(5):
        test(answer)
        assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("test", "answer", "told"),
    [
        (check.hits_near, lambda m, k, t: near(m, k, 0), "still counts"),
        (check.hits_near, lambda m, k, t: near(m, k, 99), "must be on the object"),
        (check.hits_near, strictly, "still counts"),
        (check.hits_near, lambda m, k, t: near(m, k, t, distance=square), "not a square"),
        (check.hits_near, lambda m, k, t: near(m, k, t, power=1), "Both signs"),
        (check.hits_near, swapped, "this should be"),
        (check.hits_near, lambda m, k, t: k, "True or False"),
        (check.without_strongest, lambda *a: without(*a, strongest=False), "weakest"),
        (check.without_strongest, lambda *a: without(*a, channels=1), "all channels"),
        (check.without_strongest, lambda *a: without(*a, keep=True), "insertion"),
        (check.without_strongest, by_threshold, "not of the largest strength"),
        (check.without_strongest, lambda i, s, p, f: i, "Nothing is replaced"),
        (check.without_strongest, in_place, "changes its input"),
        (check.rank_agreement, lambda a, b: np.corrcoef(a, b)[0, 1], "by their ranks"),
        (
            check.rank_agreement,
            lambda a, b: np.corrcoef(a.argsort(), b.argsort())[0, 1],
            "apply it twice",
        ),
        (check.rank_agreement, lambda a, b: -agreement(a, b), "turned round"),
        (
            check.rank_agreement,
            lambda a, b: np.corrcoef(a.argsort().argsort(), b.argsort().argsort()),
            r"\[0, 1\]",
        ),
    ],
)
def test_each_mistake_is_named(test, answer, told):
    with pytest.raises(Wrong, match=told):
        test(answer)
