"""The objects of an image: an image with its object mask, and square crops around objects.

A *unit* of the benchmark is one image with one of its categories; `load_unit` returns its image
and its mask. The mask is the union of the category's segmentations, dilated by a few pixels
(`dilate`): segmentations often miss the border of the object, where attribution maps are strong.
`object_crops` cuts the objects out, for networks that expect one object in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vislib.data.coco import Coco
from vislib.data.images import resize, to_tensor
from vislib.errors import InputError

Size = int | Literal["original"]
"""The side in pixels to which an image is squashed, or ``"original"`` for the stored size."""

# A larger image's activations in a large network do not fit into the memory of a laptop.
_MAX_PIXELS = 4_000_000


def load_unit(
    coco: Coco,
    image_id: int,
    category: str,
    size: Size,
    *,
    growth: float = 1.2,
    encoded: bytes | None = None,
) -> tuple[Tensor, np.ndarray]:
    """Load one image with the mask of one category's objects.

    Args:
        coco: data set.
        image_id: id of the image in the annotation file.
        category: name of a category that the image shows.
        size: side in pixels of the square to which the image (bilinear) and the mask (nearest
            neighbour) are resized before the mask is dilated. ``"original"`` keeps the size.
        growth: factor by which `dilate` increases the area of the mask; 1 leaves the mask as it is.
        encoded: content of the image's file if `Coco.image_bytes` has read it already; by default
            this function reads the file.

    Returns:
        The image, 3×H×W in [0, 1], and the mask, boolean H×W, true on the objects.

    Raises:
        InputError: the image or a segmentation is missing or damaged, the image does not show the
            category, it has more than 4 million pixels at its original size, or the mask is empty
            after resizing.

    >>> from vislib.paths import DATA
    >>> coco = Coco(DATA / "emoji_coco", "gallery")
    >>> image, mask = load_unit(coco, 1008, "zebra", 128)
    >>> image.shape, mask.shape, mask.dtype
    (torch.Size([3, 128, 128]), (128, 128), dtype('bool'))
    """
    mask = coco.mask(image_id, category)
    image = coco.image(image_id, encoded)
    if size == "original":
        if image.width * image.height > _MAX_PIXELS:
            raise InputError(
                f"image {image_id} has {image.width}×{image.height} pixels, more than the limit "
                f"of {_MAX_PIXELS:,} at the original size: use a fixed size"
            )
    else:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
        mask = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))
    if not mask.any():
        raise InputError(
            f"nothing is left of {category!r} in image {image_id} at size {size}: "
            "use a larger size, or leave the image out"
        )
    return to_tensor(image), dilate(mask, growth)


def dilate(mask: np.ndarray, growth: float = 1.2) -> np.ndarray:
    """Dilate a mask until its area has grown by a factor: boolean, H×W.

    Every pixel within a Euclidean distance r of the mask is added, where r is the smallest whole
    number of pixels with (area after) ≥ `growth` · (area before). Only pixels of the image count,
    so a mask that cannot grow enough becomes the whole image.

    Args:
        mask: H×W, non-zero on the object.
        growth: least factor by which the area grows; 1 or less returns the mask unchanged.

    Returns:
        The dilated mask, boolean H×W.

    Raises:
        ValueError: the mask has no object pixels.

    >>> mask = np.zeros((5, 5), dtype=bool)
    >>> mask[2, 2] = True
    >>> dilate(mask, growth=2).sum()  # the pixel and its four neighbours
    np.int64(5)
    """
    from scipy.ndimage import distance_transform_edt

    # pycocotools draws masks of bytes, for which ~ would give 255 and 254, both of them true.
    mask = mask.astype(bool)
    area = int(mask.sum())
    if area == 0:
        raise ValueError(
            "the mask is empty, it contains no object pixels: check the category of the image"
        )
    distance = np.ceil(distance_transform_edt(~mask)).astype(int)
    area_by_radius = np.cumsum(np.bincount(distance.ravel()))
    large_enough = area_by_radius >= growth * area
    radius = int(large_enough.argmax()) if large_enough.any() else len(area_by_radius)
    return distance <= radius


class Crops(NamedTuple):
    """Square images of one object each.

    Attributes:
        images: N×3×S×S in [0, 1].
        labels: N category numbers, positions in `names`.
        scenes: ids of the N images from which the crops were cut.
        names: categories.
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
    """Cut a square around a category's objects out of each image that shows the category.

    The side of the square is the longer side of the objects' bounding box plus a margin at both
    ends. The square is moved inside the image and is never larger than the image. An image with
    several categories gives several crops, which may overlap and may show other objects.

    Args:
        coco: data set; images without a file on disk are left out.
        side: side of the crops, in pixels.
        per_category: number of images of each category, the first ones by id; by default all.
        categories: names of the categories; by default all that the data set shows.
        margin: margin at each end, as a fraction of the longer side of the bounding box.

    Returns:
        The crops, grouped by category.

    Raises:
        InputError: a category is unknown, or an image or a segmentation is damaged.
        ValueError: no image of the categories is on disk.

    >>> from vislib.paths import DATA
    >>> coco = Coco(DATA / "emoji_coco", "gallery")
    >>> crops = object_crops(coco, 64, per_category=1, categories=["zebra", "dog"])
    >>> crops.images.shape, crops.labels.tolist()
    (torch.Size([2, 3, 64, 64]), [0, 1])
    """
    crops, labels, scenes = [], [], []
    names = tuple(categories or (name for name in coco.categories if coco.images_with(name)))
    for label, name in enumerate(names):
        for image_id in coco.images_with(name, present_only=True)[:per_category]:
            box = _square_around(coco.mask(image_id, name), coco.size(image_id), margin)
            crop = coco.image(image_id).crop(box)
            crops.append(to_tensor(resize(crop, (side, side))))
            labels.append(label)
            scenes.append(image_id)
    if not crops:
        raise ValueError(f"no image of the categories {', '.join(names)} is on disk: choose others")
    return Crops(torch.stack(crops), torch.tensor(labels), torch.tensor(scenes), names)


def _square_around(
    mask: np.ndarray, size: tuple[int, int], margin: float
) -> tuple[int, int, int, int]:
    """Square around the mask and inside an image of (height, width), as PIL's crop box."""
    rows, columns = np.nonzero(mask)
    spans = [(rows.min(), rows.max() + 1), (columns.min(), columns.max() + 1)]
    longest = max(end - start for start, end in spans)
    length = min(round(longest * (1 + 2 * margin)), *size)
    top, left = (
        min(max(round((start + end - length) / 2), 0), whole - length)
        for (start, end), whole in zip(spans, size, strict=True)
    )
    return left, top, left + length, top + length
