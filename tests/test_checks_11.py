"""The checks and the widget of notebook 11: right answers pass, each usual mistake is named."""

import itertools

import numpy as np
import pytest
import torch

from vislib import nets
from vislib.checks import Wrong, saliency
from vislib.explain.averaging import smoothgrad
from vislib.maps import total_variation
from vislib.measure import energy
from vislib.widgets import saliency as widgets


def picture(g):
    return g.abs().amax(dim=1, keepdim=True)


def nth(model, x, n):
    return int(model(x)[0].argsort(descending=True)[n - 1])


def smooth(slope, x, level, n, seed, *, sigma=None, each=lambda g: g, draw=torch.randn, again=0):
    generator = torch.Generator().manual_seed(seed)
    sigma = level * (x.max() - x.min()) if sigma is None else sigma(x, level)
    total = 0
    for _ in range(n):
        if again:
            generator.manual_seed(seed)
        total = total + each(slope(x + sigma * draw(x.shape, generator=generator)))
    return total / n


def unseeded(slope, x, level, n, seed):
    sigma = level * (x.max() - x.min())
    return sum(slope(x + sigma * torch.randn(x.shape)) for _ in range(n)) / n


def walk(slope, x, level, n, seed):
    generator, copy, total = torch.Generator().manual_seed(seed), x.clone(), 0
    for _ in range(n):
        copy = copy + level * (x.max() - x.min()) * torch.randn(x.shape, generator=generator)
        total = total + slope(copy) / n
    return total


def noise_into_x(slope, x, level, n, seed):
    x += 0.1
    return slope(x)


def integral(slope, x, baseline, steps, *, shift=0.5, factor=None, divide=True):
    alphas = [(k + shift) / steps for k in range(steps)]
    mean = sum(slope(baseline + alpha * (x - baseline)) for alpha in alphas)
    factor = x - baseline if factor is None else factor(x, baseline)
    return factor * (mean / steps if divide else mean)


def both_ends(slope, x, baseline, steps):
    alphas = torch.linspace(0, 1, steps)
    return (x - baseline) * sum(slope(baseline + a * (x - baseline)) for a in alphas) / steps


def from_black(slope, x, baseline, steps):
    mean = sum(slope((k + 0.5) / steps * x) for k in range(steps)) / steps
    return (x - baseline) * mean


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (saliency.saliency, picture),
        (saliency.nth_best, nth),
        (saliency.nth_best, lambda m, x, n: m(x).topk(n).indices[0, -1]),
        (saliency.smooth, smooth),
        (saliency.integral, integral),
    ],
)
def test_right_answers_pass(check, answer, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (saliency.saliency, lambda g: g.amax(1, keepdim=True), "signed maximum"),
        (saliency.saliency, lambda g: g.amax(1, keepdim=True).abs(), "absolute value comes first"),
        (saliency.saliency, lambda g: g.abs().mean(1, keepdim=True), "mean over the channels"),
        (saliency.saliency, lambda g: g.abs().sum(1, keepdim=True), "sum over the channels"),
        (saliency.saliency, lambda g: g.sum(1, keepdim=True).abs(), "cancel"),
        (saliency.saliency, lambda g: g.abs().amax(1), "keepdim"),
        (saliency.saliency, lambda g: g.abs().max(1, keepdim=True), "values and places"),
        (saliency.saliency, lambda g: g.abs().argmax(1, keepdim=True), "number of the channel"),
        (saliency.saliency, lambda g: g.abs_().amax(1, keepdim=True), "changes its input"),
        (saliency.nth_best, lambda m, x, n: nth(m, x, n + 1), "Count from 1"),
        (saliency.nth_best, lambda m, x, n: m(x)[0].argsort()[n - 1], "descending"),
        (saliency.nth_best, lambda m, x, n: m(x)[0].sort().values[-n], "This is the logit"),
        (saliency.nth_best, lambda m, x, n: m(x)[0].argmax(), "not right yet"),
        (
            saliency.smooth,
            lambda *a: smooth(*a, sigma=lambda x, level: level),
            r"level · \(max - min\)",
        ),
        (
            saliency.smooth,
            lambda *a: smooth(*a, sigma=lambda x, level: level * x.max()),
            "maximum minus the minimum",
        ),
        (
            saliency.smooth,
            lambda *a: smooth(*a, sigma=lambda x, level: level * x.std()),
            "standard deviation of the pixels",
        ),
        (saliency.smooth, lambda *a: smooth(*a) * a[3], "divide by n"),
        (saliency.smooth, lambda *a: smooth(*a, each=torch.abs), "after the mean"),
        (saliency.smooth, lambda *a: smooth(*a, again=1), "same noise"),
        (saliency.smooth, lambda *a: smooth(*a, draw=torch.rand), "not uniform"),
        (saliency.smooth, lambda *a: a[0](a[1]), "plain gradient"),
        (saliency.smooth, walk, "the copy before"),
        (saliency.smooth, unseeded, "two different maps"),
        (saliency.smooth, noise_into_x, "changes its input"),
        (saliency.integral, lambda *a: integral(*a, shift=0), "left ends"),
        (saliency.integral, lambda *a: integral(*a, shift=1), "right ends|one gradient"),
        (saliency.integral, both_ends, "both ends|left ends"),
        (saliency.integral, lambda *a: integral(*a, factor=lambda x, b: 1), "multiply it by"),
        (saliency.integral, lambda *a: integral(*a, factor=lambda x, b: x), "not by x"),
        (
            saliency.integral,
            lambda *a: integral(*a, factor=lambda x, b: b - x),
            "the other way round",
        ),
        (saliency.integral, lambda *a: integral(*a, divide=False), "divide by their number"),
        (saliency.integral, from_black, "begin at the baseline"),
        (saliency.integral, lambda s, x, b, k: (x - b) * s(x), "right ends|one gradient"),
    ],
)
def test_each_mistake_is_named(check, answer, told):
    with pytest.raises(Wrong, match=told):
        check(answer)


def test_the_noise_over_the_range_of_its_sliders(monkeypatch):
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(
        "vislib.show.display", lambda figure, alt: (plt.close(figure), shown.append(alt))
    )
    model = nets.load("pocket_alexnet")
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.5
    mask = np.zeros((64, 64), dtype=bool)
    mask[10:40, 20:50] = True
    level, n, _ = widgets.noise(model, x, 2, mask).children
    for sigma, copies in itertools.product((level.min, 0.25, level.max), (n.min, n.max)):
        seen = widgets.smoothed(model, x, 2, mask, sigma, copies)
        expected = smoothgrad(model, x, 2, level=sigma, n=copies)
        assert torch.equal(seen.map, expected)
        assert seen.P == energy.energy(expected[0], mask).P
        assert seen.variation == total_variation(expected).item()
        assert 0 <= seen.probability <= 1
        span = float(x.max() - x.min())
        assert float((seen.copy - x).std()) == pytest.approx(sigma * span, rel=0.03, abs=1e-6)
    shown.clear()
    for sigma, copies in [(0.0, 1), (0.5, 1), (0.5, 4)]:
        widgets.draw_smoothed(model, x, 2, mask, sigma, copies)
    assert len(set(shown)) == 3
