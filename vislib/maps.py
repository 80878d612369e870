"""Functions of attribution maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear upsampling of N×C×h×w maps to `size` (height, width), with pixels as areas."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def channel_maximum(slope: Tensor) -> Tensor:
    """``max_c |g_c|``: the channel_maximum absolute value over the channels, N×C×H×W to N×1×H×W.

    Simonyan, Vedaldi & Zisserman 2014, "Deep Inside Convolutional Networks".
    """
    return slope.abs().amax(dim=1, keepdim=True)


def positive_part(slope: Tensor) -> Tensor:
    """``max_c max(g_c, 0)``: where a brighter channel raises the score, N×C×H×W to N×1×H×W."""
    return slope.clamp(min=0).amax(dim=1, keepdim=True)


def total_variation(maps: Tensor) -> Tensor:
    """How rough each map is: the mean difference of neighbours over the mean size, N×C×H×W to N.

        TV = mean |R_p - R_q| / mean |R_p|        over pixels p, and neighbours p, q in a channel

    No unit and no scale: 0 for a constant map, √2 where all values are independent draws from one
    bell around 0, up to 2 for a chessboard of ±1. NaN for a map that is zero everywhere.
    """
    down = (maps[..., 1:, :] - maps[..., :-1, :]).abs().flatten(1)
    across = (maps[..., 1:] - maps[..., :-1]).abs().flatten(1)
    return torch.cat([down, across], dim=1).mean(dim=1) / maps.abs().flatten(1).mean(dim=1)


def rank_correlation(a: Tensor, b: Tensor, *, absolute: bool = True) -> Tensor:
    """Spearman's rank correlation of two batches of maps, N×…, one number for each image: N.

    1 where the values of both have the same order, −1 where it is turned round, about 0 where they
    have nothing in common. Equal values share their mean rank. By default the absolute values are
    compared: how much each place matters, whatever its sign; Adebayo et al. 2018 report both.

    NaN where one of the maps is the same everywhere, for it has no order. ``ValueError`` for maps
    of two shapes, and for values that are not finite.
    """
    from scipy.stats import rankdata

    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(
            "two batches of maps of the same shape N×… can be compared, these have "
            f"{tuple(a.shape)} and {tuple(b.shape)}"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("a map holds NaN or infinite values: they have no rank")
    ranks = []
    for maps in (a, b):
        values = maps.detach().to("cpu", torch.float64).flatten(1)
        rank = rankdata((values.abs() if absolute else values).numpy(), axis=1)
        ranks.append(torch.from_numpy(rank - rank.mean(axis=1, keepdims=True)))
    together = (ranks[0] * ranks[1]).sum(dim=1)
    return together / (ranks[0].norm(dim=1) * ranks[1].norm(dim=1))  # 0 / 0 is the NaN
