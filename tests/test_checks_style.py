"""Checks of notebook 18: right answers, and wrong ones written differently from the mistakes."""

import pytest
import torch

from vislib import synthesis
from vislib.checks import Wrong
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


RIGHT = [
    ("gram", gram),
    ("gram", lambda maps: maps.flatten(1) @ maps.flatten(1).t()),
    ("gram", lambda maps: synthesis.gram(maps[None])[0]),
    ("style_loss", style_loss),
    ("style_loss", lambda f, s: ours(synthesis.style, f, s)),
    ("content_loss", content_loss),
    ("content_loss", lambda f, p: (f - p).square().sum() / 2),
    ("content_loss", lambda f, p: ours(synthesis.content, f, p)),
]

WRONG = [
    ("gram", lambda m: gram(m - m.mean((1, 2), keepdim=True)), "the covariance"),
    ("gram", lambda m: gram(m) / m[0].numel(), "mean over the positions"),
    ("gram", lambda m: -gram(m), "wrong sign"),
    ("style_loss", lambda f, s: 4 * style_loss(f, s), "factor 4"),
    ("style_loss", lambda f, s: style_loss(f, s, power=1), "not right yet: it is off by"),
    ("content_loss", lambda f, p: 2 * content_loss(f, p), "½ is missing"),
    ("content_loss", lambda f, p: f - p, "should be one number"),
]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_right_answers_pass(name, answer, capsys):
    getattr(check, name)(answer)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(("name", "answer", "message"), WRONG)
def test_wrong_answers_get_advice(name, answer, message):
    with pytest.raises(Wrong, match=message):
        getattr(check, name)(answer)
