"""Images with their object masks: an image file is read once, and faults have one message."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_coco import WIDTH, small, write

from vislib.data.coco import Coco
from vislib.data.images import decode, load_pil
from vislib.data.objects import dilate, load_unit
from vislib.errors import InputError
from vislib.paths import DATA


@pytest.fixture
def coco(tmp_path: Path) -> Coco:
    write(tmp_path, small())
    (tmp_path / "val").mkdir()
    rng = np.random.default_rng(0)
    for entry in small()["images"]:
        pixels = rng.integers(0, 256, (entry["height"], entry["width"], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "val" / entry["file_name"])
    return Coco(tmp_path, "val")


# --- An image file is read once -------------------------------------------------------------------


def test_image_bytes_are_the_content_of_the_file(coco: Coco) -> None:
    encoded = coco.image_bytes(1)
    digest = hashlib.sha256(coco.path(1).read_bytes()).hexdigest()
    assert hashlib.sha256(encoded).hexdigest() == digest
    assert coco.image(1, encoded) == coco.image(1)


@pytest.mark.parametrize("size", ["original", 16])
def test_a_unit_from_bytes_needs_no_file(coco: Coco, size: int | str) -> None:
    expected_image, expected_mask = load_unit(coco, 1, "dog", size)
    encoded = coco.image_bytes(1)
    coco.path(1).unlink()
    image, mask = load_unit(coco, 1, "dog", size, encoded=encoded)
    assert torch.equal(image, expected_image) and np.array_equal(mask, expected_mask)


def test_shipped_images_are_the_same_from_bytes() -> None:
    coco = Coco(DATA / "emoji_coco", "gallery")
    for image_id in coco.image_ids():
        assert coco.image(image_id, coco.image_bytes(image_id)) == coco.image(image_id)


def test_stored_pixel_grid_is_kept(coco: Coco) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    coco.image(1).save(coco.path(1), exif=exif)
    encoded = coco.image_bytes(1)
    assert coco.image(1, encoded).width == WIDTH
    assert decode(encoded, "1.png").height == WIDTH
    assert decode(encoded, "1.png", upright=False) == coco.image(1)


# --- Faults ---------------------------------------------------------------------------------------


def errors(coco: Coco, image_id: int) -> list[str]:
    """The messages of an image that is loaded at once, and from its bytes."""
    messages = []
    for load in (coco.image, lambda i: coco.image(i, coco.image_bytes(i))):
        with pytest.raises(InputError) as error:
            load(image_id)
        messages.append(str(error.value))
    return messages


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"", "is empty"),
        (b"this is text", "is not an image"),
        (b"\x89PNG\r\n\x1a\n", "is damaged or cut short|is not an image"),
    ],
)
def test_messages_are_the_same(coco: Coco, content: bytes | None, message: str) -> None:
    path = coco.path(1)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        coco.image(1)
    first, second = errors(coco, 1)
    assert first == second and str(path) in first


def test_a_truncated_image_has_the_same_message(coco: Coco) -> None:
    path = coco.path(1)
    path.write_bytes(path.read_bytes()[:-100])
    first, second = errors(coco, 1)
    assert first == second and "is damaged or cut short" in first


def test_an_unlisted_image_and_another_size(coco: Coco) -> None:
    first, second = errors(coco, 99)
    assert first == second and "image 99 is not listed" in first
    Image.new("RGB", (8, 9)).save(coco.path(1))
    first, second = errors(coco, 1)
    assert first == second and "is 9×8 pixels" in first


def test_a_folder_is_not_an_image_file(coco: Coco) -> None:
    coco.path(1).unlink()
    coco.path(1).mkdir()
    with pytest.raises(InputError, match="is a folder, not an image"):
        coco.image_bytes(1)


def test_a_mask_that_vanishes_is_refused(coco: Coco) -> None:
    with pytest.raises(
        InputError, match=r"nothing is left of 'cat' in image 1 at size 1: .*larger"
    ):
        load_unit(coco, 1, "cat", 1)


def test_an_image_that_is_too_large_is_refused(coco: Coco, monkeypatch) -> None:
    monkeypatch.setattr("vislib.data.objects._MAX_PIXELS", 1000)
    with pytest.raises(InputError, match="40×30 pixels, more than the limit of 1,000 at the orig"):
        load_unit(coco, 1, "dog", "original")
    assert load_unit(coco, 1, "dog", 16)[0].shape == (3, 16, 16)


def test_the_mask_is_dilated_by_growth(coco: Coco) -> None:
    mask = coco.mask(1, "dog")
    assert np.array_equal(load_unit(coco, 1, "dog", "original", growth=1)[1], mask)
    assert np.array_equal(load_unit(coco, 1, "dog", "original", growth=2)[1], dilate(mask, 2))


def test_load_pil_and_decode_agree(coco: Coco) -> None:
    assert load_pil(coco.path(2)) == decode(coco.path(2).read_bytes(), "2.png")
