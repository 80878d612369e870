"""Boxes from maps against scikit-image, overlaps against torchvision and pycocotools, and loops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from skimage.measure import label, regionprops
from torchvision.ops import box_iou

from vislib.data.coco import Coco
from vislib.errors import InputError
from vislib.measure.localisation import (
    best_iou,
    bounding_box,
    box,
    iou,
    localisation_error,
    mask_iou,
    region,
)
from vislib.measure.statistics import bootstrap_interval
from vislib.paths import DATA

# ------------------------------------------------------------ from a map to a box


def smooth_map(seed: int, height: int = 40, width: int = 56) -> torch.Tensor:
    """Signed, with several hills."""
    small = torch.randn(1, 1, 6, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, (height, width), mode="bilinear")[0]


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.6, 0.95])
@pytest.mark.parametrize("seed", range(8))
def test_region_and_box_equal_scikit_images(seed: int, threshold: float) -> None:
    values = smooth_map(seed)
    above = values[0].numpy() > threshold * values.max().item()
    parts = regionprops(label(above, connectivity=2))
    largest = max(parts, key=lambda part: part.area)
    top, left, bottom, right = largest.bbox
    assert box(values, threshold) == (left, top, right - left, bottom - top)
    mask = region(values, threshold)
    assert mask.shape == (40, 56) and mask.dtype == bool
    assert np.array_equal(np.argwhere(mask), largest.coords)
    if threshold == 0.2:
        assert len(parts) > 1, "or the choice of the largest is not tested"


def test_box_by_hand() -> None:
    """The maximum alone is one pixel; at 20 % the three others of the first part join it.

    0.2 itself is not above 20 %; the part at the bottom right is higher than most, but smaller.
    """
    cam_map = torch.tensor(
        [
            [0.0, 0.3, 0.2, 0.0, 0.0],
            [0.4, 1.0, 0.1, 0.0, 0.0],
            [-3.0, 0.1, 0.5, 0.0, 0.0],  # touches 1.0 at a corner
            [0.0, 0.0, 0.0, 0.0, 0.9],
        ]
    )
    assert box(cam_map) == box(cam_map[None]) == (0, 0, 3, 3)
    assert box(cam_map, 0.95) == (1, 1, 1, 1)
    assert box(cam_map, 0.35) == (0, 1, 3, 2)


def test_scaling_a_map_leaves_the_box() -> None:
    values = smooth_map(3)
    assert box(values) == box(values * 1e-12) == box(values.double() * 1e12)


@pytest.mark.parametrize("value", [0.0, -2.0])
def test_a_map_that_is_nowhere_positive_has_the_empty_box(value: float) -> None:
    assert box(torch.full((1, 5, 7), value)) == (0, 0, 0, 0)
    assert not region(torch.full((5, 7), value)).any()
    assert iou((0, 0, 0, 0), (0, 0, 7, 5)) == 0


def test_a_constant_positive_map_is_the_whole_image() -> None:
    assert box(torch.full((1, 5, 7), 0.3)) == (0, 0, 7, 5)


def test_the_map_is_left_as_it_was() -> None:
    values = smooth_map(1).requires_grad_()
    before = values.detach().clone()
    box(values)
    assert torch.equal(values, before) and values.grad is None


@pytest.mark.parametrize(
    ("shape", "threshold", "message"),
    [
        ((3, 5, 5), 0.2, r"1×H×W or H×W, got shape \(3, 5, 5\)"),
        ((1, 1, 5, 5), 0.2, r"1×H×W or H×W, got shape \(1, 1, 5, 5\)"),
        ((5, 5), 1.0, "threshold must be a fraction .* got 1.0"),
        ((5, 5), -0.1, "threshold must be a fraction .* got -0.1"),
    ],
)
def test_a_wrong_map_or_threshold(shape: tuple[int, ...], threshold: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        box(torch.ones(shape), threshold)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_map_that_is_not_finite(bad: float) -> None:
    values = torch.ones(4, 4)
    values[1, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        box(values)


# ------------------------------------------------------------ overlaps


@pytest.fixture(scope="module")
def boxes() -> np.ndarray:
    """Whole-number boxes: apart, touching, inside each other, and empty ones."""
    rng = np.random.default_rng(0)
    drawn = np.concatenate([rng.integers(0, 12, (40, 2)), rng.integers(0, 14, (40, 2))], axis=1)
    return np.concatenate([drawn, [[2, 3, 4, 5], [6, 3, 4, 5], [3, 4, 1, 1], [2, 3, 4, 5]]])


def test_iou_equals_torchvisions_and_pycocotools(boxes: np.ndarray) -> None:
    own = np.array([[iou(tuple(a), tuple(b)) for b in boxes] for a in boxes])
    corners = torch.from_numpy(np.c_[boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]).double()
    with np.errstate(invalid="ignore"):
        expected = box_iou(corners, corners).nan_to_num().numpy()  # 0/0 for two empty boxes
    assert np.allclose(own, expected, atol=1e-12)
    full = boxes[(boxes[:, 2:] > 0).all(axis=1)].astype(float)
    kept = [[iou(tuple(a), tuple(b)) for b in full] for a in full]
    assert np.allclose(kept, coco_mask.iou(full, full, [False] * len(full)), atol=1e-12)
    assert (own[-4, -1], own[-4, -3]) == (1, 0) and 0 < own[-4, -2] < 1


def test_iou_is_that_of_the_boxes_drawn_as_masks(boxes: np.ndarray) -> None:
    """Pixel by pixel, which settles that a box ends before x + width."""
    masks = []
    for x, y, width, height in boxes:
        mask = np.zeros((30, 30), dtype=bool)
        mask[y : y + height, x : x + width] = True
        masks.append(mask)
    for a, left in zip(boxes, masks, strict=True):
        for b, right in zip(boxes, masks, strict=True):
            assert iou(tuple(a), tuple(b)) == pytest.approx(mask_iou(left, right), abs=1e-12)


def test_bounding_box_equals_pycocotools() -> None:
    rng = np.random.default_rng(1)
    for share in (0.01, 0.05, 0.5):
        mask = rng.random((23, 31)) < share
        drawn = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert bounding_box(mask) == tuple(coco_mask.toBbox(drawn))


def test_mask_iou_equals_pycocotools() -> None:
    rng = np.random.default_rng(2)
    masks = [rng.random((9, 11)) < share for share in (0.1, 0.4, 0.4, 0.9)]
    runs = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    own = [[mask_iou(a, b) for b in masks] for a in masks]
    assert np.allclose(own, coco_mask.iou(runs, runs, [False] * 4), atol=1e-12)
    nothing = np.zeros((2, 2), bool)
    assert mask_iou(nothing, nothing) == 0


def test_overlaps_refuse_what_is_no_box_or_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"must be at least 0, got \(4, 4, -1, 2\)"):
        iou((0, 0, 2, 2), (4, 4, -1, 2))
    with pytest.raises(ValueError, match="one size"):
        mask_iou(np.ones((2, 3), bool), np.ones((3, 2), bool))


def test_best_iou_takes_the_best_of_several_objects() -> None:
    found = (0, 0, 4, 4)
    assert best_iou(found, [(10, 10, 4, 4), (0, 0, 4, 2), (2, 0, 4, 4)]) == 0.5
    assert best_iou(found, []) == 0


# ------------------------------------------------------------ the error


def test_localisation_error_by_loops() -> None:
    overlaps, images = [0.5, 0.49, 0.9, 0.0, 0.7, 1.0], [1, 1, 2, 3, 3, 4]
    answers = [True, True, False, True, True, True]
    for right in (None, answers):
        wrong = 0
        for i, overlap in enumerate(overlaps):
            named = right is None or right[i]
            wrong += not (named and overlap >= 0.5)
        result = localisation_error(overlaps, images, right=right)
        assert result.error == pytest.approx(wrong / 6)
        assert result.low < result.error < result.high
    assert localisation_error(overlaps, images, at=0.95).error == pytest.approx(5 / 6)


def test_the_interval_resamples_whole_images() -> None:
    rng = np.random.default_rng(3)
    overlaps, images = rng.random(90), np.repeat(np.arange(30), 3)
    result = localisation_error(overlaps, images)
    missed = (overlaps < 0.5).astype(float)
    assert (result.low, result.high) == bootstrap_interval(missed, images)
    same_three = localisation_error(np.repeat(overlaps[::3], 3), images)
    one_each = localisation_error(overlaps[::3], np.arange(30))
    assert same_three == pytest.approx(one_each), "three copies of a case tell no more than one"


def test_lists_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="one length, got 2, 1 and"):
        localisation_error([0.1, 0.2], [1])
    with pytest.raises(ValueError, match="one length, got 1, 1 and 2"):
        localisation_error([0.1], [1], right=[True, False])
    with pytest.raises(ValueError, match="overlaps is empty"):
        localisation_error([], [])


# ------------------------------------------------------------ true boxes of a data set


def test_boxes_are_those_of_the_annotations_without_crowds() -> None:
    coco = Coco(DATA / "emoji_coco", "val")
    for image_id in coco.images_with("zebra")[:12]:
        _, width = coco.size(image_id)
        for category in coco.objects(image_id):
            found = coco.boxes(image_id, category)
            listed = [
                tuple(a["bbox"])
                for a in json.loads(coco.file.read_text(encoding="utf-8"))["annotations"]
                if a["image_id"] == image_id
                and a["category_id"] == coco.categories[category]
                and not a["iscrowd"]
            ]
            assert found == listed
            assert all(x >= 0 and y >= 0 and x + w <= width for x, y, w, h in found)
            x, y, w, h = bounding_box(coco.mask(image_id, category))  # drawn from polygons
            assert abs(min(b[0] for b in found) - x) <= 4
            assert abs(max(b[0] + b[2] for b in found) - (x + w)) <= 4
            assert abs(min(b[1] for b in found) - y) <= 4
            assert abs(max(b[1] + b[3] for b in found) - (y + h)) <= 4
    absent = next(name for name in coco.categories if name not in coco.objects(image_id))
    assert coco.boxes(image_id, absent) == []


@pytest.mark.parametrize("bbox", [None, [1, 2, 3], "wide", [1, 2, "wide", 4]])
def test_an_annotation_without_a_box_is_explained(tmp_path: Path, bbox: object) -> None:
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": 9, "width": 9}],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 18, "iscrowd": 0, "bbox": bbox}],
    }
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "instances_val.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match="annotation 5 of image 1 has no bbox of four numbers"):
        Coco(tmp_path, "val").boxes(1, "dog")
