"""Checks for the exercises of notebook 12, FullGrad."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vislib.checks import Exercise, Wrong, call, describe, right, same
from vislib.explain import fullgrad
from vislib.maps import upsample

# --- The parts of a score -------------------------------------------------------------------------


def _network() -> tuple[Tensor, ...]:
    """Values ``W1, b1, w2, b2, x`` with units that are on and units that are off."""
    z = torch.ones(1)
    # A missing gate changes the result only where a unit is off.
    while (z > 0).all() or (z < 0).all():
        W1, b1, w2, x = torch.randn(5, 4), torch.randn(5), torch.randn(5), torch.randn(4)
        b2 = torch.randn(()) + 2
        z = W1 @ x + b1
    return W1, b1, w2, b2, x


def _gate(W1: Tensor, b1: Tensor, x: Tensor) -> Tensor:
    """Gates of all units: 1 for a unit that is on, else 0."""
    return (W1 @ x + b1 > 0).float()


part_of_x = Exercise(
    task="The input's part of ``w2 · ReLU(W1 x + b1) + b2``, one number for each input.",
    inputs=lambda: [_network] * 3,
    solution=lambda W1, b1, w2, b2, x: x * ((w2 * _gate(W1, b1, x)) @ W1),
    what="the input's part",
    mistakes={
        "Only units that are on (z > 0) let the gradient through": (
            lambda W1, b1, w2, b2, x: x * (w2 @ W1)
        ),
        "This is the gradient: multiply it by x": (
            lambda W1, b1, w2, b2, x: (w2 * _gate(W1, b1, x)) @ W1
        ),
        "Keep one number for each input; do not sum over the inputs": (
            lambda W1, b1, w2, b2, x: (w2 * _gate(W1, b1, x)) @ W1 @ x
        ),
        "The gate depends on z, not on W1 x alone": (
            lambda W1, b1, w2, b2, x: x * ((w2 * _gate(W1, torch.zeros_like(b1), x)) @ W1)
        ),
        "The gate is 0 or 1: do not multiply by the activation h": (
            lambda W1, b1, w2, b2, x: x * ((w2 * (W1 @ x + b1).relu()) @ W1)
        ),
    },
    praise="The input's part is x times the gradient.",
    distinct=True,
)

part_of_b1 = Exercise(
    task="The part of b1 of ``w2 · ReLU(W1 x + b1) + b2``, one number for each unit.",
    inputs=lambda: [_network] * 3,
    solution=lambda W1, b1, w2, b2, x: b1 * w2 * _gate(W1, b1, x),
    what="the part of b1",
    mistakes={
        "A bias counts only where its unit is on (z > 0)": lambda W1, b1, w2, b2, x: b1 * w2,
        "The weights w2 are missing: they are between b1 and the score": (
            lambda W1, b1, w2, b2, x: b1 * _gate(W1, b1, x)
        ),
        "This is the gradient: multiply it by b1": lambda W1, b1, w2, b2, x: w2 * _gate(W1, b1, x),
        "Keep one number for each unit; do not sum over the units": (
            lambda W1, b1, w2, b2, x: (b1 * w2 * _gate(W1, b1, x)).sum()
        ),
    },
    praise="The part of b1 is b1 times the gradient.",
    distinct=True,
)

part_of_b2 = Exercise(
    task="The part of b2 of ``w2 · ReLU(W1 x + b1) + b2``, one number.",
    inputs=lambda: [_network] * 3,
    solution=lambda W1, b1, w2, b2, x: b2,
    what="the part of b2",
    mistakes={
        "b2 is added to the score as it is: its gradient is 1": (
            lambda W1, b1, w2, b2, x: torch.zeros(())
        ),
        "This is the gradient: multiply it by b2": lambda W1, b1, w2, b2, x: torch.ones(()),
        "These are the parts of both biases: leave out b1": (
            lambda W1, b1, w2, b2, x: b2 + (b1 * w2) @ _gate(W1, b1, x)
        ),
        "This is the whole score: leave out the input and b1": (
            lambda W1, b1, w2, b2, x: b2 + w2 @ (W1 @ x + b1).relu()
        ),
    },
    praise="The part of b2 is b2.",
    distinct=True,
)


def two_layers(function: Callable[..., Any]) -> None:
    """Check ``two_layers(W1, b1, w2, b2, x)``, which returns the three parts above."""
    for _ in range(3):
        inputs = _network()
        parts = call(function, *inputs)
        if not isinstance(parts, tuple | list) or len(parts) != 3:
            raise Wrong(
                "Return three things: the input's part, the part of b1, the part of b2; "
                f"this is {describe(parts)}"
            )
        for part, exercise in zip(parts, (part_of_x, part_of_b1, part_of_b2), strict=True):
            same(
                part,
                exercise.solution(*inputs),
                what=str(exercise.what),
                mistakes={advice: wrong(*inputs) for advice, wrong in exercise.mistakes.items()},
            )
    right("Three parts, and together they are the score.")


# --- The bias of a BatchNorm ----------------------------------------------------------------------


def _batch_norms() -> Iterator[tuple[Any, ...]]:
    for channels in (4, 7):
        gamma, beta, mean = torch.rand(channels) + 0.5, torch.randn(channels), torch.randn(channels)
        variance, eps = torch.rand(channels) * 0.3 + 0.1, 0.1
        yield gamma, beta, mean, variance, eps


batch_norm_bias = Exercise(
    task=(
        "``batch_norm_bias(gamma, beta, mean, variance, eps)``: the constant that a BatchNorm "
        "adds, C numbers each to C numbers."
    ),
    inputs=_batch_norms,
    solution=lambda gamma, beta, mean, variance, eps: beta - gamma * mean / (variance + eps).sqrt(),
    what="the bias",
    mistakes={
        "β alone is only what the layer calls its bias: the mean is subtracted, too": (
            lambda gamma, beta, mean, variance, eps: beta
        ),
        "The sign of the mean is wrong: a BatchNorm subtracts the mean": (
            lambda gamma, beta, mean, variance, eps: beta + gamma * mean / (variance + eps).sqrt()
        ),
        "eps is missing: add it to the variance": (
            lambda gamma, beta, mean, variance, eps: beta - gamma * mean / variance.sqrt()
        ),
        "eps belongs under the root, with the variance": (
            lambda gamma, beta, mean, variance, eps: beta - gamma * mean / (variance.sqrt() + eps)
        ),
        "Divide by σ, the root of the variance": (
            lambda gamma, beta, mean, variance, eps: beta - gamma * mean / (variance + eps)
        ),
        "The mean is multiplied by γ, too": (
            lambda gamma, beta, mean, variance, eps: beta - mean / (variance + eps).sqrt()
        ),
        "The mean is divided by σ, too": (
            lambda gamma, beta, mean, variance, eps: beta - gamma * mean
        ),
        "γ does not multiply β": (
            lambda gamma, beta, mean, variance, eps: gamma * (beta - mean / (variance + eps).sqrt())
        ),
        "β is missing": (
            lambda gamma, beta, mean, variance, eps: -gamma * mean / (variance + eps).sqrt()
        ),
    },
    praise="That is all a BatchNorm adds.",
)


# --- Parts as maps of the image's size ------------------------------------------------------------


def _upsampled_sum(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return upsample(maps, size).sum(dim=1, keepdim=True)


def _psi(part: Tensor, size: Sequence[int], dims: tuple[int, ...] = (2, 3)) -> Tensor:
    return fullgrad.psi(part, size, dims=dims).sum(dim=1, keepdim=True)


def _parts_with_sizes() -> Iterator[tuple[Tensor, tuple[int, int]]]:
    for n, k, h, w in [(2, 5, 4, 6), (1, 3, 5, 4)]:
        yield torch.randn(n, k, h, w) * torch.rand(n, k, 1, 1) * 4, (2 * h, 3 * w)


def _divided_by_the_old_maximum(part: Tensor, size: tuple[int, int]) -> Tensor:
    part = part.abs()
    low, high = part.amin((2, 3), keepdim=True), part.amax((2, 3), keepdim=True)
    return _upsampled_sum((part - low) / high, size)


def _constant_maps(function: Callable[..., Any]) -> None:
    """Check constant maps, which have no range to divide by."""
    flat = call(function, torch.ones(1, 2, 2, 3), (4, 6))
    same(flat, torch.zeros(1, 1, 4, 6), what="the result of constant maps")


psi = Exercise(
    task="``psi(part, size)``: FullGrad's ψ, summed over the maps, N×K×h×w to N×1×H×W.",
    inputs=_parts_with_sizes,
    solution=_psi,
    what="the map",
    mistakes={
        "Take the absolute values first": (
            lambda part, size: _psi(part - part.amin((2, 3), keepdim=True), size)
        ),
        "Subtract each map's minimum before you divide": (
            lambda part, size: _upsampled_sum(
                part.abs() / part.abs().amax((2, 3), keepdim=True), size
            )
        ),
        "Divide by the maximum that is left after you have subtracted the minimum": (
            _divided_by_the_old_maximum
        ),
        "Rescale each map separately, not the whole layer": lambda part, size: _psi(
            part, size, (1, 2, 3)
        ),
        "Rescale each map of each image separately, not all images together": (
            lambda part, size: _psi(part, size, (0, 2, 3))
        ),
        "Rescale each map before you sum the maps": (
            lambda part, size: _psi(part.abs().sum(dim=1, keepdim=True), size)
        ),
        "The maps are not rescaled to [0, 1]": lambda part, size: _upsampled_sum(part.abs(), size),
        "Sum the maps; do not average them": lambda part, size: _psi(part, size) / part.shape[1],
        "The maps are still separate: sum over k": fullgrad.psi,
        "Upsample bilinearly, as maps.upsample does": (
            lambda part, size: F.interpolate(_psi(part, part.shape[2:]), size, mode="nearest")
        ),
        "Keep the axis of the maps: the result is N×1×H×W": (
            lambda part, size: _psi(part, size)[:, 0]
        ),
        "Rescale first, then upsample": lambda part, size: _psi(upsample(part.abs(), size), size),
        "Upsample the maps to `size`": lambda part, size: _psi(part, part.shape[2:]),
    },
    praise="Absolute, rescaled, upsampled, added up.",
    extra=_constant_maps,
)


def _factors(part: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    """Factors ``H/h`` and ``W/w`` by which the map grows."""
    return size[0] // part.shape[2], size[1] // part.shape[3]


def _spread(part: Tensor, size: tuple[int, int]) -> Tensor:
    down, across = _factors(part, size)
    return _upsampled_sum(part, size) / (down * across)


spread = Exercise(
    task="``spread(part, size)``: a signed map with the sum of its part, N×K×h×w to N×1×H×W.",
    inputs=lambda: (
        (torch.randn(n, k, h, w) + 0.3, (down * h, across * w))
        for n, k, h, w, down, across in [(2, 5, 4, 6, 4, 4), (1, 3, 5, 4, 2, 3)]
    ),
    solution=_spread,
    what="the map",
    mistakes={
        "Each value is now spread over many pixels: divide by their number": _upsampled_sum,
        "Each position grew in both directions: divide by both factors": (
            lambda part, size: _upsampled_sum(part, size) / _factors(part, size)[0]
        ),
        "The two directions may grow by different factors": (
            lambda part, size: _upsampled_sum(part, size) / _factors(part, size)[0] ** 2
        ),
        "The two directions may grow by different factors: you use one of them twice": (
            lambda part, size: _upsampled_sum(part, size) / _factors(part, size)[1] ** 2
        ),
        "Do not take absolute values: parts of both signs have to cancel": (
            lambda part, size: _spread(part.abs(), size)
        ),
        "Divide by the number of pixels of one position, not of the whole map": (
            lambda part, size: _upsampled_sum(part, size) / (size[0] * size[1])
        ),
        "The ratio of the sizes is the other way round": (
            lambda part, size: (
                _upsampled_sum(part, size) * _factors(part, size)[0] * _factors(part, size)[1]
            )
        ),
        "Sum the maps; do not average them": lambda part, size: _spread(part, size) / part.shape[1],
        "The maps are still separate: sum over k": (
            lambda part, size: (
                upsample(part, size) / _factors(part, size)[0] / _factors(part, size)[1]
            )
        ),
        "Keep the axis of the maps: the result is N×1×H×W": (
            lambda part, size: _spread(part, size)[:, 0]
        ),
    },
    praise="The map has the sum of its part.",
)
