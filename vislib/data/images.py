"""Reading, converting and resizing images: a file or web address becomes a tensor in [0, 1].

Every image in the course is RGB, 3×H×W, float32, in [0, 1]. The normalisation that an ImageNet
network expects is the first layer of each loaded model, so this module does not normalise.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vislib.errors import InputError
from vislib.paths import at_home

MAX_PIXELS = 50_000_000
"""Larger images are refused before they are decoded: their gradients would not fit into memory."""

USER_AGENT = "vislib/0.1 (a course on convolutional networks)"
"""Some image hosts refuse the default name of a Python client."""

# Seconds to connect, and seconds between two packets.
_TIMEOUT = (10, 30)

ImageOrTensor = TypeVar("ImageOrTensor", Image.Image, Tensor)


# --- Loading --------------------------------------------------------------------------------------


def load_image(source: str | Path, *, upright: bool = True) -> Tensor:
    """Load an image as a float32 tensor, 3×H×W, in [0, 1].

    Args:
        source: path, or address that starts with ``http://`` or ``https://``.
        upright: whether to turn the image as its EXIF orientation says, as in `load_pil`.

    Returns:
        The image, 3×H×W. The conversions are those of `load_pil`.

    Raises:
        InputError: as in `load_pil`.
    """
    return to_tensor(load_pil(source, upright=upright))


def load_pil(source: str | Path, *, upright: bool = True) -> Image.Image:
    """Load an image as 8-bit RGB.

    Grey and palette images become RGB, 16-bit grey is scaled to 8 bits, CMYK is converted,
    transparency is composited on white, and an animation is reduced to its first frame.

    Args:
        source: path, or address that starts with ``http://`` or ``https://``.
        upright: whether to turn the image as its EXIF orientation says. False keeps the stored
            pixel grid, to which COCO's annotations refer.

    Returns:
        The image in mode ``RGB``.

    Raises:
        InputError: the file is missing, empty, cut short, damaged, not an image, or larger than
            `MAX_PIXELS`; or the address does not answer.
    """
    file = _download(source) if _is_address(source) else _existing_file(Path(source))
    return _decode(file, source, upright=upright)


def read_encoded(path: Path) -> bytes:
    """Return the content of an image file, not yet decoded: see `decode`.

    Raises:
        InputError: the file is missing, empty or may not be read.
    """
    path = _existing_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(_unreadable(path, error)) from error


def decode(encoded: bytes, name: str | Path, *, upright: bool = True) -> Image.Image:
    """Decode the content of an image file to 8-bit RGB, as `load_pil` does.

    Args:
        encoded: bytes of a PNG, JPEG, WebP, GIF, TIFF or BMP file.
        name: name of the file in error messages.
        upright: as in `load_pil`.

    Returns:
        The image in mode ``RGB``.

    Raises:
        InputError: the bytes are cut short, damaged, not an image, or an image larger than
            `MAX_PIXELS`.

    >>> buffer = io.BytesIO()
    >>> Image.new("RGB", (5, 4), "red").save(buffer, "PNG")
    >>> decode(buffer.getvalue(), "red.png").getpixel((0, 0))
    (255, 0, 0)
    """
    return _decode(io.BytesIO(encoded), name, upright=upright)


def _decode(file: Path | io.BytesIO, source: str | Path, *, upright: bool) -> Image.Image:
    """Open and decode a file; `source` names it in error messages."""
    try:
        with warnings.catch_warnings():
            # PIL gives advice on large files and odd metadata.
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InputError(_too_large(source, f"{image.width}×{image.height} pixels"))
                image.load()
                return _rgb(ImageOps.exif_transpose(image) if upright else image, source)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(
            f"{source} is not an image that can be read; use a PNG, JPEG, WebP, GIF or TIFF file"
        ) from None
    except Image.DecompressionBombError:
        raise InputError(_too_large(source, "too many pixels")) from None
    except PermissionError as error:
        raise InputError(_unreadable(source, error)) from error
    except Exception as error:  # PIL reports damage by a dozen types, SyntaxError among them.
        raise InputError(
            f"{source} is damaged or cut short ({error}); copy or download it again"
        ) from error


# --- Conversion and size --------------------------------------------------------------------------


def to_tensor(image: Image.Image) -> Tensor:
    """Turn a PIL image of any mode into a float32 tensor, 3×H×W, in [0, 1].

    Args:
        image: 8-bit, palette or 16-bit grey; RGB, CMYK or with transparency.

    Returns:
        The image, 3×H×W, converted as in `load_pil`.

    Raises:
        InputError: the pixels are floating-point numbers, or integers of more than 16 bits.

    >>> to_tensor(Image.new("L", (5, 4), 255)).shape
    torch.Size([3, 4, 5])
    """
    pixels = np.array(_rgb(image, "the image"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255


def to_pil(image: Tensor) -> Image.Image:
    """Turn a tensor in [0, 1] into an 8-bit RGB image: the exact inverse of `to_tensor`.

    Args:
        image: 3×H×W, or 1×H×W for a grey image, with values in [0, 1].

    Returns:
        The image in mode ``RGB``, with each value rounded to one of 256 levels.

    Raises:
        InputError: `image` has another shape, or values outside [0, 1], or NaN.

    >>> image = Image.new("RGB", (5, 4), (10, 20, 30))
    >>> to_pil(to_tensor(image)) == image
    True
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise InputError(
            f"image must have shape 3×H×W or 1×H×W, got {tuple(image.shape)}: pass one image"
        )
    levels = (image.detach().cpu().double() * 255).round()
    if not bool(((levels >= 0) & (levels <= 255)).all()):  # This is also true for NaN.
        low, high = float(image.min()), float(image.max())
        raise InputError(
            f"image must have values in [0, 1], got {low:.3g} to {high:.3g}; "
            "clamp it, or show an attribution map with vislib.show"
        )
    pixels = levels.byte().expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels)


def resize(image: ImageOrTensor, size: int | tuple[int, int]) -> ImageOrTensor:
    """Resize an image with bilinear interpolation, and antialiasing if it becomes smaller.

    Args:
        image: PIL image (resized by PIL, in 8 bits) or tensor …×H×W.
        size: size in pixels. A number is the new length of the shorter side; the proportions are
            kept, as usual for ImageNet. A pair is the new (height, width), which may change the
            proportions.

    Returns:
        The resized image, of the same type.

    Raises:
        InputError: `size` is below 1 pixel.

    >>> resize(torch.rand(3, 20, 30), 10).shape
    torch.Size([3, 10, 15])
    """
    from torchvision.transforms import functional as tvf

    sides = [size] if isinstance(size, int) else list(size)
    if min(sides) < 1:
        raise InputError(f"size must be at least 1 pixel, got {size}")
    return tvf.resize(image, sides, antialias=True)


def centre_crop(image: ImageOrTensor, size: int | tuple[int, int]) -> ImageOrTensor:
    """Cut the middle out of an image.

    Args:
        image: PIL image or tensor …×H×W.
        size: side of a square in pixels, or (height, width).

    Returns:
        The crop, of the same type.

    Raises:
        InputError: the image is smaller than the crop. There is no padding.

    >>> centre_crop(torch.rand(3, 20, 30), 10).shape
    torch.Size([3, 10, 10])
    """
    from torchvision.transforms import functional as tvf

    height, width = (size, size) if isinstance(size, int) else size
    image_width, image_height = (
        image.size if isinstance(image, Image.Image) else (image.shape[-1], image.shape[-2])
    )
    if not (1 <= height <= image_height and 1 <= width <= image_width):
        raise InputError(
            f"cannot crop {height}×{width} out of an image of {image_height}×{image_width} "
            "(height×width); resize the image first"
        )
    return tvf.center_crop(image, [height, width])


# --- Files and addresses --------------------------------------------------------------------------


def _is_address(source: str | Path) -> bool:
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def _existing_file(path: Path) -> Path:
    """Path of an existing file that is not empty; anything else raises an `InputError`."""
    path = at_home(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder, not an image")
        if not path.is_file():
            raise InputError(f"there is no file {path}; check the path (you are in {Path.cwd()})")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes); copy or download it again")
    except OSError as error:  # The name is too long, or the folder may not be entered.
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from error
    return path


def _download(address: str | Path) -> io.BytesIO:
    """Fetch the content of an address into memory."""
    import requests

    try:
        reply = requests.get(str(address), timeout=_TIMEOUT, headers={"User-Agent": USER_AGENT})
        reply.raise_for_status()
    except requests.HTTPError as error:
        raise InputError(f"{address} could not be fetched: {error}; check the address") from error
    except (requests.RequestException, ValueError) as error:
        raise InputError(
            f"{address} could not be fetched ({type(error).__name__}); check the address and the "
            "network, or save the image with a browser and give the path of the file"
        ) from error
    if not reply.content:
        raise InputError(f"{address} returned an empty response (0 bytes); check the address")
    return io.BytesIO(reply.content)


def _rgb(image: Image.Image, name: str | Path) -> Image.Image:
    """Convert an image of any PIL mode to 8-bit RGB; `name` is used in error messages."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        # convert("RGB") would clip every level above 255 to white.
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise InputError(
                f"{name} has integer pixels from {grey.min()} to {grey.max()}, more than 16 bits: "
                "the level of white is unknown; save it as an 8-bit or 16-bit image"
            )
        return Image.fromarray(np.round(grey / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise InputError(
            f"{name} has floating-point pixels: the level of white is unknown; "
            "save it as an 8-bit image"
        )
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _unreadable(source: str | Path, error: OSError) -> str:
    return f"{source} cannot be read ({error.strerror}); ask its owner for access, or copy it"


def _too_large(source: str | Path, size: str) -> str:
    return (
        f"{source} has {size}: the limit is {MAX_PIXELS // 1_000_000} million; "
        "make a smaller copy first"
    )
