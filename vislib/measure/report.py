"""Results of the benchmark: tables with intervals, and charts, from its records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislib import show
from vislib.errors import InputError
from vislib.measure import comparison
from vislib.measure.benchmark import NO_NET, Record, Skipped
from vislib.measure.comparison import UNIT, sizes_in_order
from vislib.measure.methods import (
    BENCHMARK,
    CONTROLS,
    MAP_CONTROLS,
    RANDOM,
    STUDY,
    STUDY_MEANS,
    title_of,
)
from vislib.measure.statistics import bootstrap_interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ORDER = (
    *BENCHMARK,
    *(method + RANDOM for method in BENCHMARK),
    *MAP_CONTROLS,
    *CONTROLS,
)
VIEWS = {
    "net": ("net",),
    "size": ("size",),
    "network and size": ("net", "size"),
    "category": ("category",),
}
"""Columns by which the records are split for each view, besides the view "all" of all records."""
CHARTS = ("all", "net", "size", "network and size")
"""Views of which `write` draws a chart. Data may have more categories than a chart has room for."""
MOST_ROWS = 25
"""Rows for which a chart has room. All methods of the course leave none for `MAP_CONTROLS`."""


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """Records as a data frame with a column for each field of `Record`."""
    import pandas as pd

    return pd.DataFrame([asdict(r) for r in records], columns=[f.name for f in fields(Record)])


# --- Table ----------------------------------------------------------------------------------------


def table(records: pd.DataFrame) -> pd.DataFrame:
    """Mean P of each method with its 95 % interval: over all records, and for each of `VIEWS`.

    Args:
        records: result of `frame`.

    Returns:
        A data frame with the columns `view` ("all" or a key of `VIEWS`), `value` (the network,
        size or category; "pocket_vgg, 128" for a network at a size), `method`, `records` (their
        number), `undefined` (the number of records without energy, which are not part of the
        mean), `mean_P`, `low`, `high` and `mask_fraction` (mean over the records).

    Raises:
        InputError: the records contain a method that is not in the registry.
    """
    import pandas as pd

    # The table would leave such records out without a warning.
    unknown = sorted(set(records.method) - set(ORDER))
    if unknown:
        raise InputError(
            f"the records contain methods that this version does not know: {', '.join(unknown)}"
        )
    rows = []
    for view in ("all", *VIEWS):
        for value, part in _parts(records, view):
            for method in ORDER:
                chosen = part[part.method == method]
                if len(chosen):
                    rows.append(
                        {"view": view, "value": value, "method": method, **_summary(chosen)}
                    )
    return pd.DataFrame(rows)


def _parts(records: pd.DataFrame, view: str) -> list[tuple[str, pd.DataFrame]]:
    """Each value of a view with its records, to which the controls for the same images belong."""
    import pandas as pd

    if view == "all":
        return [("all", records)]
    columns = list(VIEWS[view])
    rank = {size: i for i, size in enumerate(sizes_in_order(records["size"]))}
    keys = sorted(
        set(records[columns].itertuples(index=False, name=None)),
        key=lambda key: [rank.get(value, value) for value in key],
    )
    # Controls have no network, so each network is compared with those for its own units.
    controls = records[records.net == NO_NET]
    parts = []
    for key in keys:
        if NO_NET in key:
            continue
        part = records[(records[columns] == key).all(axis=1)]
        if "net" in columns:
            units = part[[*UNIT, "size"]].drop_duplicates()
            part = pd.concat([part, controls.merge(units)])
        parts.append((", ".join(key), part))
    return parts


def _summary(records: pd.DataFrame) -> dict[str, float]:
    """Numbers of one row of `table`."""
    defined = records[records.P.notna()]
    low, high = (
        bootstrap_interval(defined.P.to_numpy(), defined.image_id.to_numpy())
        if len(defined)
        else (np.nan, np.nan)
    )
    return {
        "records": len(records),
        "undefined": len(records) - len(defined),
        "mean_P": defined.P.mean(),
        "low": low,
        "high": high,
        "mask_fraction": records.mask_fraction.mean(),
    }


# --- Text -----------------------------------------------------------------------------------------


def markdown(summary: pd.DataFrame) -> str:
    """`table` as Markdown: all records, then mean P for each value of the other views.

    Networks and sizes have a column each. Data may have many categories, so each has a row, with
    the methods on trained networks and the uniform map.
    """
    overall = summary[summary["view"] == "all"]
    blocks = [
        _lines(
            ["method", "mean P", "95 % interval", "records", "undefined"],
            [
                [
                    title_of(row["method"]),
                    _number(row["mean_P"]),
                    _interval(row["low"], row["high"], " – "),
                    str(row["records"]),
                    str(row["undefined"]),
                ]
                for row in overall.to_dict("records")
            ],
        )
    ]
    for view in VIEWS:
        part = summary[summary["view"] == view]
        if part.empty:  # No record is from a network.
            continue
        wide = part.pivot(index="method", columns="value", values="mean_P")
        wide = wide.reindex([m for m in ORDER if m in wide.index])[part["value"].unique()]
        wide.columns = [", ".join(_value_name(view, value)) for value in wide.columns]
        if view == "category":
            wide = wide[wide.index.isin([*BENCHMARK, "uniform"])]
        wide.index = wide.index.map(title_of)
        wide = wide.T if view == "category" else wide
        rows = zip(wide.index, wide.to_numpy(), strict=True)
        head = "category" if view == "category" else "method"
        lines = _lines([head, *wide], [[name, *map(_number, row)] for name, row in rows])
        blocks += [f"Mean P by {'network' if view == 'net' else view}:", lines]
    return "\n\n".join(blocks) + "\n"


def study_markdown(records: pd.DataFrame) -> str:
    """Markdown with the methods of the study for each network at each size.

    The table of all units is followed by the table of the units whose explained class is the
    prediction (`comparison.predicted`), the orders of the methods, the `comparison.differences`
    between methods, the `comparison.reversals`, and the digests of the weights with which the
    records were made.

    Args:
        records: result of `frame`.
    """
    whole = comparison.study(records)
    right = comparison.study(comparison.predicted(records))
    blocks = [
        "Mean P for each network at each size; the fraction of the units whose explained class is "
        "the prediction; the rank correlation ρ of the order of the methods with the order in the "
        "study, with its 95 % interval:",
        _study_lines(whole),
        "The same for the units whose explained class is the prediction:",
        _study_lines(right),
        "Methods from the highest mean P to the lowest:",
        _bullets(
            f"{show.name(row['net'])}, {_size_name(row['size'])}: "
            + " > ".join(map(title_of, row["order"]))
            for row in whole.reset_index().to_dict("records")
        ),
        "Differences of mean P on the same images, with their 95 % intervals:",
        _difference_lines(comparison.differences(records)),
        "Methods whose order at a size is not the order of the means over all sizes:",
        _bullets(map(_reversal, comparison.reversals(records).to_dict("records"))),
        "Weights (the first digits of the SHA-256 of all names and values):",
        _bullets(f"{name}: {digest}" for name, digest in weights(records).items()),
    ]
    return "\n\n".join(blocks) + "\n"


def _study_lines(study: pd.DataFrame) -> str:
    """Result of `comparison.study` as Markdown."""
    methods = [name for name in STUDY if name in study]
    rows = [
        [
            show.name(row["net"]),
            _size_name(row["size"]),
            f"{row['units']}",
            *(_number(row[name]) for name in methods),
            f"{row['predicted']:.0%}".replace("%", " %"),
            f"{_number(row['rho'], 2)} ({_interval(row['rho_low'], row['rho_high'], ' to ', 2)})",
        ]
        for row in study.reset_index().to_dict("records")
    ]
    heads = ["network", "size", "units", *map(title_of, methods), "predicted", "ρ"]
    return _lines(heads, rows) if rows else _bullets([])


def _difference_lines(found: pd.DataFrame) -> str:
    """Result of `comparison.differences` as Markdown: a row for each network at each size."""
    if found.empty:
        return _bullets([])
    cells = {
        key: f"{_signed(gap)} ({_interval(low, high, ' to ')})"
        for key, gap, low, high in found[["difference", "low", "high"]].itertuples()
    }
    pairs = list(dict.fromkeys(key[:2] for key in cells))
    where = dict.fromkeys(key[2:] for key in cells)
    heads = [f"{title_of(method)} − {title_of(other)}" for method, other in pairs]
    rows = [
        [show.name(net), _size_name(size), *(cells[(*pair, net, size)] for pair in pairs)]
        for net, size in where
    ]
    return _lines(["network", "size", *heads], rows)


def _reversal(row: Mapping[Any, Any]) -> str:
    """One row of `comparison.reversals` as a sentence."""
    gaps = [f"{_signed(row[size])} at {_size_name(size)}" for size in list(row)[4:]]
    return (
        f"{show.name(row['net'])}: P({title_of(row['higher'])}) − P({title_of(row['lower'])}) is "
        f"{_signed(row['all sizes'])} over all sizes, {', '.join(gaps)}"
    )


def weights(records: pd.DataFrame) -> dict[str, str]:
    """Digest of the weights of each network, by the display name of the network.

    Args:
        records: result of `frame`.
    """
    explained = records[records.net != NO_NET]
    suffix = np.where(explained.method.str.endswith(RANDOM), RANDOM, "")
    found = explained.assign(name=explained.net + suffix).drop_duplicates(["name", "weights"])
    return {
        show.name(name): ", ".join(part.weights) for name, part in found.groupby("name", sort=False)
    }


def _lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Table in Markdown."""
    body = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in body)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"* {line}" for line in lines) or "There are none."


def _number(value: float, digits: int = 3) -> str:
    """Number with some decimals, or a dash for NaN."""
    return "–" if np.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "") + _number(value)


def _interval(low: float, high: float, word: str, digits: int = 3) -> str:
    return f"{_number(low, digits)}{word}{_number(high, digits)}"


def _size_name(size: str) -> str:
    """Size of the images for tables and figures.

    >>> _size_name("224"), _size_name("original")
    ('224×224', 'original size')
    """
    return f"{size}×{size}" if size.isdecimal() else f"{size} size"


def _value_name(view: str, value: str) -> list[str]:
    """Parts of a value as tables and figures name them: "VGG (ours)" and "128×128"."""
    names: dict[str, Callable[[str], str]]
    names = {"net": show.name, "size": _size_name, "category": str}
    columns = VIEWS[view]
    parts = zip(columns, value.rsplit(", ", len(columns) - 1), strict=True)
    return [names[column](part) for column, part in parts]


# --- Charts ---------------------------------------------------------------------------------------


def chart(summary: pd.DataFrame, view: str = "all") -> Figure:
    """Chart of mean P with 95 % intervals: a row for each method, a panel for each part of a view.

    Networks are side by side, sizes one below the other. Vertical lines are the controls that do
    not depend on a network. For networks at a size, the rows are the methods of the study, in the
    study's order: where the dots do not go down to the left, the order is another one.

    Args:
        summary: result of `table`.
        view: ``"all"`` or a key of `VIEWS`.

    Raises:
        ValueError: the summary has no defined P of a method for this view.
    """
    part = summary[summary["view"] == view]
    if not _has_dots(part):
        raise ValueError(
            f"summary has no defined P of a method for the view {view!r}: choose other records"
        )
    base = part.method.str.removesuffix(RANDOM)
    undefined = set(base[part.undefined > 0])
    labels = {name: title_of(name) + "*" * (name in undefined) for name in dict.fromkeys(base)}
    data = part.assign(method=base.map(labels))
    if view in VIEWS:
        data[list(VIEWS[view])] = [_value_name(view, value) for value in part["value"]]
    random = part.method.str.endswith(RANDOM)
    data["weights"] = np.where(random, "random weights", "trained weights")
    across, down = (*VIEWS.get(view, ()), "", "")[:2]
    star = " (* without the records whose P is undefined)" if undefined else ""
    return show.interval_figure(
        data,
        value="mean_P",
        group="weights" if random.any() else "",
        across=across,
        down=down,
        lines=[labels[name] for name in CONTROLS if name in labels],
        order=[labels[name] for name in _rows(summary, view) if name in labels],
        x=f"mean P and its 95 % interval{star}",
    )


def _has_dots(part: pd.DataFrame) -> bool:
    """Whether a chart would show more than controls."""
    return bool(part.mean_P[part.method.isin(BENCHMARK)].notna().any())


def _rows(summary: pd.DataFrame, view: str) -> list[str]:
    """Methods of a chart from the top, without the controls that are lines."""
    overall = summary[summary["view"] == "all"].sort_values("mean_P", ascending=False)
    methods = [name for name in overall["method"] if name in BENCHMARK]
    known = [name for name in sorted(STUDY, key=lambda n: -STUDY_MEANS[n]) if name in methods]
    if view == "network and size" and known:
        methods = known
    controls = [name for name in overall["method"] if name in MAP_CONTROLS]
    return methods + (controls if len(methods) + len(controls) <= MOST_ROWS else [])


def spread(records: pd.DataFrame) -> Figure:
    """Scatter plot of P against the fraction of the image that the mask covers, for all records.

    Each method of the study has a panel with the records of trained networks. On the dashed line P
    equals the fraction, as for the uniform map. The horizontal axis ends at the largest fraction,
    because objects are small.

    Args:
        records: result of `frame`.

    Raises:
        ValueError: the records have no method of the study.
    """
    import matplotlib.pyplot as plt

    methods = [name for name in STUDY if name in set(records.method)]
    if not methods:
        raise ValueError(f"records must have a method of {', '.join(STUDY)}, got none of them")
    end = 1.05 * records.mask_fraction.max()
    with show.style():
        figure, axes = plt.subplots(
            1,
            len(methods),
            figsize=(10.5, 3),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis, name in zip(axes.flat, methods, strict=True):
            part = records[records.method == name]
            axis.scatter(part.mask_fraction, part.P, s=7, alpha=0.35, color=show.COLOURS[0])
            axis.plot([0, 1], [0, 1], color=show.COLOURS[1], linestyle="--", lw=2.5)
            axis.set(title=title_of(name), xlim=(0, end), ylim=(-0.02, 1.02))
        figure.supylabel("P of one record", fontsize=axes[0, 0].xaxis.label.get_fontsize())
        figure.supxlabel(
            "mask fraction (dashed: the uniform map)",
            fontsize=axes[0, 0].xaxis.label.get_fontsize(),
        )
    return figure


# --- Files ----------------------------------------------------------------------------------------


def write(records: Sequence[Record], skipped: Sequence[Skipped], out: Path) -> pd.DataFrame:
    """Write the results of a run into a folder: records, tables, charts and skipped units.

    Args:
        records, skipped: result of `benchmark.run`.
        out: folder, which must exist.

    Returns:
        The `table` of all records.
    """
    import matplotlib.pyplot as plt
    import pandas as pd

    rows = frame(records)
    rows.to_parquet(out / "records.parquet", index=False)
    rows.to_csv(out / "records.csv", index=False)
    names = [f.name for f in fields(Skipped)]
    pd.DataFrame([asdict(s) for s in skipped], columns=names).to_csv(
        out / "skipped.csv", index=False
    )
    summary = table(rows)
    summary.to_csv(out / "table.csv", index=False)
    text = markdown(summary) + "\n" + study_markdown(rows)
    (out / "table.md").write_text(text, encoding="utf-8")
    for view in CHARTS:
        if not _has_dots(summary[summary["view"] == view]):
            continue
        figure = chart(summary, view)
        name = f"chart_{view.replace(' ', '_')}"
        # The style fixes the ids in the SVG file, so that its bytes are the same every time.
        with show.style():
            figure.savefig(out / f"{name}.png", dpi=200, metadata={"Software": None})
            figure.savefig(out / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
    return summary
