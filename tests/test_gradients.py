"""Gradient, deconvnet and guided backprop against Captum, a second implementation and formulas.

Captum is correct if every ReLU is a separate `nn.ReLU`. It silently leaves out ReLUs that are
functions (GoogLeNet, Inception, the last one of DenseNet), so these networks are tested against the
second implementation below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.core import FAMILIES, one_forward
from vislib.explain.gradients import (
    deconvnet,
    deconvnet_rule,
    gradient,
    guided_backprop,
    guided_rule,
    saliency,
)
from vislib.maps import positive_part

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]

METHODS = {"gradient": gradient, "deconvnet": deconvnet, "guided_backprop": guided_backprop}
TARGETS = [3, 7]


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    assert expected.abs().max() > 0, "a map of zeros would make the error meaningless"
    return float((actual - expected).abs().max() / expected.abs().max())


# --- A second implementation ----------------------------------------------------------------------


class PaperReLU(torch.autograd.Function):
    """ReLU with the three backward rules of figure 1 in Springenberg et al. 2015."""

    @staticmethod
    def forward(ctx, z: Tensor, method: str, inplace: bool) -> Tensor:
        f = z.clamp_(min=0) if inplace else z.clamp(min=0)
        if inplace:
            ctx.mark_dirty(z)
        ctx.method = method
        ctx.save_for_backward(f)
        return f

    @staticmethod
    def backward(ctx, R: Tensor) -> tuple[Tensor, None, None]:
        (f,) = ctx.saved_tensors
        gate = {
            "gradient": f > 0,
            "deconvnet": R > 0,
            "guided_backprop": (f > 0) & (R > 0),
        }[ctx.method]
        return gate * R, None, None


@contextmanager
def paper_relus(method: str) -> Iterator[None]:
    """Replace PyTorch's ReLU functions, which modules call too, by `PaperReLU`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (F, torch):
            patch.setattr(module, "relu", lambda z, inplace=False: _paper(z, method, inplace))
            patch.setattr(module, "relu_", lambda z: _paper(z, method, True))
        patch.setattr(Tensor, "relu", lambda z: _paper(z, method, False))
        patch.setattr(Tensor, "relu_", lambda z: _paper(z, method, True))
        yield


def _paper(z: Tensor, method: str, inplace: bool) -> Tensor:
    return PaperReLU.apply(z, method, inplace)


def by_hand(model: nn.Module, x: Tensor, target: list[int], method: str) -> tuple[Tensor, Tensor]:
    """Attribution map and logits of the second implementation."""
    x = x.clone().requires_grad_()
    with paper_relus(method):
        logits = model(x)
        logits[range(len(x)), target].sum().backward()
    model.zero_grad()
    assert x.grad is not None
    return x.grad, logits.detach()


# --- The paper's worked example -------------------------------------------------------------------

FORWARD = [[1, -1, 5], [2, -5, -7], [-3, 2, 4]]
SIGNAL = [[-2, 3, -1], [6, -3, 1], [2, -1, 3]]
FIGURE_1 = {
    "gradient": [[-2, 0, -1], [6, 0, 0], [0, -1, 3]],
    "deconvnet": [[0, 3, 0], [6, 0, 1], [2, 0, 3]],
    "guided_backprop": [[0, 0, 0], [6, 0, 0], [0, 0, 3]],
}


@pytest.fixture
def one_relu() -> nn.Module:
    """A ReLU that receives `SIGNAL` in the backward pass."""
    head = nn.Linear(9, 1, bias=False)
    head.weight.data = torch.tensor(SIGNAL, dtype=torch.float32).view(1, 9)
    return nn.Sequential(nn.ReLU(), nn.Flatten(), head)


@pytest.mark.parametrize("method", METHODS)
def test_worked_example_of_springenberg(method, one_relu):
    image = torch.tensor(FORWARD, dtype=torch.float32)[None, None]
    expected = torch.tensor(FIGURE_1[method], dtype=torch.float32)[None, None]
    assert torch.equal(METHODS[method](one_relu, image, 0), expected)
    # The second implementation must give the example, too.
    assert torch.equal(by_hand(one_relu, image, [0], method)[0], expected)


# --- Captum, where it is right --------------------------------------------------------------------


CAPTUM = {
    "gradient": lambda model: partial(captum.attr.Saliency(model).attribute, abs=False),
    "deconvnet": lambda model: captum.attr.Deconvolution(model).attribute,
    "guided_backprop": lambda model: captum.attr.GuidedBackprop(model).attribute,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("net", ["alexnet", "vgg11", "squeezenet1_1"])
def test_equals_captum(untrained, x, net, method):
    model = untrained(net)
    peer = CAPTUM[method](model)(x.clone(), target=TARGETS)
    assert relative_error(METHODS[method](model, x, TARGETS), peer) <= 1e-6


def test_saliency_equals_captum(untrained, x):
    model = untrained("squeezenet1_1")
    peer = captum.attr.Saliency(model).attribute(x.clone(), target=TARGETS)
    assert relative_error(saliency(model, x, TARGETS), peer.amax(dim=1, keepdim=True)) <= 1e-6


def test_positive_part_of_the_gradient(untrained, x):
    grads = gradient(untrained("squeezenet1_1"), x, TARGETS)
    assert torch.equal(positive_part(grads), grads.amax(dim=1, keepdim=True).clamp(min=0))


# --- Nets with functional, re-used ReLUs ----------------------------------------------------------

AWKWARD = [
    "resnet18",  # each block uses one nn.ReLU twice
    "googlenet",  # F.relu(…, inplace=True) everywhere
    "inception_v3",
    "densenet121",  # nn.ReLU, but the last one is F.relu(features, inplace=True)
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("net", AWKWARD)
def test_equals_second_implementation(untrained, x, net, method):
    model = untrained(net)
    actual = METHODS[method](model, x, TARGETS)
    expected, logits = by_hand(model, x, TARGETS, method)
    # The second implementation must not change the forward pass.
    assert torch.equal(logits, model(x))
    assert relative_error(actual, expected) <= 1e-6
    # A rule that did not act would give the gradient.
    if method != "gradient":
        assert relative_error(gradient(model, x, TARGETS), actual) > 0.1


# --- Every way to write a ReLU --------------------------------------------------------------------


def statement(z: Tensor) -> Tensor:
    z.relu_()  # the result is ignored, as in many programs
    return z


def half(z: Tensor) -> Tensor:
    z[:, : z.shape[1] // 2].relu_()  # in place on a view
    return z


def flat(z: Tensor) -> Tensor:
    z.view(len(z), -1).relu_()
    return z


RELUS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "module": nn.ReLU,
    "module in place": lambda: nn.ReLU(inplace=True),
    "F.relu": lambda: F.relu,
    "F.relu in place": lambda: lambda z: F.relu(z, inplace=True),
    "F.relu in place by position": lambda: lambda z: F.relu(z, True),
    "F.relu_": lambda: F.relu_,
    "torch.relu": lambda: torch.relu,
    "torch.relu by keyword": lambda: lambda z: torch.relu(input=z),
    "torch.relu_": lambda: torch.relu_,
    "method": lambda: lambda z: z.relu(),
    "method in place": lambda: lambda z: z.relu_(),
    "statement": lambda: statement,
    "in place on a view": lambda: flat,
}


class Small(nn.Module):
    """Two convolutions, each followed by the same `relu`; `skip` adds the first one's output."""

    def __init__(self, relu: Callable[[Tensor], Tensor], *, skip: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        self.relu = relu
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        before = self.conv1(x)
        out = self.conv2(self.relu(before))
        # If `relu` works in place, it has changed `before`.
        if self.skip:
            out = out + before
        return self.head(self.relu(out).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def small_x() -> Tensor:
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", RELUS)
def test_all_forms_of_relu_give_the_same_map(form, method, small_x):
    model = Small(RELUS[form]())
    expected, logits = by_hand(Small(nn.ReLU()), small_x, [1, 4], method)
    assert torch.equal(METHODS[method](model, small_x, [1, 4]), expected)
    with one_forward(model, small_x, [1, 4], families=["activation"]) as forward:
        assert torch.equal(forward.logits, logits)
    assert torch.equal(model(small_x), logits)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", [form for form in RELUS if "place" in form or form == "statement"])
def test_an_in_place_relu_changes_the_skip_connection_too(form, method, small_x):
    class Explicit(Small):
        def forward(self, x: Tensor) -> Tensor:
            after = self.conv1(x).relu()
            return self.head((self.conv2(after) + after).relu().mean(dim=(2, 3)))

    model = Small(RELUS[form](), skip=True)
    expected, logits = by_hand(Explicit(nn.ReLU()), small_x, [1, 4], method)
    assert torch.equal(METHODS[method](model, small_x, [1, 4]), expected)
    assert torch.equal(model(small_x), logits)
    # A ReLU that is not in place gives other logits, so the test can fail.
    assert not torch.equal(Small(nn.ReLU(), skip=True)(small_x), logits)


@pytest.mark.parametrize("method", METHODS)
def test_relu_in_place_on_some_channels(method, small_x):
    expected, logits = by_hand(
        Small(lambda z: torch.cat([z[:, :4].relu(), z[:, 4:]], dim=1)), small_x, [1, 4], method
    )
    model = Small(half)
    assert torch.equal(model(small_x), logits)
    assert relative_error(METHODS[method](model, small_x, [1, 4]), expected) <= 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_model_that_overwrites_its_input(method, small_x):
    class Centred(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5))

    actual = METHODS[method](Centred(nn.ReLU()), small_x, [1, 4])
    assert torch.equal(actual, METHODS[method](Small(nn.ReLU()), small_x - 0.5, [1, 4]))


# --- Activations other than ReLU ------------------------------------------------------------------

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

# Derivatives from textbooks, for z in float64.
DERIVATIVES: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {
    "relu": (nn.ReLU(), lambda z: (z > 0).double()),
    "relu6": (nn.ReLU6(), lambda z: ((z > 0) & (z < 6)).double()),
    "hardtanh": (nn.Hardtanh(), lambda z: (z.abs() < 1).double()),
    "leaky_relu": (nn.LeakyReLU(), lambda z: one_or(z, 0.01)),
    "prelu": (nn.PReLU(), lambda z: one_or(z, 0.25)),
    "rrelu": (nn.RReLU(), lambda z: one_or(z, (1 / 8 + 1 / 3) / 2)),
    "elu": (nn.ELU(), lambda z: one_or(z, z.exp())),
    "celu": (nn.CELU(2.0), lambda z: one_or(z, (z / 2).exp())),
    "selu": (nn.SELU(), lambda z: SELU_SCALE * one_or(z, SELU_ALPHA * z.exp())),
    "gelu": (
        nn.GELU(),
        lambda z: (
            0.5 * (1 + torch.erf(z / math.sqrt(2)))
            + z * torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        ),
    ),
    "silu": (nn.SiLU(), lambda z: sigma(z) * (1 + z * (1 - sigma(z)))),
    "mish": (
        nn.Mish(),
        lambda z: (
            torch.tanh(torch.log(1 + z.exp()))
            + z * sigma(z) / torch.cosh(torch.log(1 + z.exp())) ** 2
        ),
    ),
    "softplus": (nn.Softplus(), lambda z: sigma(z)),
    "hardswish": (
        nn.Hardswish(),
        lambda z: torch.where(z.abs() < 3, (2 * z + 3) / 6, (z >= 3).double()),
    ),
    "hardsigmoid": (  # PyTorch computes the 1/6 in single precision
        nn.Hardsigmoid(),
        lambda z: (z.abs() < 3) * torch.tensor(1 / 6).double(),
    ),
    "sigmoid": (nn.Sigmoid(), lambda z: sigma(z) * (1 - sigma(z))),
    "tanh": (nn.Tanh(), lambda z: 1 - ((z.exp() - (-z).exp()) / (z.exp() + (-z).exp())) ** 2),
}


def sigma(z: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-z))


def one_or(z: Tensor, below: Tensor | float) -> Tensor:
    """1 where z is positive, `below` elsewhere."""
    return torch.where(z > 0, torch.ones_like(z), below)


def test_derivatives_cover_every_activation():
    assert set(DERIVATIVES) == FAMILIES["activation"]


@pytest.mark.parametrize("name", DERIVATIVES)
def test_rules_for_each_activation(name):
    activation, derivative_of = DERIVATIVES[name]
    torch.manual_seed(0)
    model = nn.Sequential(activation, nn.Flatten(), nn.Linear(60, 2)).double()
    image = 8 * torch.rand(3, 1, 6, 10, dtype=torch.float64) - 4  # beyond every kink
    signal = model[2].weight[1].detach().view(1, 1, 6, 10)
    derivative = derivative_of(image)

    def close(actual: Tensor, expected: Tensor) -> bool:
        return torch.allclose(actual, expected.expand_as(actual), rtol=1e-10, atol=1e-12)

    assert close(gradient(model, image, 1), derivative * signal)
    assert close(deconvnet(model, image, 1), signal.clamp(min=0))
    assert close(guided_backprop(model, image, 1), derivative * signal.clamp(min=0))


@pytest.mark.parametrize("method", [deconvnet, guided_backprop])
def test_model_without_activations_is_refused(method, small_x):
    linear = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(10), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"Sequential calls none of the activations.*plain grad"):
        method(linear, small_x, 0)
    assert gradient(linear, small_x, 0).abs().sum() > 0


# --- Deconvnets and pooling -----------------------------------------------------------------------


def test_pooling_passes_the_signal_to_the_switches():
    """Worked by hand: in each 2×2 window only the position of the maximum gets the signal."""
    head = nn.Linear(4, 1, bias=False)
    head.weight.data = torch.tensor([[1.0, 2.0, -3.0, 4.0]])
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), head)
    image = torch.tensor(
        [[5.0, 1.0, 2.0, 3.0], [4.0, 2.0, 9.0, 1.0], [1.0, 7.0, 1.0, 2.0], [3.0, 2.0, 4.0, 8.0]]
    )
    expected = [[1, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0], [0, 0, 0, 4]]
    assert deconvnet(model, image[None, None], 0)[0, 0].tolist() == expected


# --- One forward pass, many rules -----------------------------------------------------------------

RULES = {
    "gradient": {},
    "deconvnet": {"activation": deconvnet_rule},
    "guided_backprop": {"activation": guided_rule},
}
ORDERS = [
    ["gradient", "deconvnet", "guided_backprop"],
    ["guided_backprop", "gradient", "deconvnet"],
    ["deconvnet", "guided_backprop", "gradient", "guided_backprop"],
]


@pytest.mark.parametrize("order", ORDERS, ids=" → ".join)
@pytest.mark.parametrize("net", ["squeezenet1_1", "resnet18"])
def test_rules_are_exchanged_between_backward_passes(untrained, x, net, order):
    model = untrained(net)
    with one_forward(model, x, TARGETS, families=["activation"]) as forward:
        together = [forward.backward(**RULES[method])[0] for method in order]
    for method, actual in zip(order, together, strict=True):
        assert torch.equal(actual, METHODS[method](model, x, TARGETS))


def test_a_rule_that_cannot_act_is_refused(small_x):
    """Otherwise the result would be the plain gradient under another name."""
    with (
        one_forward(Small(nn.ReLU()), small_x, 0) as forward,
        pytest.raises(
            ValueError, match=r"this forward pass \(none\), got activation: pass families="
        ),
    ):
        forward.backward(activation=guided_rule)
