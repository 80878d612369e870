"""The checks of notebook 16: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import pytest
import torch
from answers import answer_tests

from vislib.checks import Wrong
from vislib.checks import synthesis as check


def climb(score, x, steps, lr, momentum, *, sign=1, clip=True):
    v, x = torch.zeros_like(x), x.clone()
    for _ in range(steps):
        leaf = x.detach().requires_grad_()
        score(leaf).backward()
        v = momentum * v + sign * leaf.grad
        x = x + lr * v
        x = x.clamp(0, 1) if clip else x
    return x


def in_place(score, x, steps, lr, momentum):
    x += 0.1
    return x


def total_variation(x):
    return (x[:, 1:] - x[:, :-1]).abs().sum() + (x[..., 1:] - x[..., :-1]).abs().sum()


def posterior(reader, writer, z, target, weight, mean, *, power=2, sign=-1):
    p = reader(writer(z)).log_softmax(dim=1)[:, target]
    return p + sign * weight * (z - mean).norm(dim=1) ** power


RIGHT = {
    "climb": (check.climb, climb),
    "climb with a gradient": (check.climb, lambda *a: climb(*a).requires_grad_()),
    "total variation": (check.total_variation, total_variation),
    "total variation by diff": (
        check.total_variation,
        lambda x: x.diff(dim=1).abs().sum() + x.diff(dim=2).abs().sum(),
    ),
    "posterior": (check.posterior, posterior),
}

WRONG = {
    "descent": (check.climb, lambda *a: climb(*a, sign=-1), "this is descent"),
    "no clipping": (check.climb, lambda *a: climb(*a, clip=False), "clip after each step"),
    "clipping at the end only": (
        check.climb,
        lambda *a: climb(*a, clip=False).clamp(0, 1),
        "not only at the end",
    ),
    "an image that is changed": (check.climb, in_place, "changes its input"),
    "half the variation": (check.total_variation, lambda x: total_variation(x) / 2, "off by"),
    "variation that wraps around": (
        check.total_variation,
        lambda x: sum((x - x.roll(1, d)).abs().sum() for d in (1, 2)),
        "does not wrap around",
    ),
    "prior of the wrong sign": (
        check.posterior,
        lambda *a: posterior(*a, sign=1),
        "far from z̄ is less likely",
    ),
    "distance instead of its square": (
        check.posterior,
        lambda *a: posterior(*a, power=1),
        "not the distance",
    ),
    "no prior": (check.posterior, lambda *a: posterior(*a, sign=0), "classifier's part alone"),
    "sum over the batch": (
        check.posterior,
        lambda *a: posterior(*a).sum(),
        "do not sum over the batch",
    ),
    "mean of 0": (check.posterior, lambda *a: posterior(*a[:5], 0), "not from 0"),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)


LOGITS = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
TARGETS = [0, 1, 2, 3, 0, 1]


def test_agreement(capsys):
    hits = LOGITS.argmax(1) == torch.tensor(TARGETS)
    assert 0 < hits.sum() < 6 and hits.sum() != 3
    check.agreement(hits.float().mean(), LOGITS, TARGETS)
    assert capsys.readouterr().out.startswith("✓")
    for wrong, message in [
        (hits.sum(), "number of images"),
        (1 - hits.float().mean(), "another class"),
        (LOGITS.softmax(1)[range(6), TARGETS].mean(), "mean probability"),
        (0.9, "not right yet"),
    ]:
        with pytest.raises(Wrong, match=message):
            check.agreement(wrong, LOGITS, TARGETS)
