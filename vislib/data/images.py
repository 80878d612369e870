"""Images in and out: any file or web address becomes a tensor in [0, 1], and back.

Every image in the course is RGB, ``3×H×W``, float, in [0, 1]. The normalisation that an
ImageNet net expects is the first layer of the loaded model, so nothing here knows about it.
"""

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
"""Larger images are refused before they are decoded (their gradients would not fit anyway)."""

USER_AGENT = "vislib/0.1 (a course on convolutional networks)"
"""Some picture sites refuse the default name of a Python client."""

_TIMEOUT = (10, 30)  # seconds to connect, and between two packets

Picture = TypeVar("Picture", Image.Image, Tensor)


def load_image(source: str | Path, *, upright: bool = True) -> Tensor:
    """Load an image as a float32 tensor ``3×H×W`` in [0, 1].

    The arguments, the kinds of image and the errors are those of :func:`load_pil`.
    """
    return to_tensor(load_pil(source, upright=upright))


def load_pil(source: str | Path, *, upright: bool = True) -> Image.Image:
    """Load an image as 8-bit RGB.

    Grey and palette images become RGB, 16-bit grey is scaled to 8 bits, CMYK is converted,
    transparency is composited on white, and of an animation the first frame is taken.

    Args:
        source: a path, or an address that starts with ``http://`` or ``https://``.
        upright: turn the image as its EXIF orientation says. False keeps the stored pixel
            grid, to which COCO's annotations refer.

    Raises:
        InputError: the file is missing, empty, cut short, damaged, not an image, or larger
            than `MAX_PIXELS`; the address does not answer.
    """
    file = _download(source) if _is_address(source) else _existing_file(Path(source))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's advice on large files and odd metadata
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
        raise InputError(_too_large(source, "a huge size")) from None
    except PermissionError as error:
        raise InputError(f"{source} may not be read; ask its owner, or copy it") from error
    except Exception as error:  # PIL reports damage by a dozen types, SyntaxError among them
        raise InputError(
            f"{source} is damaged or cut short ({error}); copy or download it again"
        ) from error


def to_tensor(image: Image.Image) -> Tensor:
    """Turn a PIL image of any mode into a float32 tensor ``3×H×W`` in [0, 1]."""
    pixels = np.array(_rgb(image, "the image"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255


def to_pil(image: Tensor) -> Image.Image:
    """Turn a tensor ``3×H×W`` (or ``1×H×W``, grey) in [0, 1] into an 8-bit RGB image.

    This is the exact inverse of :func:`to_tensor`.

    Raises:
        InputError: another shape, or values that are not in [0, 1].
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise InputError(f"expected one image 3×H×W or 1×H×W, got shape {tuple(image.shape)}")
    levels = (image.detach().cpu().double() * 255).round()
    if not bool(((levels >= 0) & (levels <= 255)).all()):  # also catches NaN
        low, high = float(image.min()), float(image.max())
        raise InputError(
            f"an image has values in [0, 1], these run from {low:.3g} to {high:.3g}; "
            "clamp it, or, if this is an explanation, give it to vislib.show"
        )
    pixels = levels.byte().expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels)


def resize(image: Picture, size: int | tuple[int, int]) -> Picture:
    """Resize with bilinear interpolation (antialiased when it shrinks).

    Args:
        image: a PIL image (resized by PIL, in 8 bits) or a tensor ``…×H×W``.
        size: a number makes the shorter side that long and keeps the proportions, as the
            ImageNet recipe does; ``(height, width)`` gives exactly that size, squashed.
    """
    from torchvision.transforms import functional as tvf

    wanted = [size] if isinstance(size, int) else list(size)
    if min(wanted) < 1:
        raise InputError(f"a size must be at least 1 pixel, got {size}")
    return tvf.resize(image, wanted, antialias=True)


def centre_crop(image: Picture, size: int | tuple[int, int]) -> Picture:
    """Cut the middle out of a PIL image or a tensor ``…×H×W``.

    Args:
        image: what to crop.
        size: the side of a square, or ``(height, width)``.

    Raises:
        InputError: the image is smaller than the crop (nothing is padded).
    """
    from torchvision.transforms import functional as tvf

    height, width = (size, size) if isinstance(size, int) else size
    has_width, has_height = (
        image.size if isinstance(image, Image.Image) else (image.shape[-1], image.shape[-2])
    )
    if not (1 <= height <= has_height and 1 <= width <= has_width):
        raise InputError(
            f"cannot crop {height}×{width} out of an image of {has_height}×{has_width} "
            "(height×width); resize it first"
        )
    return tvf.center_crop(image, [height, width])


def _is_address(source: str | Path) -> bool:
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def _existing_file(path: Path) -> Path:
    """Return the path of a file that is there and not empty."""
    path = at_home(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder, not an image")
        if not path.is_file():
            raise InputError(f"there is no file {path}; check the path (you are in {Path.cwd()})")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes); copy or download it again")
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from error
    return path


def _download(address: str | Path) -> io.BytesIO:
    """Fetch an address into memory."""
    import requests

    try:
        reply = requests.get(str(address), timeout=_TIMEOUT, headers={"User-Agent": USER_AGENT})
        reply.raise_for_status()
    except requests.HTTPError as error:
        raise InputError(f"{address} could not be fetched: {error}; check the address") from error
    except (requests.RequestException, ValueError) as error:
        raise InputError(
            f"{address} could not be fetched ({type(error).__name__}); check the address and the "
            "network, or save the picture with a browser and give the path of the file"
        ) from error
    if not reply.content:
        raise InputError(f"{address} answered with nothing (0 bytes); check the address")
    return io.BytesIO(reply.content)


def _rgb(image: Image.Image, name: str | Path) -> Image.Image:
    """Convert any mode of PIL to 8-bit RGB; `name` is for the error."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        # convert("RGB") would clip everything above 255 to white
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise InputError(
                f"{name} has integer pixels from {grey.min()} to {grey.max()}, more than 16 bits, "
                "whose white is unknown; save it as an 8-bit or 16-bit image"
            )
        return Image.fromarray(np.round(grey / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise InputError(
            f"{name} has floating-point pixels, whose white is unknown; save it as an 8-bit image"
        )
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _too_large(source: str | Path, size: str) -> str:
    return (
        f"{source} has {size}; the limit is {MAX_PIXELS // 1_000_000} million, "
        "make a smaller copy first"
    )
