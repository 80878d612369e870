"""CAM, Grad-CAM and Guided Grad-CAM against each other, Captum, pytorch-grad-cam and TorchCAM.

pytorch-grad-cam and TorchCAM do not copy the output of the layer: if an in-place ReLU follows, they
multiply the maps after the ReLU by the gradients before it. So they are compared only for layers
without an in-place ReLU after them.
"""

from __future__ import annotations

import copy

import captum.attr
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torchcam.methods
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from vislib.core import Contrast, target_weights
from vislib.explain.cam import cam, grad_cam, grad_cam_formula, guided_grad_cam
from vislib.explain.gradients import guided_backprop
from vislib.maps import upsample

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]

TARGETS = [3, 7]
# The default layer of each network. No in-place ReLU follows.
LAYERS = {
    "alexnet": "features.11",
    "squeezenet1_1": "features",
    "resnet18": "layer4",
    "googlenet": "inception5b",
    "mobilenet_v2": "features",
}


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))


class Pooled(nn.Module):
    """Two convolutions, `pool` over the positions, one linear layer."""

    def __init__(self, pool: str = "mean") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 9, 3, stride=2), nn.ReLU()
        )
        self.head = nn.Linear(9, 10)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x)
        pooled = {
            "mean": lambda: maps.mean(dim=(2, 3)),
            "max": lambda: maps.amax(dim=(2, 3)),
            "log-sum-exp": lambda: maps.flatten(2).logsumexp(dim=2),
        }[self.pool]()
        return self.head(pooled)


# --- Formulas -------------------------------------------------------------------------------------


def test_cam_is_the_weighted_sum_of_the_maps(x):
    model = Pooled()
    maps, weight = model.features(x), model.head.weight
    expected = torch.stack(
        [
            sum(weight[c, k] * image[k] for k in range(9))
            for image, c in zip(maps, TARGETS, strict=True)
        ]
    )
    assert torch.allclose(cam(model, x, TARGETS)[:, 0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("target", [3, TARGETS], ids=str)
def test_the_mean_of_cam_is_the_score_without_its_bias(target, x):
    model = Pooled().double()
    chosen = torch.tensor(target).expand(2)
    expected = model(x.double())[range(2), chosen] - model.head.bias[chosen]
    assert torch.allclose(cam(model, x.double(), target).mean(dim=(1, 2, 3)), expected, rtol=1e-10)


def test_grad_cam_by_hand():
    """Two 1×2 maps with gradients whose means are 1 and −2."""
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.5]]]])
    grads = torch.tensor([[[[0.0, 2.0]], [[-1.0, -3.0]]]])
    assert grad_cam_formula(maps, grads, relu=False).tolist() == [[[[-5.0, 1.0]]]]
    assert grad_cam_formula(maps, grads).tolist() == [[[[0.0, 1.0]]]]


@pytest.mark.parametrize("other", [7, None], ids=["another class", "all other classes"])
def test_cam_of_a_contrast_is_the_weighted_sum_of_cams(other, x):
    model = Pooled().double()
    target = Contrast(3, other)
    weights = target_weights(model(x.double()), target)
    cams = torch.cat([cam(model, x.double(), c) for c in range(10)], dim=1)
    expected = (weights[..., None, None] * cams).sum(dim=1, keepdim=True)
    assert torch.allclose(cam(model, x.double(), target), expected, rtol=1e-9, atol=1e-12)
    by_gradients = grad_cam(model, x.double(), target, relu=False) * expected[0, 0].numel()
    assert torch.allclose(by_gradients, expected, rtol=1e-9, atol=1e-12)


# --- CAM and Grad-CAM -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", [7, TARGETS], ids=str)
@pytest.mark.parametrize("name", ["tiny", "resnet18"])
def test_cam_is_grad_cam_times_the_number_of_positions(untrained, name, target, x):
    model = Pooled() if name == "tiny" else untrained(name)
    image = x.double()
    try:
        by_weights = cam(model.double(), image, target)
        by_gradients = grad_cam(model, image, target, relu=False)
    finally:
        model.float()
    positions = by_weights[0, 0].numel()
    assert positions > 1 and by_weights.min() < 0 < by_weights.max()
    assert (by_gradients * positions - by_weights).abs().max() <= 1e-10 * by_weights.abs().max()


@pytest.mark.parametrize("relu", [True, False], ids=["squeezenet1_1", "without its ReLU"])
def test_cam_of_a_model_that_ends_in_a_convolution(untrained, relu, x):
    """Without the ReLU before its pooling, SqueezeNet is a model with GAP and a linear layer."""
    model = copy.deepcopy(untrained("squeezenet1_1"))
    convolution = model.classifier[1]
    if not relu:
        model.classifier[2] = nn.Identity()
    maps, c = model.features(x), torch.arange(2)
    at_positions = convolution(maps)[c, TARGETS] - convolution.bias[TARGETS].view(-1, 1, 1)
    actual = cam(model, x, TARGETS)
    assert actual.min() < 0 < actual.max()
    assert torch.allclose(
        actual[:, 0], at_positions, rtol=1e-4, atol=1e-5 * float(actual.abs().max())
    )
    by_gradients = grad_cam(model, x, TARGETS, relu=False) * actual[0, 0].numel()
    equal = (by_gradients - actual).abs().amax(dim=(1, 2, 3)) <= 1e-5 * actual.abs().max()
    # The gradient of the ReLU is 0 where the map is below -b.
    assert equal.any() != relu


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_cam_in_half_precision(dtype, seed, x):
    """Rounding does not hide the head of the model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        features = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())
        model = nn.Sequential(features, nn.Conv2d(16, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    expected = cam(model, x, 3)
    actual = cam(model.to(dtype), x.to(dtype), 3)
    assert actual.dtype == dtype
    assert (actual - expected).abs().max() <= 0.05 * expected.abs().max()


@pytest.mark.parametrize("scale", [1.0, 1e-4], ids=["usual weights", "small weights"])
def test_cam_refuses_another_pooling(scale, x):
    """Also if the logits are so small that a fixed tolerance would accept them."""
    model = Pooled("log-sum-exp")
    model.head.weight.data *= scale
    with pytest.raises(
        ValueError, match=r"the mean or the maximum of each feature map .* use grad_cam"
    ):
        cam(model, x, 3)


# --- Global max pooling (Oquab 2015) --------------------------------------------------------------


@pytest.mark.parametrize("target", [7, TARGETS], ids=str)
def test_cam_with_gmp_is_the_weighted_sum_and_grad_cam(target, x):
    """The gradient of ``max A^k`` is 1 at one position: its mean is 1/Z, as for ``mean A^k``."""
    model = Pooled("max").double()
    maps, chosen = model.features(x.double()), torch.tensor(target).expand(2)
    actual = cam(model, x.double(), target)
    expected = torch.stack(
        [
            sum(model.head.weight[c, k] * image[k] for k in range(9))
            for image, c in zip(maps, chosen, strict=True)
        ]
    )
    assert torch.allclose(actual[:, 0], expected, rtol=1e-10)
    by_gradients = grad_cam(model, x.double(), target, relu=False) * maps[0, 0].numel()
    assert torch.allclose(actual, by_gradients, rtol=1e-10)


def test_with_gmp_the_mean_of_cam_is_not_the_score(x):
    """The score sums the maxima, which are at different positions in different maps."""
    model = Pooled("max").double()
    maps, w, b = model.features(x.double()), model.head.weight[3], model.head.bias[3]
    scores, actual = model(x.double())[:, 3], cam(model, x.double(), 3)
    by_loops = [sum(w[k] * max(image[k].flatten()) for k in range(9)) + b for image in maps]
    assert torch.allclose(scores, torch.stack(by_loops), rtol=1e-10)
    assert (actual.mean(dim=(1, 2, 3)) + b - scores).abs().min() > 1e-3
    assert (actual.amax(dim=(1, 2, 3)) + b - scores).abs().min() > 1e-3


def test_cam_ignores_a_layer_of_the_same_shape_as_the_head(x):
    """Of two such linear layers, the one that computes the logits is found, for both poolings."""
    for pool in ("mean", "max"):
        model = Pooled(pool)
        head = model.head
        del model.head
        # The unused layer comes first.
        model.unused, model.head = nn.Linear(9, 10), head
        maps, w = model.features(x), model.head.weight[3]
        expected = torch.einsum("k,nkij->nij", w, maps)
        assert torch.allclose(cam(model, x, 3)[:, 0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("net", "layer"),
    [("alexnet", "features.11"), ("resnet18", "layer3.1"), ("densenet121", "features")],
)
def test_cam_refuses_a_model_or_layer_without_gap(untrained, net, layer, x):
    with pytest.raises(ValueError, match=f"does not after layer '{layer}': use grad_cam"):
        cam(untrained(net), x, 3, layer=layer)


def test_cam_refuses_vgg(untrained, x):
    with pytest.raises(ValueError, match=r"does not after layer 'features\.19': use grad_cam"):
        cam(untrained("vgg11"), x, 3)


def test_cam_ignores_a_linear_layer_that_is_defined_last(x):
    """The last layer of the definition need not be the one that computes the logits."""

    class Reordered(Pooled):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(9, 10)

    assert torch.equal(cam(Reordered(), x, TARGETS), cam(Pooled(), x, TARGETS))


# --- Peers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", [*LAYERS, "densenet121"])
def test_grad_cam_equals_captum(untrained, net, x):
    model = untrained(net)
    layer = model.get_submodule(LAYERS.get(net, "features"))
    peer = captum.attr.LayerGradCam(model, layer).attribute(x.clone(), target=TARGETS).detach()
    actual = grad_cam(model, x, TARGETS, relu=False)
    scale = peer.abs().max()
    assert scale > 0 and (actual - peer).abs().max() <= 1e-6 * scale

    enlarged = captum.attr.LayerAttribution.interpolate(peer, (96, 96), "bilinear")
    assert (upsample(actual, (96, 96)) - enlarged).abs().max() <= 1e-6 * scale


def unit_range(maps: Tensor, epsilon: float) -> Tensor:
    """Each map shifted and scaled to [0, 1]."""
    maps = maps - maps.amin(dim=(-2, -1), keepdim=True)
    return maps / (epsilon + maps.amax(dim=(-2, -1), keepdim=True))


@pytest.fixture(scope="module")
def predicted(untrained, x):
    """The predicted classes: their Grad-CAM is not 0 everywhere, so it can be scaled."""

    def choose(net: str) -> list[int]:
        return untrained(net)(x).argmax(dim=1).tolist()

    return choose


@pytest.mark.parametrize("net", LAYERS)
def test_grad_cam_equals_pytorch_grad_cam(untrained, predicted, net, x):
    """The library scales each map to [0, 1], upsamples it with OpenCV and scales it again."""
    model, target = untrained(net), predicted(net)
    with pytorch_grad_cam.GradCAM(model, [model.get_submodule(LAYERS[net])]) as peer:
        expected = peer(x.clone(), [ClassifierOutputTarget(c) for c in target])
    model.zero_grad()
    actual = grad_cam(model, x, target)
    assert actual.amax(dim=(1, 2, 3)).min() > 0
    actual = unit_range(upsample(unit_range(actual, 1e-7), (96, 96)), 1e-7)
    assert np.abs(actual[:, 0].numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize("net", LAYERS)
def test_grad_cam_equals_torchcam(untrained, predicted, net, x):
    model, target = untrained(net), predicted(net)
    with torchcam.methods.GradCAM(model, LAYERS[net]) as peer:
        logits = model(x.clone().requires_grad_())
        (raw,) = peer(target, logits, normalized=False, retain_graph=True)
        (scaled,) = peer(target, logits)
    model.zero_grad()
    actual = grad_cam(model, x, target)[:, 0]
    assert actual.max() > 0
    assert (actual - raw).abs().max() <= 1e-6 * raw.abs().max()
    assert (unit_range(actual, 1e-8) - scaled).abs().max() <= 1e-5


@pytest.mark.parametrize("net", ["resnet18", "googlenet", "mobilenet_v2", "squeezenet1_1"])
def test_cam_equals_torchcam(untrained, net, x):
    model = untrained(net)
    actual = cam(model, x, TARGETS)[:, 0]
    *_, head = (n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d))
    with torchcam.methods.CAM(model, LAYERS[net], fc_layer=head) as peer, torch.no_grad():
        model(x)
        (expected,) = peer(TARGETS, normalized=False)
    assert (actual - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("net", ["alexnet", "squeezenet1_1", "resnet18"])
def test_guided_grad_cam_equals_captum(untrained, predicted, net, x):
    """By default Captum upsamples by nearest neighbours; the paper does so bilinearly, as here."""
    model, target = untrained(net), predicted(net)
    layer = model.get_submodule(LAYERS[net])
    peer = captum.attr.GuidedGradCam(model, layer).attribute(
        x.clone(), target=target, interpolate_mode="bilinear"
    )
    actual = guided_grad_cam(model, x, target)
    scale = peer.abs().max()
    assert scale > 0 and (actual - peer).abs().max() <= 1e-6 * scale


# --- The parts fit together -----------------------------------------------------------------------


@pytest.mark.parametrize("net", ["resnet18", "googlenet", "densenet121"])
def test_guided_grad_cam_is_the_product_of_its_parts(untrained, predicted, net, x):
    model, target = untrained(net), predicted(net)
    expected = upsample(grad_cam(model, x, target), (96, 96)) * guided_backprop(model, x, target)
    assert expected.abs().max() > 0
    assert torch.equal(guided_grad_cam(model, x, target), expected)


def test_grad_cam_before_an_in_place_relu(untrained, x):
    """The maps of a convolution are used as they are before the ReLU changes them."""
    model = untrained("alexnet")
    image = x[:1].clone()
    maps = model.features[:11](image).detach().requires_grad_()
    logits = model.classifier(model.avgpool(model.features[11:](maps * 1)).flatten(1))
    (grads,) = torch.autograd.grad(logits[0, 3], maps)
    expected = (grads.mean(dim=(2, 3), keepdim=True) * maps.detach()).sum(dim=1, keepdim=True)
    assert maps.min() < 0
    actual = grad_cam(model, image, 3, layer="features.10", relu=False)
    assert (actual - expected).abs().max() <= 1e-6 * expected.abs().max()
