"""Training of the pocket nets on Pocket COCO: seeded, resumable, a few minutes each on a laptop.

A picture has up to four categories in it, and a classifier one answer. The target of the softmax
cross-entropy is therefore spread evenly over the categories present, and an answer is right when
the first class is one of them (`vislib.nets.top1`).

AlexNet, VGG and SqueezeNet have no BatchNorm, and learn slowly without: their inventors had weeks
on many machines. We train every convolution with BatchNorm behind it, and when the training is
over multiply it into the convolution, which it is a linear map after (`fuse_norms`). What ships is
the original architecture and computes the same function.
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
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vislib import attacks, nets
from vislib.core import frozen
from vislib.data import pocket
from vislib.errors import InputError
from vislib.nets import check_device
from vislib.paths import DATA, write_whole

Array = NDArray[np.uint8]

UNSEEN = 1_000_000  # seed of the scenes that accuracy is measured on, far from training's seeds
BATCH = 32
PEAK_RATE = 2e-3
ATTACK_STEPS = 2  # of adversarial training, from a random start
SNAPSHOT_LAYERS = 2  # convolutions that a snapshot keeps, counted from the picture upwards


def train(
    name: str,
    *,
    epochs: int = 16,
    scenes: int = 8000,
    seed: int = 0,
    out: str | Path | None = None,
    device: str | torch.device = "cpu",
    resume: bool = True,
    progress: bool = True,
    bfloat16: bool = False,
    snapshots: Sequence[int] = (),
    first_scale: float = 1.0,
    start: str | Path | None = None,
    adversarial: float = 0,
) -> dict[str, str]:
    """Train a pocket net from nothing, measure it, and write its weights.

    After every epoch a checkpoint is written beside the weights. The same call, made again after
    an interruption, goes on from there and ends with the same weights, bit for bit on the same
    machine: each epoch draws its random numbers from (seed, epoch) alone.

    Args:
        name: one of `nets.POCKET_NETS`.
        epochs: how often every scene is seen.
        scenes: how many scenes to learn from (`pocket.training_scenes`, kept in the temporary
            folder of the system for the next training).
        seed: of the weights, the scenes and the order of the batches.
        out: the safetensors file; by default the one that ships with the course.
        device: where to train.
        resume: whether to go on from a checkpoint of the same settings; else begin anew.
        progress: whether to show progress bars.
        bfloat16: whether to multiply in half precision, which takes half the time on processors
            made for it (and far longer on others). The weights stay in float32.
        snapshots: epochs after which the first layers are kept, 0 for those before the training.
            If there are any, the file holds them, for `snapshots`, and not the trained net.
        first_scale: factor on the random weights from which the first convolution starts. The
            BatchNorm behind it takes the factor away again, so the net answers as before; but what
            is learned soon outgrows a small start, and the filters can be read.
        start: weights of this net to go on from, at a quarter of the learning rate; by default it
            starts from random ones.
        adversarial: if above 0, every batch is attacked before it is learned from (`attacks`), by
            at most so many grey levels of 255 at each value (Madry et al. 2018).

    Returns:
        What is also stored in the file: seed, epochs, accuracies, date, command.

    Raises:
        ValueError: for a name that is no pocket net, for no epochs or scenes, for a snapshot of
            an epoch that does not come or of a net without `features`, for a negative seed, for
            attacks of less than no grey level, for a device or file that cannot be used, and when
            the loss is no longer a number: nothing is written then.
    """
    if name not in nets.POCKET_NETS:
        raise ValueError(f"Only the nets {', '.join(nets.POCKET_NETS)} are trained, not {name!r}.")
    if epochs < 1 or scenes < 1:
        raise ValueError(f"Training needs epochs and scenes, not {epochs} and {scenes}.")
    if snapshots and not 0 <= min(snapshots) <= max(snapshots) <= epochs:
        raise ValueError(f"Snapshots are of the epochs 0 to {epochs}, not {list(snapshots)}.")
    if not 0 <= adversarial <= 255:
        raise ValueError(f"An attack is of 0 to 255 grey levels, not of {adversarial}.")
    if not 0 < first_scale < math.inf:
        raise ValueError(f"The first filters need a factor above 0, not {first_scale}.")
    if snapshots:
        _first_layers(nets.load(name, weights=False))  # says so now where it has no `features`
    if seed < 0:
        raise ValueError(f"A seed is a whole number from 0, not {seed}.")
    check_device(str(device))
    path = Path(out) if out else _default_path(name, snapshots, adversarial)
    if path.is_dir() or path.suffix in (".checkpoint", ".part"):
        raise InputError(f"{path} cannot hold the weights: give a file, such as {name}.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = path.with_suffix(".checkpoint")
    path.with_suffix(".part").touch()  # where that is not possible: better now than after hours
    path.with_suffix(".part").unlink()
    settings: dict[str, Any] = {"name": name, "epochs": epochs, "scenes": scenes, "seed": seed}
    settings["bfloat16"] = bfloat16
    if snapshots:
        settings["snapshots"] = sorted(snapshots)
    if first_scale != 1:
        settings["first_scale"] = first_scale
    if start:
        settings["start"] = Path(start).stem
    if adversarial:
        settings["adversarial"] = adversarial
    kept: dict[str, Any] = {"tensors": {}, "card": {}}

    images, labels = cached_scenes(scenes, seed, progress=progress)
    model = nets.load(name, weights=start or False, seed=seed, device=device)
    if not start:
        add_norms(model.net)
    with torch.no_grad():
        next(m for m in model.modules() if isinstance(m, nn.Conv2d)).weight.mul_(first_scale)
    model = model.to(memory_format=torch.channels_last).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    first = _restore(checkpoint, settings, model.net, optimiser, kept) if resume else 0
    if first == 0 and 0 in snapshots:
        _keep(kept, model, 0, progress)
    for epoch in range(first, epochs):
        with torch.random.fork_rng():
            _epoch(model, optimiser, images, labels, epoch, settings, progress)
        if epoch + 1 in snapshots:
            _keep(kept, model, epoch + 1, progress)
        _save(checkpoint, settings, model.net, optimiser, epoch + 1, kept)

    fuse_norms(model.eval().net)
    card = settings | measure(model, progress=progress) | kept["card"]
    card["parameters"] = sum(p.numel() for p in model.parameters())
    card["date"] = datetime.date.today().isoformat()
    card["command"] = f"vislib train {name} --epochs {epochs} --scenes {scenes} --seed {seed}"
    card["command"] += " --bfloat16" if bfloat16 else ""
    card["command"] += f" --first-scale {first_scale}" if first_scale != 1 else ""
    card["command"] += f" --start {settings['start']}" if start else ""
    card["command"] += f" --adversarial {adversarial:g}" if adversarial else ""
    if snapshots:
        card["command"] += " --snapshots " + " ".join(map(str, settings["snapshots"]))
    texts = {key: str(value) for key, value in card.items()}
    _write(path, kept["tensors"] or model.net.state_dict(), texts)
    checkpoint.unlink(missing_ok=True)
    return texts


def add_norms(net: nn.Module) -> None:
    """Put a BatchNorm (Ioffe & Szegedy 2015) between each convolution of `features` and its ReLU.

    A net that has no part of that name, as ResNet, keeps what it has.
    """
    for stack in _feature_stacks(net):
        for index, (layer, after) in enumerate(pairwise(list(stack))):
            if isinstance(layer, nn.Conv2d) and isinstance(after, nn.ReLU):
                stack[index] = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels))


def fuse_norms(net: nn.Module) -> None:
    """Undo `add_norms` and keep the function: each BatchNorm goes into its convolution.

    `net` must be in eval mode, where BatchNorm is a fixed scale and shift per channel.
    """
    for stack in _feature_stacks(net):
        for index, layer in enumerate(list(stack)):
            match list(layer.children()):
                case [nn.Conv2d() as conv, nn.BatchNorm2d() as norm]:
                    stack[index] = fuse_conv_bn_eval(conv, norm)


def _feature_stacks(net: nn.Module) -> list[nn.Sequential]:
    features = getattr(net, "features", nn.Sequential())
    return [module for module in features.modules() if isinstance(module, nn.Sequential)]


def _epoch(
    model: nets.Classifier,
    optimiser: torch.optim.Optimizer,
    images: Array,
    labels: Array,
    epoch: int,
    settings: dict[str, Any],
    progress: bool,
) -> None:
    """One pass over the scenes, in an order and with changes that hang on (seed, epoch) alone."""
    from tqdm.auto import tqdm

    epochs = settings["epochs"]
    rng = np.random.default_rng([settings["seed"], epoch])
    torch.manual_seed(int(rng.integers(2**31)))  # for dropout
    model.train()
    device = model.normalize.mean.device
    batches = np.array_split(rng.permutation(len(images)), math.ceil(len(images) / BATCH))
    bar = tqdm(batches, desc=f"{model.name} {epoch + 1}/{epochs}", disable=not progress)
    average = 0.0
    for step, batch in enumerate(bar):
        rate = _rate((epoch + step / len(batches)) / epochs) * (0.25 if "start" in settings else 1)
        for group in optimiser.param_groups:
            group["lr"] = rate
        x = _changed(rng, torch.from_numpy(images[batch]).to(device), epoch / epochs)
        present = torch.from_numpy(labels[batch[: len(x)]]).to(device, torch.float32)
        wanted = present / present.sum(1, keepdim=True)
        if "adversarial" in settings:
            x = _attacked(model, x, wanted, settings, int(rng.integers(2**31)))
        with torch.autocast(device.type, torch.bfloat16, enabled=settings["bfloat16"]):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), wanted)
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
    model: nets.Classifier, x: Tensor, wanted: Tensor, settings: dict[str, Any], seed: int
) -> Tensor:
    """The batch, changed so that its loss is as large as a few steps can make it."""

    def loss(y: Tensor) -> Tensor:
        with torch.autocast(y.device.type, torch.bfloat16, enabled=settings["bfloat16"]):
            logits = model(y)
        return F.cross_entropy(logits.float(), wanted, reduction="none")

    with frozen(model):
        return attacks.step_project(
            loss,
            x,
            epsilon=settings["adversarial"] / 255,
            steps=ATTACK_STEPS,
            random_start=True,
            generator=torch.Generator().manual_seed(seed),
        )


def _rate(done: float) -> float:
    """The learning rate when a share `done` of the training is over: warm-up, then cosine."""
    warm_up = 0.06
    if done < warm_up:
        return PEAK_RATE * (0.02 + 0.98 * done / warm_up)
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


def _changed(rng: np.random.Generator, images: Tensor, done: float) -> Tensor:
    """Mirrored, cropped, stretched, lit anew, at another size: N×H×W×3 bytes to n×3×h×w floats.

    Many sizes make a net work on large pictures as well as on small ones. Small ones come first,
    since they are learned from in less time, and the last quarter is mostly at the nets' own size
    (Touvron et al. 2019, "Fixing the train-test resolution discrepancy"). Of large ones the batch
    keeps as many (n) as cost no more than N of the usual size.
    """
    x = images.permute(0, 3, 1, 2).float() / 255
    mirrored = torch.from_numpy(rng.random(len(x)) < 0.5).to(x.device)
    x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    height, width = np.round(rng.uniform(0.88, 1, 2) * x.shape[2:]).astype(int)
    top, left = rng.integers(x.shape[2] - height + 1), rng.integers(x.shape[3] - width + 1)
    sides = (96, 128, 192, 256)
    if done < 0.4:
        sides = (64, 96, 96, 128)
    elif done > 0.75 and rng.random() < 0.8:
        sides = (112, 128, 128, 144)
    size = rng.choice(sides, 2).tolist()
    x = x[: max(8, BATCH * nets.POCKET_SIZE**2 // math.prod(size))]
    x = F.interpolate(x[..., top : top + height, left : left + width], size, mode="bilinear")
    light = rng.uniform(0.8, 1.15, (len(x), 1, 1, 1)).astype(np.float32)
    x = (x * torch.from_numpy(light).to(x.device)).clamp(0, 1)
    return x.contiguous(memory_format=torch.channels_last)


# --- Measuring -------------------------------------------------------------------------------


def measure(
    model: nets.Classifier, *, scenes: int = 1000, progress: bool = False
) -> dict[str, Any]:
    """Accuracies of a pocket net, between 0 and 1, on scenes it has never met.

    Returns:
        `unseen`: on fresh scenes of 128 pixels; `unseen_single`: on those with one category;
        `val`: on the shipped split, squashed to 128×128; `val_original`: at its own sizes.
    """
    from PIL import Image

    images, labels = cached_scenes(scenes, UNSEEN, progress=progress)
    right = np.concatenate(
        [_right(model, images[i : i + 100], labels[i : i + 100]) for i in range(0, scenes, 100)]
    )
    single = labels.sum(1) == 1
    squashed, original = [], []
    for image, label in val_scenes():
        small = Image.fromarray(image).resize((nets.POCKET_SIZE, nets.POCKET_SIZE))
        squashed.append(_right(model, np.asarray(small)[None], label[None])[0])
        original.append(_right(model, image[None], label[None])[0])
    return {
        "unseen": round(float(right.mean()), 4),
        "unseen_single": round(float(right[single].mean()), 4),
        "val": round(float(np.mean(squashed)), 4),
        "val_original": round(float(np.mean(original)), 4),
    }


def _right(model: nets.Classifier, images: Array, labels: Array) -> NDArray[np.bool_]:
    """Whether the first class is in the picture, for N×H×W×3 bytes and N×16 labels."""
    device = model.normalize.mean.device
    x = torch.tensor(images, device=device)
    with torch.no_grad():
        logits = model(x.permute(0, 3, 1, 2).float() / 255)
    return nets.top1(logits.cpu(), torch.tensor(labels)).numpy()


def val_scenes(folder: Path = DATA / "pocket_coco") -> Iterator[tuple[Array, Array]]:
    """The shipped split: images H×W×3, and labels, 1 for each of the 16 categories present."""
    from PIL import Image

    text = (folder / "annotations" / "instances_val.json").read_text(encoding="utf-8")
    content = json.loads(text)
    ids = [category.id for category in pocket.CATEGORIES]
    labels = {image["id"]: np.zeros(len(ids), np.uint8) for image in content["images"]}
    for annotation in content["annotations"]:
        labels[annotation["image_id"]][ids.index(annotation["category_id"])] = 1
    for image in content["images"]:
        with Image.open(folder / "val" / image["file_name"]) as picture:
            yield np.asarray(picture.convert("RGB")), labels[image["id"]]


def cached_scenes(scenes: int, seed: int, *, progress: bool = False) -> tuple[Array, Array]:
    """`pocket.training_scenes`, kept in the system's temporary folder for the next time.

    The name of the files holds a digest of the first scenes: a changed generator makes new ones.
    """
    first, _ = pocket.training_scenes(min(scenes, 8), seed=seed)
    digest = hashlib.sha256(first.tobytes()).hexdigest()[:12]
    user = getattr(os, "getuid", int)()  # the folder is everybody's, a file in it is one user's
    folder = Path(tempfile.gettempdir()) / f"vislib-{user}"
    folder.mkdir(exist_ok=True)
    stem = f"scenes-{scenes}-{seed}-{digest}"
    paths = [folder / f"{stem}-{what}.npy" for what in ("images", "labels")]
    if not all(path.is_file() for path in paths):
        arrays = pocket.training_scenes(scenes, seed=seed, progress=progress)
        for path, array in zip(paths, arrays, strict=True):
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                np.save(file, array)
            Path(file.name).replace(path)
    return np.load(paths[0], mmap_mode="r"), np.load(paths[1])


# --- Snapshots -------------------------------------------------------------------------------


def snapshots(name: str, path: str | Path | None = None) -> dict[int, nn.Sequential]:
    """The first layers of a net as they were after some epochs of a training: epoch to model.

    Each model takes N×3×H×W in [0, 1] and ends after the ReLU of the last layer that was kept; its
    layers have the names that they have in the net, ``features.0`` and so on.

    Args:
        name: of a pocket net with a part `features`.
        path: the file that ``vislib train NAME --snapshots …`` wrote; by default the shipped one.

    Raises:
        InputError: there is no such file, or it holds other layers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

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
        raise InputError(f"{file.name} holds no snapshots; --snapshots makes some")
    for epoch in sorted(map(int, epochs)):
        start = f"{epoch}."
        model = _first_layers(nets.load(name, weights=False))
        found = {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}
        try:
            model.load_state_dict({key: value.float() for key, value in found.items()})
        except RuntimeError as error:
            raise InputError(f"{file.name} does not fit {name}: {error}") from error
        models[epoch] = model.eval()
    return models


def _default_path(name: str, snapshots: Sequence[int], adversarial: float = 0) -> Path:
    kind = "_epochs" if snapshots else "_robust" if adversarial else ""
    return nets.WEIGHTS / f"{name}{kind}.safetensors"


def _keep(kept: dict[str, Any], model: nets.Classifier, epoch: int, progress: bool) -> None:
    """Add a snapshot of the first layers, in half precision, and the net's accuracy."""
    fused = copy.deepcopy(model).eval()
    fuse_norms(fused.net)
    for key, value in _first_layers(fused).state_dict().items():
        kept["tensors"][f"{epoch}.{key}"] = value.half().cpu()
    kept["card"][f"unseen_{epoch}"] = measure(fused, progress=progress)["unseen"]


def _first_layers(model: nets.Classifier) -> nn.Sequential:
    """The net up to the ReLU of its last convolution that snapshots keep."""
    features = getattr(model.net, "features", None)
    if features is None:
        raise ValueError(f"{model.name} has no part `features`: its first layers cannot be kept")
    convolutions = [i for i, layer in enumerate(features) if isinstance(layer, nn.Conv2d)]
    end = convolutions[SNAPSHOT_LAYERS - 1] + 2
    return nn.Sequential(OrderedDict(normalize=model.normalize, features=features[:end]))


# --- Files -----------------------------------------------------------------------------------


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
    buffer = io.BytesIO()  # so that a full disk is an OSError, as everywhere
    torch.save(state, buffer)
    write_whole(path, buffer.getvalue())


def _restore(
    path: Path,
    settings: dict[str, Any],
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    kept: dict[str, Any] | None = None,
) -> int:
    """Go on from a checkpoint of the same settings; the number of epochs that are done.

    The snapshots made so far go into `kept`.
    """
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        same = state["settings"] == settings
    except Exception as error:  # PyTorch reports damage by a dozen types
        raise InputError(f"{path} is damaged or no checkpoint: delete it to begin anew") from error
    if not same:
        return 0
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    if kept is not None:
        kept.update(state["kept"])
    return int(state["epoch"])


def _write(path: Path, weights: dict[str, Tensor], card: dict[str, str]) -> None:
    from safetensors.torch import save

    tensors = {key: value.cpu().contiguous() for key, value in weights.items()}
    write_whole(path, save(tensors, metadata=card))
