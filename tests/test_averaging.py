"""SmoothGrad and integrated gradients against Captum, plain loops and identities."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import captum.attr
import pytest
import torch
from torch import Tensor, nn

from vislib.core import Contrast, Weighted, target_weights
from vislib.explain import averaging
from vislib.explain.averaging import draws, integrated_gradients, path_rule, smoothgrad
from vislib.explain.gradients import gradient, gradient_x_input, guided_backprop, sensitivity

NETS = ["squeezenet1_1", "resnet18", "googlenet", "densenet121"]  # without large dense layers
TARGETS = [3, 7]
TARGETS_OF_3 = [0, 2]  # for the model with three classes


@pytest.fixture(scope="module")
def x() -> Tensor:
    """Two images of different ranges, so that one σ for both would give another result."""
    x = torch.rand(2, 3, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    return x * torch.tensor([0.3, 1.0]).view(2, 1, 1, 1)


@pytest.fixture(scope="module")
def double(untrained) -> Callable[[str], nn.Module]:
    """Networks in float64: in float32 the rounding depends on the batch, and ReLUs switch."""
    return lambda name: copy.deepcopy(untrained(name)).double()


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """A smooth network of three classes in float64, which is nowhere linear."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 4, 3)
        return nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3)).double().eval()


@pytest.fixture(scope="module")
def dots() -> Tensor:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    return x * torch.tensor([0.4, 1.0]).view(2, 1, 1, 1)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    assert expected.abs().max() > 0, "a map of zeros would make the error meaningless"
    return float((actual - expected).abs().max() / expected.abs().max())


def gradient_by_torch(model: nn.Module, image: Tensor, target: int) -> Tensor:
    """Gradient of one image C×H×W by PyTorch alone."""
    leaf = image.detach().clone().requires_grad_()
    return torch.autograd.grad(model(leaf[None])[0, target], leaf)[0]


# --- SmoothGrad -----------------------------------------------------------------------------------


@pytest.mark.parametrize("net", NETS)
def test_smoothgrad_is_the_equation_in_plain_loops(double, x, net):
    model = double(net)
    expected = torch.zeros_like(x)
    for i, target in enumerate(TARGETS):
        sigma = 0.1 * (float(x[i].max()) - float(x[i].min()))
        generator = torch.Generator().manual_seed(5)
        for _ in range(2):
            noise = torch.randn(3, 64, 64, generator=generator).double()
            expected[i] += gradient_by_torch(model, x[i] + sigma * noise, target) / 2
    actual = smoothgrad(model, x, TARGETS, level=0.1, n=2, seed=5)
    assert relative_error(actual, expected) <= 1e-9
    other = smoothgrad(model, x, TARGETS, level=0.1, n=2, seed=6)
    assert relative_error(other, expected) > 0.01


def test_smoothgrad_equals_captums_noise_tunnel(double, x, monkeypatch):
    """Captum gets the same draws; its σ is one number, so it explains one image at a time."""
    model, image = double("squeezenet1_1"), x[:1]
    noise = torch.stack([*draws(x.shape[1:], 5)]).double()
    monkeypatch.setattr(torch, "normal", lambda mean, std: mean + std.double() * noise)
    peer = captum.attr.NoiseTunnel(captum.attr.Saliency(model)).attribute(
        image.clone(),
        nt_samples=5,
        stdevs=0.2 * float(image.max() - image.min()),
        target=3,
        abs=False,
    )
    assert relative_error(smoothgrad(model, image, 3, level=0.2, n=5), peer) <= 1e-5


def test_smoothgrad_scales_the_noise_for_each_image(small, dots):
    """The noise depends neither on the other images of the batch nor on the brightness."""
    both = smoothgrad(small, dots, TARGETS_OF_3, n=4)
    for i, target in enumerate(TARGETS_OF_3):
        alone = smoothgrad(small, dots[i : i + 1], target, n=4)
        assert relative_error(both[i : i + 1], alone) <= 1e-12
    batches = []

    def keep(model: nn.Module, points: Tensor, target: object) -> Tensor:
        batches.append(points)
        return points

    mean = smoothgrad(small, dots + 5, 0, level=0.25, n=2000, method=keep, batch=500)
    points = torch.cat(batches).view(2, 2000, *dots.shape[1:]) - 5
    for image, copies in zip(dots, points, strict=True):
        sigma = 0.25 * float(image.max() - image.min())
        assert float((copies - image).std()) == pytest.approx(sigma, rel=0.01)
    assert torch.allclose(mean, points.mean(dim=1) + 5)


def test_smoothgrad_equals_the_gradient_where_it_must(small, dots):
    """For a linear model, and without noise."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).double()
    assert relative_error(smoothgrad(linear, dots, 1, n=3), gradient(linear, dots, 1)) <= 1e-12
    assert relative_error(smoothgrad(small, dots, 1, level=0), gradient(small, dots, 1)) <= 1e-12


def test_smoothgrad_averages_any_method(double, x):
    model = double("squeezenet1_1")
    for method in (guided_backprop, sensitivity):
        expected = torch.zeros_like(x[:1])
        sigma = 0.15 * (x[0].max() - x[0].min())
        for noise in draws(x.shape[1:], 3, 0):
            expected += method(model, x[:1] + sigma * noise.double(), 3) / 3
        actual = smoothgrad(model, x[:1], 3, n=3, method=method)
        assert relative_error(actual, expected) <= 1e-9
    # The mean of the squares is at least the square of the mean (Jensen).
    energy = smoothgrad(model, x[:1], 3, n=3, method=sensitivity)
    assert (energy >= smoothgrad(model, x[:1], 3, n=3).square() * (1 - 1e-5)).all()


def test_energy_of_the_mean_falls_like_one_over_n(small, dots):
    """``E‖mean of n‖² = ‖m‖² + V/n``, the law of notebook 11."""
    noise = torch.stack([*draws(dots.shape[1:], 3000)]).double()
    maps = gradient(small, dots[1:] + 0.5 * (dots[1].max() - dots[1].min()) * noise, 0)
    m, V = maps.mean(dim=0).square().sum(), maps.var(dim=0).sum()
    groups = maps.view(300, 10, *maps.shape[1:]).mean(dim=1)
    energy = groups.square().flatten(1).sum(dim=1).mean()
    assert float(energy) == pytest.approx(float(m + V / 10), rel=0.01)


# --- Integrated gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("net", NETS)
def test_integrated_gradients_equal_captum(double, x, net):
    model = double(net)
    peer = captum.attr.IntegratedGradients(model)
    for rule, theirs in {"midpoint": "riemann_middle", "gauss_legendre": "gausslegendre"}.items():
        expected = peer.attribute(
            x.clone(), baselines=0.2, target=TARGETS, n_steps=3, method=theirs
        )
        actual = integrated_gradients(model, x, TARGETS, baseline=0.2, steps=3, rule=rule)
        # The weights of Captum are float32.
        assert relative_error(actual, expected) <= 1e-6


@pytest.mark.parametrize("rule", ["midpoint", "gauss_legendre"])
def test_integrated_gradients_are_complete(small, dots, rule):
    """The map sums to the difference of the scores; Gauss–Legendre needs fewer steps here."""
    baseline = dots.mean(dim=(2, 3), keepdim=True)
    with torch.no_grad():
        expected = (small(dots) - small(baseline.expand_as(dots)))[[0, 1], TARGETS_OF_3]
    gaps = []
    for steps in (1, 8, 200):
        R = integrated_gradients(
            small, dots, TARGETS_OF_3, baseline=baseline, steps=steps, rule=rule
        )
        gaps.append(float((R.sum(dim=(1, 2, 3)) - expected).abs().max()))
    assert gaps[0] > 1e-3 > gaps[1] and gaps[2] < 1e-6
    assert gaps[1] < 1e-8 or rule == "midpoint"


def test_integrated_gradients_of_a_network_without_biases(dots):
    """With ReLUs it is linear on each line from black: gradient × input, for any steps."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 4, 3, bias=False)
        head = nn.Linear(144, 3, bias=False)
        model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), head).double()
    expected = gradient_x_input(model, dots, 1)
    for steps in (1, 3):
        assert relative_error(integrated_gradients(model, dots, 1, steps=steps), expected) <= 1e-9


def test_baselines(small, dots):
    """A number, a colour or an image; where image and baseline agree, the map is 0."""
    colour = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    by_image = integrated_gradients(small, dots, 0, baseline=colour.expand_as(dots))
    assert torch.equal(integrated_gradients(small, dots, 0, baseline=colour), by_image)
    half = dots.clone()
    half[..., 4:] = 0
    R = integrated_gradients(small, dots, 0, baseline=half)
    assert (R[..., :4] == 0).all() and (R[..., 4:] != 0).any()
    assert (integrated_gradients(small, dots, 0, baseline=dots) == 0).all()


@pytest.mark.parametrize("steps", [1, 2, 5, 64])
def test_path_rules_are_quadratures(steps):
    for rule in ("midpoint", "gauss_legendre"):
        alphas, weights = path_rule(steps, rule)
        assert len(alphas) == steps and alphas.min() > 0 and alphas.max() < 1
        assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
        assert float((weights * alphas).sum()) == pytest.approx(1 / 2, abs=1e-12)
    degree = 2 * steps - 1
    assert float((weights * alphas**degree).sum()) == pytest.approx(1 / (degree + 1), abs=1e-12)


# --- Both -----------------------------------------------------------------------------------------


both = pytest.mark.parametrize("method", [smoothgrad, integrated_gradients])


@both
def test_result_does_not_depend_on_the_batch(small, dots, method):
    count = {smoothgrad: "n", integrated_gradients: "steps"}[method]
    whole = method(small, dots, TARGETS_OF_3, batch=100, **{count: 7})
    for batch in (1, 2, 3, 7, None):
        part = method(small, dots, TARGETS_OF_3, batch=batch, **{count: 7})
        assert relative_error(part, whole) <= 1e-12


@both
def test_batches_have_at_most_the_allowed_size(small, dots, method):
    sizes = []
    handle = small.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    try:
        count = {smoothgrad: "n", integrated_gradients: "steps"}[method]
        method(small, dots, 0, batch=3, **{count: 7})
        assert sizes == [3, 3, 1] * 2
        sizes.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(averaging, "_PIXELS", 5 * 8 * 8)
            method(small, dots, 0, **{count: 7})
        assert sizes == [5, 2] * 2
    finally:
        handle.remove()


@both
def test_wrong_arguments_are_refused(small, dots, method):
    with pytest.raises(ValueError, match=r"2 images need one target or 2, got shape \(3,\)"):
        method(small, dots, [0, 1, 2])
    with pytest.raises(ValueError, match="target must be a class index or 2 of them, got 'zebra'"):
        # The message counts the images, not the copies in a batch.
        method(small, dots, "zebra", batch=3)
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1, got 0"):
        method(small, dots, 0, batch=0)
    count = {smoothgrad: "n", integrated_gradients: "steps"}[method]
    with pytest.raises(ValueError, match=f"{count} must be a whole number of at least 1, got 0"):
        method(small, dots, 0, **{count: 0})


def test_wrong_levels_baselines_and_rules_are_refused(small, dots):
    for level in (-0.1, math.nan):
        with pytest.raises(
            ValueError,
            match=f"level must be a fraction of the image's range, at least 0, got {level}",
        ):
            smoothgrad(small, dots, 0, level=level)
    with pytest.raises(
        ValueError, match=r"baseline must be .* for images of .* got shape \(5, 8\)"
    ):
        integrated_gradients(small, dots, 0, baseline=torch.zeros(5, 8))
    with pytest.raises(ValueError, match="'midpoint' or 'gauss_legendre', got 'left'"):
        integrated_gradients(small, dots, 0, rule="left")


def test_smoothed_integrated_gradients(small, dots):
    """Methods compose: the mean of the integrated gradients of noisy copies."""
    method = partial(integrated_gradients, steps=4)
    actual = smoothgrad(small, dots[:1], 0, n=2, method=method)
    sigma = 0.15 * (dots[0].max() - dots[0].min())
    copies = [dots[:1] + sigma * noise for noise in draws(dots.shape[1:], 2)]
    expected = sum(method(small, copy, 0) for copy in copies) / 2
    assert relative_error(actual, expected) <= 1e-6


@both
def test_contrasts_are_differences_of_maps(small, dots, method):
    a, b = method(small, dots, TARGETS_OF_3), method(small, dots, 1)
    assert relative_error(method(small, dots, Contrast(TARGETS_OF_3, 1)), a - b) <= 1e-9


@both
def test_weights_of_a_contrast_come_from_the_images(small, dots, method):
    """Not from the noisy copies or the points of the line."""
    weights = target_weights(small(dots), Contrast(TARGETS_OF_3))
    expected = method(small, dots, Weighted(weights))
    assert relative_error(method(small, dots, Contrast(TARGETS_OF_3)), expected) <= 1e-12


# --- The n-th best class, as the target of a second map -------------------------------------------
