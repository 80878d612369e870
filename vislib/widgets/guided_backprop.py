"""Widget of notebook 08: how many layers must be random before an explanation changes?"""

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
from vislib.widgets import sliders, whole

if TYPE_CHECKING:
    from ipywidgets import VBox


def step(model: nn.Module, x: Tensor, target: int, depth: int) -> tuple[str, Tensor, Tensor]:
    """With `depth` layers from the top random: the last one's name, guided backprop, Grad-CAM.

    0 is the net as it was learnt, with the name "none"; the last step stands for all beyond it.
    ``ValueError`` for a negative depth.
    """
    if depth < 0:
        raise ValueError(f"depth must be at least 0 layers, got {depth}")
    layer, changed = "none", model
    for layer, changed in islice(sanity.randomised(model, x), depth):  # noqa: B007
        pass
    return layer, guided_backprop(changed, x, target), grad_cam(changed, x, target)


def draw_step(model: nn.Module, x: Tensor, target: int, depth: int) -> None:
    """The scene, and what both methods make of it with `depth` random layers, with ρ."""
    _, *learnt = step(model, x, target, 0)
    layer, *maps = step(model, x, target, depth)
    guided, cam = (rank_correlation(a, b).item() for a, b in zip(learnt, maps, strict=True))
    pictures: dict[str, show.Picture] = {
        f"random: {depth} layers": x[0],
        f"guided backprop, ρ = {guided:.2f}": show.heat(maps[0][0]),
        f"Grad-CAM, ρ = {cam:.2f}": show.overlay(x[0], maps[1][0]),
    }
    show.panels(
        pictures,
        columns=3,
        size=3.9,
        alt=f"The scene, guided backprop and Grad-CAM with {depth} layers random, the lowest of "
        f"them {layer}; rank correlation with the trained net {guided:.2f} and {cam:.2f}.",
    )


def random_layers(model: nn.Module, x: Tensor, target: int) -> VBox:
    """A slider for the number of layers with random weights, counted from the logits."""
    deepest = len(layers_with_weights(model, x))
    draw = partial(draw_step, model, x, target)
    return sliders(draw, depth=whole("random layers", deepest // 2, 0, deepest))
