"""Every net of the course in one name space: ours, small and shipped, and torchvision's.

    >>> from vislib import nets
    >>> model = nets.load("pocket_vgg")            # shipped with the course, works offline
    >>> model = nets.load("vgg19")                 # ImageNet weights, downloaded by torchvision

Whatever is loaded is a `Classifier`: pictures in [0, 1] go in, logits (class scores before the
softmax) come out. The pocket nets are small versions of the originals which keep what matters for
looking inside: AlexNet's large first filters and overlapping pools, VGG's 3×3 stacks, ResNet's
sums, SqueezeNet's fire modules. They were trained on Pocket COCO (`vislib.data.pocket`) by
`vislib.nets.training`.
"""

from __future__ import annotations

import pickle
import struct
import textwrap
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vislib.core import check_logits
from vislib.data.coco import imagenet_targets
from vislib.data.pocket import NAMES
from vislib.errors import InputError, nearest
from vislib.nets.pocket import (
    PocketAlexNet,
    PocketAllConv,
    PocketGAP,
    PocketGMP,
    PocketResNet,
    PocketSqueezeNet,
    PocketVGG,
)
from vislib.paths import DATA

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
POCKET_CLASSES = NAMES
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


def nth_best(logits: Tensor, n: int) -> Tensor:
    """The class with the n-th largest logit of each image, N×K to N; 1 is the winner.

    ``ValueError`` where there is no such class.
    """
    classes = check_logits(logits).shape[1]
    if not 1 <= n <= classes:
        raise ValueError(f"of {classes} classes, n can be 1 (the best) to {classes}, got {n}")
    return logits.topk(n, dim=1).indices[:, -1]


def best_of(candidates: Sequence[Sequence[int]]) -> Callable[[Tensor], Tensor]:
    """A function from N×K logits to N classes: for each image the best of its candidates."""

    def choose(logits: Tensor) -> Tensor:
        best = [
            classes[int(row[list(classes)].argmax())]
            for row, classes in zip(logits, candidates, strict=True)
        ]
        return torch.tensor(best, device=logits.device)

    return choose


def class_targets(
    model: Classifier, class_table: str | Path | None = None
) -> dict[str, Sequence[int]]:
    """The net's own classes for each COCO category: by name, or for ImageNet's classes by table."""
    if len(model.classes) == 1000:
        return dict(imagenet_targets(class_table))
    return {name: (index,) for index, name in enumerate(model.classes)}


def check_device(device: str) -> None:
    """`InputError` where PyTorch cannot compute on the device, before any work is done."""
    try:
        torch.ones(1, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:  # which of them depends on PyTorch's build
        usable = ["cpu"]
        usable += ["cuda"] if torch.cuda.is_available() else []
        usable += ["mps"] if torch.backends.mps.is_available() else []
        raise InputError(
            f"PyTorch cannot compute on {device!r} here: use {' or '.join(usable)}"
        ) from error
