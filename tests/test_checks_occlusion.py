"""The checks of notebook 13: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import itertools

import pytest
import torch
from answers import answer_tests

from vislib.checks import Wrong
from vislib.checks import occlusion as check
from vislib.explain.occlusion import mean_over_squares, slide


def drop(model, x, target, row, column, size, *, channels=3):
    covered = x.clone()
    covered[:, :channels, row : row + size, column : column + size] = 0.5
    with torch.no_grad():
        p, q = (model(image)[0].softmax(0)[target] for image in (x, covered))
    return p - q


def in_place(model, x, target, row, column, size):
    before = model(x).softmax(1)[0, target]
    x[..., row : row + size, column : column + size] = 0.5
    return (before - model(x).softmax(1)[0, target]).detach()


def pixel_map(values, size, stride, shape, *, side=None):
    total, count = torch.zeros(shape), torch.zeros(shape)
    for i, j in itertools.product(*map(range, values.shape)):
        square = tuple(slice(k * stride, k * stride + (side or size)) for k in (i, j))
        total[square] += values[i, j]
        count[square] += 1
    return total / count.clamp(min=1)


RIGHT = {
    "drop": (check.drop, drop),
    "pixel map": (check.pixel_map, pixel_map),
}

WRONG = {
    "one channel covered": (check.drop, lambda *a: drop(*a, channels=1), "all three channels"),
    "drop of another class": (
        check.drop,
        lambda m, x, t, *a: drop(m, x, (t + 1) % 3, *a),
        "another class",
    ),
    "an input that is changed": (check.drop, in_place, "changes its input"),
    "squares as large as the stride": (
        check.pixel_map,
        lambda v, s, t, h: pixel_map(v, s, t, h, side=t),
        "size × size",
    ),
    "transposed values": (
        check.pixel_map,
        lambda v, s, t, h: pixel_map(v.T, s, t, h),
        "not right yet|stopped with",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)


@pytest.mark.parametrize(("size", "stride", "shape"), [(6, 3, (18, 15)), (4, 4, (12, 16))])
def test_the_pixel_map_is_that_of_vislib(size, stride, shape):
    squares = slide(check._net(0), torch.rand(1, 3, *shape), size=size, stride=stride)
    values = torch.rand(len(squares.rows), len(squares.columns))
    expected = mean_over_squares(values[None, None], squares, shape)[0, 0]
    assert torch.allclose(check.pixel_map.solution(values, size, stride, shape), expected)


LOGITS = torch.rand(6, 7, 3, generator=torch.Generator().manual_seed(0))
CLEAN = torch.tensor([1.0, 0.0, 0.0])


def test_flips(capsys):
    fraction = (LOGITS.argmax(-1) != 0).float().mean()
    check.flips(fraction, LOGITS, CLEAN)
    assert capsys.readouterr().out.startswith("✓")
    for wrong, message in [
        ((LOGITS.argmax(-1) != 0).sum(), "number of squares"),
        (1 - fraction, "leave the class as it was"),
        ((LOGITS.flatten(0, 1).argmax(0) != 0).float().mean(), "the last axis"),
        (fraction / 2, "not right yet"),
    ]:
        with pytest.raises(Wrong, match=message):
            check.flips(wrong, LOGITS, CLEAN)


def test_flips_needs_squares_of_both_kinds():
    with pytest.raises(ValueError, match="squares that do not, got 0 of 1 that change it"):
        check.flips(0.0, torch.tensor([[[2.0, 1.0, 0.0]]]), CLEAN)
