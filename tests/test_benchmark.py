"""The benchmark: the right numbers, nothing lost, and one bad image that stops nothing.

It runs on a few scenes of Emoji COCO, shrunk to a third, and on pocket nets with weights of their
own, so that nothing here depends on which weights the course ships.
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from vislib import nets
from vislib.data import objects as data_objects
from vislib.data.coco import Coco
from vislib.data.images import load_image
from vislib.data.objects import dilate, load_unit
from vislib.errors import InputError
from vislib.explain import cam, gradients
from vislib.explain.gradients import gradient_x_input
from vislib.layers import last_conv_stage
from vislib.maps import upsample
from vislib.measure import benchmark, energy, methods, report
from vislib.measure.benchmark import NO_NET, Batch, Plan, Record
from vislib.measure.methods import BENCHMARK, METHODS, OWN_PASSES, SHARED_PASS, STUDY
from vislib.paths import DATA

CATEGORIES = ("dog", "cat")
NETS = ("emoji_alexnet", "emoji_squeezenet")
CONTROLS = ("uniform", "centred_gaussian", "sobel_edges")
MAP_CONTROLS = (
    "guided_backprop_squared",
    "grad_cam_squared",
    "grad_cam_x_noise",
    "grad_cam_x_sobel",
)
Change = Callable[[dict[str, Any]], None]


def small_coco(folder: Path, *, per_category: int = 2, shrink: int = 3) -> Path:
    """Copy the first scenes of each category, and their annotations but for the crowds."""
    data = read_annotations(DATA / "emoji_coco")
    number = {c["name"]: c["id"] for c in data["categories"]}
    chosen: set[int] = set()
    for name in CATEGORIES:
        with_it = {a["image_id"] for a in objects(data) if a["category_id"] == number[name]}
        chosen |= set(sorted(with_it)[:per_category])
    data["images"] = [entry for entry in data["images"] if entry["id"] in chosen]
    data["annotations"] = [a for a in objects(data) if a["image_id"] in chosen]
    (folder / "val").mkdir(parents=True)
    for entry in data["images"]:
        with Image.open(DATA / "emoji_coco" / "val" / entry["file_name"]) as image:
            small = image.reduce(shrink)
        entry["file_name"] = entry["file_name"].replace("jpg", "png")
        entry["width"], entry["height"] = small.size
        small.save(folder / "val" / entry["file_name"])
    for a in data["annotations"]:
        a["segmentation"] = [[c / shrink for c in polygon] for polygon in a["segmentation"]]
    write_annotations(folder, data)
    return folder


def objects(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [a for a in data["annotations"] if not a["iscrowd"]]


def read_annotations(folder: Path) -> dict[str, Any]:
    file = folder / "annotations" / "instances_val.json"
    return json.loads(file.read_text(encoding="utf-8"))


def write_annotations(folder: Path, data: dict[str, Any]) -> None:
    file = folder / "annotations" / "instances_val.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(data), encoding="utf-8")


def units_by_hand(folder: Path, per_category: int = 30) -> list[tuple[int, str]]:
    """The (image id, category) pairs that the plan should hold, read from the JSON alone."""
    data = read_annotations(folder)
    number = {c["name"]: c["id"] for c in data["categories"]}
    units = []
    for name in CATEGORIES:
        ids = {a["image_id"] for a in objects(data) if a["category_id"] == number[name]}
        units += [(i, name) for i in sorted(ids)[:per_category]]
    return sorted(units)


def write_weights(folder: Path, name: str, change: Callable[[Any], None] | None = None) -> None:
    """Random weights, other than those of the control, as if `vislib train` had written them."""
    net = nets.load(name, weights=False, seed=1).net
    with torch.no_grad():
        if change:
            change(net)
    save_file(net.state_dict(), folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return small_coco(tmp_path_factory.mktemp("scenes") / "coco")


@pytest.fixture
def own_scenes(tmp_path) -> Path:
    """Scenes that a test may damage."""
    return small_coco(tmp_path / "coco")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for name in NETS:
        write_weights(folder, name)
    return folder


@pytest.fixture(autouse=True)
def _use_weights(weights, monkeypatch):
    monkeypatch.setattr(nets, "WEIGHTS", weights)


@pytest.fixture
def batches_run(monkeypatch) -> list[Batch]:
    """The batches that `run` computes, in order: those it finds done are not among them."""
    computed: list[Batch] = []
    run_batch = benchmark.run_batch

    def counting(batch, *arguments, **options):
        computed.append(batch)
        return run_batch(batch, *arguments, **options)

    monkeypatch.setattr(benchmark, "run_batch", counting)
    return computed


def run(folder: Path, out: Path, **options: Any):
    """The benchmark with small settings."""
    settings = {"nets": NETS, "categories": CATEGORIES, "sizes": ("original", 64)} | options
    how = {key: settings.pop(key) for key in ("device", "save_maps") if key in settings}
    return benchmark.run(Coco(folder, "val"), out, Plan(**settings), **how)


def same(found: list[Record], expected: list[Record]) -> bool:
    """Equal to the last bit; NaN equals NaN."""
    return [repr(r) for r in found] == [repr(r) for r in expected]


# --- plan ------------------------------------------------------------------------------------


@pytest.mark.parametrize("controls", [True, False])
@pytest.mark.parametrize("per_category", [1, 2, 30])
def test_the_plan_holds_every_unit_once_per_net_and_size(scenes, per_category, controls):
    coco, sizes = Coco(scenes, "val"), ("original", 64, 224)
    plan = Plan(NETS, CATEGORIES, sizes=sizes, per_category=per_category, controls=controls)
    batches = benchmark.batches(coco, plan)
    found = Counter((b.net, b.size, unit) for b in batches for unit in b.units)
    expected = {
        (net, size, unit)
        for net in (*NETS, *([NO_NET] if controls else []))
        for size in sizes
        for unit in units_by_hand(scenes, per_category)
    }
    assert found == Counter(expected)


def test_the_plan_is_the_same_every_time(scenes):
    plans = [
        benchmark.batches(Coco(scenes, "val"), Plan(NETS, CATEGORIES, sizes=("original", 64)))
        for _ in range(2)
    ]
    assert plans[0] == plans[1]


def test_batches_fit_into_memory_and_images_of_a_batch_have_one_size(scenes):
    plan = Plan(NETS, CATEGORIES, sizes=("original", 128, 1000))
    batches = benchmark.batches(Coco(scenes, "val"), plan)
    for batch in batches:
        if batch.size == "original":
            assert len({image_id for image_id, _ in batch.units}) == 1
        else:
            assert len(batch.units) <= max(1, 4 * 224**2 // batch.size**2)


# --- the numbers -----------------------------------------------------------------------------


def test_the_records_are_what_the_plain_functions_give_one_by_one(scenes, tmp_path, monkeypatch):
    # Three classes for each category: the explained one is the best of them, image by image.
    candidates = {"dog": (1, 5, 9), "cat": (0, 8, 14)}
    monkeypatch.setattr(benchmark, "class_targets", lambda *_: candidates)
    records, skipped = run(scenes, tmp_path, per_category=1)
    assert not skipped

    coco = Coco(scenes, "val")
    seeds: dict[str, Any] = {"": {}, "_random": {"weights": False}}
    models = {(net, s): nets.load(net, **o) for net in NETS for s, o in seeds.items()}
    functions: dict[str, Callable[..., torch.Tensor]] = {
        "gradient": gradients.gradient,
        "deconvnet": gradients.deconvnet,
        "guided_backprop": gradients.guided_backprop,
        "grad_cam": cam.grad_cam,
        "guided_grad_cam": cam.guided_grad_cam,
        "gradient_x_input": gradient_x_input,
        "grad_cam_pp": cam.grad_cam_pp,
        "xgrad_cam": cam.xgrad_cam,
        "layer_cam": cam.layer_cam,
    }
    assert tuple(functions) == SHARED_PASS
    made_of_maps = {
        "guided_backprop_squared": ("guided_backprop", lambda maps, image: maps**2),
        "grad_cam_squared": ("grad_cam", lambda maps, image: maps**2),
        "grad_cam_x_noise": ("grad_cam", lambda maps, image: maps * noise(maps.shape[-2:])),
        "grad_cam_x_sobel": ("grad_cam", lambda maps, image: maps * energy.sobel_edges(image)),
    }
    assert tuple(made_of_maps) == MAP_CONTROLS == tuple(methods.MAP_CONTROLS)
    for record in records:
        image = load_image(coco.path(record.image_id))
        mask = coco.mask(record.image_id, record.category)
        if record.size != "original":
            side = (int(record.size),) * 2
            with Image.open(coco.path(record.image_id)) as stored:
                small = np.asarray(stored.convert("RGB").resize(side, Image.Resampling.BILINEAR))
            image = torch.from_numpy(small.copy()).movedim(-1, 0) / 255
            mask = np.asarray(Image.fromarray(mask).resize(side, Image.Resampling.NEAREST))
        mask = dilate(mask)
        rank = 0
        if record.net == NO_NET:
            controls = {
                "uniform": torch.ones(image.shape[-2:]),
                "centred_gaussian": energy.centred_gaussian(*image.shape[-2:]),
                "sobel_edges": energy.sobel_edges(image),
            }
            maps = controls[record.method]
        else:
            name = record.method.removesuffix("_random")
            model = models[record.net, record.method.removeprefix(name)]
            logits = model(image[None])[0].detach()
            target = max(candidates[record.category], key=lambda c: float(logits[c]))
            rank = sorted(logits.tolist(), reverse=True).index(logits[target].item()) + 1
            of, change = made_of_maps.get(name, (name, lambda maps, image: maps))
            maps = functions[of](model, image[None], target)
            maps = change(upsample(maps, image.shape[-2:])[0], image)
        expected = energy.energy(maps, mask)
        assert [record.P, record.E, record.E_total] == pytest.approx(
            expected, rel=1e-4, nan_ok=True
        )
        assert (record.mask_fraction, record.score_rank) == (mask.mean(), rank)


def noise(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_there_is_one_record_for_each_unit_net_method_and_size(scenes, tmp_path):
    records, _ = run(scenes, tmp_path)
    expected = {
        (*unit, net, method, size)
        for unit in units_by_hand(scenes)
        for size in ("original", "64")
        for net, method in [(NO_NET, c) for c in CONTROLS]
        + [(net, m + end) for net in NETS for m in SHARED_PASS for end in ("", "_random")]
        + [(net, control) for net in NETS for control in MAP_CONTROLS]
    }
    keys = [(r.image_id, r.category, r.net, r.method, r.size) for r in records]
    assert Counter(keys) == Counter(expected)
    for r in records:
        assert math.isnan(r.P) if r.E_total == 0 else r.E / r.E_total == r.P
    uniform = [r for r in records if r.method == "uniform"]
    assert [r.P for r in uniform] == [r.mask_fraction for r in uniform]


def test_controls_made_of_maps_come_with_their_methods_only(scenes, tmp_path):
    records, _ = run(
        scenes, tmp_path, nets=NETS[:1], sizes=[64], methods=["gradient", "guided_backprop"]
    )
    assert {r.method for r in records} == {
        "gradient",
        "gradient_random",
        "guided_backprop",
        "guided_backprop_random",
        "guided_backprop_squared",
        *CONTROLS,
    }


def test_a_control_made_of_maps_needs_no_other_map_and_no_other_pass(scenes, small_batch):
    batch, model, layer = small_batch
    x = load_unit(Coco(scenes, "val"), *batch.units[0], 64)[0][None]
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    alone = benchmark.explain(model, x, 3, MAP_CONTROLS, layer=layer).maps
    handle.remove()
    assert len(passes) == 1
    assert tuple(alone) == MAP_CONTROLS
    both = benchmark.explain(model, x, 3, [*MAP_CONTROLS, *SHARED_PASS], layer=layer).maps
    assert all(torch.equal(alone[name], both[name]) for name in MAP_CONTROLS)
    plain = upsample(cam.grad_cam(model, x, 3, layer=layer), x.shape[-2:])
    assert torch.equal(alone["grad_cam_squared"], plain**2)


def test_every_record_says_with_which_weights_it_was_made(scenes, tmp_path, monkeypatch):
    settings: dict[str, Any] = {"sizes": [64], "methods": ["gradient"], "per_category": 1}
    records, _ = run(scenes, tmp_path, **settings)
    found = {(r.net, r.method): r.weights for r in records}
    for net in NETS:
        model, twin = nets.load(net), nets.load(net, weights=False)
        assert found[net, "gradient"] == benchmark.weights_digest(model)[:12]
        assert found[net, "gradient_random"] == benchmark.weights_digest(twin)[:12]
    assert {found[NO_NET, control] for control in CONTROLS} == {NO_NET}
    assert len(set(found.values())) == 2 * len(NETS) + 1

    monkeypatch.setattr(nets, "WEIGHTS", tmp_path)
    write_weights(tmp_path, NETS[0], lambda net: net.features[0].weight[0, 0, 0, 0].add_(1e-6))
    changed, _ = run(scenes, tmp_path, nets=NETS[:1], **settings)
    (digest,) = {r.weights for r in changed if r.method == "gradient"}
    assert digest not in found.values()
    again, _ = run(scenes, tmp_path, nets=NETS[:1], **settings)
    assert same(again, changed)


def test_what_is_named_twice_counts_once(scenes, tmp_path):
    settings = {"nets": NETS[:1], "sizes": (64,), "methods": ("gradient",)}
    twice = {key: value * 2 for key, value in settings.items()}
    once, _ = run(scenes, tmp_path / "once", **settings)
    found, _ = run(scenes, tmp_path / "twice", categories=CATEGORIES * 2, **twice)
    assert same(found, once)


# --- methods that need passes of their own ---------------------------------------------------


CHEAP = [name for name in OWN_PASSES if name not in ("shapley", "score_cam", "occlusion")]


@pytest.fixture
def small_batch(scenes):
    """Two units at 64 pixels, the net with its layer, and the net's target of each."""
    model = nets.load(NETS[0])
    units = tuple(units_by_hand(scenes))[:2]
    return (
        Batch(NETS[0], 64, units),
        model,
        last_conv_stage(model, torch.zeros(1, 3, 128, 128)),
    )


def test_all_methods_give_a_finite_map_of_the_images_size(scenes, small_batch, monkeypatch):
    # The settings are the benchmark's own, but for those that only take time.
    short = {
        "smoothgrad": ("n", 2),
        "integrated_gradients": ("steps", 2),
        "shapley": ("samples", 2),
    }
    for name, (option, value) in short.items():
        assert option in METHODS[name].options
        options = {**METHODS[name].options, option: value}
        monkeypatch.setitem(METHODS, name, replace(METHODS[name], options=options))
    batch, model, layer = small_batch
    coco = Coco(scenes, "val")
    x = torch.stack([load_unit(coco, *unit, 64)[0] for unit in batch.units])
    maps, *_ = benchmark.explain(model, x, [3, 1], BENCHMARK, layer=layer)
    assert tuple(maps) == BENCHMARK
    for name, one in maps.items():
        assert (len(one), *one.shape[2:]) == (2, 64, 64), name
        assert one.isfinite().all(), name
    for name in OWN_PASSES:
        if name in CHEAP:
            alone = upsample(METHODS[name](model, x, [3, 1], layer), (64, 64))
            assert torch.equal(maps[name], alone), name
    assert torch.equal(maps["sensitivity"], maps["gradient"].square())
    assert torch.equal(
        maps["eigen_cam"], upsample(cam.eigen_cam(model, x, 0, layer=layer), (64, 64))
    )


def test_a_method_of_its_own_explains_the_best_of_the_candidates(scenes, small_batch):
    batch, model, layer = small_batch
    targets = {"dog": (1, 5, 9), "cat": (0, 8, 14)}
    records, _ = benchmark.run_batch(
        batch, Coco(scenes, "val"), {"": model}, targets, ["sensitivity", "gradient"], layer=layer
    )
    energies = {(r.image_id, r.category, r.method): r.P for r in records}
    for image_id, category in batch.units:
        image, mask = load_unit(Coco(scenes, "val"), image_id, category, 64)
        logits = model(image[None])[0].detach()
        chosen = max(targets[category], key=lambda c: float(logits[c]))
        slope = gradients.gradient(model, image[None], chosen)[0]
        found = energies[image_id, category, "sensitivity"]
        assert found == pytest.approx(energy.energy(slope.square(), mask).P, rel=1e-3)


def test_all_names_every_method(scenes, tmp_path, monkeypatch):
    for name in OWN_PASSES:
        plain = replace(METHODS[name], function=gradients.gradient, options={}, at_layer=False)
        monkeypatch.setitem(METHODS, name, plain)
    records, _ = run(scenes, tmp_path, nets=NETS[:1], sizes=[64], methods=["all"], controls=False)
    assert {r.method for r in records} == set(BENCHMARK)
    energies = {(r.image_id, r.category, r.method): r.P for r in records}
    for (*unit, method), p in energies.items():
        if method in OWN_PASSES:  # each went through its own call
            assert p == pytest.approx(energies[(*unit, "gradient")], nan_ok=True)


@pytest.mark.parametrize("changed", [{"n": 3}, {"level": 0.5, "n": 2}])
def test_another_setting_is_another_run(scenes, tmp_path, monkeypatch, batches_run, changed):
    settings: dict[str, Any] = {"nets": NETS[:1], "sizes": [64], "controls": False}
    settings |= {"methods": ["smoothgrad"], "per_category": 1}
    smooth = METHODS["smoothgrad"]
    monkeypatch.setitem(METHODS, "smoothgrad", replace(smooth, options={"n": 2}))
    before, _ = run(scenes, tmp_path, **settings)
    again, _ = run(scenes, tmp_path, **settings)
    assert same(again, before)
    assert len(batches_run) == 1
    monkeypatch.setitem(METHODS, "smoothgrad", replace(smooth, options=changed))
    after, _ = run(scenes, tmp_path, **settings)
    assert len(batches_run) == 2
    assert not same(after, before)


def test_settings_can_be_read():
    assert str(METHODS["smoothgrad"]) == "smoothgrad(level=0.15, n=25)"
    assert str(METHODS["fullgrad"]) == "fullgrad()"
    assert len({str(METHODS[name]) for name in OWN_PASSES}) == len(OWN_PASSES)


def test_squares_of_the_occlusion_are_a_share_of_the_image(monkeypatch):
    seen = {}
    monkeypatch.setattr(methods, "occlusion", lambda *_, **options: seen.update(options))
    METHODS["occlusion"](nn.Identity(), torch.zeros(1, 3, 128, 200), 0, "")
    assert seen == {"size": 32, "stride": 8}
    METHODS["occlusion"](nn.Identity(), torch.zeros(1, 3, 9, 7), 0, "")
    assert seen == {"size": 1, "stride": 1}


def test_where_there_is_no_root_the_taylor_map_is_without_energy():
    class Hill(nn.Module):
        """The second class has no root, and the first one has."""

        def forward(self, x):
            total = x.mean(dim=(1, 2, 3))
            return torch.stack([total - 0.25, total**2 + 1], dim=1)

    x = torch.full((2, 3, 4, 4), 0.75)
    maps = methods.taylor_or_zero(Hill(), x, [1, 0])
    assert not maps[0].any()
    assert maps[1].sum() == pytest.approx(0.5, abs=1e-3)


class Gate(nn.Module):
    """A net that LRP has no rule for."""

    input_size = 48

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)

    def forward(self, x):
        maps = self.conv(x).relu()
        return (maps * maps.sigmoid()).mean(dim=(2, 3))


def test_a_net_that_a_method_cannot_explain_is_said_with_the_methods_name(scenes):
    batch = Batch("gate", 64, tuple(units_by_hand(scenes))[:1])
    with pytest.raises(ValueError, match=r"lrp_epsilon: .*\(a gate"):
        benchmark.run_batch(
            batch,
            Coco(scenes, "val"),
            {"": Gate()},
            {"dog": (1,), "cat": (0,)},
            ["gradient", "lrp_epsilon"],
            layer="conv",
        )


def test_without_controls_there_are_only_the_nets(scenes, tmp_path):
    records, _ = run(scenes, tmp_path, controls=False, methods=["grad_cam"], sizes=[64])
    assert {(r.net, r.method) for r in records} == {(net, "grad_cam") for net in NETS}


def test_the_control_has_other_weights_than_the_net(scenes, tmp_path):
    records, _ = run(scenes, tmp_path, nets=NETS[:1], methods=["gradient"], sizes=[64])
    energies = {(r.image_id, r.category, r.net, r.method): r.E_total for r in records}
    for (*unit, method), value in energies.items():
        if method == "gradient":
            assert value != energies[(*unit, "gradient_random")]


# --- stopping and continuing -----------------------------------------------------------------


def test_what_is_done_is_not_done_again(scenes, tmp_path, batches_run):
    first = run(scenes, tmp_path)
    assert len(batches_run) == len(list((tmp_path / "parts").iterdir()))
    batches_run.clear()
    assert same(run(scenes, tmp_path)[0], first[0])
    assert batches_run == []


def test_a_run_that_broke_continues_with_the_same_numbers(scenes, tmp_path, monkeypatch):
    expected, _ = run(scenes, tmp_path / "through")
    run_batch, calls = benchmark.run_batch, []

    def breaking(batch, *arguments, **options):
        calls.append(batch)
        if len(calls) in (3, 4, 9):
            raise KeyboardInterrupt
        return run_batch(batch, *arguments, **options)

    monkeypatch.setattr(benchmark, "run_batch", breaking)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(scenes, tmp_path / "broken")
    records, _ = run(scenes, tmp_path / "broken")
    assert same(records, expected)
    assert len(calls) == len(set(calls)) + 3  # only the batches that broke ran twice


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b'{"records": 3, "skipped": []}',
        b'{"records": [], "skipped": []}',
        b'{"records": [{"image_id": 1}], "skipped": []}',
        "half",
    ],
)
def test_a_damaged_part_is_done_again(scenes, tmp_path, batches_run, content):
    settings: dict[str, Any] = {"nets": NETS[:1], "sizes": [64], "methods": ["gradient"]}
    expected, _ = run(scenes, tmp_path, **settings)
    part = sorted((tmp_path / "parts").iterdir())[0]
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    (tmp_path / "parts" / f"{part.stem}.123.tmp").write_bytes(whole[:40])  # left by a kill
    batches_run.clear()
    assert same(run(scenes, tmp_path, **settings)[0], expected)
    assert len(batches_run) == 1
    assert part.read_bytes() == whole


@pytest.mark.parametrize(
    "other",
    [
        {"methods": ["deconvnet", "gradient"]},
        {"per_category": 1},
        {"sizes": [48]},
        {"controls": False},
        {"nets": NETS[1:]},
        {"categories": ["cat"]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_runs_with_other_settings_share_a_folder_and_do_not_mix(scenes, tmp_path, other):
    settings: dict[str, Any] = {"nets": NETS[:1], "sizes": [64], "methods": ["gradient"]}
    run(scenes, tmp_path / "shared", **settings)
    found, _ = run(scenes, tmp_path / "shared", **(settings | other))
    expected, _ = run(scenes, tmp_path / "own", **(settings | other))
    assert same(found, expected)


@pytest.mark.parametrize("what", ["weights", "annotations", "classes"])
def test_other_weights_annotations_or_classes_are_another_run(
    own_scenes, tmp_path, monkeypatch, what
):
    settings: dict[str, Any] = {"nets": NETS[:1], "sizes": [64], "methods": ["gradient"]}
    before, _ = run(own_scenes, tmp_path / "shared", **settings)
    if what == "weights":
        monkeypatch.setattr(nets, "WEIGHTS", tmp_path)
        write_weights(tmp_path, NETS[0], lambda net: net.features[0].weight.mul_(-1))
    elif what == "classes":
        monkeypatch.setattr(benchmark, "class_targets", lambda *_: {"dog": (3,), "cat": (4,)})
    else:
        data = read_annotations(own_scenes)
        for a in data["annotations"]:
            a["segmentation"] = [[0, 0, 40, 0, 40, 40, 0, 40]]
        write_annotations(own_scenes, data)
    after, _ = run(own_scenes, tmp_path / "shared", **settings)
    trained = [[r for r in rows if r.method == "gradient"] for rows in (before, after)]
    assert trained[0]
    assert not same(*trained)


# --- bad input -------------------------------------------------------------------------------


def _first(data: dict[str, Any], part: str) -> dict[str, Any]:
    """The first image with a dog, or the first dog's annotation."""
    dog = next(c["id"] for c in data["categories"] if c["name"] == "dog")
    annotation = min(
        (a for a in data["annotations"] if a["category_id"] == dog), key=lambda a: a["image_id"]
    )
    if part == "annotations":
        return annotation
    return next(entry for entry in data["images"] if entry["id"] == annotation["image_id"])


def break_file(folder: Path, how: str) -> int:
    """Damage the first dog's image file, and return its id."""
    entry = _first(read_annotations(folder), "images")
    file = folder / "val" / entry["file_name"]
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "text":
        file.write_text("<html>404</html>")
    else:
        Image.new("RGB", (entry["width"] + 1, entry["height"])).save(file)
    return entry["id"]


FILE_FAULTS = {
    "missing": "there is no file",
    "truncated": "damaged or cut short",
    "empty": "is empty",
    "text": "not an image",
    "wrong size": "the masks would not fit",
}


@pytest.mark.parametrize("size", ["original", 64])
@pytest.mark.parametrize("how", FILE_FAULTS)
def test_a_bad_image_is_skipped_and_the_rest_is_there(own_scenes, tmp_path, how, size):
    settings: dict[str, Any] = {
        "nets": NETS[:1],
        "sizes": [size],
        "methods": ["gradient", "grad_cam"],
    }
    expected, _ = run(own_scenes, tmp_path / "whole", **settings)
    bad = break_file(own_scenes, how)
    records, skipped = run(own_scenes, tmp_path / "out", **settings)
    lost = [unit for unit in units_by_hand(own_scenes) if unit[0] == bad]
    assert Counter((s.image_id, s.category, s.net, s.size) for s in skipped) == Counter(
        (*unit, net, str(size)) for unit in lost for net in (NETS[0], NO_NET)
    )
    assert all(FILE_FAULTS[how] in s.reason for s in skipped)
    rest = [r for r in expected if r.image_id != bad]
    assert [(r.image_id, r.category, r.method) for r in records] == [
        (r.image_id, r.category, r.method) for r in rest
    ]
    # The batch is smaller than it would be, which may move the last digits.
    assert [r.P for r in records] == pytest.approx([r.P for r in rest], rel=1e-4, nan_ok=True)


def test_after_a_repair_the_same_call_fills_the_gap(own_scenes, tmp_path, batches_run):
    settings: dict[str, Any] = {"nets": NETS[:1]}
    expected, _ = run(own_scenes, tmp_path / "whole", **settings)
    files = {f: f.read_bytes() for f in (own_scenes / "val").iterdir()}
    bad = break_file(own_scenes, "truncated")
    _, skipped = run(own_scenes, tmp_path / "out", **settings)
    assert skipped
    for file, content in files.items():
        file.write_bytes(content)
    batches_run.clear()
    records, skipped = run(own_scenes, tmp_path / "out", **settings)
    assert not skipped
    assert same(records, expected)
    assert all(bad in {image_id for image_id, _ in batch.units} for batch in batches_run)


def _without_outline(data):
    del _first(data, "annotations")["segmentation"]


def _empty_outline(data):
    _first(data, "annotations")["segmentation"] = [[]]


def _no_outline(data):
    _first(data, "annotations")["segmentation"] = []


def _outside(data):
    _first(data, "annotations")["segmentation"] = [[-9, -9, -5, -9, -5, -5]]


def _no_area(data):
    _first(data, "annotations")["segmentation"] = [[3.1, 3.1, 3.2, 3.1, 3.2, 3.2]]


def _escapes(data):
    _first(data, "images")["file_name"] = "../../secret.png"


def _absolute(data):
    _first(data, "images")["file_name"] = "C:\\secret.png"


def _not_listed(data):
    data["images"].remove(_first(data, "images"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without_outline, "has no segmentation"),
        (_no_outline, "has no segmentation"),
        (_empty_outline, "at least three points"),
        (_outside, "wholly outside"),
        (_no_area, "covers no pixel"),
        (_escapes, "leads out of"),
        (_absolute, "leads out of"),
        (_not_listed, "is not listed"),
    ],
)
def test_a_bad_annotation_is_skipped_and_the_rest_is_there(
    own_scenes, tmp_path, change: Change, reason
):
    data = read_annotations(own_scenes)
    bad = _first(data, "annotations")["image_id"]
    change(data)
    write_annotations(own_scenes, data)
    records, skipped = run(own_scenes, tmp_path, nets=NETS[:1], methods=["gradient"])
    reasons = {s.reason for s in skipped if s.category == "dog"}
    assert {s.image_id for s in skipped} == {bad}
    assert len(reasons) == 1
    assert reason in reasons.pop()
    lost = {(s.image_id, s.category) for s in skipped}
    assert {(r.image_id, r.category) for r in records} == set(units_by_hand(own_scenes)) - lost


@pytest.mark.parametrize("side", [1, 3])
def test_an_image_too_small_for_the_net_is_skipped_and_the_reason_names_the_net(
    own_scenes, tmp_path, side
):
    data = read_annotations(own_scenes)
    entry = _first(data, "images")
    entry["width"] = entry["height"] = side
    for a in data["annotations"]:
        if a["image_id"] == entry["id"]:
            a["segmentation"] = [[0, 0, side, 0, side, side, 0, side]]
    Image.new("RGB", (side, side), "red").save(own_scenes / "val" / entry["file_name"])
    write_annotations(own_scenes, data)
    records, skipped = run(own_scenes, tmp_path)
    assert {(s.image_id, s.net, s.size) for s in skipped} == {
        (entry["id"], net, "original") for net in NETS
    }
    for s in skipped:
        assert f"{s.net} cannot take an image of {side}×{side} pixels" in s.reason
    # Enlarged it can be used, and the controls know no net.
    there = {(r.net, r.size) for r in records if r.image_id == entry["id"]}
    assert there == {(n, "64") for n in (*NETS, NO_NET)} | {(NO_NET, "original")}


def test_an_image_too_large_for_the_memory_is_skipped_with_the_remedy(
    scenes, tmp_path, monkeypatch
):
    monkeypatch.setattr(data_objects, "_MAX_PIXELS", 1000)
    records, skipped = run(scenes, tmp_path, nets=NETS[:1], methods=["gradient"])
    assert {r.size for r in records} == {"64"}
    assert {s.size for s in skipped} == {"original"}
    assert all("more than the limit of 1,000" in s.reason for s in skipped)
    assert all("use a fixed size" in s.reason for s in skipped)


def test_an_object_that_vanishes_when_shrunk_is_skipped(own_scenes, tmp_path):
    data = read_annotations(own_scenes)
    annotation = _first(data, "annotations")
    others = [a for a in data["annotations"] if a["image_id"] != annotation["image_id"]]
    annotation["segmentation"] = [[0, 0, 1, 0, 1, 1, 0, 1]]
    write_annotations(own_scenes, data | {"annotations": [*others, annotation]})
    _, skipped = run(own_scenes, tmp_path, nets=[], sizes=[32])
    assert [s.image_id for s in skipped] == [annotation["image_id"]]
    assert "nothing is left of 'dog'" in skipped[0].reason


def test_a_net_with_nan_weights_is_named(scenes, tmp_path, monkeypatch):
    def load(name, device, controls):
        model = nets.load(name)
        with torch.no_grad():
            next(model.net.parameters())[0] = math.nan
        return {"": model}

    monkeypatch.setattr(benchmark, "_load_models", load)
    with pytest.raises(InputError, match="emoji_alexnet returns NaN"):
        run(scenes, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nets": ["pocket_vgf"]}, r"no network called 'pocket_vgf': did you mean 'pocket_vgg'"),
        ({"categories": ["dogg"]}, r"no category 'dogg': did you mean 'dog'"),
        ({"categories": ["person"]}, r"has no category 'person'"),
        ({"methods": ["gradcam"]}, r"no method 'gradcam': did you mean .*'grad_cam'"),
        ({"device": "tpu"}, r"cannot compute on 'tpu' here: use cpu"),
        ({"device": "cuda:99"}, r"cannot compute on 'cuda:99' here: use cpu"),
        ({"device": "meta"}, r"cannot compute on 'meta' here: use cpu"),
    ],
)
def test_a_wrong_name_gets_the_nearest_right_one(scenes, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(scenes, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def _renamed(folder: Path, category: str) -> None:
    """Name every category of the data as no net does, but for one."""
    data = read_annotations(folder)
    for entry in data["categories"]:
        entry["name"] = category if entry["name"] == "dog" else f"thing {entry['id']}"
    write_annotations(folder, data)


def test_a_category_that_the_net_does_not_know(own_scenes, tmp_path):
    _renamed(own_scenes, "wolf")
    with pytest.raises(InputError, match=r"emoji_alexnet has no class for 'wolf': choose from"):
        run(own_scenes, tmp_path, categories=["wolf"])
    with pytest.raises(
        InputError, match=r"no category for which emoji_alexnet, emoji_squeezenet have a class"
    ):
        run(own_scenes, tmp_path, categories=None)


def test_all_categories_are_those_that_data_and_nets_share(own_scenes, tmp_path):
    _renamed(own_scenes, "dog")
    records, _ = run(own_scenes, tmp_path, categories=None, sizes=[64], methods=["gradient"])
    assert {r.category for r in records} == {"dog"}


def test_a_misspelt_category_in_a_class_table_is_not_left_out_in_silence(own_scenes, tmp_path):
    _renamed(own_scenes, "koala")
    table = tmp_path / "table.json"
    settings: dict[str, Any] = {"nets": ["squeezenet1_0"], "class_table": table}
    table.write_text('{"koala": [105], "zebra": [340], "koalla": [105]}')
    with pytest.raises(InputError, match="neither these data nor COCO have a category 'koalla'"):
        run(own_scenes, tmp_path / "out", categories=None, **settings)
    # A category of these data, and one of COCO that these data do not have, are fine.
    table.write_text('{"koala": [105], "zebra": [340]}')
    with pytest.raises(InputError, match="squeezenet1_0 has no class for 'thing 5'"):
        run(own_scenes, tmp_path / "out", categories=["koala", "thing 5"], **settings)


def test_data_without_objects_say_so(own_scenes, tmp_path):
    write_annotations(own_scenes, read_annotations(own_scenes) | {"annotations": []})
    with pytest.raises(InputError, match="shows any of dog, cat"):
        run(own_scenes, tmp_path)


@pytest.mark.parametrize("where", ["out", "out/deeper"])
def test_a_folder_that_cannot_be_made_is_named(scenes, tmp_path, where):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"out.* cannot hold the results .*another folder"):
        run(scenes, tmp_path / where)


# --- undefined P -----------------------------------------------------------------------------


def test_undefined_P_is_counted_and_not_averaged(scenes, tmp_path, monkeypatch):
    # With a last layer below zero, what comes back is negative everywhere: deconvnet and guided
    # backprop stop it at the first ReLU, and Grad-CAM's own ReLU leaves nothing.
    monkeypatch.setattr(nets, "WEIGHTS", tmp_path)
    write_weights(tmp_path, "emoji_gap", lambda net: net.fc.weight.copy_(-net.fc.weight.abs()))
    write_weights(tmp_path, "emoji_resnet")
    both = ("emoji_gap", "emoji_resnet")
    five = STUDY
    settings = {"nets": both, "sizes": [64], "controls": False, "methods": five}
    records, skipped = run(scenes, tmp_path, **settings)
    summary = report.write(records, skipped, tmp_path)

    dead = [r for r in records if r.net == "emoji_gap" and r.method != "gradient"]
    assert all(math.isnan(r.P) and r.E == r.E_total == 0 for r in dead)
    assert not any(math.isnan(r.P) for r in records if r.method == "gradient")

    count = len(units_by_hand(scenes))
    overall = summary[summary["view"] == "all"].set_index("method")
    nan = Counter(r.method for r in records if math.isnan(r.P))
    assert overall.undefined.to_dict() == {m: nan[m] for m in five}
    assert nan["deconvnet"] >= count
    assert set(overall.records) == {2 * count}
    alive = [r.P for r in records if (r.net, r.method) == ("emoji_resnet", "deconvnet")]
    assert overall.mean_P["deconvnet"] == pytest.approx(np.nanmean(alive))

    rows = (tmp_path / "records.csv").read_text().splitlines()
    assert sum(",deconvnet,64,,0.0,0.0," in row for row in rows) == nan["deconvnet"]
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    deconvnet = next(line for line in text.splitlines() if line.startswith("| deconvnet |"))
    assert deconvnet.endswith(f"| {2 * count} | {nan['deconvnet']} |")
    assert "nan" not in text


def test_parts_keep_undefined_P(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(nets, "WEIGHTS", tmp_path)
    write_weights(tmp_path, "emoji_gap", lambda net: net.fc.weight.copy_(-net.fc.weight.abs()))
    first, _ = run(scenes, tmp_path, nets=["emoji_gap"], sizes=[64])
    again, _ = run(scenes, tmp_path, nets=["emoji_gap"], sizes=[64])
    assert any(math.isnan(r.P) for r in first)
    assert same(again, first)


# --- maps ------------------------------------------------------------------------------------


def test_masks_come_dilated_or_as_outlined(scenes):
    coco = Coco(scenes, "val")
    for unit in units_by_hand(scenes)[:2]:
        outlined = load_unit(coco, *unit, "original", growth=1)[1]
        assert np.array_equal(outlined, coco.mask(*unit))
        dilated = load_unit(coco, *unit, "original")[1]
        assert np.array_equal(dilated, dilate(outlined))
        assert dilated.sum() >= 1.2 * outlined.sum()


def test_a_maps_file_can_be_found_again(scenes, tmp_path):
    settings = {"nets": NETS[:1], "sizes": [64], "methods": ["gradient"], "per_category": 1}
    records, _ = run(scenes, tmp_path, save_maps=True, **settings)
    for r in records:
        place = (r.net, int(r.size), r.image_id, r.category, r.method)
        assert np.load(benchmark.map_file(tmp_path / "maps", *place)).shape[1:] == (64, 64)


def test_saved_maps_give_the_records_P(scenes, tmp_path):
    records, _ = run(scenes, tmp_path, nets=NETS[:1], save_maps=True)
    coco = Coco(scenes, "val")
    files = {f.relative_to(tmp_path / "maps").as_posix() for f in tmp_path.glob("maps/*/*/*")}
    names = {f"{r.net}/{r.size}/{r.image_id:012}_{r.category}_{r.method}": r for r in records}
    assert files == {name + end for name in names for end in (".npy", ".png")}
    for name, r in names.items():
        size = r.size if r.size == "original" else int(r.size)
        _, mask = load_unit(coco, r.image_id, r.category, size)
        maps = torch.from_numpy(np.load(tmp_path / "maps" / f"{name}.npy"))
        expected = [r.P, r.E, r.E_total]
        assert energy.energy(maps, mask) == pytest.approx(expected, rel=1e-12, nan_ok=True)
        with Image.open(tmp_path / "maps" / f"{name}.png") as picture:
            assert (picture.mode, picture.size) == ("RGB", mask.shape[::-1])


# --- classes ---------------------------------------------------------------------------------


def test_pocket_nets_have_their_classes_by_name():
    model = nets.load("emoji_vgg", weights=False)
    targets = nets.class_targets(model)
    assert {model.classes[index]: (index,) for index in range(len(model.classes))} == targets


def test_imagenet_nets_have_their_classes_by_table(tmp_path):
    model = nets.load("squeezenet1_0", weights=False)
    targets = nets.class_targets(model)
    assert {model.classes[i] for i in targets["traffic light"]} == {"traffic light"}
    assert {model.classes[i] for i in targets["elephant"]} >= {"tusker", "African elephant"}
    table = tmp_path / "table.json"
    table.write_text('{"dog": [3, 1]}')
    assert nets.class_targets(model, table) == {"dog": (3, 1)}
    table.write_text('{"dog": [1000]}')
    with pytest.raises(InputError, match=r"'dog' has 1000; .* from 0 to 999"):
        nets.class_targets(model, table)


def test_the_best_of_the_candidates_is_explained():
    logits = torch.tensor([[9.0, 1.0, 2.0, 3.0], [9.0, 8.0, -2.0, -1.0], [0.0, 0.0, 0.0, 7.0]])
    choose = nets.best_of([(1, 2), (3, 2), (0,)])
    assert choose(logits).tolist() == [2, 3, 0]
