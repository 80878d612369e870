"""Checks for the exercises of notebook 10, Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vislib.checks import Exercise
from vislib.explain.cam import grad_cam_formula, layer_cam_formula
from vislib.maps import upsample
from vislib.measure.localisation import mask_iou

_SHAPES = [(2, 6, 4, 5), (3, 4, 6, 3)]


def _sum(maps: Tensor) -> Tensor:
    """Sum over the channels, N×K×h×w to N×1×h×w."""
    return maps.sum(dim=1, keepdim=True)


# --- The counterfactual map -----------------------------------------------------------------------


def _alpha(gradients: Tensor) -> Tensor:
    return gradients.mean(dim=(2, 3), keepdim=True)


def _weighted_sum(maps: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM before its ReLU."""
    return grad_cam_formula(maps, gradients, relu=False)


def _maps_with_both_signs() -> Iterator[tuple[Tensor, Tensor]]:
    """Maps and gradients whose weighted sum has both signs, so that all mistakes are noticed."""
    for shape in _SHAPES:
        raw = torch.zeros(())
        while not raw.min() < 0 < raw.max():
            maps, gradients = torch.randn(shape).relu(), torch.randn(shape)
            raw = _weighted_sum(maps, gradients)
        yield maps, gradients


against = Exercise(
    task="``against(maps, gradients)``: the counterfactual map, N×K×h×w each, to N×1×h×w, ≥ 0.",
    inputs=_maps_with_both_signs,
    solution=lambda maps, gradients: (-_weighted_sum(maps, gradients)).relu(),
    what="the counterfactual map",
    mistakes={
        "This is Grad-CAM itself: change the sign before the ReLU": grad_cam_formula,
        "The ReLU comes last: if you change the sign after it, no value is above 0": (
            lambda a, g: -grad_cam_formula(a, g)
        ),
        "The ReLU is missing: the map still contains positions that speak for the class": (
            lambda a, g: -_weighted_sum(a, g)
        ),
        "Do not take absolute values: they keep the positions that speak for the class": (
            lambda a, g: _weighted_sum(a, g).abs()
        ),
        "This is the negative part of Grad-CAM's sum: change its sign": (
            lambda a, g: _weighted_sum(a, g).clamp(max=0)
        ),
        "The ReLU is for the sum over the maps, not for each map or its weight": (
            lambda a, g: _sum((-_alpha(g) * a).relu())
        ),
        "Average the gradients over the positions first: one α for each map": (
            lambda a, g: _sum(-g * a).relu()
        ),
        "α is the mean of the gradients over the positions, not their sum": (
            lambda a, g: _sum(-g.sum(dim=(2, 3), keepdim=True) * a).relu()
        ),
        "Sum the weighted maps; do not average them": (
            lambda a, g: (-_alpha(g) * a).mean(dim=1, keepdim=True).relu()
        ),
        "The weighted maps are still separate: sum over k": lambda a, g: (-_alpha(g) * a).relu(),
        "Keep the axis of the maps: the result is N×1×h×w": (
            lambda a, g: (-_alpha(g) * a).sum(dim=1).relu()
        ),
    },
    praise="These positions speak against the class.",
)


# --- The IoU of a seed ----------------------------------------------------------------------------


def _seed(
    small: Tensor,
    mask: Tensor,
    threshold: float,
    *,
    level: Callable[[Tensor], Any] = torch.max,
    **how: Any,
) -> Tensor:
    """Pixels of the upsampled map above ``threshold`` times its level, boolean H×W."""
    large = F.interpolate(small, tuple(mask.shape), **({"mode": "bilinear"} | how))[0, 0]
    return large > threshold * level(large)


def _cut_first(small: Tensor, mask: Tensor, threshold: float) -> Tensor:
    cut = (small > threshold * small.max()).float()
    return upsample(cut, mask.shape)[0, 0] > 0.5


def _iou(seed: Tensor, mask: Tensor) -> float:
    return mask_iou(seed.numpy(), mask.numpy())


def _measured(
    measure: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[Tensor, Tensor, float], float]:
    """Mistake that finds the right seed and compares it with the mask by another measure."""
    return lambda small, mask, threshold: float(measure(_seed(small, mask, threshold), mask))


def _scene() -> tuple[Tensor, Tensor, float]:
    small, mask = torch.zeros(()), torch.zeros(())
    while not small.any() or not mask.any():
        small = upsample(torch.randn(1, 1, 3, 3), (6, 8)).relu() * 3
        mask = upsample(torch.randn(1, 1, 3, 4), (30, 48))[0, 0] > 0.2
        threshold = float(np.random.default_rng().uniform(0.2, 0.5))
    return small, mask, threshold


seed_iou = Exercise(
    task=(
        "``seed_iou(small, mask, threshold)``: the IoU of a thresholded map with a mask; `small` "
        "is 1×1×h×w and at least 0, the mask a boolean H×W tensor."
    ),
    inputs=lambda: [_scene] * 4,
    solution=lambda small, mask, threshold: _iou(_seed(small, mask, threshold), mask),
    what="the IoU",
    mistakes={
        "Upsample the map bilinearly, as maps.upsample does, before you cut it": (
            lambda small, mask, threshold: _iou(_seed(small, mask, threshold, mode="nearest"), mask)
        ),
        "align_corners must be False, as in maps.upsample": (
            lambda small, mask, threshold: _iou(
                _seed(small, mask, threshold, align_corners=True), mask
            )
        ),
        "Upsample first, then cut": (
            lambda small, mask, threshold: _iou(_cut_first(small, mask, threshold), mask)
        ),
        "The threshold is a fraction of the maximum, not a value of the map": (
            lambda small, mask, threshold: _iou(
                _seed(small, mask, threshold, level=lambda large: 1), mask
            )
        ),
        "The threshold is a fraction of the maximum, not of the mean": (
            lambda small, mask, threshold: _iou(
                _seed(small, mask, threshold, level=torch.mean), mask
            )
        ),
        "The map is cut on the wrong side: the seed is above the threshold": (
            lambda small, mask, threshold: _iou(~_seed(small, mask, threshold), mask)
        ),
        "Divide by the union, not by the mask": _measured(
            lambda seed, mask: (seed & mask).sum() / mask.sum()
        ),
        "Divide by the union, not by the seed": _measured(
            lambda seed, mask: (seed & mask).sum() / seed.sum()
        ),
        "The union counts the intersection once": _measured(
            lambda seed, mask: (seed & mask).sum() / (seed.sum() + mask.sum())
        ),
        "This is Dice, twice the intersection over the sum of the areas": _measured(
            lambda seed, mask: 2 * (seed & mask).sum() / (seed.sum() + mask.sum())
        ),
        "This is the fraction of pixels on which both agree: pixels outside both must not count": (
            _measured(lambda seed, mask: (seed == mask).float().mean())
        ),
    },
    praise="Upsampled, cut, and compared with the mask.",
    distinct=True,
)


# --- LayerCAM -------------------------------------------------------------------------------------


layer_cam = Exercise(
    task="``layer_cam(maps, gradients)``: LayerCAM, N×K×h×w each, to N×1×h×w.",
    inputs=lambda: ((torch.randn(shape), torch.randn(shape)) for shape in _SHAPES),
    solution=layer_cam_formula,
    what="the map",
    mistakes={
        "This is Grad-CAM: LayerCAM takes no mean, so each position keeps its gradient": (
            grad_cam_formula
        ),
        "The gradients go through a ReLU first": lambda a, g: _sum(g * a).relu(),
        "The ReLU is for the gradients: maps before a ReLU can be negative themselves": (
            lambda a, g: _sum((g * a).relu())
        ),
        "The ReLU is for the gradients, not for the maps": lambda a, g: _sum(g * a.relu()).relu(),
        "The last ReLU, after the sum, is missing": lambda a, g: _sum(g.relu() * a),
        "Sum the weighted maps; do not average them": (
            lambda a, g: (g.relu() * a).mean(dim=1, keepdim=True).relu()
        ),
        "The weighted maps are still separate: sum over k": lambda a, g: g.relu() * a,
        "Keep the axis of the maps: the result is N×1×h×w": (
            lambda a, g: (g.relu() * a).sum(dim=1).relu()
        ),
        "Take the ReLU of the gradients, not their absolute value": (
            lambda a, g: _sum(g.abs() * a).relu()
        ),
    },
    praise="Every position has its own weight.",
)
