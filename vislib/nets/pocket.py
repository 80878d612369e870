"""The architectures of the pocket networks: small versions of famous ones, for 128×128 pixels.

Each network takes normalised images, N×3×H×W, and returns N×K logits for its K classes, whose
number is the argument `classes`. The modules have the names of torchvision's versions (`features`,
`classifier`, `layer4`, `fc` …).

>>> PocketGAP(classes=5)(torch.rand(2, 3, 64, 64)).shape
torch.Size([2, 5])

References:

* AlexNet: Krizhevsky, Sutskever & Hinton 2012, "ImageNet Classification with Deep Convolutional
  Neural Networks".
* VGG: Simonyan & Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image
  Recognition".
* ResNet: He et al. 2016, "Deep Residual Learning for Image Recognition".
* SqueezeNet: Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and
  <0.5MB model size".
* Global average pooling: Zhou et al. 2016, "Learning Deep Features for Discriminative
  Localization".
* Global max pooling: Oquab et al. 2015, "Is object localization for free?".
* The all-convolutional net: Springenberg et al. 2015, "Striving for Simplicity".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _initialise(net: nn.Module) -> None:
    """Set random weights as in He et al. 2015, "Delving Deep into Rectifiers", and zero biases.

    With these weights, deep ReLU networks can be trained without normalisation.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """Convolution that keeps the size of the maps (up to its stride), and a ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
    return [conv, nn.ReLU(inplace=True)]


def _vgg_features(plan: str) -> nn.Sequential:
    """VGG's stack from a plan such as "16 M 32 32": channels of 3×3 convolutions, M for a pool."""
    layers: list[nn.Module] = []
    channels = 3
    for item in plan.split():
        if item == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += _conv(channels, int(item))
            channels = int(item)
    return nn.Sequential(*layers)


class PocketAlexNet(nn.Module):
    """AlexNet: large first filters with a stride, overlapping pools, dropout."""

    def __init__(self, classes: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(3, 32, kernel=7, stride=3),
            nn.MaxPool2d(3, stride=2),
            *_conv(32, 64, kernel=5),
            nn.MaxPool2d(3, stride=2),
            *_conv(64, 96),
            *_conv(96, 96),
            *_conv(96, 128),
            nn.MaxPool2d(3, stride=2),
        )
        # The dense layers of the original receive all positions and learn each class at each
        # position, which needs a million images. Ours receive the mean over the positions.
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Dropout(0.1),
            nn.Linear(128, 128),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            nn.Linear(128, 128),
            nn.ReLU(inplace=True),
            nn.Linear(128, classes),
        )
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, N×K, of normalised images, N×3×H×W."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class PocketVGG(nn.Module):
    """VGG: only 3×3 convolutions, five pools, dense layers."""

    def __init__(self, classes: int = 16) -> None:
        super().__init__()
        self.features = _vgg_features("16 M 32 M 48 M 64 64 M 96 96 M")
        self.avgpool = nn.AdaptiveAvgPool2d(1)  # as in PocketAlexNet
        self.classifier = nn.Sequential(
            nn.Linear(96, 128),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            nn.Linear(128, classes),
        )
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, N×K, of normalised images, N×3×H×W."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class PocketGAP(nn.Module):
    """Network for class activation maps: convolutions, global average pooling, a dense layer."""

    def __init__(self, classes: int = 16) -> None:
        super().__init__()
        self.features = _vgg_features("16 M 32 M 48 M 64 64 M 96 128")
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, N×K, of normalised images, N×3×H×W."""
        return self.fc(self.avgpool(self.features(x)).flatten(1))


class PocketGMP(nn.Module):
    """Twin of `PocketGAP` with global max pooling, which keeps a channel's largest value."""

    def __init__(self, classes: int = 16) -> None:
        super().__init__()
        self.features = _vgg_features("16 M 32 M 48 M 64 64 M 96 128")
        self.maxpool = nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(128, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, N×K, of normalised images, N×3×H×W."""
        return self.fc(self.maxpool(self.features(x)).flatten(1))


class PocketAllConv(nn.Module):
    """All-convolutional net: strided convolutions instead of pools."""

    def __init__(self, classes: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(3, 24, stride=2),
            *_conv(24, 32, stride=2),
            *_conv(32, 48),
            *_conv(48, 64, stride=2),
            *_conv(64, 64),
            *_conv(64, 96, stride=2),
            *_conv(96, 96),
            *_conv(96, 96, kernel=1),
        )
        self.classifier = nn.Sequential(
            nn.Conv2d(96, classes, kernel_size=1),
            nn.AdaptiveAvgPool2d(1),
        )
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, N×K, of normalised images, N×3×H×W."""
        return self.classifier(self.features(x)).flatten(1)


class Fire(nn.Module):
    """SqueezeNet's fire module: few 1×1 filters, then 1×1 and 3×3 filters in parallel.

    Args:
        inputs: number of input channels.
        squeeze: number of channels between the two steps.
        expand: number of output channels of each of the two parallel convolutions.
    """

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(*_conv(inputs, squeeze, kernel=1))
        self.expand1x1 = nn.Sequential(*_conv(squeeze, expand, kernel=1))
        self.expand3x3 = nn.Sequential(*_conv(squeeze, expand, kernel=3))

    def forward(self, x: Tensor) -> Tensor:
        """Return feature maps with twice `expand` channels."""
        x = self.squeeze(x)
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1)


class PocketSqueezeNet(nn.Module):
    """SqueezeNet: fire modules, and a 1×1 convolution as the classifier."""

    def __init__(self, classes: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(3, 32, kernel=3, stride=2),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(32, 16, 32),
            Fire(64, 16, 48),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(96, 32, 64),
            Fire(128, 32, 64),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(128, 48, 128),
            Fire(256, 48, 128),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.1),
            # The original has a ReLU after this convolution. A class whose scores are negative at
            # all positions then has no gradient and cannot be explained, so we omit the ReLU.
            nn.Conv2d(256, classes, kernel_size=1),
            nn.AdaptiveAvgPool2d(1),
        )
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, N×K, of normalised images, N×3×H×W."""
        return self.classifier(self.features(x)).flatten(1)


class BasicBlock(nn.Module):
    """ResNet's block, ``relu(x + f(x))``, with a 1×1 convolution of x if the shape changes.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        stride: stride of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return feature maps with `outputs` channels."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class PocketResNet(nn.Module):
    """ResNet: BatchNorm, one block per stage, global average pooling and one dense layer."""

    def __init__(self, classes: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 5, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(24, 24, stride=1))
        self.layer2 = nn.Sequential(BasicBlock(24, 48, stride=2))
        self.layer3 = nn.Sequential(BasicBlock(48, 96, stride=2))
        self.layer4 = nn.Sequential(BasicBlock(96, 112, stride=1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(112, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, N×K, of normalised images, N×3×H×W."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))
