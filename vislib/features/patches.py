"""The patches that excite a unit most, found in one pass over any number of images.

For a unit with the feature map A and an image ``x``, the candidate is the position of the largest
activation,

    (row, column) = argmax A(x),    value = max A(x),

and the images with the largest values are kept. Each image gives **one patch**; otherwise one image
of a fence would fill the list of a fence detector. The patch is exactly the unit's receptive field
at this position.

References:
    Girshick, Donahue, Darrell & Malik 2014, "Rich feature hierarchies for accurate object detection
    and semantic segmentation" (figure 4).
    Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks".
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
from vislib.features.units import batches, to_device_of, unit_view


@dataclass(frozen=True)
class TopPatches:
    """Strongest patches of U units, k for each unit (or one per image, if there are fewer images).

    Attributes:
        units: channels, in the order of the rows of all other attributes.
        values: activations, U×k, in descending order.
        images: numbers of the images, from 0, in the order in which they were read, U×k.
        positions: (row, column) in the feature map, U×k×2.
        boxes: receptive fields in the images, U×k×4: top, bottom, left, right, with exclusive ends.
            They may extend beyond the border of the image.
        field: receptive field of the layer's units.
    """

    units: tuple[int, ...]
    values: Tensor
    images: Tensor
    positions: Tensor
    boxes: Tensor
    field: ReceptiveField
    _patches: list[list[Tensor]]

    def patch(self, unit: int, rank: int = 0) -> Tensor:
        """Part of a patch that is inside the image, 3×h×w.

        Args:
            unit: one of `units`.
            rank: number of the patch, 0 for the strongest.

        Raises:
            ValueError: the unit is not in these results.
        """
        return self._patches[self._row(unit)][rank]

    def crops(self, unit: int, *, fill: float = 0.5) -> Tensor:
        """All patches of a unit in the size of the receptive field, k×3×h×w.

        Args:
            unit: one of `units`.
            fill: value of the pixels outside the image. The default, mid-grey, differs visibly from
                most images. (The network pads its feature maps with zeros instead.)

        Raises:
            ValueError: the unit is not in these results.
        """
        row = self._row(unit)
        height, width = self.field.size
        crops = []
        for patch, (top, _, left, _) in zip(
            self._patches[row], self.boxes[row].tolist(), strict=True
        ):
            above, before = max(0, -top), max(0, -left)
            below, behind = height - above - patch.shape[1], width - before - patch.shape[2]
            crops.append(F.pad(patch, (before, behind, above, below), value=fill))
        return torch.stack(crops)

    def _row(self, unit: int) -> int:
        if unit not in self.units:
            raise ValueError(
                f"unit must be one of {list(self.units)}, the units of these results, got {unit}"
            )
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
    """Strongest patches of the units of a layer, k for each unit, at most one from each image.

    The images are read once, and only the best patches so far are kept, so memory does not grow
    with the number of images. On ties, the earlier image or position is kept.

    Args:
        model: feed-forward convolutional network.
        layer: dotted name of a layer with feature maps N×K×h×w whose units have a receptive field,
            or the module itself.
        images: images 3×H×W, of one or several sizes. They may come from a generator.
        k: number of patches for each unit.
        units: channels that are searched; by default all.
        batch: number of images of one size that are processed together.

    Raises:
        ValueError: `k` is below 1, `images` is empty, the layer or a unit does not exist or has no
            receptive field of one size, or the feature maps are not finite.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU())
    >>> top = top_patches(model, "1", torch.rand(20, 3, 16, 16), k=3)
    >>> top.values.shape, top.crops(unit=2).shape
    (torch.Size([4, 3]), torch.Size([3, 3, 5, 5]))
    """
    if k < 1:
        raise ValueError(f"k must be at least 1 patch for each unit, got {k}")
    name, _ = find_layer(model, layer)
    fields: dict[Pair, ReceptiveField] = {}
    best: _BestPatches | None = None
    count = 0
    with frozen(model):
        for x in batches(images, batch):
            size = (x.shape[2], x.shape[3])
            if size not in fields:
                fields[size] = receptive_field(model, layer, image_size=size)
                _check_one_size(fields, name)
            with record(model, [layer]) as outputs, torch.no_grad():
                model(to_device_of(model, x))
            maps = outputs[name].cpu()
            if maps.ndim != 4 or not maps.isfinite().all():
                raise ValueError(
                    f"layer {name!r} must give N×K×h×w maps of finite values, got shape "
                    f"{tuple(maps.shape)} with values from {maps.min():.3g} to {maps.max():.3g}"
                )
            if best is None:
                best = _BestPatches(_checked_units(units, maps.shape[1], name), k, maps.dtype)
            for image, image_maps in zip(x, maps[:, list(best.units)], strict=True):
                best.update(count, image, image_maps, fields[size])
                count += 1
    if best is None:
        raise ValueError("images is empty: at least one image is needed")
    return best.result(min(k, count), next(iter(fields.values())))


def patch_views(
    model: nn.Module,
    layer: Layer,
    top: TopPatches,
    unit: int,
    images: Sequence[Tensor],
    *,
    rule: Rule | None = guided_rule,
) -> Tensor:
    """View of a unit in each of its top patches, as `unit_view` computes it, k×3×h×w, signed.

    Each backward pass starts at the position of the patch, in the whole image. The view is cut to
    the receptive field, with zeros outside the image, so it has the size of `TopPatches.crops`.

    Args:
        model: network that was searched.
        layer: layer that was searched.
        top: result of `top_patches` for this layer.
        unit: one of the `units` of `top`.
        images: images that were searched, in the same order.
        rule: as in `unit_view`.

    Raises:
        ValueError: the unit is not in `top`, or an argument is not valid, as in `unit_view`.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU())
    >>> images = torch.rand(6, 3, 16, 16)
    >>> top = top_patches(model, "1", images, k=3)
    >>> patch_views(model, "1", top, 2, images).shape
    torch.Size([3, 3, 5, 5])
    """
    row = top._row(unit)
    views = []
    for number, position, box in zip(
        top.images[row].tolist(), top.positions[row], top.boxes[row].tolist(), strict=True
    ):
        x = to_device_of(model, images[number][None])
        view = unit_view(model, x, layer, unit, position=position, rule=rule)
        views.append(_cut(view[0].cpu(), box))
    return torch.stack(views)


def _cut(view: Tensor, box: Sequence[int]) -> Tensor:
    """Part of a view in a box, with zeros outside the image."""
    top, bottom, left, right = box
    height, width = view.shape[1:]
    edges = (max(0, -left), max(0, right - width), max(0, -top), max(0, bottom - height))
    inside = view[:, max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    return F.pad(inside, edges)


def _check_one_size(fields: dict[Pair, ReceptiveField], name: str) -> None:
    if len({field.size for field in fields.values()}) > 1:
        raise ValueError(
            f"the receptive field of layer {name!r} depends on the size of the image: resize all "
            "images to one size, or choose an earlier layer"
        )


def _checked_units(units: Sequence[int] | None, channels: int, name: str) -> tuple[int, ...]:
    checked = tuple(range(channels)) if units is None else tuple(int(unit) for unit in units)
    wrong = [unit for unit in checked if not 0 <= unit < channels]
    if wrong or not checked:
        raise ValueError(
            f"units of layer {name!r} must be between 0 and {channels - 1}, got {wrong or checked}"
        )
    return checked


class _BestPatches:
    """Best patches so far, in one row for each unit, strongest first."""

    def __init__(self, units: tuple[int, ...], k: int, dtype: torch.dtype) -> None:
        self.units = units
        self.values = torch.full((len(units), k), -torch.inf, dtype=dtype)
        self.sources = torch.zeros(len(units), k, 7, dtype=torch.long)  # image, position, box
        self.patches: list[list[Tensor]] = [[] for _ in units]

    def update(self, number: int, image: Tensor, maps: Tensor, field: ReceptiveField) -> None:
        """Insert the strongest position of each unit in an image with the feature maps U×h×w."""
        # On ties, `max` takes the first position.
        value, index = maps.flatten(1).max(dim=1)
        for row in (value > self.values[:, -1]).nonzero().flatten().tolist():
            position = divmod(int(index[row]), maps.shape[2])
            top, bottom, left, right = field.box(*position, (image.shape[1], image.shape[2]))
            # A view of the image would keep the whole image in memory.
            patch = image[:, top:bottom, left:right].clone()
            # A new value comes after equal ones, because these are from earlier images.
            rank = int((self.values[row] >= value[row]).sum())
            source = torch.tensor([number, *position, *field.box(*position)])
            self.values[row] = _inserted(self.values[row], rank, value[row])
            self.sources[row] = _inserted(self.sources[row], rank, source)
            self.patches[row].insert(rank, patch)
            del self.patches[row][len(self.values[row]) :]

    def result(self, k: int, field: ReceptiveField) -> TopPatches:
        image, position, box = self.sources[:, :k].split([1, 2, 4], dim=2)
        return TopPatches(
            self.units, self.values[:, :k], image[..., 0], position, box, field, self.patches
        )


def _inserted(row: Tensor, rank: int, value: Tensor) -> Tensor:
    """Row with `value` inserted at `rank`, and without its last entry."""
    return torch.cat([row[:rank], value[None], row[rank:-1]])
