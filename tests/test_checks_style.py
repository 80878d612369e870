"""The checks of notebook 18: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import torch
from answers import answer_tests

from vislib import synthesis
from vislib.checks import style as check


def gram(maps):
    return torch.einsum("iab,jab->ij", maps, maps)


def style_loss(maps, style, *, power=2):
    below = 4 * len(maps) ** 2 * maps[0].numel() ** power
    return (gram(maps) - gram(style)).square().sum() / below


def content_loss(maps, content):
    return (maps - content).norm() ** 2 / 2


def ours(objective, maps, target):
    """The loss of vislib for one image's maps."""
    return -objective("a", target[None]).score(synthesis.View(maps, maps={"a": maps[None]}))[0]


RIGHT = {
    "Gram matrix by einsum": (check.gram, gram),
    "Gram matrix by a product": (check.gram, lambda maps: maps.flatten(1) @ maps.flatten(1).t()),
    "Gram matrix by vislib": (check.gram, lambda maps: synthesis.gram(maps[None])[0]),
    "style loss": (check.style_loss, style_loss),
    "style loss by vislib": (check.style_loss, lambda f, s: ours(synthesis.style, f, s)),
    "content loss by the norm": (check.content_loss, content_loss),
    "content loss by squares": (check.content_loss, lambda f, p: (f - p).square().sum() / 2),
    "content loss by vislib": (check.content_loss, lambda f, p: ours(synthesis.content, f, p)),
}

WRONG = {
    "covariance": (check.gram, lambda m: gram(m - m.mean((1, 2), keepdim=True)), "the covariance"),
    "mean over positions": (
        check.gram,
        lambda m: gram(m) / m[0].numel(),
        "mean over the positions",
    ),
    "Gram matrix of the wrong sign": (check.gram, lambda m: -gram(m), "wrong sign"),
    "style loss without the factor 4": (
        check.style_loss,
        lambda f, s: 4 * style_loss(f, s),
        "factor 4",
    ),
    "number of positions to the first power": (
        check.style_loss,
        lambda f, s: style_loss(f, s, power=1),
        "not right yet: it is off by",
    ),
    "content loss without the half": (
        check.content_loss,
        lambda f, p: 2 * content_loss(f, p),
        "½ is missing",
    ),
    "differences instead of a loss": (
        check.content_loss,
        lambda f, p: f - p,
        "should be one number",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)
