"""The page that places every method: passes counted by hand, verdicts that can go both ways."""

import math

import pandas as pd
import pytest
import torch

from vislib import nets
from vislib.data.coco import Coco
from vislib.errors import InputError
from vislib.explain import cam, gradients, occlusion
from vislib.explain.averaging import integrated_gradients, smoothgrad
from vislib.explain.fullgrad import fullgrad
from vislib.explain.lrp import lrp
from vislib.explain.shapley import shapley
from vislib.features import deconvnet
from vislib.layers import last_conv_stage
from vislib.maps import rank_correlation, upsample
from vislib.measure import benchmark, methods, overview, report
from vislib.measure.methods import BENCHMARK, CONTROLS, METHODS, OWN_PASSES, SHARED_PASS, Method
from vislib.paths import DATA


def plain(function, options=None, at_layer=False):
    """A method that is in no list."""
    return Method(
        "test", "test", "00", "control", "", function, options=options or {}, at_layer=at_layer
    )


@pytest.fixture(scope="module")
def model():
    return nets.load("emoji_gap")


@pytest.fixture(scope="module")
def x():
    return torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def layer(model, x):
    return last_conv_stage(model, x)


def quarters(x):
    rows, columns = torch.meshgrid(torch.arange(48) // 24, torch.arange(48) // 24, indexing="ij")
    return 2 * rows + columns


# What the method needs by its equation: images forward, signals back.
BY_HAND = {
    "gradient": (plain(gradients.gradient), 1, 1),
    "guided_backprop": (plain(gradients.guided_backprop), 1, 1),
    "cam": (plain(cam.cam, at_layer=True), 1, 0),
    "grad_cam": (plain(cam.grad_cam, at_layer=True), 1, 1),
    "eigen_cam": (plain(cam.eigen_cam, at_layer=True), 1, 0),
    "guided_grad_cam": (plain(cam.guided_grad_cam, at_layer=True), 1, 2),
    "smoothgrad": (plain(smoothgrad, {"n": 7}), 7, 7),
    "smoothgrad in batches": (plain(smoothgrad, {"n": 7, "batch": 3}), 7, 7),
    "integrated_gradients": (plain(integrated_gradients, {"steps": 5}), 5, 5),
    # squares at 0, 16, 32 of each side, and the picture itself
    "occlusion": (plain(occlusion.occlusion, {"size": 16, "stride": 16}), 3 * 3 + 1, 0),
    "fullgrad": (plain(fullgrad), 1, 1),
    "lrp": (plain(lrp), 1, 1),
    "sobel_edges": (METHODS["sobel_edges"], 0, 0),
}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("count", [1, 2])
def test_passes_are_those_of_the_equation(model, x, layer, name, count):
    method, forwards, backwards = BY_HAND[name]
    maps, took = overview.passes(method, model, x[:count], [3, 7][:count], layer)
    assert took == (forwards, backwards)
    assert len(maps) == count


def test_score_cam_asks_once_for_each_living_map(model, x, layer):
    maps = cam.score_cam(model, x[:1], 3, layer=layer)
    assert maps.shape[1] == 1
    _, took = overview.passes(METHODS["score_cam"], model, x[:1], 3, layer)
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda m, i, o: kept.append(o))
    model(x[:1])
    handle.remove()
    living = (kept[0].amax((2, 3)) > kept[0].amin((2, 3))).sum().item()
    assert took == (living + 1, 0)


def test_shapley_never_asks_for_a_coalition_twice(model, x, layer):
    """Four parts have 16 coalitions: many orders ask for all of them, and no more. One pass before
    looks whether the class exists."""
    method = plain(shapley, {"segments": quarters(x), "samples": 60})
    _, took = overview.passes(method, model, x[:1], 3, layer)
    assert took == (16 + 1, 0)


def test_the_model_is_left_without_hooks_also_after_an_error(model, x, layer):
    def fails(model, x, target):
        model(x)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        overview.passes(plain(fails), model, x, 3, layer)
    assert not model._forward_hooks


def test_every_method_of_the_benchmark_has_its_place():
    elsewhere = {"cam", "unit_deconvnet"}
    assert set(METHODS) == {*BENCHMARK, *CONTROLS, *elsewhere}
    assert {*BENCHMARK} == {*SHARED_PASS, *OWN_PASSES}
    for name in elsewhere:
        assert "not in the benchmark" in overview.NOTES[name]


@pytest.mark.parametrize("name", SHARED_PASS)
def test_methods_are_the_benchmarks(model, x, layer, name):
    """What shares one forward pass there is called by itself here."""
    maps, *_ = benchmark.explain(model, x, 3, [name], layer=layer)
    own = upsample(METHODS[name](model, x, 3, layer), x.shape[-2:])
    assert torch.allclose(own, maps[name], atol=1e-5 * float(maps[name].abs().max()))


def test_the_deconvnet_of_a_unit(x):
    net, layer = nets.load("emoji_vgg"), "net.features.8"
    maps, _ = deconvnet.forward(net, x, layer)
    own = methods.unit_deconvnet(net, x, 3, layer=layer)
    for i, image in enumerate(x):
        unit = int(maps[i].flatten(1).amax(1).argmax())
        assert torch.equal(own[i], deconvnet.reconstruct(net, image[None], layer, unit)[0])
    assert torch.equal(own, methods.unit_deconvnet(net, x, 7, layer=layer))


@pytest.fixture(scope="module")
def randoms(model, x):
    return overview.random_nets(model, x)


def test_random_nets_have_new_weights(model, x, randoms):
    for check, new in (("last_random", {"net.fc.weight", "net.fc.bias"}), ("all_random", None)):
        for net in randoms[check]:
            changed = {
                name
                for (name, a), b in zip(model.named_parameters(), net.parameters(), strict=True)
                if not torch.equal(a, b)
            }
            assert changed == (new or {name for name, _ in model.named_parameters()})
        answers = [net(x) for net in randoms[check]]
        assert len(answers) == overview.RANDOM_NETS and not torch.equal(answers[0], answers[1])
    again = overview.random_nets(model, x)
    assert torch.equal(again["all_random"][0](x), randoms["all_random"][0](x))


def test_likeness_goes_both_ways(model, x, layer, randoms):
    """A map of the picture fails all checks, one that is new for each net and class passes."""

    def noise(model, x, target):
        seed = int(1e4 * model(x)[:, target].abs().sum())
        return torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))

    edges = METHODS["sobel_edges"]
    row = overview.examine(edges, model, randoms, x[:1], (3, 7), layer)
    assert [row[check] for check in overview.CHECKS] == pytest.approx([1, 1, 1])
    row = overview.examine(plain(noise), model, randoms, x[:1], (3, 7), layer)
    assert all(abs(row[check]) < 0.1 for check in overview.CHECKS)


def test_a_row_is_what_the_parts_give(model, x, layer, randoms):
    method = METHODS["gradient"]
    row = overview.examine(method, model, randoms, x[:1], (3, 7), layer)
    a, b = (gradients.gradient(model, x[:1], which) for which in (3, 7))
    signed = float(rank_correlation(a, b, absolute=False))
    assert row["two_classes"] == pytest.approx(signed, abs=1e-4)
    for check, copies in randoms.items():
        maps = [gradients.gradient(net, x[:1], 3) for net in copies]
        each = [float(rank_correlation(a, c)) for c in maps]
        assert row[check] == pytest.approx(sum(each) / len(each), abs=1e-4)


def test_a_flat_map_has_no_likeness(model, x, layer, randoms):
    flat = METHODS["uniform"]
    row = overview.examine(flat, model, randoms, x[:1], (3, 4), layer)
    assert all(math.isnan(row[check]) for check in overview.CHECKS)


@pytest.fixture(scope="module")
def found(model):
    return overview.scenes(model, Coco(DATA / "emoji_coco", "gallery"), 3)


def test_scenes_show_two_classes(model, found):
    gallery = Coco(DATA / "emoji_coco", "gallery")
    assert len(found.ids) == 3 and found.images.shape == (3, 3, 128, 128)
    for i, one, other in zip(found.ids, found.one, found.other, strict=True):
        assert [model.classes[one], model.classes[other]] == gallery.objects(i)[:2]


def test_dear_methods_see_fewer_scenes(found):
    names = ["sobel_edges", "gradient", "cam"]
    records = overview.measure("emoji_vgg", found, methods=names, max_passes=1, max_scenes=2)
    assert records.groupby("method", sort=False).size().to_dict() == dict(
        zip(names, (3, 2, 1), strict=True)
    )
    assert list(records["image_id"]) == [*found.ids, *found.ids[:2], found.ids[0]]
    cam_row = records.iloc[-1]
    assert "one linear layer" in cam_row["note"] and math.isnan(cam_row["forwards"])


def rows(net, method, two_classes, all_random, note=None):
    passes = {"forwards": 2.0, "backwards": 1.0}
    return [
        {"net": net, "method": method, "image_id": i, **passes, "note": note}
        | {"two_classes": two, "last_random": 0.2, "all_random": random}
        for i, (two, random) in enumerate(zip(two_classes, all_random, strict=True))
    ]


def test_the_page_and_its_markdown():
    nan = math.nan
    records = pd.DataFrame(
        rows("a", "gradient", [0.1, 0.3, nan], [0.9, 0.7, 0.8])
        + rows("a", "grad_cam", [0.0, 1.0, 0.5], [0.0, 0.0, 0.0])
        + rows("a", "cam", [nan], [nan], "no linear layer")
        + rows("b", "cam", [0.2, 0.2], [-0.001, -0.001])
        + rows("b", "gradient", [1.0], [1.0])
        + rows("a", "uniform", [nan], [nan])
    )
    page = overview.page(records, "a", {"gradient": overview.MeanP(0.5, 0.4, 0.6)})
    assert list(page.index) == overview.ORDER
    gradient = page.loc["gradient"]
    assert gradient["two_classes"] == pytest.approx(0.2) and gradient["forwards"] == 2
    assert gradient["all_random_low"] < 0.8 < gradient["all_random_high"]
    assert (gradient["two_classes_verdict"], gradient["all_random_verdict"]) == ("✓", "✗")
    assert page.loc["grad_cam", "two_classes_verdict"] == "?"
    assert page.loc["cam", "note"].startswith("passes and checks on b; not in the benchmark")
    assert page.loc["cam", "two_classes"] == pytest.approx(0.2)
    assert page.loc["occlusion", ["forwards", "two_classes", "P"]].isna().all()

    text = overview.markdown(page).replace("\u00a0", " ")
    lines = dict(line.strip("| ").split(" | ", 1) for line in text.splitlines() if "|" in line)
    assert len(lines) == len(METHODS) + 2
    assert lines["gradient"].startswith("08 | How does")
    assert lines["gradient"].endswith(" | 2 + 1 | 0.20 ✓ | 0.20 ✓ | 0.80 ✗ | 0.50 ± 0.10")
    assert lines["Grad-CAM"].endswith(" | 0.50 ? | 0.20 ✓ | 0.00 ✓ | –")
    assert lines["CAM (b)"].endswith(" | 0.20 ✓ | 0.20 ✓ | 0.00 ✓ | –")
    assert lines["occlusion"].endswith(" | – | – | – | – | –")
    assert "(b) CAM: passes and checks on b; not in the benchmark" in text.splitlines()[-1]


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [(-0.2, 0.49, "✓"), (0.51, 1.0, "✗"), (0.4, 0.6, "?"), (0.5, 0.6, "?"), (0.1, 0.5, "?")],
)
def test_a_verdict_needs_the_whole_interval(low, high, told):
    assert overview.verdict(low, high) == told


def test_stored_energy_of_one_net(tmp_path):
    def records(net, method, *shares):
        return [
            benchmark.Record(i, "dog", net, method, "128", P, P, 1.0, 0.1, 1)
            for i, P in enumerate(shares)
        ]

    run = records("a", "lrp", 0.2, 0.4) + records("b", "lrp", 0.9)
    run += records("none", "uniform", 0.1, 0.1)
    report.frame(run).to_parquet(tmp_path / "all_methods.parquet")
    shares = overview.stored_energy("a", tmp_path)
    assert set(shares) == {"lrp", "uniform"}
    mean, low, high = shares["lrp"]
    assert mean == pytest.approx(0.3) and 0.2 <= low < mean < high <= 0.4
    assert overview.stored_energy("resnet18", tmp_path) == {}


def test_the_page_of_the_course_is_complete():
    """Every method has its numbers, or a note that says why not."""
    records = pd.read_parquet(overview.MEASURED)
    page = overview.page(records, "emoji_alexnet", overview.stored_energy("emoji_alexnet"))
    assert page["forwards"].notna().all()
    missing = page[[*overview.CHECKS, "P"]].isna().any(axis=1)
    assert set(page.index[missing]) == set(overview.NOTES)
    for check in overview.CHECKS:
        known = page[page[check].notna()]
        assert (known[f"{check}_low"] <= known[check] + 1e-9).all()
        assert (known[check] <= known[f"{check}_high"] + 1e-9).all()
    assert ((page["low"] <= page["P"]) & (page["P"] <= page["high"]) | page["P"].isna()).all()


@pytest.mark.parametrize("content", [None, b"", b"PAR1 half of a file"])
def test_a_stored_run_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "all_methods.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"all_methods\.parquet cannot be read"):
        overview.stored_energy("emoji_vgg", tmp_path)
