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
    from collections.abc import Iterator, Sequence

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


def coarse(maps: Tensor, block: int) -> Tensor:
    """A C×H×W map in squares of block×block pixels: 1×⌈H/block⌉×⌈W/block⌉, for a small picture.

    Channels are added up, then each square shows its value of largest magnitude, with its sign. A
    fine map would lose its single pixels, or mix red and blue, where the picture is shown smaller.
    """
    total = maps.sum(dim=0, keepdim=True)
    top, low = (
        torch.nn.functional.max_pool2d(sign * total, block, ceil_mode=True) for sign in (1, -1)
    )
    return torch.where(top >= low, top, -low)


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
    """Show a matplotlib figure in the notebook with its `alt` text, and close it.

    `alt` says in a sentence what a person who cannot see the picture should know. ``ValueError``
    without it. Lines and letters are sharp and small as PNG; a figure full of photographs takes
    megabytes so, and is stored as JPEG where that saves a third or more.
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


def _check_alt(alt: str) -> None:
    if not alt.strip():
        raise ValueError("every figure needs alt text: say what the picture shows")


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="jpeg", quality=85, optimize=True)
    return buffer.getvalue()


def _show(data: bytes, kind: str, alt: str) -> None:
    from IPython.display import Image as Shown
    from IPython.display import display as show

    show(Shown(data=data, format=kind, alt=alt))


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

    The lines differ by colour, dashes and marks (a few on each line, at the same distance on paper
    also where x is logarithmic). Whole numbers along x get whole ticks. `x` and `y` name the axes,
    `log` (``"y"``, ``"x"``, ``"xy"``) makes them logarithmic, `limits` goes to ``Axes.set``
    (``ylim=…``).
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    width, height = size
    with style():
        figure, row = plt.subplots(
            1, len(axes), figsize=(width * len(axes), height), squeeze=False, layout="constrained"
        )
        for axis, (title, lines) in zip(row[0], axes.items(), strict=True):
            for number, (label, (across, up)) in enumerate(lines.items()):
                axis.plot(
                    across,
                    up,
                    lw=2.4,
                    color=COLOURS[number % len(COLOURS)],
                    ls=_DASHES[number % len(_DASHES)],
                    marker=_MARKS[number % len(_MARKS)],
                    markevery=_marked(across, number / len(lines), log="x" in log),
                    ms=7,
                    label=label,
                )
            axis.set(title=title, xlabel=x, xscale="log" if "x" in log else "linear")
            whole = all(np.all(np.mod(across, 1) == 0) for across, _ in lines.values())
            if whole and "x" not in log:
                axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
            axis.set(yscale="log" if "y" in log else "linear", **limits)
            axis.grid(alpha=0.3)
            if len(lines) > 1:
                axis.legend(fontsize=11)
        row[0][0].set_ylabel(y)
        display(figure, alt)


def _marked(across: Any, shift: float, *, log: bool) -> list[int]:
    """Which points of a line get a mark: all of up to 15, else about 8, the first after `shift`."""
    count = len(across)
    if count <= 15:
        return list(range(count))
    if not log:
        every = count // 8
        return list(range(int(shift * every), count, every))
    places = np.log(np.asarray(across, dtype=np.float64))
    wanted = np.linspace(places[0], places[-1], 9)[:-1]
    wanted = wanted + shift * (wanted[1] - wanted[0])
    return sorted({int(np.abs(places - place).argmin()) for place in wanted})


def matrices(
    arrays: Mapping[str, np.ndarray],
    *,
    alt: str,
    frames: Mapping[str, tuple[int, int, int, int]] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
    cell: float = 0.46,
) -> None:
    """Show small matrices side by side with their numbers written in the cells.

    All cells have the same size. Colours are pale so that the numbers stay legible: blue below
    zero, red above in a matrix with negative entries, white to orange in one without. NaN is drawn
    as an empty, hatched cell.

    Args:
        arrays: title to matrix, H×W.
        alt: what a person who cannot see the picture should know.
        frames: title to (top, bottom, left, right), the ends exclusive: a thick frame drawn there.
        limits: title to the (lowest, highest) value that the colours are for. By default those of
            the matrix itself; give them where figures that belong together are to be compared.
        cell: the side of a cell in inches.
    """
    import matplotlib
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    shapes = [np.shape(array) for array in arrays.values()]
    widths = [max(shape[1] * cell, 1.6) for shape in shapes]
    rows = max(shape[0] for shape in shapes)
    with style():
        figure, axes = plt.subplots(
            1,
            len(arrays),
            figsize=(sum(widths) + 0.4 * len(widths), rows * cell + 0.6),
            width_ratios=widths,
            squeeze=False,
            layout="constrained",
        )
        for axis, (title, array), width in zip(axes.flat, arrays.items(), widths, strict=True):
            values = np.asarray(array, dtype=np.float64)
            colour_range = (limits or {}).get(title, values)
            top = 1.7 * (np.nanmax(np.abs(colour_range), initial=0) or 1.0)
            signed = np.nanmin(colour_range, initial=0) < 0
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
            beside = (width / cell - values.shape[1]) / 2  # a narrow matrix under a wide title
            axis.set(xlim=(-0.5 - beside, values.shape[1] - 0.5 + beside), ylim=(rows - 0.5, -0.5))
            axis.set_title(title)
            axis.axis("off")
            axis.set_anchor("N")
        display(figure, alt)


def mosaic(
    pictures: Sequence[Picture] | Tensor, *, columns: int = 8, gap: int = 1, scale: int = 1
) -> np.ndarray:
    """Many small pictures of one size as tiles of one: H×W×3 in [0, 1], white between the tiles.

    Args:
        pictures: N of them, each as `picture` takes it; a tensor N×3×h×w, N×1×h×w or N×h×w too.
        columns: tiles in a row.
        gap: pixels between tiles, after scaling.
        scale: each pixel becomes this many to a side.
    """
    tiles = [picture(one).repeat(scale, axis=0).repeat(scale, axis=1) for one in pictures]
    height, width = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    whole = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, 3))
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = row * (height + gap), column * (width + gap)
        whole[top : top + height, left : left + width] = tile
    return whole


def tinted(maps: Tensor, *, percentile: float = 99, blur: float = 0) -> np.ndarray:
    """A signed 3×H×W map in its own three colours, zero mid-grey: H×W×3 floats in [0, 1].

    The look of the deconvnet's and guided backprop's pictures in the literature. The scale ends at
    the given percentile of ``|map|``; `blur` smooths with a Gaussian of so many pixels first.
    """
    from scipy.ndimage import gaussian_filter

    values = gaussian_filter(maps.detach().cpu().double().numpy(), (0, blur, blur))
    size = np.abs(values)
    top = np.percentile(size, percentile) or size.max() or 1.0
    return np.moveaxis(np.clip(0.5 + 0.5 * values / top, 0, 1), 0, -1)


def frame(
    image: Picture,
    box: Sequence[float],
    *,
    colour: str = COLOURS[4],
    width: int = 2,
    dashed: bool = False,
) -> np.ndarray:
    """The image with the border of a box drawn in, H×W×3 in [0, 1].

    `box` is COCO's (x, y, width, height) in pixels of the image; the border lies inside it. Draw
    one of two boxes dashed, so that they differ by more than colour. An empty box draws nothing.
    """
    from matplotlib.colors import to_rgb

    rgb = picture(image).copy()
    height, wide = rgb.shape[:2]
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
    rgb[border & inside] = to_rgb(colour)
    return rgb


def photograph(image: Picture, *, alt: str) -> None:
    """Show one large picture pixel for pixel, as JPEG."""
    _check_alt(alt)
    pixels = np.uint8(np.round(255 * np.clip(picture(image), 0, 1)))
    _show(_jpeg(Image.fromarray(pixels)), "jpeg", alt)
