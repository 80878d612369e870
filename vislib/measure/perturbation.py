"""Measures that move or remove pixels: the pointing game, deletion and insertion.

A map gives each pixel a *strength*, the energy that P is made of, ``s(p) = Σ_c I_c(p)²``:

    pointing game   is argmax_p s(p) on the object?               high is good   Zhang et al. 2016
    deletion        mean of p(c | all but the strongest pixels)   low is good    Petsiuk et al. 2018
    insertion       mean of p(c | the strongest pixels alone)     high is good   Petsiuk et al. 2018

The pointing game asks for the position of the map's maximum, as P asks for its energy. Deletion and
insertion ask what those pixels contribute to the network's prediction, and need no mask.
`statistics.rank_correlation_table` compares the orders in which measures put the methods.

The strength has no sign: a pixel that speaks against the class counts as much as one that speaks
for it, because a gradient's sign does not tell them apart. Where a method's sign does (occlusion,
LRP), pass ``maps.clamp(min=0)`` so that only the evidence for the class counts.

Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop"; Petsiuk, Das & Saenko 2018,
"RISE: Randomized Input Sampling for Explanation of Black-box Models".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vislib.core import (
    Target,
    check_images,
    check_logits,
    constant_target,
    frozen,
    score,
    split_target,
)
from vislib.transforms import baseline_image


class Curve(NamedTuple):
    """The class probability while pixels are removed or inserted, the strongest first.

    Attributes:
        auc: the area under the curve, which is the mean probability, N numbers in [0, 1].
        scores: the probability after each step, N×(steps + 1).
        fractions: the fraction of the pixels changed so far, steps + 1 numbers from 0 to 1.
    """

    auc: Tensor
    scores: Tensor
    fractions: Tensor


def strength(maps: Tensor) -> Tensor:
    """``Σ_c I_c²`` of one map, C×H×W or H×W, as float64 H×W on the CPU.

    Raises:
        ValueError: another shape, NaN or infinite values.
    """
    if maps.ndim not in (2, 3):
        raise ValueError(f"one map must be C×H×W or H×W, got shape {tuple(maps.shape)}")
    if not maps.isfinite().all():
        raise ValueError("the map holds NaN or infinite values, so its maximum is undefined")
    power = maps.detach().to("cpu", torch.float64).square()
    return power.reshape(-1, *maps.shape[-2:]).sum(dim=0)


def pointing_game(maps: Tensor, mask: np.ndarray, tolerance: float = 15) -> float:
    """1 if the strongest pixel of the map is on the object or near it, else 0.

    If several pixels are equally strong, the result is the fraction of them that hit, which is the
    expected value for one drawn at random. So a constant map gets the fraction of the image that
    the grown mask covers. A map of zeros points nowhere and gets NaN.

    >>> pointing_game(torch.eye(3), np.eye(3, dtype=bool), tolerance=0)
    1.0

    Args:
        maps: one map, C×H×W or H×W, raw and signed.
        mask: the object, boolean H×W, not dilated.
        tolerance: the largest distance to the object that still counts, in pixels (Euclidean). The
            paper's 15 pixels are for photographs of about 500 pixels. For other sizes take the same
            fraction: 4 pixels at 128.

    Raises:
        ValueError: an empty mask, a negative tolerance, or sizes that differ.

    Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop".
    """
    from scipy.ndimage import distance_transform_edt

    if maps.shape[-2:] != mask.shape:
        raise ValueError(
            f"the map is {tuple(maps.shape[-2:])} and the mask {mask.shape}: "
            "upsample the map to the image"
        )
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be a distance of at least 0 pixels, got {tolerance}")
    mask = mask.astype(bool)
    if not mask.any():
        raise ValueError("the mask is empty: it contains no object pixels")
    values = strength(maps).numpy()
    if not values.any():
        return float("nan")
    near = distance_transform_edt(~mask) <= tolerance
    return float(near[values == values.max()].mean())


def deletion(
    model: nn.Module,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    steps: int = 32,
    baseline: str | float | Tensor = "mean",
    batch: int = 64,
) -> Curve:
    """Replace the strongest pixels by a baseline, step by step, until nothing of the image is left.

    A low area means that the map found what the network needs. It may also mean that the removed
    pixels form a pattern that the network has never seen; the curve cannot tell these apart.

    Pixels of equal strength (all of them, in a constant map) are changed in a random order that is
    always the same. Such a map is the control.

    >>> from vislib import nets
    >>> model, x = nets.load("pocket_vgg"), torch.rand(1, 3, 128, 128)
    >>> curve = deletion(model, x, 3, x, steps=4)
    >>> curve.scores.shape
    torch.Size([1, 5])

    Args:
        model: N×C×H×W images to N×K logits. The curve shows their softmax.
        x: the images, N×C×H×W.
        target: see `vislib.core.score`, with probabilities in place of logits.
        maps: N×C'×H×W, raw, one for each image and of its size.
        steps: the number of steps, each with the same number of pixels (up to one).
        baseline: the values that replace the pixels: a name for `transforms.baseline_image`, a
            number, C×1×1, or N×C×H×W.
        batch: how many images go through the network at once.

    Returns:
        The probability after each step, and the area under this curve.

    Raises:
        ValueError: maps of another size or that are not finite, or less than one step or image.

    Petsiuk et al. 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models".
    """
    target = constant_target(model, x, target)
    return _curve(model, x, _baseline(x, baseline), target, maps, steps, batch)


def insertion(
    model: nn.Module,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    steps: int = 32,
    baseline: str | float | Tensor = "blur",
    batch: int = 64,
) -> Curve:
    """Begin with a baseline, the blurred image, and insert the strongest pixels. High is good.

    Args:
        model, x, target, maps, steps, baseline, batch: as in `deletion`, which also describes ties
            and errors.

    Returns:
        As `deletion`.

    Petsiuk et al. 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models".
    """
    target = constant_target(model, x, target)
    return _curve(model, _baseline(x, baseline), x, target, maps, steps, batch)


def _baseline(x: Tensor, baseline: str | float | Tensor) -> Tensor:
    x = check_images(x).detach()
    if isinstance(baseline, str):
        return baseline_image(x, baseline)
    return torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(x)


def _curve(
    model: nn.Module,
    start: Tensor,
    end: Tensor,
    target: Target,
    maps: Tensor,
    steps: int,
    batch: int,
) -> Curve:
    """From `start` to `end`, the strongest pixels first."""
    if maps.ndim != 4 or len(maps) != len(start) or maps.shape[-2:] != start.shape[-2:]:
        raise ValueError(
            f"images of shape {tuple(start.shape)} need maps N×C×H×W of that size, "
            f"got {tuple(maps.shape)}: use maps.upsample"
        )
    if steps < 1 or batch < 1:
        raise ValueError(f"steps and batch must be at least 1, got {steps} and {batch}")
    fractions = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    pixels = start[0, 0].numel()
    changed = (fractions * pixels).round()  # the number of pixels after each step
    targets = split_target(target, len(start))
    scores = []
    with frozen(model), torch.no_grad():
        for one_map, before, after, one in zip(maps, start, end, targets, strict=True):
            rank = _ranks(one_map).view(1, 1, *start.shape[-2:])
            for part in changed.split(batch):
                is_changed = (rank < part.view(-1, 1, 1, 1)).to(start.device)
                logits = check_logits(model(torch.where(is_changed, after, before)))
                scores.append(score(logits.double().softmax(dim=1), one).cpu())
    along = torch.cat(scores).view(len(start), steps + 1)
    return Curve(torch.trapezoid(along, fractions), along, fractions)


def _ranks(one_map: Tensor) -> Tensor:
    """The rank of each pixel, 0 for the strongest. Ties are broken in a fixed random order, so that
    they follow no pattern of the image."""
    values = strength(one_map).flatten()
    shuffled = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    order = shuffled[values[shuffled].argsort(descending=True, stable=True)]
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
