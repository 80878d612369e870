"""Charts: curves, and dots with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislib.show.colours import COLOURS
from vislib.show.names import name
from vislib.show.output import HEIGHT, WIDTH, figure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1)), (0, (8, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_PITCH = (19, 34)
"""Smallest and usual distance between two rows of a chart with intervals, in CSS pixels."""


# --- Curves ---------------------------------------------------------------------------------------


def curves(
    axes: Mapping[str, Mapping[str, tuple[Any, Any]]],
    *,
    x: str = "",
    y: str = "",
    log: str = "",
    height: int = 420,
    caption: str = "",
    alt: str = "",
    file: str | Path | None = None,
    **limits: Any,
) -> None:
    """Show curves in one or several axes side by side, with one legend.

    The curves differ by colour, dashes and markers; a label has the same look in all axes. If all x
    values are whole numbers, the ticks are whole numbers too.

    Args:
        axes: curves of each axis by its title. The curves are (x values, y values) by their labels.
        x: label of the x axes.
        y: label of the first y axis.
        log: which axes are logarithmic: ``"x"``, ``"y"``, ``"xy"`` or none.
        height: height of the figure in CSS pixels, at most 600.
        caption: sentence below the figure, which is the alt text, too. It says the result.
        alt: alt text that is not visible, if there is no caption or if it differs.
        file: also write the figure to this file.
        **limits: arguments for ``Axes.set``, such as ``ylim=(0, 1)``.
    """
    import matplotlib.pyplot as plt

    labels = list(dict.fromkeys(label for lines in axes.values() for label in lines))
    with style():
        size = (WIDTH / 100, min(height, HEIGHT) / 100)
        drawn, row = plt.subplots(1, len(axes), figsize=size, squeeze=False, layout="constrained")
        for axis, (title, lines) in zip(row[0], axes.items(), strict=True):
            _draw_lines(axis, lines, log, labels)
            axis.set(title=title, xlabel=x, **limits)
        row[0][0].set_ylabel(y)
        if len(labels) > 1:
            handles = {h.get_label(): h for axis in row[0] for h in axis.lines}
            where = "right" if len(axes) == 1 else "below"
            _legend(drawn, [handles[label] for label in labels], labels, where)
        figure(drawn, caption=caption, alt=alt, file=file)


def _legend(drawn: Figure, handles: Sequence[Any], labels: Sequence[str], where: str) -> None:
    """One legend for a figure, above, below or right of its axes."""
    names = [name(label) for label in labels]
    if where == "right" and max(map(len, names)) <= 24:
        drawn.legend(handles, names, loc="outside right upper")
        return
    # About 9 CSS pixels for a letter, and 60 for the line.
    columns = max(1, WIDTH // (60 + 9 * max(map(len, names))))
    loc: Any = "outside upper center" if where == "above" else "outside lower center"
    drawn.legend(handles, names, loc=loc, ncols=min(columns, len(names)))


def _draw_lines(
    axis: Axes, lines: Mapping[str, tuple[Any, Any]], log: str, labels: Sequence[str]
) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, (label, (across, up)) in enumerate(lines.items()):
        look = labels.index(label)
        axis.plot(
            across,
            up,
            lw=2.4,
            color=COLOURS[look % len(COLOURS)],
            ls=_DASHES[look % len(_DASHES)],
            marker=_MARKERS[look % len(_MARKERS)],
            markevery=_marked(across, number / len(lines), log="x" in log),
            ms=7,
            label=label,
        )
    axis.set(xscale="log" if "x" in log else "linear", yscale="log" if "y" in log else "linear")
    whole = all(np.all(np.mod(across, 1) == 0) for across, _ in lines.values())
    if whole and "x" not in log:
        locator = MaxNLocator(16, integer=True, steps=[1, 2, 5, 10], min_n_ticks=2)
        axis.xaxis.set_major_locator(locator)
    axis.margins(x=0.02)
    axis.grid(alpha=0.3)


def _marked(across: Any, shift: float, *, log: bool) -> list[int]:
    """Points of a line that get a marker: all of up to 26 points, otherwise about 8.

    These 8 points have equal distances in the figure, also on a logarithmic axis. `shift`, from 0
    to 1, moves them along the line, so that markers of different lines do not cover each other.
    """
    count = len(across)
    if count <= 26:
        return list(range(count))
    if not log:
        every = count // 8
        return list(range(int(shift * every), count, every))
    positions = np.log(np.asarray(across, dtype=np.float64))
    targets = np.linspace(positions[0], positions[-1], 9)[:-1]
    targets = targets + shift * (targets[1] - targets[0])
    return sorted({int(np.abs(positions - target).argmin()) for target in targets})


# --- Dots with intervals --------------------------------------------------------------------------


def intervals(
    data: pd.DataFrame,
    *,
    caption: str = "",
    alt: str = "",
    file: str | Path | None = None,
    **options: Any,
) -> None:
    """Show values as dots with their intervals, one row for each method, in one or more panels.

    Args:
        data: as in `interval_figure`.
        caption: sentence below the figure, which is the alt text, too. It says the result.
        alt: alt text that is not visible, if there is no caption or if it differs.
        file: also write the figure to this file.
        **options: as in `interval_figure`.

    Raises:
        ValueError: as in `interval_figure`.
    """
    figure(interval_figure(data, **options), caption=caption, alt=alt, file=file)


def interval_figure(
    data: pd.DataFrame,
    *,
    rows: str = "method",
    value: str = "mean",
    low: str = "low",
    high: str = "high",
    group: str = "",
    across: str = "",
    down: str = "",
    lines: Sequence[str] = (),
    order: Sequence[str] = (),
    x: str = "",
) -> Figure:
    """Figure of `intervals`, without showing it.

    Args:
        data: one row for each dot.
        rows: column with the labels of the rows.
        value: column with the values.
        low: column with the lower ends of the intervals.
        high: column with the upper ends of the intervals.
        group: column whose values have different colours and marks in the same row, such as trained
            and random weights.
        across: column whose values have a panel each, side by side.
        down: column whose values have a panel each, one below the other.
        lines: labels that are drawn as vertical lines instead of rows, such as controls.
        order: labels of the rows from the top; labels that are missing are left out. By default the
            largest mean of the first group is at the top.
        x: label of the x axes; by default the name of `value`.

    Raises:
        ValueError: a column is missing, a panel has several values for one dot, or there are too
            many rows for a figure of 600 CSS pixels.
    """
    import matplotlib.pyplot as plt

    _check_columns(data, (rows, value, low, high, group, across, down))
    over, under = _values(data, across), _values(data, down)
    groups = _values(data, group)
    labels = list(order) or _ranking(data, rows, value, group, groups[0], lines)
    pitch = _pitch(len(labels), len(under), legend=len(groups) + len(lines) > 1, x=bool(x or value))
    height = min((pitch * len(labels) + 34) * len(under) + 120, HEIGHT)
    options: dict[str, Any] = {"sharex": True, "sharey": True, "squeeze": False}
    with style():
        drawn = plt.figure(figsize=(WIDTH / 100, height / 100), layout="constrained")
        axes = drawn.subplots(len(under), len(over), **options)
        for (i, j), axis in np.ndenumerate(axes):
            part = _part(_part(data, across, over[j]), down, under[i]).set_index(rows)
            for number, kind in enumerate(groups):
                here = _part(part, group, kind)[[value, low, high]]
                _draw_dots(axis, here, labels, name(kind), number, len(groups))
            _draw_vertical(axis, part[value], lines)
        _write_heads(axes, over, under)
        _finish(drawn, axes, data, labels, (value, low, high), x or name(value))
    return drawn


def _check_columns(data: pd.DataFrame, columns: Sequence[str]) -> None:
    for column in filter(None, columns):
        if column not in data:
            raise ValueError(
                f"data must have the columns of the chart, got no {column!r}: choose one of "
                f"{', '.join(map(str, data.columns))}"
            )


def _write_heads(axes: Any, over: Sequence[Any], under: Sequence[Any]) -> None:
    """Write heads above the columns and at the right of the rows; an empty head is not written."""
    for axis, head in zip(axes[0], over, strict=True):
        axis.set_title(name(head))
    for axis, head in zip(axes[:, -1], under, strict=True):
        beside = {"xycoords": "axes fraction", "rotation": 270, "va": "center"}
        axis.annotate(name(head), (1.02, 0.5), **beside)


def _values(data: pd.DataFrame, column: str) -> list[Any]:
    """Values of a column in the order of their first row; one empty value without a column."""
    return list(dict.fromkeys(data[column])) if column else [""]


def _part(data: pd.DataFrame, column: str, value: Any) -> pd.DataFrame:
    return data[data[column] == value] if column else data


def _ranking(
    data: pd.DataFrame, rows: str, value: str, group: str, first: Any, lines: Sequence[str]
) -> list[str]:
    means = _part(data, group, first).groupby(rows, sort=False)[value].mean()
    ranked = list(means.sort_values(ascending=False, kind="stable").index)
    ranked += [label for label in dict.fromkeys(data[rows]) if label not in ranked]
    return [label for label in ranked if label not in lines]


def _pitch(rows: int, panels: int, *, legend: bool, x: bool) -> float:
    """Height of a row in CSS pixels."""
    free = HEIGHT - 50 * x - 40 * legend - 34 * panels
    pitch = min(_PITCH[1], free / (rows * panels))
    if pitch < _PITCH[0]:
        most = int(free / _PITCH[0] / panels)
        raise ValueError(
            f"a chart with {panels} panels, one below the other, has room for at most {most} rows, "
            f"got {rows}: choose the rows with order, or draw fewer panels"
        )
    return pitch


def _draw_dots(
    axis: Axes, here: pd.DataFrame, labels: Sequence[str], legend: str, number: int, count: int
) -> None:
    """Draw the dots of one group of `count` with their intervals; the second group is hollow."""
    if here.index.has_duplicates:
        label = here.index[here.index.duplicated()][0]
        raise ValueError(
            f"data must have one row for each dot, got several for {label!r} in one panel: select "
            "rows, or give the columns that differ as group, across or down"
        )
    here = here.reindex(list(labels))
    middle, low, high = (here[column].to_numpy(dtype=np.float64) for column in here)
    colour = COLOURS[number % len(COLOURS)]
    axis.errorbar(
        middle,
        np.arange(len(labels)) + 0.3 * (number - (count - 1) / 2),
        # Rounding may give -1e-17, which `errorbar` refuses.
        xerr=[np.clip(middle - low, 0, None), np.clip(high - middle, 0, None)],
        fmt=_MARKERS[number % len(_MARKERS)],
        ms=7,
        color=colour,
        mfc="white" if number % 2 else colour,
        mew=2,
        elinewidth=2.5,
        label=legend or "value and interval",
    )


def _draw_vertical(axis: Axes, values: pd.Series, lines: Sequence[str]) -> None:
    for number, label in enumerate(lines):
        if label in values.index:
            axis.axvline(
                float(np.mean(values[label])),
                color=COLOURS[(number + 2) % len(COLOURS)],
                ls=_DASHES[1 + number % (len(_DASHES) - 1)],
                lw=2.4,
                zorder=0,
                label=name(label),
            )


def _finish(
    drawn: Figure,
    axes: Any,
    data: pd.DataFrame,
    labels: Sequence[str],
    columns: tuple[str, str, str],
    x: str,
) -> None:
    """Limits, ticks, labels and one legend."""
    shown = data[list(columns)].to_numpy(dtype=np.float64)
    start, end = min(0.0, float(np.nanmin(shown))), max(0.0, float(np.nanmax(shown)))
    room = 0.03 * (end - start or 1)
    for axis in axes.flat:
        axis.set_xlim(start - (room if start < 0 else 0), end + room)
        axis.set_ylim(len(labels) - 0.5, -0.5)
        axis.set_yticks(range(len(labels)), [name(label) for label in labels])
        axis.tick_params(axis="y", length=0)
        axis.locator_params(axis="x", nbins=max(3, 10 // axes.shape[1]))
        axis.grid(alpha=0.3)
    drawn.supxlabel(x, fontsize=axes[0, 0].xaxis.label.get_fontsize())
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if len(handles) > 1:
        _legend(drawn, list(handles.values()), list(handles), "above")
