"""Interactive figure of notebook 07: the best patches of a unit and their reconstructions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vislib import show
from vislib.features import TopPatches, deconvnet
from vislib.widgets import int_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox


def top_unit(
    model: nn.Module, scenes: Tensor, tops: Mapping[str, TopPatches], stage: int, unit: int
) -> tuple[str, TopPatches, int, Tensor]:
    """Unit with its strongest patches, and its reconstruction in the scene of each patch.

    Args:
        model: network whose path to the layers is a chain, as in `vislib.features.deconvnet`.
        scenes: images that were searched, N×3×H×W.
        tops: strongest patches in each layer, by its dotted name.
        stage: number of the layer in `tops`, from 1.
        unit: channel. A number beyond the last unit gives the last unit.

    Returns:
        The name of the layer, its patches, the unit, and the reconstructions, k×3×H×W.
    """
    layer, top = list(tops.items())[stage - 1]
    unit = top.units[min(unit, len(top.units) - 1)]
    chosen = scenes[top.images[top.units.index(unit)]]
    return layer, top, unit, deconvnet.reconstruct(model, chosen, layer, unit)


def windows(reconstructions: Tensor, boxes: Tensor) -> Tensor:
    """Part of each reconstruction in its box, with zeros outside the image, k×3×h×w.

    Args:
        reconstructions: k×3×H×W.
        boxes: top, bottom, left, right, with exclusive ends, k×4, all of one size.

    >>> windows(torch.ones(1, 3, 8, 8), torch.tensor([[-1, 3, 2, 6]]))[0, 0].sum(dim=1).tolist()
    [0.0, 4.0, 4.0, 4.0]
    """
    margin = int((boxes[:, 1] - boxes[:, 0]).max())
    wide = nn.functional.pad(reconstructions, [margin] * 4)
    return torch.stack(
        [
            image[:, margin + top : margin + bottom, margin + left : margin + right]
            for image, (top, bottom, left, right) in zip(wide, boxes.tolist(), strict=True)
        ]
    )


def tiles(images: list[np.ndarray]) -> np.ndarray:
    """Up to nine images of one size in three rows, with gaps that fit their size, H×W×3."""
    return show.mosaic(images, columns=3, gap=max(1, images[0].shape[0] // 14))


def patches_and_reconstructions(
    model: nn.Module, scenes: Tensor, tops: Mapping[str, TopPatches], stage: int, unit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of a unit's strongest patches and of their reconstructions, H×W×3 each.

    Args:
        model, scenes, tops, stage, unit: as in `top_unit`.
    """
    _, top, unit, reconstructions = top_unit(model, scenes, tops, stage, unit)
    cut = windows(reconstructions, top.boxes[top.units.index(unit)])
    # The outer part of a large receptive field is faint, so only the middle is shown.
    middle = slice(max(0, cut.shape[2] // 2 - 40), cut.shape[2] // 2 + 40)
    patches = [show.rgb(patch[:, middle, middle]) for patch in top.crops(unit)]
    views = [show.tinted(view[:, middle, middle], blur=0.8) for view in cut]
    return tiles(patches), tiles(views)


def draw_unit(
    model: nn.Module, scenes: Tensor, tops: Mapping[str, TopPatches], stage: int, unit: int
) -> None:
    """Draw the nine strongest patches of a unit and their reconstructions.

    Args:
        model, scenes, tops, stage, unit: as in `top_unit`.
    """
    layer, top, unit, _ = top_unit(model, scenes, tops, stage, unit)
    patches, views = patches_and_reconstructions(model, scenes, tops, stage, unit)
    value = float(top.values[top.units.index(unit), 0])
    show.panels(
        {f"{layer}, unit {unit}": patches, f"strongest: {value:.1f}": views},
        columns=2,
        alt=f"Nine patches that excite unit {unit} of {layer} most, and their reconstructions.",
    )


def units(model: nn.Module, scenes: Tensor, tops: Mapping[str, TopPatches]) -> VBox:
    """Sliders for the layer (of those in `tops`) and the unit.

    Args:
        model, scenes, tops: as in `top_unit`.
    """
    most = max(len(top.units) for top in tops.values())
    return interactive_figure(
        lambda stage, unit: draw_unit(model, scenes, tops, stage, unit),
        stage=int_slider("layer", min(3, len(tops)), 1, len(tops)),
        unit=int_slider("unit", 14, 0, most - 1),
    )
