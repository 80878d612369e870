"""The stored results of the benchmark: whole, up to date, and as the figures in the text say.

A part of the run on real images of COCO is repeated where those images are. They are beside the
project, in ``shared``, and not part of it, so without them this test is skipped.
"""

from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from vislib import nets
from vislib.cli import WORLDS
from vislib.data.coco import Coco
from vislib.data.objects import dilate
from vislib.layers import last_conv_stage
from vislib.measure import benchmark, comparison, report
from vislib.measure.benchmark import NO_NET, Batch
from vislib.measure.methods import CONTROLS, MAP_CONTROLS, RANDOM, SHARED_PASS, STUDY
from vislib.paths import DATA

STORED = DATA / "benchmark"
REAL = Path(__file__).parents[2] / "shared" / "coco"
LITE = "efficientnet_lite0"
RUNS = {
    "pocket": (WORLDS["pocket"].nets, {"128", "original"}),
    "photographs": ((LITE,), {"224", "original"}),
    "coco": ((LITE,), {"224", "original"}),
}


def read(name: str, file: str = "records") -> pd.DataFrame:
    skip_if_absent(name)
    return pd.read_parquet(STORED / name / f"{file}.parquet")


def table_of(name: str) -> str:
    skip_if_absent(name)
    return (STORED / name / "table.md").read_text(encoding="utf-8")


def skip_if_absent(name: str) -> None:
    if not (STORED / name).is_dir():
        pytest.skip(f"the run {name!r} is not stored yet: its networks are still being trained")


# --- All runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_a_stored_run_is_whole_and_small(name):
    rows, (networks, sizes) = read(name), RUNS[name]
    assert set(rows.net) == {*networks, NO_NET}
    assert set(rows["size"]) == sizes
    explained = [*SHARED_PASS, *(method + RANDOM for method in SHARED_PASS), *MAP_CONTROLS]
    units = rows[rows.method == "uniform"].groupby("size").size()
    counts = rows.groupby(["size", "method"]).size().unstack("size")
    for size in sizes:
        assert set(counts.loc[explained, size]) == {units[size] * len(networks)}
        assert set(counts.loc[list(CONTROLS), size]) == {units[size]}
    files = list((STORED / name).iterdir())
    assert max(file.stat().st_size for file in files) < 600_000
    assert not [file for file in files if file.suffix in (".png", ".jpg", ".npy")]


def test_the_study_on_pocket_coco_has_1440_records_for_each_method():
    rows = read("pocket")
    assert set(rows[rows.net != NO_NET].method.value_counts()) == {6 * 30 * 4 * 2}
    assert set(rows[rows.method == "uniform"].groupby("category").size()) == {2 * 30}


@pytest.mark.parametrize("name", RUNS)
def test_the_stored_table_is_that_of_the_stored_records(name):
    rows = read(name)
    first, _, rest = table_of(name).partition("\n\n")
    assert first.startswith("Made by `uv run vislib benchmark")
    assert rest == report.markdown(report.table(rows)) + "\n" + report.study_markdown(rows)


@pytest.mark.parametrize("name", RUNS)
def test_a_stored_run_was_made_with_the_weights_that_the_course_loads(name):
    rows = read(name)
    for net in RUNS[name][0]:
        trained = rows[(rows.net == net) & ~rows.method.str.endswith(RANDOM)]
        digest = benchmark.weights_digest(nets.load(net))[:12]
        assert set(trained.weights) == {digest}
        assert digest in table_of(name)
    assert set(rows.weights[rows.net == NO_NET]) == {NO_NET}


@pytest.mark.parametrize("name", WORLDS)
def test_a_stored_run_was_made_with_the_objects_that_the_course_has(name):
    rows = read(name)
    uniform = rows[(rows.method == "uniform") & (rows["size"] == "original")]
    coco = Coco(WORLDS[name].folder, WORLDS[name].split)
    for row in uniform.itertuples():
        mask = dilate(coco.mask(row.image_id, row.category))
        assert row.mask_fraction == pytest.approx(mask.mean(), abs=1e-6), row


def test_the_stored_commands_use_no_option_that_is_unknown():
    """The commands as they are printed: without options, with a name, with a folder and a table."""
    assert table_of("pocket").startswith("Made by `uv run vislib benchmark`\n")
    assert table_of("photographs").startswith(
        "Made by `uv run vislib benchmark --data photographs`"
    )
    assert table_of("coco").startswith(
        "Made by `uv run vislib benchmark --coco FOLDER --split train2017 --categories all "
        "--class-table data/benchmark/coco/imagenet_classes.json`\n"
    )


# --- Real images of COCO --------------------------------------------------------------------------

# Mean P at 224 pixels and at the original size, measured once with other code.
KNOWN = {
    "gradient": (0.198, 0.232),
    "deconvnet": (0.144, 0.141),
    "guided_backprop": (0.221, 0.259),
    "grad_cam": (0.270, 0.371),
    "guided_grad_cam": (0.305, 0.434),
    "uniform": (0.129, 0.126),
    "sobel_edges": (0.187, 0.179),
    "centred_gaussian": (0.179, 0.175),
}
# The same for random weights as PyTorch draws them, with batch normalisation that does nothing.
KNOWN_RANDOM = {
    "gradient": (0.154, 0.140),
    "deconvnet": (0.146, 0.134),
    "guided_backprop": (0.154, 0.138),
    "grad_cam": (0.132, 0.106),
    "guided_grad_cam": (0.144, 0.118),
}


def test_mean_P_on_real_images_is_the_known_one():
    means = read("coco").pivot_table("P", "method", "size")
    random = read("coco", "plain_random").pivot_table("P", "method", "size")
    for known, found, end in ((KNOWN, means, ""), (KNOWN_RANDOM, random, RANDOM)):
        for name, (at_224, original) in known.items():
            assert found.loc[name + end, "224"] == pytest.approx(at_224, abs=0.01), name
            assert found.loc[name + end, "original"] == pytest.approx(original, abs=0.01), name


def test_the_findings_on_real_images():
    rows = read("coco")

    def gap(method: str, other: str) -> pd.DataFrame:
        return comparison.difference(rows, method, other).loc[LITE]

    # Every step of the order is above 0 at both sizes.
    order = ("deconvnet", "gradient", "guided_backprop", "grad_cam", "guided_grad_cam")
    study = comparison.study(rows)
    assert [found[::-1] for found in study["order"]] == [order, order]
    for lower, higher in pairwise(order):
        assert (gap(higher, lower).low > 0).all(), (higher, lower)
    # The study has guided backprop ahead of Grad-CAM, by 0.003: one exchange.
    assert list(study.rho) == pytest.approx([0.9, 0.9])
    # Training adds nothing reliable to the deconvnet: a hundredth at most, more or less, depending
    # on the random weights. To the gradient it adds several hundredths.
    drawn = pd.concat([rows[~rows.method.str.endswith(RANDOM)], read("coco", "plain_random")])
    plain = comparison.difference(drawn, "deconvnet", "deconvnet_random").loc[LITE]
    measured = gap("deconvnet", "deconvnet_random")
    assert (measured.high < 0).all() and measured.low.min() > -0.02
    assert plain.low["224"] < 0 < plain.high["224"]
    assert 0 < plain.low["original"] < plain.high["original"] < 0.012
    learnt = gap("gradient", "gradient_random")
    assert (learnt.low > 0).all() and learnt.difference.min() > 0.03
    # At 224 pixels, the gradient cannot be told from the edges of the image.
    edges = gap("gradient", "sobel_edges")
    assert edges.low["224"] < 0 < edges.high["224"]
    assert edges.low["original"] > 0


@pytest.mark.skipif(not REAL.exists(), reason=f"the real images are not here: no {REAL}")
@pytest.mark.real
@pytest.mark.parametrize(("size", "count"), [(224, 9), ("original", 2)])
def test_a_part_of_the_run_on_real_images_gives_the_stored_records(size, count):
    coco = Coco(REAL, "train2017")
    stored, plain = read("coco"), read("coco", "plain_random")
    units = stored.loc[stored["size"] == str(size), ["image_id", "category"]].drop_duplicates()
    units = tuple(units.sort_values(list(units))[::13][:count].itertuples(index=False, name=None))
    model, twin = nets.load(LITE), nets.load(LITE, weights=False)
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    targets = nets.class_targets(model, STORED / "coco" / "imagenet_classes.json")
    layer = last_conv_stage(model, torch.zeros(1, 3, 224, 224))
    expected = pd.concat([stored[~stored.method.str.endswith(RANDOM)], plain])
    expected = expected[expected["size"] == str(size)].set_index(["image_id", "category", "method"])
    for unit in units:
        for net, networks in ((LITE, {"": model, RANDOM: twin}), (NO_NET, {})):
            methods = [*STUDY, *MAP_CONTROLS]
            records, skipped = benchmark.run_batch(
                Batch(net, size, (unit,)), coco, networks, targets, methods, layer=layer
            )
            assert not skipped
            assert len(records) == (2 * len(STUDY) + len(MAP_CONTROLS) if networks else 3)
            for record in records:
                row = expected.loc[(*unit, record.method)]
                stored_P = pytest.approx(row.P, abs=1e-3, nan_ok=True)
                assert (record.P, record.score_rank) == (stored_P, row.score_rank), record
