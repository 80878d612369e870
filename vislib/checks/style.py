"""Checks for notebook 18."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vislib.checks import call, right, same


def _maps(*shape: int) -> Tensor:
    seed = int(np.random.default_rng().integers(2**31))
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gram(function: Callable[..., Any]) -> None:
    """The Gram matrix ``G_ij = Σ_k F_ik F_jk`` of one image's maps, C×h×w."""
    maps = _maps(4, 3, 5)
    maps[1] -= 2 * maps[0]  # some products are negative
    flat = maps.flatten(1)
    centred = flat - flat.mean(dim=1, keepdim=True)
    expected = flat @ flat.t()
    mistakes = {
        "This compares places with places: channels are to be compared": flat.t() @ flat,
        "This is a mean over the places: add up": expected / flat.shape[1],
        "This is the covariance: do not subtract the means": centred @ centred.t(),
        "These are correlations: do not divide by the sizes": torch.corrcoef(flat),
        "This is the diagonal alone: each channel with each other one too": expected.diagonal(),
        "The maps were put in the wrong order: use flatten(1), not reshape of the transposed": (
            maps.transpose(0, 2).reshape(4, -1) @ maps.transpose(0, 2).reshape(4, -1).t()
        ),
    }
    same(call(function, maps), expected, what="the Gram matrix", mistakes=mistakes, tolerance=1e-4)
    right("Each channel with each, over all places.")


def style_loss(function: Callable[..., Any]) -> None:
    """Gatys' ``E = Σ_ij (G_ij − A_ij)² / (4 C² M²)``: ``function(F, S)``, maps C×h×w each."""
    maps, wanted = _maps(4, 3, 5), _maps(4, 3, 5)
    flat, aim = maps.flatten(1), wanted.flatten(1)
    channels, places = flat.shape
    squares = (flat @ flat.t() - aim @ aim.t()).square()
    expected = squares.sum() / (4 * channels**2 * places**2)
    mistakes = {
        "Divide by 4 C² M²": squares.sum(),
        "The factor 4 is missing below the line": 4 * expected,
        "C and M are squared": squares.sum() / (4 * channels * places),
        "M, the number of places, is missing": squares.sum() / (4 * channels**2),
        "This compares the maps themselves: compare their Gram matrices": (
            (flat - aim).square().sum() / (4 * channels**2 * places**2)
        ),
        "Square the differences": squares.sqrt().sum() / (4 * channels**2 * places**2),
    }
    what = "the style loss"
    same(call(function, maps, wanted), expected, what=what, mistakes=mistakes, tolerance=1e-4)
    right("It compares which channels act together, and not where.")


def content_loss(function: Callable[..., Any]) -> None:
    """``½ Σ (F − P)²``: ``function(F, P)``, maps C×h×w each."""
    maps, wanted = _maps(3, 4, 5), _maps(3, 4, 5)
    squares = (maps - wanted).square()
    mistakes = {
        "The factor ½ is missing": squares.sum(),
        "This is a mean: add up": squares.mean(),
        "This is half of a mean: add up": squares.mean() / 2,
        "Square the differences": (maps - wanted).abs().sum() / 2,
        "This is the root: leave the square": squares.sum().sqrt() / 2,
    }
    found = call(function, maps, wanted)
    same(found, squares.sum() / 2, what="the content loss", mistakes=mistakes, tolerance=1e-4)
    right("It compares place by place.")
