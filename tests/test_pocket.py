"""Pocket COCO: the format is COCO's, the masks are exact, and the build is repeatable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from vislib.data import pocket
from vislib.data.coco import imagenet_targets
from vislib.data.compose import Scene
from vislib.data.segmentation import polygons
from vislib.errors import InputError
from vislib.paths import DATA

FOLDER = DATA / "pocket_coco"


@pytest.fixture(scope="module", params=["val", "gallery"])
def split(request: pytest.FixtureRequest) -> tuple[COCO, Path]:
    return COCO(str(FOLDER / "annotations" / f"instances_{request.param}.json")), (
        FOLDER / request.param
    )


@pytest.fixture(scope="module")
def plans() -> list[pocket.Plan]:
    """New plans of many sizes, with crowds among them."""
    made = []
    for index in range(16):
        rng = np.random.default_rng([99, index])
        height, width = rng.integers(160, 260, 2)
        chosen = [pocket.CATEGORIES[i] for i in rng.permutation(len(pocket.CATEGORIES))[:4]]
        crowd = chosen.pop() if index % 3 == 0 else None
        made.append(
            pocket.plan(
                rng,
                int(height),
                int(width),
                categories=chosen,
                crowd=crowd,
                scale=(0.3, 0.6),
                plausible=index % 2 == 0,
            )
        )
    return made


@pytest.fixture(scope="module")
def scenes(plans: list[pocket.Plan]) -> list[Scene]:
    return [pocket.draw(one) for one in plans]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


# --- The shipped splits ---------------------------------------------------------------------------


def test_images_exist_and_have_the_annotated_sizes(split: tuple[COCO, Path]) -> None:
    coco, folder = split
    images = coco.loadImgs(coco.getImgIds())
    assert {image["file_name"] for image in images} == {path.name for path in folder.iterdir()}
    licenses = {one["id"] for one in coco.dataset["licenses"]}
    for image in images:
        with Image.open(folder / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
            assert opened.mode == "RGB"
        assert 240 <= min(image["width"], image["height"]) <= 480
        assert image["license"] in licenses


def test_every_annotation_agrees_with_its_mask(split: tuple[COCO, Path]) -> None:
    coco, _ = split
    for one in coco.anns.values():
        mask = coco.annToMask(one)
        rows, columns = np.nonzero(mask)
        assert one["area"] == pytest.approx(int(mask.sum()), rel=0.04)
        left, top, width, height = one["bbox"]
        assert left - 1.5 <= columns.min() and columns.max() <= left + width + 0.5
        assert top - 1.5 <= rows.min() and rows.max() <= top + height + 0.5
        assert isinstance(one["segmentation"], dict if one["iscrowd"] else list)


def test_objects_of_an_image_differ_and_do_not_overlap(split: tuple[COCO, Path]) -> None:
    coco, _ = split
    for image in coco.getImgIds():
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image]))
        assert 1 <= len(annotations) <= 4
        assert len({one["category_id"] for one in annotations}) == len(annotations)
        total = np.sum([coco.annToMask(one) for one in annotations], axis=0)
        assert (total > 1).sum() <= 0.03 * (total > 0).sum()  # shared borders of polygons


def test_every_object_covers_five_percent_of_its_image(split: tuple[COCO, Path]) -> None:
    coco, _ = split
    sizes = {image["id"]: image["height"] * image["width"] for image in coco.imgs.values()}
    for one in coco.anns.values():
        assert one["iscrowd"] or one["area"] >= 0.049 * sizes[one["image_id"]]


def test_enough_images_of_every_category() -> None:
    coco = COCO(str(FOLDER / "annotations" / "instances_val.json"))
    images = {
        name: len({one["image_id"] for one in coco.loadAnns(coco.getAnnIds(catIds=[number]))})
        for number, name in ((one["id"], one["name"]) for one in coco.cats.values())
    }
    assert min(images.values()) >= 10, images
    assert all(images[name] >= 30 for name in pocket.STUDIED), images
    assert sum(one["iscrowd"] for one in coco.anns.values()) >= 10


# --- Objects and backgrounds ----------------------------------------------------------------------


def test_categories_are_of_coco_and_most_are_in_imagenet() -> None:
    known = imagenet_targets()
    assert len(pocket.CATEGORIES) >= 18
    assert sum(name in known for name in pocket.NAMES) >= 0.8 * len(pocket.NAMES)
    assert set(pocket.STUDIED) <= set(pocket.NAMES) & set(known)


def test_every_object_has_an_origin_a_licence_and_a_file() -> None:
    table = json.loads((FOLDER / "objects.json").read_text(encoding="utf-8"))
    files = {path.relative_to(FOLDER).as_posix() for path in (FOLDER / "objects").rglob("*.*")}
    assert {one["file"] for one in table["objects"]} == files
    for one in table["objects"]:
        assert one["origin"] and one["licence"] and one["category"] in (*pocket.NAMES, "distractor")
        with Image.open(FOLDER / one["file"]) as image:
            assert max(image.size) <= 320 and image.mode in ("RGBA", "LA")
            alpha = np.asarray(image.convert("RGBA"))[..., 3]
        assert (alpha > 127).mean() > 0.1 and (alpha < 128).any()


def test_one_object_of_three_is_held_out_of_training() -> None:
    for name in pocket.NAMES:
        held_out = [one.held_out for one in pocket.cutouts(name)]
        assert sum(held_out) == (1 if len(held_out) >= 3 else 0), name


def test_every_background_loads() -> None:
    licenses = {one["id"] for one in pocket.LICENSES}
    names = {path.stem for path in (FOLDER / "backgrounds").iterdir()}
    assert {one.name for one in pocket.backgrounds()} == names
    for one in pocket.backgrounds():
        assert 0 <= one.floor[0] < one.floor[1] <= 1 and one.license in licenses
        assert min(pocket._pixels(f"backgrounds/{one.name}.jpg", "RGB").size) >= 240


def test_every_category_has_a_plausible_background() -> None:
    kinds = {one.kind for one in pocket.backgrounds()}
    for category in pocket.CATEGORIES:
        assert set(category.kinds) & kinds, category.name


# --- Plans and drawings ---------------------------------------------------------------------------


def test_polygons_agree_with_the_alpha_mask(scenes: list[Scene]) -> None:
    things = [thing for scene in scenes for thing in scene.objects]
    assert len(things) > 30
    for thing in things:
        encoded = coco_mask.frPyObjects(polygons(thing.mask), *thing.mask.shape)
        drawn = coco_mask.decode(coco_mask.merge(encoded)).astype(bool)
        assert iou(drawn, thing.mask) >= 0.95


def test_objects_on_the_floor_stand_with_their_feet_in_it(plans: list[pocket.Plan]) -> None:
    standing = [(one, item) for one in plans for item in one.items if item.shadow == "floor"]
    assert len(standing) > 10
    for made, item in standing:
        bottom = item.y + item.patch.shape[0]
        assert 0 < bottom <= made.height + 0.3 * item.patch.shape[0]
        assert made.background.kind != "sky"


def test_the_scene_without_an_object_differs_only_there(plans: list[pocket.Plan]) -> None:
    """Outside the object and its shadow, the scene is the same to the last bit of its noise."""
    for made in plans[:6]:
        quiet = pocket.draw(made)
        without = pocket.draw(made, without=[len(made.items) - 1])
        item, mask = made.items[-1], made.visible()[-1]
        reach = round(0.3 * max(item.patch.shape)) + 4
        rows, columns = np.nonzero(mask)
        near = np.zeros_like(mask)
        near[
            max(rows.min() - reach, 0) : rows.max() + reach,
            max(columns.min() - reach, 0) : columns.max() + reach,
        ] = True
        changed = (quiet.image != without.image).any(-1)
        assert not (changed & ~near).any()
        assert changed[mask].mean() > 0.9
        assert len(without.objects) == len(quiet.objects) - (
            item.category.id > 0 and not item.crowd
        )


def test_an_object_in_front_hides_what_is_behind(plans: list[pocket.Plan]) -> None:
    for made in plans:
        masks = made.visible()
        assert np.sum(masks, axis=0).max() <= 1
        whole = np.logical_or.reduce([item.covers(made.height, made.width) for item in made.items])
        assert np.array_equal(np.logical_or.reduce(masks), whole)


def test_two_builds_are_equal(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pocket.build(tmp_path / name, images=4, gallery=[1])
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 4 + 1 + 2
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_the_shipped_split_is_what_the_generator_makes(tmp_path: Path) -> None:
    """Annotations of the first scenes; their bytes as JPEG may differ between versions of it."""
    pocket.build(tmp_path, images=3, gallery=[])
    made, shipped = (
        json.loads((folder / "annotations" / "instances_val.json").read_text(encoding="utf-8"))
        for folder in (tmp_path, FOLDER)
    )
    assert made["images"] == shipped["images"][:3]
    assert made["annotations"] == shipped["annotations"][: len(made["annotations"])]


# --- Streams --------------------------------------------------------------------------------------


def test_training_scenes_are_a_function_of_the_seed() -> None:
    images, labels = pocket.training_scenes(6, seed=5)
    again, _ = pocket.training_scenes(3, seed=5)
    other, _ = pocket.training_scenes(3, seed=6)
    assert images.shape == (6, 128, 128, 3) and images.dtype == np.uint8
    assert labels.shape == (6, len(pocket.NAMES)) and set(np.unique(labels)) <= {0, 1}
    assert (labels.sum(1) >= 1).all()
    assert np.array_equal(images[:3], again)
    assert not np.array_equal(again, other)


def test_no_training_scene_shows_an_object_that_is_held_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = []
    original = pocket._patch

    def patch(rng, scene, category, file, side):
        files.append(file)
        return original(rng, scene, category, file, side)

    monkeypatch.setattr(pocket, "_patch", patch)
    held_out = {one.file for name in pocket.NAMES for one in pocket.cutouts(name) if one.held_out}
    pocket.training_scenes(40, 64)
    assert len(set(files)) > 30 and not set(files) & held_out
    files.clear()
    _, labels = pocket.training_scenes(10, 64, objects="held out")
    shown = {file for file in files if "distractor" not in file}
    assert shown and shown <= held_out and (labels.sum(1) == 1).all()


def test_a_plan_refuses_a_tiny_image() -> None:
    with pytest.raises(ValueError, match=r"at least 32×32 pixels, got 10×200"):
        pocket.plan(np.random.default_rng(0), 10, 200, categories=pocket.CATEGORIES[:1])


def test_a_missing_object_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pocket, "FOLDER", tmp_path)
    pocket._pixels.cache_clear()
    with pytest.raises(InputError, match="incomplete: copy it again"):
        pocket.plan(np.random.default_rng(0), 64, 64, categories=pocket.CATEGORIES[:1])
    pocket._pixels.cache_clear()
