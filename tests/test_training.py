"""Training: stopped and resumed it ends with the same weights; what it writes can be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vislib import nets
from vislib.data import pocket
from vislib.errors import InputError
from vislib.nets import training

NAME = "pocket_squeezenet"
SETTINGS: dict[str, Any] = {"epochs": 2, "scenes": 24, "seed": 3, "progress": False}


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches in a folder of the test, and measures on few scenes."""
    monkeypatch.setattr(training.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(training, "BATCH", 12)
    monkeypatch.setattr(training, "measure", lambda model, progress: {"unseen": 0.5})


def test_an_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    training.train(NAME, out=whole, **SETTINGS)

    original, calls = training._epoch, []

    def interrupted(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(*args)

    monkeypatch.setattr(training, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train(NAME, out=stopped, **SETTINGS)
    assert not stopped.exists()
    torch.manual_seed(99)  # nothing outside may matter
    training.train(NAME, out=stopped, **SETTINGS)
    assert len(calls) == 3, "the first epoch was not trained twice"

    first, second = load_file(whole), load_file(stopped)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert {path.suffix for path in tmp_path.iterdir()} == {"", ".safetensors"}, "nothing is left"


def test_a_checkpoint_of_other_settings_is_not_used(tmp_path: Path) -> None:
    model = nets.load(NAME, weights=False)
    optimiser = torch.optim.AdamW(model.parameters())
    path = tmp_path / "a.checkpoint"
    training._save(path, {"seed": 1}, model.net, optimiser, 7)
    assert training._restore(path, {"seed": 2}, model.net, optimiser) == 0
    assert training._restore(path, {"seed": 1}, model.net, optimiser) == 7


def test_what_it_writes_is_loaded_and_has_a_card(tmp_path: Path) -> None:
    out = tmp_path / "folder" / "mine.safetensors"
    before = torch.random.get_rng_state()
    card = training.train(NAME, out=out, **SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert card["seed"] == "3" and card["epochs"] == "2" and card["unseen"] == "0.5"
    assert card["command"] == f"vislib train {NAME} --epochs 2 --scenes 24 --seed 3"
    model = nets.load(NAME, weights=out)
    assert model(torch.rand(1, 3, 128, 128)).isfinite().all()


@pytest.mark.parametrize("name", sorted(nets.POCKET_NETS))
def test_fused_norms_compute_the_same(name: str) -> None:
    model = nets.load(name, weights=False)
    keys = model.net.state_dict().keys()
    training.add_norms(model.net)
    x = torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    model.train()(x)  # gives the norms something to do
    with torch.no_grad():
        expected = model.eval()(x)
        training.fuse_norms(model.net)
        assert torch.allclose(model(x), expected, atol=1e-4)
    assert model.net.state_dict().keys() == keys


def test_learning_rate_warms_up_then_falls_to_nothing() -> None:
    rates = [training._rate(done) for done in np.linspace(0, 1, 101)]
    top = int(np.argmax(rates))
    assert 0 < top < 10 and rates[-1] < 1e-8
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_scenes_are_kept_for_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = training.cached_scenes(10, 1)
    original = pocket.training_scenes
    monkeypatch.setattr(
        pocket, "training_scenes", lambda n, **options: original(min(n, 8), **options)
    )
    again, labels_again = training.cached_scenes(10, 1)
    assert len(again) == 10
    assert np.array_equal(images, again) and np.array_equal(labels, labels_again)


def test_val_scenes_are_the_shipped_ones() -> None:
    scenes = list(training.val_scenes())
    assert len(scenes) >= 240
    for image, label in scenes:
        assert image.ndim == 3 and image.shape[2] == 3 and 1 <= label.sum() <= 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg19", {}, "pocket_vgg"),
        (NAME, {"epochs": 0}, "epochs"),
        (NAME, {"scenes": 0}, "scenes"),
    ],
)
def test_impossible_wishes_are_explained(name: str, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training.train(name, **options)


def test_a_damaged_checkpoint_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.checkpoint").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"a\.checkpoint is damaged .*delete it"):
        training.train(NAME, out=tmp_path / "a.safetensors", **SETTINGS)


def test_a_training_that_fails_leaves_the_weights_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    monkeypatch.setattr(training, "PEAK_RATE", float("nan"))
    with pytest.raises(InputError, match="the loss of pocket_squeezenet is nan in epoch"):
        training.train(NAME, out=tmp_path / "a.safetensors", **SETTINGS)
    assert (tmp_path / "a.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize("file", ["", "a.checkpoint", "a.part"])
def test_a_place_that_cannot_hold_the_weights_is_said_at_once(tmp_path: Path, file: str) -> None:
    with pytest.raises(InputError, match="cannot hold the weights"):
        training.train(NAME, out=tmp_path / file, **SETTINGS)


def test_weights_are_no_snapshots() -> None:
    with pytest.raises(InputError, match=r"pocket_vgg\.safetensors holds no snapshots"):
        training.snapshots("pocket_vgg", nets.WEIGHTS / "pocket_vgg.safetensors")


def test_each_user_has_a_folder_of_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in (1, 2):
        monkeypatch.setattr(training.os, "getuid", lambda user=user: user, raising=False)
        training.cached_scenes(2, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"vislib-1", "vislib-2"}
