"""The architectures of the course networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _initialise(net: nn.Module) -> None:
    """Kaiming's initialisation (He et al. 2015), which lets deep ReLU nets train unnormalised."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size (up to its stride), and its ReLU."""
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
    """AlexNet (Krizhevsky 2012): a large strided first filter, overlapping pools, dropout."""

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
        # The original's dense layers see a grid of positions, and learn each class at each of
        # them, which takes a million pictures. Ours see the mean over the positions.
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
        """Logits, N×classes."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class PocketVGG(nn.Module):
    """VGG (Simonyan & Zisserman 2014): nothing but 3×3 convolutions, five pools, dense layers."""

    def __init__(self, classes: int = 16) -> None:
        super().__init__()
        self.features = _vgg_features("16 M 32 M 48 M 64 64 M 96 96 M")
        self.avgpool = nn.AdaptiveAvgPool2d(1)  # see PocketAlexNet
        self.classifier = nn.Sequential(
            nn.Linear(96, 128),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            nn.Linear(128, classes),
        )
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, N×classes."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class PocketGAP(nn.Module):
    """A net made for class activation maps (Zhou 2016): convolutions, global mean, one layer."""

    def __init__(self, classes: int = 16) -> None:
        super().__init__()
        self.features = _vgg_features("16 M 32 M 48 M 64 64 M 96 128")
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, N×classes."""
        return self.fc(self.avgpool(self.features(x)).flatten(1))


class PocketGMP(nn.Module):
    """The twin of PocketGAP that keeps only the strongest place of each map (Oquab 2015)."""

    def __init__(self, classes: int = 16) -> None:
        super().__init__()
        self.features = _vgg_features("16 M 32 M 48 M 64 64 M 96 128")
        self.maxpool = nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(128, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, N×classes."""
        return self.fc(self.maxpool(self.features(x)).flatten(1))


class PocketAllConv(nn.Module):
    """The all-convolutional net (Springenberg 2015): strided convolutions in place of pools."""

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
        """Logits, N×classes."""
        return self.classifier(self.features(x)).flatten(1)


class Fire(nn.Module):
    """SqueezeNet's module: few 1×1 filters, then 1×1 and 3×3 filters side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(*_conv(inputs, squeeze, kernel=1))
        self.expand1x1 = nn.Sequential(*_conv(squeeze, expand, kernel=1))
        self.expand3x3 = nn.Sequential(*_conv(squeeze, expand, kernel=3))

    def forward(self, x: Tensor) -> Tensor:
        """Maps of twice `expand` channels."""
        x = self.squeeze(x)
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1)


class PocketSqueezeNet(nn.Module):
    """SqueezeNet (Iandola 2016): fire modules, and a 1×1 convolution that is the classifier."""

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
            # The original has a ReLU here, and so no gradient for a class whose scores are all
            # negative: nothing to explain. Ours lets scores be negative.
            nn.Conv2d(256, classes, kernel_size=1),
            nn.AdaptiveAvgPool2d(1),
        )
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, N×classes."""
        return self.classifier(self.features(x)).flatten(1)


class BasicBlock(nn.Module):
    """ResNet's block: `relu(x + f(x))`, with a 1×1 convolution on x where the shape changes."""

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
        """Maps of `outputs` channels."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class PocketResNet(nn.Module):
    """ResNet (He 2015) with BatchNorm, one block per stage, global mean and one dense layer."""

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
        """Logits, N×classes."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))
