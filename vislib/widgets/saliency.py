"""Interactive figure of notebook 11: SmoothGrad with a choice of noise level and copies."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vislib import show
from vislib.explain.averaging import draws, smoothgrad
from vislib.maps import channel_maximum, total_variation
from vislib.measure import energy
from vislib.widgets import float_slider, int_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox


class Smoothed(NamedTuple):
    """SmoothGrad of one image.

    Attributes:
        copy: first noisy copy of the image, 1×3×H×W.
        probability: probability of the target class for this copy.
        map: mean gradient, 1×3×H×W, signed.
        P: fraction of the map's energy on the object.
        variation: total variation of the map.
    """

    copy: Tensor
    probability: float
    map: Tensor
    P: float
    variation: float


def smoothed(
    model: nn.Module, x: Tensor, target: int, mask: np.ndarray, level: float, n: int
) -> Smoothed:
    """SmoothGrad of one image, with the first of its noisy copies.

    Args:
        model: any network.
        x: image, 1×3×H×W.
        target: target class.
        mask: H×W, True on the object.
        level: standard deviation of the noise as a fraction of the image's range.
        n: number of noisy copies.
    """
    noise = next(iter(draws(x.shape[1:], 1))).to(x)
    copy = x + level * (x.max() - x.min()) * noise
    with torch.no_grad():
        probability = model(copy).softmax(dim=1)[0, target].item()
    mean = smoothgrad(model, x, target, level=level, n=n)
    P = energy.energy(mean[0], mask).P
    return Smoothed(copy, probability, mean, P, total_variation(mean).item())


def draw_smoothed(
    model: nn.Module, x: Tensor, target: int, mask: np.ndarray, level: float, n: int
) -> None:
    """Draw the first noisy copy and the mean gradient of n copies.

    Args:
        model, x, target, mask, level, n: as in `smoothed`.
    """
    result = smoothed(model, x, target, mask, level, n)
    heat = show.fine(channel_maximum(result.map)[0])
    panels: dict[str, show.ImageLike] = {
        f"σ = {level:.0%} of the range\np = {result.probability:.2f}": result.copy[0],
        f"mean of n = {n}\nP = {result.P:.2f}, TV = {result.variation:.2f}": heat,
    }
    show.panels(
        panels,
        columns=2,
        alt=f"A copy of the scene with noise of {level:.0%} of its range, probability "
        f"{result.probability:.2f}, and the mean gradient of {n} such copies: P {result.P:.2f}, "
        f"total variation {result.variation:.2f}.",
    )


def noise(model: nn.Module, x: Tensor, target: int, mask: np.ndarray) -> VBox:
    """Sliders for the noise level and for the number of noisy copies.

    Args:
        model, x, target, mask: as in `smoothed`.
    """
    return interactive_figure(
        partial(draw_smoothed, model, x, target, mask),
        level=float_slider("noise level", 0.15, 0, 0.5, 0.05),
        n=int_slider("noisy copies n", 8, 1, 32),
    )
