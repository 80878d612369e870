"""The objects in images: an image with its mask, and crops around objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vislib.data.coco import Coco
from vislib.data.images import to_tensor
from vislib.errors import InputError

Size = int | Literal["original"]


_MAX_PIXELS = 4_000_000  # above this a large net's activations no longer fit into a laptop's memory


def load_unit(
    coco: Coco, image_id: int, category: str, size: Size, *, growth: float = 1.2
) -> tuple[Tensor, np.ndarray]:
    """The image, 3×H×W in [0, 1], and the dilated mask of the category's objects, boolean H×W.

    The mask has at least `growth` times its own area (1: as outlined). A whole number as `size`
    squashes the image (bilinear) and the mask (nearest) to that square first. `InputError` where
    the image is damaged or too large, or where nothing is left of the mask.
    """
    mask = coco.mask(image_id, category)
    image = coco.image(image_id)
    if size == "original":
        if image.width * image.height > _MAX_PIXELS:
            raise InputError(
                f"image {image_id} has {image.width}×{image.height} pixels, more than the "
                f"{_MAX_PIXELS:,} that this benchmark takes at the original size: use a fixed size"
            )
    else:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
        mask = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))
    if not mask.any():
        raise InputError(f"nothing is left of {category!r} in image {image_id} at size {size}")
    return to_tensor(image), dilate(mask, growth)


def dilate(mask: np.ndarray, growth: float = 1.2) -> np.ndarray:
    """The mask grown by the smallest whole Euclidean radius (pixels) that gives `growth` × its
    area.

    What would lie outside the image is lost; a mask that cannot grow so far becomes the whole
    image. ``ValueError`` for an empty mask.
    """
    from scipy.ndimage import distance_transform_edt

    mask = mask.astype(bool)  # ~ of 0 and 1 in bytes, as pycocotools draws them, is never false
    area = int(mask.sum())
    if area == 0:
        raise ValueError("the mask is empty: there is no object whose energy could be measured")
    distance = np.ceil(distance_transform_edt(~mask)).astype(int)
    area_by_radius = np.cumsum(np.bincount(distance.ravel()))
    large_enough = area_by_radius >= growth * area
    radius = int(large_enough.argmax()) if large_enough.any() else len(area_by_radius)
    return distance <= radius


class Crops(NamedTuple):
    """Square pictures of one object each.

    Attributes:
        images: N×3×S×S in [0, 1].
        labels: N category numbers, positions in `names`.
        scenes: the ids of the N images that they were cut from.
        names: the categories.
    """

    images: Tensor
    labels: Tensor
    scenes: Tensor
    names: tuple[str, ...]


def object_crops(
    coco: Coco,
    side: int,
    *,
    per_category: int | None = None,
    categories: Sequence[str] | None = None,
    margin: float = 0.15,
) -> Crops:
    """Cut a square around a category's objects out of each image that shows it.

    The square is the objects' longer side plus `margin` of it on both ends, moved inside the image
    and never larger than it. An image with several categories gives several crops, which may
    overlap: other objects can be seen in a crop.

    Args:
        coco: the data set; images without a file are left out.
        side: of the crops, in pixels.
        per_category: the first so many images of each category; all of them by default.
        categories: names; all that the data set shows by default.
        margin: as a share of the object's longer side.

    Raises:
        InputError: an unknown category, or a fault in an image or outline.
    """
    from vislib.data import images

    cut, labels, scenes = [], [], []
    names = tuple(categories or (name for name in coco.categories if coco.images_with(name)))
    for label, name in enumerate(names):
        for image_id in coco.images_with(name, present_only=True)[:per_category]:
            rows, columns = np.nonzero(coco.mask(image_id, name))
            spans = [(rows.min(), rows.max() + 1), (columns.min(), columns.max() + 1)]
            size = coco.size(image_id)
            longest = max(end - start for start, end in spans)
            length = min(round(longest * (1 + 2 * margin)), *size)
            top, left = (
                min(max(round((start + end - length) / 2), 0), whole - length)
                for (start, end), whole in zip(spans, size, strict=True)
            )
            crop = coco.image(image_id).crop((left, top, left + length, top + length))
            cut.append(images.to_tensor(images.resize(crop, (side, side))))
            labels.append(label)
            scenes.append(image_id)
    if not cut:
        raise ValueError(f"none of the categories {', '.join(names)} has an image on disk")
    return Crops(torch.stack(cut), torch.tensor(labels), torch.tensor(scenes), names)
