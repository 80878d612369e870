"""Results of the benchmark: tables with intervals, and charts, from its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislib import show
from vislib.errors import InputError
from vislib.measure.benchmark import NO_NET, Record, Skipped
from vislib.measure.methods import BENCHMARK, CONTROLS, RANDOM, title_of
from vislib.measure.statistics import bootstrap_interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORDER = (*BENCHMARK, *(method + RANDOM for method in BENCHMARK), *CONTROLS)
VIEWS = ("net", "size", "category")  # columns by which tables and charts are split, besides "all"


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """Records as a data frame with a column for each field of `Record`."""
    import pandas as pd

    return pd.DataFrame([asdict(r) for r in records], columns=[f.name for f in fields(Record)])


# --- Table ----------------------------------------------------------------------------------------


def table(records: pd.DataFrame) -> pd.DataFrame:
    """Mean P of each method with its 95 % interval: over all, by network, by size and by category.

    Args:
        records: result of `frame`.

    Returns:
        A data frame with the columns `view` ("all", "net", "size" or "category"), `value` (the
        network, size or category), `method`, `records` (their number), `undefined` (the number of
        records without energy, which are not part of the mean), `mean_P`, `low`, `high` and
        `mask_fraction` (mean over the records).

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
    controls = records[records.net == NO_NET]
    for view in ("all", *VIEWS):
        for value in ["all"] if view == "all" else sorted(records[view].unique()):
            if value == NO_NET:
                continue
            part = records if view == "all" else records[records[view] == value]
            # Controls do not depend on the network, so each network is compared with all of them.
            if view == "net":
                part = pd.concat([part, controls])
            for method in ORDER:
                chosen = part[part.method == method]
                if len(chosen):
                    rows.append(
                        {"view": view, "value": value, "method": method, **_summary(chosen)}
                    )
    return pd.DataFrame(rows)


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


def markdown(summary: pd.DataFrame) -> str:
    """`table` as Markdown: all records, then a column for each network, size and category."""
    overall = summary[summary["view"] == "all"]
    lines = [
        "| method | mean P | 95 % interval | records | undefined |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['method']} | {_number(r['mean_P'])} | {_number(r['low'])} – {_number(r['high'])} "
        f"| {r['records']} | {r['undefined']} |"
        for r in overall.to_dict("records")
    ]
    for view in _views(summary)[1:]:
        part = summary[summary["view"] == view]
        wide = part.pivot(index="method", columns="value", values="mean_P")
        wide = wide.reindex([m for m in ORDER if m in wide.index])
        lines += [
            "",
            f"Mean P per {view}:",
            "",
            "| method | " + " | ".join(map(str, wide.columns)) + " |",
        ]
        lines.append("| --- " * (len(wide.columns) + 1) + "|")
        lines += [
            f"| {name} | " + " | ".join(map(_number, row)) + " |"
            for name, row in zip(wide.index, wide.to_numpy(), strict=True)
        ]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """Three decimals, or a dash for NaN."""
    return "–" if np.isnan(value) else f"{value:.3f}"


def _views(summary: pd.DataFrame) -> list[str]:
    """Views of a table. If no record is from a network, there is no view by network."""
    return list(summary["view"].unique())


# --- Charts ---------------------------------------------------------------------------------------


def chart(summary: pd.DataFrame, view: str = "all", *, columns: int | None = None) -> Figure:
    """Bar chart of mean P with 95 % intervals, the best method at the top.

    Below the explanations are those with random weights and the controls, each group with a hatch.
    The dashed line is the P of a uniform map: the fraction of the image that the mask covers.

    Args:
        summary: result of `table`.
        view: ``"all"``, ``"net"``, ``"size"`` or ``"category"``; each value gets a panel.
        columns: number of panels in a row (default: depends on their number).
    """
    import matplotlib.pyplot as plt

    part = summary[summary["view"] == view]
    values = sorted(part["value"].unique())
    positions, groups = _positions(summary)
    columns = columns or (len(values) if len(values) <= 4 else 3 if len(values) <= 6 else 4)
    rows = -(-len(values) // columns)
    height = 1 - min(positions.values())
    end = np.nan_to_num(part["high"].to_numpy()).max() or 1.0
    with show.style():
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(3 + (6 if columns == 1 else 2.9 * columns), 1.3 + (0.6 + 0.3 * height) * rows),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis in axes.flat[len(values) :]:
            axis.axis("off")
        for axis, value in zip(axes.flat, values, strict=False):
            here = part[part["value"] == value].set_index("method")
            _draw_bars(axis, here, positions, groups)
            _label_bars(axis, here, positions)
            axis.set_title(
                "all networks, sizes and categories" if view == "all" else f"{view}: {value}"
            )
            axis.set_xlim(0, (1.12 if columns == 1 else 1.3) * end)
            axis.set_ylim(-height + 0.3, 0.7)
            axis.set_yticks(list(positions.values()), [title_of(method) for method in positions])
            axis.tick_params(axis="y", length=0)
        star = " (* without the records whose P is undefined)" if part.undefined.any() else ""
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(),
            title=f"mean P and its 95 % interval{star}",
            loc="outside lower center",
            ncols=4,
            fontsize=11,
            frameon=False,
        )
    return figure


def _positions(summary: pd.DataFrame) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Vertical position of each method, and the methods by group, the best first."""
    ranking = summary[summary["view"] == "all"].sort_values("mean_P", ascending=False)
    best_first = list(ranking["method"])
    explanations = [method for method in best_first if method in BENCHMARK]
    groups = {
        "explanation": explanations,
        "the same with random weights": [
            m + RANDOM for m in explanations if m + RANDOM in best_first
        ],
        "no network": [method for method in best_first if method in CONTROLS],
    }
    positions: dict[str, float] = {}
    y = 0.0
    for methods in groups.values():
        for method in methods:
            positions[method] = y
            y -= 1
        y -= 0.5 if methods else 0  # a gap between the groups
    return positions, groups


def _draw_bars(
    axis: Axes,
    rows: pd.DataFrame,
    positions: Mapping[str, float],
    groups: Mapping[str, Sequence[str]],
) -> None:
    """Draw the bars of each group with their intervals, and the line of the uniform map."""

    looks: list[dict[str, Any]] = [
        {"color": show.COLOURS[0], "hatch": ""},
        {"color": show.COLOURS[5], "hatch": "///"},
        {"color": "#B8B8B8", "hatch": "..."},
    ]
    for (label, methods), look in zip(groups.items(), looks, strict=True):
        if not methods:
            continue
        group = rows.reindex(list(methods))
        y = [positions[method] for method in methods]
        axis.barh(y, group.mean_P, ec="white", label=label, **look)
        # Rounding may give -1e-17, which `errorbar` refuses.
        below = (group.mean_P - group.low).clip(lower=0)
        above = (group.high - group.mean_P).clip(lower=0)
        axis.errorbar(group.mean_P, y, xerr=[below, above], fmt="none", ecolor="black", capsize=3)
    axis.axvline(
        rows.mask_fraction.mean(),
        color=show.COLOURS[1],
        linestyle="--",
        label="mask fraction",
    )


def _label_bars(axis: Axes, rows: pd.DataFrame, positions: Mapping[str, float]) -> None:
    """Write the value at the end of each interval, with a star if some records are undefined."""
    for method, row in rows.iterrows():
        value = "undefined" if np.isnan(row.mean_P) else f"{row.mean_P:.2f}"
        axis.annotate(
            value + ("*" if row.undefined and value != "undefined" else ""),
            (np.nan_to_num(row.high), positions[str(method)]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=11,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )


def spread(records: pd.DataFrame) -> Figure:
    """Scatter plot of P against the fraction of the image that the mask covers, for all records.

    Each method has a panel, three in a row. On the dashed line P equals the fraction, as for the
    uniform map. The horizontal axis ends at the largest fraction, because objects are small.

    Args:
        records: result of `frame`.
    """
    import matplotlib.pyplot as plt

    methods = [name for name in ORDER if name in set(records.method)]
    columns = min(3, len(methods))
    rows = -(-len(methods) // columns)
    end = 1.05 * records.mask_fraction.max()
    with show.style():
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(0.6 + 3 * columns, 0.5 + 2.9 * rows),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis in axes.flat[len(methods) :]:
            axis.axis("off")
        for axis, name in zip(axes.flat, methods, strict=False):
            part = records[records.method == name]
            axis.scatter(part.mask_fraction, part.P, s=7, alpha=0.35, color=show.COLOURS[0])
            axis.plot([0, 1], [0, 1], color=show.COLOURS[1], linestyle="--", lw=2.5)
            axis.set(title=title_of(name), xlim=(0, end), ylim=(-0.02, 1.02))
        figure.supylabel("P of one record", fontsize=13)
        figure.supxlabel("mask fraction (dashed: the uniform map)", fontsize=13)
    return figure


def write(records: Sequence[Record], skipped: Sequence[Skipped], out: Path) -> pd.DataFrame:
    """Write the results of a run into a folder: records, table, charts and skipped units.

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
    (out / "table.md").write_text(markdown(summary), encoding="utf-8")
    for view in _views(summary):
        figure = chart(summary, view)
        # The style fixes the ids in the SVG file, so that its bytes are the same every time.
        with show.style():
            figure.savefig(out / f"chart_{view}.png", dpi=150, metadata={"Software": None})
            figure.savefig(out / f"chart_{view}.svg", metadata={"Date": None})
        plt.close(figure)
    return summary
