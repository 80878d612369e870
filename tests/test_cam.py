"""CAM, Grad-CAM and Guided Grad-CAM against each other, Captum, pytorch-grad-cam and TorchCAM.

The last two keep no copy of a layer's output: where an in-place ReLU follows the layer, they weigh
the maps after it by the gradients before it. So they judge here only where none follows.
"""

import copy

import captum.attr
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torchcam.methods
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from vislib.explain.cam import cam, grad_cam, grad_cam_formula, guided_grad_cam
from vislib.explain.gradients import guided_backprop
from vislib.maps import upsample

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]

TARGETS = [3, 7]
LAYERS = {  # the default layer of each net; no in-place ReLU follows
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
    """Two convolutions, `pool` over places, one linear layer."""

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


# ------------------------------------------------------------ formulas


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
    """Two 1×2 maps with slopes whose means are 1 and −2."""
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.5]]]])
    slope = torch.tensor([[[[0.0, 2.0]], [[-1.0, -3.0]]]])
    assert grad_cam_formula(maps, slope, relu=False).tolist() == [[[[-5.0, 1.0]]]]
    assert grad_cam_formula(maps, slope).tolist() == [[[[0.0, 1.0]]]]


def test_upsampling_takes_pixels_as_areas():
    """By hand, for a row of two pixels: the centres of the four new ones lie at −¼, ¼, ¾ and 1¼."""
    assert upsample(torch.tensor([[[[0.0, 4.0]]]]), (1, 4)).tolist() == [[[[0.0, 1.0, 3.0, 4.0]]]]


# ------------------------------------------------------------ CAM and Grad-CAM


@pytest.mark.parametrize("target", [7, TARGETS], ids=str)
@pytest.mark.parametrize("name", ["tiny", "resnet18"])
def test_cam_is_grad_cam_times_the_number_of_places(untrained, name, target, x):
    model = Pooled() if name == "tiny" else untrained(name)
    image = x.double()
    try:
        by_weights = cam(model.double(), image, target)
        by_slopes = grad_cam(model, image, target, relu=False)
    finally:
        model.float()
    places = by_weights[0, 0].numel()
    assert places > 1 and by_weights.min() < 0 < by_weights.max()
    assert (by_slopes * places - by_weights).abs().max() <= 1e-10 * by_weights.abs().max()


@pytest.mark.parametrize("relu", [True, False], ids=["squeezenet1_1", "without its ReLU"])
def test_cam_of_a_net_that_ends_in_a_convolution(untrained, relu, x):
    """Without the ReLU before its pooling, SqueezeNet is a net with GAP and a linear layer."""
    model = copy.deepcopy(untrained("squeezenet1_1"))
    convolution = model.classifier[1]
    if not relu:
        model.classifier[2] = nn.Identity()
    maps, c = model.features(x), torch.arange(2)
    at_places = convolution(maps)[c, TARGETS] - convolution.bias[TARGETS].view(-1, 1, 1)
    own = cam(model, x, TARGETS)
    assert own.min() < 0 < own.max()
    assert torch.allclose(own[:, 0], at_places, rtol=1e-4, atol=1e-5 * float(own.abs().max()))
    by_slopes = grad_cam(model, x, TARGETS, relu=False) * own[0, 0].numel()
    equal = (by_slopes - own).abs().amax(dim=(1, 2, 3)) <= 1e-5 * own.abs().max()
    assert equal.any() != relu  # a ReLU lets no slope through where the map is below -b


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_cam_in_half_precision(dtype, seed, x):
    """Rounding does not make the net's own head look like another."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        features = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())
        model = nn.Sequential(features, nn.Conv2d(16, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    expected = cam(model, x, 3)
    own = cam(model.to(dtype), x.to(dtype), 3)
    assert own.dtype == dtype
    assert (own - expected).abs().max() <= 0.05 * expected.abs().max()


@pytest.mark.parametrize("scale", [1.0, 1e-4], ids=["usual weights", "small weights"])
def test_cam_refuses_another_pooling(scale, x):
    """Also where the logits are so small that a fixed tolerance would let them pass."""
    model = Pooled("log-sum-exp")
    model.head.weight.data *= scale
    with pytest.raises(ValueError, match=r"the mean or the maximum of each map .* use grad_cam"):
        cam(model, x, 3)


# ------------------------------------------------------------ global max pooling (Oquab 2015)


@pytest.mark.parametrize("target", [7, TARGETS], ids=str)
def test_cam_of_a_gmp_net_is_the_weighted_sum_and_grad_cam(target, x):
    """The slope of ``max A^k`` is 1 at one place, so its mean is 1/Z, as that of ``mean A^k``."""
    model = Pooled("max").double()
    maps, chosen = model.features(x.double()), torch.tensor(target).expand(2)
    own = cam(model, x.double(), target)
    expected = torch.stack(
        [
            sum(model.head.weight[c, k] * image[k] for k in range(9))
            for image, c in zip(maps, chosen, strict=True)
        ]
    )
    assert torch.allclose(own[:, 0], expected, rtol=1e-10)
    by_slopes = grad_cam(model, x.double(), target, relu=False) * maps[0, 0].numel()
    assert torch.allclose(own, by_slopes, rtol=1e-10)


def test_in_a_gmp_net_the_mean_of_cam_is_not_the_score(x):
    """What the score sums up are the maxima, which lie at different places for different maps."""
    model = Pooled("max").double()
    maps, w, b = model.features(x.double()), model.head.weight[3], model.head.bias[3]
    scores, own = model(x.double())[:, 3], cam(model, x.double(), 3)
    by_loops = [sum(w[k] * max(image[k].flatten()) for k in range(9)) + b for image in maps]
    assert torch.allclose(scores, torch.stack(by_loops), rtol=1e-10)
    assert (own.mean(dim=(1, 2, 3)) + b - scores).abs().min() > 1e-3
    assert (own.amax(dim=(1, 2, 3)) + b - scores).abs().min() > 1e-3


def test_cam_finds_the_head_behind_a_decoy(x):
    """Of two linear layers of one shape the one that ends the net is found, for both poolings."""
    for pool in ("mean", "max"):
        model = Pooled(pool)
        head = model.head
        del model.head
        model.decoy, model.head = nn.Linear(9, 10), head  # the decoy comes first
        maps, w = model.features(x), model.head.weight[3]
        expected = torch.einsum("k,nkij->nij", w, maps)
        assert torch.allclose(cam(model, x, 3)[:, 0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("net", "layer"),
    [("alexnet", "features.11"), ("resnet18", "layer3.1"), ("densenet121", "features")],
)
def test_cam_refuses_a_net_or_layer_without_gap_head(untrained, net, layer, x):
    with pytest.raises(ValueError, match=f"After '{layer}' this one does not: use grad_cam"):
        cam(untrained(net), x, 3, layer=layer)


def test_cam_refuses_vgg(untrained, x):
    with pytest.raises(ValueError, match=r"After 'features\.19' this one does not: use grad_cam"):
        cam(untrained("vgg11"), x, 3)


def test_cam_finds_its_head_wherever_it_is_defined(x):
    """A linear layer defined last need not be the one that ends the net."""

    class Reordered(Pooled):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(9, 10)

    assert torch.equal(cam(Reordered(), x, TARGETS), cam(Pooled(), x, TARGETS))


# ------------------------------------------------------------ peers


@pytest.mark.parametrize("net", [*LAYERS, "densenet121"])
def test_grad_cam_equals_captum(untrained, net, x):
    model = untrained(net)
    layer = model.get_submodule(LAYERS.get(net, "features"))
    peer = captum.attr.LayerGradCam(model, layer).attribute(x.clone(), target=TARGETS).detach()
    own = grad_cam(model, x, TARGETS, relu=False)
    scale = peer.abs().max()
    assert scale > 0 and (own - peer).abs().max() <= 1e-6 * scale

    enlarged = captum.attr.LayerAttribution.interpolate(peer, (96, 96), "bilinear")
    assert (upsample(own, (96, 96)) - enlarged).abs().max() <= 1e-6 * scale


def unit_range(maps: Tensor, epsilon: float) -> Tensor:
    """Each map shifted and scaled to [0, 1]."""
    maps = maps - maps.amin(dim=(-2, -1), keepdim=True)
    return maps / (epsilon + maps.amax(dim=(-2, -1), keepdim=True))


@pytest.fixture(scope="module")
def positive(untrained, x):
    """The winning classes: their Grad-CAM is not all 0, so that scaling it makes sense."""

    def choose(net: str) -> list[int]:
        return untrained(net)(x).argmax(dim=1).tolist()

    return choose


@pytest.mark.parametrize("net", LAYERS)
def test_grad_cam_equals_pytorch_grad_cam(untrained, positive, net, x):
    """Which scales each map to [0, 1], upsamples it with OpenCV and scales again."""
    model, target = untrained(net), positive(net)
    with pytorch_grad_cam.GradCAM(model, [model.get_submodule(LAYERS[net])]) as peer:
        expected = peer(x.clone(), [ClassifierOutputTarget(c) for c in target])
    model.zero_grad()
    own = grad_cam(model, x, target)
    assert own.amax(dim=(1, 2, 3)).min() > 0
    own = unit_range(upsample(unit_range(own, 1e-7), (96, 96)), 1e-7)
    assert np.abs(own[:, 0].numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize("net", LAYERS)
def test_grad_cam_equals_torchcam(untrained, positive, net, x):
    model, target = untrained(net), positive(net)
    with torchcam.methods.GradCAM(model, LAYERS[net]) as peer:
        logits = model(x.clone().requires_grad_())
        (raw,) = peer(target, logits, normalized=False, retain_graph=True)
        (scaled,) = peer(target, logits)
    model.zero_grad()
    own = grad_cam(model, x, target)[:, 0]
    assert own.max() > 0
    assert (own - raw).abs().max() <= 1e-6 * raw.abs().max()
    assert (unit_range(own, 1e-8) - scaled).abs().max() <= 1e-5


@pytest.mark.parametrize("net", ["resnet18", "googlenet", "mobilenet_v2", "squeezenet1_1"])
def test_cam_equals_torchcam(untrained, net, x):
    model = untrained(net)
    own = cam(model, x, TARGETS)[:, 0]
    *_, head = (n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d))
    with torchcam.methods.CAM(model, LAYERS[net], fc_layer=head) as peer, torch.no_grad():
        model(x)
        (expected,) = peer(TARGETS, normalized=False)
    assert (own - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("net", ["alexnet", "squeezenet1_1", "resnet18"])
def test_guided_grad_cam_equals_captum(untrained, positive, net, x):
    """Captum's default upsampling is nearest; the paper's is bilinear, as here."""
    model, target = untrained(net), positive(net)
    layer = model.get_submodule(LAYERS[net])
    peer = captum.attr.GuidedGradCam(model, layer).attribute(
        x.clone(), target=target, interpolate_mode="bilinear"
    )
    own = guided_grad_cam(model, x, target)
    scale = peer.abs().max()
    assert scale > 0 and (own - peer).abs().max() <= 1e-6 * scale


# ------------------------------------------------------------ the parts fit together


@pytest.mark.parametrize("net", ["resnet18", "googlenet", "densenet121"])
def test_guided_grad_cam_is_the_product_of_its_parts(untrained, positive, net, x):
    model, target = untrained(net), positive(net)
    expected = upsample(grad_cam(model, x, target), (96, 96)) * guided_backprop(model, x, target)
    assert expected.abs().max() > 0
    assert torch.equal(guided_grad_cam(model, x, target), expected)


def test_grad_cam_before_an_in_place_relu(untrained, x):
    """The maps of a convolution are its own, not what the ReLU after it makes of them."""
    model = untrained("alexnet")
    image = x[:1].clone()
    maps = model.features[:11](image).detach().requires_grad_()
    logits = model.classifier(model.avgpool(model.features[11:](maps * 1)).flatten(1))
    (slope,) = torch.autograd.grad(logits[0, 3], maps)
    expected = (slope.mean(dim=(2, 3), keepdim=True) * maps.detach()).sum(dim=1, keepdim=True)
    assert maps.min() < 0
    seen = grad_cam(model, image, 3, layer="features.10", relu=False)
    assert (seen - expected).abs().max() <= 1e-6 * expected.abs().max()
