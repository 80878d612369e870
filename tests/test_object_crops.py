"""Squares around the objects of a split, cut out of its images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vislib.data.coco import Coco
from vislib.data.objects import object_crops
from vislib.errors import InputError
from vislib.paths import DATA


@pytest.fixture(scope="module")
def gallery() -> Coco:
    return Coco(DATA / "emoji_coco", "gallery")


def test_a_crop_holds_the_whole_object(gallery: Coco) -> None:
    crops = object_crops(gallery, 64)
    count = sum(len(gallery.objects(i)) for i in range(1001, 1013))
    assert crops.images.shape == (count, 3, 64, 64)
    assert crops.images.min() >= 0 and crops.images.max() <= 1
    for label, scene in zip(crops.labels.tolist(), crops.scenes.tolist(), strict=True):
        assert crops.names[label] in gallery.objects(scene)
    few = object_crops(gallery, 64, per_category=1, categories=["zebra", "dog"])
    assert few.names == ("zebra", "dog") and few.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "box", [(0, 20, 0, 10), (90, 100, 50, 60), (0, 100, 0, 60), (40, 44, 3, 9)]
)
def test_a_crop_contains_all_of_a_rectangle(tmp_path: Path, box: tuple[int, ...]) -> None:
    """The square around a white rectangle in a black 100×60 image contains all of it."""
    top, bottom, left, right = box
    pixels = np.zeros((100, 60, 3), np.uint8)
    pixels[top:bottom, left:right] = 255
    (tmp_path / "val").mkdir()
    (tmp_path / "annotations").mkdir()
    Image.fromarray(pixels).save(tmp_path / "val" / "1.png")
    corners = [left, top, right, top, right, bottom, left, bottom]
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": 100, "width": 60, "license": 1}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "segmentation": [corners]}
        ],
        "categories": [{"id": 7, "name": "box"}, {"id": 8, "name": "nowhere"}],
        "licenses": [],
    }
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    longest = max(bottom - top, right - left)
    length = min(round(1.3 * longest), 60)
    crops = object_crops(Coco(tmp_path, "val"), length)
    assert crops.names == ("box",) and crops.images.shape == (1, 3, length, length)
    inside = min(bottom - top, length) * (right - left)
    assert crops.images[0, 0].sum() == inside
    with pytest.raises(ValueError, match="no image of the categories nowhere"):
        object_crops(Coco(tmp_path, "val"), 8, categories=["nowhere"])
    with pytest.raises(InputError, match="boxx"):
        object_crops(Coco(tmp_path, "val"), 8, categories=["boxx"])
