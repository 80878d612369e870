"""Checks of notebook 17: right answers, and wrong ones written differently from the mistakes."""

import pytest
import torch
import torch.nn.functional as F

from vislib.checks import Wrong
from vislib.checks import dream as check
from vislib.synthesis import View, similarity


def step(part, x, lr, *, size=lambda g: g.abs().mean(), clip=True, sign=1):
    leaf = x.clone().requires_grad_()
    part(leaf).square().mean().backward()
    x = x + sign * lr * leaf.grad / size(leaf.grad)
    return x.clamp(0, 1) if clip else x


def sizes(height, width, octaves, ratio, *, shift=0):
    powers = [ratio ** (k + shift) for k in reversed(range(octaves))]
    return [(round(height / p), round(width / p)) for p in powers]


def guided(A, G):
    return torch.einsum("cij,ckl->ijkl", A, G).amax(dim=(2, 3)).mean()


def cosines(A, G):
    return (F.normalize(A.flatten(1), dim=0).t() @ F.normalize(G.flatten(1), dim=0)).amax(1).mean()


RIGHT = [
    ("step", step),
    ("sizes", sizes),
    ("guided", guided),
    ("guided", lambda A, G: (A.flatten(1).t() @ G.flatten(1)).amax(dim=1).mean()),
    ("guided", lambda A, G: similarity("a", G[None]).score(View(A, maps={"a": A[None]}))[0]),
]

WRONG = [
    ("step", lambda *a: step(*a, sign=-1), "do not subtract"),
    ("step", lambda *a: step(*a, size=lambda g: 1), "by its mean absolute value"),
    ("step", lambda *a: step(*a, size=lambda g: g.abs()), "keep its sizes"),
    ("step", lambda *a: step(*a, clip=False), "Clip the image"),
    ("sizes", lambda *a: sizes(*a)[::-1], "smallest comes first"),
    ("sizes", lambda *a: sizes(*a, shift=1), "image's own size"),
    ("sizes", lambda h, w, n, r: sizes(w, h, n, r), "Height comes before"),
    ("sizes", lambda *a: sizes(*a)[0], "should have shape"),
    ("guided", lambda A, G: guided(G, A), "other way round"),
    ("guided", lambda A, G: guided(A, G) * 12, "divide by the number"),
    ("guided", cosines, "These are cosines"),
]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_right_answers_pass(name, answer, capsys):
    getattr(check, name)(answer)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(("name", "answer", "message"), WRONG)
def test_wrong_answers_get_advice(name, answer, message):
    with pytest.raises(Wrong, match=message):
        getattr(check, name)(answer)
