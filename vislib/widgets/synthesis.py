"""Interactive figure of notebook 16: a class model with a choice of regularisers."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from vislib import show
from vislib.synthesis import adam, ascend, blur, fourier, jitter, l2, logit, noise, tv
from vislib.widgets import float_slider, int_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox

# A small image, so that a drawing takes about a second.
SIDE = 64
STEPS = 30


class Regularisers(NamedTuple):
    """Strengths of the regularisers of a class model.

    Attributes:
        l2_weight: weight of the L2 norm in the objective.
        tv_weight: weight of the total variation in the objective.
        sigma: standard deviation of the blur after each step, in pixels.
        shift: largest shift of the jitter, in pixels.
        waves: whether to optimise Fourier coefficients instead of pixels, without blur.
    """

    l2_weight: float = 0.0
    tv_weight: float = 0.0
    sigma: float = 0.0
    shift: int = 0
    waves: bool = False


@lru_cache(maxsize=64)
def image(model: nn.Module, target: int, chosen: Regularisers) -> tuple[Tensor, float]:
    """Class model, 1×3×64×64, and its logit without the regularisers.

    Args:
        model: any network.
        target: target class.
        chosen: strengths of the regularisers.
    """
    start = noise(1, 3, SIDE, SIDE)
    transforms = [jitter(chosen.shift)] if chosen.shift else []
    objective = logit(target) - chosen.l2_weight * l2() - chosen.tv_weight * tv()
    if chosen.waves:
        made = ascend(
            model, objective, fourier(start), steps=STEPS, optimiser=adam, transforms=transforms
        )
    else:
        edits = [blur(chosen.sigma)] if chosen.sigma else []
        made = ascend(model, objective, start, steps=STEPS, transforms=transforms, edits=edits)
    with torch.no_grad():
        return made.image, float(model(made.image)[0, target])


def draw_regularisers(model: nn.Module, target: int, chosen: Regularisers) -> None:
    """Draw the class model with the logit that it reaches.

    Args:
        model, target, chosen: as in `image`.
    """
    made, reached = image(model, target, chosen)
    show.panels(
        {f"logit {reached:.1f}": made[0]},
        alt=f"Class model with L2 {chosen.l2_weight:g}, total variation {chosen.tv_weight:g}, blur "
        f"{chosen.sigma:g}, jitter {chosen.shift}, {'waves' if chosen.waves else 'pixels'}: logit "
        f"{reached:.1f}.",
    )


def regularisers(model: nn.Module, target: int) -> VBox:
    """Controls for the strength of each regulariser, and for pixels or Fourier waves.

    Args:
        model, target: as in `image`.
    """
    from ipywidgets import Checkbox

    def draw(**strengths: Any) -> None:
        draw_regularisers(model, target, Regularisers(**strengths))

    return interactive_figure(
        draw,
        l2_weight=float_slider("L2", 0.0, 0.0, 0.1, 0.01),
        tv_weight=float_slider("total variation", 0.0, 0.0, 0.05, 0.005),
        sigma=float_slider("blur (pixels)", 0.0, 0.0, 1.5, 0.25),
        shift=int_slider("jitter (pixels)", 0, 0, 12),
        waves=Checkbox(value=False, description="Fourier"),
    )
