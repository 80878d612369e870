"""The checks of notebook 17: right answers pass, each usual mistake is named."""

import pytest
import torch
import torch.nn.functional as F

from vislib import nets
from vislib.checks import Wrong, dream
from vislib.synthesis import View, alike
from vislib.widgets import dream as widget


def step(part, x, lr, *, size=lambda g: g.abs().mean(), clip=True, sign=1, power=2):
    leaf = x.clone().requires_grad_()
    g = torch.autograd.grad(part(leaf).pow(power).mean(), leaf)[0]
    x = x + sign * lr * g / size(g)
    return x.clamp(0, 1) if clip else x


def sizes(height, width, octaves, ratio, *, shift=0):
    powers = [ratio ** (k + shift) for k in reversed(range(octaves))]
    return [(round(height / p), round(width / p)) for p in powers]


def guided(A, G):
    return (A.flatten(1).t() @ G.flatten(1)).amax(dim=1).mean()


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (dream.step, step),
        (dream.sizes, sizes),
        (dream.guided, guided),
        (dream.guided, lambda A, G: alike("a", G[None]).score(View(A, maps={"a": A[None]}))[0]),
    ],
)
def test_right_answers_pass(check, answer, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith("✓")


def one_more(height, width, octaves, ratio):
    return sizes(height, width, octaves + 1, ratio)


def cosines(A, G):
    return (F.normalize(A.flatten(1), dim=0).t() @ F.normalize(G.flatten(1), dim=0)).amax(1).mean()


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (dream.step, lambda *a: step(*a, sign=-1), "do not subtract"),
        (dream.step, lambda *a: step(*a, size=lambda g: 1), "by its mean absolute value"),
        (dream.step, lambda *a: step(*a, size=lambda g: g.abs().max()), "not by the largest"),
        (dream.step, lambda *a: step(*a, size=lambda g: g.norm()), "not by the norm"),
        (dream.step, lambda *a: step(*a, size=lambda g: g.mean()), "before the mean"),
        (dream.step, lambda *a: step(*a, size=lambda g: g.abs()), "keep its sizes"),
        (dream.step, lambda *a: step(*a, power=1), "square them first"),
        (dream.step, lambda *a: step(*a, clip=False), "Clip the image"),
        (dream.sizes, lambda *a: sizes(*a)[::-1], "smallest comes first"),
        (dream.sizes, lambda *a: sizes(*a, shift=1), "image's own size"),
        (dream.sizes, one_more, "too many"),
        (dream.sizes, lambda h, w, n, r: sizes(h, w, n - 1, r), "too few"),
        (dream.sizes, lambda h, w, n, r: sizes(h, w, n, 1 / r)[::-1], "do not multiply"),
        (dream.sizes, lambda h, w, n, r: sizes(w, h, n, r), "Height comes before"),
        (dream.guided, lambda A, G: (A.flatten(1).t() @ G.flatten(1)).mean(), "take their largest"),
        (dream.guided, lambda A, G: guided(G, A), "other way round"),
        (dream.guided, lambda A, G: (A.flatten(1).t() @ G.flatten(1)).max(), "one best pair"),
        (dream.guided, lambda A, G: guided(A, G) * 12, "divide by the number"),
        (dream.guided, cosines, "These are cosines"),
    ],
)
def test_each_mistake_is_named(check, answer, told):
    with pytest.raises(Wrong, match=told):
        check(answer)


@pytest.mark.parametrize("octaves", [1, 4])
@pytest.mark.parametrize("layer", ["net.features.1", "net.features.17"])
def test_the_widgets_dream_over_the_range_of_its_controls(layer, octaves):
    model = nets.load("pocket_vgg")
    photo = torch.rand(1, 3, 96, 100, generator=torch.Generator().manual_seed(0))
    still, little, much = (widget.image(model, photo, layer, octaves, lr) for lr in (0, 0.01, 0.03))
    assert torch.allclose(still, photo, atol=1e-5)
    for dreamt in (little, much):
        assert dreamt.shape == photo.shape and dreamt.min() >= 0 and dreamt.max() <= 1
    assert 0 < (little - photo).abs().mean() < (much - photo).abs().mean()


def test_the_widget_draws_and_moves(monkeypatch):
    drawn = []
    monkeypatch.setattr(widget, "draw_dream", lambda *arguments: drawn.append(arguments[2:]))
    photo = torch.rand(1, 3, 48, 64)
    box = widget.dreams(nets.load("pocket_vgg"), photo, ["net.features.1", "net.features.4"])
    layer, octaves, strength, _ = box.children
    layer.value, octaves.value, strength.value = 1, 4, 0.0
    assert drawn[-1] == ("net.features.1", 4, 0.0)
