"""Training of the pocket networks on Pocket COCO: seeded, resumable, in minutes on a laptop.

A scene shows up to four categories, but a classifier predicts one class. The target of the softmax
cross-entropy is therefore spread evenly over the categories in the scene, and a prediction is
correct if the predicted class is one of them (`vislib.nets.top1`).

AlexNet, VGG and SqueezeNet have no BatchNorm and learn slowly without it: the originals were
trained for days or weeks. We train them with a BatchNorm after each convolution of `features`. In
evaluation mode BatchNorm is linear, so after the training it is folded into the convolution before
it (`fuse_norms`). The networks that ship therefore have the original architecture.
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import io
import json
import math
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vislib import attacks, nets
from vislib.core import frozen
from vislib.data import pocket
from vislib.errors import InputError
from vislib.nets import check_device
from vislib.paths import DATA, write_whole

# The seed of the scenes on which the accuracy is measured, far from the seeds of trainings.
UNSEEN = 1_000_000

BATCH = 32

# The side of most training scenes, and of those for batches of large images, in pixels. Enlarged
# small scenes would be blurred, and a network trained on them would fail on sharp large images.
SMALL, LARGE = 128, 384
PEAK_RATE = 2e-3

# Steps of PGD per batch in adversarial training, from a random start.
ATTACK_STEPS = 2

# The number of convolutions that a snapshot keeps, from the image on.
SNAPSHOT_LAYERS = 2

# The fields of a recipe that a card always records.
_BASIC = ("name", "epochs", "scenes", "seed", "bfloat16")


# --- Recipe ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """Settings of a training, which are also stored with the weights.

    Attributes:
        name: one of `nets.POCKET_NETS`.
        epochs: number of passes over the scenes, at least 1.
        scenes: number of training scenes of 128×128 pixels (`pocket.training_scenes`), at least 1.
            A quarter as many scenes of 384×384 pixels are added for the batches of large images.
        seed: seed of the weights, the scenes and the order of the batches.
        bfloat16: whether to multiply in bfloat16. This halves the time on processors that support
            the type, and takes far longer on others. The weights stay in float32.
        first_scale: factor on the random initial weights of the first convolution. The BatchNorm
            after this convolution removes the factor again, so the initial logits do not change.
            With a small factor, what is learnt soon exceeds the initial weights, so that the
            patterns of the filters are visible.
        start: file of weights from which to continue, at a quarter of the learning rate; by default
            random weights.
        adversarial: if above 0, every batch is attacked before the network learns from it. The
            attack changes each value by at most this many grey levels of 255 (Madry et al. 2018,
            "Towards Deep Learning Models Resistant to Adversarial Attacks"; see `vislib.attacks`).
        snapshots: epochs after which to keep the first layers; 0 means before the training. The
            file then contains these layers, for the function `snapshots`, and not the network.

    Raises:
        ValueError: `name` is not a pocket network, `epochs` or `scenes` is below 1, `adversarial`
            is outside [0, 255], `first_scale` is not positive and finite, or `seed` is negative; or
            a snapshot is not an epoch of the training, or the network has no `features`.

    >>> Recipe("pocket_vgg", epochs=4, adversarial=2).command
    'vislib train pocket_vgg --epochs 4 --scenes 9000 --seed 0 --adversarial 2'
    """

    name: str
    epochs: int = 32
    scenes: int = 9000
    seed: int = 0
    bfloat16: bool = False
    first_scale: float = 1.0
    start: str | Path | None = None
    adversarial: float = 0.0
    snapshots: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Check the values, and sort the snapshots."""
        if self.name not in nets.POCKET_NETS:
            raise ValueError(
                f"name must be one of {', '.join(nets.POCKET_NETS)}, got {self.name!r}"
            )
        if self.epochs < 1 or self.scenes < 1:
            raise ValueError(
                f"epochs and scenes must be at least 1, got {self.epochs} and {self.scenes}"
            )
        object.__setattr__(self, "snapshots", tuple(sorted(self.snapshots)))
        if self.snapshots and not 0 <= self.snapshots[0] <= self.snapshots[-1] <= self.epochs:
            raise ValueError(
                f"snapshots must be among the epochs 0 to {self.epochs}, got {list(self.snapshots)}"
            )
        if not 0 <= self.adversarial <= 255:
            raise ValueError(
                f"adversarial must be between 0 and 255 grey levels, got {self.adversarial}"
            )
        if not 0 < self.first_scale < math.inf:
            raise ValueError(f"first_scale must be positive and finite, got {self.first_scale}")
        if self.snapshots:
            # A network without `features` raises an error now, and not after the training.
            _first_layers(nets.load(self.name, weights=False))
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")

    def settings(self) -> dict[str, Any]:
        """Fields for card and checkpoint: those of `_BASIC`, and all others that are set."""
        settings: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _BASIC or value != field.default:
                settings[field.name] = value
        if self.start:
            settings["start"] = Path(self.start).stem
        if self.snapshots:
            settings["snapshots"] = list(self.snapshots)
        return settings

    @property
    def command(self) -> str:
        """Command that repeats the training."""
        words = ["vislib", "train", self.name]
        for name, value in self.settings().items():
            if name != "name" and value is not False:
                words.append(f"--{name.replace('_', '-')}")
                values = [] if value is True else value if isinstance(value, list) else [value]
                words += [
                    f"{item:.12g}" if isinstance(item, float) else str(item) for item in values
                ]
        return " ".join(words)


# --- Training -------------------------------------------------------------------------------------


def train(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> dict[str, str]:
    """Train a pocket network, measure its accuracy, and write its weights.

    After every epoch, a checkpoint is written into the folder of the weights. After an
    interruption, the same call continues from the checkpoint and ends with the same weights, bit
    for bit on the same machine, because the random numbers of an epoch depend only on (seed,
    epoch). A checkpoint of another recipe is not used. Delete the checkpoint to start again.

    Args:
        recipe: settings of the training.
        out: safetensors file to write; by default the one that ships with the course.
        device: device on which to train.
        progress: whether to show progress bars.

    Returns:
        The card, which is also stored in the file: the recipe, the accuracies of `measure`, the
        number of parameters, the date and the command.

    Raises:
        InputError: PyTorch cannot compute on `device`, `out` or the checkpoint cannot be used, or
            the loss is no longer finite. In these cases no weights are written.
    """
    check_device(str(device))
    path = _output_file(recipe, out)
    checkpoint = path.with_suffix(".checkpoint")
    settings = recipe.settings()
    kept: dict[str, Any] = {"tensors": {}, "card": {}}

    streams = {
        SMALL: cached_scenes(recipe.scenes, recipe.seed, progress=progress),
        LARGE: cached_scenes(math.ceil(recipe.scenes / 4), recipe.seed, LARGE, progress=progress),
    }
    model = _initial_model(recipe, device)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    first = _restore(checkpoint, settings, model.net, optimiser, kept)
    if first == 0 and 0 in recipe.snapshots:
        _keep(kept, model, 0, progress)
    for epoch in range(first, recipe.epochs):
        with torch.random.fork_rng():
            _epoch(model, optimiser, streams, epoch, recipe, progress)
        if epoch + 1 in recipe.snapshots:
            _keep(kept, model, epoch + 1, progress)
        _save(checkpoint, settings, model.net, optimiser, epoch + 1, kept)

    fuse_norms(model.eval().net)
    card = settings | measure(model, progress=progress) | kept["card"]
    card["parameters"] = sum(p.numel() for p in model.parameters())
    card["date"] = datetime.date.today().isoformat()
    card["command"] = recipe.command
    texts = {key: str(value) for key, value in card.items()}
    _write(path, kept["tensors"] or model.net.state_dict(), texts)
    checkpoint.unlink(missing_ok=True)
    return texts


def _output_file(recipe: Recipe, out: str | Path | None) -> Path:
    """File for the weights, in a folder that exists and can be written to."""
    path = Path(out) if out else _default_path(recipe.name, recipe.snapshots, recipe.adversarial)
    if path.is_dir() or path.suffix in (".checkpoint", ".part"):
        raise InputError(
            f"{path} cannot be the file of weights: give a path like {recipe.name}.safetensors"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder that cannot be written to raises an error now, and not after hours of training.
    path.with_suffix(".part").touch()
    path.with_suffix(".part").unlink()
    return path


def _initial_model(recipe: Recipe, device: str | torch.device) -> nets.Classifier:
    """Network before the training, with BatchNorm unless it continues from trained weights."""
    model = nets.load(recipe.name, weights=recipe.start or False, seed=recipe.seed, device=device)
    if not recipe.start:
        add_norms(model.net)
    with torch.no_grad():
        first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
        first.weight.mul_(recipe.first_scale)
    return model.to(memory_format=torch.channels_last).to(device)


# --- BatchNorm ------------------------------------------------------------------------------------


def add_norms(net: nn.Module) -> None:
    """Insert a BatchNorm between each convolution of a network's `features` and its ReLU, in place.

    A network without a part `features`, such as ResNet, is not changed. Ioffe & Szegedy 2015,
    "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift".
    """
    for stack in _feature_stacks(net):
        for index, (layer, after) in enumerate(pairwise(list(stack))):
            if isinstance(layer, nn.Conv2d) and isinstance(after, nn.ReLU):
                stack[index] = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels))


def fuse_norms(net: nn.Module) -> None:
    """Fold each BatchNorm of `add_norms` into the convolution before it, in place.

    The network computes the same function as before. It must be in evaluation mode, where BatchNorm
    is a fixed scale and shift of each channel.

    >>> model = nets.load("pocket_vgg", weights=False)
    >>> x = torch.rand(1, 3, 64, 64)
    >>> add_norms(model.net)
    >>> with torch.no_grad():
    ...     before = model.eval()(x)
    ...     fuse_norms(model.net)
    ...     torch.allclose(model(x), before, atol=1e-5)
    True
    """
    for stack in _feature_stacks(net):
        for index, layer in enumerate(list(stack)):
            match list(layer.children()):
                case [nn.Conv2d() as conv, nn.BatchNorm2d() as norm]:
                    stack[index] = fuse_conv_bn_eval(conv, norm)


def _feature_stacks(net: nn.Module) -> list[nn.Sequential]:
    features = getattr(net, "features", nn.Sequential())
    return [module for module in features.modules() if isinstance(module, nn.Sequential)]


# --- One epoch ------------------------------------------------------------------------------------


def _epoch(
    model: nets.Classifier,
    optimiser: torch.optim.Optimizer,
    streams: dict[int, tuple[np.ndarray, np.ndarray]],
    epoch: int,
    recipe: Recipe,
    progress: bool,
) -> None:
    """Train for one pass over the scenes, whose order and changes depend only on (seed, epoch)."""
    from tqdm.auto import tqdm

    epochs = recipe.epochs
    rng = np.random.default_rng([recipe.seed, epoch])
    # Dropout takes its random numbers from PyTorch's global generator.
    torch.manual_seed(int(rng.integers(2**31)))
    model.train()
    device = model.normalize.mean.device
    scenes = len(streams[SMALL][0])
    batches = np.array_split(rng.permutation(scenes), math.ceil(scenes / BATCH))
    bar = tqdm(batches, desc=f"{model.name} {epoch + 1}/{epochs}", disable=not progress)
    average = 0.0
    for step, batch in enumerate(bar):
        rate = _rate((epoch + step / len(batches)) / epochs) * (0.25 if recipe.start else 1)
        for group in optimiser.param_groups:
            group["lr"] = rate
        size = _size(rng, epoch / epochs)
        images, labels = streams[SMALL]
        if max(size) > 1.2 * SMALL:
            images, labels = streams[LARGE]
            # At a large size, a batch has fewer images, which cost about as much as the small ones.
            count = max(4, BATCH * SMALL**2 // math.prod(size))
            batch = rng.choice(len(images), min(count, len(images)), replace=False)
        batch = np.sort(batch)
        x = _augmented(rng, torch.from_numpy(images[batch]).to(device), size)
        present = torch.from_numpy(labels[batch]).to(device, torch.float32)
        target = present / present.sum(1, keepdim=True)
        if recipe.adversarial:
            x = _attacked(model, x, target, recipe, int(rng.integers(2**31)))
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), target)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average += (loss.item() - average) / (step + 1)
        if not math.isfinite(average):
            raise InputError(
                f"the loss of {model.name} is {average} in epoch {epoch + 1}: the training has "
                "failed, and nothing was written; try another seed or other settings"
            )
        bar.set_postfix(loss=f"{average:.3f}")


def _attacked(
    model: nets.Classifier, x: Tensor, target: Tensor, recipe: Recipe, seed: int
) -> Tensor:
    """Batch with an adversarial perturbation, by PGD, that raises its loss."""

    def loss(y: Tensor) -> Tensor:
        with torch.autocast(y.device.type, torch.bfloat16, enabled=recipe.bfloat16):
            logits = model(y)
        return F.cross_entropy(logits.float(), target, reduction="none")

    with frozen(model):
        return attacks.projected_gradient_ascent(
            loss,
            x,
            epsilon=recipe.adversarial / 255,
            steps=ATTACK_STEPS,
            random_start=True,
            generator=torch.Generator().manual_seed(seed),
        )


def _rate(done: float) -> float:
    """Learning rate when a fraction `done` of the training is over: warm-up, then cosine."""
    warm_up = 0.06
    if done < warm_up:
        return PEAK_RATE * (0.02 + 0.98 * done / warm_up)
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


def _size(rng: np.random.Generator, done: float) -> tuple[int, int]:
    """Height and width of the images of a batch, when a fraction `done` of the training is over.

    After a training on many sizes, a network works on large images as well as on small ones. Small
    sizes come first, because they take less time. In the last quarter of the training, half of the
    sizes are near the input size of the network (Touvron et al. 2019, "Fixing the train-test
    resolution discrepancy").
    """
    sides: tuple[int, ...] = (96, 128, 192, 256, 320, 384, 448)
    if done < 0.5:
        sides = (64, 96, 96, 128)
    elif done > 0.75:
        sides = (112, 128, 144) if rng.random() < 0.5 else (224, 256, 320, 384, 448)
    side = int(rng.choice(sides))
    other = round(side * rng.choice([3 / 4, 1, 1, 4 / 3]))
    return (side, other) if rng.random() < 0.5 else (other, side)


def _augmented(rng: np.random.Generator, images: Tensor, size: tuple[int, int]) -> Tensor:
    """Mirror, crop, stretch, resize and brighten a batch: N×H×W×3 bytes to N×3×h×w in [0, 1]."""
    x = images.permute(0, 3, 1, 2).float() / 255
    mirrored = torch.from_numpy(rng.random(len(x)) < 0.5).to(x.device)
    x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    height, width = np.round(rng.uniform(0.88, 1, 2) * x.shape[2:]).astype(int)
    top, left = rng.integers(x.shape[2] - height + 1), rng.integers(x.shape[3] - width + 1)
    x = x[..., top : top + height, left : left + width]
    # Without the low-pass filter, a reduced image would alias, and a stored one does not.
    x = F.interpolate(x, size, mode="bilinear", antialias=min(size) < min(height, width))
    light = rng.uniform(0.8, 1.15, (len(x), 1, 1, 1)).astype(np.float32)
    x = (x * torch.from_numpy(light).to(x.device)).clamp(0, 1)
    return x.contiguous(memory_format=torch.channels_last)


# --- Measuring ------------------------------------------------------------------------------------


def measure(
    model: nets.Classifier, *, scenes: int = 1000, progress: bool = False
) -> dict[str, Any]:
    """Accuracies of a pocket network, between 0 and 1, on scenes that it was not trained on.

    A prediction is correct if the scene shows the predicted class.

    Args:
        model: takes N×3×H×W in [0, 1] and returns N×K logits.
        scenes: number of new scenes.
        progress: whether to show progress bars.

    Returns:
        ``unseen``: on new scenes of 128×128 pixels; ``unseen_single``: on those new scenes that
        have one category; ``unseen_objects``: on scenes of 128×128 pixels with one object each that
        no training scene shows; ``val``: on the shipped split, squashed to 128×128;
        ``val_original``: on the shipped split at its original sizes.
    """
    images, labels = cached_scenes(scenes, UNSEEN, progress=progress)
    correct = _correct(model, images, labels)
    single = labels.sum(1) == 1
    unknown = cached_scenes(scenes // 2, UNSEEN, objects="held out", progress=progress)
    squashed, original = [], []
    for image, label in val_scenes():
        small = Image.fromarray(image).resize((nets.POCKET_SIZE, nets.POCKET_SIZE))
        squashed.append(_correct(model, np.asarray(small)[None], label[None])[0])
        original.append(_correct(model, image[None], label[None])[0])
    return {
        "unseen": round(float(correct.mean()), 4),
        "unseen_single": round(float(correct[single].mean()), 4),
        "unseen_objects": round(float(_correct(model, *unknown).mean()), 4),
        "val": round(float(np.mean(squashed)), 4),
        "val_original": round(float(np.mean(original)), 4),
    }


def _correct(model: nets.Classifier, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each scene shows the predicted class: N booleans from N×H×W×3 bytes, N×K labels."""
    device = model.normalize.mean.device
    found = []
    for start in range(0, len(images), 100):
        x = torch.tensor(images[start : start + 100], device=device)
        with torch.no_grad():
            logits = model(x.permute(0, 3, 1, 2).float() / 255)
        found.append(nets.top1(logits.cpu(), torch.tensor(labels[start : start + 100])).numpy())
    return np.concatenate(found)


def val_scenes(folder: Path = DATA / "pocket_coco") -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the scenes of the shipped split ``val``, one after the other.

    Yields:
        The image, H×W×3 bytes, and its labels, K bytes: 1 for each category present. A crowd
        counts as present, as in the training; `Coco.objects` ignores crowds.
    """
    text = (folder / "annotations" / "instances_val.json").read_text(encoding="utf-8")
    content = json.loads(text)
    ids = [category.id for category in pocket.CATEGORIES]
    labels = {image["id"]: np.zeros(len(ids), np.uint8) for image in content["images"]}
    for annotation in content["annotations"]:
        labels[annotation["image_id"]][ids.index(annotation["category_id"])] = 1
    for image in content["images"]:
        with Image.open(folder / "val" / image["file_name"]) as opened:
            yield np.asarray(opened.convert("RGB")), labels[image["id"]]


def cached_scenes(
    scenes: int,
    seed: int,
    size: int = SMALL,
    *,
    objects: Literal["training", "held out"] = "training",
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Training scenes from a cache in the temporary folder of the system, filled if necessary.

    The name of the files contains a digest of the first scenes, so a changed generator makes new
    files.

    Args:
        scenes: number of scenes.
        seed: seed of `pocket.training_scenes`.
        size: side in pixels.
        objects: as in `pocket.training_scenes`.
        progress: whether to show a progress bar while scenes are made.

    Returns:
        The images, N×size×size×3 bytes, and the labels, N×K, as from `pocket.training_scenes`.
    """
    first, _ = pocket.training_scenes(min(scenes, 8), size, seed, objects=objects)
    digest = hashlib.sha256(first.tobytes()).hexdigest()[:12]
    # All users share the temporary folder, but nobody can write to the files of other users.
    user = getattr(os, "getuid", int)()
    folder = Path(tempfile.gettempdir()) / f"vislib-{user}"
    folder.mkdir(exist_ok=True)
    stem = f"scenes-{scenes}-{size}-{seed}-{digest}"
    paths = [folder / f"{stem}-{content}.npy" for content in ("images", "labels")]
    if not all(path.is_file() for path in paths):
        arrays = pocket.training_scenes(scenes, size, seed, objects=objects, progress=progress)
        for path, array in zip(paths, arrays, strict=True):
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                np.save(file, array)
            Path(file.name).replace(path)
    return np.load(paths[0], mmap_mode="r"), np.load(paths[1])


# --- Snapshots ------------------------------------------------------------------------------------


def snapshots(name: str, path: str | Path | None = None) -> dict[int, nn.Sequential]:
    """Load the first layers of a network as they were after some epochs of its training.

    Args:
        name: name of a pocket network with a part `features`.
        path: file that ``vislib train NAME --snapshots …`` wrote; by default the shipped one.

    Returns:
        Epoch → model. A model takes images N×3×H×W in [0, 1] and ends with the ReLU after the last
        convolution that was kept. Its layers are named as in the network (``features.0`` …).

    Raises:
        InputError: the file is missing, or contains other layers.

    >>> models = snapshots("emoji_alexnet")
    >>> list(models)
    [0, 1, 2, 4, 16]
    >>> models[16](torch.rand(1, 3, 64, 64)).shape[1]
    64
    """
    file = Path(path) if path else _default_path(name, [0])
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"the snapshots {file} cannot be read ({error}); "
            f"`vislib train {name} --snapshots 0 1 2` makes some"
        ) from error
    models = {}
    epochs = {key.split(".")[0] for key in tensors}
    if not all(epoch.isdecimal() for epoch in epochs):
        raise InputError(
            f"{file.name} contains no snapshots; `vislib train {name} --snapshots 0 1 2` makes some"
        )
    for epoch in sorted(map(int, epochs)):
        prefix = f"{epoch}."
        model = _first_layers(nets.load(name, weights=False))
        state = {
            k.removeprefix(prefix): t.float() for k, t in tensors.items() if k.startswith(prefix)
        }
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(f"{file.name} does not fit {name}: {error}") from error
        models[epoch] = model.eval()
    return models


def _default_path(name: str, snapshots: Sequence[int], adversarial: float = 0) -> Path:
    kind = "_epochs" if snapshots else "_robust" if adversarial else ""
    return nets.WEIGHTS / f"{name}{kind}.safetensors"


def _keep(kept: dict[str, Any], model: nets.Classifier, epoch: int, progress: bool) -> None:
    """Add a snapshot of the first layers, in half precision, and the network's accuracy."""
    fused = copy.deepcopy(model).eval()
    fuse_norms(fused.net)
    for key, value in _first_layers(fused).state_dict().items():
        kept["tensors"][f"{epoch}.{key}"] = value.half().cpu()
    kept["card"][f"unseen_{epoch}"] = measure(fused, progress=progress)["unseen"]


def _first_layers(model: nets.Classifier) -> nn.Sequential:
    """Network up to the ReLU after the last convolution that a snapshot keeps."""
    features = getattr(model.net, "features", None)
    if features is None:
        raise ValueError(f"{model.name} has no part `features`: its first layers cannot be kept")
    convolutions = [i for i, layer in enumerate(features) if isinstance(layer, nn.Conv2d)]
    end = convolutions[SNAPSHOT_LAYERS - 1] + 2
    return nn.Sequential(OrderedDict(normalize=model.normalize, features=features[:end]))


# --- Files ----------------------------------------------------------------------------------------


def _save(
    path: Path,
    settings: dict[str, Any],
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    epoch: int,
    kept: dict[str, Any] | None = None,
) -> None:
    state = {"settings": settings, "epoch": epoch, "net": net.state_dict()}
    state |= {"optimiser": optimiser.state_dict(), "kept": kept or {}}
    # torch.save reports a full disk by another exception than OSError, so it writes to memory.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(path, buffer.getvalue())


def _restore(
    path: Path,
    settings: dict[str, Any],
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    kept: dict[str, Any] | None = None,
) -> int:
    """Load a checkpoint of the same settings, and return the number of finished epochs, or 0.

    The snapshots made so far are added to `kept`.
    """
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        same = state["settings"] == settings
    except Exception as error:  # PyTorch reports damage by a dozen types.
        raise InputError(
            f"{path} is damaged or not a checkpoint: delete it to start again"
        ) from error
    if not same:
        return 0
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    if kept is not None:
        kept.update(state["kept"])
    return int(state["epoch"])


def _write(path: Path, weights: dict[str, Tensor], card: dict[str, str]) -> None:
    tensors = {key: value.cpu().contiguous() for key, value in weights.items()}
    write_whole(path, save(tensors, metadata=card))
