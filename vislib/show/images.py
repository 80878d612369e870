"""Lines drawn into the pixels of an image, and small images joined to a large one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from vislib.show.colours import COLOURS, ImageLike, rgb


def outline(
    image: ImageLike, mask: np.ndarray, *, colour: str = COLOURS[4], width: int = 3
) -> np.ndarray:
    """Image with the border of a mask drawn on it.

    Args:
        image: in any form that `rgb` takes, H×W pixels.
        mask: boolean, H×W.
        colour: colour of matplotlib.
        width: width of the line in pixels, half of it inside the mask.

    Returns:
        RGB values in [0, 1], H×W×3.

    >>> mask = np.zeros((9, 9), dtype=bool)
    >>> mask[3:6, 3:6] = True
    >>> int((outline(np.zeros((9, 9)), mask, width=1).max(axis=2) > 0).sum())
    8
    """
    from matplotlib.colors import to_rgb
    from scipy.ndimage import binary_dilation, binary_erosion

    pixels = rgb(image).copy()
    outside = width // 2
    # SciPy reads 0 iterations as "until nothing changes".
    grown = binary_dilation(mask, iterations=outside) if outside else mask
    pixels[grown & ~binary_erosion(mask, iterations=width - outside)] = to_rgb(colour)
    return pixels


def frame(
    image: ImageLike,
    box: Sequence[float],
    *,
    colour: str = COLOURS[4],
    width: int = 2,
    dashed: bool = False,
) -> np.ndarray:
    """Image with the border of a box drawn on it, inside the box.

    Args:
        image: in any form that `rgb` takes, H×W pixels.
        box: (x, y, width, height) in pixels of the image, as in COCO. An empty box draws nothing.
        colour: colour of matplotlib.
        width: width of the line in pixels.
        dashed: whether to draw a dashed line, so that two boxes differ by more than their colours.

    Returns:
        RGB values in [0, 1], H×W×3.

    >>> framed = frame(np.zeros((9, 9)), (2, 2, 5, 5), width=1)
    >>> int((framed.max(axis=2) > 0).sum())
    16
    """
    from matplotlib.colors import to_rgb

    pixels = rgb(image).copy()
    height, wide = pixels.shape[:2]
    left, top = max(round(box[0]), 0), max(round(box[1]), 0)
    right, bottom = min(round(box[0] + box[2]), wide), min(round(box[1] + box[3]), height)
    inside, border = np.zeros((2, height, wide), dtype=bool)
    inside[top:bottom, left:right] = True
    border[top:bottom, left:right] = True
    border[top + width : bottom - width, left + width : right - width] = False
    if dashed:
        dash = max(4, wide // 24)
        rows, columns = np.indices(border.shape)
        border &= (rows - top + columns - left) // dash % 2 == 0
    pixels[border & inside] = to_rgb(colour)
    return pixels


def mosaic(
    images: Sequence[ImageLike] | Tensor, *, columns: int = 8, gap: int = 1, scale: int = 1
) -> np.ndarray:
    """Image with small images of one size as its tiles, and white between the tiles.

    Args:
        images: N images, each in a form that `rgb` takes; also a tensor N×3×h×w, N×1×h×w or N×h×w.
        columns: largest number of tiles in a row.
        gap: distance between tiles in pixels, after scaling.
        scale: side in pixels of the square that each pixel becomes.

    Returns:
        RGB values in [0, 1], H×W×3.

    >>> import torch
    >>> mosaic(torch.rand(6, 3, 4, 4), columns=3).shape  # 2 rows of 3 tiles
    (9, 14, 3)
    """
    tiles = [rgb(image).repeat(scale, axis=0).repeat(scale, axis=1) for image in images]
    height, width = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    whole = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, 3))
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = row * (height + gap), column * (width + gap)
        whole[top : top + height, left : left + width] = tile
    return whole
