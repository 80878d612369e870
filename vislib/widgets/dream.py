"""Interactive figure of notebook 17: a deep dream with a choice of layer, octaves and strength."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from torch import Tensor, nn

from vislib import show
from vislib.synthesis import dream, layer_norm
from vislib.widgets import float_slider, int_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox


@lru_cache(maxsize=64)
def image(model: nn.Module, photo: Tensor, layer: str, octaves: int, lr: float) -> Tensor:
    """Dream of one photograph, 1×3×H×W in [0, 1], with ten steps for each octave.

    Args:
        model: any network.
        photo: photograph, 1×3×H×W in [0, 1].
        layer: dotted name of the layer whose feature maps are amplified.
        octaves: number of image sizes.
        lr: size of a step.
    """
    return dream(model, layer_norm(layer), photo, octaves=octaves, steps=10, lr=lr)


def draw_dream(model: nn.Module, photo: Tensor, layer: str, octaves: int, lr: float) -> None:
    """Draw the photograph and its dream.

    Args:
        model, photo, layer, octaves, lr: as in `image`.
    """
    dreamt = image(model, photo, layer, octaves, lr)
    change = float((dreamt - photo).square().mean().sqrt())
    show.panels(
        {"the photograph": photo[0], f"pixels changed by {change:.2f}": dreamt[0]},
        columns=2,
        alt=f"A photograph, and its dream at {layer} with {octaves} octaves and steps of {lr:g}: "
        f"pixels changed by {change:.2f} on average.",
    )


def dreams(model: nn.Module, photo: Tensor, layers: Sequence[str]) -> VBox:
    """Sliders for the layer, the number of octaves and the size of a step.

    Args:
        model, photo: as in `image`.
        layers: dotted names of the layers to choose from, from early to late.
    """

    def draw(layer: int, octaves: int, lr: float) -> None:
        draw_dream(model, photo, layers[layer - 1], octaves, lr)

    return interactive_figure(
        draw,
        layer=int_slider("layer", len(layers) // 2 + 1, 1, len(layers)),
        octaves=int_slider("octaves", 3, 1, 4),
        lr=float_slider("strength", 0.01, 0.0, 0.03, 0.002),
    )
