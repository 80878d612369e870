"""The rules of layer-wise relevance propagation (LRP).

A layer computes ``z_j = Σ_i x_i w_ij + b_j``. On the way back it has relevance ``R_j`` at its
outputs and shares it out among its inputs in proportion to what each of them contributed:

    LRP-0     R_i = Σ_j  x_i w_ij / z_j · R_j
    LRP-ε     R_i = Σ_j  x_i w_ij / (z_j + ε sign z_j) · R_j
    LRP-γ     R_i = Σ_j  x_i (w_ij + γ w⁺_ij) / Σ_i x_i (w_ij + γ w⁺_ij) · R_j         for x ≥ 0
    LRP-αβ    R_i = Σ_j  (α (x_i w_ij)⁺ / Σ_i (x_i w_ij)⁺ - β (x_i w_ij)⁻ / Σ_i (x_i w_ij)⁻) R_j
    LRP-zB    R_i = Σ_j  (x_i w_ij - l_i w⁺_ij - h_i w⁻_ij) / Σ_i (same) · R_j   l_i ≤ x_i ≤ h_i
    LRP-w²    R_i = Σ_j  w²_ij / Σ_i w²_ij · R_j
    LRP-flat  R_i = Σ_j  1 / Σ_i 1 · R_j

with ``v⁺ = max(v, 0)``, ``v⁻ = min(v, 0)``. All are one act with other numbers: run the layer
forward with changed inputs and weights for the denominators ``z``, then ask PyTorch's backward pass
for ``x_i · Σ_j (∂z_j/∂x_i) (R_j / z_j)``. Denominators of ε, γ and αβ hold the bias, like a neuron
that is always on. What it gets reaches no pixel: the layer loses it (`Composite.bias`).

A rule is a function ``(operation, signal) -> (relevance of each input,)`` as any rule of
`vislib.core`; the signal is the relevance of the output.

Bach et al. 2015, "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise
Relevance Propagation" (0, ε, αβ); Montavon et al. 2017, "Explaining NonLinear Classification
Decisions with Deep Taylor Decomposition" (zB, w²); Lapuschkin et al. 2019, "Unmasking Clever Hans
Predictors and Assessing What Machines Really Learn" (flat); Montavon et al. 2019, "Layer-Wise
Relevance Propagation: An Overview" (γ, composites).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vislib.core import Operation
from vislib.explain.lrp.operations import as_layer

STABILISER = 1e-6  # of every denominator but that of LRP-ε, where it is a parameter


# ------------------------------------------------------------ the rules


def pass_rule(operation: Operation, signal: Tensor) -> tuple[Tensor, ...]:
    """``R_i = R_j``: activations, and multiplication by a constant."""
    return (signal.sum_to_size(operation.inputs[0].shape),)


def zero_rule(operation: Operation, signal: Tensor) -> tuple[Tensor, ...]:
    """LRP-0. Where ``z_j = 0`` there is nothing to share out, and nothing is."""
    return epsilon_rule(operation, signal, epsilon=0)


def epsilon_rule(
    operation: Operation, signal: Tensor, *, epsilon: float = STABILISER, relative: bool = False
) -> tuple[Tensor, ...]:
    """LRP-ε, for layers and for any other linear operation: sums, averages, a BatchNorm.

    ε absorbs relevance, most where a neuron's contributions cancel. With `relative` it is a
    multiple of the root mean square of the image's ``z`` (Montavon et al. 2019).
    """
    z = operation.output
    scale: Tensor | float = 1.0
    if relative:
        scale = z.detach().square().mean(dim=tuple(range(1, z.ndim)), keepdim=True).sqrt()
    return proportional(signal, operation.inputs, z, epsilon * scale)


def gamma_rule(operation: Operation, signal: Tensor, *, gamma: float = 0.25) -> tuple[Tensor, ...]:
    """LRP-γ: contributions of the output's own sign count ``1 + γ`` times, LRP-0 for γ = 0.

    For ``x ≥ 0`` and ``z > 0`` this is the formula above. Inputs and outputs of both signs as in
    Andéol et al. 2021, "Learning Domain Invariant Representations by Joint Wasserstein Distance
    Minimization".
    """
    x, w, b = parameters(operation)
    z = operation.output.detach()

    def favour(own: Callable[..., Any], other: Callable[..., Any], relevance: Tensor) -> Tensor:
        """For outputs of one sign, their `own`: ``x⁺ · own(w)`` has it, and ``x⁻ · other(w)``."""
        return distribute(
            operation,
            relevance,
            (positive(x), w + gamma * own(w), None if b is None else b + gamma * own(b)),
            (negative(x), w + gamma * other(w), None),
        )

    above, below = signal * (z > 0), signal * (z < 0)
    relevance = favour(positive, negative, above)
    if below.any():  # seldom: mostly a ReLU follows, and passes nothing here
        relevance = relevance + favour(negative, positive, below)
    return (relevance,)


def alpha_beta_rule(
    operation: Operation, signal: Tensor, *, alpha: float = 2.0, beta: float = 1.0
) -> tuple[Tensor, ...]:
    """LRP-αβ: positive contributions share ``α R_j``, negative ones ``-β R_j``, with ``α - β = 1``.

    The sign is that of ``x_i w_ij``, so the inputs are split as well as the weights. An output that
    has contributions of one sign only does not conserve relevance when ``β > 0``.
    """
    x, w, b = parameters(operation)
    support = distribute(
        operation,
        signal,
        (positive(x), positive(w), positive(b)),
        (negative(x), negative(w), None),
    )
    if beta == 0:
        return (alpha * support,)
    contradiction = distribute(
        operation,
        signal,
        (positive(x), negative(w), negative(b)),
        (negative(x), positive(w), None),
    )
    return (alpha * support - beta * contradiction,)


def z_plus_rule(operation: Operation, signal: Tensor) -> tuple[Tensor, ...]:
    """LRP-α1β0, the z⁺ rule: only positive contributions count, relevance keeps its sign."""
    return alpha_beta_rule(operation, signal, alpha=1, beta=0)


def z_box_rule(
    operation: Operation,
    signal: Tensor,
    *,
    low: Tensor | float = 0.0,
    high: Tensor | float = 1.0,
) -> tuple[Tensor, ...]:
    """LRP-zB for a first layer whose inputs lie between `low` and `high`.

    A pixel counts for how far it is from the bound that would speak most against the neuron, so
    black pixels get relevance too. ``ValueError`` for inputs outside the box, as those of a deeper
    layer may well be: their shares would have the wrong sign.
    """
    x, w, _ = parameters(operation)
    low, high = (torch.as_tensor(v).to(x).expand_as(x) for v in (low, high))
    rounding = 1e-4 * (high - low)
    if (x < low - rounding).any() or (x > high + rounding).any():
        raise ValueError(
            f"the zB rule is for a first layer, whose inputs lie between low and high; these lie "
            f"between {x.min():.3g} and {x.max():.3g}: as the rule of the layers that see the "
            "pixels, use Composite(first=z_box_rule)"
        )
    relevance = distribute(
        operation, signal, (x, w, None), (low, -positive(w), None), (high, -negative(w), None)
    )
    return (relevance,)


def w_square_rule(operation: Operation, signal: Tensor) -> tuple[Tensor, ...]:
    """LRP-w²: by the weights alone, whatever the image shows."""
    x, w, _ = parameters(operation)
    return (distribute(operation, signal, (torch.ones_like(x), w.square(), None)),)


def flat_rule(operation: Operation, signal: Tensor) -> tuple[Tensor, ...]:
    """LRP-flat: every input of a neuron gets the same."""
    x, w, _ = parameters(operation)
    return (distribute(operation, signal, (torch.ones_like(x), torch.ones_like(w), None)),)


# ------------------------------------------------------------ what rules are made of

Part = tuple[Tensor, Tensor, Tensor | None]  # inputs, weights, bias


def positive(v: Any) -> Any:
    """``v⁺``, None for None."""
    return None if v is None else v.clamp(min=0)


def negative(v: Any) -> Any:
    """``v⁻``, None for None."""
    return None if v is None else v.clamp(max=0)


def distribute(operation: Operation, signal: Tensor, *parts: Part) -> Tensor:
    """``R_i = Σ_parts x_i Σ_j w_ij R_j / z_j`` with the ``z`` of all parts together.

    Each part is the layer once more, with inputs, weights and bias of its own. One whose inputs are
    all 0 is left out (``x⁻`` after a ReLU): only the first part has a bias.
    """
    layer = as_layer(operation)
    parts = parts[:1] + tuple(part for part in parts[1:] if part[0].any())
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x, _, _ in parts]
        z, *more = [layer.f(x, w, b) for x, (_, w, b) in zip(inputs, parts, strict=True)]
        z = sum(more, z)
    first, *others = proportional(signal, inputs, z, STABILISER)
    return sum(others, first)


def proportional(
    signal: Tensor, inputs: Sequence[Tensor], z: Tensor, epsilon: Tensor | float
) -> tuple[Tensor, ...]:
    """``x_i · Σ_j (∂z_j/∂x_i) R_j / (z_j + ε sign z_j)`` for each of the inputs of ``z``.

    Here the sign of 0 is +1. With ε = 0 a ``z_j`` of 0 shares nothing out.
    """
    stable = z.detach() + epsilon * torch.where(z < 0, -1.0, 1.0).to(z)
    ratio = torch.where(stable == 0, 0, signal / stable)
    slopes = torch.autograd.grad(z, inputs, ratio, retain_graph=True)
    return tuple(x.detach() * slope for x, slope in zip(inputs, slopes, strict=True))


def parameters(operation: Operation) -> Part:
    """Inputs, weights and bias of a layer."""
    layer = as_layer(operation)
    return layer.inputs[0].detach(), layer.weight, layer.bias
