"""Methods compared for each network at each size: against pandas and scipy, and by hand."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vislib.errors import InputError
from vislib.measure import comparison, report
from vislib.measure.benchmark import NO_NET, Record
from vislib.measure.methods import BENCHMARK, CONTROLS, MAP_CONTROLS, RANDOM, STUDY, STUDY_MEANS
from vislib.measure.statistics import bootstrap_interval, bootstrap_means

NETS = ("pocket_alexnet", "pocket_vgg")


def record(image, net, method, size, p, rank=1, category="dog"):
    defined = not math.isnan(p)
    return Record(image, category, net, method, size, p, p * defined, 1.0 * defined, 0.1, rank)


@pytest.fixture
def rows() -> pd.DataFrame:
    """Random records of 30 images with two categories each, for two networks at two sizes."""
    random = np.random.default_rng(0)
    records = []
    for image in range(30):
        for category in ("dog", "cat"):
            for size in ("original", "64"):
                records.append(record(image, NO_NET, "uniform", size, 0.1, 0, category))
                for net in NETS:
                    rank = int(random.integers(1, 4))
                    for name in STUDY:
                        p = random.beta(2, 4) * (0.5 + STUDY_MEANS[name])
                        p = math.nan if name == "deconvnet" and random.random() < 0.2 else p
                        records.append(record(image, net, name, size, p, rank, category))
                        records.append(
                            record(image, net, name + RANDOM, size, p / 2, 4 - rank, category)
                        )
    return report.frame(records)


# --- the study's table ------------------------------------------------------------------------


def test_the_study_is_a_pivot_of_the_records(rows):
    study = comparison.study(rows)
    assert list(study.index) == [(net, size) for net in NETS for size in ("64", "original")]
    trained = rows[rows.method.isin(STUDY)]
    expected = trained.pivot_table("P", ["net", "size"], "method")
    pd.testing.assert_frame_equal(
        study[sorted(STUDY)], expected[sorted(STUDY)], check_names=False, check_index_type=False
    )
    assert set(study.units) == {60}
    gradient = trained[trained.method == "gradient"]
    first = gradient.groupby(["net", "size"]).score_rank.apply(lambda ranks: (ranks == 1).mean())
    assert study.predicted.to_dict() == pytest.approx(first.to_dict())
    assert 0.1 < study.predicted.min() < study.predicted.max() < 0.6


def test_orders_and_their_rank_correlation(rows):
    study = comparison.study(rows)
    for _, row in study.iterrows():
        means = row[list(STUDY)].astype(float)
        assert list(row.order) == list(means.sort_values(ascending=False).index)
        expected = stats.spearmanr(means, [STUDY_MEANS[name] for name in STUDY]).statistic
        assert row.rho == pytest.approx(expected)
        assert row.rho_low <= row.rho <= row.rho_high


def test_the_orders_of_the_review_are_those_of_its_table():
    """Mean P of version 1 by network at 128 pixels and at the original size, with its ρ."""
    found = [
        ([0.388, 0.320, 0.458, 0.421, 0.728], 1.0),
        ([0.387, 0.489, 0.604, 0.398, 0.776], 0.7),
        ([0.712, 0.200, 0.436, 0.833, 0.920], 0.7),
        ([0.463, 0.108, 0.591, 0.787, 0.898], 0.9),
    ]
    for means, rho in found:
        rows = report.frame(
            [record(1, "a", name, "64", p) for name, p in zip(STUDY, means, strict=True)]
        )
        assert comparison.study(rows).rho.item() == pytest.approx(rho)


def test_the_interval_of_the_order_is_as_wide_as_its_doubt():
    """Two methods with equal P on average change places in half of the draws."""
    certain = {"gradient": 0.2, "deconvnet": 0.1, "grad_cam": 0.5, "guided_grad_cam": 0.9}
    random = np.random.default_rng(1)
    records = []
    for image in range(40):
        records += [record(image, "a", name, "64", p) for name, p in certain.items()]
        records.append(record(image, "a", "guided_backprop", "64", 0.5 + random.normal(0, 0.1)))
    (row,) = comparison.study(report.frame(records)).to_dict("records")
    assert (row["rho_low"], row["rho_high"]) == pytest.approx((0.9, 1))
    steady = [r for r in records if r.method != "guided_backprop"]
    (row,) = comparison.study(report.frame(steady)).to_dict("records")
    assert (row["rho_low"], row["rho"], row["rho_high"]) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("methods", [(), ("grad_cam",), ("lrp", "occlusion")])
def test_with_fewer_than_two_methods_of_the_study_there_is_no_order(methods):
    rows = report.frame([record(i, "a", name, "64", 0.3) for i in range(3) for name in methods])
    study = comparison.study(rows)
    assert len(study) == (1 if methods else 0)
    assert study.rho.isna().all()
    assert list(study["order"]) == [tuple(n for n in methods if n in STUDY)] * len(study)


def test_one_draw_serves_all_columns():
    random = np.random.default_rng(2)
    values, images = random.random((50, 1)), np.arange(50) // 2
    means = bootstrap_means(np.hstack([values, values + 1]), images)
    assert means[:, 1] == pytest.approx(means[:, 0] + 1)
    low, high = np.percentile(means[:, 0], [2.5, 97.5])
    assert bootstrap_interval(values[:, 0], images) == pytest.approx((low, high))


def test_missing_values_are_left_out_of_their_mean_alone():
    values = np.array([[1.0, np.nan], [1.0, 4.0], [3.0, 8.0]])
    means = bootstrap_means(values, np.array([5, 5, 9]), samples=500)
    # Draws of the two images: 5 5, 5 9 (either way), 9 9.
    found = {tuple(row) for row in means.round(9)}
    assert found == {(1.0, 4.0), (round(5 / 3, 9), 6.0), (3.0, 8.0)}
    dead = bootstrap_means(values[:1], np.array([5]))
    assert np.isnan(dead[:, 1]).all() and (dead[:, 0] == 1).all()


# --- records of the predicted class -----------------------------------------------------------


def test_the_predicted_records_are_those_of_units_with_rank_1():
    rows = report.frame(
        [
            record(1, "a", "gradient", "64", 0.1, rank=1),
            record(1, "a", "gradient_random", "64", 0.2, rank=7),
            record(1, "a", "gradient", "original", 0.3, rank=2),
            record(1, "a", "gradient_random", "original", 0.4, rank=1),
            record(1, "b", "gradient", "64", 0.5, rank=2),
            record(2, "b", "gradient", "64", 0.6, rank=1),
            record(2, "b", "gradient", "64", 0.7, rank=3, category="cat"),
            record(1, NO_NET, "uniform", "64", 0.8, rank=0),
            record(2, NO_NET, "uniform", "64", 0.81, rank=0),
            record(1, NO_NET, "uniform", "original", 0.9, rank=0),
            record(2, NO_NET, "uniform", "64", 0.95, rank=0, category="cat"),
        ]
    )
    right = comparison.predicted(rows)
    assert list(right.P) == [0.1, 0.2, 0.6, 0.8, 0.81]
    assert list(right.columns) == list(rows.columns)
    # Network "b" is compared with the control for its own unit.
    table = report.table(right).set_index(["view", "value", "method"])
    assert table.loc[("net", "a", "uniform")].mean_P == 0.8
    assert table.loc[("network and size", "b, 64", "uniform")].mean_P == 0.81


def test_of_the_predicted_records_all_are_predicted(rows):
    right = comparison.predicted(rows)
    assert set(comparison.study(right).predicted) == {1.0}
    assert comparison.study(right).units.sum() == 240 * comparison.study(rows).predicted.mean()
    pd.testing.assert_frame_equal(comparison.predicted(right), right)
    assert comparison.predicted(rows.assign(score_rank=2)).empty


# --- differences ------------------------------------------------------------------------------


def test_a_difference_is_the_mean_of_pairs_with_their_own_interval(rows):
    found = comparison.difference(rows, "guided_grad_cam", "deconvnet_random")
    for (net, size), row in found.iterrows():
        part = rows[(rows.net == net) & (rows["size"] == size)]
        wide = part.pivot(index=["image_id", "category"], columns="method", values="P")
        gaps = (wide.guided_grad_cam - wide.deconvnet_random).dropna()
        assert row.difference == pytest.approx(gaps.mean())
        images = gaps.index.get_level_values("image_id").to_numpy()
        assert (row.low, row.high) == bootstrap_interval(gaps.to_numpy(), images)
        assert row.units == 60
        assert row.undefined == 60 - len(gaps) > 0
    back = comparison.difference(rows, "deconvnet_random", "guided_grad_cam")
    assert list(back.difference) == pytest.approx(list(-found.difference))


def test_a_difference_from_a_control_is_taken_on_the_same_images(rows):
    found = comparison.difference(rows, "gradient", "uniform")
    means = rows[rows.method == "gradient"].groupby(["net", "size"]).P.mean()
    assert found.difference.to_dict() == pytest.approx((means - 0.1).to_dict())
    few = rows[(rows.method != "uniform") | (rows.image_id < 10)]
    assert set(comparison.difference(few, "gradient", "uniform").units) == {20}
    assert set(comparison.difference(rows, "uniform", "uniform").difference) == {0}


def test_a_difference_can_be_known_although_the_images_differ_much():
    random = np.random.default_rng(3)
    records = []
    for image in range(30):
        p = random.uniform(0.1, 0.8)
        records.append(record(image, "a", "gradient", "64", p))
        records.append(record(image, "a", "grad_cam", "64", p + random.normal(0.05, 0.01)))
    (row,) = comparison.difference(report.frame(records), "grad_cam", "gradient").to_dict("records")
    assert 0.04 < row["low"] < row["difference"] < row["high"] < 0.06


def test_a_method_that_the_records_do_not_have(rows):
    with pytest.raises(InputError, match=r"no method 'grad_camm': did you mean .*'grad_cam'"):
        comparison.difference(rows, "grad_camm", "gradient")


def test_the_pairs_that_the_records_have_are_compared(rows):
    found = comparison.differences(rows)
    pairs = [(m, o) for m, o in comparison.PAIRS if {m, o} <= {*STUDY, "deconvnet_random"}]
    assert len(pairs) == 5
    assert list(dict.fromkeys((m, o) for m, o, *_ in found.index)) == pairs
    for pair in pairs:
        own = found.sort_index().xs(pair)
        pd.testing.assert_frame_equal(own, comparison.difference(rows, *pair))
    assert comparison.differences(rows[rows.method == "gradient"]).empty


def test_the_steps_among_the_pairs_are_those_of_the_study():
    steps = comparison.PAIRS[:4]
    order = sorted(STUDY, key=STUDY_MEANS.__getitem__)
    assert [(higher, lower) for lower, higher in pairwise(order)] == list(steps)
    known = {*BENCHMARK, *MAP_CONTROLS, *CONTROLS, *(name + RANDOM for name in BENCHMARK)}
    assert known.issuperset(name for pair in comparison.PAIRS for name in pair)


# --- what means hide --------------------------------------------------------------------------


def test_a_mean_over_sizes_hides_the_order_at_one_of_them():
    means = {
        # at 64 pixels, at the original size
        "grad_cam": (0.4, 0.8),
        "guided_backprop": (0.6, 0.5),
        "guided_grad_cam": (0.7, 0.9),
    }
    records = [
        record(1, "a", name, size, p)
        for name, both in means.items()
        for size, p in zip(("64", "original"), both, strict=True)
    ]
    records += [record(1, "b", name, "64", both[0]) for name, both in means.items()]
    found = comparison.reversals(report.frame(records))
    assert len(found) == 1
    row = found.iloc[0]
    assert (row.net, row.higher, row.lower) == ("a", "grad_cam", "guided_backprop")
    assert [row["all sizes"], row["64"], row["original"]] == pytest.approx([0.05, -0.2, 0.3])


def test_simpsons_paradox_with_the_opposite_order_at_every_size():
    # The gradient is ahead at both sizes, but most of its records are at the worse size.
    records = [record(i, "a", "gradient", "64", 0.3) for i in range(9)]
    records += [record(9, "a", "gradient", "original", 0.9)]
    records += [record(0, "a", "deconvnet", "64", 0.2)]
    records += [record(i, "a", "deconvnet", "original", 0.8) for i in range(9)]
    (row,) = comparison.reversals(report.frame(records)).to_dict("records")
    assert (row["higher"], row["lower"]) == ("deconvnet", "gradient")
    assert row["all sizes"] == pytest.approx(0.38)
    assert (row["64"], row["original"]) == pytest.approx((-0.1, -0.1))


def test_where_all_orders_agree_means_hide_nothing():
    records = [
        record(1, "a", name, size, p + 0.1 * (size == "64"))
        for name, p in STUDY_MEANS.items()
        for size in ("64", "original")
    ]
    found = comparison.reversals(report.frame(records))
    assert found.empty
    assert list(found.columns) == ["net", "higher", "lower", "all sizes", "64", "original"]


def test_reversals_agree_with_the_means_of_every_pair(rows):
    found = comparison.reversals(rows)
    means = rows.groupby(["net", "method"]).P.mean()
    split = rows.groupby(["net", "size", "method"]).P.mean()
    pairs = {
        (net, a, b) for net in NETS for a in STUDY for b in STUDY if means[net, a] > means[net, b]
    }
    expected = {
        (net, a, b)
        for net, a, b in pairs
        if any(split[net, size, a] < split[net, size, b] for size in ("64", "original"))
    }
    assert set(found[["net", "higher", "lower"]].itertuples(index=False, name=None)) == expected


def test_sizes_are_in_the_order_of_numbers():
    assert comparison.sizes_in_order(["original", "1000", "96", "224"]) == [
        "96",
        "224",
        "1000",
        "original",
    ]
