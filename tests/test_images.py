"""Loading, converting and resizing images: every kind of file that a learner may use."""

import functools
import http.server
import io
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import affine_transform

from vislib.data.images import (
    MAX_PIXELS,
    centre_crop,
    load_image,
    load_pil,
    resize,
    to_pil,
    to_tensor,
)
from vislib.errors import InputError, nearest
from vislib.transforms import rotate_and_zoom

GREY = np.array([[0, 1, 127], [128, 254, 255]], dtype=np.uint8)
PHOTO = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixels(path: Path, **options: bool) -> np.ndarray:
    return np.asarray(load_pil(path, **options))


# --- Kinds of image -------------------------------------------------------------------------------


def test_rgb_is_loaded_as_it_is(tmp_path):
    path = save(Image.fromarray(PHOTO), tmp_path / "photo.png")
    tensor = load_image(path)
    assert tensor.shape == (3, 48, 64)
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor, torch.from_numpy(PHOTO).permute(2, 0, 1) / 255)
    assert torch.equal(load_image(str(path)), tensor)


def test_grey_becomes_three_equal_channels(tmp_path):
    loaded = pixels(save(Image.fromarray(GREY), tmp_path / "grey.png"))
    assert np.array_equal(loaded, np.stack([GREY] * 3, axis=-1))


def test_black_and_white(tmp_path):
    loaded = pixels(save(Image.fromarray(GREY > 127), tmp_path / "bits.png"))
    assert np.array_equal(loaded[..., 0], np.where(GREY > 127, 255, 0))


@pytest.mark.parametrize("name", ["grey.png", "grey.tif", "grey.pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, name):
    """257 = 65535 / 255, so these levels come back as the 8-bit ones."""
    path = save(Image.fromarray(GREY.astype(np.uint16) * 257), tmp_path / name)
    assert np.array_equal(pixels(path)[..., 1], GREY)


def test_big_endian_16_bit_grey(tmp_path):
    high_byte_first = GREY.astype(">u2") * 257
    image = Image.frombytes("I;16B", (3, 2), high_byte_first.tobytes())
    assert np.array_equal(pixels(save(image, tmp_path / "grey.tif"))[..., 2], GREY)


def test_palette(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert pixels(save(image, tmp_path / "two.png")).tolist() == [[[255, 0, 0], [0, 0, 255]]]


def test_transparency_is_composited_on_white(tmp_path):
    black = np.zeros((1, 3, 4), dtype=np.uint8)
    black[0, :, 3] = [0, 128, 255]
    expected = [255, 127, 0]
    rgba = pixels(save(Image.fromarray(black), tmp_path / "rgba.png"))
    grey_alpha = pixels(save(Image.fromarray(black[..., 2:], "LA"), tmp_path / "la.png"))
    assert rgba[0, :, 0].tolist() == expected
    assert grey_alpha[0, :, 2].tolist() == expected


def test_transparent_palette_entry_and_transparent_colour(tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    gif = save(palette, tmp_path / "hole.gif", transparency=0)
    assert pixels(gif).tolist() == [[[255, 255, 255], [0, 0, 255]]]

    rgb = Image.fromarray(np.array([[[9, 9, 9], [1, 2, 3]]], dtype=np.uint8))
    png = save(rgb, tmp_path / "key.png", transparency=(9, 9, 9))
    assert pixels(png).tolist() == [[[255, 255, 255], [1, 2, 3]]]


def test_cmyk(tmp_path):
    ink = np.zeros((16, 16, 4), dtype=np.uint8)
    ink[..., 1] = ink[..., 2] = 255  # magenta and yellow make red
    path = save(Image.fromarray(ink, "CMYK"), tmp_path / "ink.jpg", quality=95)
    assert np.abs(pixels(path).astype(int) - [255, 0, 0]).max() <= 8


@pytest.mark.parametrize("mode", ["I", "F"])
def test_unknown_level_of_white_is_refused(tmp_path, mode):
    image = Image.fromarray((GREY * 1000.0).astype(np.int32 if mode == "I" else np.float32))
    path = save(image, tmp_path / "depth.tif")
    with pytest.raises(InputError, match=r"depth\.tif has .* the level of white is unknown"):
        load_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    """The EXIF standard's table, written with NumPy."""
    upright = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
        8: lambda a: np.rot90(a, 1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(Image.fromarray(PHOTO), tmp_path / "turned.png", exif=exif)
    assert np.array_equal(pixels(path), upright[orientation](PHOTO))
    assert np.array_equal(pixels(path, upright=False), PHOTO)


def test_animation_gives_its_first_frame(tmp_path):
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    path = save(red, tmp_path / "film.gif", save_all=True, append_images=[blue])
    assert pixels(path)[0, 0].tolist() == [255, 0, 0]


def test_one_pixel(tmp_path):
    path = save(Image.new("RGB", (1, 1), (255, 0, 51)), tmp_path / "dot.png")
    assert torch.allclose(load_image(path).flatten(), torch.tensor([1.0, 0.0, 0.2]))


# --- Errors ---------------------------------------------------------------------------------------


def test_missing_file_folder_and_empty_file(tmp_path):
    with pytest.raises(InputError, match=r"no file .*nothing\.png.*you are in"):
        load_image(tmp_path / "nothing.png")
    with pytest.raises(InputError, match="is a folder"):
        load_image(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match=r"empty\.png is empty"):
        load_image(tmp_path / "empty.png")


def test_paths_that_cannot_exist():
    with pytest.raises(InputError, match="there is no home folder for ~no-such-user"):
        load_image("~no-such-user/a.png")
    with pytest.raises(InputError, match=r"cannot be read|there is no file"):
        load_image("a" * 5000)


def test_an_image_without_permission_to_read(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def refused(file):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Image, "open", refused)  # root may read everything
    with pytest.raises(InputError, match=r"a\.png cannot be read \(Permission denied\)"):
        load_image(tmp_path / "a.png")


def test_not_an_image(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("this is text")
    with pytest.raises(InputError, match=r"notes\.png is not an image"):
        load_image(path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 90, "progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_truncated_is_refused_and_never_padded(tmp_path, kind, options):
    """A file that is cut anywhere gives an error, or all pixels unchanged."""
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, kind, **options)
    whole = buffer.getvalue()
    expected = np.asarray(Image.open(buffer).convert("RGB"))
    path = tmp_path / "cut"
    refused = 0
    cuts = [*range(1, len(whole) - 32, 97), *range(len(whole) - 32, len(whole))]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        try:
            loaded = pixels(path)
        except InputError as error:
            assert "cut" in str(error)
            refused += 1
        else:
            assert np.array_equal(loaded, expected), f"cut at byte {cut} of {len(whole)}"
    assert refused >= len(cuts) - 32  # only a cut in the last bytes may be harmless


def test_damaged_bytes_give_an_input_error_or_an_image(tmp_path):
    rng = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "GIF", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(PHOTO).save(buffer, kind)
        for _ in range(40):
            damaged = bytearray(buffer.getvalue())
            for position in rng.integers(0, min(400, len(damaged)), 4):
                damaged[position] = rng.integers(256)
            path = tmp_path / "damaged"
            path.write_bytes(damaged)
            try:
                assert load_pil(path).mode == "RGB"
            except InputError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize(("width", "height"), [(8000, 7000), (10_000, 10_000), (60_000, 60_000)])
def test_huge_is_refused_before_decoding(tmp_path, width, height):
    """A PNG that states its size and holds nothing else: decoding it would fail otherwise."""
    assert width * height > MAX_PIXELS
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    path = tmp_path / "poster.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + data)
    with pytest.raises(InputError, match=r"poster\.png has .*limit is 50 million"):
        load_image(path)


# --- Addresses ------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path, monkeypatch) -> Iterator[str]:
    """Serve tmp_path on the loopback interface."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_image_from_an_address(tmp_path, site):
    save(Image.fromarray(PHOTO), tmp_path / "photo.png")
    assert torch.equal(load_image(f"{site}/photo.png"), load_image(tmp_path / "photo.png"))


def test_addresses_without_an_image(tmp_path, site):
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.png").write_text("<html>")
    with pytest.raises(InputError, match=r"404.*check the address"):
        load_image(f"{site}/nothing.png")
    with pytest.raises(InputError, match="0 bytes"):
        load_image(f"{site}/empty.png")
    with pytest.raises(InputError, match=r"page\.png is not an image"):
        load_image(f"{site}/page.png")


def test_offline(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        with pytest.raises(InputError, match=r"network, or save the image"):
            load_image(f"http://127.0.0.1:{closed.getsockname()[1]}/photo.png")
    with pytest.raises(InputError, match="check the address"):
        load_image("http://")


# --- Tensors, sizes, names ------------------------------------------------------------------------


def test_to_pil_is_the_inverse_of_to_tensor():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([levels, levels.T, 255 - levels], axis=-1))
    assert np.array_equal(np.asarray(to_pil(to_tensor(image))), np.asarray(image))


def test_to_pil_of_one_channel_is_grey():
    assert np.asarray(to_pil(torch.tensor([[[0.0, 1.0]]]))).tolist() == [[[0] * 3, [255] * 3]]


def test_to_pil_takes_a_tensor_with_a_gradient():
    assert to_pil(torch.rand(3, 4, 5, requires_grad=True)).size == (5, 4)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_to_pil_refuses_values_outside_0_to_1(value):
    with pytest.raises(InputError, match=r"values in \[0, 1\]"):
        to_pil(torch.full((3, 2, 2), value))


@pytest.mark.parametrize("shape", [(2, 2), (4, 2, 2), (1, 3, 2, 2)])
def test_to_pil_refuses_other_shapes(shape):
    with pytest.raises(InputError, match="image must have shape 3×H×W or 1×H×W, got"):
        to_pil(torch.zeros(shape))


def test_resize_to_a_size_is_pils_bilinear_squash():
    image = Image.fromarray(PHOTO)
    expected = image.resize((32, 20), Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(resize(image, (20, 32))), np.asarray(expected))


def test_resize_to_the_shorter_side_keeps_the_proportions():
    image = Image.fromarray(PHOTO)
    assert resize(image, 24).size == (32, 24)
    assert resize(to_tensor(image), 24).shape == (3, 24, 32)


def test_resized_tensor_agrees_with_the_resized_image():
    """PIL rounds to 8 bits after each of its two passes; beyond that they are the same."""
    image = Image.fromarray(PHOTO)
    difference = resize(to_tensor(image), (20, 32)) - to_tensor(resize(image, (20, 32)))
    assert difference.abs().max() <= 1.5 / 255


def test_centre_crop():
    image = Image.fromarray(PHOTO)
    assert np.array_equal(np.asarray(centre_crop(image, 40)), PHOTO[4:44, 12:52])
    assert torch.equal(
        centre_crop(to_tensor(image), (48, 10)), to_tensor(Image.fromarray(PHOTO[:, 27:37]))
    )


def test_impossible_sizes():
    image = Image.fromarray(PHOTO)
    with pytest.raises(InputError, match="cannot crop 49×49 out of an image of 48×64"):
        centre_crop(image, 49)
    with pytest.raises(InputError, match="at least 1 pixel"):
        resize(image, (0, 5))


def test_nearest_names():
    assert nearest("Zebar", ["zebra", "dog"]) == "did you mean 'zebra'?"
    assert nearest("xyz", ["zebra", "dog"]) == "choose from zebra, dog"


def test_rotate_and_zoom_agrees_with_scipy_and_rot90():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 24, 24, generator=generator)
    quarter = torch.tensor([torch.pi / 2, -torch.pi / 2])
    turned = rotate_and_zoom(x, quarter, 1.0)
    expected = torch.stack([torch.rot90(x[0], 1, (1, 2)), torch.rot90(x[1], -1, (1, 2))])
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)
    # Half of the image, against scipy about the same centre; the image is smooth and not square.
    y = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 40, 60, generator=generator), 5, 1, 2)
    angle, middle = 0.3, np.array([19.5, 29.5])
    matrix = 0.5 * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    expected = affine_transform(y[0, 0].numpy(), matrix, middle - matrix @ middle, order=1)
    actual = rotate_and_zoom(y, torch.tensor(angle), 0.5)[0, 0]
    torch.testing.assert_close(actual, torch.as_tensor(expected), atol=1e-5, rtol=0)
