"""The checks of notebook 18: right answers pass, each usual mistake is named."""

import pytest
import torch

from vislib import synthesis
from vislib.checks import Wrong, style


def gram(maps):
    return maps.flatten(1) @ maps.flatten(1).t()


def style_loss(maps, wanted, *, factor=4, channels=2, places=2):
    below = factor * len(maps) ** channels * maps[0].numel() ** places
    return (gram(maps) - gram(wanted)).square().sum() / below


def content_loss(maps, wanted):
    return (maps - wanted).square().sum() / 2


def ours(objective, maps, wanted):
    """The loss of vislib for one image's maps."""
    return -objective("a", wanted[None]).score(synthesis.View(maps, maps={"a": maps[None]}))[0]


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (style.gram, gram),
        (style.gram, lambda maps: synthesis.gram(maps[None])[0]),
        (style.style_loss, style_loss),
        (style.style_loss, lambda f, s: ours(synthesis.style, f, s)),
        (style.content_loss, content_loss),
        (style.content_loss, lambda f, p: ours(synthesis.content, f, p)),
    ],
)
def test_right_answers_pass(check, answer, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (style.gram, lambda m: m.flatten(1).t() @ m.flatten(1), "places with places"),
        (style.gram, lambda m: gram(m) / m[0].numel(), "mean over the places"),
        (style.gram, lambda m: gram(m - m.mean((1, 2), keepdim=True)), "the covariance"),
        (style.gram, lambda m: torch.corrcoef(m.flatten(1)), "correlations"),
        (style.gram, lambda m: gram(m).diagonal(), "diagonal alone"),
        (style.style_loss, lambda f, s: style_loss(f, s, factor=1), "factor 4"),
        (style.style_loss, lambda f, s: style_loss(f, s, channels=1, places=1), "are squared"),
        (style.style_loss, lambda f, s: style_loss(f, s, places=0), "number of places"),
        (style.style_loss, lambda f, s: (gram(f) - gram(s)).square().sum(), "Divide by 4"),
        (
            style.style_loss,
            lambda f, s: (f - s).square().sum() / (4 * len(f) ** 2 * f[0].numel() ** 2),
            "their Gram matrices",
        ),
        (style.content_loss, lambda f, p: 2 * content_loss(f, p), "½ is missing"),
        (style.content_loss, lambda f, p: (f - p).square().mean(), "This is a mean"),
        (style.content_loss, lambda f, p: (f - p).abs().sum() / 2, "Square the differences"),
        (style.content_loss, lambda f, p: (f - p).norm() / 2, "This is the root"),
    ],
)
def test_each_mistake_is_named(check, answer, told):
    with pytest.raises(Wrong, match=told):
        check(answer)
