"""What share of an explanation's energy falls on the object?

    E_total = Σ |I(x, y)|²        over pixels and channels
    E       = Σ M(x, y) · |I(x, y)|²
    P       = E / E_total

with ``I`` the raw map at the image's size and ``M`` the object's mask, dilated a little because
edges of the object belong to it. A uniform map has P = the mask's share of the image, whatever the
image: that is the number to beat.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Energy(NamedTuple):
    """`P` in 0..1 (NaN where `E_total` = 0: undefined); `E` and `E_total` in the map's unit²."""

    P: float
    E: float
    E_total: float


def energy(maps: Tensor, mask: np.ndarray) -> Energy:
    """Energy of one map (C×H×W or H×W, signed) on a boolean H×W mask.

    Summed in float64: squares of small gradients would vanish in float32. ``ValueError`` where the
    sizes differ or the map is not finite.
    """
    if maps.shape[-2:] != mask.shape:
        raise ValueError(
            f"the map is {tuple(maps.shape[-2:])} and the mask {mask.shape}: "
            "upsample the map to the image"
        )
    if not maps.isfinite().all():
        raise ValueError("the map holds NaN or infinite values: it has no energy")
    power = maps.detach().to("cpu", torch.float64).square().reshape(-1, *mask.shape).sum(dim=0)
    total = power.sum().item()
    inside = power[torch.from_numpy(np.ascontiguousarray(mask, dtype=bool))].sum().item()
    return Energy(inside / total if total > 0 else float("nan"), inside, total)


def uniform(height: int, width: int) -> Tensor:
    """Control: a map that is the same everywhere, 1×H×W. Its P is the mask's share of the image."""
    return torch.ones(1, height, width)


def centred_gaussian(height: int, width: int) -> Tensor:
    """Control: a bell over the centre, 1×H×W, σ a quarter of each side. Photographers aim."""
    y = torch.linspace(-2, 2, height)[:, None]
    x = torch.linspace(-2, 2, width)[None, :]
    return torch.exp(-(x**2 + y**2) / 2)[None]


def sobel_edges(image: Tensor) -> Tensor:
    """Control: Sobel edges of a 3×H×W image in [0, 1], 1×H×W. They know no net and no class."""
    from skimage.filters import sobel

    grey = image.mean(dim=0).cpu().numpy()
    return torch.from_numpy(sobel(grey))[None]
