"""Snapshots of the first layers during a training, and the shipped ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vislib import features, nets
from vislib.errors import InputError
from vislib.nets import training

NAME = "pocket_alexnet"
SETTINGS: dict[str, Any] = {"epochs": 2, "scenes": 24, "seed": 3}


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(training, "BATCH", 12)
    monkeypatch.setattr(training, "measure", lambda model, progress: {"unseen": 0.5})


def test_snapshots_are_the_first_layers_of_the_training(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, kept = tmp_path / "whole.safetensors", tmp_path / "kept.safetensors"
    training.train(training.Recipe(NAME, **SETTINGS), out=whole, progress=False)
    calls, original = [], training._epoch

    def interrupted(*args: Any) -> None:  # the snapshots outlive an interruption
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(*args)

    monkeypatch.setattr(training, "_epoch", interrupted)
    recipe = training.Recipe(NAME, snapshots=[2, 0, 1], **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, out=kept, progress=False)
    card = training.train(recipe, out=kept, progress=False)
    assert len(calls) == 3
    assert card["command"].endswith("--seed 3 --snapshots 0 1 2") and card["unseen_1"] == "0.5"

    snapshots = training.snapshots(NAME, kept)
    assert list(snapshots) == [0, 1, 2]
    trained = load_file(whole)
    last = snapshots[2].state_dict()
    assert sorted(last) == [
        "features.0.bias", "features.0.weight", "features.3.bias", "features.3.weight",
    ]  # fmt: skip
    for key, value in last.items():
        torch.testing.assert_close(value, trained[key], rtol=1e-3, atol=1e-6)
    start = nets.load(NAME, weights=False, seed=3).net.features[0].weight
    scale = float((snapshots[0].features[0].weight / start).mean())
    torch.testing.assert_close(snapshots[0].features[0].weight, scale * start, rtol=1e-3, atol=1e-5)
    assert not torch.equal(snapshots[1].features[3].weight, last["features.3.weight"])
    assert snapshots[1](torch.rand(1, 3, 64, 64)).shape[1] == 64


def test_smaller_first_filters_give_the_same_function(quick: None, tmp_path: Path) -> None:
    """BatchNorm removes the factor: the fused filters of epoch 0 differ, the maps agree."""
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
    recipe = training.Recipe(NAME, snapshots=[0], first_scale=0.1, **SETTINGS)
    card = training.train(recipe, out=out, progress=False)
    assert card["command"].endswith("--first-scale 0.1 --snapshots 0")
    start = nets.load(NAME, weights=False, seed=3).net.features[0].weight
    actual = training.snapshots(NAME, out)[0].features[0].weight
    torch.testing.assert_close(actual, 0.1 * start, rtol=1e-3, atol=1e-4)


def test_impossible_snapshots_are_refused(quick: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epochs 0 to 2"):
        training.Recipe(NAME, snapshots=[3], **SETTINGS)
    with pytest.raises(ValueError, match="no part `features`"):
        training.Recipe("pocket_resnet", snapshots=[0], **SETTINGS)
    with pytest.raises(InputError, match=r"emoji_vgg_epochs\.safetensors cannot be read"):
        training.snapshots("emoji_vgg")
    with pytest.raises(InputError, match="does not fit emoji_vgg"):
        training.snapshots("emoji_vgg", nets.WEIGHTS / "emoji_alexnet_epochs.safetensors")


def test_the_shipped_snapshots_learnt_something() -> None:
    """The filters that started small become smooth: neighbouring weights become similar."""
    snapshots = training.snapshots("emoji_alexnet")
    assert list(snapshots) == [0, 1, 2, 4, 16]
    assert (nets.WEIGHTS / "emoji_alexnet_epochs.safetensors").stat().st_size < 600_000

    def roughness(model: torch.nn.Module) -> float:
        w = features.first_filters(model)
        return float((w[..., 1:] - w[..., :-1]).square().mean() / w.square().mean())

    assert roughness(snapshots[16]) < 0.5 * roughness(snapshots[0])
    assert float(nets.card("emoji_alexnet_epochs")["unseen_16"]) > 0.85
