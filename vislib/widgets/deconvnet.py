"""Widget of notebook 07: any unit of a few layers, its best scenes, and their reconstructions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vislib import show
from vislib.features import TopPatches, deconvnet
from vislib.widgets import sliders, whole

if TYPE_CHECKING:
    from ipywidgets import VBox


def top_unit(
    model: nn.Module, scenes: Tensor, tops: Mapping[str, TopPatches], stage: int, unit: int
) -> tuple[str, TopPatches, int, Tensor]:
    """The stage's layer, its patches, the unit (the last one stands for all beyond), and the
    unit's reconstructions k×3×H×W, each from the scene with one of its strongest patches.
    """
    layer, top = list(tops.items())[stage - 1]
    unit = top.units[min(unit, len(top.units) - 1)]
    chosen = scenes[top.images[top.units.index(unit)]]
    return layer, top, unit, deconvnet.reconstruct(model, chosen, layer, unit)


def windows(reconstructions: Tensor, boxes: Tensor) -> Tensor:
    """Cut each reconstruction (k×3×H×W) to its box, as far as zeros around the picture: k×3×h×w."""
    margin = int((boxes[:, 1] - boxes[:, 0]).max())
    wide = nn.functional.pad(reconstructions, [margin] * 4)
    return torch.stack(
        [
            one[:, margin + top : margin + bottom, margin + left : margin + right]
            for one, (top, bottom, left, right) in zip(wide, boxes.tolist(), strict=True)
        ]
    )


def tiles(pictures: list[np.ndarray]) -> np.ndarray:
    """Up to nine pictures of one size as three rows, with gaps that fit their size."""
    return show.mosaic(pictures, columns=3, gap=max(1, pictures[0].shape[0] // 14))


def patches_and_reconstructions(
    model: nn.Module, scenes: Tensor, tops: Mapping[str, TopPatches], stage: int, unit: int
) -> tuple[np.ndarray, np.ndarray]:
    """A unit's strongest patches as tiles, and their reconstructions as tiles, both for the eye."""
    _, top, unit, pictures = top_unit(model, scenes, tops, stage, unit)
    cut = windows(pictures, top.boxes[top.units.index(unit)])
    middle = slice(max(0, cut.shape[2] // 2 - 40), cut.shape[2] // 2 + 40)  # the rest is faint
    patches = [show.picture(one[:, middle, middle]) for one in top.crops(unit)]
    views = [show.tinted(one[:, middle, middle], blur=0.8) for one in cut]
    return tiles(patches), tiles(views)


def draw_unit(
    model: nn.Module, scenes: Tensor, tops: Mapping[str, TopPatches], stage: int, unit: int
) -> None:
    """The nine strongest patches of a unit beside their reconstructions."""
    layer, top, unit, _ = top_unit(model, scenes, tops, stage, unit)
    patches, views = patches_and_reconstructions(model, scenes, tops, stage, unit)
    value = float(top.values[top.units.index(unit), 0])
    show.panels(
        {f"{layer}, unit {unit}": patches, f"strongest: {value:.1f}": views},
        columns=2,
        size=4,
        alt=f"Nine patches that excite unit {unit} of {layer} most, and their reconstructions.",
    )


def units(model: nn.Module, scenes: Tensor, tops: Mapping[str, TopPatches]) -> VBox:
    """Sliders for the layer (of those in `tops`) and the unit."""
    most = max(len(top.units) for top in tops.values())
    return sliders(
        lambda stage, unit: draw_unit(model, scenes, tops, stage, unit),
        stage=whole("layer", min(3, len(tops)), 1, len(tops)),
        unit=whole("unit", 14, 0, most - 1),
    )
