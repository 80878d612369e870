"""Composing of scenes: cut-outs with an alpha channel, warped, lit and drawn over a photograph.

`vislib.data.pocket` decides what is drawn where. `write_split` stores scenes in COCO's format (Lin
et al. 2014, "Microsoft COCO: Common Objects in Context").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from vislib.data.segmentation import polygons, run_lengths

Rng = np.random.Generator


@dataclass(frozen=True)
class Category:
    """COCO category, with the changes that keep its objects recognisable.

    Attributes:
        id, name, supercategory: as in COCO.
        turn: largest rotation, in degrees.
        hue: largest shift of hue, in degrees. It is large for a car, which may have any colour, and
            small for a banana.
        flip: whether an object may be mirrored.
    """

    id: int
    name: str
    supercategory: str
    turn: float = 18
    hue: float = 12
    flip: bool = True


@dataclass
class Object:
    """Annotated object.

    Attributes:
        category: category of the object.
        mask: visible pixels of the object, boolean H×W.
        crowd: whether the object is a group of small objects, annotated as one.
    """

    category: Category
    mask: np.ndarray
    crowd: bool = False


@dataclass
class Scene:
    """Composed image.

    Attributes:
        image: H×W×3, uint8.
        objects: annotated objects.
        background: name of the photograph behind the objects.
        license: id of the photograph's licence.
    """

    image: np.ndarray
    objects: list[Object]
    background: str
    license: int


# --- Patches --------------------------------------------------------------------------------------


def warped(rng: Rng, cutout: Image.Image, side: float, turn: float, bend: float = 1) -> np.ndarray:
    """Stretch, shear, tilt and rotate a cut-out by a random homography.

    Args:
        rng: random generator.
        cutout: RGBA image.
        side: longer side of the result before rotation, in pixels.
        turn: largest rotation, in degrees.
        bend: factor on the stretching, the shear and the tilt.

    Returns:
        The patch, h×w×4 in [0, 1].
    """
    stretch = np.exp(bend * rng.uniform(-0.15, 0.15))
    size = np.array(cutout.size) * (stretch, 1 / stretch)
    width, height = size * side / size.max()
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    moved = corners - corners.mean(0) + side * bend * rng.uniform(-0.06, 0.06, (4, 2))
    moved[:, 0] += bend * rng.uniform(-0.12, 0.12) * moved[:, 1]
    angle = np.deg2rad(rng.uniform(-turn, turn))
    moved = moved @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    moved -= moved.min(0)
    columns, rows = np.ceil(moved.max(0)).astype(int) + 1
    # Reduce the cut-out first, with a low-pass filter: the homography alone would alias.
    reduced = cutout.resize((max(round(width), 2), max(round(height), 2)), Image.Resampling.BICUBIC)
    patch = reduced.transform(
        (columns, rows),
        Image.Transform.PERSPECTIVE,
        _homography(moved, corners * reduced.size / (width, height)),
        Image.Resampling.BICUBIC,
    )
    return np.asarray(patch, np.float32) / 255


def _homography(source: np.ndarray, target: np.ndarray) -> list[float]:
    """Homography that maps four source points to four targets: eight numbers for Pillow."""
    equations = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        equations.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        equations.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    return np.linalg.solve(equations, target.reshape(-1)).tolist()


def lit(patch: np.ndarray, light: float, strength: float) -> np.ndarray:
    """Colours of a patch, h×w×3 in [0, 1], brighter on the side that faces the light.

    Args:
        patch: h×w×3 or h×w×4.
        light: direction of the light, in radians.
        strength: relative change of the brightness at the border.
    """
    rows, columns = np.mgrid[-1 : 1 : 1j * patch.shape[0], -1 : 1 : 1j * patch.shape[1]]
    facing = columns * np.cos(light) + rows * np.sin(light)
    return np.clip(patch[..., :3] * (1 + strength * facing[..., None]), 0, 1)


def hue_matrix(degrees: float) -> np.ndarray:
    """3×3 matrix that rotates colours about the grey axis: ``rgb @ matrix`` for rows of RGB."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees)) / np.sqrt(3)
    third = (1 - cos) / 3
    matrix = [
        [cos + third, third + sin, third - sin],
        [third - sin, cos + third, third + sin],
        [third + sin, third - sin, cos + third],
    ]
    return np.array(matrix, np.float32)


# --- Drawing --------------------------------------------------------------------------------------


def overlap(
    shape: Sequence[int], patch: np.ndarray, x: int, y: int
) -> tuple[slice, slice, np.ndarray]:
    """Rows and columns of an image under a patch at (x, y), and the part of the patch inside it.

    Args:
        shape: height and width of the image; more numbers are ignored.
        patch: h×w×C.
        x, y: column and row of the patch's upper left corner, which may be outside the image.
    """
    height, width = shape[:2]
    top, left = max(y, 0), max(x, 0)
    rows = slice(top, max(min(y + patch.shape[0], height), top))
    columns = slice(left, max(min(x + patch.shape[1], width), left))
    return rows, columns, patch[top - y : rows.stop - y, left - x : columns.stop - x]


def darken(pixels: np.ndarray, alpha: np.ndarray, x: int, y: int, blur: float, by: float) -> None:
    """Darken an image, in place, under a blurred alpha channel.

    Args:
        pixels: H×W×3.
        alpha: h×w in [0, 1].
        x, y: column and row of the channel's upper left corner.
        blur: standard deviation of the blur, in pixels.
        by: fraction of the light that is lost where the blurred channel is 1.
    """
    border = int(3 * blur) + 1
    padded = Image.fromarray(np.pad(np.uint8(255 * alpha), border))
    soft = np.asarray(padded.filter(ImageFilter.GaussianBlur(blur)), np.float32) / 255
    rows, columns, part = overlap(pixels.shape, soft[..., None], x - border, y - border)
    pixels[rows, columns] *= 1 - by * part


def develop(rng: Rng, pixels: np.ndarray, light: float) -> np.ndarray:
    """Add the effects of light and camera: light that falls off to one side, blur, and noise.

    Args:
        rng: random generator.
        pixels: H×W×3, about 0 to 1.
        light: direction of the light, in radians.

    Returns:
        The image, H×W×3, uint8.
    """
    height, width = pixels.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : 1j * height, -1 : 1 : 1j * width]
    falling = columns * np.cos(light) + rows * np.sin(light)
    pixels = pixels * (1 + rng.uniform(0, 0.15) * falling[..., None])
    if rng.random() < 0.4:
        image = Image.fromarray(np.uint8(255 * np.clip(pixels, 0, 1)))
        blur = rng.uniform(0.2, 0.7) * max(min(height, width) / 240, 1)
        pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), np.float32) / 255
    pixels = pixels + rng.normal(0, rng.uniform(0, 0.015), pixels.shape)
    return np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


# --- COCO's format --------------------------------------------------------------------------------


def write_split(
    folder: Path,
    split: str,
    scenes: Iterable[Scene],
    first: int,
    categories: Sequence[Category],
    about: dict[str, Any],
) -> None:
    """Write the images to ``folder/split`` and their annotations to ``folder/annotations``.

    Args:
        folder: folder of the data set.
        split: name of the split.
        scenes: scenes, whose ids count from `first`.
        first: id of the first scene.
        categories: all categories of the data set.
        about: the fields ``info`` and ``licenses`` of the annotation file.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (folder / split).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    for image_id, made in enumerate(scenes, first):
        file = f"{image_id:012d}.jpg"
        Image.fromarray(made.image).save(folder / split / file, quality=90, optimize=True)
        images.append(
            {
                "id": image_id,
                "file_name": file,
                "height": made.image.shape[0],
                "width": made.image.shape[1],
                "license": made.license,
                "background": made.background,
            }
        )
        for number, thing in enumerate(made.objects, 1):
            annotations.append(_annotation(thing, 10 * image_id + number, image_id))
    content = about | {
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": category.id, "name": category.name, "supercategory": category.supercategory}
            for category in categories
        ],
    }
    path = folder / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def _annotation(thing: Object, id: int, image: int) -> dict[str, Any]:
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(thing.mask, np.uint8))
    return {
        "id": id,
        "image_id": image,
        "category_id": thing.category.id,
        "iscrowd": int(thing.crowd),
        "area": int(coco_mask.area(encoded)),
        "bbox": coco_mask.toBbox(encoded).tolist(),
        "segmentation": run_lengths(thing.mask) if thing.crowd else polygons(thing.mask),
    }
