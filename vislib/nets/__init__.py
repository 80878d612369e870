"""The networks of the course by name: EfficientNet-Lite0, small networks, and torchvision's.

    >>> from vislib import nets
    >>> model = nets.load("efficientnet_lite0")  # trained on ImageNet, installed with the course
    >>> model(torch.rand(1, 3, 224, 224)).shape
    torch.Size([1, 1000])
    >>> nets.load("emoji_vgg").classes[:2]  # trained for the course, ships with it
    ('airplane', 'bus')

Both work offline. ``nets.load("vgg19")`` gives VGG-19 with ImageNet weights, which torchvision
downloads.

Every loaded network is a `Classifier`: it takes images in [0, 1] and returns logits (class scores
before the softmax). The pocket networks are small versions of famous architectures. They keep the
parts that matter for this course: AlexNet's large first filters and overlapping pools, VGG's stacks
of 3×3 convolutions, ResNet's sums and SqueezeNet's fire modules. They were trained on Emoji COCO
(`vislib.data.emoji`) by `vislib.nets.training`.
"""

from __future__ import annotations

import pickle
import struct
import textwrap
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from vislib.core import check_logits
from vislib.data.coco import imagenet_targets
from vislib.data.emoji import NAMES as EMOJI_CLASSES
from vislib.data.pocket import NAMES as POCKET_CLASSES
from vislib.errors import InputError, nearest
from vislib.nets import efficientnet_lite
from vislib.nets.efficientnet_lite import RELEASES as LITE_NETS
from vislib.nets.pocket import (
    PocketAlexNet,
    PocketAllConv,
    PocketGAP,
    PocketGMP,
    PocketResNet,
    PocketSqueezeNet,
    PocketVGG,
)
from vislib.nets.weights import WEIGHTS, WeightsError, load_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
POCKET_SIZE = 128
"""The side of the images on which the pocket networks were trained, in pixels."""


class Normalize(nn.Module):
    """Layer ``(x - mean) / std`` of each channel, with which a model takes images in [0, 1].

    Attributes:
        mean: mean of each channel, 1×C×1×1.
        std: standard deviation of each channel, 1×C×1×1.
    """

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
        """Return the normalised images, N×3×H×W."""
        return (x - self.mean) / self.std


class Classifier(nn.Sequential):
    """Network with its normalisation in front and its class names attached.

    It takes images N×3×H×W in [0, 1] and returns N×K logits for its K classes. `model.net` is the
    network itself, so `model.net.features[3]` or `model.net.layer4` are the layers of the papers.

    Attributes:
        name: name with which `load` was called.
        classes: K class names, in the order of the logits.
        input_size: side in pixels of the square images of the training. Other sizes also work.
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


POCKET_NETS: dict[str, Callable[[int], nn.Module]] = {
    "pocket_alexnet": PocketAlexNet,
    "pocket_vgg": PocketVGG,
    "pocket_resnet": PocketResNet,
    "pocket_squeezenet": PocketSqueezeNet,
    "pocket_gap": PocketGAP,
    "pocket_gmp": PocketGMP,
    "pocket_allconv": PocketAllConv,
}
"""Functions from the number of classes to an untrained network, by the name of the network."""

EMOJI_NETS = {name.replace("pocket", "emoji"): build for name, build in POCKET_NETS.items()}
"""The same architectures, trained on the emoji scenes of `vislib.data.emoji`."""

_OURS = POCKET_NETS | EMOJI_NETS


# --- Loading --------------------------------------------------------------------------------------


@cache
def names() -> tuple[str, ...]:
    """Names for `load`: those of the course, then torchvision's convolutional classifiers."""
    from torchvision import models

    # Vision transformers are classifiers too, but not convolutional networks.
    transformers = ["vit_*", "swin_*", "maxvit_*"]
    others = models.list_models(module=models, exclude=transformers)
    return (*LITE_NETS, *POCKET_NETS, *EMOJI_NETS, *others)


class Facts(NamedTuple):
    """Facts about a network that are known before it is built.

    Attributes:
        classes: K class names, in the order of the logits.
        input_size: side in pixels of the square images for which the network was made.
    """

    classes: tuple[str, ...]
    input_size: int


def facts(name: str) -> Facts:
    """Class names and input size of a network, which is neither built nor downloaded.

    Args:
        name: one of `names()`.

    Raises:
        InputError: no network has this name; the message suggests the nearest names.

    >>> facts("emoji_vgg").input_size, len(facts("alexnet").classes)
    (128, 1000)
    >>> facts("efficientnet_lite0").classes[281:283]
    ('tabby', 'tiger cat')
    """
    if name not in names():
        raise InputError(f"there is no network called {name!r}: {nearest(name, names())}")
    if name in POCKET_NETS:
        return Facts(POCKET_CLASSES, POCKET_SIZE)
    if name in EMOJI_NETS:
        return Facts(EMOJI_CLASSES, POCKET_SIZE)
    if name in LITE_NETS:
        return Facts(facts("alexnet").classes, LITE_NETS[name].input_size)
    weights = _imagenet_weights(name)
    return Facts(tuple(weights.meta["categories"]), weights.transforms().crop_size[0])


def _imagenet_weights(name: str) -> Any:
    """torchvision's first published weights, which most papers used."""
    from torchvision import models

    enum = models.get_model_weights(name)
    return getattr(enum, "IMAGENET1K_V1", None) or next(iter(enum))


def load(
    name: str,
    *,
    device: str | torch.device = "cpu",
    weights: bool | str | Path = True,
    seed: int = 0,
) -> Classifier:
    """Load a network by its name, with its normalisation and class names.

    Args:
        name: one of `names()`: "efficientnet_lite0", "emoji_vgg", ..., "alexnet", "resnet152", ...
        device: device on which the model will be.
        weights: True for trained weights: those that ship with the course for a pocket network,
            those of the installed package for EfficientNet-Lite, torchvision's `IMAGENET1K_V1`,
            which most papers used, for all others. False for random weights. The path of a
            safetensors file that ``vislib train`` wrote, for its weights.
        seed: seed of the random weights. PyTorch's global random state is not changed.

    Returns:
        The model in evaluation mode.

    Raises:
        InputError: no network has this name; the message suggests the nearest names.
        WeightsError: the weights cannot be downloaded or read, or do not fit.

    >>> load("emoji_resnet").classes[:3]
    ('airplane', 'bus', 'train')
    """
    known = facts(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ours = name in _OURS
        make = _pocket if ours else _efficientnet_lite if name in LITE_NETS else _torchvision
        model = make(name, known, weights is True)
    if isinstance(weights, str | Path):
        load_weights(model.net, weights)
    elif weights and ours:
        load_weights(model.net, WEIGHTS / f"{name}.safetensors")
    return model.to(device).eval()


def _pocket(name: str, known: Facts, pretrained: bool) -> Classifier:
    net = _OURS[name](len(known.classes))
    return Classifier(net, name=name, **known._asdict())


def _efficientnet_lite(name: str, known: Facts, pretrained: bool) -> Classifier:
    return Classifier(
        efficientnet_lite.build(name, trained=pretrained),
        name=name,
        **known._asdict(),
        # The training had pixels from 0 to 255, and normalised them by (pixel − 127) / 128.
        normalize=Normalize((127 / 255,) * 3, (128 / 255,) * 3),
    )


def _torchvision(name: str, known: Facts, pretrained: bool) -> Classifier:
    from torchvision import models

    weights = _imagenet_weights(name)
    options: dict[str, Any] = {}
    if not pretrained and name in ("googlenet", "inception_v3"):
        # torchvision sets these when it loads weights. Without them, the network would have
        # auxiliary outputs and another normalisation.
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
            f"the ImageNet weights of {name} could not be loaded ({reason}). "
            f"The file {file} was expected in {folder}. Connect once to download it from "
            f"{weights.url}, put a copy into this folder (set TORCH_HOME to use another one), or "
            f"use a network that works offline, such as nets.load('efficientnet_lite0')."
        ) from error
    preset = weights.transforms()
    return Classifier(
        net,
        name=name,
        **known._asdict(),
        # These are ImageNet's mean and deviation for all but a few recent networks.
        normalize=Normalize(tuple(preset.mean), tuple(preset.std)),
    )


# --- Cards ----------------------------------------------------------------------------------------


def card(name: str) -> dict[str, str]:
    """Facts about a network and its weights, all as strings.

    Args:
        name: name of an EfficientNet-Lite, such as "efficientnet_lite0", or of a file of weights
            that ships with the course, without ``.safetensors``.

    Returns:
        For the course's own weights, what is stored in the file: the settings of the training
        (`vislib.nets.training.Recipe`), the accuracies, the number of parameters, the date and the
        command. For EfficientNet-Lite: the package and its licence, the file and its SHA-256, the
        published accuracy, the number of parameters and the size of the images.

    Raises:
        InputError: there is no card of this name.

    >>> card("emoji_vgg")["epochs"], card("efficientnet_lite0")["top1"]
    ('16', '0.751')
    """
    if name in LITE_NETS:
        return efficientnet_lite.card(name)
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        known = [*LITE_NETS, *sorted(file.stem for file in WEIGHTS.glob("*.safetensors"))]
        raise InputError(f"there is no card of {name!r}: {nearest(name, known)}")
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


# --- Classes and targets --------------------------------------------------------------------------


def top1(logits: Tensor, present: Tensor) -> Tensor:
    """Whether the predicted class is one of the classes in the image.

    Args:
        logits: N×K.
        present: N×K, true if the class is in the image.

    Returns:
        N booleans.

    >>> top1(torch.tensor([[0.1, 2.0], [3.0, 0.2]]), torch.tensor([[0, 1], [0, 1]])).tolist()
    [True, False]
    """
    return present.bool().gather(1, logits.argmax(1, keepdim=True)).squeeze(1)


def nth_best(logits: Tensor, n: int) -> Tensor:
    """Class with the n-th largest logit of each image.

    Args:
        logits: N×K.
        n: rank of the class, from 1 (the predicted class) to K.

    Returns:
        N class indices.

    Raises:
        ValueError: `n` is not between 1 and K, or `logits` are not N×K.

    >>> nth_best(torch.tensor([[0.1, 2.0, 1.0]]), 2).tolist()
    [2]
    """
    classes = check_logits(logits).shape[1]
    if not 1 <= n <= classes:
        raise ValueError(f"n must be from 1 (the predicted class) to {classes}, got {n}")
    return logits.topk(n, dim=1).indices[:, -1]


def best_of(candidates: Sequence[Sequence[int]]) -> Callable[[Tensor], Tensor]:
    """Function that picks, for each image, the candidate class with the highest logit.

    Args:
        candidates: for each of N images, the classes among which to choose.

    Returns:
        A function from N×K logits to N class indices. It can serve as the `target` of
        `vislib.core.one_forward`.

    >>> choose = best_of([(0, 2), (1,)])
    >>> choose(torch.tensor([[0.1, 5.0, 1.0], [9.0, 0.0, 0.0]])).tolist()
    [2, 1]
    """

    def choose(logits: Tensor) -> Tensor:
        best = [
            classes[int(row[list(classes)].argmax())]
            for row, classes in zip(logits, candidates, strict=True)
        ]
        return torch.tensor(best, device=logits.device)

    return choose


def class_targets(
    model: Classifier | Facts, class_table: str | Path | None = None
) -> dict[str, Sequence[int]]:
    """Classes of a network that show each COCO category.

    Args:
        model: network, or the `facts` about the network.
        class_table: for a network with ImageNet's 1,000 classes, a JSON file as in
            `vislib.data.coco.imagenet_targets`; by default the table of the course.

    Returns:
        Category name → class indices. In a network without ImageNet's classes, each class is a
        category of the same name.

    Raises:
        InputError: the table is missing or malformed.

    >>> class_targets(facts("emoji_vgg"))["bus"], class_targets(facts("alexnet"))["airplane"]
    ((1,), (404, 895))
    """
    if len(model.classes) == 1000:
        return dict(imagenet_targets(class_table))
    return {name: (index,) for index, name in enumerate(model.classes)}


# --- Device ---------------------------------------------------------------------------------------


def check_device(device: str) -> None:
    """Check that PyTorch can compute on a device such as "cuda", before any work is done.

    Raises:
        InputError: PyTorch cannot use `device`; the message names the devices that can be used.
    """
    try:
        torch.ones(1, device=device).sum().item()
    # The type of the exception depends on the build of PyTorch.
    except (RuntimeError, AssertionError) as error:
        usable = ["cpu"]
        usable += ["cuda"] if torch.cuda.is_available() else []
        usable += ["mps"] if torch.backends.mps.is_available() else []
        raise InputError(
            f"PyTorch cannot compute on {device!r} here: use {' or '.join(usable)}"
        ) from error
