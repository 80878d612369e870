"""The report: intervals against scipy and by simulation, the table against pandas, the charts."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from scipy import stats

from vislib import show
from vislib.errors import InputError
from vislib.measure import report
from vislib.measure.benchmark import NO_NET, Record, Skipped
from vislib.measure.methods import BENCHMARK, CONTROLS, RANDOM, SHARED_PASS, title_of
from vislib.measure.statistics import bootstrap_interval

COLUMNS = "image_id,category,net,method,size,P,E,E_total,mask_fraction,score_rank"
NETS = ("emoji_alexnet", "emoji_resnet", "emoji_squeezenet", "emoji_vgg")
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
    """Records as a run could give them; `undefined` is the share of the deconvnets that die."""
    random = np.random.default_rng(0)
    records = []
    for image_id in range(images * len(categories)):
        category = categories[image_id % len(categories)]
        share = random.uniform(0.05, 0.3)
        rows = [(NO_NET, c) for c in CONTROLS if controls]
        rows += [(n, m + s) for n in nets for m in methods for s in ("", RANDOM)[: 1 + controls]]
        for size in ("128", "original"):
            for net, method in rows:
                p = share if method == "uniform" else random.beta(2, 4)
                if method == "deconvnet" and random.random() < undefined:
                    p = math.nan
                e = 0.0 if math.isnan(p) else p
                total = 0.0 if math.isnan(p) else 1.0
                rank = 0 if net == NO_NET else 1
                records.append(
                    Record(image_id, category, net, method, size, p, e, total, share, rank)
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
    for view in report.VIEWS:
        groups = rows[rows.net != NO_NET].groupby([view, "method"])
        for (value, method), group in groups:
            found = summary.loc[(view, value, method)]
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


def test_the_controls_stand_beside_every_net():
    summary = report.table(report.frame(synthetic(images=1)))
    by_net = summary[summary["view"] == "net"]
    assert set(by_net["value"]) == set(NETS)
    for control in CONTROLS:
        rows = by_net[by_net["method"] == control]
        assert len(rows) == len(NETS)
        assert rows.mean_P.nunique() == 1


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_the_markdown_holds_the_tables_numbers():
    summary = report.table(report.frame(synthetic()))
    blocks = report.markdown(summary).strip().split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) == 1 + len(report.VIEWS)
    for lines in tables:
        assert {len(cells(line)) for line in lines} == {len(cells(lines[0]))}
        assert set(cells(lines[1])) == {"---"}
        rows = [*SHARED_PASS, *(m + RANDOM for m in SHARED_PASS), *CONTROLS]
        assert [cells(line)[0] for line in lines[2:]] == rows
    overall = summary[summary["view"] == "all"].set_index("method")
    for line in tables[0][2:]:
        method, mean, interval, records, undefined = cells(line)
        row = overall.loc[method]
        assert mean == f"{row.mean_P:.3f}"
        assert interval == f"{row.low:.3f} – {row.high:.3f}"
        assert (int(records), int(undefined)) == (row.records, row.undefined)
    wide = summary[summary["view"] == "net"].set_index(["method", "value"])
    columns = cells(tables[1][0])[1:]
    for line in tables[1][2:]:
        method, *means = cells(line)
        assert means == [f"{wide.loc[(method, net)].mean_P:.3f}" for net in columns]


# --- files -----------------------------------------------------------------------------------


def test_all_files_are_written_and_twice_the_same(tmp_path):
    records = synthetic(images=1)
    skipped = [Skipped(7, "dog", "emoji_vgg", "original", 'there is "no" file, here')]
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        report.write(records, skipped, tmp_path / name)
        contents.append({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()})
    charts = {f"chart_{v}.{end}" for v in ("all", *report.VIEWS) for end in ("png", "svg")}
    tables = {"records.csv", "records.parquet", "skipped.csv", "table.csv", "table.md"}
    assert set(contents[0]) == charts | tables
    assert [n for n, content in contents[0].items() if content != contents[1][n]] == []
    for name in charts:
        if name.endswith("png"):
            with Image.open(tmp_path / "first" / name) as picture:
                assert min(picture.size) >= 600
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


@pytest.mark.parametrize(
    ("options", "views"),
    [
        # no net could be used, so that only the controls are left
        ({"nets": ()}, {"all", "size", "category"}),
        # every map was dead
        ({"methods": ("deconvnet",), "undefined": 1.0, "controls": False}, {"all", *report.VIEWS}),
        ({"nets": NETS[:1], "categories": ("dog",), "images": 1}, {"all", *report.VIEWS}),
    ],
    ids=["controls only", "all undefined", "one image"],
)
def test_there_is_a_report_whatever_the_run_gave(tmp_path: Path, options, views):
    report.write(synthetic(**options), [], tmp_path)
    assert {f.stem for f in tmp_path.glob("chart_*")} == {f"chart_{view}" for view in views}
    assert "nan" not in (tmp_path / "table.md").read_text(encoding="utf-8")


# --- charts ----------------------------------------------------------------------------------

SETTINGS = {
    "course": {},
    "16 categories": {"categories": tuple(f"category {i}" for i in range(16)), "images": 2},
    "one net": {"nets": NETS[:1]},
    "no controls": {"controls": False},
    "all methods": {"methods": BENCHMARK, "nets": NETS[:2], "images": 1},
    "all undefined": {"methods": ("deconvnet", "gradient"), "undefined": 1.0},
}


@pytest.mark.parametrize(
    ("setting", "view"),
    [("course", view) for view in ("all", *report.VIEWS)]
    + [("16 categories", "category"), ("one net", "net"), ("no controls", "all")]
    + [("no controls", "net"), ("all undefined", "size"), ("all methods", "all")],
)
def test_no_label_in_a_chart_hides_another_or_a_bar(setting, view):
    summary = report.table(report.frame(synthetic(**SETTINGS[setting])))
    part = summary[summary["view"] == view]
    figure = report.chart(summary, view)
    figure.canvas.draw()
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert len(panels) == part["value"].nunique()
    for axis in panels:
        here = part[part["value"] == axis.get_title().split(": ")[-1]] if view != "all" else part
        labels = axis.texts
        assert len(labels) == len(here)
        frame = axis.get_window_extent()
        boxes = [label.get_window_extent() for label in labels]
        for box, high in zip(boxes, here.high.fillna(0), strict=True):
            assert box.x0 > axis.transData.transform((high, 0))[0]  # right of the interval
            assert box.x1 <= frame.x1 + 1
        ends = sorted((box.y0, box.y1) for box in boxes)
        assert all(below[1] < above[0] for below, above in pairwise(ends))
    everything = figure.bbox
    names = [t.get_window_extent() for t in panels[0].get_yticklabels()]
    titles = [axis.title.get_window_extent() for axis in panels]
    for box in [*names, *titles, figure.legends[0].get_window_extent()]:
        assert everything.x0 - 1 <= box.x0 < box.x1 <= everything.x1 + 1
    assert not any(a.overlaps(b) for i, a in enumerate(titles) for b in titles[i + 1 :])


def test_a_chart_shows_the_tables_numbers_best_on_top_and_the_kinds_apart():
    summary = report.table(report.frame(synthetic()))
    overall = summary[summary["view"] == "all"].set_index("method")
    axis = report.chart(summary).axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    by_place = sorted(axis.patches, key=lambda bar: -bar.get_y())
    assert len(names) == len(by_place) == len(overall)

    explanations = overall.loc[list(SHARED_PASS)].mean_P.sort_values(ascending=False)
    n = len(SHARED_PASS)
    assert [bar.get_width() for bar in by_place[:n]] == pytest.approx(list(explanations))
    assert names[:n] == [title_of(m) for m in explanations.index]
    assert names[n : 2 * n] == [f"{name}, random" for name in names[:n]]
    assert set(names[2 * n :]) == {"uniform map", "centred Gaussian", "Sobel edges"}
    looks = [(bar.get_facecolor(), bar.get_hatch()) for bar in by_place]
    assert len(set(looks[:n])) == len(set(looks[n : 2 * n])) == len(set(looks[2 * n :])) == 1
    assert len({hatch for _, hatch in looks}) == 3  # told apart without colour
    line = axis.lines[-1] if axis.lines[-1].get_linestyle() == "--" else None
    assert line is not None
    assert line.get_xdata()[0] == pytest.approx(overall.mask_fraction.mean())


def test_a_chart_marks_means_over_a_part_of_the_records():
    summary = report.table(report.frame(synthetic()))
    figure = report.chart(summary)
    stars = [text.get_text() for text in figure.axes[0].texts if "*" in text.get_text()]
    assert len(stars) == 1  # the deconvnet's
    assert "undefined" in figure.legends[0].get_title().get_text()
    none = report.chart(report.table(report.frame(synthetic(undefined=0))))
    assert "undefined" not in none.legends[0].get_title().get_text()


def test_a_chart_can_have_fewer_panels_a_row():
    summary = report.table(report.frame(synthetic(images=1)))
    wide, narrow = report.chart(summary, "net"), report.chart(summary, "net", columns=2)
    shapes = [figure.axes[0].get_gridspec().get_geometry() for figure in (wide, narrow)]
    assert shapes == [(1, 4), (2, 2)]
    assert narrow.get_figwidth() < 0.7 * wide.get_figwidth()


# --- single records --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("methods", "shape"),
    [(SHARED_PASS[:1], (1, 1)), (SHARED_PASS[:3], (1, 3)), (SHARED_PASS, (3, 3))],
)
def test_spread_shows_every_record_in_its_methods_panel(methods, shape):
    rows = report.frame(synthetic(methods=methods, controls=False))
    figure = report.spread(rows)
    assert figure.axes[0].get_gridspec().get_geometry() == shape
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == [title_of(m) for m in methods]
    for axis, method in zip(panels, methods, strict=True):
        here = rows[rows.method == method]
        dots = axis.collections[0].get_offsets()
        assert len(dots) == len(here)
        defined = here[["mask_fraction", "P"]].dropna().to_numpy()
        assert np.ma.compress_rows(dots) == pytest.approx(defined)
    for axis in figure.axes[len(methods) :]:
        assert not axis.axison  # an empty place has no frame


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


def test_a_matrix_shows_every_number_and_every_name_without_overlap():
    names = [title_of(method) for method in SHARED_PASS]
    values = np.random.default_rng(0).uniform(-1, 1, size=(len(names), 4))
    values[2, 1] = np.nan
    ranks = pd.DataFrame(values, index=names, columns=["P", "pointing", "deletion", "insertion"])
    whole = pd.DataFrame(np.arange(16).reshape(4, 4), index=ranks.columns, columns=ranks.columns)
    for tables in ({"a": ranks, "b": ranks}, {"a": ranks}, {"a": whole, "b": whole}):
        figure = show.matrix_figure(tables, cell=0.75)
        figure.canvas.draw()
        for number, (axis, frame) in enumerate(zip(figure.axes, tables.values(), strict=True)):
            shown = [text.get_text() for text in axis.texts]
            expected = frame.to_numpy().ravel()
            texts = [f"{v:.0f}" if v == round(v) else f"{v:.2f}" for v in expected if v == v]
            assert shown == [text.replace("-", "−") for text in texts]
            assert [t.get_text() for t in axis.get_xticklabels()] == list(frame.columns)
            names_at = [t.get_text() for t in axis.get_yticklabels()]
            assert names_at == (list(frame.index) if number == 0 else [""] * len(frame))
        boxes = [text.get_window_extent() for axis in figure.axes for text in axis.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
        labels = [t.get_window_extent() for a in figure.axes for t in a.get_yticklabels()]
        assert all(box.x0 >= figure.bbox.x0 - 1 for box in labels)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gradient", "gradient"),
        ("guided_backprop", "guided backprop"),
        ("guided_grad_cam", "Guided Grad-CAM"),
        ("grad_cam_random", "Grad-CAM, random"),
        ("grad_cam_pp", "Grad-CAM++"),
        ("xgrad_cam_random", "XGrad-CAM, random"),
        ("eigen_cam", "Eigen-CAM"),
        ("gradient_x_input", "gradient × input"),
        ("lrp", "LRP-ε,z⁺"),
        ("lrp_epsilon_gamma_box", "LRP-ε,γ,zB"),
        ("lrp_alpha_beta_random", "LRP-αβ, random"),
        ("smoothgrad", "SmoothGrad"),
        ("simple_taylor", "simple Taylor"),
        ("sobel_edges", "Sobel edges"),
    ],
)
def test_names_for_reading(name, shown):
    assert title_of(name) == shown


def test_records_of_a_method_that_is_not_known_are_not_left_out_in_silence():
    rows = report.frame(synthetic())
    rows["method"] = rows["method"].replace("gradient", "old_gradient")
    with pytest.raises(InputError, match="does not know: old_gradient"):
        report.table(rows)
