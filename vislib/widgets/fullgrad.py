"""Interactive figure of notebook 12: FullGrad as a sum that grows layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vislib import nets, show
from vislib.explain.fullgrad import FullGradient, fullgrad_parts, psi
from vislib.measure import energy
from vislib.widgets import Masks, Targets, int_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox


def spatial_parts(parts: FullGradient) -> dict[str, Tensor]:
    """Parts that are feature maps, N×K×h×w each: that of the input, then those of the layers."""
    named = {"input": parts.input} | parts.biases
    return {name: part for name, part in named.items() if part.ndim == 4}


def partial_map(parts: FullGradient, count: int, size: tuple[int, int]) -> Tensor:
    """Sum ``Σ ψ`` of the first `count` spatial parts, N×1×H×W; all parts together give FullGrad.

    Args:
        parts: result of `vislib.explain.fullgrad.fullgrad_parts`.
        count: number of parts, from 1.
        size: (height, width) of the map.
    """
    total = torch.zeros(())
    for part in list(spatial_parts(parts).values())[:count]:
        total = total + psi(part, size).sum(dim=1, keepdim=True)
    return total


def draw_growing(
    model: nets.Classifier, x: Tensor, targets: Targets, masks: Masks, name: str, count: int
) -> None:
    """Draw the part that was added last, and the sum of all parts up to it with its P.

    Args:
        model: any network with class names.
        x: image, 1×C×H×W.
        targets, masks: classes in the image and their masks, as in `vislib.widgets`.
        name: name of the target class.
        count: number of parts in the sum, from 1.
    """
    parts = fullgrad_parts(model, x, targets[name])
    layer, part = list(spatial_parts(parts).items())[count - 1]
    total = partial_map(parts, count, (x.shape[2], x.shape[3]))
    P = energy.energy(total[0], masks[name]).P
    show.panels(
        {
            f"part {count}: {layer.removeprefix('net.')}": show.fine(part[0]),
            f"{count} added up, P = {P:.2f}": show.overlay(x[0], total[0]),
        },
        columns=2,
        alt=f"FullGrad for {name}: the part of {layer}, and the sum of {count} parts, with {P:.2f} "
        "of its energy on the object.",
    )


def growing(model: nets.Classifier, x: Tensor, targets: Targets, masks: Masks) -> VBox:
    """Controls for the class and for the number of parts, in the order of the forward pass.

    Args:
        model, x, targets, masks: as in `draw_growing`.
    """
    from ipywidgets import Dropdown

    def draw(name: str, count: int) -> None:
        draw_growing(model, x, targets, masks, name, count)

    first = next(iter(targets))
    most = len(spatial_parts(fullgrad_parts(model, x, targets[first])))
    return interactive_figure(
        draw,
        name=Dropdown(options=list(targets), description="class"),
        count=int_slider("parts added up", 2, 1, most),
    )
