"""Sensitivity, gradient × input and simple Taylor decomposition.

They are compared with autograd, Captum and linear models, where all three are known exactly.
"""

import captum.attr
import pytest
import torch
from relevance_helpers import TARGETS, Mixed, relative_error, sums
from torch import Tensor, nn

from vislib import nets
from vislib.core import one_forward
from vislib.explain.gradients import gradient, gradient_x_input, sensitivity
from vislib.explain.taylor import root_point, simple_taylor


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(1))


# --- Sensitivity, gradient × input ----------------------------------------------------------------


def test_sensitivity_is_the_squared_gradient(double, x):
    model = double("squeezenet1_1")
    image = x.clone().requires_grad_()
    model(image)[range(2), TARGETS].sum().backward()
    actual = sensitivity(model, x, TARGETS)
    assert torch.allclose(sums(actual), image.grad.flatten(1).norm(dim=1) ** 2, rtol=1e-12)
    assert torch.allclose(actual, image.grad**2, rtol=1e-12)


@pytest.mark.parametrize("net", ["alexnet", "resnet18"])
def test_gradient_x_input_equals_captum(double, x, net):
    model = double(net)
    expected = captum.attr.InputXGradient(model).attribute(x.clone().requires_grad_(), TARGETS)
    assert relative_error(gradient_x_input(model, x, TARGETS), expected.detach()) <= 1e-12


# --- Simple Taylor decomposition ------------------------------------------------------------------


def linear_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 18 * 18, 5)).double()


def test_simple_taylor_of_a_linear_model(small_x):
    """The root is the foot of the perpendicular, and the sum is the score with its bias."""
    model = linear_model()
    w, b = model[1].weight[2].detach(), model[1].bias[2].detach()
    flat = small_x.flatten(1)
    f = flat @ w + b
    foot = (flat - (f / w.square().sum())[:, None] * w).view_as(small_x)
    root = root_point(model, small_x, 2)
    assert torch.allclose(root, foot, atol=1e-12)
    actual = simple_taylor(model, small_x, 2)
    assert torch.allclose(sums(actual), f, rtol=1e-9)
    assert torch.allclose(actual, w.view(1, 3, 18, 18) * (small_x - foot), atol=1e-12)


@pytest.mark.parametrize("net", ["emoji_vgg", "emoji_resnet"])
def test_root_points_of_a_trained_network(net):
    """The scores have both signs."""
    model = nets.load(net)
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    logits = model(image).detach()
    target = [int(logits[0].argmax()), int(logits[1].argmin())]
    y = logits[range(2), target]
    assert y[0] > 0 > y[1]
    root = root_point(model, image, target)
    with one_forward(model, root, target) as forward:
        assert (forward.y.abs() <= 1e-4 * y.abs()).all()
    assert ((root - image).flatten(1).norm(dim=1) <= 0.1 * image.flatten(1).norm(dim=1)).all()
    actual = simple_taylor(model, image, target)
    assert torch.equal(actual, simple_taylor(model, image, target, root))
    assert (sums(actual) * y > 0).all()


def test_simple_taylor_at_a_given_root(small_x):
    model = Mixed()
    root = torch.full_like(small_x[:1], 0.5)
    actual = simple_taylor(model, small_x, 1, root)
    expected = gradient(model, root, 1) * (small_x - root)
    assert torch.allclose(actual, expected, atol=1e-15)


def test_root_points_stay_in_the_box(small_x):
    root = root_point(linear_model(), small_x, 2, box=(0.0, 1.0))
    assert root.min() >= 0 and root.max() <= 1


def test_a_score_without_a_root_is_an_error(small_x):
    """``relu(z) + 1`` is never 0."""
    model = linear_model()
    positive = nn.Sequential(model, nn.ReLU())
    positive.forward = lambda x: model(x).relu() + 1
    with pytest.raises(ValueError, match=r"no root point found for image 0, 1 of the .* root="):
        simple_taylor(positive, small_x, 2)
