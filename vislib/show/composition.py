"""Bitmaps of figures: layout, outlines, heads and key.

Every figure is 1,050 CSS pixels wide and at most 600 high. Each pixel of an image becomes a square
of k×k pixels of the bitmap, with the largest whole number k that fits. A larger image, whose pixels
would be smaller than a CSS pixel (k < 2), is resized smoothly to its panel, because nobody can see
its single pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageFont
from torch import Tensor

from vislib.show import colours
from vislib.show.names import name
from vislib.show.output import DPI, HEIGHT, RATIO, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Masks = Mapping[str, np.ndarray | Tensor]

# All lengths are in pixels of the bitmap.
_WIDE, _HIGH = WIDTH * RATIO, HEIGHT * RATIO
_MARGIN, _GAP, _LINE, _FONT, _KEY = 12, 24, 42, 34, 64
_LARGEST = 900  # side of a panel, if there are several
_TARGET = "#D55E00"
_OTHERS = ("#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7")
_LINES: dict[str, Any] = {"-": "-", "--": (0, (2.6, 1.4))}
_KEYS: dict[str, tuple[tuple[str, ...], str]] = {
    "overlay": (("#FFFFFF", colours.HUE), "map, above 15 % of its maximum"),
    "fine": (("#FFFFFF", "#000000"), "magnitude of the map"),
    "signed": ((colours.NEGATIVE, "#F7F7F7", colours.POSITIVE), "below and above 0"),
    "rgb": (("#000000", "#808080", "#FFFFFF"), "below and above 0, for each colour"),
}


@dataclass(frozen=True)
class Panel:
    """One image of a figure.

    Attributes:
        pixels: RGB values in [0, 1], H×W×3.
        masks: masks of the objects whose outlines are drawn, H×W, by their names.
        target: name of the mask whose outline is solid; all others are dashed.
        note: text below the image, such as "P = 0.42".
        look: look of the map in the image, for the key; empty for an image.
    """

    pixels: np.ndarray
    masks: Masks = field(default_factory=dict)
    target: str = ""
    note: str = ""
    look: str = ""


Rows = list[dict[str, Panel]]


class Layout(NamedTuple):
    """Sizes of the parts of a figure.

    Attributes:
        rows: panels of each row, by their heads.
        row_heads: heads of the rows; empty if the panels are not a grid.
        heads: lines of the heads above each row; 0 for a row without heads.
        box: height and width of a panel.
        gap: distance between two panels of a row.
        side: width of the heads of the rows.
        note: height of the notes below the panels.
        key: height of the key at the bottom.
    """

    rows: Rows
    row_heads: list[str]
    heads: list[int]
    box: tuple[int, int]
    gap: int
    side: int
    note: int
    key: int

    @property
    def height(self) -> int:
        """Height of the figure."""
        inner = len(self.rows) * (self.box[0] + self.note) + _LINE * sum(self.heads)
        return 2 * _MARGIN + inner + _GAP * (len(self.rows) - 1) + self.key

    def positions(self) -> Iterator[tuple[int, int, int, str, Panel]]:
        """Row number, top, left, head and panel of each panel."""
        top = _MARGIN
        most = max(len(row) for row in self.rows)
        for number, row in enumerate(self.rows):
            top += _LINE * self.heads[number]
            count = most if self.row_heads else len(row)
            width = count * self.box[1] + (count - 1) * self.gap
            left = self.side + (_WIDE - self.side - width) // 2
            for head, panel in row.items():
                yield number, top, left, head, panel
                left += self.box[1] + self.gap
            top += self.box[0] + self.note + _GAP


def compose(rows: Mapping[str, Any], columns: int | None = None) -> Image.Image:
    """Bitmap of a figure.

    Args:
        rows: panels by their heads, or for a grid one such mapping for each row.
        columns: number of panels in a row, if `rows` is not a grid.

    Raises:
        ValueError: a mask does not have the size of its image.
    """
    layout = _lay_out(rows, columns)
    for *_, panel in layout.positions():
        for title, mask in panel.masks.items():
            if tuple(mask.shape) != panel.pixels.shape[:2]:
                sizes = [f"{size[0]}×{size[1]}" for size in (panel.pixels.shape, mask.shape)]
                raise ValueError(
                    f"mask {title!r} must have the size of its image, {sizes[0]}, got {sizes[1]}: "
                    "resize the mask with the image, by nearest neighbour"
                )
    return _paint(layout)


# --- Layout ---------------------------------------------------------------------------------------


def _lay_out(rows: Mapping[str, Any], columns: int | None) -> Layout:
    """Layout with the fewest rows in which the panels are nearly as large as possible."""
    if all(isinstance(row, Mapping) for row in rows.values()):
        return _sized([dict(row) for row in rows.values()], [name(head) for head in rows])
    counts = range(1, len(rows) + 1) if columns is None else [min(columns, len(rows))]
    layouts = [_sized(_chunks(dict(rows), count), []) for count in counts]

    def worth(layout: Layout) -> float:
        ragged = len(layout.rows[-1]) < len(layout.rows[0])
        return (0.8 if ragged else 1) * layout.box[1]

    # The layouts go from one column to one row.
    best = max(map(worth, layouts))
    return next(layout for layout in reversed(layouts) if worth(layout) >= 0.75 * best)


def _chunks(panels: dict[str, Panel], count: int) -> Rows:
    items = list(panels.items())
    return [dict(items[start : start + count]) for start in range(0, len(items), count)]


def _sized(rows: Rows, row_heads: list[str]) -> Layout:
    """Layout of these rows. The lines of the heads depend on the size, and the size on them."""
    same = bool(row_heads) and all(list(row) == list(rows[0]) for row in rows)
    drawn = [1 if (number == 0 or not same) and any(row) else 0 for number, row in enumerate(rows)]
    layout = _fitted(rows, row_heads, drawn)
    for _ in range(2):
        heads = [
            count and max(len(_wrapped(head, layout.box[1] + layout.gap)) for head in row)
            for count, row in zip(drawn, rows, strict=True)
        ]
        layout = _fitted(rows, row_heads, heads, layout.box)
    return layout


def _fitted(
    rows: Rows, row_heads: list[str], heads: list[int], box: tuple[int, int] = (_HIGH, _WIDE)
) -> Layout:
    panels = [panel for row in rows for panel in row.values()]
    note = _LINE * any(panel.note for panel in panels)
    key = _LINE * len(_key_lines(panels)) + _LINE // 2 + 8 if _key_items(panels) else 0
    turned = max((len(_wrapped(head, box[0])) for head in row_heads if head), default=0)
    side = _LINE * turned + _GAP * bool(turned)
    most = max(len(row) for row in rows)
    free = Layout(rows, row_heads, heads, (0, 0), 0, side, note, key)
    cell = (
        (_HIGH - free.height) // len(rows),
        (_WIDE - 2 * _MARGIN - side - (most - 1) * _GAP) // most,
    )
    if len(panels) > 1:
        cell = (min(cell[0], _LARGEST), min(cell[1], _LARGEST))
    tallest, widest = (max(panel.pixels.shape[axis] for panel in panels) for axis in (0, 1))
    scale = _scale((tallest, widest), cell)
    box = (round(tallest * scale), round(widest * scale))
    room = _WIDE - 2 * _MARGIN - side - most * box[1]
    gap = min(room // max(most - 1, 1), max(_GAP, box[1] // 3))
    return free._replace(box=box, gap=gap)


def _scale(size: Sequence[int], cell: Sequence[int]) -> float:
    """Largest whole number by which an image can be enlarged to fit, or a number below 2."""
    scale = min(cell[0] / size[0], cell[1] / size[1])
    return int(scale) if scale >= RATIO else scale


# --- Text and key ---------------------------------------------------------------------------------


@cache
def _font() -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), _FONT)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of a text that are narrower than `width`, as far as spaces and hyphens allow."""
    lines = []
    for part in map(name, text.split("\n")):
        lines.append("")
        for word in re.findall(r"[^\s-]+-?\s*|-", part):
            if lines[-1] and _font().getlength((lines[-1] + word).rstrip()) > width:
                lines.append("")
            lines[-1] += word
    return [line.rstrip() for line in lines]


class _KeyItem(NamedTuple):
    colours: tuple[str, ...]
    text: str
    line: str = ""

    @property
    def width(self) -> int:
        return round(_font().getlength(self.text)) + 180


def _key_items(panels: Sequence[Panel]) -> list[_KeyItem]:
    """Entries of the key: the outlines by their names, and the looks of the maps."""
    items = {}
    for panel in panels:
        for title, colour, line in _outlines(panel):
            items[title] = _KeyItem((colour,), title, line)
        for look in filter(None, panel.look.split()[:1]):
            items[f"look {look}"] = _KeyItem(*_KEYS[look])
    return list(items.values())


def _key_lines(panels: Sequence[Panel]) -> list[list[_KeyItem]]:
    lines: list[list[_KeyItem]] = [[]]
    for item in _key_items(panels):
        if lines[-1] and sum(other.width for other in lines[-1]) + item.width > _WIDE:
            lines.append([])
        lines[-1].append(item)
    return lines


def _outlines(panel: Panel) -> Iterator[tuple[str, str, str]]:
    """Name, colour and kind of line of each outline."""
    others = [title for title in panel.masks if title != panel.target]
    for title in panel.masks:
        if title == panel.target:
            yield title, _TARGET, "-"
        else:
            yield title, _OTHERS[others.index(title) % len(_OTHERS)], "--"


# --- Painting -------------------------------------------------------------------------------------


def _paint(layout: Layout) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = np.full((layout.height, _WIDE, 3), 255, dtype=np.uint8)
    size = (_WIDE / DPI, layout.height / DPI)
    figure = Figure(figsize=size, dpi=DPI, facecolor="none")
    axis = figure.add_axes((0, 0, 1, 1), facecolor="none")
    axis.set(xlim=(0, _WIDE), ylim=(layout.height, 0))
    axis.axis("off")
    for number, top, left, head, panel in layout.positions():
        pixels, scale = _enlarged(panel.pixels, layout.box)
        high, wide = pixels.shape[:2]
        y, x = top + (layout.box[0] - high) // 2, left + (layout.box[1] - wide) // 2
        canvas[y : y + high, x : x + wide] = pixels
        _draw_border(axis, y, x, high, wide)
        for title, colour, line in _outlines(panel):
            _draw_outline(axis, panel.masks[title], (y, x), scale, colour, line)
        middle = left + layout.box[1] / 2
        if layout.heads[number]:
            lines = "\n".join(_wrapped(head, layout.box[1] + layout.gap))
            _write(axis, middle, top - _LINE / 3, lines, va="baseline")
        _write(axis, middle, top + layout.box[0] + _LINE / 8, panel.note, va="top")
    _draw_row_heads(axis, layout)
    _draw_key(axis, layout)
    agg = FigureCanvasAgg(figure)
    agg.draw()
    ink = Image.fromarray(np.asarray(agg.buffer_rgba()))
    return Image.alpha_composite(Image.fromarray(canvas).convert("RGBA"), ink).convert("RGB")


def _enlarged(pixels: np.ndarray, box: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Pixels at the size of a box, in bytes, and the factor by which they are larger."""
    values = np.uint8(np.round(255 * np.clip(pixels, 0, 1)))
    scale = _scale(pixels.shape, box)
    if scale >= RATIO:
        return values.repeat(int(scale), axis=0).repeat(int(scale), axis=1), scale
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    smooth = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(values).resize(size, smooth)), scale


def _points(pixels: float) -> float:
    return pixels * 72 / DPI


def _write(axis: Axes, x: float, y: float, text: str, **options: Any) -> None:
    if text:
        look: dict[str, Any] = {"ha": "center", "fontsize": _points(_FONT), "linespacing": 1.1}
        axis.text(x, y, text, parse_math=False, color="black", **look | options)


def _draw_border(axis: Axes, top: int, left: int, height: int, width: int) -> None:
    """Thin grey line around a panel, because the ground of many maps is white."""
    from matplotlib.patches import Rectangle

    corner = (left - 1, top - 1)
    border = Rectangle(corner, width + 2, height + 2, fill=False, ec="0.7", lw=_points(2))
    axis.add_patch(border)


def _draw_outline(
    axis: Axes,
    mask: np.ndarray | Tensor,
    corner: tuple[int, int],
    scale: float,
    colour: str,
    line: str,
) -> None:
    """Draw the border of a mask as a smooth line with a white edge."""
    from skimage.measure import find_contours

    inside = np.pad(np.asarray(mask, dtype=np.float64), 2)
    softened = colours.blurred(inside, 0.8)
    # The blur removes lines and points of single pixels, which then keep their exact border.
    for contour in find_contours(softened if softened.max() > 0.6 else inside, 0.5):
        y, x = corner[0] + (contour[:, 0] - 1.5) * scale, corner[1] + (contour[:, 1] - 1.5) * scale
        axis.plot(x, y, color="white", lw=_points(10), alpha=0.8, solid_joinstyle="round")
        axis.plot(x, y, color=colour, lw=_points(5.5), ls=_LINES[line], solid_joinstyle="round")


def _draw_row_heads(axis: Axes, layout: Layout) -> None:
    tops: dict[int, tuple[int, int]] = {}
    for number, top, left, _, _ in layout.positions():
        tops.setdefault(number, (top, left))
    for head, (top, left) in zip(layout.row_heads, tops.values(), strict=False):
        x, y = left - _GAP / 2, top + layout.box[0] / 2
        lines = "\n".join(_wrapped(head, layout.box[0]))
        _write(axis, x, y, lines, rotation=90, ha="right", va="center")


def _draw_key(axis: Axes, layout: Layout) -> None:
    """Write the key at the bottom, in the middle."""
    panels = [panel for *_, panel in layout.positions()]
    y = layout.height - layout.key + _LINE
    for items in _key_lines(panels):
        x = (_WIDE - sum(item.width for item in items)) / 2 + 20
        for item in items:
            if item.line:
                look = {"color": item.colours[0], "ls": _LINES[item.line]}
                axis.plot([x, x + 100], [y, y], lw=_points(6), **look)
            else:
                _draw_scale(axis, x, y, item.colours)
            _write(axis, x + 116, y, item.text, ha="left", va="center_baseline")
            x += item.width
        y += _LINE


def _draw_scale(axis: Axes, x: float, y: float, ends: Sequence[str]) -> None:
    """Bar of 100 pixels whose colour goes from one of the colours to the next."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    scale = LinearSegmentedColormap.from_list("key", list(ends))
    for step in range(25):
        axis.add_patch(Rectangle((x + 4 * step, y - 12), 4, 24, color=scale(step / 24), lw=0))
    axis.add_patch(Rectangle((x, y - 12), 100, 24, fill=False, ec="0.7", lw=_points(2)))
