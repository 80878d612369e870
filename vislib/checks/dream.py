"""Checks for the exercises of notebook 17, deep dream."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.checks import Exercise

# --- One step -------------------------------------------------------------------------------------


def _gradient(part: nn.Module, x: Tensor, power: int = 2) -> Tensor:
    """Gradient of the mean of a power of the maps."""
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(part(leaf).pow(power).mean(), leaf)[0]


def _step(
    part: nn.Module,
    x: Tensor,
    lr: float,
    *,
    size: Callable[[Tensor], Any] = lambda g: g.abs().mean(),
    power: int = 2,
    clip: bool = True,
) -> Tensor:
    """One step of a dream; the options reproduce mistakes of learners."""
    g = _gradient(part, x, power)
    x = x + lr * g / size(g)
    return x.clamp(0, 1) if clip else x


def _part_and_image() -> tuple[Any, ...]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.default_rng().integers(1000)))
        part = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()).eval()
        x = 0.25 + 0.5 * torch.rand(1, 3, 9, 8)
    # Two pixels are at the ends of the range, so that some steps leave the range.
    x[0, 0, 0, 0], x[0, 1, 2, 2] = 0.0, 1.0
    part.requires_grad_(False)
    return part, x, 0.05


step = Exercise(
    task="``step(part, x, lr)``: the image after one step of a dream; ``part(x)`` gives the maps.",
    inputs=lambda: [_part_and_image],
    distinct=True,
    solution=_step,
    what="the next image",
    mistakes={
        "The norm falls: add the gradient, do not subtract it": (
            lambda part, x, lr: _step(part, x, -lr)
        ),
        "Divide the gradient by its mean absolute value": (
            lambda part, x, lr: _step(part, x, lr, size=lambda g: 1)
        ),
        "Divide by the mean of the absolute values, not by the largest": (
            lambda part, x, lr: _step(part, x, lr, size=lambda g: g.abs().max())
        ),
        "Divide by the mean of the absolute values, not by the norm": (
            lambda part, x, lr: _step(part, x, lr, size=torch.norm)
        ),
        "Take absolute values before the mean": (
            lambda part, x, lr: _step(part, x, lr, size=torch.mean)
        ),
        "This is the sign of the gradient: keep its sizes, up to one factor": (
            lambda part, x, lr: _step(part, x, lr, size=torch.abs)
        ),
        "This raises the mean of the maps: square them first": (
            lambda part, x, lr: _step(part, x, lr, power=1)
        ),
        "Clip the image to [0, 1]": lambda part, x, lr: _step(part, x, lr, clip=False),
    },
    praise="One step of the dream, as long as every other.",
    tolerance=1e-4,
)


# --- The sizes of the octaves ---------------------------------------------------------------------


def _sizes(
    height: int,
    width: int,
    octaves: int,
    ratio: float,
    *,
    last: int = 0,
    whole: Callable[[float], float] = round,
) -> np.ndarray:
    """Heights and widths for the powers of the ratio down to `last`."""
    powers = [ratio**k for k in reversed(range(last, last + octaves))]
    return np.array([[whole(height / p), whole(width / p)] for p in powers])


def _multiples(height: int, width: int, octaves: int, ratio: float) -> np.ndarray:
    factors = [1 + k * (ratio - 1) for k in reversed(range(octaves))]
    return np.array([[round(height / f), round(width / f)] for f in factors])


def _images_with_octaves() -> Iterator[tuple[int, int, int, float]]:
    rng = np.random.default_rng()
    # With a ratio of 1.5, one side is rounded up and the other one down, and both can be multiplied
    # by the ratio. With both ratios, no size ends in .5.
    height, width = 112 + 24 * int(rng.integers(4)), 104 + 24 * int(rng.integers(4))
    for octaves, ratio in [(4, 1.5), (3, 1.4)]:
        yield height, width, octaves, ratio


sizes = Exercise(
    task="``sizes(height, width, octaves, ratio)``: sizes of the octaves, smallest first.",
    inputs=_images_with_octaves,
    solution=_sizes,
    what="the list of sizes",
    mistakes={
        "The smallest comes first: the image grows from octave to octave": lambda *inputs: _sizes(
            *inputs
        )[::-1],
        "The last octave is the image's own size": lambda *inputs: _sizes(*inputs, last=1),
        "That is one octave too many": (
            lambda height, width, octaves, ratio: _sizes(height, width, octaves + 1, ratio)
        ),
        "That is one octave too few": (
            lambda height, width, octaves, ratio: _sizes(height, width, octaves - 1, ratio)
        ),
        "Divide by the ratio, do not multiply: octaves are smaller than the image": (
            lambda height, width, octaves, ratio: _sizes(height, width, octaves, 1 / ratio)[::-1]
        ),
        "Divide by ratio for each octave, not by a multiple of ratio": _multiples,
        "Height comes before width": lambda *inputs: _sizes(*inputs)[:, ::-1],
        "Round to the nearest whole number: int() and // cut off the decimals": (
            lambda *inputs: _sizes(*inputs, whole=int)
        ),
        "Round to the nearest whole number, not always up": (
            lambda *inputs: _sizes(*inputs, whole=math.ceil)
        ),
        "Sizes are whole numbers: round": lambda *inputs: _sizes(*inputs, whole=float),
    },
    praise="From small to the image's own size.",
)


# --- The guided objective -------------------------------------------------------------------------


def _products(A: Tensor, G: Tensor) -> Tensor:
    """``⟨A_p, G_q⟩``: positions of A × positions of G."""
    return A.flatten(1).t() @ G.flatten(1)


def _maps_and_guide() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(int(np.random.default_rng().integers(2**31)))
    A = torch.randn(5, 3, 4, generator=generator)
    return [(A, torch.randn(5, 2, 3, generator=generator))]


guided = Exercise(
    task="``guided(A, G)``: the mean over p of ``max_q ⟨A_p, G_q⟩``, C×h×w and C×h'×w'.",
    inputs=_maps_and_guide,
    solution=lambda A, G: _products(A, G).amax(dim=1).mean(),
    what="the score",
    mistakes={
        "This is the mean over the guide's positions: take the largest product": (
            lambda A, G: _products(A, G).mean()
        ),
        "Find the best match in G for each position of A, not the other way round": (
            lambda A, G: _products(A, G).amax(dim=0).mean()
        ),
        "This is the one best pair: take the mean over the positions of A": (
            lambda A, G: _products(A, G).max()
        ),
        "This is a sum: divide by the number of positions": (
            lambda A, G: _products(A, G).amax(dim=1).sum()
        ),
        "These are cosines: use the products without normalisation, so that the maps can grow": (
            lambda A, G: _products(F.normalize(A, dim=0), F.normalize(G, dim=0)).amax(dim=1).mean()
        ),
        "This is the worst match: take the largest product": (
            lambda A, G: _products(A, G).amin(dim=1).mean()
        ),
    },
    praise="Each position finds its best match in the guide.",
    tolerance=1e-4,
)
