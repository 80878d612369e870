"""The patches that excite a unit most, found in one pass over any number of pictures.

For a unit ``k`` and a picture ``x``, the candidate is the place where its map is largest,

    (row, column) = argmax A^k(x),    value = max A^k(x),

and the k pictures with the largest values stay. There is **one patch for each picture**: without
that, one picture with a fence in it would fill the list of a fence detector. What the unit saw of
the picture is its receptive field at that place, cut out to the pixel.

Girshick, Donahue, Darrell & Malik 2014, "Rich feature hierarchies for accurate object detection and
semantic segmentation" (figure 4); Zeiler & Fergus 2013.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.core import Layer, Rule, find_layer, frozen, record
from vislib.explain.gradients import guided_rule
from vislib.features.receptive_field import Pair, ReceptiveField, receptive_field
from vislib.features.units import batches, like, unit_view


@dataclass(frozen=True)
class TopPatches:
    """The strongest patches of U units, strongest first; ``k`` is no more than there are pictures.

    Attributes:
        units: the channels, in the order of all that follows.
        values: the activations, U×k.
        images: the numbers of the pictures in the stream, from 0, U×k.
        positions: (row, column) in the layer's map, U×k×2.
        boxes: what the unit saw of its picture: top, bottom, left, right, the ends exclusive; they
            reach beyond the picture where the window hangs over its border. U×k×4.
        field: the receptive field of the layer's units.
    """

    units: tuple[int, ...]
    values: Tensor
    images: Tensor
    positions: Tensor
    boxes: Tensor
    field: ReceptiveField
    _windows: list[list[Tensor]]

    def window(self, unit: int, rank: int = 0) -> Tensor:
        """What the picture has of the window, 3×h×w: smaller than the field at its border."""
        return self._windows[self._row(unit)][rank]

    def crops(self, unit: int, *, fill: float = 0.5) -> Tensor:
        """The whole windows of a unit, k×3×h×w, all of the field's size.

        What lies outside of the picture is filled with `fill`: mid-grey, which no one will take
        for a part of the photograph. (The net itself pads its maps with zeros there.)
        """
        row = self._row(unit)
        height, width = self.field.size
        crops = []
        for window, (top, _, left, _) in zip(
            self._windows[row], self.boxes[row].tolist(), strict=True
        ):
            above, before = max(0, -top), max(0, -left)
            below, behind = height - above - window.shape[1], width - before - window.shape[2]
            crops.append(F.pad(window, (before, behind, above, below), value=fill))
        return torch.stack(crops)

    def _row(self, unit: int) -> int:
        if unit not in self.units:
            raise ValueError(f"unit {unit} was not searched for: {len(self.units)} others were")
        return self.units.index(unit)


def top_patches(
    model: nn.Module,
    layer: Layer,
    images: Iterable[Tensor],
    k: int = 9,
    *,
    units: Sequence[int] | None = None,
    batch: int = 32,
) -> TopPatches:
    """The k strongest patches of the units of a layer, one from each picture at most.

    The pictures are read once, one after the other, and only the windows that are among the best
    so far are kept: memory grows with units × k, not with the number of pictures. Of equal values
    the earlier picture wins, and within a picture the earlier position in reading order.

    Args:
        model: a feed-forward convolutional net.
        layer: dotted name or module, with N×K×h×w maps whose units have a receptive field.
        images: pictures 3×H×W, of one size or of several; a generator will do.
        k: how many patches of each unit.
        units: the channels to search for (default: all).
        batch: how many pictures of one size go through the net together; it changes nothing else.

    Raises:
        ValueError: there is no such layer or unit, its units have no receptive field of one size,
            its values are not finite, or there is not one picture.
    """
    if k < 1:
        raise ValueError(f"at least one patch must be kept, not {k}")
    name, _ = find_layer(model, layer)
    fields: dict[Pair, ReceptiveField] = {}
    best: _Best | None = None
    count = 0
    with frozen(model):
        for x in batches(images, batch):
            picture = (x.shape[2], x.shape[3])
            if picture not in fields:
                fields[picture] = receptive_field(model, layer, picture=picture)
                if len({field.size for field in fields.values()}) > 1:
                    raise ValueError(
                        f"the window of layer {name!r} depends on the size of the picture: "
                        "bring all to one size, or choose a layer further down"
                    )
            with record(model, [layer]) as outputs, torch.no_grad():
                model(like(x, model))
            maps = outputs[name].cpu()
            if maps.ndim != 4 or not maps.isfinite().all():
                raise ValueError(
                    f"layer {name!r} gives {tuple(maps.shape)} with values from {maps.min():.3g} "
                    f"to {maps.max():.3g}: N×K×h×w maps of finite values are needed"
                )
            if best is None:
                chosen = _chosen(units, maps.shape[1], name)
                best = _Best(chosen, k, maps.dtype)
            for image, one in zip(x, maps[:, list(best.units)], strict=True):
                best.offer(count, image, one, fields[picture])
                count += 1
    if best is None:
        raise ValueError("there is not one picture to search")
    return best.result(min(k, count), next(iter(fields.values())))


def patch_views(
    model: nn.Module,
    layer: Layer,
    found: TopPatches,
    unit: int,
    images: Sequence[Tensor],
    *,
    rule: Rule | None = guided_rule,
) -> Tensor:
    """The `unit_view` of a unit in each of its top patches, k×3×h×w, raw and signed.

    Each backward pass starts at the place that `found` names, in the whole picture; the result is
    cut to the unit's window, with zeros outside of the picture, so it fits `TopPatches.crops`.

    Args:
        model: the net.
        layer: the layer that was searched.
        found: what `top_patches` found in it.
        unit: one of its units.
        images: the pictures that it searched, by their numbers.
        rule: as of `unit_view`.
    """
    row = found._row(unit)
    views = []
    for number, position, box in zip(
        found.images[row].tolist(), found.positions[row], found.boxes[row].tolist(), strict=True
    ):
        x = like(images[number][None], model)
        view = unit_view(model, x, layer, unit, position=position, rule=rule)
        views.append(_cut(view[0].cpu(), box, 0.0))
    return torch.stack(views)


def _cut(picture: Tensor, box: Sequence[int], fill: float) -> Tensor:
    """The window of a picture, what lies outside of it filled."""
    top, bottom, left, right = box
    height, width = picture.shape[1:]
    edges = (max(0, -left), max(0, right - width), max(0, -top), max(0, bottom - height))
    window = picture[:, max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    return F.pad(window, edges, value=fill)


def _chosen(units: Sequence[int] | None, channels: int, name: str) -> tuple[int, ...]:
    chosen = tuple(range(channels)) if units is None else tuple(int(unit) for unit in units)
    wrong = [unit for unit in chosen if not 0 <= unit < channels]
    if wrong or not chosen:
        raise ValueError(f"layer {name!r} has units 0 to {channels - 1}, got {wrong or chosen}")
    return chosen


class _Best:
    """The best patches so far; rows are units, and each row is sorted, strongest first."""

    def __init__(self, units: tuple[int, ...], k: int, dtype: torch.dtype) -> None:
        self.units = units
        self.values = torch.full((len(units), k), -torch.inf, dtype=dtype)
        self.facts = torch.zeros(len(units), k, 7, dtype=torch.long)  # image, position, box
        self.windows: list[list[Tensor]] = [[] for _ in units]

    def offer(self, number: int, image: Tensor, maps: Tensor, field: ReceptiveField) -> None:
        """Put each unit's strongest place in this picture (its U×h×w maps) where it belongs."""
        value, index = maps.flatten(1).max(dim=1)  # the first of equal ones
        for row in (value > self.values[:, -1]).nonzero().flatten().tolist():
            place = divmod(int(index[row]), maps.shape[2])
            top, bottom, left, right = field.box(*place, (image.shape[1], image.shape[2]))
            window = image[:, top:bottom, left:right].clone()  # or it would hold the whole picture
            rank = int((self.values[row] >= value[row]).sum())  # behind equal ones: they were first
            fact = torch.tensor([number, *place, *field.box(*place)])
            self.values[row] = _inserted(self.values[row], rank, value[row])
            self.facts[row] = _inserted(self.facts[row], rank, fact)
            self.windows[row].insert(rank, window)
            del self.windows[row][len(self.values[row]) :]

    def result(self, k: int, field: ReceptiveField) -> TopPatches:
        image, position, box = self.facts[:, :k].split([1, 2, 4], dim=2)
        return TopPatches(
            self.units, self.values[:, :k], image[..., 0], position, box, field, self.windows
        )


def _inserted(row: Tensor, rank: int, value: Tensor) -> Tensor:
    """`value` at `rank`, what was there and behind it one place further, the last one out."""
    return torch.cat([row[:rank], value[None], row[rank:-1]])
