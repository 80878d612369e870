"""Checks for notebook 14. All layers are dense ones: x is N×n, w is m×n, z = x @ w.T + b."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vislib.checks import call, right, same


def epsilon_layer(function: Callable[..., Any]) -> None:
    """LRP-ε of a dense layer: ``function(x, w, b, R, epsilon)``."""
    for n, m in [(5, 5), (7, 4)]:
        x, w, b, R = _layer(n, m)
        epsilon = 0.3
        z = x @ w.T + b
        s = R / (z + epsilon * z.sign())
        expected = x * (s @ w)
        mistakes = {
            "This is the sensitivity of Σ s_j z_j: each input still has to be multiplied in": s @ w,
            "The bias belongs to the denominator z": x * (_stable(R, z - b, epsilon) @ w),
            "ε has the sign of z: where z is negative, z + ε would come closer to 0": (
                x * ((R / (z + epsilon)) @ w)
            ),
            "ε is missing: this is LRP-0": x * ((R / z) @ w),
            "R is not divided by z: this is gradient × input of Σ R_j z_j": x * (R @ w),
            "Contributions keep their sign: no absolute values": x.abs() * (s @ w.abs()),
            "Multiply by the inputs x, do not add them": x + s @ w,
        }
        if n == m:
            mistakes["w is the wrong way round: forward x @ w.T, back s @ w"] = x * (s @ w.T)
        found = call(function, x, w, b, R, epsilon)
        same(found, expected, what="the relevance", mistakes=mistakes, tolerance=1e-4)
    right("Relevance goes back through a layer as LRP-ε says.")


def bias_takes(function: Callable[..., Any]) -> None:
    """What LRP-0 leaves at the bias, N numbers: ``function(x, w, b, R)``."""
    x, w, b, R = _layer(6, 4)
    z = x @ w.T + b
    expected = (b / z * R).sum(dim=1)
    mistakes = {
        "This is what the inputs get: the bias gets the rest": R.sum(dim=1) - expected,
        "Add up over the neurons j: one number for each example": b / z * R,
        "The denominator is the whole z, with the bias in it": (b / (z - b) * R).sum(dim=1),
        "Each bias gets its share b_j / z_j of R_j, not R_j b_j": (b * R).sum(dim=1),
        "What is taken keeps its sign: no absolute values": (b / z * R).abs().sum(dim=1),
        "Add up over the neurons, not over the examples": (b / z * R).sum(dim=0),
        "Do not average": expected / len(b),
        "Shares of R_j do not add up before they are multiplied with R_j": (
            (b / z).sum(dim=1) * R.sum(dim=1)
        ),
    }
    found = call(function, x, w, b, R)
    same(found, expected, what="the bias's share", mistakes=mistakes, tolerance=1e-4)
    right("Inputs and biases together have all the relevance again.")


def alpha_beta_layer(function: Callable[..., Any]) -> None:
    """LRP-αβ of a dense layer without bias: ``function(x, w, R, alpha, beta)``."""
    for alpha, beta in [(2.0, 1.0), (3.0, 2.0)]:
        x, w, _, R = _both_signs(6, 4)

        def with_split(
            p: tuple[Tensor, ...],
            n: tuple[Tensor, ...],
            a: float = alpha,
            b: float = beta,
            R: Tensor = R,
        ) -> Tensor:
            return a * _parts(R, *p) - b * _parts(R, *n)

        (x_up, x_down), (w_up, w_down) = ((v.clamp(min=0), v.clamp(max=0)) for v in (x, w))
        supports, against = (x_up, w_up, x_down, w_down), (x_up, w_down, x_down, w_up)
        z = x @ w.T
        over_z = x_up * ((R / z) @ w_up) + x_down * ((R / z) @ w_down)
        over_z_against = x_up * ((R / z) @ w_down) + x_down * ((R / z) @ w_up)
        mistakes = {
            "Split the input's sign as well: negative x times negative w speaks for the neuron": (
                with_split((x, w_up), (x, w_down))
            ),
            "The two parts are subtracted: α - β = 1": with_split(supports, against, b=-beta),
            "α and β are exchanged": with_split(supports, against, a=beta, b=alpha),
            "α and β change nothing here: they weigh the two parts": with_split(
                supports, against, a=1.0, b=1.0
            ),
            "Each part has a denominator of its own: that of its sign": (
                alpha * over_z - beta * over_z_against
            ),
            "Only the positive part is there: subtract β times the negative one": (
                alpha * _parts(R, *supports)
            ),
            "Inputs are split, weights are not": with_split((x_up, w), (x_down, w)),
            "A negative x with a negative w is missing: it speaks for the neuron too": with_split(
                (x_up, w_up), (x_up, w_down)
            ),
        }
        expected = with_split(supports, against)
        found = call(function, x, w, R, alpha, beta)
        same(found, expected, what="the relevance", mistakes=mistakes, tolerance=1e-4)
    right("Support and contradiction are shared out apart, by both signs.")


def z_box_layer(function: Callable[..., Any]) -> None:
    """LRP-zB of a dense layer: ``function(x, w, R, low, high)``, low and high are numbers."""
    low, high = -1.0, 2.0
    _, w, _, R = _both_signs(6, 4)
    x = low + (high - low) * torch.rand(3, 6, dtype=w.dtype)
    up, down = w.clamp(min=0), w.clamp(max=0)
    lows, highs = torch.full_like(x, low), torch.full_like(x, high)
    expected = _parts(R, x, w, lows, -up, highs, -down)
    mistakes = {
        "low goes with the positive weights, high with the negative ones": _parts(
            R, x, w, lows, -down, highs, -up
        ),
        "This is LRP-0: the bounds are missing": _parts(R, x, w),
        "The bounds are subtracted, not added": _parts(R, x, w, lows, up, highs, down),
        "high · w⁻ is missing": _parts(R, x, w, lows, -up),
        "low · w⁺ is missing": _parts(R, x, w, highs, -down),
        "The bounds belong to the denominator as well": _over(
            R, x @ w.T, (x, w), (lows, -up), (highs, -down)
        ),
        "The bounds belong to the numerator as well": _over(
            R, x @ w.T - lows @ up.T - highs @ down.T, (x, w)
        ),
    }
    found = call(function, x, w, R, low, high)
    same(found, expected, what="the relevance", mistakes=mistakes, tolerance=1e-4)
    right("Every pixel counts by its distance from the bound that would hurt most.")


# ------------------------------------------------------------ the layers that are asked for


def _layer(n: int, m: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random x, w, b and R, of both signs, with no z close to 0."""
    while True:
        x, w, b, R = (torch.randn(*s, dtype=torch.double) for s in [(3, n), (m, n), (m,), (3, m)])
        z = x @ w.T + b
        if z.abs().min() > 0.1 and (z - b).abs().min() > 0.1 and (z < -0.4).any():
            return x, w, b, R


def _both_signs(n: int, m: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `_layer`, and each neuron of each example has contributions of both signs."""
    while True:
        x, w, b, R = _layer(n, m)
        c = x[:, None] * w
        split_by_weight = [(x @ v.T).abs().min() for v in (w.clamp(min=0), w.clamp(max=0))]
        if min(c.amax(2).min(), -c.amin(2).max(), *split_by_weight) > 0.1:
            return x, w, b, R


def _stable(R: Tensor, z: Tensor, epsilon: float) -> Tensor:
    return R / (z + epsilon * z.sign())


def _over(R: Tensor, z: Tensor, *parts: tuple[Tensor, Tensor]) -> Tensor:
    """``Σ_parts v Σ_j u_j R_j / z_j`` for parts (v, u)."""
    return torch.stack([v * ((R / z) @ u) for v, u in parts]).sum(dim=0)


def _parts(R: Tensor, *tensors: Tensor) -> Tensor:
    """`_over` with the z of all parts together."""
    parts = list(zip(tensors[::2], tensors[1::2], strict=True))
    return _over(R, torch.stack([v @ u.T for v, u in parts]).sum(dim=0), *parts)
