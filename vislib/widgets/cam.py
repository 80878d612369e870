"""Widgets of notebook 09: from a class and a threshold to a box."""

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
from vislib.widgets import slider, sliders, whole

if TYPE_CHECKING:
    from ipywidgets import VBox

SCENE = 1008  # a dog, a zebra and a banana
SIZE = 128
NETS = {"GAP": "pocket_gap", "GMP": "pocket_gmp"}


@cache
def scene() -> tuple[Tensor, dict[str, list[localisation.Box]]]:
    """The scene squashed to 3×128×128, and the boxes of its categories in that picture."""
    coco = Coco(DATA / "pocket_coco", "gallery")
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
    """The map of a class by the net with GAP or GMP, 1×128×128, signed."""
    maps = cam.cam(nets.load(NETS[pooling]), scene()[0][None], category)
    return upsample(maps, (SIZE, SIZE))[0]


def found_box(pooling: str, category: int, threshold: float) -> tuple[localisation.Box, float]:
    """The box of a class's map, and its IoU with the true one (NaN for a class that is absent)."""
    box = localisation.box(class_map(pooling, category), threshold)
    truths = scene()[1].get(nets.POCKET_CLASSES[category])
    return box, localisation.best_iou(box, truths) if truths else torch.nan


def draw_boxes(category: int, threshold: float = 0.2) -> None:
    """Map and box of a class for both nets; the true box is dashed."""
    image, boxes = scene()
    name = nets.POCKET_CLASSES[category]
    pictures, told = {}, []
    for pooling in NETS:
        box, overlap = found_box(pooling, category, threshold)
        picture = show.overlay(image, class_map(pooling, category).clamp(min=0))
        for truth in boxes.get(name, []):
            picture = show.frame(picture, truth, colour="white", dashed=True)
        told.append("not in the scene" if overlap != overlap else f"IoU {overlap:.2f}")
        pictures[f"{pooling}, {name}, {threshold:.0%}\n{told[-1]}"] = show.frame(picture, box)
    show.panels(
        pictures,
        columns=2,
        size=4,
        alt=f"The scene with the maps and boxes for {name} at {threshold:.0%} of the maximum. "
        f"GAP: {told[0]}. GMP: {told[1]}.",
    )


def boxes() -> VBox:
    """Sliders for the class and the threshold."""
    return sliders(
        draw_boxes,
        category=whole("class", nets.POCKET_CLASSES.index("zebra"), 0, 15),
        threshold=slider("threshold", 0.2, 0.05, 0.9, 0.05),
    )
