"""Widget of notebook 17: a deep dream with layer, octaves and strength under the reader's hand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from torch import Tensor, nn

from vislib import show
from vislib.synthesis import dream, layer_norm

if TYPE_CHECKING:
    from ipywidgets import VBox


@lru_cache(maxsize=64)
def image(model: nn.Module, photo: Tensor, layer: str, octaves: int, lr: float) -> Tensor:
    """The dream of one photograph, 1×3×H×W, in ten steps for each octave."""
    return dream(model, layer_norm(layer), photo, octaves=octaves, steps=10, lr=lr)


def draw_dream(model: nn.Module, photo: Tensor, layer: str, octaves: int, lr: float) -> None:
    """The photograph beside its dream."""
    dreamt = image(model, photo, layer, octaves, lr)
    changed = float((dreamt - photo).square().mean().sqrt())
    show.panels(
        {"the photograph": photo[0], f"pixels changed by {changed:.2f}": dreamt[0]},
        columns=2,
        size=4.2,
        alt=f"A photograph, and its dream at {layer} with {octaves} octaves and steps of {lr:g}: "
        f"pixels changed by {changed:.2f} on average.",
    )


def dreams(model: nn.Module, photo: Tensor, layers: Sequence[str]) -> VBox:
    """Choose the layer, from shallow to deep, the number of octaves and the size of a step."""
    from vislib.widgets import slider, sliders, whole

    def draw(layer: int, octaves: int, lr: float) -> None:
        draw_dream(model, photo, layers[layer - 1], octaves, lr)

    return sliders(
        draw,
        layer=whole("layer", len(layers) // 2 + 1, 1, len(layers)),
        octaves=whole("octaves", 3, 1, 4),
        lr=slider("strength", 0.01, 0.0, 0.03, 0.002),
    )
