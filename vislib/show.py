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
_DASHES = ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1)), (0, (8, 2)))
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
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
    display(grid(pictures, columns=columns, size=size), alt)


def grid(pictures: Mapping[str, Picture], *, columns: int = 5, size: float = 2.9) -> Figure:
    """The figure that `panels` shows."""
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
    return figure


def curves(
    axes: Mapping[str, Mapping[str, tuple[Any, Any]]],
    *,
    alt: str,
    x: str = "",
    y: str = "",
    log: str = "",
    size: tuple[float, float] = (5.2, 3.9),
    **limits: Any,
) -> None:
    """Show lines, ``{title: {label: (x values, y values)}}``: one axis for each title.

    The lines differ by colour, dashes and marks. `x` and `y` name the axes, `log` (``"y"``,
    ``"x"``, ``"xy"``) makes them logarithmic, `limits` goes to ``Axes.set`` (``ylim=…``).
    """
    import matplotlib.pyplot as plt

    width, height = size
    with style():
        figure, row = plt.subplots(
            1, len(axes), figsize=(width * len(axes), height), squeeze=False, layout="constrained"
        )
        for axis, (title, lines) in zip(row[0], axes.items(), strict=True):
            for number, (label, (across, up)) in enumerate(lines.items()):
                every = max(1, len(across) // 8)
                axis.plot(
                    across,
                    up,
                    lw=2.4,
                    color=COLOURS[number % len(COLOURS)],
                    ls=_DASHES[number % len(_DASHES)],
                    marker=_MARKS[number % len(_MARKS)],
                    markevery=(number * every // len(lines), every),
                    ms=7,
                    label=label,
                )
            axis.set(title=title, xlabel=x, xscale="log" if "x" in log else "linear")
            axis.set(yscale="log" if "y" in log else "linear", **limits)
            axis.grid(alpha=0.3)
            if len(lines) > 1:
                axis.legend(fontsize=11)
        row[0][0].set_ylabel(y)
        display(figure, alt)


def matrices(
    arrays: Mapping[str, np.ndarray],
    *,
    alt: str,
    frames: Mapping[str, tuple[int, int, int, int]] | None = None,
    cell: float = 0.46,
) -> None:
    """Show small matrices side by side with their numbers written in the cells.

    Colours are pale so that the numbers stay legible: blue below zero, red above in a matrix with
    negative entries, white to orange in one without. NaN is drawn as an empty, hatched cell.

    Args:
        arrays: title to matrix, H×W.
        alt: what a person who cannot see the picture should know.
        frames: title to (top, bottom, left, right), the ends exclusive: a thick frame drawn there.
        cell: the side of a cell in inches.
    """
    import matplotlib
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    shapes = [np.shape(array) for array in arrays.values()]
    widths = [max(shape[1] * cell, 1.6) for shape in shapes]
    tall = max(shape[0] for shape in shapes) * cell + 0.6
    with style():
        figure, axes = plt.subplots(
            1,
            len(arrays),
            figsize=(sum(widths) + 0.4 * len(widths), tall),
            width_ratios=widths,
            squeeze=False,
            layout="constrained",
        )
        for axis, (title, array) in zip(axes.flat, arrays.items(), strict=True):
            values = np.asarray(array, dtype=np.float64)
            top = 1.7 * (np.nanmax(np.abs(values), initial=0) or 1.0)
            signed = np.nanmin(values, initial=0) < 0
            colours = matplotlib.colormaps[DIVERGING if signed else "Oranges"].with_extremes(
                bad="white"
            )
            axis.imshow(np.ma.masked_invalid(values), colours, vmin=-top if signed else 0, vmax=top)
            for (i, j), value in np.ndenumerate(values):
                box: dict[str, Any] = {"fill": False, "ec": "0.75", "lw": 0.8}
                if np.isnan(value):
                    box |= {"hatch": "////"}
                else:
                    text = f"{value:.0f}" if value == round(value) else f"{value:.2g}"
                    axis.text(j, i, text.replace("-", "−"), ha="center", va="center", fontsize=13)
                axis.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **box))
            if frames and title in frames:
                y0, y1, x0, x1 = frames[title]
                axis.add_patch(
                    Rectangle(
                        (x0 - 0.5, y0 - 0.5),
                        x1 - x0,
                        y1 - y0,
                        fill=False,
                        ec="black",
                        lw=3.5,
                        clip_on=False,
                    )
                )
            axis.set_title(title)
            axis.axis("off")
            axis.set_anchor("N")
        display(figure, alt)
