"""The checks of notebook 17: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from answers import answer_tests

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


RIGHT = {
    "step": (check.step, step),
    "sizes": (check.sizes, sizes),
    "guided objective": (check.guided, guided),
    "guided objective by matrices": (
        check.guided,
        lambda A, G: (A.flatten(1).t() @ G.flatten(1)).amax(dim=1).mean(),
    ),
    "guided objective by vislib": (
        check.guided,
        lambda A, G: similarity("a", G[None]).score(View(A, maps={"a": A[None]}))[0],
    ),
}

WRONG = {
    "a step down": (check.step, lambda *a: step(*a, sign=-1), "do not subtract"),
    "a step that is not normalised": (
        check.step,
        lambda *a: step(*a, size=lambda g: 1),
        "by its mean absolute value",
    ),
    "each value divided by its own size": (
        check.step,
        lambda *a: step(*a, size=lambda g: g.abs()),
        "keep its sizes",
    ),
    "an image that is not clipped": (check.step, lambda *a: step(*a, clip=False), "Clip the image"),
    "largest size first": (check.sizes, lambda *a: sizes(*a)[::-1], "smallest comes first"),
    "one octave too far": (check.sizes, lambda *a: sizes(*a, shift=1), "image's own size"),
    "height and width swapped": (
        check.sizes,
        lambda h, w, n, r: sizes(w, h, n, r),
        "Height comes before",
    ),
    "one size only": (check.sizes, lambda *a: sizes(*a)[0], "should have shape"),
    "maps and guide swapped": (check.guided, lambda A, G: guided(G, A), "other way round"),
    "a sum over positions": (check.guided, lambda A, G: guided(A, G) * 12, "divide by the number"),
    "cosines": (check.guided, cosines, "These are cosines"),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)
