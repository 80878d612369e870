"""Tables of results: HTML for the reader, and text for everything that compares outputs."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from vislib.show.names import name

if TYPE_CHECKING:
    import pandas as pd


def table(data: pd.DataFrame, *, caption: str = "", decimals: int | Mapping[str, int] = 2) -> None:
    """Show a table with right-aligned numbers.

    Names of methods and networks, in cells as in heads, become display names (see `name`). The
    levels of the index are the first columns, unless the index only counts the rows.

    Args:
        data: numbers and texts. NaN is shown as "–", True and False as "yes" and "no".
        caption: sentence above the table.
        decimals: decimals of all numbers that are not whole by type, or of some columns by their
            names; the other columns have 2.
    """
    from IPython.display import display

    heads, rows, numeric = table_cells(data, decimals)
    display(
        {
            "text/html": _html(heads, rows, numeric, caption),
            "text/plain": (f"{caption}\n\n" if caption else "") + _text(heads, rows, numeric),
        },
        raw=True,
    )


def table_cells(
    data: pd.DataFrame, decimals: int | Mapping[str, int] = 2
) -> tuple[list[str], list[list[str]], list[bool]]:
    """Heads of a table, its rows as texts, and whether each column has numbers.

    Args:
        data: as in `table`.
        decimals: as in `table`.

    >>> import pandas as pd
    >>> table_cells(pd.DataFrame({"P": [0.5, -1]}, index=["grad_cam", "lrp"]))[1]
    [['Grad-CAM', '0.50'], ['LRP-ε,z⁺', '−1.00']]
    """
    import pandas as pd

    counted = isinstance(data.index, pd.RangeIndex) and data.index.name is None
    levels = 0 if counted else data.index.nlevels
    index = [str(title) if title is not None else "" for title in data.index.names][:levels]
    heads = index + [" · ".join(map(name, _parts(column))) for column in data.columns]
    digits = [
        decimals.get(column, 2) if isinstance(decimals, Mapping) else decimals
        for column in data.columns
    ]
    types = [pd.api.types.is_numeric_dtype(kind) for kind in data.dtypes]
    numeric = [False] * levels + [bool(kind) for kind in types]
    rows = []
    for labels, values in zip(data.index, data.itertuples(index=False), strict=True):
        cells = [name(label) for label in _parts(labels)][:levels]
        cells += [_cell(value, digit) for value, digit in zip(values, digits, strict=True)]
        rows.append(cells)
    return [name(head) for head in heads], rows, numeric


def _parts(label: Any) -> tuple[Any, ...]:
    return label if isinstance(label, tuple) else (label,)


def _cell(value: Any, decimals: int) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}".replace("-", "−")
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, float):
        text = f"{value:,.{decimals}f}"
        # A small negative number is rounded to 0, which has no sign.
        return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")
    return name(value)


def _html(heads: list[str], rows: list[list[str]], numeric: list[bool], caption: str) -> str:
    sides = ["right" if number else "left" for number in numeric]

    def row(cells: list[str], tag: str) -> str:
        return "".join(
            f'<{tag} style="text-align:{side};padding:0.2em 0.8em">{escape(cell)}</{tag}>'
            for cell, side in zip(cells, sides, strict=True)
        )

    above = f'<caption style="text-align:left">{escape(caption)}</caption>' if caption else ""
    body = "".join(f"<tr>{row(cells, 'td')}</tr>\n" for cells in rows)
    return (
        f'<table style="font-size:16px">{above}\n<thead><tr>{row(heads, "th")}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table>"
    )


def _text(heads: list[str], rows: list[list[str]], numeric: list[bool]) -> str:
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [heads, *rows]
    ]
    return "\n".join(lines)
