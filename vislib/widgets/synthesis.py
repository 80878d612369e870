"""Widget of notebook 16: the regularisers of a class model under the reader's hand."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vislib import show
from vislib.synthesis import adam, ascend, blur, fourier, jitter, l2, logit, noise, tv

if TYPE_CHECKING:
    from ipywidgets import VBox

SIDE = 64  # small, so that a drawing takes about a second
STEPS = 30


@lru_cache(maxsize=64)
def image(
    model: nn.Module,
    target: int,
    l2_weight: float = 0.0,
    tv_weight: float = 0.0,
    sigma: float = 0.0,
    shift: int = 0,
    waves: bool = False,
) -> tuple[Tensor, float]:
    """The class model, 1×3×64×64, under the given regularisers, and its logit without them.

    `waves` climbs Fourier coefficients instead of pixels; blur has no place there and is left out.
    """
    start = noise(1, 3, SIDE, SIDE)
    transforms = [jitter(shift)] if shift else []
    objective = logit(target) - l2_weight * l2() - tv_weight * tv()
    if waves:
        made = ascend(
            model, objective, fourier(start), steps=STEPS, optimiser=adam, transforms=transforms
        )
    else:
        edits = [blur(sigma)] if sigma else []
        made = ascend(model, objective, start, steps=STEPS, transforms=transforms, edits=edits)
    with torch.no_grad():
        return made.image, float(model(made.image)[0, target])


def draw_regularisers(
    model: nn.Module,
    target: int,
    l2_weight: float = 0.0,
    tv_weight: float = 0.0,
    sigma: float = 0.0,
    shift: int = 0,
    waves: bool = False,
) -> None:
    """The class model, and the logit that it reaches."""
    made, reached = image(model, target, l2_weight, tv_weight, sigma, shift, waves)
    show.panels(
        {f"logit {reached:.1f}": made[0]},
        size=4.2,
        alt=f"Class model with L2 {l2_weight:g}, total variation {tv_weight:g}, blur {sigma:g}, "
        f"jitter {shift}, {'waves' if waves else 'pixels'}: logit {reached:.1f}.",
    )


def regularisers(model: nn.Module, target: int) -> VBox:
    """Move the strength of each regulariser, and change from pixels to waves."""
    from ipywidgets import Checkbox

    from vislib.widgets import slider, sliders, whole

    def draw(l2_weight: float, tv_weight: float, sigma: float, shift: int, waves: bool) -> None:
        draw_regularisers(model, target, l2_weight, tv_weight, sigma, shift, waves)

    return sliders(
        draw,
        l2_weight=slider("L2", 0.0, 0.0, 0.1, 0.01),
        tv_weight=slider("total variation", 0.0, 0.0, 0.05, 0.005),
        sigma=slider("blur (pixels)", 0.0, 0.0, 1.5, 0.25),
        shift=whole("jitter (pixels)", 0, 0, 12),
        waves=Checkbox(value=False, description="Fourier"),
    )
