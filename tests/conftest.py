"""Networks that several test files share."""

import copy
import functools
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vgg import make_layers

# The initialisation that these networks define is slow. PyTorch's default is good enough here.
OPTIONS = {
    "vgg11": {"init_weights": False},
    "vgg16": {"init_weights": False},
    "vgg19_bn": {"init_weights": False},
    "googlenet": {"init_weights": False, "aux_logits": False},
    "inception_v3": {"init_weights": False, "aux_logits": False},
}


def build(name: str) -> nn.Module:
    """A torchvision network in evaluation mode with random weights, the same in every run.

    Its batch normalisation has the mean and variance of some random images. Without that, the
    signal would vanish in a deep network.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, weights=None, **OPTIONS.get(name, {}))
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # the mean over all batches, here of one
        if norms:
            model(torch.rand(4, 3, 96, 96))
        return model.eval()


@pytest.fixture(scope="session")
def untrained() -> Callable[[str], nn.Module]:
    """As `build`, but the last few networks are kept for the next test."""
    return functools.lru_cache(maxsize=4)(build)


# --- Narrow networks in float64, for methods that divide by small numbers -------------------------


def narrow_alexnet() -> nn.Module:
    """torchvision's AlexNet with small dense layers, for speed. The large ones are never made."""
    torch.manual_seed(0)
    with torch.device("meta"):
        features = torchvision.models.alexnet().features
    features.to_empty(device="cpu")
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    dense = [nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(True), nn.Linear(32, 10)]
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(), *dense)


def narrow_vgg11() -> nn.Module:
    """torchvision's VGG-11 with a quarter of the channels and small dense layers, for speed."""
    torch.manual_seed(0)
    plan = [16, "M", 32, "M", 64, 64, "M", 128, 128, "M", 128, 128, "M"]
    dense = [nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(True), nn.Linear(32, 10)]
    features = make_layers(plan, batch_norm=False)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(), *dense)


class NarrowResNet18(ResNet):
    """torchvision's ResNet-18 with a quarter of the channels, for speed.

    Its batch normalisation has the mean and variance of some random images, as in `build`.
    """

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(BasicBlock, [2, 2, 2, 2])
        self.fc = nn.Linear(128, 10)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            self(torch.rand(4, 3, 64, 64))
        self.eval()

    def _make_layer(self, block, planes, *args, **options):  # type: ignore[no-untyped-def]
        return super()._make_layer(block, planes // 4, *args, **options)


NARROW: dict[str, Callable[[], nn.Module]] = {
    "alexnet": narrow_alexnet,
    "vgg11": narrow_vgg11,
    "resnet18": NarrowResNet18,
}


@pytest.fixture(scope="module")
def double(untrained) -> Callable[[str], nn.Module]:
    """Networks in float64, because peers add in another order and LRP divides by small numbers.

    AlexNet has narrow dense layers, for speed, VGG and ResNet have narrow layers of all kinds. The
    ε of batch normalisation is moved into the variance, because zennit leaves it out when it merges
    the normalisation into a convolution.
    """

    @functools.cache
    def build(name: str) -> nn.Module:
        model = NARROW[name]() if name in NARROW else copy.deepcopy(untrained(name))
        model = model.double().eval()
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_var += norm.eps
                norm.eps = 0.0
        return model

    return build


@pytest.fixture(scope="module")
def single(double) -> Callable[[str], nn.Module]:
    """The same networks in float32."""
    return functools.cache(lambda name: copy.deepcopy(double(name)).float())


@pytest.fixture(scope="module")
def small_x() -> Tensor:
    """Two random images of 18 pixels in float64."""
    return torch.rand(2, 3, 18, 18, dtype=torch.double, generator=torch.Generator().manual_seed(1))


# --- Modules of the tests whose assertions pytest explains ----------------------------------------

pytest.register_assert_rewrite("answers")
