"""Widget of notebook 10: Grad-CAM for every stage of a net and every class of a scene."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from vislib import show
from vislib.explain import cam
from vislib.layers import stages
from vislib.maps import upsample
from vislib.measure import energy
from vislib.widgets import sliders, whole

if TYPE_CHECKING:
    from ipywidgets import VBox


def look(
    model: nn.Module,
    x: Tensor,
    targets: Mapping[str, int],
    masks: Mapping[str, np.ndarray],
    stage: int,
    category: int,
) -> tuple[str, str, Tensor, Tensor, float]:
    """Grad-CAM at a stage, counted from 1, for the class at a place in `targets`, from 0.

    Returns the names of layer and class, the map at the layer's own size (1×h×w) and upsampled
    (1×H×W), and its share of energy on the class's mask. Numbers beyond the last stage or class
    stand for the last. ``ValueError`` for a stage below 1.
    """
    if stage < 1:
        raise ValueError(f"stages count from 1, got {stage}")
    layers = stages(model, x)
    layer = layers[min(stage, len(layers)) - 1]
    name = list(targets)[min(category, len(targets) - 1)]
    small = cam.grad_cam(model, x, targets[name], layer=layer)
    large = upsample(small, x.shape[-2:])[0]
    return layer, name, small[0], large, energy.energy(large, masks[name]).P


def draw_look(
    model: nn.Module,
    x: Tensor,
    targets: Mapping[str, int],
    masks: Mapping[str, np.ndarray],
    stage: int,
    category: int,
) -> None:
    """The object outlined, its map at the layer's own size, and the map over the scene."""
    layer, name, small, large, share = look(model, x, targets, masks, stage, category)
    height, width = small.shape[-2:]
    number = f"P = {share:.2f}" if share == share else "nothing above 0"
    pictures: dict[str, show.Picture] = {
        f"class: {name}": show.outline(x[0], masks[name], width=2),
        f"{layer}\n{height}×{width}": show.heat(small, percentile=100),
        f"Grad-CAM, {number}": show.overlay(x[0], large),
    }
    show.panels(
        pictures,
        columns=3,
        size=3.9,
        alt=f"The scene with the {name} outlined, Grad-CAM of layer {layer} with {height} by "
        f"{width} places, and the same laid over the scene; on the {name}: {number}.",
    )


def any_layer(
    model: nn.Module, x: Tensor, targets: Mapping[str, int], masks: Mapping[str, np.ndarray]
) -> VBox:
    """Sliders for the stage, from the pixels upwards, and the class."""
    deepest = len(stages(model, x))
    return sliders(
        partial(draw_look, model, x, targets, masks),
        stage=whole("stage", deepest - 1, 1, deepest),
        category=whole("class", 0, 0, len(targets) - 1),
    )
