"""Small matrices with the numbers in their cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislib.show.colours import DIVERGING
from vislib.show.names import name
from vislib.show.output import HEIGHT, WIDTH, figure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Window = tuple[int, int, int, int]
_CELL = 0.56
"""Largest side of a cell in inches, that is in hundreds of CSS pixels."""


def matrices(
    arrays: Mapping[str, np.ndarray | pd.DataFrame],
    *,
    frames: Mapping[str, Window] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
    caption: str = "",
    alt: str = "",
    file: str | Path | None = None,
) -> None:
    """Show small matrices side by side, with the numbers in their cells.

    Args:
        arrays: as in `matrix_figure`.
        frames: as in `matrix_figure`.
        limits: as in `matrix_figure`.
        caption: sentence below the figure, which is the alt text, too. It says the result.
        alt: alt text that is not visible, if there is no caption or if it differs.
        file: also write the figure to this file.
    """
    drawn = matrix_figure(arrays, frames=frames, limits=limits)
    figure(drawn, caption=caption, alt=alt, file=file)


def matrix_figure(
    arrays: Mapping[str, np.ndarray | pd.DataFrame],
    *,
    frames: Mapping[str, Window] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
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

    >>> figure = matrix_figure({"a": np.eye(2), "b": np.array([[-1.5, np.nan]])})
    >>> [text.get_text() for text in figure.axes[1].texts]
    ['−1.5']
    """
    named = all(hasattr(array, "columns") for array in arrays.values())
    with style():
        drawn, axes = (_table_axes if named else _array_axes)(list(arrays.values()))
        for axis, (title, array) in zip(axes, arrays.items(), strict=True):
            values = np.asarray(array, dtype=np.float64)
            scale = _extremes((limits or {}).get(title, values), zero=not named)
            _draw_cells(axis, values, scale, decimals=_decimals(values) if named else None)
            if frames and title in frames:
                _draw_frame(axis, frames[title])
            axis.set_title(title)
    return drawn


def _array_axes(arrays: Sequence[Any]) -> tuple[Figure, list[Axes]]:
    """Axes for square cells that have the same size in all matrices."""
    import matplotlib.pyplot as plt

    shapes = [np.shape(array) for array in arrays]
    rows, columns = max(shape[0] for shape in shapes), sum(shape[1] for shape in shapes)
    cell = min(_CELL, (WIDTH / 100 - 0.6 * len(arrays)) / columns, (HEIGHT / 100 - 0.8) / rows)
    # A narrow matrix gets 1.6 inches, because its title is often wider than its cells.
    widths = [max(shape[1] * cell, 1.6) for shape in shapes]
    drawn, axes = plt.subplots(
        1,
        len(arrays),
        figsize=(WIDTH / 100, rows * cell + 0.6),
        width_ratios=widths,
        squeeze=False,
        layout="constrained",
    )
    for axis, shape, width in zip(axes.flat, shapes, widths, strict=True):
        margin = (width / cell - shape[1]) / 2
        axis.set(xlim=(-0.5 - margin, shape[1] - 0.5 + margin), ylim=(rows - 0.5, -0.5))
        axis.set_aspect("equal", anchor="N")
        axis.axis("off")
    return drawn, list(axes.flat)


def _table_axes(tables: Sequence[Any]) -> tuple[Figure, list[Axes]]:
    """Axes with the names of rows and columns."""
    import matplotlib.pyplot as plt

    same_rows = all(list(table.index) == list(tables[0].index) for table in tables)
    height = 0.32 * max(len(table) for table in tables) + 1.3
    drawn, axes = plt.subplots(
        1,
        len(tables),
        figsize=(WIDTH / 100, min(height, HEIGHT / 100)),
        width_ratios=[table.shape[1] for table in tables],
        squeeze=False,
        layout="constrained",
    )
    for number, (axis, table) in enumerate(zip(axes.flat, tables, strict=True)):
        height, width = table.shape
        rows = list(map(name, table.index)) if number == 0 or not same_rows else [""] * height
        heads = list(map(name, table.columns))
        # About 9 CSS pixels for a letter.
        fits = 9 * max(map(len, heads)) < 0.8 * WIDTH / sum(part.shape[1] for part in tables)
        turned: dict[str, Any] = {} if fits else {"rotation": 30, "ha": "left"}
        axis.xaxis.tick_top()
        axis.set_xticks(range(width), heads, **turned)
        axis.set_yticks(range(height), rows)
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    return drawn, list(axes.flat)


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
    palette, low = (DIVERGING, -top) if low < 0 else ("Oranges", low)
    colours = matplotlib.colormaps[palette].with_extremes(bad="white")
    shown = np.ma.masked_invalid(values)
    axis.imshow(shown, colours, vmin=low, vmax=top, aspect=axis.get_aspect())
    for (i, j), value in np.ndenumerate(values):
        box: dict[str, Any] = {"fill": False, "ec": "0.75", "lw": 0.8, "clip_on": False}
        if np.isnan(value):
            box |= {"hatch": "////"}
        else:
            text = _number(value, decimals).replace("-", "−")
            axis.text(j, i, text, ha="center", va="center")
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
