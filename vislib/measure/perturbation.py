"""Measures that use the strongest pixels of a map: the pointing game, deletion and insertion.

The *strength* of a pixel p of the map ``I`` is its energy, ``s(p) = Σ_c I_c(p)²``:

    pointing game   is argmax_p s(p) on the object?               high is good   Zhang et al. 2016
    deletion        mean of p(c | all but the strongest pixels)   low is good    Petsiuk et al. 2018
    insertion       mean of p(c | the strongest pixels alone)     high is good   Petsiuk et al. 2018

The pointing game measures the position of the map's maximum. Deletion and insertion measure how
much the strongest pixels contribute to the prediction of the network, and need no mask.
`statistics.rank_correlation_table` compares the orders in which measures rank the methods.

The strength has no sign, because the sign of a gradient does not tell whether a pixel is evidence
for or against the class. For a method whose sign does tell this (occlusion, LRP), pass
``maps.clamp(min=0)`` so that only the evidence for the class counts.

References:
    Zhang, Lin, Brandt, Shen & Sclaroff 2016, "Top-down Neural Attention by Excitation Backprop".
    Petsiuk, Das & Saenko 2018, "RISE: Randomized Input Sampling for Explanation of Black-box
    Models".
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
from vislib.transforms import as_baseline


class Curve(NamedTuple):
    """Class probability while pixels are removed or inserted, the strongest first.

    Attributes:
        auc: area under the curve, which is the mean probability, N numbers in [0, 1].
        scores: probability after each step, N×(steps + 1).
        fractions: fraction of the pixels changed so far, steps + 1 numbers from 0 to 1.
    """

    auc: Tensor
    scores: Tensor
    fractions: Tensor


def strength(maps: Tensor) -> Tensor:
    """Strength ``Σ_c I_c²`` of each pixel of one map: H×W, at least 0, float64 on the CPU.

    Args:
        maps: one map, C×H×W or H×W, raw and signed.

    Raises:
        ValueError: the map has another shape, or has NaN or infinite values.
    """
    if maps.ndim not in (2, 3):
        raise ValueError(f"the map must be C×H×W or H×W, got shape {tuple(maps.shape)}")
    if not maps.isfinite().all():
        raise ValueError("the map must be finite, got NaN or infinite values")
    power = maps.detach().to("cpu", torch.float64).square()
    return power.reshape(-1, *maps.shape[-2:]).sum(dim=0)


def pointing_game(maps: Tensor, mask: np.ndarray, tolerance: float = 15) -> float:
    """Pointing game: 1 if the strongest pixel of the map is on the object or near it, else 0.

    Zhang et al. 2016. If several pixels are equally strong, the result is the fraction of them that
    are on the object or near it, which is the expected value for one drawn at random. So a constant
    map gets the fraction of the image that is within `tolerance` of the mask. A map of zeros has no
    strongest pixel and gets NaN.

    Args:
        maps: one map, C×H×W or H×W, raw and signed.
        mask: pixels of the object, H×W bool, not dilated.
        tolerance: largest distance to the object that still counts, in pixels (Euclidean). The 15
            pixels of the paper are for photographs of about 500 pixels. For other sizes use the
            same fraction: 4 pixels at 128.

    Raises:
        ValueError: the mask is empty, `tolerance` is negative, or the sizes differ.

    >>> pointing_game(torch.eye(3), np.eye(3, dtype=bool), tolerance=0)
    1.0
    """
    from scipy.ndimage import distance_transform_edt

    if maps.shape[-2:] != mask.shape:
        raise ValueError(
            f"map and mask must have one size, got {tuple(maps.shape[-2:])} and {mask.shape}: "
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
    """Deletion: replace the strongest pixels by a baseline, step by step, until all are replaced.

    Petsiuk et al. 2018. A low area under the curve means that the map shows the pixels that the
    network needs. It may also mean that the removed pixels form a pattern that the network has
    never seen. The curve does not distinguish the two.

    Pixels of equal strength are changed in a random order that is always the same. In a constant
    map all pixels are equally strong, so such a map is the control.

    Args:
        model, x: as in `vislib.explain.gradients`.
        target: as in `vislib.explain.gradients`, for the softmax of the logits instead of the
            logits.
        maps: attribution maps of the images, N×C'×H×W, raw and signed.
        steps: number of steps. Their numbers of pixels differ by at most one.
        baseline: values that replace the pixels: a name for `transforms.baseline_image`, a number,
            C×1×1, or N×C×H×W.
        batch: number of images that run through the model at once.

    Returns:
        The probability after each step, and the area under this curve, where low is good.

    Raises:
        ValueError: the maps have another size or are not finite, or `steps` or `batch` is less
            than 1.

    >>> model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> x = torch.rand(1, 3, 8, 8)
    >>> curve = deletion(model, x, target=3, maps=x, steps=4)
    >>> curve.scores.shape, curve.fractions.tolist()
    (torch.Size([1, 5]), [0.0, 0.25, 0.5, 0.75, 1.0])
    """
    target = constant_target(model, x, target)
    return _curve(
        model, x, as_baseline(baseline, check_images(x).detach()), target, maps, steps, batch
    )


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
    """Insertion: begin with the baseline (the blurred image) and insert the strongest pixels.

    Petsiuk et al. 2018. Pixels of equal strength are inserted in a random order, as in `deletion`.

    Args:
        model, x, target, maps, steps, batch: as in `deletion`.
        baseline: values of the pixels at the beginning, in the forms of `deletion`.

    Returns:
        The probability after each step, and the area under this curve, where high is good.

    Raises:
        ValueError: as in `deletion`.

    >>> model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> x = torch.rand(1, 3, 8, 8)
    >>> inserted = insertion(model, x, target=3, maps=x, baseline=0.0)
    >>> deleted = deletion(model, x, target=3, maps=x, baseline=0.0)
    >>> torch.allclose(inserted.scores[0, -1], deleted.scores[0, 0])  # both are the whole image
    True
    """
    target = constant_target(model, x, target)
    return _curve(
        model, as_baseline(baseline, check_images(x).detach()), x, target, maps, steps, batch
    )


def _curve(
    model: nn.Module,
    start: Tensor,
    end: Tensor,
    target: Target,
    maps: Tensor,
    steps: int,
    batch: int,
) -> Curve:
    """Curve from the images `start` to the images `end`, the strongest pixels first."""
    if maps.ndim != 4 or len(maps) != len(start) or maps.shape[-2:] != start.shape[-2:]:
        raise ValueError(
            f"images of shape {tuple(start.shape)} need maps N×C×H×W of that size, "
            f"got {tuple(maps.shape)}: use maps.upsample"
        )
    if steps < 1 or batch < 1:
        raise ValueError(f"steps and batch must be at least 1, got {steps} and {batch}")
    fractions = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    pixels = start[0, 0].numel()
    changed = (fractions * pixels).round()  # number of changed pixels after each step
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
    """Rank of each pixel, 0 for the strongest, H·W whole numbers."""
    values = strength(one_map).flatten()
    # A fixed random order breaks ties, so that they do not follow a pattern of the image.
    shuffled = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    order = shuffled[values[shuffled].argsort(descending=True, stable=True)]
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
