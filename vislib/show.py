"""Figures: attribution maps as colours, several images side by side, and alt text for every figure.

Attribution maps are raw and signed in all other modules; only this module scales them for display.
Signed maps get a diverging colour scale: blue below zero, white at zero, red above zero. Maps
without negative values get a sequential scale. Both scales suit readers with colour-vision
deficiencies. In grey print, the diverging scale shows the magnitude but not the sign.
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
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEQUENTIAL = "inferno"
DIVERGING = "RdBu_r"
# The colours of Okabe & Ito 2008, "Color Universal Design (CUD)", can be distinguished with all
# common colour-vision deficiencies.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1)), (0, (8, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
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

ImageLike = Tensor | np.ndarray | Image.Image
Window = tuple[int, int, int, int]


# --- Attribution maps as colours ------------------------------------------------------------------


def heat(maps: Tensor, *, percentile: float = 99.5) -> np.ndarray:
    """Colours of one attribution map, H×W×3.

    The channels are summed first. Zero is white in a signed map and black in any other map.

    Args:
        maps: one map, raw and signed, C×H×W or H×W.
        percentile: percentile of ``|map|`` at which the colour scale ends, from 0 to 100. A value
            below 100 keeps the map visible if a few values are far larger than all others.

    Returns:
        RGB values in [0, 1], H×W×3.

    >>> signed = torch.tensor([[-1.0, 0.0, 1.0]])
    >>> heat(signed).shape
    (1, 3, 3)
    >>> bool((heat(signed)[0, 1] > 0.96).all())  # zero is white
    True
    """
    import matplotlib

    values = maps.detach().to("cpu", torch.float64).numpy()
    values = values.sum(axis=0) if values.ndim == 3 else values
    top = np.percentile(np.abs(values), percentile) or np.abs(values).max() or 1.0
    if values.min() < 0:
        return matplotlib.colormaps[DIVERGING](0.5 + 0.5 * np.clip(values / top, -1, 1))[..., :3]
    return matplotlib.colormaps[SEQUENTIAL](np.clip(values / top, 0, 1))[..., :3]


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


def overlay(image: ImageLike, maps: Tensor, *, opacity: float = 0.55) -> np.ndarray:
    """Colours of a map over the grey image, H×W×3.

    Args:
        image: in any form that `rgb` takes, H×W pixels.
        maps: one map, C×h×w; upsampled bilinearly if its size differs from that of the image.
        opacity: weight of the colours, from 0 (only the image) to 1 (only the map).

    Returns:
        RGB values in [0, 1], H×W×3.

    >>> overlay(torch.zeros(3, 8, 8), torch.rand(1, 2, 2), opacity=0).max()
    np.float64(0.0)
    """
    pixels = rgb(image)
    grey = pixels.mean(axis=2, keepdims=True).repeat(3, axis=2)
    if maps.shape[-2:] != pixels.shape[:2]:
        maps = torch.nn.functional.interpolate(
            maps[None], size=pixels.shape[:2], mode="bilinear", align_corners=False
        )[0]
    return (1 - opacity) * grey + opacity * heat(maps, percentile=100)


def tinted(maps: Tensor, *, percentile: float = 99, blur: float = 0) -> np.ndarray:
    """Signed map whose three channels are shown as red, green and blue, with mid-grey at zero.

    The papers show the maps of the deconvnet and of guided backprop in this way.

    Args:
        maps: one map, raw and signed, 3×H×W.
        percentile: percentile of ``|map|`` at which the scale ends, from 0 to 100.
        blur: standard deviation in pixels of a Gaussian that smooths the map first.

    Returns:
        RGB values in [0, 1], H×W×3.

    >>> tinted(torch.zeros(3, 2, 2))[0, 0]
    array([0.5, 0.5, 0.5])
    """
    from scipy.ndimage import gaussian_filter

    values = gaussian_filter(maps.detach().cpu().double().numpy(), (0, blur, blur))
    size = np.abs(values)
    top = np.percentile(size, percentile) or size.max() or 1.0
    return np.moveaxis(np.clip(0.5 + 0.5 * values / top, 0, 1), 0, -1)


# --- Images ---------------------------------------------------------------------------------------


def rgb(image: ImageLike) -> np.ndarray:
    """RGB values of an image, H×W×3 in [0, 1].

    Args:
        image: a tensor 3×H×W, 1×H×W or H×W in [0, 1]; an array H×W×3 or H×W of values in [0, 1],
            bytes or booleans; or a PIL image.

    >>> rgb(torch.rand(1, 4, 6)).shape
    (4, 6, 3)
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    if isinstance(image, Tensor):
        return image.detach().cpu().double().clamp(0, 1).expand(3, -1, -1).movedim(0, -1).numpy()
    array = image / 255 if image.dtype == np.uint8 else image.astype(np.float64)
    return array if array.ndim == 3 else array[..., None].repeat(3, axis=2)


def outline(
    image: ImageLike, mask: np.ndarray, *, colour: str = COLOURS[4], width: int = 3
) -> np.ndarray:
    """Image with the border of a mask drawn on it.

    Args:
        image: in any form that `rgb` takes, H×W pixels.
        mask: boolean, H×W.
        colour: colour of matplotlib.
        width: width of the line in pixels, half of it inside the mask.

    Returns:
        RGB values in [0, 1], H×W×3.

    >>> mask = np.zeros((9, 9), dtype=bool)
    >>> mask[3:6, 3:6] = True
    >>> int((outline(np.zeros((9, 9)), mask, width=1).max(axis=2) > 0).sum())
    8
    """
    from matplotlib.colors import to_rgb
    from scipy.ndimage import binary_dilation, binary_erosion

    pixels = rgb(image).copy()
    outside = width // 2
    # SciPy reads 0 iterations as "until nothing changes".
    grown = binary_dilation(mask, iterations=outside) if outside else mask
    pixels[grown & ~binary_erosion(mask, iterations=width - outside)] = to_rgb(colour)
    return pixels


def frame(
    image: ImageLike,
    box: Sequence[float],
    *,
    colour: str = COLOURS[4],
    width: int = 2,
    dashed: bool = False,
) -> np.ndarray:
    """Image with the border of a box drawn on it, inside the box.

    Args:
        image: in any form that `rgb` takes, H×W pixels.
        box: (x, y, width, height) in pixels of the image, as in COCO. An empty box draws nothing.
        colour: colour of matplotlib.
        width: width of the line in pixels.
        dashed: whether to draw a dashed line, so that two boxes differ by more than their colours.

    Returns:
        RGB values in [0, 1], H×W×3.

    >>> framed = frame(np.zeros((9, 9)), (2, 2, 5, 5), width=1)
    >>> int((framed.max(axis=2) > 0).sum())
    16
    """
    from matplotlib.colors import to_rgb

    pixels = rgb(image).copy()
    height, wide = pixels.shape[:2]
    left, top = max(round(box[0]), 0), max(round(box[1]), 0)
    right, bottom = min(round(box[0] + box[2]), wide), min(round(box[1] + box[3]), height)
    inside, border = np.zeros((2, height, wide), dtype=bool)
    inside[top:bottom, left:right] = True
    border[top:bottom, left:right] = True
    border[top + width : bottom - width, left + width : right - width] = False
    if dashed:
        dash = max(4, wide // 24)
        rows, columns = np.indices(border.shape)
        border &= (rows - top + columns - left) // dash % 2 == 0
    pixels[border & inside] = to_rgb(colour)
    return pixels


def mosaic(
    images: Sequence[ImageLike] | Tensor, *, columns: int = 8, gap: int = 1, scale: int = 1
) -> np.ndarray:
    """Image with small images of one size as its tiles, and white between the tiles.

    Args:
        images: N images, each in a form that `rgb` takes; also a tensor N×3×h×w, N×1×h×w or N×h×w.
        columns: largest number of tiles in a row.
        gap: distance between tiles in pixels, after scaling.
        scale: side in pixels of the square that each pixel becomes.

    Returns:
        RGB values in [0, 1], H×W×3.

    >>> mosaic(torch.rand(6, 3, 4, 4), columns=3).shape  # 2 rows of 3 tiles
    (9, 14, 3)
    """
    tiles = [rgb(image).repeat(scale, axis=0).repeat(scale, axis=1) for image in images]
    height, width = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    whole = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, 3))
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = row * (height + gap), column * (width + gap)
        whole[top : top + height, left : left + width] = tile
    return whole


# --- Figures with alt text ------------------------------------------------------------------------


@contextmanager
def style() -> Iterator[None]:
    """Context manager in which matplotlib has the course's style."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def display(figure: Figure, alt: str) -> None:
    """Show a figure in the notebook with its alt text, and close it.

    A PNG keeps lines and letters sharp. A figure full of photographs would take megabytes as a PNG,
    so it is stored as JPEG if that saves more than a third.

    Args:
        figure: figure of matplotlib.
        alt: what a reader who cannot see the figure should know, in a sentence.

    Raises:
        ValueError: `alt` is empty.
    """
    import matplotlib.pyplot as plt

    _check_alt(alt)
    png = io.BytesIO()
    figure.savefig(png, format="png", bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    with Image.open(png) as pixels:
        jpeg = _jpeg(pixels)
    if 3 * len(jpeg) < 2 * len(png.getvalue()):
        _show(jpeg, "jpeg", alt)
    else:
        _show(png.getvalue(), "png", alt)


def photograph(image: ImageLike, *, alt: str) -> None:
    """Show one large image pixel for pixel, as JPEG.

    Args:
        image: in any form that `rgb` takes.
        alt: what a reader who cannot see the image should know, in a sentence.

    Raises:
        ValueError: `alt` is empty.
    """
    _check_alt(alt)
    pixels = np.uint8(np.round(255 * np.clip(rgb(image), 0, 1)))
    _show(_jpeg(Image.fromarray(pixels)), "jpeg", alt)


def _check_alt(alt: str) -> None:
    if not alt.strip():
        raise ValueError("every figure needs alt text, got none: describe what the figure shows")


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="jpeg", quality=85, optimize=True)
    return buffer.getvalue()


def _show(data: bytes, kind: str, alt: str) -> None:
    from IPython.display import Image as Shown
    from IPython.display import display as show

    show(Shown(data=data, format=kind, alt=alt))


def panels(
    images: Mapping[str, ImageLike], *, alt: str, columns: int = 5, size: float = 2.9
) -> None:
    """Show images side by side under their titles.

    Args:
        images: images by their titles, each in a form that `rgb` takes.
        alt: what a reader who cannot see the figure should know, in a sentence.
        columns: largest number of images in a row.
        size: width of an image in inches.

    Raises:
        ValueError: `alt` is empty.
    """
    display(grid(images, columns=columns, size=size), alt)


def grid(images: Mapping[str, ImageLike], *, columns: int = 5, size: float = 2.9) -> Figure:
    """Figure of `panels`, without showing it.

    Args:
        images: as in `panels`.
        columns: as in `panels`.
        size: as in `panels`.

    >>> figure = grid({"left": torch.rand(3, 8, 8), "right": torch.rand(3, 8, 8)})
    >>> [axis.get_title() for axis in figure.axes]
    ['left', 'right']
    """
    import matplotlib.pyplot as plt

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    arrays = [rgb(image) for image in images.values()]
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
        for axis, title, array in zip(axes.flat, images, arrays, strict=False):
            axis.imshow(array, interpolation="nearest")
            axis.set_title(title)
    return figure


# --- Curves ---------------------------------------------------------------------------------------


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
    """Show curves in one or several axes side by side.

    The curves differ by colour, dashes and markers. If all x values are whole numbers, the
    ticks are whole numbers too.

    Args:
        axes: curves of each axis by its title. The curves are (x values, y values) by their labels.
        alt: what a reader who cannot see the figure should know, in a sentence.
        x: label of the x axes.
        y: label of the first y axis.
        log: which axes are logarithmic: ``"x"``, ``"y"``, ``"xy"`` or none.
        size: width and height of one axis in inches.
        **limits: arguments for ``Axes.set``, such as ``ylim=(0, 1)``.

    Raises:
        ValueError: `alt` is empty.
    """
    import matplotlib.pyplot as plt

    width, height = size
    with style():
        figure, row = plt.subplots(
            1, len(axes), figsize=(width * len(axes), height), squeeze=False, layout="constrained"
        )
        for axis, (title, lines) in zip(row[0], axes.items(), strict=True):
            _draw_lines(axis, lines, log)
            axis.set(title=title, xlabel=x, **limits)
        row[0][0].set_ylabel(y)
        display(figure, alt)


def _draw_lines(axis: Axes, lines: Mapping[str, tuple[Any, Any]], log: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, (label, (across, up)) in enumerate(lines.items()):
        axis.plot(
            across,
            up,
            lw=2.4,
            color=COLOURS[number % len(COLOURS)],
            ls=_DASHES[number % len(_DASHES)],
            marker=_MARKERS[number % len(_MARKERS)],
            markevery=_marked(across, number / len(lines), log="x" in log),
            ms=7,
            label=label,
        )
    axis.set(xscale="log" if "x" in log else "linear")
    whole = all(np.all(np.mod(across, 1) == 0) for across, _ in lines.values())
    if whole and "x" not in log:
        axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    axis.set(yscale="log" if "y" in log else "linear")
    axis.grid(alpha=0.3)
    if len(lines) > 1:
        axis.legend(fontsize=11)


def _marked(across: Any, shift: float, *, log: bool) -> list[int]:
    """Points of a line that get a marker: all of up to 15 points, otherwise about 8.

    These 8 points have equal distances in the figure, also on a logarithmic axis. `shift`, from 0
    to 1, moves them along the line, so that markers of different lines do not cover each other.
    """
    count = len(across)
    if count <= 15:
        return list(range(count))
    if not log:
        every = count // 8
        return list(range(int(shift * every), count, every))
    positions = np.log(np.asarray(across, dtype=np.float64))
    targets = np.linspace(positions[0], positions[-1], 9)[:-1]
    targets = targets + shift * (targets[1] - targets[0])
    return sorted({int(np.abs(positions - target).argmin()) for target in targets})


# --- Matrices -------------------------------------------------------------------------------------


def matrices(
    arrays: Mapping[str, np.ndarray | pd.DataFrame],
    *,
    alt: str,
    frames: Mapping[str, Window] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
    cell: float = 0.46,
) -> None:
    """Show small matrices side by side, with the numbers in their cells.

    Args:
        arrays: as in `matrix_figure`.
        alt: what a reader who cannot see the figure should know, in a sentence.
        frames: as in `matrix_figure`.
        limits: as in `matrix_figure`.
        cell: width of a cell in inches.

    Raises:
        ValueError: `alt` is empty.
    """
    display(matrix_figure(arrays, frames=frames, limits=limits, cell=cell), alt)


def matrix_figure(
    arrays: Mapping[str, np.ndarray | pd.DataFrame],
    *,
    frames: Mapping[str, Window] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
    cell: float = 0.46,
) -> Figure:
    """Figure of `matrices`: arrays, or data frames with the names of rows and columns.

    The colours are pale, so that the numbers are legible. A matrix with negative entries is blue
    below zero and red above zero; any other matrix goes from white to orange. A cell with NaN is
    empty and hatched.

    Args:
        arrays: matrices H×W by their titles. If all are data frames, the names of rows and columns
            are written beside the cells. Row names that all data frames share are written once.
        frames: cells that get a thick frame, by the title of the matrix: (top, bottom, left,
            right), with exclusive ends.
        limits: (lowest, highest) value of the colour scale, by the title of the matrix; by default
            0 and the extremes of the matrix, or only the extremes in a data frame. Figures that
            show the same quantity need the same limits.
        cell: width of a cell in inches. The height is the same, or 0.55 of it in a data frame.

    >>> figure = matrix_figure({"a": np.eye(2), "b": np.array([[-1.5, np.nan]])})
    >>> [text.get_text() for text in figure.axes[1].texts]
    ['−1.5']
    """
    named = all(hasattr(array, "columns") for array in arrays.values())
    with style():
        figure, axes = (_table_axes if named else _array_axes)(list(arrays.values()), cell)
        for axis, (title, array) in zip(axes, arrays.items(), strict=True):
            values = np.asarray(array, dtype=np.float64)
            scale = _extremes((limits or {}).get(title, values), zero=not named)
            _draw_cells(axis, values, scale, decimals=_decimals(values) if named else None)
            if frames and title in frames:
                _draw_frame(axis, frames[title])
            axis.set_title(title)
    return figure


def _array_axes(arrays: Sequence[Any], cell: float) -> tuple[Figure, list[Axes]]:
    """Axes for square cells that have the same size in all matrices."""
    import matplotlib.pyplot as plt

    shapes = [np.shape(array) for array in arrays]
    # A narrow matrix gets 1.6 inches, because its title is often wider than its cells.
    widths = [max(shape[1] * cell, 1.6) for shape in shapes]
    rows = max(shape[0] for shape in shapes)
    figure, axes = plt.subplots(
        1,
        len(arrays),
        figsize=(sum(widths) + 0.4 * len(widths), rows * cell + 0.6),
        width_ratios=widths,
        squeeze=False,
        layout="constrained",
    )
    for axis, shape, width in zip(axes.flat, shapes, widths, strict=True):
        margin = (width / cell - shape[1]) / 2
        axis.set(xlim=(-0.5 - margin, shape[1] - 0.5 + margin), ylim=(rows - 0.5, -0.5))
        axis.set_aspect("equal", anchor="N")
        axis.axis("off")
    return figure, list(axes.flat)


def _table_axes(tables: Sequence[Any], cell: float) -> tuple[Figure, list[Axes]]:
    """Axes with the names of rows and columns."""
    import matplotlib.pyplot as plt

    same_rows = all(list(table.index) == list(tables[0].index) for table in tables)
    longest = max(len(str(name)) for table in tables for name in table.index)
    width = cell * sum(table.shape[1] for table in tables)
    names = 0.11 * longest * (1 if same_rows else len(tables)) + 0.4 * len(tables)
    height = 0.55 * cell * max(len(table) for table in tables)
    figure, axes = plt.subplots(
        1,
        len(tables),
        figsize=(width + names, height + 1.3),
        width_ratios=[table.shape[1] for table in tables],
        squeeze=False,
        layout="constrained",
    )
    for number, (axis, table) in enumerate(zip(axes.flat, tables, strict=True)):
        height, width = table.shape
        rows = table.index if number == 0 or not same_rows else [""] * height
        axis.set_xticks(range(width), table.columns, rotation=30, ha="right")
        axis.set_yticks(range(height), rows)
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    return figure, list(axes.flat)


def _extremes(values: Any, *, zero: bool) -> tuple[float, float]:
    """Lowest and highest number; with `zero`, zero counts as one of the numbers."""
    if zero:
        return np.nanmin(values, initial=0), np.nanmax(values, initial=0)
    return np.nanmin(values), np.nanmax(values)


def _decimals(values: np.ndarray) -> int:
    """Number of decimals for all numbers of a table: 0 if all are whole numbers, else 2."""
    return 0 if np.all(np.isnan(values) | (values == values.round())) else 2


def _draw_cells(
    axis: Axes, values: np.ndarray, scale: tuple[float, float], decimals: int | None
) -> None:
    """Draw pale colours on a `scale` (lowest, highest), and write the numbers on them."""
    import matplotlib
    from matplotlib.patches import Rectangle

    low, top = scale[0], 1.7 * max(abs(scale[0]), abs(scale[1])) or 1.0
    name, low = (DIVERGING, -top) if low < 0 else ("Oranges", low)
    colours = matplotlib.colormaps[name].with_extremes(bad="white")
    shown = np.ma.masked_invalid(values)
    axis.imshow(shown, colours, vmin=low, vmax=top, aspect=axis.get_aspect())
    for (i, j), value in np.ndenumerate(values):
        box: dict[str, Any] = {"fill": False, "ec": "0.75", "lw": 0.8}
        if np.isnan(value):
            box |= {"hatch": "////"}
        else:
            text = _number(value, decimals).replace("-", "−")
            axis.text(j, i, text, ha="center", va="center", fontsize=13)
        axis.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **box))


def _number(value: float, decimals: int | None) -> str:
    """Number as text, with `decimals`; for None as a whole number or with two digits."""
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{value:.0f}" if value == round(value) else f"{value:.2g}"


def _draw_frame(axis: Axes, frame: Window) -> None:
    from matplotlib.patches import Rectangle

    top, bottom, left, right = frame
    corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
    axis.add_patch(Rectangle(corner, *size, fill=False, ec="black", lw=3.5, clip_on=False))
