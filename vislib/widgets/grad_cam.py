"""Interactive figure of notebook 10: Grad-CAM at each stage of a network, for each class."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from vislib import show
from vislib.explain import cam
from vislib.layers import stages
from vislib.maps import upsample
from vislib.measure import energy
from vislib.widgets import Masks, Targets, int_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox


class StageMap(NamedTuple):
    """Grad-CAM at one stage.

    Attributes:
        layer: dotted name of the layer.
        name: name of the class.
        small: map in the size of the layer's feature maps, 1×h×w.
        large: map in the size of the image, 1×H×W.
        P: fraction of the map's energy on the mask of the class.
    """

    layer: str
    name: str
    small: Tensor
    large: Tensor
    P: float


def look(
    model: nn.Module, x: Tensor, targets: Targets, masks: Masks, stage: int, category: int
) -> StageMap:
    """Grad-CAM at one stage for one class. A number beyond the last entry gives the last entry.

    Args:
        model: any network with convolutional stages.
        x: image, 1×3×H×W.
        targets, masks: classes in the image and their masks, as in `vislib.widgets`.
        stage: number of the stage (see `vislib.layers.stages`), from 1.
        category: number of the class in `targets`, from 0.

    Raises:
        ValueError: `stage` is below 1.
    """
    if stage < 1:
        raise ValueError(f"stage must be at least 1, got {stage}")
    layers = stages(model, x)
    layer = layers[min(stage, len(layers)) - 1]
    name = list(targets)[min(category, len(targets) - 1)]
    small = cam.grad_cam(model, x, targets[name], layer=layer)
    large = upsample(small, x.shape[-2:])[0]
    return StageMap(layer, name, small[0], large, energy.energy(large, masks[name]).P)


def draw_look(
    model: nn.Module, x: Tensor, targets: Targets, masks: Masks, stage: int, category: int
) -> None:
    """Draw the outline of the object, and the map in the size of the layer and over the image.

    Args:
        model, x, targets, masks, stage, category: as in `look`.
    """
    layer, name, small, large, P = look(model, x, targets, masks, stage, category)
    height, width = small.shape[-2:]
    result = f"P = {P:.2f}" if P == P else "nothing above 0"
    show.panels(
        {
            f"class: {name}": show.outline(x[0], masks[name], width=2),
            f"{layer}\n{height}×{width}": show.fine(small, percentile=100),
            f"Grad-CAM, {result}": show.overlay(x[0], large),
        },
        columns=3,
        alt=f"The scene with the {name} outlined, Grad-CAM of layer {layer} with {height} by "
        f"{width} positions, and the same laid over the scene; on the {name}: {result}.",
    )


def any_layer(model: nn.Module, x: Tensor, targets: Targets, masks: Masks) -> VBox:
    """Sliders for the stage, from early to late, and for the class.

    Args:
        model, x, targets, masks: as in `look`.
    """
    deepest = len(stages(model, x))
    return interactive_figure(
        partial(draw_look, model, x, targets, masks),
        stage=int_slider("stage", deepest - 1, 1, deepest),
        category=int_slider("class", 0, 0, len(targets) - 1),
    )
