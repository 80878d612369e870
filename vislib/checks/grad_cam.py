"""Checks for the exercises of notebook 10, Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vislib.checks import call, right, same
from vislib.explain.cam import grad_cam_formula, layer_cam_formula
from vislib.maps import upsample
from vislib.measure import localisation


def against(function: Callable[..., Any]) -> None:
    """The counterfactual map: ``function(maps, slope)``, both N×K×h×w, to N×1×h×w, at least 0."""
    for n, k, h, w in [(2, 6, 4, 5), (3, 4, 6, 3)]:
        raw = torch.zeros(())
        while not raw.min() < 0 < raw.max():  # a mistake shows only where there are both signs
            maps, slope = torch.randn(n, k, h, w).relu(), torch.randn(n, k, h, w)
            raw = grad_cam_formula(maps, slope, relu=False)
        alpha = slope.mean(dim=(2, 3), keepdim=True)
        expected = (-raw).relu()
        mistakes = {
            "This is Grad-CAM itself: turn the sign round before the ReLU": raw.relu(),
            "The ReLU comes last: after it nothing negative is left to turn round": (-(raw.relu())),
            "The ReLU is missing: places that speak for the class are still in it": -raw,
            "No absolute value: it keeps the places that speak for the class, too": raw.abs(),
            "The part below zero, but with the sign turned round": raw.clamp(max=0),
            "The ReLU is for the sum over the maps, not for each map or its weight": (
                (-alpha * maps).relu().sum(dim=1, keepdim=True)
            ),
            "Average the slopes over the places first: one α for each map": (
                (-(slope * maps).sum(dim=1, keepdim=True)).relu()
            ),
            "α is the mean of the slopes over the places, not their sum": expected * h * w,
            "Add the weighted maps up; do not average them": expected / k,
            "The maps are still apart: add up over k": (-alpha * maps).relu(),
            "Keep the axis of the maps: the result is N×1×h×w": expected[:, 0],
        }
        found = call(function, maps, slope)
        same(found, expected, what="the counterfactual map", mistakes=mistakes)
    right("These places speak against the class.")


def seed_iou(function: Callable[..., Any]) -> None:
    """IoU of a thresholded map with a mask: ``function(small, mask, threshold)`` to a number.

    `small` is 1×1×h×w and at least 0, the mask a boolean H×W tensor.
    """
    tried = 0
    while tried < 4:
        small = upsample(torch.randn(1, 1, 3, 3), (6, 8)).relu() * 3
        mask = upsample(torch.randn(1, 1, 3, 4), (30, 48))[0, 0] > 0.2
        threshold = float(np.random.default_rng().uniform(0.2, 0.5))
        if not small.any() or not mask.any():
            continue
        expected, mistakes = _seeds(small, mask, threshold)
        values = [expected, *mistakes.values()]
        if min(abs(a - b) for i, a in enumerate(values) for b in values[:i]) < 1e-4:
            continue  # two mistakes would give nearly the same number: take another map
        tried += 1
        found = call(function, small, mask, threshold)
        same(found, expected, what="the IoU", mistakes=mistakes)
    right("Upsampled, cut, and compared with the mask.")


def _seeds(small: Tensor, mask: Tensor, threshold: float) -> tuple[float, dict[str, float]]:
    """The right IoU, and those that the usual mistakes give."""
    size, truth = tuple(mask.shape), mask.numpy()

    def cut(large: Tensor, at: Tensor | float) -> np.ndarray:
        return (large[0, 0] > at).numpy()

    large = upsample(small, size)
    seed = cut(large, threshold * large.max())
    both, either = float((seed & truth).sum()), float((seed | truth).sum())
    nearest = F.interpolate(small, size, mode="nearest")
    corners = F.interpolate(small, size, mode="bilinear", align_corners=True)
    first = upsample((small > threshold * small.max()).float(), size)
    wrong = {
        "Upsample the map bilinearly, as cam.upsample does, and before you cut it": cut(
            nearest, threshold * nearest.max()
        ),
        "align_corners must be False, as in cam.upsample": cut(corners, threshold * corners.max()),
        "Upsample first, then cut": cut(first, 0.5),
        "The threshold is a share of the maximum, not a value of the map": cut(large, threshold),
        "The share is of the largest value, not of the mean": cut(large, threshold * large.mean()),
        "The map is cut on the wrong side: the seed is what is above": ~seed,
    }
    mistakes = {name: localisation.mask_iou(other, truth) for name, other in wrong.items()}
    mistakes |= {
        "Divide by the union, not by the mask": both / float(truth.sum()),
        "Divide by the union, not by the seed": both / max(float(seed.sum()), 1.0),
        "The union counts the intersection once": both / float(seed.sum() + truth.sum()),
        "This is Dice, twice the intersection over the sum of the areas": (
            2 * both / float(seed.sum() + truth.sum())
        ),
        "This is the share of pixels on which both agree: pixels outside both do not count": float(
            (seed == truth).mean()
        ),
    }
    return both / either, mistakes


def layer_cam(function: Callable[..., Any]) -> None:
    """LayerCAM: ``function(maps, slope)``, both N×K×h×w, to N×1×h×w."""
    for n, k, h, w in [(2, 6, 4, 5), (3, 4, 6, 3)]:
        maps, slope = torch.randn(n, k, h, w), torch.randn(n, k, h, w)
        expected = layer_cam_formula(maps, slope)
        signed = (slope.relu() * maps).sum(dim=1, keepdim=True)
        mistakes = {
            "This is Grad-CAM: here every place keeps its own slope, there is no mean": (
                grad_cam_formula(maps, slope)
            ),
            "The slopes go through a ReLU first": (slope * maps).sum(dim=1, keepdim=True).relu(),
            "The ReLU is for the slopes: maps before a ReLU can be negative themselves": (
                (slope * maps).relu().sum(dim=1, keepdim=True)
            ),
            "The ReLU is for the slopes, not for the maps": (
                (slope * maps.relu()).sum(dim=1, keepdim=True).relu()
            ),
            "The last ReLU, after the sum, is missing": signed,
            "Add the weighted maps up; do not average them": expected / k,
            "The maps are still apart: add up over k": slope.relu() * maps,
            "Keep the axis of the maps: the result is N×1×h×w": expected[:, 0],
            "The slopes' ReLU, not their absolute value": (
                (slope.abs() * maps).sum(dim=1, keepdim=True).relu()
            ),
        }
        found = call(function, maps, slope)
        same(found, expected, what="the map", mistakes=mistakes)
    right("Every place has a weight of its own.")
