"""Targets that are not one class: "why A rather than B", and weighted sums of logits.

A target is a linear function of the logits. So an attribution that is linear in the score must be
linear in the target too, and one that runs the network on changed images must equal a plain loop.
"""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from vislib import nets
from vislib.core import Contrast, Weighted, one_forward, score, split_target, target_weights
from vislib.explain import shapley
from vislib.explain.averaging import integrated_gradients, smoothgrad
from vislib.explain.cam import cam, grad_cam, xgrad_cam
from vislib.explain.fullgrad import fullgrad_parts
from vislib.explain.gradients import gradient, gradient_x_input
from vislib.explain.lrp import COMPOSITES, lrp
from vislib.explain.occlusion import occlusion
from vislib.explain.taylor import simple_taylor
from vislib.measure.methods import METHODS
from vislib.measure.perturbation import deletion

A, B = 3, 7


@pytest.fixture(scope="module")
def model():
    return nets.load("emoji_gap").double()


@pytest.fixture(scope="module")
def x():
    return torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture(scope="module")
def logits(model, x):
    with torch.no_grad():
        return model(x)


def others(logits, a):
    """The weights of all classes but `a`: their probabilities among themselves, by a loop."""
    weights = torch.zeros_like(logits)
    for i, row in enumerate(logits):
        rest = [k for k in range(len(row)) if k != a]
        exponentials = [np.exp(float(row[k] - row.max())) for k in rest]
        for k, e in zip(rest, exponentials, strict=True):
            weights[i, k] = e / sum(exponentials)
    return weights


# --- The score ------------------------------------------------------------------------------------


def test_the_score_of_a_contrast_is_the_difference(logits):
    assert torch.equal(score(logits, Contrast(A, B)), logits[:, A] - logits[:, B])
    pairs = score(logits, Contrast([A, B], [B, A]))
    assert torch.equal(
        pairs, torch.stack([logits[0, A] - logits[0, B], logits[1, B] - logits[1, A]])
    )


def test_the_score_against_all_others_weights_them_by_probability(logits):
    expected = logits[:, A] - (others(logits, A) * logits).sum(dim=1)
    assert torch.allclose(score(logits, Contrast(A)), expected, rtol=1e-12)


def test_the_gradient_against_all_others_is_that_of_the_probability(model, x, logits):
    def log_odds(images):
        p = model(images).softmax(dim=1)[:, A]
        return (p / (1 - p)).log().sum()

    image = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(log_odds(image), image)
    assert torch.allclose(gradient(model, x, Contrast(A)), expected, rtol=1e-8, atol=1e-12)


def test_weighted_logits(logits):
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).double()
    assert torch.allclose(score(logits, Weighted(weights)), (weights * logits).sum(dim=1))
    assert torch.equal(target_weights(logits, Weighted(weights[0]))[1], weights[0])


def test_a_class_without_weight_may_be_infinite():
    logits = torch.tensor([[1.0, torch.inf, torch.nan, 4.0]])
    assert score(logits, Contrast(3, 0)).item() == 3
    assert score(logits, 3).item() == 4


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Contrast(A, 99), "target 99 does not exist"),
        (Contrast(-1), "target -1 does not exist"),
        (Contrast("dog", B), "target must be a class index or 2 of them, got 'dog'"),
        (Contrast(A, [1, 2, 3]), r"2 images need one target or 2, got shape \(3,\)"),
        (Weighted(torch.ones(3)), r"here \(16,\) or \(2, 16\), got \(3,\)"),
        (Weighted(torch.ones(3, 16)), r"here \(16,\) or \(2, 16\), got \(3, 16\)"),
    ],
)
def test_targets_that_do_not_fit(logits, target, message):
    with pytest.raises(ValueError, match=message):
        score(logits, target)


def test_one_class_has_no_others():
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        score(torch.ones(2, 1), Contrast(0))


# --- Linear methods -------------------------------------------------------------------------------

LINEAR = {
    "gradient": gradient,
    "gradient_x_input": gradient_x_input,
    "cam": cam,
    "grad_cam": partial(grad_cam, relu=False),
    "xgrad_cam": partial(xgrad_cam, relu=False),
    "smoothgrad": partial(smoothgrad, n=3),
    "integrated_gradients": partial(integrated_gradients, steps=3),
    "fullgrad": lambda model, x, target: fullgrad_parts(model, x, target).input,
    "taylor": partial(simple_taylor, root=torch.tensor(0.5)),
    "occlusion": partial(occlusion, size=24, stride=24),
    "shapley": partial(shapley.shapley, segments=4, samples=2),
} | {f"lrp {name}": partial(lrp, rule=name) for name in COMPOSITES}


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_method_is_linear_in_the_target(name, model, x, logits):
    method = LINEAR[name]
    one = {k: method(model, x, k) for k in range(logits.shape[1])}
    scale = max(float(m.abs().max()) for m in one.values())
    difference = method(model, x, Contrast(A, B))
    assert torch.allclose(difference, one[A] - one[B], atol=1e-9 * scale)

    weights = others(logits, A)
    expected = one[A] - sum(weights[:, k].view(-1, 1, 1, 1) * one[k] for k in one)
    assert torch.allclose(method(model, x, Contrast(A)), expected, atol=1e-9 * scale)


# --- Plain loops ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [Contrast(A, B), Contrast(A), Contrast([A, B], [B, A])])
def test_occlusion_of_a_contrast_equals_a_plain_loop(model, x, logits, target):
    weights = target_weights(logits, target)
    expected, count = torch.zeros(2, 1, 48, 48).double(), torch.zeros(48, 48)
    for row in (0, 16, 32):
        for column in (0, 16, 32):
            square = (..., slice(row, row + 16), slice(column, column + 16))
            covered = x.clone()
            covered[square] = 0.5
            with torch.no_grad():
                lost = (weights * (logits - model(covered))).sum(dim=1)
            expected[square] += lost.view(-1, 1, 1, 1)
            count[square] += 1
    assert (count == 1).all()
    actual = occlusion(model, x, target, size=16, stride=16)
    assert torch.allclose(actual, expected, atol=1e-9)


@pytest.mark.parametrize("target", [Contrast(A, B), Contrast(A)])
def test_shapley_values_of_a_contrast_equal_all_orders(model, x, logits, target):
    """Three parts, so that all orders can be written down."""
    image, weights = x[:1], target_weights(logits, target)[:1]
    parts = torch.arange(48).div(16, rounding_mode="floor").expand(48, 48).clone()

    def value(team):
        there = torch.isin(parts, torch.tensor(sorted(team), dtype=torch.long))
        with torch.no_grad():
            return float((weights * model(torch.where(there, image, 0.5))).sum())

    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    expected = []
    for part in range(3):
        gains = [value({*o[: o.index(part) + 1]}) - value({*o[: o.index(part)]}) for o in orders]
        expected.append(np.mean(gains))
    game = shapley.image_game(model, image, target, parts)
    assert shapley.exact(game, 3).tolist() == pytest.approx(expected, rel=1e-9)
    # The estimate plays the same game.
    phi = shapley.shapley(model, image, target, segments=parts, samples=6)[0, 0, 0, [0, 20, 40]]
    estimate = shapley.permutations(game, 3, 6, antithetic=True, seed=0).values
    assert phi.tolist() == pytest.approx(estimate.tolist(), rel=1e-9)
    assert float(phi.sum()) == pytest.approx(sum(expected), rel=1e-9)


def test_deletion_of_a_contrast_is_the_difference_of_probabilities(model, x):
    both = [deletion(model, x, k, x, steps=3).scores for k in (A, B)]
    actual = deletion(model, x, Contrast(A, B), x, steps=3).scores
    assert torch.allclose(actual, both[0] - both[1], atol=1e-12)


# --- Every method ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [Contrast(A, B), Contrast(A), Contrast([A, B], [B, A])])
@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if not m.control])
def test_every_method_takes_a_contrast(name, target, model, x):
    """In a batch each image has the same map as alone."""
    method = METHODS[name]
    layer = "net.features.2" if name in ("score_cam", "unit_deconvnet") else "net.features"
    together = method(model, x, target, layer)
    for i, one in enumerate(split_target(target, 2)):
        alone = method(model, x[i : i + 1], one, layer)
        assert torch.allclose(
            together[i : i + 1], alone, atol=1e-7 * float(alone.abs().max() + 1e-9)
        )


def test_lrp_of_a_contrast_sums_to_the_difference():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5, bias=False),
    ).double()
    x = torch.rand(2, 3, 8, 8).double()
    for target in (Contrast(1, 4), Contrast(2)):
        with one_forward(net, x, target) as forward:
            y = forward.y.detach()
        relevance = lrp(net, x, target, rule="zero")
        assert torch.allclose(relevance.flatten(1).sum(1), y, rtol=1e-9)
