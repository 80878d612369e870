"""Functions that resize, reduce, measure and compare attribution maps and feature maps.

    upsample           bilinear, from h×w to the size of the image
    channel_maximum    max_c |R_c|                      one value for each pixel, at least 0
    positive_part      max_c max(R_c, 0)                the same for the positive values
    total_variation    mean |R_p - R_q| / mean |R_p|    roughness, over neighbouring pixels p, q
    rank_correlation   Spearman's ρ(R, R')              similarity of two maps

None of them needs a model.

References:
    Simonyan, Vedaldi & Zisserman 2014, "Deep Inside Convolutional Networks: Visualising Image
    Classification Models and Saliency Maps".
    Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim 2018, "Sanity Checks for Saliency Maps".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear interpolation of maps N×C×h×w to N×C×H×W.

    Pixels are areas (``align_corners=False``), so the corners of the map are the corners of the
    image.

    Args:
        maps: N×C×h×w.
        size: (H, W), height and width of the result.

    >>> upsample(torch.tensor([[[[0.0, 4.0]]]]), (1, 4)).flatten().tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def channel_maximum(maps: Tensor) -> Tensor:
    """Largest absolute value over the channels, ``max_c |R_c|``, N×C×H×W to N×1×H×W.

    For a gradient, this is the saliency map of Simonyan et al. 2014.

    >>> channel_maximum(torch.tensor([1.0, -3.0, 2.0]).view(1, 3, 1, 1)).item()
    3.0
    """
    return maps.abs().amax(dim=1, keepdim=True)


def positive_part(maps: Tensor) -> Tensor:
    """Largest positive value over the channels, ``max_c max(R_c, 0)``, N×C×H×W to N×1×H×W.

    For a gradient, it shows the pixels where a brighter channel raises the score.

    >>> positive_part(torch.tensor([1.0, -3.0, 2.0]).view(1, 3, 1, 1)).item()
    2.0
    """
    return maps.clamp(min=0).amax(dim=1, keepdim=True)


def total_variation(maps: Tensor) -> Tensor:
    """Roughness of each map: mean difference of neighbouring pixels over mean absolute value.

        TV = mean |R_p - R_q| / mean |R_p|

    The index p runs over all pixels and channels, and (p, q) over all pairs of vertical or
    horizontal neighbours in a channel. TV has no unit and does not depend on the scale of the map.
    It is 0 for a constant map, √2 for independent normal values of mean 0, and 2 for a checkerboard
    of ±1.

    Args:
        maps: N×C×H×W.

    Returns:
        N values; NaN for a map that is zero everywhere.

    >>> total_variation(torch.tensor([[[[1.0, -1.0], [-1.0, 1.0]]]])).item()
    2.0
    """
    vertical = (maps[..., 1:, :] - maps[..., :-1, :]).abs().flatten(1)
    horizontal = (maps[..., 1:] - maps[..., :-1]).abs().flatten(1)
    differences = torch.cat([vertical, horizontal], dim=1)
    return differences.mean(dim=1) / maps.abs().flatten(1).mean(dim=1)


def rank_correlation(a: Tensor, b: Tensor, *, absolute: bool = True) -> Tensor:
    """Spearman's rank correlation of two batches of maps, N values from −1 to 1.

    It is 1 if the values of both maps have the same order, −1 if they have the opposite order, and
    about 0 if their orders are unrelated. Equal values get their mean rank.

    Args:
        a, b: two batches of the same shape N×…, finite.
        absolute: whether to compare the absolute values, which show how important each position is,
            but not its sign. Adebayo et al. 2018 report both variants.

    Returns:
        N values in float64 on the CPU; NaN if one of the maps is constant, because a constant map
        has no order.

    Raises:
        ValueError: the shapes differ, or a value is NaN or infinite.

    >>> a = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    >>> round(rank_correlation(a, a**2).item(), 6)
    1.0
    >>> round(rank_correlation(a, -a, absolute=False).item(), 6)
    -1.0
    """
    from scipy.stats import rankdata

    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(
            "a and b must be two batches of maps of the same shape N×…, got "
            f"{tuple(a.shape)} and {tuple(b.shape)}"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("a and b must be finite, got NaN or infinite values, which have no rank")
    centred = []
    for maps in (a, b):
        values = maps.detach().to("cpu", torch.float64).flatten(1)
        ranks = rankdata((values.abs() if absolute else values).numpy(), axis=1)
        centred.append(torch.from_numpy(ranks - ranks.mean(axis=1, keepdims=True)))
    covariance = (centred[0] * centred[1]).sum(dim=1)
    # A constant map has centred ranks of 0, and 0 / 0 gives NaN.
    return covariance / (centred[0].norm(dim=1) * centred[1].norm(dim=1))
