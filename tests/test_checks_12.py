"""The checks and the widget of notebook 12: right answers pass, each usual mistake is named."""

from itertools import pairwise

import pytest
import torch

from vislib import nets
from vislib.checks import Wrong
from vislib.checks import fullgrad as check
from vislib.explain.fullgrad import fullgrad, fullgrad_parts
from vislib.maps import upsample
from vislib.widgets import fullgrad as widgets


def two_layers(W1, b1, w2, b2, x, *, gates=True, times=True, weights=True, sums=False):
    gate = (W1 @ x + b1 > 0).float() if gates else torch.ones_like(b1)
    slope = (w2 * gate) @ W1
    of_x = x * slope if times else slope
    of_b1 = (b1 if times else 1) * (w2 if weights else 1) * gate
    return (of_x.sum(), of_b1.sum(), b2) if sums else (of_x, of_b1, b2)


def batch_norm_bias(gamma, beta, mean, variance, eps):
    return beta - gamma * mean / (variance + eps).sqrt()


def psi(part, size, *, absolute=True, shift=True, dims=(2, 3), add=True, rescale=True):
    part = part.abs() if absolute else part
    if rescale:
        part = part - part.amin(dims, keepdim=True) if shift else part
        part = part / part.amax(dims, keepdim=True).clamp(min=1e-30)
    large = upsample(part, size)
    return large.sum(dim=1, keepdim=True) if add else large


def spread(part, size):
    large = upsample(part.sum(dim=1, keepdim=True), size)
    return large * part[0, 0].numel() / large[0, 0].numel()


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        (check.two_layers, two_layers),
        (check.batch_norm_bias, batch_norm_bias),
        (check.psi, psi),
        (check.spread, spread),
    ],
)
def test_right_answers_pass(exercise, answer, capsys):
    exercise(answer)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("exercise", "answer", "told"),
    [
        (check.two_layers, lambda *a: two_layers(*a, gates=False), "let the slope through"),
        (check.two_layers, lambda *a: two_layers(*a, times=False), "multiply it by x"),
        (check.two_layers, lambda *a: two_layers(*a, weights=False), "stand the weights w2"),
        (check.two_layers, lambda *a: two_layers(*a, sums=True), "one number for each input"),
        (check.two_layers, lambda *a: two_layers(*a)[:2], "Return three things"),
        (check.two_layers, lambda *a: (*two_layers(*a)[:2], torch.zeros(())), "its slope is 1"),
        (
            check.two_layers,
            lambda *a: (two_layers(*a)[0], two_layers(*a, gates=False)[1], a[3]),
            "only where its unit is on",
        ),
        (check.batch_norm_bias, lambda g, b, m, v, e: b, "β alone"),
        (check.batch_norm_bias, lambda g, b, m, v, e: b + g * m / (v + e).sqrt(), "has a minus"),
        (check.batch_norm_bias, lambda g, b, m, v, e: b - g * m / (v + e), "root of the variance"),
        (check.batch_norm_bias, lambda g, b, m, v, e: b - g * m / v.sqrt(), "eps is missing"),
        (check.batch_norm_bias, lambda g, b, m, v, e: b - m / (v + e).sqrt(), "multiplied by γ"),
        (check.batch_norm_bias, lambda g, b, m, v, e: b - g * m, "divided by σ"),
        (check.psi, lambda *a: psi(*a, absolute=False), "absolute values first"),
        (check.psi, lambda *a: psi(*a, shift=False), "Subtract each map's minimum"),
        (check.psi, lambda *a: psi(*a, dims=(1, 2, 3)), "not the layer"),
        (check.psi, lambda *a: psi(*a, rescale=False), "not rescaled"),
        (check.psi, lambda *a: psi(*a, add=False), "still apart"),
        (check.psi, lambda p, s: psi(p, p.shape[2:]), "Upsample the maps"),
        (check.psi, lambda p, s: psi(p.sum(1, keepdim=True), s), "not right yet"),
        (check.spread, lambda p, s: upsample(p, s).sum(1, keepdim=True), "divide by how many"),
        (check.spread, lambda p, s: spread(p.abs(), s), "No absolute values"),
        (check.spread, lambda p, s: spread(p, s) / p[0, 0].numel(), "pixels of one place"),
        (check.spread, lambda p, s: spread(p, s)[:, 0], "Keep the axis"),
        (check.spread, lambda p, s: spread(p, s) / p.shape[1], "do not average"),
    ],
)
def test_each_mistake_is_named(exercise, answer, told):
    with pytest.raises(Wrong, match=told):
        exercise(answer)


@pytest.mark.parametrize("name", ["pocket_vgg", "pocket_resnet"])
def test_all_parts_of_the_widget_together_are_fullgrad(name):
    model = nets.load(name)
    x = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    parts = fullgrad_parts(model, x, [3, 7])
    most = len(widgets.places(parts))
    whole = widgets.picture_of(parts, most, (64, 48))
    assert torch.allclose(whole, fullgrad(model, x, [3, 7]), rtol=1e-4, atol=1e-4)
    pictures = [widgets.picture_of(parts, count, (64, 48)) for count in range(1, most + 1)]
    assert all((b - a).min() > -1e-4 and (b > a).any() for a, b in pairwise(pictures))


def test_the_widget_over_the_range_of_its_slider(monkeypatch):
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(
        "vislib.show.display", lambda figure, alt: (plt.close(figure), shown.append(alt))
    )
    model = nets.load("pocket_gap")
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(64, 64, dtype=torch.bool).numpy()
    mask[10:30, 10:30] = True
    _, count, _ = widgets.growing(model, x, {"dog": 3}, {"dog": mask}).children
    shown.clear()
    for value in range(count.min, count.max + 1):
        widgets.draw_growing(model, x, {"dog": 3}, {"dog": mask}, "dog", value)
    assert len(set(shown)) == count.max
