"""Rules of layer-wise relevance propagation (LRP).

A layer computes ``z_j = Σ_i x_i w_ij + b_j``. In the backward pass it receives the relevance
``R_j`` of its outputs and redistributes it to its inputs in proportion to their contributions:

    LRP-0     R_i = Σ_j  x_i w_ij / z_j · R_j
    LRP-ε     R_i = Σ_j  x_i w_ij / (z_j + ε sign z_j) · R_j
    LRP-γ     R_i = Σ_j  x_i (w_ij + γ w⁺_ij) / Σ_i x_i (w_ij + γ w⁺_ij) · R_j         for x ≥ 0
    LRP-αβ    R_i = Σ_j  (α (x_i w_ij)⁺ / Σ_i (x_i w_ij)⁺ - β (x_i w_ij)⁻ / Σ_i (x_i w_ij)⁻) R_j
    LRP-zB    R_i = Σ_j  (x_i w_ij - l_i w⁺_ij - h_i w⁻_ij) / Σ_i (same) · R_j   l_i ≤ x_i ≤ h_i
    LRP-w²    R_i = Σ_j  w²_ij / Σ_i w²_ij · R_j
    LRP-flat  R_i = Σ_j  1 / Σ_i 1 · R_j

with ``v⁺ = max(v, 0)`` and ``v⁻ = min(v, 0)``. All rules share one computation in two steps. First
the layer runs with modified inputs and weights, which gives the denominators ``z_j``. Then
PyTorch's backward pass gives ``R_i = x_i · Σ_j (∂z_j/∂x_i) (R_j / z_j)``.

The denominators of LRP-0, ε, γ and αβ contain the bias, as the contribution of an input that is
always 1. The relevance of a bias does not reach the pixels (``Composite(bias=False)`` leaves the
biases out).

A rule is a function ``rule(operation, relevance)`` of the type `vislib.core.Rule`:

    operation    operation of the forward pass
    relevance    relevance ``R_j`` of its output, in the shape of the output

It returns a tuple with the relevance ``R_i`` of each input, in the shapes of the inputs.

>>> from vislib.core import BackwardRules
>>> x, w = torch.rand(2, 3, requires_grad=True), torch.rand(4, 3)
>>> rules = BackwardRules("dense")
>>> with rules:
...     z = torch.nn.functional.linear(x, w)
>>> rules.rules = {"dense": gamma_rule}
>>> relevance = torch.rand(2, 4)
>>> (result,) = torch.autograd.grad(z, x, relevance)
>>> torch.allclose(result.sum(1), relevance.sum(1), rtol=1e-4)
True

References:
    Bach et al. 2015, "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise
    Relevance Propagation" (0, ε, αβ).
    Montavon et al. 2017, "Explaining NonLinear Classification Decisions with Deep Taylor
    Decomposition" (z⁺, zB, w²).
    Lapuschkin et al. 2019, "Unmasking Clever Hans Predictors and Assessing What Machines Really
    Learn" (flat).
    Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview" (γ, composites).
    Andéol et al. 2021, "Learning Domain Invariant Representations by Joint Wasserstein Distance
    Minimization" (γ for both signs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vislib.core import Operation
from vislib.explain.lrp.operations import as_layer

# The stabiliser ε of all denominators. Only LRP-ε has it as a parameter.
STABILISER = 1e-6


# --- Rules ----------------------------------------------------------------------------------------


def pass_rule(operation: Operation, relevance: Tensor) -> tuple[Tensor, ...]:
    """Unchanged relevance, ``R_i = R_j``, for activations and for multiplication by a constant."""
    return (relevance.sum_to_size(operation.inputs[0].shape),)


def zero_rule(operation: Operation, relevance: Tensor) -> tuple[Tensor, ...]:
    """LRP-0 for layers and all other linear operations. Relevance at ``z_j = 0`` is lost."""
    return epsilon_rule(operation, relevance, epsilon=0)


def epsilon_rule(
    operation: Operation, relevance: Tensor, *, epsilon: float = STABILISER, relative: bool = False
) -> tuple[Tensor, ...]:
    """LRP-ε for layers and all other linear operations: sums, averages, batch normalisation.

    Bach et al. 2015. The term ε absorbs relevance, most where the contributions to a neuron cancel.

    Args:
        operation, relevance: as explained at the top of this module.
        epsilon: ε, at least 0.
        relative: whether ε is multiplied by the root mean square of ``z``, computed for each image
            (Montavon et al. 2019).
    """
    z = operation.output
    scale: Tensor | float = 1.0
    if relative:
        scale = z.detach().square().mean(dim=tuple(range(1, z.ndim)), keepdim=True).sqrt()
    return redistribute(relevance, operation.inputs, z, epsilon * scale)


def gamma_rule(
    operation: Operation, relevance: Tensor, *, gamma: float = 0.25
) -> tuple[Tensor, ...]:
    """LRP-γ for a layer: contributions with the sign of ``z_j`` count 1 + γ times.

    Montavon et al. 2019. For ``x ≥ 0`` and ``z > 0`` this is the formula at the top of this module.
    For inputs and outputs of both signs the rule is that of Andéol et al. 2021.

    Args:
        operation, relevance: as explained at the top of this module.
        gamma: γ, at least 0. With γ = 0 the rule is LRP-ε.

    Raises:
        ValueError: the operation is not a convolution or dense layer.
    """
    x, w, b = parameters(operation)
    z = operation.output.detach()

    def for_sign(
        same_sign: Callable[..., Any], other_sign: Callable[..., Any], relevance: Tensor
    ) -> Tensor:
        """Relevance of the input from outputs of one sign.

        Contributions of this sign are ``x⁺ same_sign(w)`` and ``x⁻ other_sign(w)``.
        """
        return redistribute_by_terms(
            operation,
            relevance,
            (_plus(x), w + gamma * same_sign(w), None if b is None else b + gamma * same_sign(b)),
            (_minus(x), w + gamma * other_sign(w), None),
        )

    of_positive, of_negative = relevance * (z > 0), relevance * (z < 0)
    result = for_sign(_plus, _minus, of_positive)
    # In most networks a ReLU follows, so that a negative output has no relevance.
    if of_negative.any():
        result = result + for_sign(_minus, _plus, of_negative)
    return (result,)


def alpha_beta_rule(
    operation: Operation, relevance: Tensor, *, alpha: float = 2.0, beta: float = 1.0
) -> tuple[Tensor, ...]:
    """LRP-αβ for a layer: ``α R_j`` for the positive contributions, ``-β R_j`` for the negative.

    Bach et al. 2015. The sign of a contribution is that of ``x_i w_ij``, so the inputs are split as
    well as the weights. For β > 0, relevance is not conserved at an output that has contributions
    of one sign only.

    Args:
        operation, relevance: as explained at the top of this module.
        alpha: α.
        beta: β, at least 0. Relevance is conserved only if ``α - β = 1``.

    Raises:
        ValueError: the operation is not a convolution or dense layer.
    """
    x, w, b = parameters(operation)
    by_positive = redistribute_by_terms(
        operation,
        relevance,
        (_plus(x), _plus(w), _plus(b)),
        (_minus(x), _minus(w), None),
    )
    if beta == 0:
        return (alpha * by_positive,)
    by_negative = redistribute_by_terms(
        operation,
        relevance,
        (_plus(x), _minus(w), _minus(b)),
        (_minus(x), _plus(w), None),
    )
    return (alpha * by_positive - beta * by_negative,)


def z_plus_rule(operation: Operation, relevance: Tensor) -> tuple[Tensor, ...]:
    """LRP-α1β0, the z⁺ rule for a layer: only positive contributions count."""
    return alpha_beta_rule(operation, relevance, alpha=1, beta=0)


def z_box_rule(
    operation: Operation,
    relevance: Tensor,
    *,
    low: Tensor | float = 0.0,
    high: Tensor | float = 1.0,
) -> tuple[Tensor, ...]:
    """LRP-zB for a first layer, whose inputs have bounds ``l_i ≤ x_i ≤ h_i``.

    Montavon et al. 2017. The contribution of a pixel is proportional to its distance from the bound
    that inhibits the neuron most: ``l_i`` for a positive weight, ``h_i`` for a negative one. So
    black pixels get relevance, too.

    Args:
        operation, relevance: as explained at the top of this module.
        low: lower bounds l, a number or a tensor that broadcasts to the input.
        high: upper bounds h, likewise.

    Raises:
        ValueError: the operation is not a convolution or dense layer, or an input is outside its
            bounds, so that its contribution would have the wrong sign. This happens if the rule is
            applied to a later layer.
    """
    x, w, _ = parameters(operation)
    low, high = (torch.as_tensor(v).to(x).expand_as(x) for v in (low, high))
    rounding = 1e-4 * (high - low)
    if (x < low - rounding).any() or (x > high + rounding).any():
        raise ValueError(
            "the zB rule is for a first layer, whose inputs are within its bounds, got inputs "
            f"between {x.min():.3g} and {x.max():.3g}: pass Composite(first=z_box_rule) to apply "
            "it only to the layers that see the pixels"
        )
    result = redistribute_by_terms(
        operation, relevance, (x, w, None), (low, -_plus(w), None), (high, -_minus(w), None)
    )
    return (result,)


def w_square_rule(operation: Operation, relevance: Tensor) -> tuple[Tensor, ...]:
    """LRP-w² for a layer: only the weights count, not the inputs."""
    x, w, _ = parameters(operation)
    return (redistribute_by_terms(operation, relevance, (torch.ones_like(x), w.square(), None)),)


def flat_rule(operation: Operation, relevance: Tensor) -> tuple[Tensor, ...]:
    """LRP-flat for a layer: all inputs of a neuron get the same relevance."""
    x, w, _ = parameters(operation)
    ones = (torch.ones_like(x), torch.ones_like(w), None)
    return (redistribute_by_terms(operation, relevance, ones),)


# --- Computation that the rules share -------------------------------------------------------------

# Inputs x, weights w and bias b of a layer, which a rule usually modifies.
Term = tuple[Tensor, Tensor, Tensor | None]


def redistribute(
    relevance: Tensor, inputs: Sequence[Tensor], z: Tensor, epsilon: Tensor | float
) -> tuple[Tensor, ...]:
    """Relevance of each input of z, ``R_i = x_i · Σ_j (∂z_j/∂x_i) R_j / (z_j + ε sign z_j)``.

    Args:
        relevance: ``R_j``, in the shape of `z`.
        inputs: tensors x from which `z` was computed linearly, with gradients enabled.
        z: denominators before stabilisation.
        epsilon: ε. The sign of 0 is +1 here. With ε = 0, relevance at ``z_j = 0`` is lost.

    Returns:
        One tensor for each input, in its shape.
    """
    stabilised = z.detach() + epsilon * torch.where(z < 0, -1.0, 1.0).to(z)
    ratio = torch.where(stabilised == 0, 0, relevance / stabilised)
    gradients = torch.autograd.grad(z, inputs, ratio, retain_graph=True)
    return tuple(x.detach() * gradient for x, gradient in zip(inputs, gradients, strict=True))


def redistribute_by_terms(operation: Operation, relevance: Tensor, *terms: Term) -> Tensor:
    """Relevance of a layer's input, ``R_i = Σ_terms x_i Σ_j w_ij R_j / z_j``.

    The layer runs once with each term. The denominator ``z_j`` is the sum of the results.

    Args:
        operation: convolution or dense layer.
        relevance: ``R_j``, in the shape of the layer's output.
        terms: modified inputs, weights and biases. Only the first term may have a bias.

    Raises:
        ValueError: the operation is not a convolution or dense layer.
    """
    layer = as_layer(operation)
    # A term without a bias contributes nothing if its inputs are all 0, such as x⁻ after a ReLU.
    terms = terms[:1] + tuple(term for term in terms[1:] if term[0].any())
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x, _, _ in terms]
        z, *more = [layer.f(x, w, b) for x, (_, w, b) in zip(inputs, terms, strict=True)]
        z = sum(more, z)
    first, *others = redistribute(relevance, inputs, z, STABILISER)
    return sum(others, first)


def parameters(operation: Operation) -> Term:
    """Input, weights and bias of a convolution or dense layer, see `operations.as_layer`."""
    layer = as_layer(operation)
    return layer.inputs[0].detach(), layer.weight, layer.bias


def _plus(v: Any) -> Any:
    """``v⁺``, or None for None."""
    return None if v is None else v.clamp(min=0)


def _minus(v: Any) -> Any:
    """``v⁻``, or None for None."""
    return None if v is None else v.clamp(max=0)
