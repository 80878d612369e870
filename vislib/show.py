"""Pictures: explanations as colours, several pictures side by side, and every figure with alt text.

Explanations stay raw and signed everywhere else; only here are they scaled for the eye. Signed maps
use a scale that diverges around zero (blue below, white zero, red above), maps without negative
values a sequential one; both can be told apart without colour vision and in grey print.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

SEQUENTIAL = "inferno"
DIVERGING = "RdBu_r"
# Okabe and Ito's colours: distinguishable with every kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
    "svg.hashsalt": "vislib",
    "svg.fonttype": "none",
}

Picture = Tensor | np.ndarray | Image.Image


def heat(maps: Tensor, *, percentile: float = 99.5) -> np.ndarray:
    """Colours for one raw map, C×H×W or H×W, as H×W×3 floats in [0, 1].

    Channels are added up first. The scale ends at the given percentile of ``|map|``, so that a few
    large values do not leave the rest black; zero is white in signed maps and black in others. A
    map that is zero everywhere gives the colour of zero.
    """
    import matplotlib

    values = maps.detach().to("cpu", torch.float64).numpy()
    values = values.sum(axis=0) if values.ndim == 3 else values
    top = np.percentile(np.abs(values), percentile) or np.abs(values).max() or 1.0
    if values.min() < 0:
        return matplotlib.colormaps[DIVERGING](0.5 + 0.5 * np.clip(values / top, -1, 1))[..., :3]
    return matplotlib.colormaps[SEQUENTIAL](np.clip(values / top, 0, 1))[..., :3]


def overlay(image: Picture, maps: Tensor, *, opacity: float = 0.55) -> np.ndarray:
    """A map's colours (C×h×w, upsampled if need be) laid over the grey image: H×W×3 in [0, 1]."""
    rgb = picture(image)
    grey = rgb.mean(axis=2, keepdims=True).repeat(3, axis=2)
    if maps.shape[-2:] != rgb.shape[:2]:
        maps = torch.nn.functional.interpolate(
            maps[None], size=rgb.shape[:2], mode="bilinear", align_corners=False
        )[0]
    return (1 - opacity) * grey + opacity * heat(maps, percentile=100)


def outline(
    image: Picture, mask: np.ndarray, *, colour: str = COLOURS[4], width: int = 3
) -> np.ndarray:
    """The image with the border of a boolean H×W mask drawn in: H×W×3 in [0, 1]."""
    from matplotlib.colors import to_rgb
    from scipy.ndimage import binary_dilation, binary_erosion

    rgb = picture(image).copy()
    outside = width // 2  # scipy takes 0 iterations for "until nothing changes"
    grown = binary_dilation(mask, iterations=outside) if outside else mask
    rgb[grown & ~binary_erosion(mask, iterations=width - outside)] = to_rgb(colour)
    return rgb


def picture(image: Picture) -> np.ndarray:
    """Any picture as H×W×3 floats in [0, 1].

    It may be a tensor 3×H×W, 1×H×W or H×W, an array H×W×3 or H×W, or a PIL image.
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    if isinstance(image, Tensor):
        return image.detach().cpu().double().clamp(0, 1).expand(3, -1, -1).movedim(0, -1).numpy()
    array = image / 255 if image.dtype == np.uint8 else image.astype(np.float64)
    return array if array.ndim == 3 else array[..., None].repeat(3, axis=2)


@contextmanager
def style() -> Iterator[None]:
    """The course's one look for matplotlib, for the length of the block."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def display(figure: Figure, alt: str) -> None:
    """Show a matplotlib figure in the notebook as a PNG that carries `alt` text, and close it.

    `alt` says in a sentence what a person who cannot see the picture should know. ``ValueError``
    without it.
    """
    import matplotlib.pyplot as plt
    from IPython.display import Image as Shown
    from IPython.display import display as show

    if not alt.strip():
        raise ValueError("every figure needs alt text: say what the picture shows")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    show(Shown(data=buffer.getvalue(), format="png", alt=alt))


def panels(
    pictures: Mapping[str, Picture], *, alt: str, columns: int = 5, size: float = 2.9
) -> None:
    """Show pictures side by side under their titles, `columns` a row, each `size` inches wide."""
    import matplotlib.pyplot as plt

    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    arrays = [picture(image) for image in pictures.values()]
    tallest = max(array.shape[0] / array.shape[1] for array in arrays)
    with style():
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(size * columns, rows * (size * tallest + 0.45)),
            squeeze=False,
            layout="constrained",
        )
        for axis in axes.flat:
            axis.axis("off")
        for axis, title, array in zip(axes.flat, pictures, arrays, strict=False):
            axis.imshow(array, interpolation="nearest")
            axis.set_title(title)
        display(figure, alt)
