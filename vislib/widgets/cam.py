"""Interactive figure of notebook 09: the box of a class by CAM and a threshold."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vislib import nets, show
from vislib.data.coco import Coco
from vislib.data.images import resize, to_tensor
from vislib.explain import cam
from vislib.maps import upsample
from vislib.measure import localisation
from vislib.paths import DATA
from vislib.widgets import float_slider, int_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox

SCENE = 1008  # a dog, a zebra and a banana
SIZE = 128
NETS = {"GAP": "emoji_gap", "GMP": "emoji_gmp"}


@cache
def scene() -> tuple[Tensor, dict[str, list[localisation.Box]]]:
    """Scene, resized to 3×128×128, and the boxes of its categories."""
    coco = Coco(DATA / "emoji_coco", "gallery")
    height, width = coco.size(SCENE)
    down, across = SIZE / height, SIZE / width
    boxes = {
        name: [
            (x * across, y * down, w * across, h * down) for x, y, w, h in coco.boxes(SCENE, name)
        ]
        for name in coco.objects(SCENE)
    }
    return resize(to_tensor(coco.image(SCENE)), (SIZE, SIZE)), boxes


@cache
def class_map(pooling: str, category: int) -> Tensor:
    """CAM of a class in the network with this pooling, 1×128×128, signed.

    Args:
        pooling: "GAP" or "GMP", global average or maximum pooling.
        category: index of the class, 0 to 15.

    >>> class_map("GAP", 3).shape
    torch.Size([1, 128, 128])
    """
    maps = cam.cam(nets.load(NETS[pooling]), scene()[0][None], category)
    return upsample(maps, (SIZE, SIZE))[0]


def found_box(pooling: str, category: int, threshold: float) -> tuple[localisation.Box, float]:
    """Box of a class by CAM, and its IoU with the ground truth.

    Args:
        pooling, category: as in `class_map`.
        threshold: fraction of the map's maximum above which a pixel belongs to the object.

    Returns:
        The box (x, y, width, height) in pixels, and its largest IoU with a true box of the class;
        NaN if the class is not in the scene.
    """
    box = localisation.box(class_map(pooling, category), threshold)
    truths = scene()[1].get(nets.EMOJI_CLASSES[category])
    return box, localisation.best_iou(box, truths) if truths else torch.nan


def draw_boxes(category: int, threshold: float = 0.2) -> None:
    """Draw the map and box of a class by both networks, and the true box as a dashed line.

    Args:
        category, threshold: as in `found_box`.
    """
    image, boxes = scene()
    name = nets.EMOJI_CLASSES[category]
    panels, results = {}, []
    for pooling in NETS:
        box, iou = found_box(pooling, category, threshold)
        panel = show.overlay(image, class_map(pooling, category).clamp(min=0))
        for truth in boxes.get(name, []):
            panel = show.frame(panel, truth, colour="white", dashed=True)
        results.append("not in the scene" if iou != iou else f"IoU {iou:.2f}")
        panels[f"{pooling}, {name}, {threshold:.0%}\n{results[-1]}"] = show.frame(panel, box)
    show.panels(
        panels,
        columns=2,
        alt=f"The scene with the maps and boxes for {name} at {threshold:.0%} of the maximum. "
        f"GAP: {results[0]}. GMP: {results[1]}.",
    )


def boxes() -> VBox:
    """Sliders for the class and the threshold."""
    return interactive_figure(
        draw_boxes,
        category=int_slider("class", nets.EMOJI_CLASSES.index("zebra"), 0, 15),
        threshold=float_slider("threshold", 0.2, 0.05, 0.9, 0.05),
    )
