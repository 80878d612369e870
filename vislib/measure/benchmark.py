"""Benchmark of the energy fraction P over images, networks, methods and sizes.

A `Plan` has the settings of a run. The work is a list of independent batches. Each batch consists
of a few units, which are pairs of an image and a category, for one network at one size. `batches`
makes the list, `run_batch` computes the records of one batch, and `run` goes through the list and
stores each finished batch in one file that never changes again. A run that was killed continues
after its last finished batch, with the same result.

Within a batch, one forward pass serves all methods of `methods.SHARED_PASS` (`explain`): it needs
one forward and three backward passes, where separate calls need nine and ten. The methods of
`methods.OWN_PASSES` run one by one, with the settings of the registry. The controls of
`methods.MAP_CONTROLS` are made from maps that are there already.

Sensitivity is the squared gradient. Its P is therefore another measure of the gradient, with fourth
powers instead of squares.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, reduce
from itertools import groupby
from operator import mul
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vislib import nets, show
from vislib.core import Operation, Rule, Target, frozen, one_forward
from vislib.data.coco import NAMES as COCO_NAMES
from vislib.data.coco import Coco
from vislib.data.objects import Size, load_unit
from vislib.errors import InputError, nearest
from vislib.layers import last_conv_stage
from vislib.maps import upsample
from vislib.measure import energy
from vislib.measure.methods import (
    BENCHMARK,
    CONTROLS,
    MAP_CONTROLS,
    METHODS,
    OWN_PASSES,
    RANDOM,
    SHARED_PASS,
    map_controls,
)
from vislib.nets import best_of, check_device, class_targets
from vislib.paths import write_whole

NO_NET = "none"  # the network of the controls

Targets = Mapping[str, Sequence[int]]

# Number of pixels in a batch, as in `vislib.explain.averaging`.
_BATCH_PIXELS = 4 * 224 * 224


@dataclass(frozen=True)
class Plan:
    """Settings of a run.

    Attributes:
        nets: names for `nets.load`.
        categories: names of COCO categories; None for all that the data and all networks have.
        methods: names in `methods.BENCHMARK`, or ``"all"``.
        sizes: sides of square images in pixels, or ``"original"``.
        per_category: number of images of each category, the first ones of the data.
        controls: whether to include networks with random weights, the maps of
            `methods.CONTROLS`, and those of `methods.MAP_CONTROLS` that are made from the maps of
            these methods.
        class_table: JSON file from categories to ImageNet classes, see
            `vislib.data.coco.imagenet_targets`.
    """

    nets: Sequence[str]
    categories: Sequence[str] | None = None
    methods: Sequence[str] = SHARED_PASS
    sizes: Sequence[Size] = ("original", 224)
    per_category: int = 30
    controls: bool = True
    class_table: Path | None = None


@dataclass(frozen=True)
class Batch:
    """Units of work for one network at one size.

    Attributes:
        net: name of the network, `NO_NET` for the controls.
        size: side of the images in pixels, or ``"original"``.
        units: pairs of image id and category.
    """

    net: str
    size: Size
    units: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Record:
    """One row of the results: the energy of one attribution map.

    Attributes:
        image_id, category: the unit that was explained.
        net: name of the network, `NO_NET` for a control.
        method: name of the method or control, with the suffix `RANDOM` for random weights.
        size: size of the batch, as text.
        P: fraction of the energy on the object, 0 to 1; NaN if the map has no energy.
        E, E_total: energy on the object and of the whole map.
        mask_fraction: fraction of the image that the dilated mask covers, 0 to 1.
        score_rank: rank of the explained class among the logits, 1 for the largest; 0 for a
            control of `methods.CONTROLS`.
        weights: first 12 digits of the `weights_digest` of the network; `NO_NET` for a control of
            `methods.CONTROLS`, and empty if it is not known.
    """

    image_id: int
    category: str
    net: str
    method: str
    size: str
    P: float
    E: float
    E_total: float
    mask_fraction: float
    score_rank: int
    weights: str = ""


@dataclass(frozen=True)
class Skipped:
    """Unit that gave no record.

    Attributes:
        image_id, category, net, size: as in `Record`.
        reason: the reason, a message for the user.
    """

    image_id: int
    category: str
    net: str
    size: str
    reason: str


# --- Attribution maps of several methods ----------------------------------------------------------


class Explanation(NamedTuple):
    """Result of `explain`.

    Attributes:
        maps: attribution maps by the name of the method, N×C×H×W or N×1×H×W at the size of the
            images, raw and signed.
        logits: N×K.
        target: target that was explained.
    """

    maps: dict[str, Tensor]
    logits: Tensor
    target: Target


def explain(
    model: nn.Module,
    x: Tensor,
    target: Target | Callable[[Tensor], Target],
    methods: Sequence[str] = SHARED_PASS,
    *,
    layer: str,
) -> Explanation:
    """Attribution maps of several methods, raw and signed, upsampled to the size of the images.

    The maps of `methods.SHARED_PASS` come from one forward pass and equal the results of the
    methods' functions to the last bit. Each method of `methods.OWN_PASSES` is called separately.
    A control of `methods.MAP_CONTROLS` changes the map of its method.

    Args:
        model, x: as in `vislib.explain.gradients`.
        target: as in `vislib.explain.gradients`, or a function that gives the target from the N×K
            logits.
        methods: names in `methods.METHODS` or `methods.MAP_CONTROLS`.
        layer: dotted name of the layer for the class activation maps.

    Raises:
        ValueError: a method cannot explain this network. For a method of `methods.OWN_PASSES` the
            message begins with its name.
    """
    # The method whose map is needed for each name. For a method, it is the method itself.
    sources = {n: MAP_CONTROLS[n].of if n in MAP_CONTROLS else n for n in methods}
    own = _explain(model, x, target, tuple(dict.fromkeys(sources.values())), layer)
    maps = {
        name: MAP_CONTROLS[name].change(own.maps[source], x)
        if name in MAP_CONTROLS
        else own.maps[name]
        for name, source in sources.items()
    }
    return own._replace(maps=maps)


def _explain(
    model: nn.Module,
    x: Tensor,
    target: Target | Callable[[Tensor], Target],
    methods: Sequence[str],
    layer: str,
) -> Explanation:
    """`explain` without the controls that are made from maps."""
    size = x.shape[-2:]
    shared = [METHODS[name] for name in methods if METHODS[name].shares_pass]
    plain: Rule = Operation.vjp
    needs_rules = any(method.rule not in (None, plain) for method in shared)
    maps: dict[str, Tensor] = {}
    with one_forward(
        model, x, target, layer=layer, families=["activation"] if needs_rules else []
    ) as forward:

        @cache
        def gradients() -> tuple[Tensor, ...]:
            return forward.backward(forward.x, forward.maps)

        @cache
        def backward_map(rule: Rule) -> Tensor:
            return gradients()[0] if rule is plain else forward.backward(activation=rule)[0]

        @cache
        def class_map(formula: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
            return upsample(formula(forward.maps, gradients()[1]), size)

        for method in shared:
            factors = [class_map(method.formula)] if method.formula is not None else []
            factors += [backward_map(method.rule)] if method.rule is not None else []
            factors += [forward.x.detach()] if method.times_input else []
            maps[method.name] = reduce(mul, factors)
        logits, target = forward.logits.detach(), forward.target
    for name in methods:
        if name not in maps:
            try:
                maps[name] = upsample(METHODS[name](model, x, target, layer), size)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return Explanation({name: maps[name] for name in methods}, logits, target)


# --- Batches of work ------------------------------------------------------------------------------


def batches(coco: Coco, plan: Plan) -> list[Batch]:
    """All batches of a plan, in the order of networks and sizes.

    The batches depend only on the arguments and not on the work that is already done. A batch
    always has the same units, so its numbers are the same to the last bit.

    Args:
        coco: data set.
        plan: settings of the run. Its categories must be names, not None.
    """
    units = sorted(
        (image_id, category)
        for category in plan.categories or ()
        for image_id in coco.images_with(category)[: plan.per_category]
    )
    work = []
    for net in [*plan.nets, *([NO_NET] if plan.controls else [])]:
        for size in plan.sizes:
            # Original sizes differ, so such a batch holds one image with all its categories.
            if size == "original":
                groups = [list(group) for _, group in groupby(units, key=lambda unit: unit[0])]
            else:
                length = max(1, _BATCH_PIXELS // size**2)
                groups = [units[i : i + length] for i in range(0, len(units), length)]
            work += [Batch(net, size, tuple(group)) for group in groups]
    return work


class _Unit(NamedTuple):
    """Image and mask of a unit."""

    image_id: int
    category: str
    image: Tensor
    mask: np.ndarray


class _Result(NamedTuple):
    """Maps of one method for the units of a batch, ranks of the explained classes, weights."""

    method: str
    maps: Sequence[Tensor]
    ranks: Sequence[int]
    weights: str


def run_batch(
    batch: Batch,
    coco: Coco,
    models: Mapping[str, nets.Classifier],
    targets: Targets,
    methods: Sequence[str] = SHARED_PASS,
    *,
    layer: str = "",
    weights: Mapping[str, str] | None = None,
    save_maps: Path | None = None,
    files: Mapping[int, bytes | None] | None = None,
) -> tuple[list[Record], list[Skipped]]:
    """Records of one batch, and the units that could not be used, with reasons.

    Args:
        batch: the units.
        coco: data set of the units.
        models: networks by the suffix of the method's name,
            ``{"": trained, "_random": untrained}``; empty for the controls.
        targets: classes of the network for each category. The class with the largest logit is
            explained.
        methods: names in `methods.BENCHMARK`, and names in `methods.MAP_CONTROLS`, which are
            measured on the trained network only.
        layer: dotted name of the layer for class activation maps, in each of the networks.
        weights: `weights_digest` of each network, for the records.
        save_maps: folder for raw maps (`map_file`); None to keep none.
        files: contents of image files by image id, for files that have already been read.

    Raises:
        InputError: a network returns NaN or infinite logits.
        ValueError: a method cannot explain a network.
    """
    units, skipped = _load(batch, coco, files or {})
    results: list[_Result] = []
    if units and batch.net == NO_NET:
        for name in CONTROLS:
            draw = METHODS[name].function
            drawn = [draw(None, unit.image[None], 0)[0] for unit in units]
            results.append(_Result(name, drawn, [0] * len(units), NO_NET))
    elif units:
        x = torch.stack([unit.image for unit in units])
        choose = best_of([targets[unit.category] for unit in units])
        for suffix, model in models.items():
            names = [name for name in methods if not suffix or name not in MAP_CONTROLS]
            try:
                maps, ranks = _explained(batch.net + suffix, model, x, choose, names, layer)
            except _TooSmallError as error:
                return [], skipped + [
                    Skipped(unit.image_id, unit.category, batch.net, str(batch.size), str(error))
                    for unit in units
                ]
            digest = (weights or {}).get(suffix, "")
            results += [_Result(name + suffix, list(maps[name]), ranks, digest) for name in names]
    records = [
        _measured(batch, unit, result, one_map, rank, save_maps)
        for result in results
        for unit, one_map, rank in zip(units, result.maps, result.ranks, strict=True)
    ]
    return records, skipped


def _load(
    batch: Batch, coco: Coco, files: Mapping[int, bytes | None]
) -> tuple[list[_Unit], list[Skipped]]:
    """Images and masks of a batch, and the units without them, with reasons."""
    units, skipped = [], []
    for image_id, category in batch.units:
        try:
            image, mask = load_unit(
                coco, image_id, category, batch.size, encoded=files.get(image_id)
            )
        except InputError as error:
            skipped.append(Skipped(image_id, category, batch.net, str(batch.size), str(error)))
        else:
            units.append(_Unit(image_id, category, image, mask))
    return units, skipped


class _TooSmallError(ValueError):
    """Error for an image that is too small for a network."""


def _explained(
    net: str,
    model: nets.Classifier,
    x: Tensor,
    choose: Callable[[Tensor], Tensor],
    methods: Sequence[str],
    layer: str,
) -> tuple[dict[str, Tensor], list[int]]:
    """Maps of all methods on one network, and the ranks of the explained classes."""

    def target(logits: Tensor) -> Tensor:
        if not logits.isfinite().all():
            raise InputError(
                f"{net} returns NaN or infinite logits, so its weights are damaged: load "
                "or train it again"
            )
        return choose(logits)

    x = x.to(next(model.parameters()).device)
    small = min(x.shape[-2:]) < model.input_size
    try:
        # PyTorch raises a RuntimeError for a kernel larger than its feature map. Only the plain
        # forward pass may raise it: in a method, a RuntimeError is a programming error.
        if small:
            with frozen(model), torch.no_grad():
                model(x.clone())
    except RuntimeError as error:
        raise _too_small(net, x, error) from error
    try:
        maps, logits, chosen = explain(model, x, target, methods, layer=layer)
    except InputError:
        raise
    except ValueError as error:
        if not small:
            raise
        raise _too_small(net, x, error) from error
    assert isinstance(chosen, Tensor)
    ranks = (1 + (logits > logits.gather(1, chosen[:, None])).sum(dim=1)).tolist()
    return maps, ranks


def _too_small(net: str, x: Tensor, error: Exception) -> _TooSmallError:
    """Error that names the network and the size of the image."""
    return _TooSmallError(
        f"{net} cannot take an image of {x.shape[-1]}×{x.shape[-2]} pixels: {error}"
    )


def _measured(
    batch: Batch, unit: _Unit, result: _Result, one_map: Tensor, rank: int, save_maps: Path | None
) -> Record:
    """Record of one map, which is also saved if there is a folder for it."""
    if save_maps is not None:
        _save_map(save_maps, batch, unit, result.method, one_map)
    return Record(
        unit.image_id,
        unit.category,
        batch.net,
        result.method,
        str(batch.size),
        *energy.energy(one_map, unit.mask),
        float(unit.mask.mean()),
        rank,
        result.weights,
    )


# --- Run of a plan --------------------------------------------------------------------------------


def run(
    coco: Coco, out: Path, plan: Plan, *, device: str = "cpu", save_maps: bool = False
) -> tuple[list[Record], list[Skipped]]:
    """Run the unfinished batches of a plan; return all records, and the units without a record.

    Each finished batch is a file in ``out/parts``, which is written as a whole or not at all. The
    name of the file is a fingerprint of everything that the numbers depend on, so the results of
    several runs in one folder are never mixed. Batches with skipped units run again.

    Args:
        coco: data set.
        out: folder of the results.
        plan: settings of the run.
        device: device of the networks, such as ``"cpu"`` or ``"cuda"``.
        save_maps: whether to keep the raw maps, too, see `map_file`.

    Raises:
        InputError: a name in the plan, the device or the folder is wrong, or no image fits.
    """
    from tqdm.auto import tqdm

    check_device(device)
    targets = {name: class_targets(nets.facts(name), plan.class_table) for name in plan.nets}
    plan = _checked(plan, coco, targets)
    work = batches(coco, plan)
    if not work:
        names = ", ".join(plan.categories or ())
        raise InputError(f"no image of {coco.folder} shows any of {names}")
    parts = _parts_folder(out)
    data = hashlib.sha256(coco.file.read_bytes()).hexdigest()
    records: list[Record] = []
    skipped: list[Skipped] = []
    with tqdm(total=sum(len(b.units) for b in work), unit="map set", desc="benchmark") as bar:
        for net, net_batches in groupby(work, key=lambda batch: batch.net):
            models = _load_models(net, device, plan.controls) if net != NO_NET else {}
            weights = {suffix: weights_digest(model) for suffix, model in models.items()}
            setting = {"data": data, "maps": save_maps} | _setting(plan, weights, targets.get(net))
            layer = _stage(models[""]) if models else ""
            for batch in net_batches:
                files = {image_id: _read(coco, image_id) for image_id, _ in batch.units}
                part = parts / f"{_key(setting, batch, files)}.json"
                rows, missed = _read_part(part)
                if missed or not rows:
                    bar.set_postfix_str(f"{net}, {batch.size}", refresh=False)
                    rows, missed = run_batch(
                        batch,
                        coco,
                        models,
                        targets.get(net, {}),
                        plan.methods,
                        layer=layer,
                        weights={suffix: digest[:12] for suffix, digest in weights.items()},
                        save_maps=out / "maps" if save_maps else None,
                        files=files,
                    )
                    _write_part(part, rows, missed)
                records += rows
                skipped += missed
                bar.update(len(batch.units))
    return records, skipped


def _parts_folder(out: Path) -> Path:
    """Folder of the finished batches, which is made if it is missing."""
    parts = out / "parts"
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{out} cannot hold the results ({error.strerror}): choose another folder for them"
        ) from error
    return parts


def _checked(plan: Plan, coco: Coco, targets: Mapping[str, Targets]) -> Plan:
    """Plan with each name once and with all names for None and "all", or an `InputError`.

    Its methods include the controls that are made from their maps.
    """
    _check_class_table(plan, coco, targets)
    methods = check_methods(plan.methods)
    return replace(
        plan,
        nets=tuple(dict.fromkeys(plan.nets)),
        categories=check_categories(coco, plan.categories, targets),
        methods=methods + (map_controls(methods) if plan.controls else ()),
        sizes=tuple(dict.fromkeys(plan.sizes)),
    )


def _check_class_table(plan: Plan, coco: Coco, targets: Mapping[str, Targets]) -> None:
    """Raise for a misspelt category of the class table, which would be left out otherwise."""
    known = dict.fromkeys((*coco.categories, *COCO_NAMES))
    for name in [name for table in targets.values() for name in table if plan.class_table]:
        if name not in known:
            raise InputError(
                f"{plan.class_table}: neither these data nor COCO have a category {name!r}: "
                f"{nearest(name, known)}"
            )


def check_methods(methods: Sequence[str]) -> tuple[str, ...]:
    """Methods to run, each once; all of the benchmark if "all" is among them.

    Args:
        methods: names in `methods.BENCHMARK`, or ``"all"``.

    Raises:
        InputError: a method is not part of the benchmark.
    """
    for name in methods:
        if name not in (*BENCHMARK, "all"):
            raise InputError(f"the benchmark has no method {name!r}: {nearest(name, BENCHMARK)}")
    return BENCHMARK if "all" in methods else tuple(dict.fromkeys(methods))


def check_categories(
    coco: Coco, categories: Sequence[str] | None, targets: Mapping[str, Targets]
) -> tuple[str, ...]:
    """Categories to run, each once.

    Args:
        coco: data set.
        categories: names of categories; None for all that the data and all networks have.
        targets: classes of each network by category, see `vislib.nets.class_targets`.

    Raises:
        InputError: the data or a network does not have a category.
    """
    if categories is None:
        shared = [name for name in coco.categories if all(name in t for t in targets.values())]
        if not shared:
            raise InputError(
                f"{coco.folder} has no category for which {', '.join(targets)} have a class: "
                "choose other networks or other data"
            )
        return tuple(shared)
    for category in categories:
        if category not in coco.categories:
            raise InputError(
                f"{coco.folder} has no category {category!r}: {nearest(category, coco.categories)}"
            )
        for net, known in targets.items():
            if category not in known:
                raise InputError(f"{net} has no class for {category!r}: {nearest(category, known)}")
    return tuple(dict.fromkeys(categories))


def _load_models(net: str, device: str, controls: bool) -> dict[str, nets.Classifier]:
    """Trained network and, for the controls, one with random weights, as `run_batch` needs them."""
    models = {"": nets.load(net, device=device)}
    if controls:
        models[RANDOM] = nets.load(net, device=device, weights=False)
    return models


def _stage(model: nets.Classifier) -> str:
    """Name of the last convolutional stage at the size for which the network was made."""
    size, device = model.input_size, next(model.parameters()).device
    return last_conv_stage(model, torch.zeros(1, 3, size, size, device=device))


# --- Parts: finished batches ----------------------------------------------------------------------


def _setting(plan: Plan, weights: Mapping[str, str], targets: Targets | None) -> dict[str, Any]:
    """Settings on which the numbers of one network depend, besides data and batch."""
    if not weights:
        return {"weights": [], "targets": None, "methods": CONTROLS, "settings": []}
    assert targets is not None
    return {
        "weights": list(weights.values()),
        "targets": {category: list(targets[category]) for category in plan.categories or ()},
        "methods": plan.methods,
        "settings": [str(METHODS[name]) for name in plan.methods if name in OWN_PASSES],
    }


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of the names and values of all parameters and buffers, in hexadecimal.

    Two networks with one name may have different weights: trained again, pruned or quantised.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(coco: Coco, image_id: int) -> bytes | None:
    """Content of the image's file, or None if it cannot be read (`run_batch` gives the reason)."""
    try:
        return coco.image_bytes(image_id)
    except InputError:
        return None


def _digest(content: bytes | None) -> str:
    return "unreadable" if content is None else hashlib.sha256(content).hexdigest()


def _key(setting: Mapping[str, Any], batch: Batch, files: Mapping[int, bytes | None]) -> str:
    """Fingerprint of all that the numbers of a batch depend on.

    These are images, annotations, weights, classes, methods and their settings.
    """
    images = [_digest(files[image_id]) for image_id, _ in batch.units]
    text = json.dumps({**setting, **asdict(batch), "images": images}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read_part(path: Path) -> tuple[list[Record], list[Skipped]]:
    """Content of a part; empty if it is missing or damaged, so that the batch runs again."""
    try:
        part = json.loads(path.read_text(encoding="utf-8"))
        records = [
            Record(**{**row, "P": math.nan if row["P"] is None else row["P"]})
            for row in part["records"]
        ]
        return records, [Skipped(**row) for row in part["skipped"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return [], []


def _write_part(path: Path, records: Sequence[Record], skipped: Sequence[Skipped]) -> None:
    rows = [{**asdict(r), "P": None if math.isnan(r.P) else r.P} for r in records]
    text = json.dumps({"records": rows, "skipped": [asdict(s) for s in skipped]})
    write_whole(path, text.encode())


def map_file(folder: Path, net: str, size: Size, image_id: int, category: str, method: str) -> Path:
    """Path of the file in which a run with ``save_maps`` keeps a raw map (C×H×W, NumPy's format).

    Next to it is a PNG file with the map as an image.

    Args:
        folder: folder ``maps`` of the run.
        net, size, image_id, category, method: as in `Record`.
    """
    name = f"{image_id:012d}_{category.replace(' ', '_')}_{method}.npy"
    return folder / net / str(size) / name


def _save_map(folder: Path, batch: Batch, unit: _Unit, method: str, one_map: Tensor) -> None:

    file = map_file(folder, batch.net, batch.size, unit.image_id, unit.category, method)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, one_map.detach().cpu().numpy())
    colours = (255 * show.fine(one_map)).astype(np.uint8)
    Image.fromarray(colours).save(file.with_suffix(".png"))
