"""The benchmark's results: a table with intervals, and charts, from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vislib.errors import InputError
from vislib.measure.benchmark import ALL, CONTROLS, NO_NET, RANDOM, Record, Skipped
from vislib.measure.statistics import bootstrap_interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ORDER = (*ALL, *(method + RANDOM for method in ALL), *CONTROLS)
VIEWS = ("net", "size", "category")  # beside "all", what the table and charts are split by


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """The records as a data frame, a column for each field."""
    import pandas as pd

    return pd.DataFrame([asdict(r) for r in records], columns=[f.name for f in fields(Record)])


def table(records: pd.DataFrame) -> pd.DataFrame:
    """Mean P with its interval, by method: over all, per net, per size and per category.

    Columns: `view` ("all", "net", "size", "category"), `value` (which one), `method`, `records`,
    `undefined` (records without energy: not part of the mean), `mean_P`, `low`, `high`,
    `mask_share`.
    """
    import pandas as pd

    unknown = sorted(set(records.method) - set(ORDER))
    if unknown:  # no row below would count them
        raise InputError(
            f"the records hold methods that this version does not know: {', '.join(unknown)}"
        )
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
    return "–" if np.isnan(value) else f"{value:.3f}"


def _views(summary: pd.DataFrame) -> list[str]:
    """The views that the table has: where no net gave a record, there is no view by net."""
    return list(summary["view"].unique())


def chart(summary: pd.DataFrame, view: str = "all", *, columns: int | None = None) -> Figure:
    """Bars of mean P with 95 % intervals, a panel for each value of the view, the best method on
    top; `columns` panels a row.

    The dashed line is what a uniform map would get (the mask's share). Random weights and controls
    stand below the explanations, each with a hatch of its own.
    """
    import matplotlib.pyplot as plt

    from vislib import show

    part = summary[summary["view"] == view]
    values = sorted(part["value"].unique())
    positions, groups = _places(summary)
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
            for (label, methods), colour, hatch in zip(
                groups.items(),
                (show.COLOURS[0], show.COLOURS[5], "#B8B8B8"),
                ("", "///", "..."),
                strict=True,
            ):
                if not methods:
                    continue
                group = here.reindex(methods)
                below, above = group.mean_P - group.low, group.high - group.mean_P
                y = [positions[method] for method in methods]
                axis.barh(y, group.mean_P, color=colour, hatch=hatch, ec="white", label=label)
                axis.errorbar(
                    group.mean_P,
                    y,
                    xerr=[below.clip(lower=0), above.clip(lower=0)],  # not -1e-17 by rounding
                    fmt="none",
                    ecolor="black",
                    capsize=3,
                )
            axis.axvline(
                here.mask_share.mean(),
                color=show.COLOURS[1],
                linestyle="--",
                label="the mask's share",
            )
            for method, row in here.iterrows():
                axis.annotate(
                    _value_label(row.mean_P, row.undefined),
                    (np.nan_to_num(row.high), positions[method]),
                    xytext=(6, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=11,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                )
            axis.set_title(
                "all nets, sizes and categories" if view == "all" else f"{view}: {value}"
            )
            axis.set_xlim(0, (1.12 if columns == 1 else 1.3) * end)
            axis.set_ylim(-height + 0.3, 0.7)
            axis.set_yticks(list(positions.values()), [readable(method) for method in positions])
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


def _places(summary: pd.DataFrame) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Each method's place on the vertical axis, and the methods by group, best first."""
    ranking = summary[summary["view"] == "all"].sort_values("mean_P", ascending=False)
    best_first = list(ranking["method"])
    explanations = [method for method in best_first if method in ALL]
    groups = {
        "explanation": explanations,
        "the same with random weights": [
            m + RANDOM for m in explanations if m + RANDOM in best_first
        ],
        "no net": [method for method in best_first if method in CONTROLS],
    }
    positions: dict[str, float] = {}
    y = 0.0
    for methods in groups.values():
        for method in methods:
            positions[method] = y
            y -= 1
        y -= 0.5 if methods else 0  # a gap between the groups
    return positions, groups


def readable(method: str) -> str:
    """The method's name for reading: "guided_grad_cam_random" is "Guided Grad-CAM, random"."""
    name = method.removesuffix(RANDOM).replace("_", " ")
    for code, usual in (
        ("guided grad cam", "Guided Grad-CAM"),
        ("xgrad cam", "XGrad-CAM"),
        ("grad cam pp", "Grad-CAM++"),
        ("grad cam", "Grad-CAM"),
        ("layer cam", "LayerCAM"),
        ("eigen cam", "Eigen-CAM"),
        ("score cam", "Score-CAM"),
        (" x input", " × input"),
        ("lrp alpha beta", "LRP-αβ"),
        ("lrp epsilon gamma box", "LRP-ε,γ,zB"),
        ("lrp epsilon", "LRP-ε"),
        ("lrp", "LRP-ε,z⁺"),
        ("fullgrad", "FullGrad"),
        ("taylor", "Taylor"),
        ("smoothgrad", "SmoothGrad"),
        ("shapley", "Shapley values"),
        ("gaussian", "Gaussian"),
        ("sobel", "Sobel"),
        ("uniform", "uniform map"),
    ):
        name = name.replace(code, usual)
    return name + (", random" if method.endswith(RANDOM) else "")


def _value_label(mean_p: float, undefined: int) -> str:
    return "undefined" if np.isnan(mean_p) else f"{mean_p:.2f}" + ("*" if undefined else "")


def spread(records: pd.DataFrame) -> Figure:
    """Every record's P against the mask's share, a panel for each method, three a row.

    `records` is a `frame`. On the dashed line P is the share, as for the uniform map.
    The axis of the share ends where the records do: objects are small.
    """
    import matplotlib.pyplot as plt

    from vislib import show

    methods = [name for name in ORDER if name in set(records.method)]
    columns = min(3, len(methods))
    rows = -(-len(methods) // columns)
    end = 1.05 * records.mask_share.max()
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
            axis.scatter(part.mask_share, part.P, s=7, alpha=0.35, color=show.COLOURS[0])
            axis.plot([0, 1], [0, 1], color=show.COLOURS[1], linestyle="--", lw=2.5)
            axis.set(title=readable(name), xlim=(0, end), ylim=(-0.02, 1.02))
        figure.supylabel("P of one record", fontsize=13)
        figure.supxlabel("the mask's share of the image (dashed: the uniform map)", fontsize=13)
    return figure


def matrix(tables: Mapping[str, pd.DataFrame], *, cell: float = 0.75) -> Figure:
    """Tables of numbers side by side under their titles, with names at rows and columns.

    Pale colours from the lowest to the highest value of each table; where there are values on both
    sides of zero, blue below and red above, white at zero. NaN is an empty, hatched cell. Rows are
    named once where all tables have the same.
    """
    import matplotlib
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    from vislib import show

    frames = list(tables.values())
    shared = all(list(frame.index) == list(frames[0].index) for frame in frames)
    longest = max(len(str(name)) for frame in frames for name in frame.index)
    width = cell * sum(frame.shape[1] for frame in frames)
    beside = 0.11 * longest * (1 if shared else len(frames)) + 0.4 * len(frames)
    height = 0.55 * cell * max(len(frame) for frame in frames)
    with show.style():
        figure, axes = plt.subplots(
            1,
            len(frames),
            figsize=(width + beside, height + 1.3),
            width_ratios=[frame.shape[1] for frame in frames],
            squeeze=False,
            layout="constrained",
        )
        for number, (axis, (title, frame)) in enumerate(
            zip(axes.flat, tables.items(), strict=True)
        ):
            values = frame.to_numpy(dtype=float)
            digits = 0 if np.all(np.isnan(values) | (values == values.round())) else 2
            low, high = np.nanmin(values), np.nanmax(values)
            top = 1.7 * max(abs(low), abs(high)) or 1.0
            colours, low, high = (
                (show.DIVERGING, -top, top) if low < 0 < high else ("Oranges", low, 1.7 * high)
            )
            axis.imshow(
                np.ma.masked_invalid(values),
                matplotlib.colormaps[colours],
                vmin=low,
                vmax=high,
                aspect="auto",
            )
            for (i, j), value in np.ndenumerate(values):
                if np.isnan(value):
                    axis.add_patch(
                        Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="////", ec="0.75")
                    )
                    continue
                text = f"{value:.{digits}f}".replace("-", "−")
                axis.text(j, i, text, ha="center", va="center", fontsize=12)
            axis.set_title(title)
            axis.set_xticks(range(frame.shape[1]), frame.columns, rotation=30, ha="right")
            named = number == 0 or not shared
            axis.set_yticks(range(len(frame)), frame.index if named else [""] * len(frame))
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
    return figure


def write(records: Sequence[Record], skipped: Sequence[Skipped], out: Path) -> pd.DataFrame:
    """Write records, table, charts and what was skipped into `out`; return the table."""
    import matplotlib.pyplot as plt
    import pandas as pd

    from vislib import show

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
        with show.style():  # its salt gives the SVG the same ids, so the same bytes, every time
            figure.savefig(out / f"chart_{view}.png", dpi=150, metadata={"Software": None})
            figure.savefig(out / f"chart_{view}.svg", metadata={"Date": None})
        plt.close(figure)
    return summary
