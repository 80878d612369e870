"""Every net of the course in one name space: ours, small and shipped, and torchvision's.

    >>> from vislib import nets
    >>> model = nets.load("pocket_vgg")            # shipped with the course, works offline
    >>> model = nets.load("vgg19")                 # ImageNet weights, downloaded by torchvision

Whatever is loaded is a `Classifier`: pictures in [0, 1] go in, logits (class scores before the
softmax) come out. The pocket nets are small versions of the originals which keep what matters for
looking inside: AlexNet's large first filters and overlapping pools, VGG's 3×3 stacks, ResNet's
sums, SqueezeNet's fire modules. They were trained on Pocket COCO (`vislib.pocket`) by
`vislib.training`.
"""

from __future__ import annotations

import pickle
import struct
import textwrap
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vislib import pocket
from vislib.errors import InputError, nearest
from vislib.paths import DATA

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
POCKET_CLASSES = pocket.NAMES
POCKET_SIZE = 128
WEIGHTS = DATA / "nets"


class WeightsError(InputError):
    """Weights that cannot be had or do not fit; the message says what to do."""


class Normalize(nn.Module):
    """`(x - mean) / std` per channel, so that everything outside the model lives in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The normalised pictures, N×3×H×W."""
        return (x - self.mean) / self.std


class Classifier(nn.Sequential):
    """A net with its normalisation in front and its class names attached.

    Input N×3×H×W in [0, 1], output N×len(classes) logits. `model.net` is the net itself, so that
    `model.net.features[3]` or `model.net.layer4` is what the literature means by it.

    Attributes:
        name: what `load` was called with.
        classes: the class names, in the order of the logits.
        input_size: the side in pixels the net was trained for; other sizes work too.
    """

    normalize: Normalize
    net: nn.Module

    def __init__(
        self,
        net: nn.Module,
        *,
        name: str,
        classes: tuple[str, ...],
        input_size: int,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__(OrderedDict(normalize=normalize or Normalize(), net=net))
        self.name = name
        self.classes = classes
        self.input_size = input_size


# --- The pocket nets -------------------------------------------------------------------------


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


POCKET_NETS: dict[str, Callable[[int], nn.Module]] = {
    "pocket_alexnet": PocketAlexNet,
    "pocket_vgg": PocketVGG,
    "pocket_resnet": PocketResNet,
    "pocket_squeezenet": PocketSqueezeNet,
    "pocket_gap": PocketGAP,
    "pocket_gmp": PocketGMP,
    "pocket_allconv": PocketAllConv,
}


# --- Loading ---------------------------------------------------------------------------------


@cache
def names() -> tuple[str, ...]:
    """All names that `load` knows: the pocket nets, then torchvision's classification CNNs."""
    from torchvision import models

    # Vision transformers are classifiers too, but they are not what this course looks into.
    transformers = ["vit_*", "swin_*", "maxvit_*"]
    return (*POCKET_NETS, *models.list_models(module=models, exclude=transformers))


def load(
    name: str,
    *,
    device: str | torch.device = "cpu",
    weights: bool | str | Path = True,
    seed: int = 0,
) -> Classifier:
    """A net by its name, in eval mode, with its normalisation and class names.

    Args:
        name: one of `names()`: "pocket_vgg", ..., "alexnet", "resnet152", "squeezenet1_0", ...
        device: where the model is put.
        weights: True for trained weights (shipped for pocket nets; torchvision's
            `IMAGENET1K_V1`, which the literature used, for the others), False for random ones,
            or the path of a safetensors file that `vislib train` wrote.
        seed: of the random weights; the global random state is left as it was.

    Raises:
        InputError: for a name that does not exist, with the nearest ones.
        WeightsError: where weights cannot be downloaded, read or do not fit.
    """
    if name not in names():
        raise InputError(f"there is no net called {name!r}: {nearest(name, names())}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _pocket(name) if name in POCKET_NETS else _torchvision(name, weights is True)
    if isinstance(weights, str | Path):
        load_weights(model.net, weights)
    elif weights and name in POCKET_NETS:
        load_weights(model.net, WEIGHTS / f"{name}.safetensors")
    return model.to(device).eval()


def _pocket(name: str) -> Classifier:
    net = POCKET_NETS[name](len(POCKET_CLASSES))
    return Classifier(net, name=name, classes=POCKET_CLASSES, input_size=POCKET_SIZE)


def _torchvision(name: str, pretrained: bool) -> Classifier:
    from torchvision import models

    enum = models.get_model_weights(name)
    weights = getattr(enum, "IMAGENET1K_V1", None) or next(iter(enum))
    options: dict[str, Any] = {}
    if not pretrained and name in ("googlenet", "inception_v3"):
        # What torchvision sets itself when it loads weights: the same net, with no side outputs.
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    try:
        net = models.get_model(name, weights=weights if pretrained else None, **options)
    except (
        OSError,
        RuntimeError,
        EOFError,
        TypeError,
        ValueError,
        struct.error,
        pickle.UnpicklingError,
    ) as error:
        reason = textwrap.shorten(str(error), 200)
        file = weights.url.rsplit("/", 1)[-1]
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"The ImageNet weights of {name} could not be loaded ({reason}). "
            f"They are the file {file}, expected in {folder}. Connect once to download it from "
            f"{weights.url}, or put a copy there (set TORCH_HOME to use another folder), or use "
            f"a net that ships with the course, such as nets.load('pocket_vgg')."
        ) from error
    preset = weights.transforms()
    return Classifier(
        net,
        name=name,
        classes=tuple(weights.meta["categories"]),
        input_size=preset.crop_size[0],
        # ImageNet's mean and deviation for every net of the course; a few recent ones differ.
        normalize=Normalize(tuple(preset.mean), tuple(preset.std)),
    )


def load_weights(net: nn.Module, path: str | Path) -> None:
    """Fill a net with the tensors of a safetensors file, after checking that they fit exactly.

    A pickle (.pt, .pth) is refused, never opened: unpickling runs code of whoever wrote the file.

    Raises:
        WeightsError: the file is missing, no safetensors file, truncated, or does not fit `net`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
        tensors = load_file(path)
    except SafetensorError as error:
        # Safetensors begin with eight bytes of length, whatever they are, and then a JSON object.
        if head.startswith((b"PK", b"\x80")) and not head.endswith(b"{"):
            raise WeightsError(
                f"{path.name} is a pickle (.pt or .pth), which can run code when it is opened. "
                "Load it where you trust it and save it with safetensors.torch.save_file."
            ) from error
        raise WeightsError(
            f"{path.name} is no complete safetensors file ({error}). Copy or train it again."
        ) from error
    except OSError as error:
        raise WeightsError(
            f"The weights {path} cannot be read ({error.strerror}). "
            f"Shipped weights lie in {WEIGHTS}; `vislib train {path.stem}` makes them again."
        ) from error
    _check_fit(net.state_dict(), tensors, path.name)
    net.load_state_dict(tensors)


def _check_fit(wanted: dict[str, Tensor], found: dict[str, Tensor], file: str) -> None:
    problems = [f"{key} is missing" for key in wanted.keys() - found.keys()]
    problems += [f"{key} is not in the net" for key in found.keys() - wanted.keys()]
    for key in wanted.keys() & found.keys():
        if wanted[key].shape != found[key].shape:
            problems.append(f"{key} is {list(found[key].shape)}, not {list(wanted[key].shape)}")
        elif not found[key].isfinite().all():
            problems.append(f"{key} holds NaN or infinity")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(
            f"{file} does not fit this net: {'; '.join(sorted(problems)[:3])}{more}. "
            "Was it made for another net?"
        )


def card(name: str) -> dict[str, str]:
    """What is recorded in a pocket net's weights: seed, epochs, accuracies, date, command."""
    from safetensors import safe_open

    with safe_open(WEIGHTS / f"{name}.safetensors", framework="pt") as file:
        return dict(file.metadata() or {})


def top1(logits: Tensor, present: Tensor) -> Tensor:
    """Whether the first class is one of those in the picture.

    Args:
        logits: N×C.
        present: N×C, true where the class is in the picture.

    Returns:
        N booleans.
    """
    return present.bool().gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
