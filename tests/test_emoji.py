"""Emoji COCO: the format is COCO's, the masks are exact, the build is repeatable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from vislib.data import compose, emoji, segmentation
from vislib.paths import DATA

FOLDER = DATA / "emoji_coco"
# These are from COCO's instances_val2017.json, independent of the package.
COCO_IDS = {
    5: "airplane", 6: "bus", 7: "train", 9: "boat", 10: "traffic light", 13: "stop sign",
    16: "bird", 17: "cat", 18: "dog", 22: "elephant", 24: "zebra", 28: "umbrella", 52: "banana",
    59: "pizza", 85: "clock", 88: "teddy bear",
}  # fmt: skip


@pytest.fixture(scope="module", params=["val", "gallery"])
def split(request: pytest.FixtureRequest) -> tuple[COCO, Path]:
    return COCO(str(FOLDER / "annotations" / f"instances_{request.param}.json")), (
        FOLDER / request.param
    )


@pytest.fixture(scope="module")
def scenes() -> list[compose.Scene]:
    """Fresh scenes of many sizes, crowded ones among them."""
    made = []
    for index in range(16):
        rng = np.random.default_rng([99, index])
        height, width = rng.integers(240, 400, 2)
        chosen = [emoji.CATEGORIES[i] for i in rng.permutation(16)[:4]]
        crowd = chosen.pop() if index % 3 == 0 else None
        made.append(
            emoji.scene(rng, int(height), int(width), categories=chosen, crowd=crowd, visible=0.5)
        )
    return made


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_categories_are_cocos(split: tuple[COCO, Path]) -> None:
    coco, _ = split
    assert {one["id"]: one["name"] for one in coco.loadCats(coco.getCatIds())} == COCO_IDS


def test_images_exist_and_have_the_annotated_sizes(split: tuple[COCO, Path]) -> None:
    coco, folder = split
    images = coco.loadImgs(coco.getImgIds())
    assert {image["file_name"] for image in images} == {path.name for path in folder.iterdir()}
    for image in images:
        with Image.open(folder / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
            assert opened.mode == "RGB"
        assert 240 <= min(image["width"], image["height"]) <= 480
    assert len({(image["width"], image["height"]) for image in images}) > 0.5 * len(images)


def test_every_annotation_agrees_with_its_mask(split: tuple[COCO, Path]) -> None:
    coco, _ = split
    for one in coco.anns.values():
        mask = coco.annToMask(one)
        rows, columns = np.nonzero(mask)
        assert one["area"] == pytest.approx(int(mask.sum()), rel=0.03)
        left, top, width, height = one["bbox"]
        assert left - 1.5 <= columns.min() and columns.max() <= left + width + 0.5
        assert top - 1.5 <= rows.min() and rows.max() <= top + height + 0.5
        assert isinstance(one["segmentation"], dict if one["iscrowd"] else list)


def test_objects_of_an_image_differ_and_do_not_overlap(split: tuple[COCO, Path]) -> None:
    coco, _ = split
    for image in coco.getImgIds():
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image]))
        assert 1 <= len(annotations) <= 5
        assert len({one["category_id"] for one in annotations}) == len(annotations)
        total = np.sum([coco.annToMask(one) for one in annotations], axis=0)
        assert (total > 1).sum() <= 0.03 * (total > 0).sum()  # shared borders of polygons


def test_enough_images_of_every_category() -> None:
    coco = COCO(str(FOLDER / "annotations" / "instances_val.json"))
    for category in coco.getCatIds():
        single = coco.loadAnns(coco.getAnnIds(catIds=[category], iscrowd=False))
        assert len({one["image_id"] for one in single}) >= 30
    assert sum(one["iscrowd"] for one in coco.anns.values()) >= 20


def test_polygons_agree_with_the_alpha_mask(scenes: list[compose.Scene]) -> None:
    things = [thing for scene in scenes for thing in scene.objects]
    assert len(things) > 40
    for thing in things:
        encoded = coco_mask.frPyObjects(segmentation.polygons(thing.mask), *thing.mask.shape)
        drawn = coco_mask.decode(coco_mask.merge(encoded)).astype(bool)
        assert iou(drawn, thing.mask) >= 0.97


@pytest.mark.parametrize("holes", [1, 2])
def test_polygons_leave_holes_open(holes: int) -> None:
    mask = np.zeros((60, 80), bool)
    mask[5:55, 5:75] = True
    mask[20:40, 15:35] = False
    if holes == 2:
        mask[15:30, 50:60] = False
    encoded = coco_mask.frPyObjects(segmentation.polygons(mask), 60, 80)
    assert iou(coco_mask.decode(coco_mask.merge(encoded)).astype(bool), mask) >= 0.97


def test_crowds_decode_to_their_mask(scenes: list[compose.Scene]) -> None:
    crowds = [thing for scene in scenes for thing in scene.objects if thing.crowd]
    assert len(crowds) >= 5
    for thing in crowds:
        encoded = coco_mask.frPyObjects(segmentation.run_lengths(thing.mask), *thing.mask.shape)
        assert np.array_equal(coco_mask.decode(encoded).astype(bool), thing.mask)


@pytest.mark.parametrize("value", [False, True])
def test_run_lengths_of_a_uniform_mask(value: bool) -> None:
    mask = np.full((3, 5), value)
    encoded = coco_mask.frPyObjects(segmentation.run_lengths(mask), 3, 5)
    assert np.array_equal(coco_mask.decode(encoded).astype(bool), mask)


def test_masks_cover_the_pixels_of_the_object() -> None:
    """An added object makes a scene brighter only inside the mask; its shadow makes it darker."""
    plain = emoji.BACKGROUNDS[-1]
    zebra = next(one for one in emoji.CATEGORIES if one.name == "zebra")
    rng = np.random.default_rng(4)
    canvas = emoji._Canvas(emoji._texture(rng, plain, 200, 240).copy(), light=-1)
    before = canvas.pixels.copy()
    emoji._add(rng, canvas, zebra, (0.5, 0.6), 0.9)
    (thing,) = canvas.objects
    lighter = (canvas.pixels > before + 1e-6).any(-1)
    rim = 0.002 * lighter.size  # the soft edge of the alpha channel
    assert (lighter & ~thing.mask).sum() <= rim


def test_two_builds_are_equal(tmp_path: Path) -> None:
    for name in ("a", "b"):
        emoji.build(tmp_path / name, images=8, gallery=[1])
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 8 + 1 + 2
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_the_shipped_split_is_what_the_generator_makes(tmp_path: Path) -> None:
    """Annotations of the first scenes; their bytes as JPEG may differ between versions of it."""
    emoji.build(tmp_path, images=3, gallery=[])
    made, shipped = (
        json.loads((folder / "annotations" / "instances_val.json").read_text(encoding="utf-8"))
        for folder in (tmp_path, FOLDER)
    )
    assert made["images"] == shipped["images"][:3]
    assert made["annotations"] == shipped["annotations"][: len(made["annotations"])]


def test_training_scenes_are_a_function_of_the_seed() -> None:
    images, labels = emoji.training_scenes(6, seed=5)
    again, _ = emoji.training_scenes(3, seed=5)
    other, _ = emoji.training_scenes(3, seed=6)
    assert images.shape == (6, 128, 128, 3) and images.dtype == np.uint8
    assert labels.shape == (6, 16) and set(np.unique(labels)) <= {0, 1}
    assert (labels.sum(1) >= 1).all()
    assert np.array_equal(images[:3], again)
    assert not np.array_equal(again, other)


def test_scene_refuses_a_tiny_image() -> None:
    with pytest.raises(ValueError, match="32×32"):
        emoji.scene(np.random.default_rng(0), 10, 200, categories=emoji.CATEGORIES[:1])


def test_missing_glyphs_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoji, "GLYPHS", tmp_path)
    emoji._glyph.cache_clear()
    with pytest.raises(FileNotFoundError, match="incomplete"):
        emoji.scene(np.random.default_rng(0), 64, 64, categories=emoji.CATEGORIES[:1])


def test_every_background_loads_without_a_network() -> None:
    for background in emoji.BACKGROUNDS:
        assert min(emoji._photograph(background).size) >= 128
