"""Training: it can be stopped and resumed with the same weights, and writes weights that load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vislib import cli, nets
from vislib.data import pocket
from vislib.errors import InputError
from vislib.nets import training

NAME = "pocket_squeezenet"
RECIPE = training.Recipe(NAME, epochs=2, scenes=24, seed=3)


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
    training.train(RECIPE, out=whole, progress=False)

    original, calls = training._epoch, []

    def interrupted(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(*args)

    monkeypatch.setattr(training, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train(RECIPE, out=stopped, progress=False)
    assert not stopped.exists()
    torch.manual_seed(99)  # the global random state must not matter
    training.train(RECIPE, out=stopped, progress=False)
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


def test_written_weights_can_be_loaded_and_have_a_card(tmp_path: Path) -> None:
    out = tmp_path / "folder" / "mine.safetensors"
    before = torch.random.get_rng_state()
    card = training.train(RECIPE, out=out, progress=False)
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
    model.train()(x)  # changes the statistics of the norms
    with torch.no_grad():
        expected = model.eval()(x)
        training.fuse_norms(model.net)
        assert torch.allclose(model(x), expected, atol=1e-4)
    assert model.net.state_dict().keys() == keys


def test_learning_rate_warms_up_then_falls_to_zero() -> None:
    rates = [training._rate(done) for done in np.linspace(0, 1, 101)]
    top = int(np.argmax(rates))
    assert 0 < top < 10 and rates[-1] < 1e-8
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_scenes_are_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = training.cached_scenes(10, 1)
    original = pocket.training_scenes
    monkeypatch.setattr(
        pocket, "training_scenes", lambda n, *args, **options: original(min(n, 8), *args, **options)
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
        ("vgg19", {}, r"name must be one of .*pocket_vgg.*, got 'vgg19'"),
        (NAME, {"epochs": 0}, "epochs and scenes must be at least 1, got 0 and 9000"),
        (NAME, {"scenes": 0}, "epochs and scenes must be at least 1, got 32 and 0"),
        (NAME, {"adversarial": 300}, "between 0 and 255 grey levels, got 300"),
        (NAME, {"adversarial": float("nan")}, "between 0 and 255 grey levels, got nan"),
        (NAME, {"first_scale": 0}, "first_scale must be positive and finite, got 0"),
        (NAME, {"first_scale": float("inf")}, "first_scale must be positive and finite, got inf"),
        (NAME, {"snapshots": [1, 33]}, r"epochs 0 to 32, got \[1, 33\]"),
        ("pocket_resnet", {"snapshots": [0]}, "no part `features`"),
        (NAME, {"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_a_recipe_checks_its_values(name: str, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training.Recipe(name, **options)


def test_the_command_of_a_recipe_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = training.Recipe(
        "pocket_allconv",
        bfloat16=True,
        first_scale=0.1,
        start=nets.WEIGHTS / "pocket_allconv.safetensors",
        adversarial=4.0,
        snapshots=[2, 0],
    )
    assert recipe.command == (
        "vislib train pocket_allconv --epochs 32 --scenes 9000 --seed 0 --bfloat16 "
        "--first-scale 0.1 --start pocket_allconv --adversarial 4 --snapshots 0 2"
    )
    assert (
        training.Recipe(NAME).command == f"vislib train {NAME} --epochs 32 --scenes 9000 --seed 0"
    )
    recipes = []

    def train(recipe: training.Recipe, **options: Any) -> dict[str, str]:
        recipes.append(recipe)
        return {"unseen": "0.5"}

    monkeypatch.setattr(training, "train", train)
    assert cli.main(recipe.command.split()[1:]) == 0
    assert recipes == [recipe]


@pytest.mark.parametrize(
    "name",
    [path.stem for path in sorted(nets.WEIGHTS.glob("*.safetensors")) if "digits" not in path.stem],
)
def test_the_shipped_cards_are_those_of_a_recipe(name: str) -> None:
    card = nets.card(name)
    recipe = training.Recipe(
        card["name"],
        epochs=int(card["epochs"]),
        scenes=int(card["scenes"]),
        seed=int(card["seed"]),
        bfloat16=card["bfloat16"] == "True",
        first_scale=float(card.get("first_scale", 1)),
        start=card.get("start"),
        adversarial=float(card.get("adversarial", 0)),
        snapshots=json.loads(card.get("snapshots", "[]")),
    )
    assert recipe.command == card["command"]
    assert {key: str(value) for key, value in recipe.settings().items()}.items() <= card.items()


def test_a_damaged_checkpoint_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.checkpoint").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"a\.checkpoint is damaged .*delete it"):
        training.train(RECIPE, out=tmp_path / "a.safetensors", progress=False)


def test_a_training_that_fails_leaves_the_weights_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    monkeypatch.setattr(training, "PEAK_RATE", float("nan"))
    with pytest.raises(InputError, match="the loss of pocket_squeezenet is nan in epoch"):
        training.train(RECIPE, out=tmp_path / "a.safetensors", progress=False)
    assert (tmp_path / "a.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize("file", ["", "a.checkpoint", "a.part"])
def test_a_path_that_cannot_hold_the_weights(tmp_path: Path, file: str) -> None:
    with pytest.raises(InputError, match="cannot be the file of weights: give a path like"):
        training.train(RECIPE, out=tmp_path / file, progress=False)


def test_weights_are_not_snapshots() -> None:
    with pytest.raises(InputError, match=r"emoji_vgg\.safetensors contains no snapshots"):
        training.snapshots("emoji_vgg", nets.WEIGHTS / "emoji_vgg.safetensors")


def test_each_user_has_a_folder_of_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in (1, 2):
        monkeypatch.setattr(training.os, "getuid", lambda user=user: user, raising=False)
        training.cached_scenes(2, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"vislib-1", "vislib-2"}
