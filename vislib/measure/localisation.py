"""Localisation: from an attribution map to a box, and the fraction of boxes that are wrong.

A classifier learns which classes are in an image, and not where they are. Its class activation map
still gives a box, by the protocol of Zhou et al. 2016:

    R = positions with M_c > 20 % of max M_c    B = bounding box of the largest connected part of R

The box is correct if it overlaps enough with a ground-truth box T of the class:

    IoU(B, T) = |B ∩ T| / |B ∪ T| ≥ 0.5

The localisation error is the fraction of cases in which the box or the predicted class is wrong. A
box is ``(x, y, width, height)`` as in COCO: pixel columns x ≤ j < x + width and rows
y ≤ i < y + height.

References:
    Zhou, Khosla, Lapedriza, Oliva & Torralba 2016, "Learning Deep Features for Discriminative
    Localization", section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vislib.measure.statistics import bootstrap_interval

Box = tuple[float, float, float, float]


class Error(NamedTuple):
    """Localisation error with its interval.

    Attributes:
        error: fraction of wrong cases, 0 to 1.
        low, high: ends of its 95 % bootstrap interval.
    """

    error: float
    low: float
    high: float


def region(cam_map: Tensor, threshold: float = 0.2) -> np.ndarray:
    """Largest connected part of the map above ``threshold`` × its maximum, H×W bool.

    Positions that touch at a corner are connected. Of parts of equal size, the first one in reading
    order is chosen. For a map without positive values the region is empty.

    Args:
        cam_map: map of the size of the image (`maps.upsample`), 1×H×W or H×W. Negative values are
            evidence against the class and are never part of the region.
        threshold: fraction of the maximum, from 0 to below 1.

    Raises:
        ValueError: the map has another shape, or NaN or infinite values, or `threshold` is outside
            its range.
    """
    from scipy.ndimage import label

    if cam_map.ndim not in (2, 3) or (cam_map.ndim == 3 and len(cam_map) != 1):
        raise ValueError(f"the map must be 1×H×W or H×W, got shape {tuple(cam_map.shape)}")
    if not 0 <= threshold < 1:
        raise ValueError(
            f"threshold must be a fraction of the maximum, from 0 to below 1, got {threshold}"
        )
    values = cam_map.detach().to("cpu", torch.float64).reshape(cam_map.shape[-2:]).numpy()
    if not np.isfinite(values).all():
        raise ValueError("the map must be finite, got NaN or infinite values")
    above = values > threshold * max(values.max(), 0)  # never below zero
    parts, _ = label(above, structure=np.ones((3, 3)))
    areas = np.bincount(parts.ravel())
    areas[0] = 0  # the background
    return above & (parts == areas.argmax())


def box(cam_map: Tensor, threshold: float = 0.2) -> Box:
    """Bounding box of the map's `region`, ``(x, y, width, height)`` in pixels.

    Zhou et al. 2016. A map without positive values gives the empty box ``(0, 0, 0, 0)``, which
    counts as an error because its IoU with every box is 0.

    Args:
        cam_map, threshold: as in `region`.

    Raises:
        ValueError: as in `region`.

    >>> box(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.9, 1.0]]))
    (1, 1, 2, 1)
    """
    return bounding_box(region(cam_map, threshold))


def bounding_box(mask: np.ndarray) -> Box:
    """Smallest box around a mask, H×W bool; ``(0, 0, 0, 0)`` for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    y, x = int(rows[0]), int(columns[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1; 0 if both are empty.

    Raises:
        ValueError: a width or height is negative.

    >>> iou((0, 0, 2, 2), (1, 0, 2, 2))
    0.3333333333333333
    """
    for given in (a, b):
        if given[2] < 0 or given[3] < 0:
            raise ValueError(
                f"width and height of a box (x, y, width, height) must be at least 0, got {given}"
            )
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(across, 0) * max(down, 0)
    union = a[2] * a[3] + b[2] * b[3] - both
    return float(both / union) if union > 0 else 0.0


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks, H×W bool, 0 to 1; 0 if both are empty.

    Raises:
        ValueError: the masks have different sizes.
    """
    if a.shape != b.shape:
        raise ValueError(f"the masks must have one size, got {a.shape} and {b.shape}")
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def best_iou(predicted: Box, truths: Sequence[Box]) -> float:
    """Largest `iou` of a predicted box with any ground-truth box; 0 if there are none."""
    return max((iou(predicted, truth) for truth in truths), default=0.0)


def localisation_error(
    overlaps: Sequence[float],
    images: Sequence[int],
    *,
    right: Sequence[bool] | None = None,
    at: float = 0.5,
    seed: int = 0,
) -> Error:
    """Fraction of wrong cases, 0 to 1, with a 95 % interval that resamples whole images.

    Args:
        overlaps: `best_iou` of each case, which is an image and a class.
        images: image of each case; the cases of one image are drawn together.
        right: whether the network predicts the class of each case, if a wrong prediction counts as
            an error (as in ILSVRC). Default: only the boxes count ("ground truth known").
        at: smallest IoU of a correct box.
        seed: seed of the resampling.

    Raises:
        ValueError: there are no cases, or the lists have different lengths.

    >>> localisation_error([0.7, 0.2], images=[1, 1])
    Error(error=0.5, low=0.5, high=0.5)
    """
    hit = np.asarray(overlaps, dtype=float) >= at
    named = np.ones(len(hit), bool) if right is None else np.asarray(right, dtype=bool)
    if not len(hit) == len(images) == len(named):
        raise ValueError(
            "overlaps, images and right must have one length, "
            f"got {len(hit)}, {len(images)} and {len(named)}"
        )
    if not len(hit):
        raise ValueError("overlaps is empty: pass at least one case")
    missed = (~(hit & named)).astype(float)
    return Error(float(missed.mean()), *bootstrap_interval(missed, np.asarray(images), seed=seed))
