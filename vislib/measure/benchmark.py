"""The capstone: how much of each explanation falls on the object, over images, nets, methods and
sizes.

The work is a list of independent batches, each a handful of (image, category) units for one net at
one size. `plan` writes the list, `run_batch` turns one batch into records, and `run` goes through
the list and stores each finished batch as one file that never changes again. A run that was killed
therefore continues where it was, with the same result; so could several machines that share the
list.

Within a batch, one forward pass serves all of `METHODS` (`explain`): one forward and three backward
passes instead of the nine and ten that separate calls would need. `MORE` holds the methods that
need passes of their own, with the settings that they get here; ``--methods all`` takes both.

CAM is missing on purpose: it exists only for nets that end in a pooling and one linear layer, where
Grad-CAM is its positive part, up to a factor. Sensitivity, the gradient squared, is no other map
either, but another measure of it: its P is the gradient's with fourth powers in place of squares.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vislib import nets
from vislib.core import Target, one_forward
from vislib.data.coco import Coco
from vislib.data.objects import Size, load_unit
from vislib.errors import InputError, nearest
from vislib.explain.averaging import integrated_gradients, smoothgrad
from vislib.explain.cam import FORMULAS, eigen_cam, score_cam
from vislib.explain.fullgrad import fullgrad
from vislib.explain.gradients import deconvnet_rule, guided_rule, saliency, sensitivity
from vislib.explain.lrp import lrp
from vislib.explain.occlusion import occlusion
from vislib.explain.shapley import shapley
from vislib.explain.taylor import simple_taylor
from vislib.layers import last_conv_stage
from vislib.maps import upsample
from vislib.measure import energy
from vislib.nets import best_of, check_device, class_targets
from vislib.paths import write_whole

METHODS = (
    *("gradient", "deconvnet", "guided_backprop", "grad_cam", "guided_grad_cam"),  # the source's
    *("gradient_x_input", "grad_cam_pp", "xgrad_cam", "layer_cam"),
)
CONTROLS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda image: energy.uniform(*image.shape[-2:]),
    "centred_gaussian": lambda image: energy.centred_gaussian(*image.shape[-2:]),
    "sobel_edges": energy.sobel_edges,
}
"""From an image, C×H×W, to a map without any net, 1×H×W."""
RANDOM = "_random"  # ends the name of a method that was run on the net with random weights
NO_NET = "none"  # the net of the controls

Targets = Mapping[str, Sequence[int]]

_BATCH_PIXELS = 4 * 224 * 224


@dataclass(frozen=True)
class Costly:
    """A method that needs passes of its own through the net, with its settings in the benchmark.

    `at_layer`: it looks at a layer as Grad-CAM does, and gets the same one.
    """

    function: Callable[..., Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    at_layer: bool = False

    def __call__(self, model: nn.Module, x: Tensor, target: Target, layer: str) -> Tensor:
        """The maps, raw and signed, at the method's own size."""
        where = {"layer": layer} if self.at_layer else {}
        return self.function(model, x, target, **where, **self.options)

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.function.__name__}({options})"


def occlusion_by_share(
    model: nn.Module, x: Tensor, target: Target, *, square: int, step: int
) -> Tensor:
    """`occlusion` by a grey square, its side and its steps as parts of the image's shorter side."""
    side = min(x.shape[-2:])
    size, stride = max(1, side // square), max(1, side // step)
    return occlusion(model, x, target, size=size, stride=stride)


def taylor_or_nothing(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """`simple_taylor`, with zeros for an image whose score has no root that Newton's method finds:
    a map without energy, so its P is undefined and counted as such."""
    maps = torch.zeros_like(x)
    for i, chosen in enumerate(torch.as_tensor(target).expand(len(x)).tolist()):
        with suppress(ValueError):
            maps[i] = simple_taylor(model, x[i : i + 1], chosen)[0]
    return maps


MORE: dict[str, Costly] = {
    "saliency": Costly(saliency),
    "sensitivity": Costly(sensitivity),
    "smoothgrad": Costly(smoothgrad, {"level": 0.15, "n": 25}),
    "integrated_gradients": Costly(integrated_gradients, {"baseline": 0.0, "steps": 25}),
    "fullgrad": Costly(fullgrad),
    "simple_taylor": Costly(taylor_or_nothing),
    "lrp": Costly(lrp, {"rule": "epsilon_plus"}),
    "lrp_epsilon": Costly(lrp, {"rule": "epsilon"}),
    "lrp_alpha_beta": Costly(lrp, {"rule": "alpha_beta", "alpha": 2.0, "beta": 1.0}),
    "lrp_epsilon_gamma_box": Costly(lrp, {"rule": "epsilon_gamma_box", "gamma": 0.25}),
    "occlusion": Costly(occlusion_by_share, {"square": 4, "step": 16}),
    "eigen_cam": Costly(eigen_cam, at_layer=True),
    "score_cam": Costly(score_cam, at_layer=True),
    "shapley": Costly(shapley, {"segments": 25, "samples": 8, "baseline": 0.5}),
}
"""The methods that cost more than their share of one forward pass. A change of a setting here is a
change of the run: parts that were made with another setting are not taken for these."""

ALL = (*METHODS, *MORE)

_RULED = {"deconvnet", "guided_backprop", "guided_grad_cam"}  # these change what a ReLU answers
_WEIGHINGS = [name for name in FORMULAS if name in METHODS]
_SLOPES = {"gradient", "gradient_x_input", "guided_grad_cam", *_WEIGHINGS}


@dataclass(frozen=True)
class Batch:
    """Units of work for one net at one size. `net` is `NO_NET` for the controls."""

    net: str
    size: Size
    units: tuple[tuple[int, str], ...]  # (image id, category)


@dataclass(frozen=True)
class Record:
    """One row of the benchmark. `P` is NaN where the map has no energy at all.

    `mask_share` is the dilated mask's share of the image, `score_rank` the rank of the explained
    class among the net's logits, 1 for the winner (0 where there is no net).
    """

    image_id: int
    category: str
    net: str
    method: str
    size: str
    P: float
    E: float
    E_total: float
    mask_share: float
    score_rank: int


@dataclass(frozen=True)
class Skipped:
    """A unit that gave no record, and why."""

    image_id: int
    category: str
    net: str
    size: str
    reason: str


def explain(
    model: nn.Module,
    x: Tensor,
    target: Target | Callable[[Tensor], Target],
    methods: Sequence[str] = METHODS,
    *,
    layer: str,
) -> tuple[dict[str, Tensor], Tensor]:
    """The maps of all `methods`, N×C×H×W or N×1×H×W at the image's size, and the N×K logits.

    Those of `METHODS` come from one forward pass, to the last bit as from the functions with the
    same names in `vislib.explain.gradients`, `vislib.explain.lrp` and `vislib.explain.cam`; those of `MORE` from a
    call each. Class maps are upsampled. `target` may be a function of the logits. ``ValueError``
    names the method that cannot explain such a net.
    """
    wanted, size = set(methods), x.shape[-2:]
    maps: dict[str, Tensor] = {}
    with one_forward(
        model, x, target, layer=layer, families=["activation"] if wanted & _RULED else []
    ) as forward:
        logits = forward.logits.detach()
        if wanted & _SLOPES:
            maps["gradient"], slope = forward.backward(forward.x, forward.maps)
            maps["gradient_x_input"] = forward.x.detach() * maps["gradient"]
            for name in _WEIGHINGS:
                if name in wanted or (name == "grad_cam" and "guided_grad_cam" in wanted):
                    maps[name] = upsample(FORMULAS[name](forward.maps, slope), size)
        if "deconvnet" in wanted:
            (maps["deconvnet"],) = forward.backward(activation=deconvnet_rule)
        if wanted & {"guided_backprop", "guided_grad_cam"}:
            (maps["guided_backprop"],) = forward.backward(activation=guided_rule)
        if "guided_grad_cam" in wanted:
            maps["guided_grad_cam"] = maps["grad_cam"] * maps["guided_backprop"]
    for name in methods:
        if name in MORE:
            chosen = target(logits) if callable(target) else target
            try:
                maps[name] = upsample(MORE[name](model, x, chosen, layer), size)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return {name: maps[name] for name in methods}, logits


def plan(
    coco: Coco,
    net_names: Sequence[str],
    categories: Sequence[str],
    sizes: Sequence[Size],
    per_category: int,
    *,
    controls: bool = True,
) -> list[Batch]:
    """The whole work as a list: the first `per_category` images of each category, for every net and
    size.

    The batches depend on the arguments alone, never on what is already done: the same batch always
    holds the same units, so its numbers are the same to the last bit.
    """
    units = sorted(
        (image_id, category)
        for category in categories
        for image_id in coco.images_with(category)[:per_category]
    )
    batches = []
    for net in [*net_names, *([NO_NET] if controls else [])]:
        for size in sizes:
            if size == "original":  # sizes differ, so a batch holds one image with its categories
                groups = [list(group) for _, group in groupby(units, key=lambda unit: unit[0])]
            else:
                length = max(1, _BATCH_PIXELS // size**2)
                groups = [units[i : i + length] for i in range(0, len(units), length)]
            batches += [Batch(net, size, tuple(group)) for group in groups]
    return batches


def run_batch(
    batch: Batch,
    coco: Coco,
    models: Mapping[str, nets.Classifier],
    targets: Targets,
    methods: Sequence[str] = METHODS,
    *,
    layer: str = "",
    save_maps: Path | None = None,
) -> tuple[list[Record], list[Skipped]]:
    """The records of one batch, and the units that could not be used, with reasons.

    `models` maps a suffix for the method's name to a net: ``{"": trained, "_random": untrained}``;
    it is empty for the controls. `targets` gives the net's classes for each category: the one with
    the highest logit is explained. `layer` is where Grad-CAM looks, a layer of each of the nets.
    """
    skipped = []
    images, masks, units = [], [], []
    for image_id, category in batch.units:
        try:
            image, mask = load_unit(coco, image_id, category, batch.size)
        except InputError as error:
            skipped.append(Skipped(image_id, category, batch.net, str(batch.size), str(error)))
        else:
            images.append(image)
            masks.append(mask)
            units.append((image_id, category))
    if not units:
        return [], skipped

    results: list[tuple[str, Sequence[Tensor], list[int]]] = []
    if batch.net == NO_NET:
        results = [
            (name, [control(image) for image in images], [0] * len(units))
            for name, control in CONTROLS.items()
        ]
    for suffix, model in models.items():
        x = torch.stack(images).to(next(model.parameters()).device)
        best = best_of([targets[category] for _, category in units])
        try:
            maps, logits = explain(
                model, x, _if_finite(best, batch.net + suffix), methods, layer=layer
            )
        except InputError:
            raise
        except (RuntimeError, ValueError) as error:
            if min(x.shape[-2:]) >= model.input_size:
                raise
            reason = (
                f"{batch.net} cannot take an image of {x.shape[-1]}×{x.shape[-2]} pixels: {error}"
            )
            return [], skipped + [
                Skipped(image_id, category, batch.net, str(batch.size), reason)
                for image_id, category in units
            ]
        chosen = best(logits)
        ranks = (1 + (logits > logits.gather(1, chosen[:, None])).sum(dim=1)).tolist()
        results += [(method + suffix, list(maps[method]), ranks) for method in methods]

    records = []
    for method, method_maps, ranks in results:
        for (image_id, category), one_map, mask, rank in zip(
            units, method_maps, masks, ranks, strict=True
        ):
            values = energy.energy(one_map, mask)
            records.append(
                Record(
                    image_id,
                    category,
                    batch.net,
                    method,
                    str(batch.size),
                    *values,
                    float(mask.mean()),
                    rank,
                )
            )
            if save_maps is not None:
                _save_map(save_maps, batch, image_id, category, method, one_map)
    return records, skipped


def _if_finite(choose: Callable[[Tensor], Tensor], net: str) -> Callable[[Tensor], Tensor]:
    """`choose`, after a look at the logits."""

    def check(logits: Tensor) -> Tensor:
        if not logits.isfinite().all():
            raise InputError(f"{net} answers with NaN or infinite scores: its weights are damaged")
        return choose(logits)

    return check


def run(
    coco: Coco,
    out: Path,
    *,
    net_names: Sequence[str],
    categories: Sequence[str] | None = None,
    methods: Sequence[str] = METHODS,
    sizes: Sequence[Size] = ("original", 224),
    per_category: int = 30,
    device: str = "cpu",
    class_table: Path | None = None,
    controls: bool = True,
    save_maps: bool = False,
) -> tuple[list[Record], list[Skipped]]:
    """Run what is not yet done, and return all records in the order of the plan.

    Finished batches lie in ``out/parts``, one file each, written whole or not at all. A file's name
    is a fingerprint of all that the batch's numbers depend on (images, annotations, weights,
    classes, methods and their settings), so a folder may hold several runs and never mixes them up.
    Batches with skipped units are tried again. `categories` None takes every category that all nets
    know. `methods` are names in `ALL`, or "all".
    """
    from tqdm.auto import tqdm

    net_names, methods = list(dict.fromkeys(net_names)), check_methods(methods)
    sizes = list(dict.fromkeys(sizes))
    check_device(device)
    targets = {
        name: class_targets(nets.load(name, weights=False), class_table) for name in net_names
    }
    categories = check_categories(coco, categories, targets)
    batches = plan(coco, net_names, categories, sizes, per_category, controls=controls)
    if not batches:
        raise InputError(f"no image of {coco.folder} shows any of {', '.join(categories)}")
    parts = out / "parts"
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{out} cannot hold the results ({error.strerror}): choose another folder for them"
        ) from error
    data = hashlib.sha256(coco.file.read_bytes()).hexdigest()

    records: list[Record] = []
    skipped: list[Skipped] = []
    with tqdm(
        total=sum(len(b.units) for b in batches), unit="map set", desc="benchmark", mininterval=0.5
    ) as bar:
        for net, net_batches in groupby(batches, key=lambda batch: batch.net):
            models = _load(net, device, controls) if net != NO_NET else {}
            layer = _stage(models[""]) if models else ""
            setting = {
                "data": data,
                "weights": [_fingerprint(model) for model in models.values()],
                "targets": {c: list(targets[net][c]) for c in categories} if models else None,
                "methods": list(methods) if models else list(CONTROLS),
                "settings": [str(MORE[m]) for m in methods if m in MORE] if models else [],
                "maps": save_maps,
            }
            for batch in net_batches:
                pictures = [_picture_digest(coco, image_id) for image_id, _ in batch.units]
                key = _key({**setting, **asdict(batch), "pictures": pictures})
                part = parts / f"{key}.json"
                rows, missed = _read_part(part)
                if missed or not rows:
                    bar.set_postfix_str(f"{net}, {batch.size}", refresh=False)
                    rows, missed = run_batch(
                        batch,
                        coco,
                        models,
                        targets.get(net, {}),
                        methods,
                        layer=layer,
                        save_maps=out / "maps" if save_maps else None,
                    )
                    _write_part(part, rows, missed)
                records += rows
                skipped += missed
                bar.update(len(batch.units))
    return records, skipped


def check_methods(methods: Sequence[str]) -> list[str]:
    """The methods to run, each once ("all" among them: every one), or an `InputError`."""
    for method in methods:
        if method not in (*ALL, "all"):
            raise InputError(f"there is no method {method!r} here: {nearest(method, ALL)}")
    return list(ALL if "all" in methods else dict.fromkeys(methods))


def check_categories(
    coco: Coco, categories: Sequence[str] | None, targets: Mapping[str, Targets]
) -> list[str]:
    """The categories to run (None: all that data and nets share), or an `InputError`."""
    if categories is None:
        shared = [name for name in coco.categories if all(name in t for t in targets.values())]
        if not shared:
            raise InputError(f"{coco.folder} has no category that {', '.join(targets)} know")
        return shared
    for category in categories:
        if category not in coco.categories:
            raise InputError(
                f"{coco.folder} has no category {category!r}: {nearest(category, coco.categories)}"
            )
        for net, known in targets.items():
            if category not in known:
                raise InputError(f"{net} has no class for {category!r}: {nearest(category, known)}")
    return list(dict.fromkeys(categories))


def _load(net: str, device: str, controls: bool) -> dict[str, nets.Classifier]:
    models = {"": nets.load(net, device=device)}
    if controls:
        models[RANDOM] = nets.load(net, device=device, weights=False)
    return models


def _stage(model: nets.Classifier) -> str:
    """The last convolutional stage at the size that the net was made for, whatever the images'."""
    size, device = model.input_size, next(model.parameters()).device
    return last_conv_stage(model, torch.zeros(1, 3, size, size, device=device))


def _fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _picture_digest(coco: Coco, image_id: int) -> str:
    try:
        path = coco.path(image_id)
        if path.is_file():  # nothing else, such as a pipe, which would be waited for
            return hashlib.sha256(path.read_bytes()).hexdigest()
    except (InputError, OSError, ValueError):
        pass
    return "unreadable"  # `run_batch` says why


def _key(setting: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:32]


def _read_part(path: Path) -> tuple[list[Record], list[Skipped]]:
    try:
        part = json.loads(path.read_text(encoding="utf-8"))
        records = [
            Record(**{**row, "P": math.nan if row["P"] is None else row["P"]})
            for row in part["records"]
        ]
        return records, [Skipped(**row) for row in part["skipped"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return [], []  # not there, or not one of ours: do the batch again


def _write_part(path: Path, records: Sequence[Record], skipped: Sequence[Skipped]) -> None:
    rows = [{**asdict(r), "P": None if math.isnan(r.P) else r.P} for r in records]
    text = json.dumps({"records": rows, "skipped": [asdict(s) for s in skipped]})
    write_whole(path, text.encode())


def map_file(folder: Path, net: str, size: Size, image_id: int, category: str, method: str) -> Path:
    """Where a run with ``save_maps`` keeps a raw map (C×H×W, NumPy's format); beside it the PNG."""
    name = f"{image_id:012d}_{category.replace(' ', '_')}_{method}.npy"
    return folder / net / str(size) / name


def _save_map(
    folder: Path, batch: Batch, image_id: int, category: str, method: str, one_map: Tensor
) -> None:
    from vislib import show

    file = map_file(folder, batch.net, batch.size, image_id, category, method)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, one_map.detach().cpu().numpy())
    colours = (255 * show.heat(one_map)).astype(np.uint8)
    Image.fromarray(colours).save(file.with_suffix(".png"))
