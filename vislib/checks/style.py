"""Checks for the exercises of notebook 18, style transfer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vislib.checks import Exercise


def _maps(*shape: int) -> Tensor:
    seed = int(np.random.default_rng().integers(2**31))
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _gram(F: Tensor) -> Tensor:
    return F.flatten(1) @ F.flatten(1).t()


def _maps_with_negative_products() -> list[tuple[Tensor]]:
    maps = _maps(4, 3, 5)
    maps[1] -= 2 * maps[0]
    return [(maps,)]


gram = Exercise(
    task="``gram(F)``: the Gram matrix ``G_ij = Σ_k F_ik F_jk`` of one image's maps, C×h×w to C×C.",
    inputs=_maps_with_negative_products,
    solution=_gram,
    what="the Gram matrix",
    mistakes={
        "This compares positions with positions: compare channels": (
            lambda F: F.flatten(1).t() @ F.flatten(1)
        ),
        "This is a mean over the positions: take the sum": lambda F: _gram(F) / F[0].numel(),
        "This is the covariance: do not subtract the means": (
            lambda F: _gram(F - F.mean(dim=(1, 2), keepdim=True))
        ),
        "These are correlations: do not divide by the norms of the channels": (
            lambda F: torch.corrcoef(F.flatten(1))
        ),
        "This is only the diagonal: compare each channel with all other channels too": (
            lambda F: _gram(F).diagonal()
        ),
        "The axes are in the wrong order: use flatten(1), not reshape of the transposed maps": (
            lambda F: _gram(F.transpose(0, 2).reshape(len(F), -1))
        ),
    },
    praise="Each channel with each, over all positions.",
    tolerance=1e-4,
)


def _style_loss(
    F: Tensor,
    S: Tensor,
    *,
    distance: Callable[[Tensor, Tensor], Tensor] = lambda F, S: (_gram(F) - _gram(S)).square(),
    divisor: Callable[[int, int], int] = lambda C, M: 4 * C**2 * M**2,
) -> Tensor:
    return distance(F, S).sum() / divisor(len(F), F[0].numel())


style_loss = Exercise(
    task="``style_loss(F, S)``: Gatys' ``E = Σ_ij (G_ij − A_ij)² / (4 C² M²)``, maps C×h×w each.",
    inputs=lambda: [(_maps(4, 3, 5), _maps(4, 3, 5))],
    solution=_style_loss,
    what="the style loss",
    mistakes={
        "Divide by 4 C² M²": lambda F, S: _style_loss(F, S, divisor=lambda C, M: 1),
        "The factor 4 is missing in the denominator": (
            lambda F, S: _style_loss(F, S, divisor=lambda C, M: C**2 * M**2)
        ),
        "C and M are squared in the denominator": lambda F, S: _style_loss(
            F, S, divisor=lambda C, M: 4 * C * M
        ),
        "M, the number of positions, is missing": (
            lambda F, S: _style_loss(F, S, divisor=lambda C, M: 4 * C**2)
        ),
        "This compares the maps themselves: compare their Gram matrices": (
            lambda F, S: _style_loss(F, S, distance=lambda F, S: (F - S).square())
        ),
        "Square the differences": (
            lambda F, S: _style_loss(F, S, distance=lambda F, S: (_gram(F) - _gram(S)).abs())
        ),
    },
    praise="It compares which channels act together, and not where.",
    tolerance=1e-4,
)


content_loss = Exercise(
    task="``content_loss(F, P)``: ``½ Σ (F − P)²``, maps C×h×w each.",
    inputs=lambda: [(_maps(3, 4, 5), _maps(3, 4, 5))],
    solution=lambda F, P: (F - P).square().sum() / 2,
    what="the content loss",
    mistakes={
        "The factor ½ is missing": lambda F, P: (F - P).square().sum(),
        "This is a mean: take the sum": lambda F, P: (F - P).square().mean(),
        "This is half of a mean: take the sum": lambda F, P: (F - P).square().mean() / 2,
        "Square the differences": lambda F, P: (F - P).abs().sum() / 2,
        "This is the root of the sum: do not take the root": lambda F, P: (F - P).norm() / 2,
    },
    praise="It compares position by position.",
    tolerance=1e-4,
)
