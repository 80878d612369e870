"""Energy fraction P: the fraction of an attribution map's energy that falls on the object.

    E_total = Σ |I(x, y)|²                over pixels (x, y) and channels
    E       = Σ M(x, y) · |I(x, y)|²
    P       = E / E_total

``I`` is the raw map at the size of the image. ``M`` is the mask of the object, dilated a little
because the edges of the object belong to it. For a uniform map, P is the fraction of the image that
the mask covers. This is the chance level.

The maps at the end of the module do not depend on a network or a class. They are controls, or
factors of the controls for sharpness (`vislib.measure.methods.MAP_CONTROLS`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Energy(NamedTuple):
    """Energy of one map.

    Attributes:
        P: fraction of the energy on the object, 0 to 1; NaN if the map has no energy.
        E: energy on the object, in the square of the map's unit.
        E_total: energy of the whole map, in the same unit.
    """

    P: float
    E: float
    E_total: float


def energy(maps: Tensor, mask: np.ndarray) -> Energy:
    """Energy of one attribution map, P from 0 to 1, summed in float64.

    In float32 the squares of small gradients would vanish.

    Args:
        maps: one map, C×H×W or H×W, raw and signed.
        mask: pixels of the object, H×W bool.

    Raises:
        ValueError: the sizes differ, or the map has NaN or infinite values.

    >>> energy(torch.ones(1, 2, 2), np.array([[True, False], [False, False]]))
    Energy(P=0.25, E=1.0, E_total=4.0)
    """
    if maps.shape[-2:] != mask.shape:
        raise ValueError(
            f"map and mask must have one size, got {tuple(maps.shape[-2:])} and {mask.shape}: "
            "upsample the map to the image"
        )
    power = maps.detach().to("cpu", torch.float64).square().reshape(-1, *mask.shape).sum(dim=0)
    total = power.sum().item()
    # NaN and infinity reach the sum, so the map is checked only if the sum is not finite. The sum
    # of a finite map of huge values may overflow.
    if not math.isfinite(total) and not maps.isfinite().all():
        raise ValueError("the map must be finite, got NaN or infinite values")
    inside = power[torch.from_numpy(np.ascontiguousarray(mask, dtype=bool))].sum().item()
    return Energy(inside / total if total > 0 else float("nan"), inside, total)


# --- Controls -------------------------------------------------------------------------------------


def uniform(height: int, width: int) -> Tensor:
    """Constant map, 1×H×W. Its P is the fraction of the image that the mask covers."""
    return torch.ones(1, height, width)


def centred_gaussian(height: int, width: int) -> Tensor:
    """Gaussian at the centre of the image, 1×H×W in (0, 1], with σ a quarter of each side.

    It is a control because photographers tend to centre the object.
    """
    y = torch.linspace(-2, 2, height)[:, None]
    x = torch.linspace(-2, 2, width)[None, :]
    return torch.exp(-(x**2 + y**2) / 2)[None]


def sobel_edges(image: Tensor) -> Tensor:
    """Edges of an image 3×H×W in [0, 1] by the Sobel filter: 1×H×W, at least 0."""
    from skimage.filters import sobel

    grey = image.mean(dim=0).cpu().numpy()
    return torch.from_numpy(sobel(grey))[None]


def noise(height: int, width: int) -> Tensor:
    """Normal random numbers with mean 0 and variance 1, 1×H×W, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, height, width, generator=generator)
