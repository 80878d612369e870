"""Each rule of LRP against its formula in plain matrix algebra, in float64.

The formulas are a second implementation of the rules, with the full matrix W of a layer. The rules
must agree with them on every kind of layer and in every form in which a layer is called.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from relevance_helpers import Mixed
from torch import Tensor, nn

from vislib.core import FAMILIES, BackwardRules, Rule, frozen
from vislib.explain.lrp import lrp
from vislib.explain.lrp.rules import (
    alpha_beta_rule,
    epsilon_rule,
    flat_rule,
    gamma_rule,
    pass_rule,
    w_square_rule,
    z_box_rule,
    z_plus_rule,
    zero_rule,
)

# --- The formulas ---------------------------------------------------------------------------------

# From W (outputs × inputs), b, x and the relevance of the outputs to the relevance of the inputs.
Formula = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
FORMULAS: dict[str, tuple[Rule, Formula]] = {}


def replicates(rule: Rule, *cases: dict[str, Any]) -> Callable[[Callable[..., Tensor]], Any]:
    """Register a formula for a rule, with each set of parameters. Without any, with the defaults
    of both."""

    def register(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
        for case in cases or ({},):
            name = " ".join([rule.__name__, *(f"{key}={value}" for key, value in case.items())])
            FORMULAS[name] = partial(rule, **case), partial(formula, **case)
        return formula

    return register


def plus(v: Tensor) -> Tensor:
    return v.clamp(min=0)


def minus(v: Tensor) -> Tensor:
    return v.clamp(max=0)


def in_proportion(
    R: Tensor, q: Tensor, bias: Tensor | float = 0.0, epsilon: float = 1e-6
) -> Tensor:
    """``R_i = Σ_j q_ij / (Σ_i q_ij + bias_j + ε sign) R_j``, with q outputs × inputs."""
    z = q.sum(1) + bias
    z = z + epsilon * torch.where(z < 0, -1.0, 1.0).to(z)
    return (q / z[:, None] * R[:, None]).sum(0)


@replicates(zero_rule)
def zero_formula(W, b, x, R):
    return (W * x / (W @ x + b)[:, None] * R[:, None]).sum(0)


@replicates(epsilon_rule, {}, {"epsilon": 0.3})
def epsilon_formula(W, b, x, R, epsilon=1e-6):
    return in_proportion(R, W * x, b, epsilon)


@replicates(gamma_rule, {}, {"gamma": 10})
def gamma_formula(W, b, x, R, gamma=0.25):
    """Each contribution ``c_ij = x_i w_ij`` of the sign of ``z_j`` counts 1 + γ times."""
    c, z = W * x, W @ x + b
    up = in_proportion(R * (z > 0), c + gamma * plus(c), b + gamma * plus(b))
    down = in_proportion(R * (z < 0), c + gamma * minus(c), b + gamma * minus(b))
    return up + down


@replicates(alpha_beta_rule, {}, {"alpha": 3, "beta": 2})
def alpha_beta_formula(W, b, x, R, alpha=2, beta=1):
    c = W * x
    positive, negative = in_proportion(R, plus(c), plus(b)), in_proportion(R, minus(c), minus(b))
    return alpha * positive - beta * negative


@replicates(z_plus_rule)
def z_plus_formula(W, b, x, R):
    return in_proportion(R, plus(W * x), plus(b))


@replicates(z_box_rule, {"low": -3.0, "high": 4.0})
def z_box_formula(W, b, x, R, low, high):
    return in_proportion(R, W * x - low * plus(W) - high * minus(W))


@replicates(w_square_rule)
def w_square_formula(W, b, x, R):
    return in_proportion(R, W**2)


@replicates(flat_rule)
def flat_formula(W, b, x, R):
    """The matrix of a convolution is 0 where an output does not see an input."""
    return in_proportion(R, (W != 0).double())


# --- Layers ---------------------------------------------------------------------------------------

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(7, 5), (7,)),
    "no bias": (nn.Linear(7, 5, bias=False), (7,)),
    "conv2d": (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 5, 5)),
    "conv2d dilated": (nn.Conv2d(2, 3, 2, dilation=2, padding="same"), (2, 4, 4)),
    "conv1d": (nn.Conv1d(2, 3, 3), (2, 6)),
    "conv_transpose2d": (nn.ConvTranspose2d(2, 3, 2, stride=2), (2, 3, 3)),
}


def relevance_of_input(
    layer: Callable[[Tensor], Tensor], rule: Rule, x: Tensor, R: Tensor
) -> Tensor:
    rules = BackwardRules(*FAMILIES)
    x = x.clone().requires_grad_()
    with rules:
        z = layer(x)
    rules.rules = dict.fromkeys(FAMILIES, rule)
    return torch.autograd.grad(z, x, R)[0]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", FORMULAS)
def test_rule_equals_its_formula(kind, name):
    """Inputs, weights, biases and relevance have both signs; the layer becomes a full matrix."""
    rule, formula = FORMULAS[name]
    layer, shape = LAYERS[kind]
    torch.manual_seed(0)
    layer = layer.double()
    x = torch.randn(3, *shape, dtype=torch.double).clamp(-3, 4)  # within the box of zB
    with frozen(layer):
        z = layer(x)
        R = torch.randn_like(z)
        jacobian = torch.autograd.functional.jacobian(layer, x[:1])
        W = jacobian.reshape(z[0].numel(), x[0].numel())
        b = layer(torch.zeros_like(x[:1])).flatten()
        actual = relevance_of_input(layer, rule, x, R)
    for n in range(3):
        expected = formula(W, b, x[n].flatten(), R[n].flatten()).view(shape)
        assert torch.allclose(actual[n], expected, rtol=1e-9, atol=1e-12)


def test_relative_epsilon_is_a_multiple_of_the_rms():
    torch.manual_seed(0)
    layer, x, R = nn.Linear(7, 5).double(), torch.randn(2, 7).double(), torch.randn(2, 5).double()
    with frozen(layer):
        rule = partial(epsilon_rule, epsilon=0.25, relative=True)
        actual = relevance_of_input(layer, rule, x, R)
        z = layer(x)
        scale = (z**2).mean(dim=1, keepdim=True) ** 0.5
        expected = x * ((R / (z + 0.25 * scale * z.sign())) @ layer.weight)
    assert torch.allclose(actual, expected, rtol=1e-10)


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.linear by keyword": lambda x: F.linear(x, bias=B, weight=W),
    "addmm": lambda x: torch.addmm(B, x, W.T),
    "addmm by keyword": lambda x: torch.addmm(input=B, mat1=x, mat2=W.T),
    "x @ w + b": lambda x: x @ W.T + B,
    "matmul": lambda x: torch.matmul(x, W.T).add_(B),
    "mm": lambda x: x.mm(W.T) + B,
}
W = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).double()
B = torch.zeros(5).double()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FORMULAS)
def test_rule_in_every_form_of_a_dense_layer(form, name):
    rule, formula = FORMULAS[name]
    torch.manual_seed(1)
    x, R = torch.randn(1, 7).double(), torch.randn(1, 5).double()
    rules = BackwardRules("dense", "sum")
    leaf = x.clone().requires_grad_()
    with rules:
        z = FORMS[form](leaf)
    rules.rules = {"dense": rule, "sum": pass_rule}
    (actual,) = torch.autograd.grad(z, leaf, R)
    assert torch.allclose(actual[0], formula(W, B, x[0], R[0]), rtol=1e-9, atol=1e-12)


def test_z_box_in_a_deeper_layer_is_an_error(small_x):
    with pytest.raises(ValueError, match=r"zB rule is for a first layer, .* between -?\d.* and \d"):
        lrp(Mixed(), small_x, 1, rule=z_box_rule)


# --- Sums and pooling -----------------------------------------------------------------------------

SUMS: dict[str, tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, Tensor]]]] = {
    "a + b": (lambda a, b: a + b, lambda a, b: (a, b)),
    "torch.add": (lambda a, b: torch.add(input=a, other=b, alpha=3), lambda a, b: (a, 3 * b)),
    "a += b": (lambda a, b: (a * 1).__iadd__(b), lambda a, b: (a, b)),
    "add_": (lambda a, b: (a * 1).add_(b), lambda a, b: (a, b)),
    "a - b": (lambda a, b: a - b, lambda a, b: (a, -b)),
    "builtin": (lambda a, b: sum([a, b]), lambda a, b: (a, b)),
    "into zeros": (lambda a, b: torch.zeros_like(a).add_(a).add_(b), lambda a, b: (a, b)),
    "stack": (lambda a, b: torch.stack([a, b]).sum(0), lambda a, b: (a, b)),
    "a + a + b": (lambda a, b: a + a + b, lambda a, b: (2 * a, b)),
    "mean": (lambda a, b: torch.stack([a, b]).mean(0), lambda a, b: (a / 2, b / 2)),
}


@pytest.mark.parametrize("form", SUMS)
def test_sums_redistribute_in_proportion_to_summands(form):
    run, summands = SUMS[form]
    torch.manual_seed(0)
    a, b, R = (torch.randn(2, 3, dtype=torch.double) for _ in range(3))
    rules = BackwardRules("sum", "average", "scale")
    leaves = [a.clone().requires_grad_(), b.clone().requires_grad_()]
    with rules:
        z = run(*leaves)
    rules.rules = {"sum": zero_rule, "average": zero_rule, "scale": pass_rule}
    actual = torch.autograd.grad(z, leaves, R)
    assert torch.equal(z, run(a, b))
    for r, summand in zip(actual, summands(a, b), strict=True):
        assert torch.allclose(r, summand / sum(summands(a, b)) * R, rtol=1e-12)


def test_average_pooling_and_max_pooling():
    """An average redistributes in proportion to its inputs, a maximum gives all to the largest.

    The windows overlap: the relevance that a pixel gets from several windows is added.
    """
    torch.manual_seed(0)
    image, R = torch.randn(1, 1, 7, 7).double(), torch.randn(1, 1, 3, 3).double()
    average, largest = torch.zeros(7, 7).double(), torch.zeros(7, 7).double()
    for i in range(3):
        for j in range(3):
            window = image[0, 0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            r = R[0, 0, i, j]
            average[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += window / window.sum() * r
            k = int(window.argmax())
            largest[2 * i + k // 3, 2 * j + k % 3] += r
    actual = relevance_of_input(nn.AvgPool2d(3, 2), zero_rule, image, R)
    assert torch.allclose(actual[0, 0], average, rtol=1e-10)
    actual = relevance_of_input(nn.MaxPool2d(3, 2), pass_rule, image, R)
    assert torch.equal(actual[0, 0], largest)
