"""Widget of notebook 12: FullGrad's picture grows, layer after layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vislib import nets, show
from vislib.explain.fullgrad import FullGradient, fullgrad_parts
from vislib.maps import upsample
from vislib.measure import energy
from vislib.widgets import sliders, whole

if TYPE_CHECKING:
    from ipywidgets import VBox


def places(parts: FullGradient) -> dict[str, Tensor]:
    """The parts that have places, N×K×h×w each: the input's, then each layer's."""
    known = {"input": parts.input} | parts.biases
    return {name: part for name, part in known.items() if part.ndim == 4}


def picture_of(parts: FullGradient, count: int, size: tuple[int, int]) -> Tensor:
    """``Σ ψ`` of the first `count` parts with places, N×1×H×W; of all of them it is `fullgrad`."""
    total = torch.zeros(())
    for part in list(places(parts).values())[:count]:
        maps = part.abs() - part.abs().amin((2, 3), keepdim=True)
        maps = maps / maps.amax((2, 3), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
        total = total + upsample(maps, size).sum(dim=1, keepdim=True)
    return total


def draw_growing(
    model: nets.Classifier,
    x: Tensor,
    targets: Mapping[str, int],
    masks: Mapping[str, np.ndarray],
    name: str,
    count: int,
) -> None:
    """The last part that was added, and the picture up to it with its P."""
    parts = fullgrad_parts(model, x, targets[name])
    last, part = list(places(parts).items())[count - 1]
    picture = picture_of(parts, count, (x.shape[2], x.shape[3]))
    P = energy.energy(picture[0], masks[name]).P
    show.panels(
        {
            f"part {count}: {last.removeprefix('net.')}": show.heat(part[0]),
            f"{count} added up, P = {P:.2f}": show.overlay(x[0], picture[0]),
        },
        columns=2,
        size=4,
        alt=f"FullGrad for {name}: the part of {last}, and the picture of {count} parts added up, "
        f"with {P:.2f} of its energy on the object.",
    )


def growing(
    model: nets.Classifier,
    x: Tensor,
    targets: Mapping[str, int],
    masks: Mapping[str, np.ndarray],
) -> VBox:
    """Add the parts one after the other, from the pixels upwards, for one of the classes."""
    from ipywidgets import Dropdown

    def draw(name: str, count: int) -> None:
        draw_growing(model, x, targets, masks, name, count)

    first = next(iter(targets))
    most = len(places(fullgrad_parts(model, x, targets[first])))
    return sliders(
        draw,
        name=Dropdown(options=list(targets), description="class"),
        count=whole("parts added up", 2, 1, most),
    )
