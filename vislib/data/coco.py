"""Images and object masks in COCO's layout: reading, downloading, matching ImageNet classes.

COCO (Lin et al. 2014, "Microsoft COCO: Common Objects in Context",
https://arxiv.org/abs/1405.0312) has a segmentation of every object of 80 categories: polygons or,
mostly for crowds, a run-length encoding (RLE) of the mask. A data set has these files:

    FOLDER/annotations/instances_SPLIT.json
    FOLDER/SPLIT/000000000009.jpg …

Pocket COCO and the photographs, which ship with the course, have the same layout.

When `Coco` opens the annotation file, it checks the JSON, the lists and their ids. A fault of one
image (in its file, size or segmentations) raises an `InputError` only when this image is used, so
that one bad image does not stop a long run at its start.
"""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import math
import shutil
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vislib.data import CATEGORIES
from vislib.data.download import Unreachable, download
from vislib.data.images import MAX_PIXELS, decode, load_pil, read_encoded
from vislib.errors import InputError, nearest
from vislib.paths import at_home

if TYPE_CHECKING:
    import requests

# fmt: off
NAMES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote",
    "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
    "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on
"""COCO's 80 category names, in COCO's order."""

SPLITS = ("train2017", "val2017")
"""The splits that `fetch` offers."""

# COCO's own host. Its certificate is for another name, so https fails.
COCO_URL = "http://images.cocodataset.org"
ZIP_NAME = "annotations_trainval2017.zip"

_REQUIRED = {
    "images": ("id",),
    "annotations": ("id", "image_id", "category_id"),
    "categories": ("id", "name"),
    "licenses": ("id",),
}
# The exceptions that `zipfile` raises for a damaged file.
_ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
)


# --- Reading --------------------------------------------------------------------------------------


class Coco:
    """One split of a data set in COCO's layout.

    Annotations of crowds (``iscrowd: 1``) segment a group of objects and are ignored everywhere.

    Attributes:
        folder: folder of the data set.
        split: name of the split.
        file: path of the annotation file.
        categories: category name → id, in the order of the ids.

    >>> from vislib.paths import DATA
    >>> coco = Coco(DATA / "emoji_coco", "gallery")
    >>> "zebra" in coco.objects(1008)
    True
    >>> coco.mask(1008, "zebra").shape == coco.size(1008)
    True
    """

    def __init__(self, folder: str | Path, split: str) -> None:
        """Open ``FOLDER/annotations/instances_SPLIT.json``.

        Args:
            folder: folder of the data set; ``~`` is the home folder.
            split: name of the split: ``val2017``, for example, or ``val`` and ``gallery`` of Pocket
                COCO.

        Raises:
            InputError: the folder or the annotation file is missing, or the file is not valid
                JSON, or lacks the lists and ids of COCO's format.
        """
        from pycocotools.coco import COCO

        self.folder = at_home(folder)
        self.split = split
        self.file = _annotation_file(self.folder, split)
        self._coco = COCO()
        self._coco.dataset = _read_annotations(self.file)
        # pycocotools prints its progress.
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco.createIndex()
        by_id = sorted(self._coco.cats.items())
        self.categories: dict[str, int] = {entry["name"]: number for number, entry in by_id}

    def images_with(self, category: str, *, present_only: bool = False) -> list[int]:
        """Return the sorted ids of the images that show at least one object of the category.

        Args:
            category: one of `categories`.
            present_only: whether to leave out images without a file on disk, because the annotation
                file still lists all of COCO after `fetch`. The first N present images of a fetched
                category are its first N images, even if other categories were fetched as well.

        Raises:
            InputError: the category is unknown.
        """
        number = self._category_id(category)
        ids = sorted(
            image_id
            for image_id in self._coco.imgToAnns
            if any(a["category_id"] == number for a in self._objects_of(image_id))
        )
        return [i for i in ids if self._may_be_present(i)] if present_only else ids

    def image_ids(self) -> list[int]:
        """Return the sorted ids of all images that show an object of any category."""
        return sorted({i for name in self.categories for i in self.images_with(name)})

    def objects(self, image_id: int) -> list[str]:
        """Return the names of the categories that the image shows, in the order of their ids.

        Raises:
            InputError: the image is not listed.
        """
        self._entry(image_id)
        numbers = {a["category_id"] for a in self._objects_of(image_id)}
        return [name for name, number in self.categories.items() if number in numbers]

    def path(self, image_id: int) -> Path:
        """Return the path of the image's file, present or not, always inside ``FOLDER/SPLIT``.

        Raises:
            InputError: the image is not listed, or its ``file_name`` is missing or leads out of
                the folder.
        """
        name = self._entry(image_id).get("file_name")
        if not isinstance(name, str) or not name or "\0" in name or not _is_text(name):
            raise InputError(f"{self.file}: image {image_id} has no usable file_name: {name!r}")
        # A Windows path splits at both separators, on every system.
        parts = PureWindowsPath(name)
        if parts.anchor or ".." in parts.parts:
            raise InputError(
                f"{self.file}: image {image_id} has file_name {name!r}, which leads out of "
                f"{self.folder / self.split}; it must be a path inside that folder"
            )
        return self.folder.joinpath(self.split, *parts.parts)

    def image(self, image_id: int, encoded: bytes | None = None) -> Image.Image:
        """Load an image as 8-bit RGB in its stored pixel grid, to which the masks refer.

        Args:
            image_id: id of the image in the annotation file.
            encoded: content of the image's file if `image_bytes` has read it already; by default
                this method reads the file.

        Returns:
            The image in mode ``RGB``, of the size in the annotation file.

        Raises:
            InputError: the image is not listed, its file is missing or damaged, or its size
                differs from the annotation file.
        """
        return self._load(image_id, self.path(image_id), encoded)

    def image_bytes(self, image_id: int) -> bytes:
        """Return the content of the image's file, not yet decoded, for a digest and `image`.

        Raises:
            InputError: the image is not listed, or its file is missing, empty or may not be read.
        """
        return read_encoded(self.path(image_id))

    def size(self, image_id: int) -> tuple[int, int]:
        """Return (height, width) in pixels, from the annotation file.

        Raises:
            InputError: the image is not listed, or its size is missing, not positive, or larger
                than `MAX_PIXELS`.
        """
        entry = self._entry(image_id)
        height, width = entry.get("height"), entry.get("width")
        if not (type(height) is int and type(width) is int and min(height, width) > 0):
            raise InputError(
                f"{self.file}: image {image_id} has height {height!r} and width {width!r}; "
                "both must be positive whole numbers"
            )
        if height * width > MAX_PIXELS:
            raise InputError(
                f"{self.file}: image {image_id} has {height}×{width} pixels, more than the limit "
                f"of {MAX_PIXELS // 1_000_000} million"
            )
        return height, width

    def mask(self, image_id: int, category: str) -> np.ndarray:
        """Return the mask of the category's objects: the union of their segmentations.

        Returns:
            Boolean, H×W, true on the objects; drawn by pycocotools.

        Raises:
            InputError: the image has no object of the category, or a segmentation is missing,
                malformed, outside the image or empty.
        """
        number = self._category_id(category)
        mask = np.zeros(self.size(image_id), dtype=bool)
        annotations = [a for a in self._objects_of(image_id) if a["category_id"] == number]
        if not annotations:
            present = ", ".join(self.objects(image_id)) or "no object at all"
            raise InputError(
                f"{self.file}: image {image_id} shows no {category!r}; it has {present}"
            )
        for annotation in annotations:
            where = f"{self.file}: annotation {annotation['id']} of image {image_id}"
            _check_segmentation(annotation.get("segmentation"), *mask.shape, where)
            mask |= self._coco.annToMask(annotation).astype(bool)
        if not mask.any():
            raise InputError(
                f"{self.file}: the {category!r} of image {image_id} covers no pixel; its "
                "segmentation is too small or on the border: leave the image out"
            )
        return mask

    def boxes(self, image_id: int, category: str) -> list[tuple[float, float, float, float]]:
        """Return the bounding box (x, y, width, height) of each object of the category, in pixels.

        The list is empty if the image does not show the category.

        Raises:
            InputError: the image is not listed, or an object has no box of four numbers.
        """
        number = self._category_id(category)
        self._entry(image_id)
        boxes = []
        for annotation in self._objects_of(image_id):
            if annotation["category_id"] == number:
                try:
                    x, y, width, height = map(float, annotation["bbox"])
                except (KeyError, TypeError, ValueError):
                    raise InputError(
                        f"{self.file}: annotation {annotation['id']} of image {image_id} has no "
                        f"bbox of four numbers: {annotation.get('bbox')!r}"
                    ) from None
                boxes.append((x, y, width, height))
        return boxes

    def licence(self, image_id: int) -> str:
        """Return the name and address of the image's licence, or ``unknown``."""
        number = self._entry(image_id).get("license")
        for licence in self._coco.dataset["licenses"]:
            if licence["id"] == number:
                return f"{licence.get('name')} ({licence.get('url')})"
        return "unknown"

    def _objects_of(self, image_id: int) -> list[dict[str, Any]]:
        """Return the image's annotations that are not crowds."""
        return [a for a in self._coco.imgToAnns.get(image_id, []) if not a.get("iscrowd")]

    def _category_id(self, name: str) -> int:
        if name not in self.categories:
            raise InputError(
                f"{self.file} has no category {name!r}: {nearest(name, self.categories)}"
            )
        return self.categories[name]

    def _entry(self, image_id: int) -> dict[str, Any]:
        if image_id not in self._coco.imgs:
            annotated = "has annotations but " if image_id in self._coco.imgToAnns else ""
            raise InputError(
                f"{self.file}: image {image_id} {annotated}is not listed under 'images'"
            )
        return self._coco.imgs[image_id]

    def _may_be_present(self, image_id: int) -> bool:
        try:
            return self.path(image_id).is_file()
        except InputError:
            # A broken entry is reported when it is used. Here it would be lost.
            return True

    def _load(self, image_id: int, path: Path, encoded: bytes | None = None) -> Image.Image:
        """Load the image from `path`, and check that it has the size in the annotations."""
        height, width = self.size(image_id)
        if encoded is None:
            image = load_pil(path, upright=False)
        else:
            image = decode(encoded, path, upright=False)
        if image.size != (width, height):
            raise InputError(
                f"{path} is {image.height}×{image.width} pixels, but {self.file.name} says "
                f"{height}×{width} (height×width); the masks would not fit: fetch the image again"
            )
        return image


# --- Downloading ----------------------------------------------------------------------------------


def fetch(
    folder: str | Path,
    *,
    split: str = "val2017",
    categories: Sequence[str] = CATEGORIES,
    per_category: int = 30,
    base_url: str = COCO_URL,
) -> Coco:
    """Download a small part of the real COCO, ready for ``Coco(folder, split)``.

    The function downloads COCO's annotations (one zip of 241 MB for both splits, kept in
    ``FOLDER/annotations``; delete it when you need no other split) and, for each category, the
    first `per_category` images by id that show the category, or all if there are fewer. The
    annotation file is not shortened and still lists all of COCO.

    Every file is checked, and gets its name only when it is complete. After an interruption, the
    same call continues: complete files are not downloaded again, and a partial file is resumed if
    the server supports this.

    Args:
        folder: folder of the data set; it is created if it is missing.
        split: one of `SPLITS`.
        categories: some of `NAMES`.
        per_category: images per category, at least 1.
        base_url: host to download from.

    Returns:
        The opened data set.

    Raises:
        InputError: the split or a category is unknown; the host does not answer; some images could
            not be downloaded or were damaged (raised at the end, when all others are on disk).
    """
    import requests

    if split not in SPLITS:
        raise InputError(f"there is no split {split!r} to fetch: {nearest(split, SPLITS)}")
    for name in categories:
        if name not in NAMES:
            raise InputError(f"COCO has no category {name!r}: {nearest(name, NAMES)}")
    if per_category < 1:
        raise InputError(f"per_category must be at least 1, got {per_category}")

    folder = at_home(folder)
    with requests.Session() as session:
        _fetch_annotations(session, folder, split, base_url)
        try:
            coco = Coco(folder, split)
        except InputError as error:
            raise InputError(f"{error}: delete the file and run the same command again") from error
        ids = sorted({i for name in categories for i in coco.images_with(name)[:per_category]})
        failures = _fetch_images(session, coco, ids, base_url)
    if failures:
        raise InputError(
            f"{len(failures)} of {len(ids)} images could not be fetched, the others are in "
            f"{folder / split}; the same command tries again:{''.join(failures[:10])}"
        )
    return coco


def _fetch_images(
    session: requests.Session, coco: Coco, ids: Sequence[int], base_url: str
) -> list[str]:
    """Download the images that are not yet on disk, and return one line for each failure."""
    from tqdm.auto import tqdm

    failures = []
    for image_id in tqdm(ids, desc=f"{coco.split} images", unit="image"):
        try:
            path = coco.path(image_id)
            if not _is_complete(coco, image_id, path):
                name = path.relative_to(coco.folder / coco.split).as_posix()
                address = f"{base_url}/{coco.split}/{name}"
                download(session, address, path, partial(coco._load, image_id))
        except Unreachable:
            raise
        except InputError as error:
            failures.append(f"\n  {error}")
    return failures


def _fetch_annotations(session: requests.Session, folder: Path, split: str, base_url: str) -> None:
    """Download and unpack the annotation file of the split unless it is on disk."""
    target = folder / "annotations" / f"instances_{split}.json"
    if target.is_file():
        return
    archive = target.with_name(ZIP_NAME)
    if not archive.is_file():
        address = f"{base_url}/annotations/{ZIP_NAME}"
        download(session, address, archive, _check_zip, show_progress=True)
    part = target.with_name(target.name + ".part")
    try:
        with (
            zipfile.ZipFile(archive) as zipped,
            zipped.open(f"annotations/{target.name}") as member,
            part.open("wb") as out,
        ):
            shutil.copyfileobj(member, out)
    except (*_ZIP_DAMAGE, KeyError) as error:
        part.unlink(missing_ok=True)
        raise InputError(f"{archive} is damaged ({error}); delete it and fetch again") from error
    part.replace(target)


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as zipped:
            damaged = zipped.testzip()
    except (*_ZIP_DAMAGE, OSError) as error:
        damaged = str(error)
    if damaged:
        raise InputError(f"{path.name} is damaged ({damaged})")


def _is_complete(coco: Coco, image_id: int, path: Path) -> bool:
    try:
        coco._load(image_id, path)
    except InputError:
        return False
    return True


# --- ImageNet's classes ---------------------------------------------------------------------------


def imagenet_targets(path: str | Path | None = None) -> dict[str, tuple[int, ...]]:
    """Return the ImageNet classes of each category.

    Categories without a matching class, such as person or giraffe, are left out.

    Args:
        path: JSON file of the form ``{"airplane": [404, 895], …}``, in which keys that start
            with ``_`` are comments; by default the table of COCO's categories that ships with the
            course. The table of `vislib.data.photographs` has other categories, too.

    Returns:
        Category name → class indices, 0 to 999, in torchvision's order.

    Raises:
        InputError: the file is missing or does not have this form.

    >>> imagenet_targets()["airplane"]  # airliner and warplane
    (404, 895)
    """
    file = at_home(path) if path else Path(__file__).with_name("imagenet_classes.json")
    if not file.is_file():
        raise InputError(f"there is no class table {file}; check the path")
    targets = {}
    for name, classes in _read_json(file).items():
        if name.startswith("_"):
            continue
        if not isinstance(classes, list) or not classes:
            raise InputError(f"{file}: {name!r} needs a list of class indices; or leave it out")
        for index in classes:
            if type(index) is not int or not 0 <= index <= 999:
                raise InputError(
                    f"{file}: {name!r} has {index!r}; ImageNet's class indices are the whole "
                    "numbers from 0 to 999"
                )
        targets[name] = tuple(classes)
    if not targets:
        raise InputError(f"{file} contains no category; at least one is needed")
    return targets


# --- The annotation file --------------------------------------------------------------------------


def _annotation_file(folder: Path, split: str) -> Path:
    """Path of the annotation file, or an `InputError` that shows the expected layout."""
    file = folder / "annotations" / f"instances_{split}.json"
    if file.is_file():
        return file
    missing = f"there is no file {file}" if folder.is_dir() else f"there is no folder {folder}"
    others = sorted(f.stem.removeprefix("instances_") for f in file.parent.glob("instances_*.json"))
    available = f" This folder has the splits: {', '.join(others)}." if others else ""
    raise InputError(
        f"{missing}.{available} COCO's layout is FOLDER/annotations/instances_SPLIT.json with the "
        "images in FOLDER/SPLIT/. `vislib fetch coco` downloads a part of COCO; Pocket COCO and "
        "photographs ship with the course."
    )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:  # Invalid JSON or UTF-8, or nesting too deep.
        raise InputError(f"{file} is damaged or cut short ({error}); get it again") from error
    if not isinstance(data, dict):
        raise InputError(f"{file} must contain a JSON object, got a {type(data).__name__}")
    return data


def _read_annotations(file: Path) -> dict[str, Any]:
    """Read an annotation file and check its lists and ids, on which pycocotools relies."""
    data = _read_json(file)
    # Many data sets in this format have no licences.
    if data.get("licenses") is None:
        data["licenses"] = []
    for part, keys in _REQUIRED.items():
        if not isinstance(data.get(part), list):
            raise InputError(
                f"{file} has no list {part!r}; an annotation file in COCO's format for object "
                "instances has images, annotations and categories"
            )
        for position, entry in enumerate(data[part]):
            for key in keys:
                value = entry.get(key) if isinstance(entry, dict) else None
                valid = type(value) is str if key == "name" else _is_id(value)
                if not valid:
                    problem = "lacks" if value is None else f"has {value!r} as"
                    raise InputError(f"{file}: entry {position} of {part!r} {problem} its {key!r}")
        counts = Counter(entry["id"] for entry in data[part])
        repeated = [number for number, count in counts.items() if count > 1]
        if repeated and part != "licenses":
            raise InputError(
                f"{file}: several entries of {part!r} have the id {repeated[0]}; "
                "the ids must be unique"
            )
    names = [category["name"] for category in data["categories"]]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{file} has several categories with the name {name!r}")
    numbers = {category["id"] for category in data["categories"]}
    # Without these checks, an object would silently be left out.
    for annotation in data["annotations"]:
        where, number = f"{file}: annotation {annotation['id']}", annotation["category_id"]
        if number not in numbers:
            raise InputError(f"{where} has category_id {number}, not listed under 'categories'")
        if annotation.get("iscrowd") not in (None, 0, 1):
            raise InputError(f"{where} has iscrowd {annotation['iscrowd']!r}; it must be 0 or 1")
    return data


def _is_id(value: Any) -> bool:
    """Whether a value is a whole number of 64 bits, which a table can hold."""
    return type(value) is int and -(2**63) <= value < 2**63


def _is_text(name: str) -> bool:
    """Whether a text can be encoded as UTF-8; single surrogates, which JSON allows, cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _check_segmentation(segmentation: Any, height: int, width: int, where: str) -> None:
    """Raise unless pycocotools will draw the segmentation correctly.

    pycocotools does not check its input: it draws two points as a box, and a run-length code of
    the wrong length gives random pixels or ends the process.
    """
    if not segmentation or not isinstance(segmentation, list | dict):
        raise InputError(f"{where} has no segmentation; only objects with a mask can be used")
    if isinstance(segmentation, list):
        for polygon in segmentation:
            _check_polygon(polygon, height, width, where)
        return
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise InputError(f"{where} has a mask of size {size}, but its image is {[height, width]}")
    runs = _decode_runs(counts) if isinstance(counts, str) else counts
    if (
        not isinstance(runs, list)
        or not all(type(run) is int and run >= 0 for run in runs)
        or sum(runs) != height * width
    ):
        raise InputError(
            f"{where} has a damaged run-length code: its runs do not add up to the "
            f"{height * width} pixels of the image"
        )


def _check_polygon(polygon: Any, height: int, width: int, where: str) -> None:
    """Raise unless a polygon is x, y, x, y, … with at least three points in or near the image."""
    if (
        not isinstance(polygon, list)
        or len(polygon) < 6
        or len(polygon) % 2
        or not all(type(c) in (int, float) and abs(c) < math.inf for c in polygon)
    ):
        got = f"of {len(polygon)} numbers" if isinstance(polygon, list) else repr(polygon)
        raise InputError(
            f"{where} has a polygon {got}; it needs x, y pairs of at least three points"
        )
    xs, ys = polygon[0::2], polygon[1::2]
    if max(xs) < 0 or max(ys) < 0 or min(xs) > width or min(ys) > height:
        raise InputError(f"{where} has a polygon wholly outside its {height}×{width} image")
    # Drawing such a polygon would fill the memory.
    if max(map(abs, polygon)) > 10 * max(height, width):
        raise InputError(f"{where} has a polygon that reaches far out of its image")


def _decode_runs(code: str) -> list[int] | None:
    """Decode COCO's compressed run lengths; None if the code is malformed.

    Each number is a sequence of characters, counted from "0". A character contains 5 bits of the
    number, the lowest bits first, and a sixth bit that is 1 if another character follows. Negative
    numbers are in two's complement. From the fourth number on, the code contains the difference
    from the number two positions before.
    """
    runs: list[int] = []
    number = shift = 0
    for character in code:
        group = ord(character) - ord("0")
        if not 0 <= group < 64 or shift > 30:
            return None
        number |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                number -= 1 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    return runs if shift == 0 else None
