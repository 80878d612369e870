"""Checks for notebook 17."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.checks import call, right, same


def step(function: Callable[..., Any]) -> None:
    """One step of a dream: ``function(part, x, lr)``, `part` gives a layer's maps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.default_rng().integers(1000)))
        part = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()).eval()
        x = 0.25 + 0.5 * torch.rand(1, 3, 9, 8)
    x[0, 0, 0, 0], x[0, 1, 2, 2] = 0.0, 1.0  # at the ends of the range, clipping has work
    part.requires_grad_(False)
    leaf = x.clone().requires_grad_()
    maps = part(leaf)
    g = torch.autograd.grad(maps.square().mean(), leaf, retain_graph=True)[0]
    other = torch.autograd.grad(maps.mean(), leaf)[0]
    lr = 0.05

    def moved(gradient: Tensor, *, clip: bool = True) -> Tensor:
        result = x + lr * gradient
        return result.clamp(0, 1) if clip else result

    scaled = g / g.abs().mean()
    mistakes = {
        "The norm falls: add the gradient, do not subtract it": moved(-scaled),
        "Divide the gradient by its mean absolute value": moved(g),
        "Divide by the mean of the absolute values, not by the largest": moved(g / g.abs().max()),
        "Divide by the mean of the absolute values, not by the norm": moved(g / g.norm()),
        "Take absolute values before the mean": moved(g / g.mean()),
        "This is the sign of the gradient: keep its sizes": moved(g.sign()),
        "This raises the mean of the maps: square them first": moved(other / other.abs().mean()),
        "Clip the image to [0, 1]": moved(scaled, clip=False),
    }
    found = call(function, part, x, lr)
    same(found, moved(scaled), what="the next image", mistakes=mistakes, tolerance=1e-4)
    right("One step of the dream, as long as every other.")


def sizes(function: Callable[..., Any]) -> None:
    """Heights and widths of the octaves: ``function(height, width, octaves, ratio)``."""
    rng = np.random.default_rng()
    # with a ratio of 1.5, one is rounded up and the other one down; both can be multiplied by it
    height, width = 112 + 24 * int(rng.integers(4)), 104 + 24 * int(rng.integers(4))
    for octaves, ratio in [(4, 1.5), (3, 1.4)]:  # with these, no size ends in .5
        _sizes(function, height, width, octaves, ratio)
    right("From small to the image's own size.")


def _sizes(
    function: Callable[..., Any], height: int, width: int, octaves: int, ratio: float
) -> None:

    def down(
        first: int, count: int, by: float, whole: Callable[[float], float] = round
    ) -> np.ndarray:
        powers = [by**k for k in range(first, first + count)][::-1]
        return np.array([[whole(height / p), whole(width / p)] for p in powers])

    expected = down(0, octaves, ratio)
    mistakes = {
        "The smallest comes first: the dream grows": expected[::-1],
        "The last octave is the image's own size": down(1, octaves, ratio),
        "That is one octave too many": down(0, octaves + 1, ratio),
        "That is one octave too few": down(0, octaves - 1, ratio),
        "Divide by the ratio, do not multiply: octaves are smaller than the image": np.array(
            [[round(height * ratio**k), round(width * ratio**k)] for k in range(octaves)]
        ),
        "Each octave is the last one divided by ratio, not by a multiple of it": np.array(
            [[round(s / (1 + k * (ratio - 1))) for s in (height, width)] for k in range(octaves)]
        )[::-1],
        "Height comes before width": expected[:, ::-1],
        "Round to the nearest whole number: int() and // cut off": down(0, octaves, ratio, int),
        "Round to the nearest whole number, not always up": down(0, octaves, ratio, math.ceil),
        "Sizes are whole numbers: round": down(0, octaves, ratio, float),
    }
    found = call(function, height, width, octaves, ratio)
    same(found, expected, what="the list of sizes", mistakes=mistakes)


def guided(function: Callable[..., Any]) -> None:
    """The guided objective ``Σ_p max_q ⟨A_p, G_q⟩ / places``: ``function(A, G)``, C×h×w each."""
    generator = torch.Generator().manual_seed(int(np.random.default_rng().integers(2**31)))
    A = torch.randn(5, 3, 4, generator=generator)
    G = torch.randn(5, 2, 3, generator=generator)
    a, g = A.flatten(1), G.flatten(1)
    products = a.t() @ g  # places of A × places of G
    cosines = F.normalize(a, dim=0).t() @ F.normalize(g, dim=0)
    expected = products.amax(dim=1).mean()
    mistakes = {
        "This is the mean over the guide's places: take their largest": products.mean(),
        "Each place of A looks for its best match in G, not the other way round": (
            products.amax(dim=0).mean()
        ),
        "This is the one best pair: take the mean over the places of A": products.max(),
        "This is a sum: divide by the number of places": products.amax(dim=1).sum(),
        "These are cosines: the products themselves let the maps grow": cosines.amax(dim=1).mean(),
        "This is the worst match: take the largest product": products.amin(dim=1).mean(),
    }
    same(call(function, A, G), expected, what="the score", mistakes=mistakes, tolerance=1e-4)
    right("Each place finds its model in the guide.")
