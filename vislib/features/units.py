"""One unit of an inner layer: its filter as a picture, its activity, its view of a picture.

A view starts the backward pass at a single unit ``a = A^k[row, column]`` of a layer instead of at a
class score, and sends it to the pixels by the rule of a method (see `vislib.explain.gradients`):

    gradient          ∂a/∂x
    deconvnet         the same with  R_in = (R > 0) · R             at every ReLU below the unit
    guided backprop   the same with  R_in = (f > 0) · (R > 0) · R   at every ReLU below the unit

Only the unit's receptive field can be other than zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vislib.core import BackwardRules, Layer, Rule, check_images, find_layer, frozen, record
from vislib.explain.gradients import guided_rule


def first_filters(model: nn.Module) -> Tensor:
    """The weights of the model's first convolution, K×3×k×k: one small colour picture a unit.

    ``ValueError`` where it does not look at three colours.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            if module.weight.shape[1] != 3:
                raise ValueError(
                    f"the first convolution has {module.weight.shape[1]} input channels, not three "
                    "colours: its filters are no pictures"
                )
            return module.weight.detach().clone()
    raise ValueError(f"{type(model).__name__} has no convolution")


def filter_pictures(weights: Tensor, *, share: float = 1.0) -> Tensor:
    """Filters as pictures in [0, 1]: ``0.5 + 0.5 · w / max|w|``, each filter by its own maximum.

    Zero becomes mid-grey and signs stay readable: brighter than grey is positive, darker negative.

    Args:
        weights: K×C×k×k, or any shape whose first axis counts the filters (or views).
        share: below 1, the scale ends at this quantile of ``|w|`` instead of at the maximum, and
            what is larger is clipped: better for a view, where few pixels are by far the largest.

    Returns:
        The same shape, between 0 and 1. A filter of zeros is grey.
    """
    sizes = weights.abs().flatten(1)
    top = sizes.amax(dim=1) if share == 1 else sizes.quantile(share, dim=1)
    top = torch.where(top > 0, top, sizes.amax(dim=1)).clamp(min=torch.finfo(weights.dtype).tiny)
    return (0.5 + 0.5 * weights / top.view(-1, *[1] * (weights.ndim - 1))).clamp(0, 1)


def unit_view(
    model: nn.Module,
    x: Tensor,
    layer: Layer,
    unit: int | Sequence[int] | Tensor,
    *,
    position: tuple[int, int] | Sequence[tuple[int, int]] | Tensor | None = None,
    rule: Rule | None = guided_rule,
) -> Tensor:
    """What of each picture excites one unit: the backward pass from the unit to the pixels.

    The layer may come before or after its ReLU; after it, that ReLU answers by the rule too. A
    layer that is called more than once counts with its last call.

    Args:
        model: any net that takes N×3×H×W; what it returns does not matter.
        x: the pictures, N×3×H×W.
        layer: dotted name or module; it gives N×K×h×w maps, or N×K values (a dense layer).
        unit: the channel, one for all pictures or N of them.
        position: (row, column) in the layer's map, one for all pictures or N of them; None takes
            the place where this channel is largest, in each picture.
        rule: how every activation below the unit answers: `gradients.guided_rule`,
            `gradients.deconvnet_rule`, or None for its true derivative.

    Returns:
        The raw, signed map, N×3×H×W, zero outside the unit's receptive field.

    Raises:
        ValueError: the layer, unit or position does not exist; or there is a rule, but no
            activation in the net that could follow it.

    Zeiler & Fergus 2013, "Visualizing and Understanding Convolutional Networks"; Springenberg et
    al. 2015, "Striving for Simplicity: The All Convolutional Net".
    """
    name, _ = find_layer(model, layer)
    with frozen(model):
        x = check_images(x).detach().clone().requires_grad_()
        rules = BackwardRules("activation")
        with record(model, [layer]) as outputs, rules:
            model(x.clone())  # a net may overwrite its input: not this leaf
        if name not in outputs:
            raise ValueError(f"the forward pass never calls layer {name!r}")
        if rule is not None and rules.count == 0:
            raise ValueError(
                f"{type(model).__name__} calls no activation that a rule could change: "
                "rule=None gives the plain gradient"
            )
        maps = _maps(outputs[name], name)
        value = maps[torch.arange(len(x), device=x.device), *_places(maps, unit, position)]
        rules.rules = {} if rule is None else {"activation": rule}
        return torch.autograd.grad(value.sum(), x)[0]


def _maps(output: Tensor, name: str) -> Tensor:
    """A layer's output as N×K×h×w; a dense layer's units have one position each."""
    if output.ndim not in (2, 4):
        raise ValueError(
            f"layer {name!r} gives {tuple(output.shape)}, neither N×K×h×w maps nor N×K values"
        )
    return output if output.ndim == 4 else output[:, :, None, None]


def _places(maps: Tensor, unit: object, position: object) -> tuple[Tensor, Tensor, Tensor]:
    """Channel, row and column for each picture."""
    n, units, *size = maps.shape
    channel = _whole_numbers(unit, (n,), "unit", [units], maps)
    if position is None:
        chosen = maps.detach()[torch.arange(n, device=maps.device), channel]
        best = chosen.flatten(1).argmax(dim=1)
        return channel, best // size[1], best % size[1]
    row, column = _whole_numbers(position, (n, 2), "position", size, maps).unbind(-1)
    return channel, row, column


def _whole_numbers(
    value: object, shape: tuple[int, ...], what: str, ends: list[int], maps: Tensor
) -> Tensor:
    """`value` as whole numbers of this shape, each below its end; else ``ValueError``."""
    try:
        numbers = torch.as_tensor(value, device=maps.device).expand(shape)
        fits = not numbers.is_floating_point() and numbers.dtype != torch.bool
    except (TypeError, ValueError, RuntimeError):
        fits = False
    if not fits:
        kind = "a whole number" if len(ends) == 1 else "a pair (row, column)"
        raise ValueError(f"{what} must be {kind}, or {shape[0]} of them, got {value!r}")
    end = torch.tensor(ends, device=maps.device)
    wrong = ((numbers < 0) | (numbers >= end)).view(shape[0], -1).any(1)
    if wrong.any():
        bad = numbers[wrong][0].tolist()
        raise ValueError(
            f"{what} {bad} does not exist: the layer gives {maps.shape[1]} maps of "
            f"{maps.shape[2]}×{maps.shape[3]}"
        )
    return numbers


@dataclass(frozen=True)
class Activity:
    """How much the K units of a layer did over a set of pictures.

    Attributes:
        positions: share of all positions of all pictures at which the unit is above 0, K values.
        pictures: share of the pictures in which it is above 0 anywhere, K values.
        largest: its largest value over all of them, K values.
    """

    positions: Tensor
    pictures: Tensor
    largest: Tensor

    @property
    def dead(self) -> Tensor:
        """Units that were above 0 nowhere in any picture: K truth values."""
        return self.largest <= 0

    @property
    def sparsity(self) -> float:
        """The share of the layer's values that are 0 (or would be after a ReLU)."""
        return 1 - float(self.positions.mean())


def activity(
    model: nn.Module, layers: Sequence[Layer], images: Iterable[Tensor], *, batch: int = 32
) -> dict[str, Activity]:
    """How often and how strongly the units of some layers fire over a set of pictures.

    A unit fires where its value is above 0, which is the same before and after its ReLU. The
    pictures are read one after the other, so any number of them can be given.

    Args:
        model: the net.
        layers: dotted names or modules; they give N×K×h×w maps or N×K values.
        images: pictures 3×H×W, of one size or of several.
        batch: how many pictures of one size go through the net together.

    Returns:
        Dotted name of each layer to its `Activity`.

    Raises:
        ValueError: a layer does not exist or is never called, or there is not one picture.
    """
    names = [find_layer(model, layer)[0] for layer in layers]
    fired: dict[str, Tensor] = {}
    seen: dict[str, Tensor] = {}
    largest: dict[str, Tensor] = {}
    positions, pictures = dict.fromkeys(names, 0), 0
    with frozen(model):
        for x in batches(images, batch):
            pictures += len(x)
            with record(model, layers) as outputs, torch.no_grad():
                model(like(x, model))
            for name in names:
                if name not in outputs:
                    raise ValueError(f"the forward pass never calls layer {name!r}")
                maps = _maps(outputs[name], name).flatten(2)  # N×K×positions
                above, top = maps > 0, maps.amax(dim=2)
                positions[name] += maps.shape[0] * maps.shape[2]
                fired[name] = fired.get(name, 0) + above.sum(dim=(0, 2))
                seen[name] = seen.get(name, 0) + (top > 0).sum(dim=0)
                largest[name] = torch.maximum(largest.get(name, top[0]), top.amax(dim=0))
    if not pictures:
        raise ValueError("there is not one picture to look at")
    return {
        name: Activity(fired[name] / positions[name], seen[name] / pictures, largest[name])
        for name in names
    }


def batches(images: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Pictures 3×H×W in their own order, as batches of at most `size` neighbours of equal size."""
    if size < 1:
        raise ValueError(f"a batch holds at least one picture, not {size}")
    waiting: list[Tensor] = []
    for number, image in enumerate(images):
        if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
            seen = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(f"picture {number} must be a float tensor 3×H×W, got {seen}")
        if waiting and (len(waiting) == size or waiting[0].shape != image.shape):
            yield check_images(torch.stack(waiting))
            waiting = []
        waiting.append(image)
    if waiting:
        yield check_images(torch.stack(waiting))


def like(x: Tensor, model: nn.Module) -> Tensor:
    """The pictures on the model's device, in its dtype."""
    parameter = next(model.parameters(), x)
    return x.to(parameter.device, parameter.dtype)
