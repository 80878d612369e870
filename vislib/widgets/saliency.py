"""Widget of notebook 11: noise level and number of copies under the reader's hand."""

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
from vislib.widgets import slider, sliders, whole

if TYPE_CHECKING:
    from ipywidgets import VBox


class Smoothed(NamedTuple):
    """What `smoothed` gives: one noisy copy, the net's probability for it, the map, P and TV."""

    copy: Tensor
    probability: float
    map: Tensor
    P: float
    variation: float


def smoothed(
    model: nn.Module, x: Tensor, target: int, mask: np.ndarray, level: float, n: int
) -> Smoothed:
    """SmoothGrad of one image, 1×3×H×W, with the first of its noisy copies."""
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
    """The first noisy copy, and the picture of the mean of n gradients."""
    seen = smoothed(model, x, target, mask, level, n)
    pictures: dict[str, show.Picture] = {
        f"σ = {level:.0%} of the range\np = {seen.probability:.2f}": seen.copy[0],
        f"mean of n = {n}\nP = {seen.P:.2f}, TV = {seen.variation:.2f}": show.heat(
            channel_maximum(seen.map)[0]
        ),
    }
    show.panels(
        pictures,
        columns=2,
        size=4.2,
        alt=f"A copy of the scene with noise of {level:.0%} of its range, probability "
        f"{seen.probability:.2f}, and the mean gradient of {n} such copies: P {seen.P:.2f}, total "
        f"variation {seen.variation:.2f}.",
    )


def noise(model: nn.Module, x: Tensor, target: int, mask: np.ndarray) -> VBox:
    """Sliders for the noise level and for the number of noisy copies."""
    return sliders(
        partial(draw_smoothed, model, x, target, mask),
        level=slider("noise level", 0.15, 0, 0.5, 0.05),
        n=whole("noisy copies n", 8, 1, 32),
    )
