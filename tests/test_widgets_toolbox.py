"""The widget of notebook 05, and the mosaics that it draws."""

from __future__ import annotations

import datetime
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vislib import features, nets, show
from vislib.data.images import resize
from vislib.errors import InputError
from vislib.synthesis import maps_of
from vislib.widgets import toolbox

NOW = datetime.datetime.now(datetime.UTC)

# --- Toolbox --------------------------------------------------------------------------------------


@pytest.fixture
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    toolbox.patches.cache_clear()
    few = toolbox.scenes(128, 12)
    monkeypatch.setattr(toolbox, "scenes", lambda side, count=0: few)
    yield
    toolbox.patches.cache_clear()


def random_image(*size: int) -> torch.Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", sorted(nets.EMOJI_NETS))
def test_look_over_the_range_of_the_controls(name: str, few_scenes: None) -> None:
    layers = toolbox.layers(name)
    assert len(layers) >= 5
    for layer, units in list(layers.items())[:: max(1, len(layers) - 1)]:
        for unit in (0, units - 1):
            result = toolbox.look(random_image(90, 200), name, layer, unit)
            assert result.image.shape == (3, 128, 128)
            top, bottom, left, right = result.box
            assert 0 <= top < bottom <= 128 and 0 <= left < right <= 128
            assert result.guided.shape == result.deconvnet.shape == (3, bottom - top, right - left)
            assert result.crops.shape == result.views.shape and len(result.crops) == toolbox.PATCHES
            maps = (
                result.activation,
                result.guided,
                result.deconvnet,
                result.crops,
                result.views,
            )
            assert all(bool(one.isfinite().all()) for one in (*maps, result.preferred_input))


@pytest.mark.parametrize("name", ["emoji_vgg", "emoji_resnet", "emoji_squeezenet"])
def test_preferred_input_excites_the_unit_more_than_any_scene(name: str) -> None:
    model, layer = nets.load(name), list(toolbox.layers(name))[-1]
    scenes = torch.stack([resize(scene, (64, 64)) for scene in toolbox.scenes(128, 40)])
    silent = 0
    for unit in (5, 20, 35):
        made = toolbox.preferred_input(name, layer, unit)
        assert made.shape == (3, 64, 64) and 0 <= made.min() <= made.max() <= 1
        grey = torch.full((1, 3, 64, 64), 0.5)
        means = maps_of(model, torch.cat([made[None], grey, scenes]), layer)[layer][:, unit]
        means = means.mean(dim=(1, 2))
        assert means[0] > means[1:].max() > 0
        silent += int(means[1] == 0)
    assert silent, "at least one unit must be silent on grey, where the gradient of a ReLU is zero"


def test_patch_views_fit_their_crops(few_scenes: None) -> None:
    """Each view is a part of the view of the whole image, at the position of its crop."""
    model, layer = nets.load("emoji_vgg"), "net.features.10"
    scenes = toolbox.scenes(128)
    patches = features.top_patches(model, layer, scenes, k=6)
    checked = 0
    for unit in (3, 9):
        views = features.patch_views(model, layer, patches, unit, scenes)
        for rank in range(6):
            whole = features.unit_view(
                model, scenes[int(patches.images[unit, rank])][None], layer, unit
            )
            first_row, _, left, _ = patches.boxes[unit, rank].tolist()
            for i, j in [(5, 7), (18, 20), (36, 30)]:
                inside = 0 <= first_row + i < 128 and 0 <= left + j < 128
                expected = whole[0, :, first_row + i, left + j] if inside else torch.zeros(3)
                torch.testing.assert_close(views[rank, :, i, j], expected, rtol=1e-3, atol=1e-6)
                checked += not inside
    assert checked, "at least one patch must extend beyond the border"


def test_layers_have_feature_maps_and_a_receptive_field() -> None:
    assert list(toolbox.layers("emoji_alexnet").items())[:2] == [
        ("net.features.1", 32),
        ("net.features.4", 64),
    ]
    assert not any("classifier" in layer for layer in toolbox.layers("emoji_vgg"))


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
def test_an_upload_that_is_not_an_image(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        toolbox.uploaded(({"name": "notes.txt", "content": memoryview(content)},))
    assert "tmp" not in str(error.value)


def test_each_change_of_a_control_draws_once(
    few_scenes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change draws once, with a network, layer and unit that belong together."""
    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr(toolbox, "draw_look", lambda image, *rest: drawn.append((image, *rest)))
    box = toolbox.toolbox("emoji_vgg")
    (image, upload), (net, layer) = box.children[0].children, box.children[1].children
    unit, message = box.children[2:4]
    assert len(drawn) == 1
    unit.value = 63
    layer.value = "net.features.1"
    assert unit.max == 15 and drawn[-1][1:] == ("emoji_vgg", "net.features.1", 15)
    net.value = "emoji_resnet"
    assert drawn[-1][1:] == ("emoji_resnet", "net.layer2.0.relu", 15)
    assert len(drawn) == 4, "one drawing for each change"

    upload.value = ({**_file("own.png"), "type": "", "size": 1, "last_modified": NOW},)
    assert image.value == "own.png" and drawn[-1][0].shape == (3, 30, 40) and len(drawn) == 5
    broken = {"name": "<b>.png", "content": memoryview(b"no"), "type": "", "size": 2}
    upload.value = ({**broken, "last_modified": NOW},)
    assert "&lt;b&gt;.png is not an image" in message.value and len(drawn) == 5
    for one in nets.EMOJI_NETS:
        net.value = one
        assert toolbox.layers(one)[layer.value] == unit.max + 1


# --- Mosaic ---------------------------------------------------------------------------------------


def test_mosaic() -> None:
    tiles = torch.arange(3).view(3, 1, 1, 1).expand(3, 3, 2, 2) / 4
    tiled = show.mosaic(tiles, columns=2, gap=1, scale=2)
    assert tiled.shape == (4 + 1 + 4, 4 + 1 + 4, 3)
    assert (tiled[:4, :4] == 0).all() and (tiled[:4, 5:] == 0.25).all()
    assert (tiled[5:, :4] == 0.5).all()
    assert (tiled[4] == 1).all() and (tiled[:, 4] == 1).all() and (tiled[5:, 5:] == 1).all()
    grey = show.mosaic([np.zeros((2, 3)), np.zeros((2, 3))], columns=8, gap=0)
    assert grey.shape == (2, 6, 3)
