"""Networks by name: the shipped ones work offline, errors explain bad names and files."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vislib import nets
from vislib.data import emoji

POCKET = sorted(nets.EMOJI_NETS)


@pytest.fixture(scope="module")
def unseen() -> tuple[torch.Tensor, torch.Tensor]:
    """Scenes of a seed that was not used for any training or choice."""
    images, labels = emoji.training_scenes(400, seed=777_777)
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(labels)


@pytest.mark.parametrize("name", POCKET)
def test_a_pocket_network_is_accurate_on_unseen_scenes(
    name: str, unseen: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, labels = unseen
    with torch.no_grad():
        logits = nets.load(name)(images)
    assert nets.top1(logits, labels).double().mean() >= 0.95


@pytest.mark.parametrize("name", POCKET)
def test_a_pocket_network_is_small_and_ready(name: str) -> None:
    model = nets.load(name)
    assert model.name == name and model.input_size == 128
    assert model.classes == tuple(category.name for category in emoji.CATEGORIES)
    assert not model.training and not any(part.training for part in model.modules())
    assert [key for key, _ in model.named_children()] == ["normalize", "net"]
    assert 0.1e6 <= sum(p.numel() for p in model.parameters()) <= 0.45e6
    assert (nets.WEIGHTS / f"{name}.safetensors").stat().st_size <= 2e6


@pytest.mark.parametrize("name", POCKET)
@pytest.mark.parametrize("size", [(64, 64), (128, 128), (300, 411)])
def test_logits_are_finite_at_any_size(name: str, size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = nets.load(name)(x)
    assert logits.shape == (2, 16) and logits.isfinite().all()


def test_only_resnet_has_batchnorm_and_allconv_has_no_pooling() -> None:
    for name in POCKET:
        kinds = [type(part) for part in nets.load(name, weights=False).modules()]
        assert (nn.BatchNorm2d in kinds) == (name == "emoji_resnet")
        assert (nn.MaxPool2d in kinds) == (name != "emoji_allconv")


def test_gap_net_ends_in_one_linear_layer_on_the_mean() -> None:
    """What makes CAM exact: the logit is the mean of a weighted sum of the last maps."""
    model = nets.load("emoji_gap")
    x = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(2))
    assert isinstance(model.net.fc, nn.Linear)
    with torch.no_grad():
        maps = model.net.features(model.normalize(x))
        by_hand = model.net.fc.weight @ maps.mean((2, 3))[0] + model.net.fc.bias
        assert torch.allclose(model(x)[0], by_hand, atol=1e-5)


def test_gmp_net_is_the_gap_nets_twin_with_the_maximum() -> None:
    """The same layers and shapes; the logit is a weighted sum of each map's largest value."""
    model, twin = nets.load("emoji_gmp"), nets.load("emoji_gap")
    assert repr(model.net.features) == repr(twin.net.features)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (model, twin)]
    assert shapes[0] == shapes[1]
    settings = [
        {key: card[key] for key in ("epochs", "scenes", "seed", "bfloat16")}
        for card in map(nets.card, ("emoji_gmp", "emoji_gap"))
    ]
    assert settings[0] == settings[1], "the same training, or they cannot be compared"
    x = torch.rand(1, 3, 128, 160, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        maps = model.net.features(model.normalize(x))
        by_hand = model.net.fc.weight @ maps.amax((2, 3))[0] + model.net.fc.bias
        assert maps.shape[2:] == (8, 10)
        assert torch.allclose(model(x)[0], by_hand, atol=1e-5)
        assert not torch.allclose(model(x)[0], twin(x)[0], atol=0.1)


def test_normalisation_is_imagenets() -> None:
    x = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    normalize = nets.Normalize()
    assert torch.allclose(normalize(x), torch.zeros(1, 3, 4, 4), atol=1e-6)
    step = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    assert torch.allclose(normalize(x + step), torch.ones(1, 3, 4, 4), atol=1e-6)


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(3)
    first = nets.load("emoji_vgg", weights=False)
    torch.manual_seed(4)
    second, other = (nets.load("emoji_vgg", weights=False, seed=seed) for seed in (0, 1))
    weights = [model.net.features[0].weight for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", ["emoji_alexnet", "squeezenet1_1"])
@pytest.mark.parametrize("seed", [0, 5])
def test_loading_leaves_the_random_state_alone(name: str, seed: int) -> None:
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    nets.load(name, weights=False, seed=seed)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", ["squeezenet1_0", "googlenet", "inception_v3", "densenet121"])
def test_torchvision_nets_load_without_weights(name: str) -> None:
    model = nets.load(name, weights=False)
    assert len(model.classes) == 1000 and model.classes[0] == "tench"
    assert model.input_size == (299 if name == "inception_v3" else 224)
    with torch.no_grad():
        assert model(torch.rand(1, 3, 224, 224)).shape == (1, 1000)


def test_names_are_classification_cnns() -> None:
    names = nets.names()
    assert {"alexnet", "vgg19", "resnet152", "squeezenet1_0", *POCKET} <= set(names)
    assert names[0] == "efficientnet_lite0" and len(set(names)) == len(names)
    assert not any("vit" in name or "fcn" in name or "swin" in name for name in names)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("pocket_vg", "'pocket_vgg'"), ("resnet_50", "'resnet50'"), ("xyz", "efficientnet_lite0, ")],
)
def test_an_unknown_name_suggests_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=nearest) as error:
        nets.load(wrong)
    assert wrong in str(error.value)


def test_without_connection_the_message_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(nets.WeightsError, match="TORCH_HOME") as error:
        nets.load("alexnet")
    assert "alexnet-owt-7be5be79.pth" in str(error.value)
    assert "nets.load('efficientnet_lite0')" in str(error.value)


def test_a_broken_download_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half a fi")
    with pytest.raises(nets.WeightsError, match=file.name):
        nets.load("squeezenet1_1")


class TestWeightFiles:
    """The errors of `load_weights` for files that it should not or cannot use."""

    net = nets.load("emoji_squeezenet", weights=False).net

    def test_a_path_is_loaded(self, tmp_path: Path) -> None:
        save_file(self.net.state_dict(), tmp_path / "mine.safetensors")
        model = nets.load("emoji_squeezenet", weights=tmp_path / "mine.safetensors", seed=3)
        assert torch.equal(model.net.features[0].weight, self.net.features[0].weight)

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_pickle_is_refused_and_never_opened(self, tmp_path: Path, zipped: bool) -> None:
        path, harm = tmp_path / "evil.pth", tmp_path / "harm"
        if zipped:
            torch.save(self.net.state_dict(), path)
        else:
            path.write_bytes(pickle.dumps(Harmful(harm)))
        with pytest.raises(nets.WeightsError, match="pickle"):
            nets.load_weights(self.net, path)
        assert not harm.exists()

    @pytest.mark.parametrize("fraction", [0.0, 0.3, 0.999])
    def test_a_truncated_file(self, tmp_path: Path, fraction: float) -> None:
        save_file(self.net.state_dict(), tmp_path / "whole")
        content = (tmp_path / "whole").read_bytes()
        (tmp_path / "part.safetensors").write_bytes(content[: int(fraction * len(content))])
        with pytest.raises(nets.WeightsError, match="not a valid safetensors file"):
            nets.load_weights(self.net, tmp_path / "part.safetensors")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(nets.WeightsError, match="vislib train emoji_vgg"):
            nets.load_weights(self.net, tmp_path / "emoji_vgg.safetensors")

    def test_weights_of_another_network(self) -> None:
        other = nets.load("emoji_vgg", weights=False).net
        with pytest.raises(nets.WeightsError, match="does not fit"):
            nets.load_weights(other, nets.WEIGHTS / "emoji_squeezenet.safetensors")

    def test_a_tensor_of_another_shape(self, tmp_path: Path) -> None:
        state = self.net.state_dict() | {"classifier.1.bias": torch.zeros(10)}
        save_file(state, tmp_path / "ten.safetensors")
        with pytest.raises(nets.WeightsError, match=r"classifier\.1\.bias is \[10\], not \[16\]"):
            nets.load_weights(self.net, tmp_path / "ten.safetensors")

    def test_nan(self, tmp_path: Path) -> None:
        state = self.net.state_dict() | {"classifier.1.bias": torch.full((16,), torch.nan)}
        save_file(state, tmp_path / "nan.safetensors")
        with pytest.raises(nets.WeightsError, match="NaN"):
            nets.load_weights(self.net, tmp_path / "nan.safetensors")


class Harmful:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", POCKET)
def test_the_card_has_the_command_and_the_accuracy(name: str) -> None:
    card = nets.card(name)
    # The emoji networks were trained under the names that their architectures have.
    trained_as = name.replace("emoji", "pocket")
    assert card["name"] == trained_as
    assert card["command"].startswith(f"vislib train {trained_as} --epochs {card['epochs']} ")
    assert float(card["unseen"]) >= 0.95
    assert int(card["parameters"]) == sum(p.numel() for p in nets.load(name).parameters())


def test_a_card_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="no card of 'emoji_vg': did you mean 'emoji_vgg'"):
        nets.card("emoji_vg")
    with pytest.raises(ValueError, match="choose from efficientnet_lite0, "):
        nets.card("xyz")


def test_top1_counts_any_class_that_is_present() -> None:
    logits = torch.tensor([[3.0, 1, 2], [0, 1, 2], [5, 6, 1]])
    present = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 1, 0]])
    assert nets.top1(logits, present).tolist() == [True, False, True]


def test_downloaded_weights_of_another_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "squeezenet1_0-b66bff10.pth"
    for content in ([1], {"a": torch.zeros(1)}, nets.load("emoji_vgg").net.state_dict()):
        torch.save(content, file)
        with pytest.raises(nets.WeightsError, match="weights of squeezenet1_0 could not") as raised:
            nets.load("squeezenet1_0")
        assert "\n" not in str(raised.value)


def test_nth_best_counts_from_one():
    logits = torch.tensor([[0.1, 3.0, 2.0, -1.0], [9.0, 7.0, 8.0, 6.0]])
    assert [nets.nth_best(logits, n).tolist() for n in (1, 2, 4)] == [[1, 0], [2, 2], [3, 3]]
    for n in (0, 5):
        with pytest.raises(ValueError, match=rf"from 1 \(the predicted class\) to 4, got {n}"):
            nets.nth_best(logits, n)
