"""Which fraction of an attribution map's energy falls on the object?

    E_total = Σ |I(x, y)|²        over pixels and channels
    E       = Σ M(x, y) · |I(x, y)|²
    P       = E / E_total

with ``I`` the raw map at the image's size and ``M`` the object's mask, dilated a little because the
edges of the object belong to it. A uniform map has P = the fraction of the image that the mask
covers, for every image. This is the chance level.

The three controls at the end are maps that depend on no network and no class.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Energy(NamedTuple):
    """The energy of one map.

    Attributes:
        P: the fraction on the object, 0 to 1; NaN if the map has no energy.
        E: the energy on the object, in the map's unit squared.
        E_total: the energy of the whole map, likewise.
    """

    P: float
    E: float
    E_total: float


def energy(maps: Tensor, mask: np.ndarray) -> Energy:
    """The energy of one attribution map on a mask, summed in float64.

    The squares of small gradients would vanish in float32.

    >>> energy(torch.ones(1, 2, 2), np.array([[True, False], [False, False]]))
    Energy(P=0.25, E=1.0, E_total=4.0)

    Args:
        maps: C×H×W or H×W, raw and signed.
        mask: boolean, H×W.

    Raises:
        ValueError: the sizes differ, or the map holds NaN or infinite values.
    """
    if maps.shape[-2:] != mask.shape:
        raise ValueError(
            f"the map is {tuple(maps.shape[-2:])} and the mask {mask.shape}: "
            "upsample the map to the image"
        )
    power = maps.detach().to("cpu", torch.float64).square().reshape(-1, *mask.shape).sum(dim=0)
    total = power.sum().item()
    # NaN and infinity reach the sum, so that the map itself is checked only if the sum is not
    # finite. A finite map of huge values may overflow.
    if not math.isfinite(total) and not maps.isfinite().all():
        raise ValueError("the map holds NaN or infinite values, so its energy is undefined")
    inside = power[torch.from_numpy(np.ascontiguousarray(mask, dtype=bool))].sum().item()
    return Energy(inside / total if total > 0 else float("nan"), inside, total)


# --- Controls -------------------------------------------------------------------------------------


def uniform(height: int, width: int) -> Tensor:
    """A constant map, 1×H×W. Its P is the fraction of the image that the mask covers."""
    return torch.ones(1, height, width)


def centred_gaussian(height: int, width: int) -> Tensor:
    """A Gaussian at the centre, 1×H×W, with σ a quarter of each side.

    Photographers tend to centre the object.
    """
    y = torch.linspace(-2, 2, height)[:, None]
    x = torch.linspace(-2, 2, width)[None, :]
    return torch.exp(-(x**2 + y**2) / 2)[None]


def sobel_edges(image: Tensor) -> Tensor:
    """The Sobel edges of a 3×H×W image in [0, 1], 1×H×W.

    Edges depend neither on the network nor on the class.
    """
    from skimage.filters import sobel

    grey = image.mean(dim=0).cpu().numpy()
    return torch.from_numpy(sobel(grey))[None]
