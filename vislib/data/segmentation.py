"""Segmentations in COCO's format: a mask as polygons, or as run lengths.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context". `vislib.data.coco` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def polygons(mask: np.ndarray) -> list[list[float]]:
    """Segmentation of a mask as COCO's polygons.

    COCO draws the union of an object's polygons, which cannot represent a hole. A mask with a hole
    is therefore cut in two through the hole. The polygons are simplified if their mask, drawn by
    pycocotools, still has an intersection over union of at least 0.98 with `mask`.

    Args:
        mask: H×W, true on the object.

    Returns:
        Polygons ``[x, y, x, y, ...]``, in pixels.

    >>> mask = np.zeros((8, 9), dtype=bool)
    >>> mask[2:6, 3:7] = True
    >>> [len(polygon) // 2 for polygon in polygons(mask)]  # corners
    [8]
    """
    from skimage.measure import approximate_polygon

    contours = [_contour(piece) for piece in _pieces(mask)]
    simplified: list[list[float]] = []
    for tolerance in (0.8, 0.5, 0.25, 0):
        corners = [approximate_polygon(contour, tolerance) for contour in contours]
        simplified = [shape[:-1].round(2).ravel().tolist() for shape in corners if len(shape) > 3]
        if _iou(simplified, mask) >= 0.98:
            break
    return simplified


def _pieces(mask: np.ndarray) -> Iterable[np.ndarray]:
    """Connected pieces of a mask; pieces with holes are cut until they have none."""
    from scipy.ndimage import binary_fill_holes, label

    labels, count = label(mask)
    for index in range(1, count + 1):
        piece = labels == index
        if piece.sum() < 4:
            continue
        holes, number = label(binary_fill_holes(piece) & ~piece)
        sizes = np.bincount(holes.ravel(), minlength=number + 1)
        sizes[0] = 0
        if sizes.max() <= max(0.003 * piece.sum(), 2):
            yield binary_fill_holes(piece)
            continue
        middle = round(np.nonzero(holes == sizes.argmax())[1].mean())
        # The two parts share a column: between parts that only touch, pycocotools leaves a gap.
        left, right = piece.copy(), piece.copy()
        left[:, middle + 1 :] = False
        right[:, :middle] = False
        yield from _pieces(left)
        yield from _pieces(right)


def _contour(piece: np.ndarray) -> np.ndarray:
    """Closed contour of one piece, as points (x, y); pixel i extends from i to i + 1."""
    from skimage.measure import find_contours

    contours = find_contours(np.pad(piece, 1).astype(float), 0.5)
    longest = max(contours, key=len)
    # The padding adds 1 to each coordinate, and a pixel's centre is half a pixel from its corner.
    return longest[:, ::-1] - 0.5


def _iou(shapes: list[list[float]], mask: np.ndarray) -> float:
    """Intersection over union of polygons, as pycocotools draws them, with a mask."""
    from pycocotools import mask as coco_mask

    if not shapes:
        return 0.0
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(shapes, *mask.shape)))
    return float((drawn & mask).sum() / (drawn | mask).sum())


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Mask as COCO's uncompressed run-length encoding (RLE).

    Args:
        mask: H×W, true on the object.

    Returns:
        The size, [H, W], and the lengths of the runs of equal pixels, column after column. The
        first run has false pixels, and its length may be 0.

    >>> run_lengths(np.array([[False, True, False], [False, True, False]]))
    {'size': [2, 3], 'counts': [2, 2, 2]}
    """
    column = np.concatenate([[0], mask.ravel(order="F"), [0]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(column))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}
