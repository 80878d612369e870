"""Attribution maps as colours, and images in one form.

Attribution maps are raw and signed in all other modules; only `vislib.show` scales them for
display. A map has one of four looks, and the same look everywhere in the course:

overlay  the photograph, lightened, under one hue whose opacity grows with the value
fine     the magnitude from white to black, slightly blurred, for maps of single pixels
signed   red above zero and blue below zero, where the sign is the lesson
rgb      the three channels as red, green and blue around mid-grey, as in the papers on guided
         backprop
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Look = Literal["auto", "overlay", "fine", "signed", "rgb"]
ImageLike = Tensor | np.ndarray | Image.Image

# The colours of Okabe & Ito 2008, "Color Universal Design (CUD)", can be distinguished with all
# common colour-vision deficiencies.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DIVERGING = "RdBu_r"
HUE, POSITIVE, NEGATIVE = "#C4007A", "#B2182B", "#2166AC"
THRESHOLD = 0.15
"""Fraction of its maximum below which a map is transparent in an overlay."""
OPACITY = 0.72
"""Opacity of an overlay at the maximum of its map."""
LIGHTER = 0.35
"""Weight of white in the photograph under a map."""


# --- Images ---------------------------------------------------------------------------------------


def rgb(image: ImageLike) -> np.ndarray:
    """RGB values of an image, H×W×3 in [0, 1].

    Args:
        image: a tensor 3×H×W, 1×H×W or H×W in [0, 1], also as a batch of one image; an array H×W×3,
            H×W×1 or H×W of values in [0, 1], bytes or booleans; or a PIL image.

    Raises:
        ValueError: the tensor or array does not have one of these shapes.

    >>> rgb(torch.rand(1, 4, 6)).shape
    (4, 6, 3)
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    shape = tuple(image.shape)
    if isinstance(image, Tensor):
        one = image.detach().cpu().double()
        one = one[0] if one.ndim == 4 and shape[0] == 1 else one
        if one.ndim not in (2, 3) or (one.ndim == 3 and one.shape[0] not in (1, 3)):
            raise ValueError(
                f"image must be one image 3×H×W, 1×H×W or H×W, got a tensor of shape {shape}: "
                "choose one image of a batch with x[0]"
            )
        return one.clamp(0, 1).expand(3, -1, -1).movedim(0, -1).numpy()
    if image.ndim not in (2, 3) or (image.ndim == 3 and shape[2] not in (1, 3)):
        raise ValueError(
            f"image must be an array H×W×3, H×W×1 or H×W, got shape {shape}: "
            "an array has its channels last, a tensor has them first"
        )
    array = image / 255 if image.dtype == np.uint8 else image.astype(np.float64)
    array = array if array.ndim == 3 else array[..., None]
    return np.broadcast_to(array, (*shape[:2], 3))


# --- Values of a map ------------------------------------------------------------------------------


def channels(maps: Tensor | np.ndarray, title: str = "map") -> np.ndarray:
    """Values of one attribution map, C×H×W in float64.

    Args:
        maps: one map, raw and signed, C×H×W or H×W, also as a batch of one map.
        title: name of the map in the error message.

    Raises:
        ValueError: the tensor contains several maps, or the map has NaN or infinite values.
    """
    values = np.asarray(torch.as_tensor(maps).detach().to("cpu", torch.float64))
    values = values[0] if values.ndim == 4 and len(values) == 1 else values
    if values.ndim not in (2, 3) or not values.size:
        raise ValueError(
            f"{title} must be one attribution map, C×H×W or H×W, got shape {values.shape}: "
            "choose one map of a batch with maps[0]"
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"{title} must be finite, got NaN or infinite values: replace them, for example by 0 "
            "with torch.nan_to_num"
        )
    return values if values.ndim == 3 else values[None]


def magnitude(values: np.ndarray) -> np.ndarray:
    """Root of the sum of squares over the channels, C×H×W to H×W: the root of the map's energy."""
    return np.sqrt(np.square(values).sum(axis=0))


def enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Map upsampled bilinearly to a size in pixels, H×W."""
    if values.shape == size:
        return values
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    return torch.nn.functional.interpolate(tensor, size=size, mode="bilinear", align_corners=False)[
        0, 0
    ].numpy()


def blurred(values: np.ndarray, sigma: float | None = None) -> np.ndarray:
    """The map after a Gaussian blur over its last two axes.

    Args:
        values: …×H×W.
        sigma: standard deviation in pixels. By default it is 1/128 of the shorter side, that is
            1 pixel at 128 and 1.75 pixels at 224, and 0 for maps with sides below 64 pixels.
    """
    from scipy.ndimage import gaussian_filter

    side = min(values.shape[-2:])
    sigma = (side / 128 if side >= 64 else 0) if sigma is None else sigma
    return gaussian_filter(values, (*[0] * (values.ndim - 2), sigma, sigma)) if sigma else values


def top_of(values: np.ndarray, percentile: float) -> float:
    """End of a colour scale: percentile of ``|values|``, or the maximum if the percentile is 0."""
    size = np.abs(values)
    return float(np.percentile(size, percentile) or size.max())


def is_smooth(values: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a map belongs over the photograph, because it has no detail of single pixels.

    A map of at most half the image's size is smooth, and also a map that a small blur (1/64 of the
    shorter side) hardly changes.

    Args:
        values: C×h×w.
        size: height and width of the image.
    """
    if 2 * values.shape[1] <= size[0] and 2 * values.shape[2] <= size[1]:
        return True
    flat = magnitude(values)
    change = np.abs(flat - blurred(flat, max(1.0, min(flat.shape) / 64))).sum()
    return bool(change <= 0.2 * flat.sum())


# --- Colours --------------------------------------------------------------------------------------


def lightened(image: ImageLike) -> np.ndarray:
    """Photograph under a map: mixed with white, H×W×3 in [0, 1]."""
    return LIGHTER + (1 - LIGHTER) * rgb(image)


def overlay(
    image: ImageLike,
    maps: Tensor | np.ndarray,
    *,
    signed: bool = False,
    top: float | None = None,
) -> np.ndarray:
    """Lightened photograph in colour under one hue whose opacity grows with the map, H×W×3.

    Below 15 % of the maximum the map is transparent, so only the photograph is visible there.

    Args:
        image: in any form that `rgb` takes, H×W pixels.
        maps: one map, C×h×w or h×w, at most as large as the image; it is upsampled bilinearly. The
            channels are summed.
        signed: whether to show negative values too, in blue, with red for positive values. By
            default negative values are transparent.
        top: value at which the opacity is largest; by default the largest value of the map.

    Returns:
        RGB values in [0, 1], H×W×3.

    Raises:
        ValueError: the map does not fit the image, contains several maps, or is not finite.

    >>> grey = torch.full((3, 8, 8), 0.5)
    >>> bool((overlay(grey, torch.zeros(1, 2, 2)) == lightened(grey)).all())
    True
    """
    from matplotlib.colors import to_rgb

    pixels = lightened(image)
    values = fitting(channels(maps), pixels.shape).sum(axis=0)
    top = top or float((np.abs(values) if signed else values).max())
    if top <= 0:
        return pixels
    values = np.clip(enlarged(values, pixels.shape[:2]) / top, -1, 1)
    parts = [(values, POSITIVE), (-values, NEGATIVE)] if signed else [(values, HUE)]
    for part, colour in parts:
        opacity = OPACITY * np.clip((part - THRESHOLD) / (1 - THRESHOLD), 0, 1)[..., None]
        pixels = (1 - opacity) * pixels + opacity * np.array(to_rgb(colour))
    return pixels


def fitting(values: np.ndarray, shape: tuple[int, ...], title: str = "map") -> np.ndarray:
    """The map itself, if it has the proportions of the image and is not larger.

    Args:
        values: C×h×w.
        shape: shape of the image, H×W×3.
        title: name of the map in the error message.

    Raises:
        ValueError: the map does not fit.
    """
    (high, wide), (height, width) = values.shape[1:], shape[:2]
    # A network with the stride s gives ⌊side / s⌋ to ⌈side / s⌉ + 1 positions along each side.
    largest = min(height / max(high - 1, 1e-9), width / max(wide - 1, 1e-9))
    smallest = max(height / (high + 1), width / (wide + 1))
    small = high < height and wide < width and smallest <= largest
    if (high, wide) != (height, width) and not small:
        raise ValueError(
            f"{title} must have the size of the image, {height}×{width}, or be a smaller map with "
            f"the same proportions, got {high}×{wide}: compute the map for this image"
        )
    return values


def fine(
    maps: Tensor | np.ndarray,
    *,
    signed: bool = False,
    blur: float | None = None,
    percentile: float = 99.5,
    top: float | None = None,
) -> np.ndarray:
    """Magnitude of a map from white (zero) to black, slightly blurred, H×W×3.

    The magnitude is the root of the sum of squares over the channels.

    Args:
        maps: one map, raw and signed, C×H×W or H×W.
        signed: whether to show the sum of the channels with its sign, red above zero and blue below
            zero, instead of the magnitude.
        blur: standard deviation in pixels of a Gaussian; by default as in `blurred`.
        percentile: percentile of the values at which the scale ends, from 0 to 100. A value below
            100 keeps the map visible if a few values are far larger than all others.
        top: value at which the scale ends, instead of the percentile.

    Returns:
        RGB values in [0, 1], H×W×3.

    Raises:
        ValueError: `maps` contains several maps, or is not finite.

    >>> fine(torch.tensor([[0.0, -1.0]]))[0, :, 0].tolist()
    [1.0, 0.0]
    """
    import matplotlib

    values = fine_values(maps, signed=signed, blur=blur)
    values = np.clip(values / (top or top_of(values, percentile) or 1.0), -1, 1)
    if signed:
        return matplotlib.colormaps[DIVERGING](0.5 + 0.5 * values)[..., :3]
    return (1 - values)[..., None].repeat(3, axis=2)


def fine_values(
    maps: Tensor | np.ndarray, *, signed: bool = False, blur: float | None = None
) -> np.ndarray:
    """Values that `fine` draws, H×W, before they are scaled.

    Args:
        maps, signed, blur: as in `fine`.
    """
    values = channels(maps)
    return blurred(values.sum(axis=0) if signed else magnitude(values), blur)


def tinted(
    maps: Tensor | np.ndarray,
    *,
    percentile: float = 99,
    blur: float = 0,
    top: float | None = None,
) -> np.ndarray:
    """Signed map whose three channels are shown as red, green and blue, with mid-grey at zero.

    The papers show the maps of the deconvnet and of guided backprop in this way. It is right where
    the image can be recognised in the map.

    Args:
        maps: one map, raw and signed, 3×H×W.
        percentile: percentile of ``|map|`` at which the scale ends, from 0 to 100.
        blur: standard deviation in pixels of a Gaussian that smooths the map first.
        top: value at which the scale ends, instead of the percentile.

    Returns:
        RGB values in [0, 1], H×W×3.

    Raises:
        ValueError: the map does not have three channels, or is not finite.

    >>> tinted(torch.zeros(3, 2, 2))[0, 0]
    array([0.5, 0.5, 0.5])
    """
    values = blurred(channels(maps), blur)
    if len(values) != 3:
        raise ValueError(
            f"the look rgb needs a map with 3 channels, got {len(values)}: use the look fine"
        )
    top = top or top_of(values, percentile) or 1.0
    return np.moveaxis(np.clip(0.5 + 0.5 * values / top, 0, 1), 0, -1)


def coarse(maps: Tensor, block: int) -> Tensor:
    """Map reduced to squares of block×block pixels, for a small figure.

    The channels are summed. Each square then gets its value of largest magnitude, with the sign.
    Subsampling would lose single pixels, and averaging would cancel values of opposite signs.

    Args:
        maps: C×H×W.
        block: side of a square in pixels.

    Returns:
        The smaller map, 1×⌈H/block⌉×⌈W/block⌉.

    >>> coarse(torch.tensor([[[1.0, -3.0, 0.0], [2.0, 0.0, 5.0]]]), 2)
    tensor([[[-3.,  5.]]])
    """
    total = maps.sum(dim=0, keepdim=True)
    top, low = (
        torch.nn.functional.max_pool2d(sign * total, block, ceil_mode=True) for sign in (1, -1)
    )
    return torch.where(top >= low, top, -low)
