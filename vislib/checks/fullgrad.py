"""Checks for the exercises of notebook 12, FullGrad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vislib.checks import Wrong, call, describe, right, same
from vislib.maps import upsample


def two_layers(function: Callable[..., Any]) -> None:
    """``w2 · ReLU(W1 x + b1) + b2`` in parts: ``function(W1, b1, w2, b2, x)`` to three."""
    for _ in range(3):
        z = torch.ones(1)
        while (z > 0).all() or (z < 0).all():  # a missing gate shows only where a unit is off
            W1, b1, w2, x = torch.randn(5, 4), torch.randn(5), torch.randn(5), torch.randn(4)
            b2 = torch.randn(()) + 2
            z = W1 @ x + b1
        gate = (z > 0).float()
        slope = (w2 * gate) @ W1
        found = call(function, W1, b1, w2, b2, x)
        if not isinstance(found, tuple | list) or len(found) != 3:
            raise Wrong(
                "Return three things: the input's part, the part of b1, the part of b2; "
                f"this is {describe(found)}"
            )
        same(
            found[0],
            x * slope,
            what="the input's part",
            mistakes={
                "Only units that are on (z > 0) let the slope through": x * (w2 @ W1),
                "This is the slope: multiply it by x": slope,
                "Keep one number for each input; do not add them up": (x * slope).sum(),
                "The gate asks whether z is positive, not W1 x alone": (
                    x * ((w2 * (W1 @ x > 0)) @ W1)
                ),
                "The gate is 0 or 1: it does not multiply by h": x * ((w2 * z.relu()) @ W1),
            },
        )
        same(
            found[1],
            b1 * w2 * gate,
            what="the part of b1",
            mistakes={
                "A bias counts only where its unit is on (z > 0)": b1 * w2,
                "Between b1 and the score stand the weights w2": b1 * gate,
                "This is the slope: multiply it by b1": w2 * gate,
                "Keep one number for each unit; do not add them up": (b1 * w2 * gate).sum(),
            },
        )
        same(
            found[2],
            b2,
            what="the part of b2",
            mistakes={"b2 is added to the score as it is: its slope is 1": torch.zeros(())},
        )
    right("Three parts, and together they are the score.")


def batch_norm_bias(function: Callable[..., Any]) -> None:
    """What a BatchNorm adds: ``function(gamma, beta, mean, variance, eps)``, C numbers each."""
    for channels in (4, 7):
        gamma, beta, mean = torch.rand(channels) + 0.5, torch.randn(channels), torch.randn(channels)
        variance, eps = torch.rand(channels) * 0.3 + 0.1, 0.1
        sigma = (variance + eps).sqrt()
        mistakes = {
            "β alone is only what the layer calls its bias: the mean is subtracted, too": beta,
            "The mean is subtracted: its part has a minus": beta + gamma * mean / sigma,
            "eps is missing: it stands beside the variance": beta - gamma * mean / variance.sqrt(),
            "eps belongs under the root": beta - gamma * mean / (variance.sqrt() + eps),
            "Divide by σ, the root of the variance": beta - gamma * mean / (variance + eps),
            "The mean is multiplied by γ, too": beta - mean / sigma,
            "The mean is divided by σ, too": beta - gamma * mean,
            "γ does not multiply β": gamma * (beta - mean / sigma),
            "β is missing": -gamma * mean / sigma,
        }
        found = call(function, gamma, beta, mean, variance, eps)
        same(found, beta - gamma * mean / sigma, what="the bias", mistakes=mistakes)
    right("That is all a BatchNorm adds.")


def psi(function: Callable[..., Any]) -> None:
    """FullGrad's ψ, summed over the maps: ``function(part, size)``, N×K×h×w to N×1×H×W."""
    for n, k, h, w in [(2, 5, 4, 6), (1, 3, 5, 4)]:
        part, size = torch.randn(n, k, h, w) * torch.rand(n, k, 1, 1) * 4, (3 * h, 3 * w)
        found = call(function, part, size)
        mistakes = {
            "Take the absolute values first": _psi(part, size, absolute=False),
            "Subtract each map's minimum before you divide": _psi(part, size, shift=False),
            "Divide by what is largest after the minimum is gone": _psi(part, size, late=False),
            "Rescale each map by itself, not the layer": _psi(part, size, dims=(1, 2, 3)),
            "Rescale each map of each image by itself, not all images together": (
                _psi(part, size, dims=(0, 2, 3))
            ),
            "Rescale each map before you add them up": _psi(
                part.abs().sum(1, keepdim=True), size, absolute=False
            ),
            "The maps are not rescaled to [0, 1]": (
                upsample(part.abs(), size).sum(dim=1, keepdim=True)
            ),
            "Add the maps up, do not average them": _psi(part, size) / k,
            "The maps are still apart: add up over k": _psi(part, size, add=False),
            "Upsample bilinearly, as cam.upsample does": _psi(part, size, mode="nearest"),
            "Keep the axis of the maps: the result is N×1×H×W": _psi(part, size)[:, 0],
            "Rescale first, then upsample": _psi(upsample(part.abs(), size), size),
            "Upsample the maps to `size`": _psi(part, (h, w)),
        }
        same(found, _psi(part, size), what="the picture", mistakes=mistakes)
    flat = call(function, torch.ones(1, 2, 2, 3), (4, 6))
    same(flat, torch.zeros(1, 1, 4, 6), what="the picture of constant maps")
    right("Absolute, rescaled, upsampled, added up.")


def _psi(
    part: Tensor,
    size: tuple[int, int],
    *,
    absolute: bool = True,
    shift: bool = True,
    late: bool = True,
    dims: tuple[int, ...] = (2, 3),
    add: bool = True,
    mode: str = "bilinear",
) -> Tensor:
    maps = part.abs() if absolute else part
    top = maps.amax(dims, keepdim=True)
    maps = maps - maps.amin(dims, keepdim=True) if shift else maps
    maps = maps / (maps.amax(dims, keepdim=True) if late else top)
    if mode == "nearest":
        maps = torch.nn.functional.interpolate(maps, size, mode="nearest")
    else:
        maps = upsample(maps, size)
    return maps.sum(dim=1, keepdim=True) if add else maps


def spread(function: Callable[..., Any]) -> None:
    """A signed picture with the sum of its part: ``function(part, size)``, N×K×h×w to N×1×H×W."""
    for n, k, h, w, down, across in [(2, 5, 4, 6, 4, 4), (1, 3, 5, 4, 2, 3)]:
        part, size = torch.randn(n, k, h, w) + 0.3, (down * h, across * w)
        large = upsample(part, size).sum(dim=1, keepdim=True)
        expected = large / (down * across)
        mistakes = {
            "Each value is now spread over many pixels: divide by how many": large,
            "A place grew in both directions: divide by H/h and by W/w": large / down,
            "The two directions may grow by different factors": large / down**2,
            "The two directions may grow by different factors, H/h and W/w": large / across**2,
            "No absolute values: parts of both signs have to cancel": (
                upsample(part.abs(), size).sum(dim=1, keepdim=True) / (down * across)
            ),
            "Divide by the pixels of one place, not of the whole picture": (
                large / (size[0] * size[1])
            ),
            "Multiply by the ratio of the sizes the other way round": large * down * across,
            "Add the maps up, do not average them": expected / k,
            "The maps are still apart: add up over k": upsample(part, size) / down / across,
            "Keep the axis of the maps: the result is N×1×H×W": expected[:, 0],
        }
        found = call(function, part, size)
        same(found, expected, what="the picture", mistakes=mistakes)
    right("The picture has the sum of its part.")
