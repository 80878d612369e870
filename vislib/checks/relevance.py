"""Checks for the exercises of notebook 14, layer-wise relevance propagation (LRP).

All layers are dense: x is N×n, w is m×n, b holds m numbers, ``z = x @ w.T + b``, R is N×m.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vislib.checks import Exercise

# --- Layers on which the mistakes show ------------------------------------------------------------


def _layer(n: int, m: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random x, w, b and R, of both signs, with no z close to 0."""
    while True:
        x, w, b, R = (torch.randn(*s, dtype=torch.double) for s in [(3, n), (m, n), (m,), (3, m)])
        z = x @ w.T + b
        if z.abs().min() > 0.1 and (z - b).abs().min() > 0.1 and (z < -0.4).any():
            return x, w, b, R


def _both_signs(n: int, m: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Layer as in `_layer`, with contributions of both signs to each neuron of each example."""
    while True:
        x, w, b, R = _layer(n, m)
        c = x[:, None] * w
        split_by_weight = [(x @ v.T).abs().min() for v in (w.clamp(min=0), w.clamp(max=0))]
        if min(c.amax(2).min(), -c.amin(2).max(), *split_by_weight) > 0.1:
            return x, w, b, R


# --- LRP-ε, and the part of the biases ------------------------------------------------------------


def _stable(z: Tensor, epsilon: float) -> Tensor:
    return z + epsilon * z.sign()


def _epsilon_layer(x: Tensor, w: Tensor, b: Tensor, R: Tensor, epsilon: float) -> Tensor:
    return x * ((R / _stable(x @ w.T + b, epsilon)) @ w)


def _epsilon_without_x(x: Tensor, w: Tensor, b: Tensor, R: Tensor, epsilon: float) -> Tensor:
    return (R / _stable(x @ w.T + b, epsilon)) @ w


epsilon_layer = Exercise(
    task="``epsilon_layer(x, w, b, R, epsilon)``: LRP-ε of a dense layer, N×n.",
    inputs=lambda: ((*_layer(n, m), 0.3) for n, m in [(5, 5), (7, 4)]),
    solution=_epsilon_layer,
    what="the relevance",
    mistakes={
        "This is the gradient of Σ s_j z_j: multiply it by the inputs x": (_epsilon_without_x),
        "The bias belongs to the denominator z": (
            lambda x, w, b, R, epsilon: _epsilon_layer(x, w, torch.zeros_like(b), R, epsilon)
        ),
        "ε must have the sign of z: where z is negative, z + ε is closer to 0 than z": (
            lambda x, w, b, R, epsilon: x * ((R / (x @ w.T + b + epsilon)) @ w)
        ),
        "ε is missing: this is LRP-0": lambda x, w, b, R, epsilon: _epsilon_layer(x, w, b, R, 0),
        "R is not divided by z: this is gradient × input of Σ R_j z_j": (
            lambda x, w, b, R, epsilon: x * (R @ w)
        ),
        "Contributions keep their sign: do not take absolute values": (
            lambda x, w, b, R, epsilon: x.abs() * ((R / _stable(x @ w.T + b, epsilon)) @ w.abs())
        ),
        "Multiply by the inputs x; do not add them": (
            lambda *inputs: inputs[0] + _epsilon_without_x(*inputs)
        ),
        # This product exists only for a square w.
        "w is transposed: x @ w.T is the forward pass, and the backward pass needs w itself": (
            lambda x, w, b, R, epsilon: x * ((R / _stable(x @ w.T + b, epsilon)) @ w.T)
        ),
    },
    praise="Relevance goes back through a layer as LRP-ε says.",
    tolerance=1e-4,
)


def _bias_takes(x: Tensor, w: Tensor, b: Tensor, R: Tensor) -> Tensor:
    return (b / (x @ w.T + b) * R).sum(dim=1)


bias_takes = Exercise(
    task="``bias_takes(x, w, b, R)``: the relevance that LRP-0 leaves at the biases, N numbers.",
    inputs=lambda: [_layer(6, 4)],
    solution=_bias_takes,
    what="the relevance of the biases",
    mistakes={
        "This is the relevance of the inputs: the biases get the rest": (
            lambda x, w, b, R: R.sum(dim=1) - _bias_takes(x, w, b, R)
        ),
        "Sum over the neurons j: one number for each example": (
            lambda x, w, b, R: b / (x @ w.T + b) * R
        ),
        "The denominator is the whole z, with the bias in it": (
            lambda x, w, b, R: (b / (x @ w.T) * R).sum(dim=1)
        ),
        "Each bias gets a fraction of R_j: divide by z_j": (lambda x, w, b, R: (b * R).sum(dim=1)),
        "The relevance of a bias keeps its sign: do not take absolute values": (
            lambda x, w, b, R: (b / (x @ w.T + b) * R).abs().sum(dim=1)
        ),
        "Sum over the neurons, not over the examples": (
            lambda x, w, b, R: (b / (x @ w.T + b) * R).sum(dim=0)
        ),
        "Do not average over the neurons": lambda x, w, b, R: _bias_takes(x, w, b, R) / len(b),
        "Multiply by R_j first, then sum": (
            lambda x, w, b, R: (b / (x @ w.T + b)).sum(dim=1) * R.sum(dim=1)
        ),
    },
    praise="Inputs and biases together have all the relevance again.",
    tolerance=1e-4,
)


# --- LRP-αβ ---------------------------------------------------------------------------------------


def _divided(R: Tensor, z: Tensor, *pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Relevance ``Σ_pairs v Σ_j u_j R_j / z_j`` for pairs (v, u) of inputs and weights."""
    return torch.stack([v * ((R / z) @ u) for v, u in pairs]).sum(dim=0)


def _distributed(R: Tensor, *pairs: tuple[Tensor, Tensor]) -> Tensor:
    """`_divided` by the contributions of these pairs together."""
    return _divided(R, torch.stack([v @ u.T for v, u in pairs]).sum(dim=0), *pairs)


Pairs = list[tuple[Tensor, Tensor]]


def _split(x: Tensor, w: Tensor) -> tuple[Pairs, Pairs]:
    """Pairs (x, w) with a positive product, and those with a negative product."""
    (x_up, x_down), (w_up, w_down) = ((v.clamp(min=0), v.clamp(max=0)) for v in (x, w))
    return [(x_up, w_up), (x_down, w_down)], [(x_up, w_down), (x_down, w_up)]


def _split_weights(x: Tensor, w: Tensor) -> tuple[Pairs, Pairs]:
    return [(x, w.clamp(min=0))], [(x, w.clamp(max=0))]


def _split_inputs(x: Tensor, w: Tensor) -> tuple[Pairs, Pairs]:
    return [(x.clamp(min=0), w)], [(x.clamp(max=0), w)]


def _split_positive_inputs(x: Tensor, w: Tensor) -> tuple[Pairs, Pairs]:
    return _split_weights(x.clamp(min=0), w)


def _alpha_beta_layer(
    x: Tensor,
    w: Tensor,
    R: Tensor,
    alpha: float,
    beta: float,
    *,
    split: Callable[[Tensor, Tensor], tuple[Pairs, Pairs]] = _split,
) -> Tensor:
    positive, negative = split(x, w)
    return alpha * _distributed(R, *positive) - beta * _distributed(R, *negative)


def _alpha_beta_over_z(x: Tensor, w: Tensor, R: Tensor, alpha: float, beta: float) -> Tensor:
    positive, negative = (_divided(R, x @ w.T, *pairs) for pairs in _split(x, w))
    return alpha * positive - beta * negative


def _layers_with_alpha_beta() -> Iterator[tuple[Any, ...]]:
    for alpha, beta in [(2.0, 1.0), (3.0, 2.0)]:
        x, w, _, R = _both_signs(6, 4)
        yield x, w, R, alpha, beta


alpha_beta_layer = Exercise(
    task="``alpha_beta_layer(x, w, R, alpha, beta)``: LRP-αβ of a dense layer without bias, N×n.",
    inputs=_layers_with_alpha_beta,
    solution=_alpha_beta_layer,
    what="the relevance",
    mistakes={
        "Split the inputs by sign as well: negative x times negative w speaks for the neuron": (
            partial(_alpha_beta_layer, split=_split_weights)
        ),
        "Subtract the two parts: α - β = 1": (
            lambda x, w, R, alpha, beta: _alpha_beta_layer(x, w, R, alpha, -beta)
        ),
        "α and β are exchanged": (
            lambda x, w, R, alpha, beta: _alpha_beta_layer(x, w, R, beta, alpha)
        ),
        "α and β are not used yet: they weight the two parts": (
            lambda x, w, R, alpha, beta: _alpha_beta_layer(x, w, R, 1, 1)
        ),
        "Divide each part by the sum of its own sign, not by z": _alpha_beta_over_z,
        "This is only the positive part: subtract β times the negative part": (
            lambda x, w, R, alpha, beta: _alpha_beta_layer(x, w, R, alpha, 0)
        ),
        "You split the inputs by their sign: split the weights, too": partial(
            _alpha_beta_layer, split=_split_inputs
        ),
        "A negative x with a negative w is missing: it speaks for the neuron too": partial(
            _alpha_beta_layer, split=_split_positive_inputs
        ),
    },
    praise="Support and contradiction are shared out apart, by both signs.",
    tolerance=1e-4,
)


# --- LRP-zB ---------------------------------------------------------------------------------------


def _z_box_pairs(x: Tensor, w: Tensor, low: float, high: float, sign: int = -1) -> Pairs:
    """Terms of ``x · w - low · w⁺ - high · w⁻`` as pairs of inputs and weights."""
    lows, highs = torch.full_like(x, low), torch.full_like(x, high)
    return [(x, w), (lows, sign * w.clamp(min=0)), (highs, sign * w.clamp(max=0))]


def _z_box_layer(x: Tensor, w: Tensor, R: Tensor, low: float, high: float) -> Tensor:
    return _distributed(R, *_z_box_pairs(x, w, low, high))


def _bounds_in_the_numerator_alone(
    x: Tensor, w: Tensor, R: Tensor, low: float, high: float
) -> Tensor:
    return _divided(R, x @ w.T, *_z_box_pairs(x, w, low, high))


def _bounds_in_the_denominator_alone(
    x: Tensor, w: Tensor, R: Tensor, low: float, high: float
) -> Tensor:
    z = sum(v @ u.T for v, u in _z_box_pairs(x, w, low, high))
    return x * ((R / z) @ w)


def _layer_in_a_box() -> Iterator[tuple[Any, ...]]:
    low, high = -1.0, 2.0
    _, w, _, R = _both_signs(6, 4)
    x = low + (high - low) * torch.rand(3, 6, dtype=w.dtype)
    yield x, w, R, low, high


z_box_layer = Exercise(
    task="``z_box_layer(x, w, R, low, high)``: LRP-zB of a dense layer, N×n; bounds are numbers.",
    inputs=_layer_in_a_box,
    solution=_z_box_layer,
    what="the relevance",
    mistakes={
        "low goes with the positive weights, high with the negative ones": (
            lambda x, w, R, low, high: _z_box_layer(x, w, R, high, low)
        ),
        "This is LRP-0: the bounds are missing": (
            lambda x, w, R, low, high: _z_box_layer(x, w, R, 0, 0)
        ),
        "Subtract the terms with the bounds; do not add them": (
            lambda x, w, R, low, high: _distributed(R, *_z_box_pairs(x, w, low, high, sign=1))
        ),
        "The term high · w⁻ is missing": lambda x, w, R, low, high: _z_box_layer(x, w, R, low, 0),
        "The term low · w⁺ is missing": lambda x, w, R, low, high: _z_box_layer(x, w, R, 0, high),
        "The bounds belong to the denominator as well": _bounds_in_the_numerator_alone,
        "The bounds belong to the numerator as well": _bounds_in_the_denominator_alone,
    },
    praise="Every pixel counts by its distance from the bound that would hurt most.",
    tolerance=1e-4,
)
