"""Grad-CAM++, XGrad-CAM, LayerCAM, Score-CAM and Eigen-CAM against plain loops and peer libraries.

The loops run each network in two parts and use nothing of `vislib`. The peers, pytorch-grad-cam and
TorchCAM, do not copy the output of the layer and are wrong if an in-place ReLU follows (see
test_cam.py): they are compared only for layers without one. Where they deviate from the paper of a
method, one test shows the difference, and the other tests remove it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torch.nn.functional as F
import torchcam.methods
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from torch import Tensor, nn

from vislib.core import Contrast, target_weights
from vislib.explain import cam
from vislib.layers import last_conv_stage
from vislib.maps import upsample

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]

METHODS = {
    "grad_cam_pp": cam.grad_cam_pp,
    "xgrad_cam": cam.xgrad_cam,
    "layer_cam": cam.layer_cam,
    "eigen_cam": cam.eigen_cam,
}
TARGETS = [3, 7]

Half = Callable[[nn.Module, Tensor], Tensor]


def sequential_tail(net: nn.Module, maps: Tensor) -> Tensor:
    return net.classifier(net.avgpool(maps).flatten(1))


def resnet_maps(net: nn.Module, x: Tensor) -> Tensor:
    x = net.maxpool(F.relu(net.bn1(net.conv1(x))))
    return net.layer4(net.layer3(net.layer2(net.layer1(x))))


def googlenet_maps(net: nn.Module, x: Tensor) -> Tensor:
    x = net.maxpool2(net.conv3(net.conv2(net.maxpool1(net.conv1(x)))))
    x = net.maxpool3(net.inception3b(net.inception3a(x)))
    for block in "abcde":
        x = net.get_submodule(f"inception4{block}")(x)
    return net.inception5b(net.inception5a(net.maxpool4(x)))


# The default layer of each network, and the parts of the network before and after it.
HALVES: dict[str, tuple[str, Half, Half]] = {
    "alexnet": (
        "features.11",
        lambda net, x: net.features[:12](x),
        lambda net, maps: sequential_tail(net, net.features[12:](maps)),
    ),
    "vgg11": (
        "features.19",
        lambda net, x: net.features[:20](x),
        lambda net, maps: sequential_tail(net, net.features[20:](maps)),
    ),
    "squeezenet1_1": (
        "features",
        lambda net, x: net.features(x),
        lambda net, maps: net.classifier(maps).flatten(1),
    ),
    "resnet18": (
        "layer4",
        resnet_maps,
        lambda net, maps: net.fc(net.avgpool(maps).flatten(1)),
    ),
    "googlenet": (
        "inception5b",
        googlenet_maps,
        lambda net, maps: net.fc(net.avgpool(maps).flatten(1)),
    ),
    "densenet121": (  # maps before their ReLU, of both signs
        "features",
        lambda net, x: net.features(x),
        lambda net, maps: net.classifier(F.relu(maps).mean(dim=(2, 3))),
    ),
}


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def unit_range(maps: Tensor, epsilon: float = 0) -> Tensor:
    """Each map shifted and scaled to [0, 1]."""
    maps = maps - maps.amin(dim=(-2, -1), keepdim=True)
    return maps / (epsilon + maps.amax(dim=(-2, -1), keepdim=True))


# --- Formulas, as plain loops ---------------------------------------------------------------------


def plus_plus(maps: np.ndarray, grads: np.ndarray) -> np.ndarray:
    """Chattopadhay's equations with the powers of the gradient as derivatives."""
    total = np.zeros(maps.shape[1:])
    for a, g in zip(maps, grads, strict=True):
        weight = 0.0
        for value in g.ravel():
            if value > 0:
                weight += value * value**2 / (2 * value**2 + a.sum() * value**3)
        total += weight * a
    return total


def by_proportion(maps: np.ndarray, grads: np.ndarray) -> np.ndarray:
    total = np.zeros(maps.shape[1:])
    for a, g in zip(maps, grads, strict=True):
        if a.sum() != 0:
            total += sum((a / a.sum() * g).ravel()) * a
    return total


def by_positions(maps: np.ndarray, grads: np.ndarray) -> np.ndarray:
    total = np.zeros(maps.shape[1:])
    for position in np.ndindex(total.shape):
        for k in range(len(maps)):
            total[position] += max(grads[k][position], 0) * maps[k][position]
    return total


def by_power(maps: np.ndarray, grads: np.ndarray) -> np.ndarray:
    """The first singular vector by the power method, started from the mean map."""
    positions = maps.reshape(len(maps), -1).T
    v = positions.mean(axis=0)
    for _ in range(3000):
        v = positions.T @ (positions @ v)
        v /= np.linalg.norm(v)
    component = positions @ v
    return (component * (1 if component.sum() >= 0 else -1)).reshape(maps.shape[1:])


LOOPS = {
    "grad_cam_pp": lambda *both: np.maximum(plus_plus(*both), 0),
    "xgrad_cam": lambda *both: np.maximum(by_proportion(*both), 0),
    "layer_cam": lambda *both: np.maximum(by_positions(*both), 0),
    "eigen_cam": by_power,
}


@pytest.fixture(scope="module")
def parts(untrained, x) -> Callable[[str], tuple[str, Tensor, Tensor, Tensor]]:
    """Layer, maps, gradients of the score and logits of a network, in float64."""
    known: dict[str, tuple[str, Tensor, Tensor, Tensor]] = {}

    def compute(name: str) -> tuple[str, Tensor, Tensor, Tensor]:
        if name not in known:
            layer, head, tail = HALVES[name]
            net = untrained(name).double()
            try:
                maps = head(net, x.double()).detach().requires_grad_()
                logits = tail(net, maps * 1)
                (grads,) = torch.autograd.grad(logits[range(2), TARGETS].sum(), maps)
            finally:
                net.float()
            known[name] = layer, maps.detach(), grads, logits.detach()
        return known[name]

    return compute


@pytest.mark.parametrize("net", HALVES)
def test_methods_equal_plain_loops(untrained, parts, net, x):
    layer, maps, grads, logits = parts(net)
    model = untrained(net).double()
    try:
        # The network is cut after its default layer.
        assert layer == last_conv_stage(model, x.double())
        assert torch.allclose(model(x.double()), logits)
        actual = {name: method(model, x.double(), TARGETS) for name, method in METHODS.items()}
    finally:
        model.float()
    assert maps[0, 0].numel() >= 9
    for name, loops in LOOPS.items():
        expected = np.stack([loops(maps[n].numpy(), grads[n].numpy()) for n in range(2)])
        assert np.abs(expected).max() > 0
        assert np.abs(actual[name][:, 0].numpy() - expected).max() <= 1e-8 * np.abs(expected).max()


def test_formulas_give_the_maps_of_the_methods(untrained, parts, x):
    """One forward and one backward pass give all of them, also Grad-CAM."""
    _, maps, grads, _ = parts("alexnet")
    model = untrained("alexnet").double()
    try:
        for name, formula in cam.FORMULAS.items():
            expected = getattr(cam, name)(model, x.double(), TARGETS)
            assert torch.allclose(formula(maps, grads), expected, rtol=1e-9, atol=1e-30)
            assert not formula(maps.clone().requires_grad_(), grads).requires_grad
    finally:
        model.float()


def test_formulas_by_hand():
    """Two 1×2 maps: 1 2 and 3 0, with gradients 0 2 and −1 4; their sums are 3 and 3."""
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    grads = torch.tensor([[[[0.0, 2.0]], [[-1.0, 4.0]]]])
    by_name = {name: f(maps, grads)[0, 0, 0] for name, f in cam.FORMULAS.items()}
    # weights 2 / (2 + 2·3) = 1/4 and 4 / (2 + 4·3) = 2/7
    assert torch.allclose(by_name["grad_cam_pp"], torch.tensor([1 / 4 + 6 / 7, 1 / 2]))
    # weights (0·1 + 2·2) / 3 = 4/3 and (−1·3 + 4·0) / 3 = −1
    assert torch.allclose(by_name["xgrad_cam"], torch.tensor([0.0, 8 / 3]))
    raw = cam.xgrad_cam_formula(maps, grads, relu=False)
    assert torch.allclose(raw[0, 0, 0], torch.tensor([4 / 3 - 3, 8 / 3]))
    assert by_name["layer_cam"].tolist() == [0.0, 4.0]
    # the first right singular vector of [[1, 3], [2, 0]]: AᵀA = [[5, 3], [3, 9]], λ = 7 + √13
    v = torch.tensor([3.0, 2 + 13**0.5])
    v /= v.norm()
    assert torch.allclose(by_name["eigen_cam"], torch.tensor([[1.0, 3.0], [2.0, 0.0]]) @ v)


# --- Identities -----------------------------------------------------------------------------------


class Gap(nn.Module):
    """Convolutions, mean over the positions, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 9, 3, stride=2), nn.ReLU()
        )
        self.head = nn.Linear(9, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(dim=(2, 3)))


def test_with_gap_the_gradients_are_the_weights(x):
    """So XGrad-CAM is Grad-CAM, and LayerCAM is CAM with its positive weights only, over Z."""
    model, image = Gap().double(), x.double()
    expected = cam.grad_cam(model, image, TARGETS, relu=False)
    assert torch.allclose(cam.xgrad_cam(model, image, TARGETS, relu=False), expected, rtol=1e-9)

    maps = model.features(image)
    weights = model.head.weight[TARGETS].clamp(min=0)[..., None, None]
    expected = (weights * maps).sum(dim=1, keepdim=True) / maps[0, 0].numel()
    assert torch.allclose(cam.layer_cam(model, image, TARGETS), expected, rtol=1e-9)


@pytest.mark.parametrize("net", HALVES)
def test_xgrad_cam_sums_to_gradient_times_map(parts, net):
    """The axiom of sensitivity in the paper, for maps that are not 0 everywhere."""
    _, maps, grads, _ = parts(net)
    actual = cam.xgrad_cam_formula(maps, grads, relu=False).sum(dim=(1, 2, 3))
    expected = (maps * grads).sum(dim=(1, 2, 3))
    assert torch.allclose(actual, expected, rtol=1e-8)


def test_eigen_cam_is_the_best_single_map(parts):
    """``A v vᵀ`` is the nearest matrix of rank 1 (Eckart and Young), and ``|A v|`` the largest."""
    _, maps, _, _ = parts("squeezenet1_1")
    components = cam.eigen_cam_formula(maps)
    for image, component in zip(maps, components, strict=True):
        positions = image.flatten(1).T.numpy()
        largest = np.linalg.svd(positions, compute_uv=False)[0]
        assert component.norm().item() == pytest.approx(largest, rel=1e-10)
    # The theorem of Perron and Frobenius, for maps after a ReLU.
    assert components.min() >= 0


def test_eigen_cam_is_the_same_for_every_class(untrained, x):
    model = untrained("alexnet")
    assert torch.equal(cam.eigen_cam(model, x, 3), cam.eigen_cam(model, x, [7, 11]))
    with pytest.raises(ValueError, match="target 1000 does not exist"):
        cam.eigen_cam(model, x, 1000)


# --- Peers ----------------------------------------------------------------------------------------

PEERS = {
    "grad_cam_pp": (pytorch_grad_cam.GradCAMPlusPlus, torchcam.methods.GradCAMpp),
    "xgrad_cam": (pytorch_grad_cam.XGradCAM, torchcam.methods.XGradCAM),
    "layer_cam": (pytorch_grad_cam.LayerCAM, torchcam.methods.LayerCAM),
}
LAYERS = {name: layer for name, (layer, _, _) in HALVES.items()} | {
    "densenet121": "features.denseblock4"  # after `features` an in-place ReLU follows
}


class Louder(nn.Module):
    """A network with larger logits, so that the ε of the peers (1e-6 on g²) has no effect."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.net(x)


def by_torchcam(kind: type, model: nn.Module, layer: str, x: Tensor, target: list[int]) -> Tensor:
    with kind(model, layer) as peer:
        logits = model(x.clone().requires_grad_())
        (raw,) = peer(target, logits, normalized=False)
    model.zero_grad()
    return raw.detach()


def by_grad_cam(kind: type, model: nn.Module, layer: str, x: Tensor, target: list[int]) -> Tensor:
    """Scaled to [0, 1] and upsampled."""
    with kind(model, [model.get_submodule(layer)]) as peer:
        peer.batch_size = 64
        shown = peer(x.clone(), [ClassifierOutputTarget(c) for c in target])
    model.zero_grad()
    return torch.from_numpy(shown)


def as_grad_cam_shows(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return unit_range(upsample(unit_range(maps, 1e-7), size), 1e-7)[:, 0]


@pytest.mark.parametrize("net", LAYERS)
def test_methods_equal_both_peers(untrained, net, x):
    model, layer = Louder(untrained(net), 1e5), "net." + LAYERS[net]
    target = model(x).argmax(dim=1).tolist()
    for method, (one, other) in PEERS.items():
        actual = METHODS[method](model, x, target, layer=layer)
        assert actual.amax(dim=(1, 2, 3)).min() > 0, method
        shown = by_grad_cam(one, model, layer, x, target)
        assert (as_grad_cam_shows(actual, (96, 96)) - shown).abs().max() <= 1e-4, method
        raw = by_torchcam(other, model, layer, x, target).clamp(min=0)
        # TorchCAM divides a copy by mistake: its weights remain Σ ReLU(g) · g².
        if method == "grad_cam_pp":
            maps, grads = cam._maps_and_gradients(model, x, target, layer)
            weights = grads.clamp(min=0).pow(3).sum(dim=(2, 3), keepdim=True)
            actual = (weights * maps).sum(dim=1, keepdim=True).clamp(min=0)
        assert (actual[:, 0] - raw).abs().max() <= 1e-4 * raw.abs().max(), method


def test_small_gradients_keep_their_weights(parts):
    """pytorch-grad-cam adds ε = 1e-6 to g²: its weights vanish for gradients below 1e-3."""
    _, maps, grads, _ = parts("alexnet")
    grads = 1e-4 * grads
    for n in range(2):
        actual = cam.grad_cam_pp_formula(maps, grads)[n, 0].numpy()
        expected = np.maximum(plus_plus(maps[n].numpy(), grads[n].numpy()), 0)
        assert np.abs(actual - expected).max() <= 1e-10 * expected.max()
    square = grads**2
    denominator = 2 * square + maps.sum(dim=(2, 3), keepdim=True) * grads**3 + 1e-6
    faded = (grads.clamp(min=0) * square / denominator).sum(dim=(2, 3))
    whole = (grads.clamp(min=0) / (2 + grads * maps.sum(dim=(2, 3), keepdim=True))).sum(dim=(2, 3))
    assert faded.sum() < 0.1 * whole.sum()


@pytest.mark.parametrize("net", HALVES)
def test_eigen_cam_of_centred_maps_is_that_of_pytorch_grad_cam(parts, net):
    """The library centres each map first, and the sign of its result is arbitrary."""
    _, maps, _, _ = parts(net)
    centred = maps - maps.mean(dim=(2, 3), keepdim=True)
    actual = cam.eigen_cam_formula(centred)[:, 0]
    peer = torch.from_numpy(get_2d_projection(maps.numpy())).double()
    sign = (actual * peer).sum(dim=(1, 2), keepdim=True).sign()
    assert (actual - sign * peer).abs().max() <= 1e-5 * actual.abs().max()
    assert not torch.allclose(actual, cam.eigen_cam_formula(maps)[:, 0])


# --- Score-CAM ------------------------------------------------------------------------------------

# Layers with few maps, because each map needs a forward pass. No in-place ReLU follows.
SMALL = {
    "alexnet": "features.2",
    "vgg11": "features.2",
    "squeezenet1_1": "features.2",
    "resnet18": "maxpool",
    "googlenet": "maxpool1",
    "densenet121": "features.pool0",
}


@pytest.fixture(scope="module")
def small() -> Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def score_cam_by_loops(model: nn.Module, maps: Tensor, x: Tensor, c: int) -> Tensor:
    """One masked image for each map, minus the score of the baseline, as in the paper."""
    with torch.no_grad():
        base = model(torch.zeros_like(x))[0, c]
        varying, masked = [], []
        for k, a in enumerate(maps[0]):
            if a.max() > a.min():
                large = F.interpolate(a[None, None], x.shape[-2:], mode="bilinear")
                mask = (large - large.min()) / (large.max() - large.min())
                varying.append(k)
                masked.append(x[0] * mask[0])
        scores = (model(torch.stack(masked))[:, c] - base).numpy()
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        total = sum(w * maps[0, k] for w, k in zip(weights, varying, strict=True))
    return total.clamp(min=0)


def maps_of(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    module = model.get_submodule(layer)
    handle = module.register_forward_hook(lambda m, a, output: kept.append(output.clone()))
    with torch.no_grad():
        model(x)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("net", SMALL)
def test_score_cam_equals_plain_loops_and_peers(untrained, monkeypatch, net, small):
    """pytorch-grad-cam upsamples with aligned corners, TorchCAM scales before it upsamples.

    Both are changed here to follow the paper.
    """
    model, layer = Louder(untrained(net), 20), "net." + SMALL[net]
    c = int(model(small).argmax())
    actual = cam.score_cam(model, small, c, layer=layer, batch=48)
    maps = maps_of(model, layer, small)
    assert maps.shape[1] == 64
    expected = score_cam_by_loops(model, maps, small, c)
    assert (actual[0, 0] - expected).abs().max() <= 1e-4 * expected.max()
    # With equal weights the map would be another one.
    assert not torch.allclose(actual[0, 0], maps[0].mean(dim=0), rtol=0.01)

    monkeypatch.setattr(
        torch.nn,
        "UpsamplingBilinear2d",
        lambda size: nn.Upsample(size, mode="bilinear", align_corners=False),
    )
    monkeypatch.setattr("tqdm.tqdm", lambda steps: steps)
    with torch.no_grad():
        shown = by_grad_cam(pytorch_grad_cam.ScoreCAM, model, layer, small, [c])
    assert (as_grad_cam_shows(actual, (64, 64)) - shown).abs().max() <= 1e-3

    def upsampled(self, masks: Tensor) -> Tensor:
        return unit_range(F.interpolate(masks, (64, 64), mode="bilinear"), 1e-8)

    monkeypatch.setattr(torchcam.methods.ScoreCAM, "_upsample", upsampled)
    with torchcam.methods.ScoreCAM(model, layer) as peer, torch.no_grad():
        model(small)
        (raw,) = peer(c, normalized=True)
    assert (unit_range(actual[:, 0], 1e-8) - raw).abs().max() <= 1e-3


def test_score_cam_explains_each_image_of_a_batch_by_itself(x):
    model = Gap()
    images = x[..., :17, :13]
    both = cam.score_cam(model, images, TARGETS)
    for batch in (1, 4, 9, 100):
        for n, c in enumerate(TARGETS):
            alone = cam.score_cam(model, images[n : n + 1], c, batch=batch)
            assert torch.allclose(alone[0], both[n], rtol=1e-5, atol=1e-7)


def test_score_cam_runs_masked_images_in_batches(x):
    model, sizes = Gap(), []
    model.features[0].register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    # So that no map is constant.
    model.features[2].bias.data += 1
    cam.score_cam(model, x[..., :17, :13], 3, layer="features.3", batch=4)
    assert sizes == [2, *[4, 4, 1] * 2]
    with pytest.raises(ValueError, match="batch must be at least 1 image, got 0"):
        cam.score_cam(model, x, 3, batch=0)


def test_score_cam_ignores_constant_maps(x):
    """A constant map gets the weight 0; if all maps are constant, the result is 0."""
    model = Gap()
    model.features[2].weight.data[4] = 0
    model.features[2].bias.data[4] = 5.0
    images = x[:1, :, :17, :13]
    expected = score_cam_by_loops(model, maps_of(model, "features", images), images, 3)
    actual = cam.score_cam(model, images, 3)
    assert torch.allclose(actual[0, 0], expected, rtol=1e-4, atol=1e-7)
    model.features[2].weight.data[:] = 0
    assert cam.score_cam(model, images, 3).abs().sum() == 0


@pytest.mark.parametrize("other", [7, None], ids=["another class", "all other classes"])
def test_score_cam_of_a_contrast(other, x):
    """The masked images are scored with the weights of the unchanged image."""
    model, images = Gap(), x[:1, :, :17, :13]
    (weights,) = target_weights(model(images), Contrast(3, other)).detach()
    contrast = nn.Sequential(model, nn.Linear(10, 1, bias=False))
    contrast[1].weight.data = weights[None]
    expected = score_cam_by_loops(contrast, maps_of(model, "features", images), images, 0)
    actual = cam.score_cam(model, images, Contrast(3, other))
    assert torch.allclose(actual[0, 0], expected, rtol=1e-4, atol=1e-7)


# --- Degenerate maps ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cam.FORMULAS)
def test_maps_that_are_zero_everywhere(name):
    maps, grads = torch.zeros(1, 4, 3, 5), torch.randn(1, 4, 3, 5)
    actual = cam.FORMULAS[name](maps, grads)
    assert actual.shape == (1, 1, 3, 5) and actual.abs().sum() == 0


@pytest.mark.parametrize("name", cam.FORMULAS)
def test_gradients_that_are_negative_everywhere(name):
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 4, 3, 5, generator=generator)
    grads = -torch.rand(2, 4, 3, 5, generator=generator)
    actual = cam.FORMULAS[name](maps, grads)
    assert actual.isfinite().all()
    # Eigen-CAM does not use the gradients.
    assert (actual.abs().sum() > 0) == (name == "eigen_cam")


@pytest.mark.parametrize("name", cam.FORMULAS)
def test_some_maps_that_sum_to_zero(name):
    maps = torch.rand(1, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    maps[:, 1] = 0
    maps[:, 2, 0, 0] -= maps[:, 2].sum()
    grads = torch.ones(1, 4, 3, 5)
    assert cam.FORMULAS[name](maps, grads).isfinite().all()


def test_grad_cam_pp_where_a_denominator_is_zero():
    """The weight is 0 + 1 / (2 − 1), and the map is not positive."""
    maps, grads = torch.tensor([[[[-1.0, 0.0]]]]), torch.tensor([[[[2.0, 1.0]]]])
    assert cam.grad_cam_pp_formula(maps, grads).tolist() == [[[[0.0, 0.0]]]]


@pytest.mark.parametrize("name", [*METHODS, "score_cam"])
def test_maps_of_one_position(name, x):
    """Each map is a single value: the methods give a result, although it shows nothing."""
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 10)
    )
    actual = getattr(cam, name)(model, x[..., :9, :9], TARGETS, layer="2")
    assert actual.shape == (2, 1, 1, 1) and actual.isfinite().all()
    assert name != "score_cam" or actual.abs().sum() == 0


@pytest.mark.parametrize("name", [*METHODS, "score_cam"])
def test_layer_without_positions_is_refused(name, x):
    model = Gap()
    with pytest.raises(ValueError, match=r"needs feature maps of shape N×K×h×w, got \(2, 10\)"):
        getattr(cam, name)(model, x, 3, layer="head")
    with pytest.raises(ValueError, match=r"no layer 'features\.9'"):
        getattr(cam, name)(model, x, 3, layer="features.9")


@pytest.mark.parametrize("name", [*METHODS, "score_cam"])
def test_dtype_of_the_image_is_kept(name, x):
    actual = getattr(cam, name)(Gap().double(), x[..., :15, :15].double(), 3)
    assert actual.dtype == torch.float64 and actual.shape == (2, 1, 6, 6)
    assert not actual.requires_grad
