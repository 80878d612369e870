"""The report: intervals against scipy and by simulation, the table against pandas, the charts."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from scipy import stats

from vislib import show
from vislib.errors import InputError
from vislib.measure import comparison, report
from vislib.measure.benchmark import NO_NET, Record, Skipped
from vislib.measure.methods import (
    BENCHMARK,
    CONTROLS,
    MAP_CONTROLS,
    RANDOM,
    SHARED_PASS,
    STUDY,
    map_controls,
    title_of,
)
from vislib.measure.statistics import bootstrap_interval

COLUMNS = "image_id,category,net,method,size,P,E,E_total,mask_fraction,score_rank,weights"
NETS = ("pocket_alexnet", "pocket_resnet", "pocket_squeezenet", "pocket_vgg")
CATEGORIES = ("airplane", "boat", "dog", "elephant", "teddy bear", "traffic light")


def synthetic(
    nets: tuple[str, ...] = NETS,
    categories: tuple[str, ...] = CATEGORIES,
    *,
    images: int = 5,
    controls: bool = True,
    methods: tuple[str, ...] = SHARED_PASS,
    undefined: float = 0.3,
) -> list[Record]:
    """Records as a run could give them; `undefined` is the fraction of deconvnets that die.

    About half of the explained classes are the prediction, more of them at 128 pixels.
    """
    random = np.random.default_rng(0)
    records = []
    for image_id in range(images * len(categories)):
        category = categories[image_id % len(categories)]
        share = random.uniform(0.05, 0.3)
        rows = [(NO_NET, c) for c in CONTROLS if controls]
        rows += [(n, m + s) for n in nets for m in methods for s in ("", RANDOM)[: 1 + controls]]
        rows += [(n, m) for n in nets for m in map_controls(methods) if controls]
        for size in ("128", "original"):
            ranks = {n: int(random.choice([1, 2, 9])) if size == "128" else 1 for n in nets}
            for net, method in rows:
                p = share if method == "uniform" else random.beta(2, 4)
                if method == "deconvnet" and random.random() < undefined:
                    p = math.nan
                e = 0.0 if math.isnan(p) else p
                total = 0.0 if math.isnan(p) else 1.0
                rank = ranks.get(net, 0) + method.endswith(RANDOM)
                weights = NO_NET if net == NO_NET else f"{NETS.index(net)}{method.endswith(RANDOM)}"
                records.append(
                    Record(image_id, category, net, method, size, p, e, total, share, rank, weights)
                )
    return records


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


# --- intervals -------------------------------------------------------------------------------


def test_with_one_record_per_image_the_interval_is_the_ordinary_bootstrap():
    values = np.random.default_rng(3).beta(2, 5, 60)
    found = bootstrap_interval(values, np.arange(60), samples=20_000)
    ordinary = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(4)
    )
    expected = ordinary.confidence_interval
    width = expected.high - expected.low
    assert found == pytest.approx((expected.low, expected.high), abs=0.04 * width)


def test_images_are_drawn_with_all_their_records():
    # Of two images the one has P = 0 ten times and the other P = 1 ten times. Both the same: 1/2
    # of the draws. So the mean is as often 0 or 1, which no draw of single records would give.
    values, images = np.repeat([0.0, 1.0], 10), np.repeat([7, 3], 10)
    assert bootstrap_interval(values, images) == (0, 1)
    low, high = bootstrap_interval(values, np.arange(20))
    assert 0.2 < low < high < 0.8


def test_an_image_with_more_records_weighs_more():
    # Drawn twice, the large image gives 0, the small one 1; mixed 1/10: means 0, 0.1, 1 only.
    values, images = np.array([0.0] * 9 + [1.0]), np.array([5] * 9 + [8])
    low, high = bootstrap_interval(values, images, samples=999)
    assert (low, high) == (0, 1)
    assert bootstrap_interval(np.full(10, 0.25), images) == (0.25, 0.25)


def test_the_interval_covers_the_truth_in_95_of_100_data_sets():
    random = np.random.default_rng(5)
    hits, naive_hits, trials = 0, 0, 300
    for _ in range(trials):
        image_effects = random.normal(0.4, 0.1, 50)
        values = (image_effects[:, None] + random.normal(0, 0.05, (50, 4))).ravel()
        low, high = bootstrap_interval(values, np.repeat(np.arange(50), 4), samples=400)
        hits += low <= 0.4 <= high
        low, high = bootstrap_interval(values, np.arange(200), samples=400)
        naive_hits += low <= 0.4 <= high
    assert 0.90 <= hits / trials <= 0.98  # ± 3 standard errors, and the bootstrap's small bias
    assert naive_hits / trials < 0.80  # as if the records of an image were independent


def test_intervals_are_the_same_every_time():
    values, images = np.random.default_rng(0).random(40), np.arange(40) // 4
    assert bootstrap_interval(values, images) == bootstrap_interval(values, images)


# --- the table -------------------------------------------------------------------------------


def test_the_table_is_what_groupby_gives():
    rows = report.frame(synthetic())
    summary = report.table(rows).set_index(["view", "value", "method"])
    for view, columns in report.VIEWS.items():
        groups = rows[rows.net != NO_NET].groupby([*columns, "method"])
        for (*values, method), group in groups:
            found = summary.loc[(view, ", ".join(values), method)]
            assert found.mean_P == pytest.approx(group.P.mean())  # pandas leaves NaN out
            assert found.records == len(group)
            assert found.undefined == group.P.isna().sum()
            assert found.mask_fraction == pytest.approx(group.mask_fraction.mean())
            assert found.low <= found.mean_P <= found.high
    for method, group in rows.groupby("method"):
        found = summary.loc[("all", "all", method)]
        assert found.mean_P == pytest.approx(group.P.mean())
        assert found.records == len(group)
    defined = rows[(rows.method == "deconvnet") & rows.P.notna()]
    found = summary.loc[("all", "all", "deconvnet")]
    interval = bootstrap_interval(defined.P.to_numpy(), defined.image_id.to_numpy())
    assert (found.low, found.high) == interval
    assert found.undefined > 0


def test_the_table_by_network_and_size_is_a_pivot_of_the_records():
    rows = report.frame(synthetic())
    summary = report.table(rows)
    part = summary[summary["view"] == "network and size"]
    found = part.pivot(index="value", columns="method", values="mean_P")
    trained = rows[rows.net != NO_NET].assign(value=rows.net + ", " + rows["size"])
    expected = trained.pivot_table("P", "value", "method")
    assert found.shape == (8, 2 * len(SHARED_PASS) + len(MAP_CONTROLS) + len(CONTROLS))
    pd.testing.assert_frame_equal(found[list(expected)], expected)
    controls = rows[rows.net == NO_NET].pivot_table("P", "size", "method")
    for value, size in zip(part["value"], part["value"].str.split(", ").str[1], strict=True):
        assert found.loc[value, list(CONTROLS)].to_dict() == pytest.approx(
            controls.loc[size].to_dict()
        )
    assert list(part["value"].unique()) == [f"{n}, {s}" for n in NETS for s in ("128", "original")]


def test_controls_are_those_for_the_images_of_each_network():
    rows = report.frame(synthetic())
    some = rows[(rows.net != NETS[0]) | (rows.image_id < 7)]
    summary = report.table(some).set_index(["view", "value", "method"])
    for control in CONTROLS:
        whole = rows[rows.method == control]
        few = whole[whole.image_id < 7]
        assert summary.loc[("net", NETS[1], control)].mean_P == pytest.approx(whole.P.mean())
        assert summary.loc[("net", NETS[0], control)].mean_P == pytest.approx(few.P.mean())
        assert summary.loc[("net", NETS[0], control)].records == len(few) == 14
        at_128 = few[few["size"] == "128"].P.mean()
        found = summary.loc[("network and size", f"{NETS[0]}, 128", control)]
        assert found.mean_P == pytest.approx(at_128)
    assert NO_NET not in summary.index.get_level_values("value")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables_in(text: str) -> list[list[str]]:
    return [block.splitlines() for block in text.strip().split("\n\n") if block.startswith("|")]


def test_the_markdown_has_the_numbers_of_the_table():
    summary = report.table(report.frame(synthetic()))
    tables = tables_in(report.markdown(summary))
    assert len(tables) == 1 + len(report.VIEWS)
    names = [*SHARED_PASS, *(m + RANDOM for m in SHARED_PASS), *MAP_CONTROLS, *CONTROLS]
    for lines in tables:
        assert {len(cells(line)) for line in lines} == {len(cells(lines[0]))}
        assert set(cells(lines[1])) == {"---"}
    for lines in tables[:-1]:
        assert [cells(line)[0] for line in lines[2:]] == [title_of(name) for name in names]
    overall = summary[summary["view"] == "all"].set_index("method")
    for name, line in zip(names, tables[0][2:], strict=True):
        _, mean, interval, records, undefined = cells(line)
        row = overall.loc[name]
        assert mean == f"{row.mean_P:.3f}"
        assert interval == f"{row.low:.3f} – {row.high:.3f}"
        assert (int(records), int(undefined)) == (row.records, row.undefined)
    for view, lines in zip(list(report.VIEWS)[:-1], tables[1:-1], strict=True):
        part = summary[summary["view"] == view]
        wide = part.set_index(["method", "value"]).mean_P
        values = part["value"].unique()
        for name, line in zip(names, lines[2:], strict=True):
            assert cells(line)[1:] == [f"{wide[name, value]:.3f}" for value in values]
    few = [*SHARED_PASS, "uniform"]
    assert cells(tables[-1][0]) == ["category", *(title_of(name) for name in few)]
    wide = summary[summary["view"] == "category"].set_index(["method", "value"]).mean_P
    for category, line in zip(CATEGORIES, tables[-1][2:], strict=True):
        assert cells(line) == [category, *(f"{wide[name, category]:.3f}" for name in few)]
    assert cells(tables[1][0])[1:3] == ["AlexNet (ours)", "ResNet (ours)"]
    assert cells(tables[3][0])[1:3] == ["AlexNet (ours), 128×128", "AlexNet (ours), original size"]


def test_the_text_of_the_study_has_the_numbers_of_the_comparison():
    rows = report.frame(synthetic())
    text = report.study_markdown(rows)
    whole, right, gaps = tables_in(text)
    expected = [comparison.study(rows), comparison.study(comparison.predicted(rows))]
    for lines, table in zip((whole, right), expected, strict=True):
        assert len(lines) == 2 + len(table) == 10
        assert cells(lines[0])[3:8] == [title_of(name) for name in STUDY]
        for line, (_, row) in zip(lines[2:], table.iterrows(), strict=True):
            found = cells(line)
            assert int(found[2]) == row.units
            assert found[3:8] == [f"{row[name]:.3f}" for name in STUDY]
            assert found[8] == f"{row.predicted:.0%}".replace("%", " %")
            rho = f"{row.rho:.2f} ({row.rho_low:.2f} to {row.rho_high:.2f})"
            assert found[9] == rho.replace("nan", "–").replace("-", "−")
    assert (
        {cells(line)[8] for line in whole[2::2]}
        != {"100 %"}
        == {cells(line)[8] for line in right[2:]}
    )
    for (net, size), order in expected[0]["order"].items():
        shown = f"{size}×{size}" if size == "128" else "original size"
        line = f"* {show.name(net)}, {shown}: {' > '.join(title_of(name) for name in order)}\n"
        assert line in text
    found = comparison.differences(rows)
    pairs = list(dict.fromkeys((method, other) for method, other, *_ in found.index))
    assert cells(gaps[0])[2:] == [f"{title_of(a)} − {title_of(b)}" for a, b in pairs]
    for line, (net, size) in zip(gaps[2:], expected[0].index, strict=True):
        for cell, pair in zip(cells(line)[2:], pairs, strict=True):
            row = found.loc[(*pair, net, size)]
            numbers = f"{row.difference:+.3f} ({row.low:.3f} to {row.high:.3f})"
            assert cell == numbers.replace("-", "−")
    hidden = comparison.reversals(rows)
    assert text.count("over all sizes, ") == len(hidden) > 0
    row = hidden.iloc[0]
    assert (
        f"* {show.name(row.net)}: P({title_of(row.higher)}) − P({title_of(row.lower)}) is "
        f"+{row['all sizes']:.3f} over all sizes, "
    ) in text
    assert text.endswith("* VGG (ours): 3False\n* VGG (ours), random weights: 3True\n")


def test_the_text_of_records_without_predictions_and_of_controls_alone():
    rows = report.frame(synthetic(images=1)).assign(score_rank=2)
    assert "the prediction:\n\nThere are none." in report.study_markdown(rows)
    alone = report.study_markdown(report.frame(synthetic(nets=())))
    assert alone.count("There are none.") == 6


def test_records_of_networks_with_other_weights_under_one_name_are_told_apart():
    rows = report.frame(synthetic(images=1, nets=NETS[:1]))
    other = rows.assign(weights=rows.weights.replace("0False", "feed"))
    assert report.weights(pd.concat([rows, other]))["AlexNet (ours)"] == "0False, feed"


# --- files -----------------------------------------------------------------------------------


def test_all_files_are_written_and_twice_the_same(tmp_path):
    records = synthetic(images=1)
    skipped = [Skipped(7, "dog", "emoji_vgg", "original", 'there is "no" file, here')]
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        report.write(records, skipped, tmp_path / name)
        contents.append({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()})
    views = ("all", "net", "size", "network_and_size")
    charts = {f"chart_{view}.{end}" for view in views for end in ("png", "svg")}
    tables = {"records.csv", "records.parquet", "skipped.csv", "table.csv", "table.md"}
    assert set(contents[0]) == charts | tables
    assert [n for n, content in contents[0].items() if content != contents[1][n]] == []
    for name in charts:
        if name.endswith("png"):
            with Image.open(tmp_path / "first" / name) as picture:
                assert picture.width == 2100
                assert 300 < picture.height <= 1200
        else:
            assert contents[0][name].startswith(b"<?xml")


def test_the_record_files_have_the_documented_columns_and_all_values(tmp_path):
    records = synthetic(images=1)
    report.write(records, [], tmp_path)
    text = (tmp_path / "records.csv").read_text()
    assert text.splitlines()[0] == COLUMNS
    for rows in (
        pd.read_parquet(tmp_path / "records.parquet"),
        pd.read_csv(tmp_path / "records.csv", float_precision="round_trip"),
    ):
        assert ",".join(rows.columns) == COLUMNS
        read = [Record(**{**row, "size": str(row["size"])}) for row in rows.to_dict("records")]
        assert [repr(r) for r in read] == [repr(r) for r in records]
    undefined = [r for r in records if math.isnan(r.P)]
    assert sum(",,0.0,0.0," in line for line in text.splitlines()) == len(undefined) > 0
    assert (tmp_path / "skipped.csv").read_text().strip() == "image_id,category,net,size,reason"


ALL_CHARTS = {"all", "net", "size", "network_and_size"}


@pytest.mark.parametrize(
    ("options", "views"),
    [
        # no network could be used, so that only the controls are left
        ({"nets": ()}, set()),
        # every map was dead
        ({"methods": ("deconvnet",), "undefined": 1.0, "controls": False}, set()),
        ({"nets": NETS[:1], "categories": ("dog",), "images": 1}, ALL_CHARTS),
        ({"methods": ("xgrad_cam", "lrp"), "images": 1}, ALL_CHARTS),
        ({"categories": tuple(f"category {i}" for i in range(40)), "images": 1}, ALL_CHARTS),
    ],
    ids=["controls only", "all undefined", "one image", "none of the study", "40 categories"],
)
def test_there_is_a_report_whatever_the_run_gave(tmp_path: Path, options, views):
    report.write(synthetic(**options), [], tmp_path)
    assert {f.stem for f in tmp_path.glob("chart_*")} == {f"chart_{view}" for view in views}
    assert "nan" not in (tmp_path / "table.md").read_text(encoding="utf-8")


# --- charts ----------------------------------------------------------------------------------


def dots(axis, label="trained weights") -> list[float]:
    """The values of a group of dots from the top row to the bottom."""
    (group,) = [c for c in axis.containers if c.get_label() == label]
    return list(group.lines[0].get_xdata())


def rows_of(axis) -> list[str]:
    return [label.get_text().rstrip("*") for label in axis.get_yticklabels()]


def test_a_chart_shows_the_numbers_of_the_table_best_on_top():
    summary = report.table(report.frame(synthetic()))
    overall = summary[summary["view"] == "all"].set_index("method")
    (axis,) = report.chart(summary).axes
    best_first = overall.loc[list(SHARED_PASS)].sort_values("mean_P", ascending=False)
    assert rows_of(axis)[: len(SHARED_PASS)] == [title_of(name) for name in best_first.index]
    assert set(rows_of(axis)[len(SHARED_PASS) :]) == {title_of(name) for name in MAP_CONTROLS}
    titles = {title_of(name): name for name in (*SHARED_PASS, *MAP_CONTROLS)}
    shown = [titles[row] for row in rows_of(axis)]
    assert dots(axis) == pytest.approx(list(overall.mean_P[shown]))
    random = [overall.mean_P.get(name + RANDOM, np.nan) for name in shown]
    assert dots(axis, "random weights") == pytest.approx(random, nan_ok=True)
    lines = {line.get_label(): line.get_xdata()[0] for line in axis.lines if len(line.get_xdata())}
    for control in CONTROLS:
        assert lines[title_of(control)] == pytest.approx(overall.mean_P[control])


def test_the_chart_by_network_and_size_has_the_order_of_the_study():
    rows = report.frame(synthetic())
    summary = report.table(rows)
    figure = report.chart(summary, "network and size")
    panels = np.reshape(figure.axes, (2, 4))
    names = ["AlexNet (ours)", "ResNet (ours)", "SqueezeNet (ours)", "VGG (ours)"]
    assert [axis.get_title() for axis in panels[0]] == names
    studied = ["guided_grad_cam", "guided_backprop", "grad_cam", "gradient", "deconvnet"]
    assert rows_of(panels[0, 0])[:5] == [title_of(name) for name in studied]
    assert set(rows_of(panels[0, 0])[5:]) == {title_of(name) for name in MAP_CONTROLS}
    means = rows.groupby(["size", "net", "method"]).P.mean()
    for axes, size in zip(panels, ("128", "original"), strict=True):
        for axis, net in zip(axes, NETS, strict=True):
            assert dots(axis)[:5] == pytest.approx([means[size, net, name] for name in studied])


@pytest.mark.parametrize(
    ("view", "options", "panels"),
    [
        ("net", {}, 4),
        ("size", {}, 2),
        ("category", {"categories": CATEGORIES[:3]}, 3),
        ("all", {"methods": BENCHMARK, "nets": NETS[:1], "images": 1}, 1),
        ("network and size", {"methods": BENCHMARK, "images": 1}, 8),
        ("net", {"controls": False}, 4),
        ("network and size", {"methods": ("grad_cam", "deconvnet")}, 8),
    ],
)
def test_a_chart_has_a_panel_for_each_part_and_fits_the_page(view, options, panels):
    figure = report.chart(report.table(report.frame(synthetic(**options))), view)
    assert len(figure.axes) == panels
    figure.canvas.draw()
    wide, high = figure.get_size_inches()
    assert (wide, high) <= (10.5, 6)
    labels = [t.get_window_extent() for t in figure.axes[0].get_yticklabels()]
    titles = [axis.title.get_window_extent() for axis in figure.axes if axis.get_title()]
    for box in [*labels, *titles]:
        assert figure.bbox.x0 - 1 <= box.x0 < box.x1 <= figure.bbox.x1 + 1
    for boxes in (labels, titles):
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_a_chart_marks_means_over_a_part_of_the_records():
    summary = report.table(report.frame(synthetic()))
    figure = report.chart(summary)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert [label for label in labels if "*" in label] == ["deconvnet*"]
    assert "undefined" in figure.get_supxlabel()
    none = report.chart(report.table(report.frame(synthetic(undefined=0))))
    assert "undefined" not in none.get_supxlabel()


def test_a_chart_without_any_defined_P_is_refused():
    rows = report.frame(synthetic(methods=("deconvnet",), undefined=1.0, controls=False))
    with pytest.raises(ValueError, match="no defined P of a method for the view 'net'"):
        report.chart(report.table(rows), "net")


# --- single records --------------------------------------------------------------------------


def test_spread_shows_every_record_of_the_methods_of_the_study():
    rows = report.frame(synthetic())
    figure = report.spread(rows)
    assert [axis.get_title() for axis in figure.axes] == [title_of(name) for name in STUDY]
    for axis, method in zip(figure.axes, STUDY, strict=True):
        here = rows[rows.method == method]
        points = axis.collections[0].get_offsets()
        assert len(points) == len(here)
        defined = here[["mask_fraction", "P"]].dropna().to_numpy()
        assert np.ma.compress_rows(points) == pytest.approx(defined)
    with pytest.raises(ValueError, match="must have a method of gradient, deconvnet"):
        report.spread(rows[rows.method == "uniform"])


def test_every_method_has_a_name_for_reading_of_its_own():
    names = [title_of(method) for method in report.ORDER]
    assert len(set(names)) == len(names) == len(set(report.ORDER))
    assert not any("_" in name for name in names)


def test_spread_shows_what_the_uniform_map_would_get_and_all_dots():
    rows = report.frame(synthetic())
    for axis in report.spread(rows).axes:
        if not axis.get_title():
            continue
        (line,) = axis.lines
        assert list(line.get_xdata()) == list(line.get_ydata()) == [0, 1]
        assert line.get_linestyle() == "--"
        (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
        assert left <= 0
        assert rows.mask_fraction.max() < right < 1.2 * rows.mask_fraction.max()
        assert low <= 0 < 1 <= high


def test_spread_does_not_overlap():
    figure = report.spread(report.frame(synthetic(controls=False)))
    figure.canvas.draw()
    boxes = [axis.get_tightbbox() for axis in figure.axes if axis.get_title()]
    boxes += [text.get_window_extent() for text in (figure._supxlabel, figure._supylabel)]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gradient", "gradient"),
        ("guided_backprop", "guided backprop"),
        ("guided_grad_cam", "Guided Grad-CAM"),
        ("grad_cam_random", "Grad-CAM, random weights"),
        ("grad_cam_pp", "Grad-CAM++"),
        ("xgrad_cam_random", "XGrad-CAM, random weights"),
        ("eigen_cam", "Eigen-CAM"),
        ("gradient_x_input", "gradient × input"),
        ("lrp", "LRP-ε,z⁺"),
        ("lrp_epsilon_gamma_box", "LRP-ε,γ,zB"),
        ("lrp_alpha_beta_random", "LRP-αβ, random weights"),
        ("smoothgrad", "SmoothGrad"),
        ("simple_taylor", "simple Taylor"),
        ("sobel_edges", "Sobel edges"),
        ("guided_backprop_squared", "guided backprop²"),
        ("grad_cam_x_noise", "Grad-CAM × noise"),
    ],
)
def test_names_for_reading(name, shown):
    assert title_of(name) == shown


def test_records_of_a_method_that_is_not_known_are_not_left_out_in_silence():
    rows = report.frame(synthetic())
    rows["method"] = rows["method"].replace("gradient", "old_gradient")
    with pytest.raises(InputError, match="does not know: old_gradient"):
        report.table(rows)
