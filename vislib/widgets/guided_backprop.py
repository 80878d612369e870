"""Interactive figure of notebook 08: explanations of a network with some random layers."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from torch import Tensor, nn

from vislib import show
from vislib.explain.cam import grad_cam
from vislib.explain.gradients import guided_backprop
from vislib.layers import layers_with_weights
from vislib.maps import rank_correlation
from vislib.measure import sanity
from vislib.widgets import int_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox


def step(model: nn.Module, x: Tensor, target: int, depth: int) -> tuple[str, Tensor, Tensor]:
    """Guided backprop and Grad-CAM with the last `depth` layers random.

    Args:
        model: trained network.
        x: image, 1×3×H×W.
        target: target class.
        depth: number of layers with random weights, counted from the logits. 0 gives the trained
            network; a number beyond the number of layers makes all layers random.

    Returns:
        The name of the last layer that was randomised ("none" for 0), and the two maps.

    Raises:
        ValueError: `depth` is negative.
    """
    if depth < 0:
        raise ValueError(f"depth must be at least 0 layers, got {depth}")
    layer, changed = "none", model
    for layer, changed in islice(sanity.randomised(model, x), depth):  # noqa: B007
        pass
    return layer, guided_backprop(changed, x, target), grad_cam(changed, x, target)


def draw_step(model: nn.Module, x: Tensor, target: int, depth: int) -> None:
    """Draw the scene and both maps, with rank correlations ρ to the maps of the trained network.

    Args:
        model, x, target, depth: as in `step`.
    """
    _, *learnt = step(model, x, target, 0)
    layer, *maps = step(model, x, target, depth)
    guided, cam = (rank_correlation(a, b).item() for a, b in zip(learnt, maps, strict=True))
    panels: dict[str, show.ImageLike] = {
        f"random: {depth} layers": x[0],
        f"guided backprop, ρ = {guided:.2f}": show.fine(maps[0][0]),
        f"Grad-CAM, ρ = {cam:.2f}": show.overlay(x[0], maps[1][0]),
    }
    show.panels(
        panels,
        columns=3,
        alt=f"The scene, guided backprop and Grad-CAM with {depth} layers random, the earliest of "
        f"them {layer}; rank correlation with the trained network {guided:.2f} and {cam:.2f}.",
    )


def random_layers(model: nn.Module, x: Tensor, target: int) -> VBox:
    """Slider for the number of layers with random weights, counted from the logits.

    Args:
        model, x, target: as in `step`.
    """
    deepest = len(layers_with_weights(model, x))
    draw = partial(draw_step, model, x, target)
    return interactive_figure(draw, depth=int_slider("random layers", deepest // 2, 0, deepest))
