"""What is under the toolbox's controls, mosaics, and the snapshots of a training."""

from __future__ import annotations

import datetime
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vislib import features, nets, show
from vislib.data.images import resize
from vislib.errors import InputError
from vislib.nets import training
from vislib.synthesis import maps_of
from vislib.widgets import toolbox

NOW = datetime.datetime.now(datetime.UTC)

# ---------------------------------------------------------------------------- toolbox


@pytest.fixture
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    toolbox.patches.cache_clear()
    few = toolbox.scenes(128, 12)
    monkeypatch.setattr(toolbox, "scenes", lambda side, count=0: few)
    yield
    toolbox.patches.cache_clear()


def picture(*size: int) -> torch.Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", sorted(nets.POCKET_NETS))
def test_look_over_the_range_of_the_controls(name: str, few_scenes: None) -> None:
    layers = toolbox.layers(name)
    assert len(layers) >= 5
    for layer, units in list(layers.items())[:: max(1, len(layers) - 1)]:
        for unit in (0, units - 1):
            seen = toolbox.look(picture(90, 200), name, layer, unit)
            assert seen.image.shape == (3, 128, 128)
            top, bottom, left, right = seen.box
            assert 0 <= top < bottom <= 128 and 0 <= left < right <= 128
            assert seen.guided.shape == seen.deconvnet.shape == (3, bottom - top, right - left)
            assert seen.crops.shape == seen.views.shape and len(seen.crops) == toolbox.PATCHES
            pictures = (seen.activation, seen.guided, seen.deconvnet, seen.crops, seen.views)
            assert all(bool(one.isfinite().all()) for one in (*pictures, seen.wanted))


@pytest.mark.parametrize("name", ["pocket_vgg", "pocket_resnet", "pocket_squeezenet"])
def test_the_made_image_excites_the_unit_more_than_any_scene(name: str) -> None:
    model, layer = nets.load(name), list(toolbox.layers(name))[-1]
    scenes = torch.stack([resize(scene, (64, 64)) for scene in toolbox.scenes(128, 40)])
    silent = 0
    for unit in (5, 20, 35):
        made = toolbox.wanted(name, layer, unit)
        assert made.shape == (3, 64, 64) and 0 <= made.min() <= made.max() <= 1
        grey = torch.full((1, 3, 64, 64), 0.5)
        means = maps_of(model, torch.cat([made[None], grey, scenes]), layer)[layer][:, unit]
        means = means.mean(dim=(1, 2))
        assert means[0] > means[1:].max() > 0
        silent += int(means[1] == 0)
    assert silent, "at least one unit is silent on grey: there a ReLU would have no slope"


def test_patch_views_fit_their_crops(few_scenes: None) -> None:
    """What a view shows lies where the crop shows it: cut from the view of the whole picture."""
    model, layer = nets.load("pocket_vgg"), "net.features.10"
    scenes = toolbox.scenes(128)
    found = features.top_patches(model, layer, scenes, k=6)
    checked = 0
    for unit in (3, 9):
        views = features.patch_views(model, layer, found, unit, scenes)
        for rank in range(6):
            whole = features.unit_view(
                model, scenes[int(found.images[unit, rank])][None], layer, unit
            )
            top, _, left, _ = found.boxes[unit, rank].tolist()
            for i, j in [(5, 7), (18, 20), (36, 30)]:
                inside = 0 <= top + i < 128 and 0 <= left + j < 128
                expected = whole[0, :, top + i, left + j] if inside else torch.zeros(3)
                torch.testing.assert_close(views[rank, :, i, j], expected, rtol=1e-3, atol=1e-6)
                checked += not inside
    assert checked, "at least one window must hang over the border"


def test_layers_are_those_with_maps_and_a_field() -> None:
    assert list(toolbox.layers("pocket_alexnet").items())[:2] == [
        ("net.features.1", 32),
        ("net.features.4", 64),
    ]
    assert not any("classifier" in layer for layer in toolbox.layers("pocket_vgg"))


def _file(name: str, mode: str = "RGB", kind: str = "png") -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new(mode, (40, 30)).save(buffer, kind)
    return {"name": name, "content": memoryview(buffer.getvalue())}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_an_upload_of_any_mode(mode: str) -> None:
    name, image = toolbox.uploaded((_file("my cat.png", mode),))
    assert name == "my cat.png" and image.shape == (3, 30, 40)


def test_an_upload_in_cmyk() -> None:
    assert toolbox.uploaded((_file("a.jpg", "CMYK", "jpeg"),))[1].shape == (3, 30, 40)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "notes.txt"),
        (b"hello", "notes.txt is not an image that can be read"),
        (bytes(_file("x")["content"])[:60], "notes.txt is"),
    ],
)
def test_an_upload_that_is_no_picture(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        toolbox.uploaded(({"name": "notes.txt", "content": memoryview(content)},))
    assert "tmp" not in str(error.value)


def test_controls_fit_together(few_scenes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change draws once, with a net, layer and unit that belong together."""
    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr(toolbox, "draw_look", lambda image, *rest: drawn.append((image, *rest)))
    box = toolbox.toolbox("pocket_vgg")
    (picture, upload), (net, layer) = box.children[0].children, box.children[1].children
    unit, message = box.children[2:4]
    assert len(drawn) == 1
    unit.value = 63
    layer.value = "net.features.1"
    assert unit.max == 15 and drawn[-1][1:] == ("pocket_vgg", "net.features.1", 15)
    net.value = "pocket_resnet"
    assert drawn[-1][1:] == ("pocket_resnet", "net.layer2.0.relu", 15)
    assert len(drawn) == 4, "one drawing for each change"

    upload.value = ({**_file("own.png"), "type": "", "size": 1, "last_modified": NOW},)
    assert picture.value == "own.png" and drawn[-1][0].shape == (3, 30, 40) and len(drawn) == 5
    broken = {"name": "<b>.png", "content": memoryview(b"no"), "type": "", "size": 2}
    upload.value = ({**broken, "last_modified": NOW},)
    assert "&lt;b&gt;.png is not an image" in message.value and len(drawn) == 5
    for one in nets.POCKET_NETS:
        net.value = one
        assert toolbox.layers(one)[layer.value] == unit.max + 1


# ----------------------------------------------------------------------------- mosaic


def test_mosaic() -> None:
    tiles = torch.arange(3).view(3, 1, 1, 1).expand(3, 3, 2, 2) / 4
    found = show.mosaic(tiles, columns=2, gap=1, scale=2)
    assert found.shape == (4 + 1 + 4, 4 + 1 + 4, 3)
    assert (found[:4, :4] == 0).all() and (found[:4, 5:] == 0.25).all()
    assert (found[5:, :4] == 0.5).all()
    assert (found[4] == 1).all() and (found[:, 4] == 1).all() and (found[5:, 5:] == 1).all()
    grey = show.mosaic([np.zeros((2, 3)), np.zeros((2, 3))], columns=8, gap=0)
    assert grey.shape == (2, 6, 3)


def test_filter_pictures_of_a_share() -> None:
    weights = torch.cat([torch.full((99,), 0.5), torch.tensor([100.0])]).view(1, 1, 10, 10)
    found = features.filter_pictures(weights, share=0.9)
    assert (found == 1).all()
    sparse = torch.zeros(1, 1, 10, 10)
    sparse[0, 0, 0, 0] = -2.0  # the quantile is 0: the maximum stands in
    assert features.filter_pictures(sparse, share=0.9)[0, 0, 0].tolist() == [0.0] + [0.5] * 9


# -------------------------------------------------------------------------- snapshots

NAME = "pocket_alexnet"
SETTINGS: dict[str, Any] = {"epochs": 2, "scenes": 24, "seed": 3, "progress": False}


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(training, "BATCH", 12)
    monkeypatch.setattr(training, "measure", lambda model, progress: {"unseen": 0.5})


def test_snapshots_are_the_first_layers_of_the_training(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, kept = tmp_path / "whole.safetensors", tmp_path / "kept.safetensors"
    training.train(NAME, out=whole, **SETTINGS)
    calls, original = [], training._epoch

    def interrupted(*args: Any) -> None:  # the snapshots outlive an interruption
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(*args)

    monkeypatch.setattr(training, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train(NAME, out=kept, snapshots=[2, 0, 1], **SETTINGS)
    card = training.train(NAME, out=kept, snapshots=[2, 0, 1], **SETTINGS)
    assert len(calls) == 3
    assert card["command"].endswith("--seed 3 --snapshots 0 1 2") and card["unseen_1"] == "0.5"

    found = training.snapshots(NAME, kept)
    assert list(found) == [0, 1, 2]
    trained = load_file(whole)
    last = found[2].state_dict()
    assert sorted(last) == [
        "features.0.bias", "features.0.weight", "features.3.bias", "features.3.weight",
    ]  # fmt: skip
    for key, value in last.items():
        torch.testing.assert_close(value, trained[key], rtol=1e-3, atol=1e-6)
    start = nets.load(NAME, weights=False, seed=3).net.features[0].weight
    scale = float((found[0].features[0].weight / start).mean())
    torch.testing.assert_close(found[0].features[0].weight, scale * start, rtol=1e-3, atol=1e-5)
    assert not torch.equal(found[1].features[3].weight, last["features.3.weight"])
    assert found[1](torch.rand(1, 3, 64, 64)).shape[1] == 64


def test_a_small_start_is_the_same_function_at_first(quick: None, tmp_path: Path) -> None:
    """BatchNorm takes the factor away: the fused filters of epoch 0 differ, the maps agree."""
    models = {}
    x = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for scale in (1.0, 0.1):
        model = nets.load(NAME, weights=False)
        training.add_norms(model.net)
        with torch.no_grad():
            model.net.features[0][0].weight.mul_(scale)
        models[scale] = model.train().net.features[:5](x)
    torch.testing.assert_close(models[0.1], models[1.0], rtol=1e-2, atol=1e-2)
    out = tmp_path / "small.safetensors"
    card = training.train(NAME, out=out, snapshots=[0], first_scale=0.1, **SETTINGS)
    assert card["command"].endswith("--first-scale 0.1 --snapshots 0")
    start = nets.load(NAME, weights=False, seed=3).net.features[0].weight
    found = training.snapshots(NAME, out)[0].features[0].weight
    torch.testing.assert_close(found, 0.1 * start, rtol=1e-3, atol=1e-4)


def test_snapshots_that_cannot_be(quick: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epochs 0 to 2"):
        training.train(NAME, out=tmp_path / "a.safetensors", snapshots=[3], **SETTINGS)
    with pytest.raises(ValueError, match="no part `features`"):
        training.train("pocket_resnet", out=tmp_path / "a.safetensors", snapshots=[0], **SETTINGS)
    with pytest.raises(InputError, match=r"pocket_vgg_epochs\.safetensors cannot be read"):
        training.snapshots("pocket_vgg")
    with pytest.raises(InputError, match="does not fit pocket_vgg"):
        training.snapshots("pocket_vgg", nets.WEIGHTS / "pocket_alexnet_epochs.safetensors")


def test_the_shipped_snapshots_learnt_something() -> None:
    """The filters of the small start become smooth: neighbouring weights grow alike."""
    found = training.snapshots(NAME)
    assert list(found) == [0, 1, 2, 4, 16]
    assert (nets.WEIGHTS / "pocket_alexnet_epochs.safetensors").stat().st_size < 600_000

    def roughness(model: torch.nn.Module) -> float:
        w = features.first_filters(model)
        return float((w[..., 1:] - w[..., :-1]).square().mean() / w.square().mean())

    assert roughness(found[16]) < 0.5 * roughness(found[0])
    assert float(nets.card("pocket_alexnet_epochs")["unseen_16"]) > 0.85
