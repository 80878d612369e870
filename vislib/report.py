"""The benchmark's results: a table with intervals, and charts, from the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vislib.benchmark import CONTROLS, METHODS, NO_NET, RANDOM, Record, Skipped

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ORDER = (*METHODS, *(method + RANDOM for method in METHODS), *CONTROLS)
VIEWS = (
    "net",
    "size",
    "category",
)  # beside "all", the columns by which the table and charts are split


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """The records as a data frame, a column for each field."""
    import pandas as pd

    return pd.DataFrame([asdict(r) for r in records], columns=[f.name for f in fields(Record)])


def bootstrap_interval(
    values: np.ndarray, clusters: np.ndarray, *, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values`, resampling whole clusters (images).

    The records of one image are no independent witnesses, so images are drawn with replacement,
    each with all of its records. Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".
    """
    _, cluster = np.unique(clusters, return_inverse=True)
    sums = np.bincount(cluster, weights=values)
    counts = np.bincount(cluster)
    draws = np.random.default_rng(seed).multinomial(
        len(sums), np.full(len(sums), 1 / len(sums)), size=samples
    )
    means = (draws @ sums) / (draws @ counts)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def table(records: pd.DataFrame) -> pd.DataFrame:
    """Mean P with its interval, by method: over all, per net, per size and per category.

    Columns: `view` ("all", "net", "size", "category"), `value` (which one), `method`, `records`,
    `undefined` (records without energy: not part of the mean), `mean_P`, `low`, `high`,
    `mask_share`.
    """
    import pandas as pd

    rows = []
    controls = records[records.net == NO_NET]
    for view in ("all", *VIEWS):
        for value in ["all"] if view == "all" else sorted(records[view].unique()):
            if value == NO_NET:
                continue
            part = records if view == "all" else records[records[view] == value]
            if view == "net":  # the controls know no net: beside each net stand the same ones
                part = pd.concat([part, controls])
            for method in ORDER:
                chosen = part[part.method == method]
                if len(chosen):
                    rows.append(
                        {"view": view, "value": value, "method": method, **_summary(chosen)}
                    )
    return pd.DataFrame(rows)


def _summary(records: pd.DataFrame) -> dict[str, float]:
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
        "mask_share": records.mask_share.mean(),
    }


def markdown(summary: pd.DataFrame) -> str:
    """The table for reading: over all, then a column for each net, size and category."""
    overall = summary[summary["view"] == "all"]
    lines = [
        "| method | mean P | 95 % interval | records | undefined |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r.method} | {r.mean_P:.3f} | {r.low:.3f} – {r.high:.3f} "
        f"| {r.records} | {r.undefined} |"
        for r in overall.itertuples()
    ]
    for view in VIEWS:
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
            f"| {name} | " + " | ".join("–" if np.isnan(v) else f"{v:.3f}" for v in row) + " |"
            for name, row in zip(wide.index, wide.to_numpy(), strict=True)
        ]
    return "\n".join(lines) + "\n"


def chart(summary: pd.DataFrame, view: str = "all") -> Figure:
    """Bars of mean P with 95 % intervals, a panel for each value of the view, the best method on
    top.

    The line is what a uniform map would get (the mask's share). Controls are hatched.
    """
    import matplotlib.pyplot as plt

    from vislib import show

    part = summary[summary["view"] == view]
    values = sorted(part["value"].unique())
    order = list(summary[summary["view"] == "all"].sort_values("mean_P").method)
    columns = min(3, len(values))
    rows = -(-len(values) // columns)
    with show.style():
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(8 if columns == 1 else 2.6 + 3.9 * columns, 1.1 + 0.36 * len(order) * rows),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axis in axes.flat[len(values) :]:
            axis.axis("off")
        for axis, value in zip(axes.flat, values, strict=False):
            rows_here = part[part["value"] == value].set_index("method").reindex(order)
            explanations = [name in METHODS for name in order]
            bars = axis.barh(
                order,
                rows_here.mean_P,
                color=[show.COLOURS[0] if e else "#C8C8C8" for e in explanations],
                hatch=["" if e else "//" for e in explanations],
                edgecolor="white",
            )
            axis.errorbar(
                rows_here.mean_P,
                order,
                xerr=[rows_here.mean_P - rows_here.low, rows_here.high - rows_here.mean_P],
                fmt="none",
                ecolor="black",
                capsize=3,
            )
            axis.bar_label(
                bars, [f" {p:.2f}" for p in rows_here.mean_P], label_type="edge", padding=14
            )
            axis.axvline(rows_here.mask_share.mean(), color=show.COLOURS[1], linestyle="--")
            axis.set_title(
                "all nets, sizes and categories" if view == "all" else f"{view}: {value}"
            )
            axis.set_xlim(0, 1.15 * summary.high.max())
        for axis in axes[-1]:
            axis.set_xlabel("mean P (dashed: the mask's share)")
    return figure


def write(records: Sequence[Record], skipped: Sequence[Skipped], out: Path) -> pd.DataFrame:
    """Write records, table, charts and what was skipped into `out`; return the table."""
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
    for view in ("all", *VIEWS):
        figure = chart(summary, view)
        figure.savefig(out / f"chart_{view}.png", dpi=150, metadata={"Software": None})
        figure.savefig(out / f"chart_{view}.svg", metadata={"Date": None})
        plt.close(figure)
    return summary
