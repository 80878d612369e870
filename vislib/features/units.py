"""Filters, activity and views of single units.

A **unit** is one channel k of a layer. A **view** shows the pixels that excite the unit. It is the
result of a backward pass that starts at one activation ``a = A^k[row, column]`` of the feature map
instead of at a class score. Three rules are possible (see `vislib.explain.gradients`):

    gradient          ∂a/∂x
    deconvnet         the same with  R_in = (R > 0) · R             at every earlier ReLU
    guided backprop   the same with  R_in = (f > 0) · (R > 0) · R   at every earlier ReLU

A view is zero outside the receptive field of the unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vislib.core import BackwardRules, Layer, Rule, check_images, find_layer, frozen, record
from vislib.explain.gradients import guided_rule


def first_filters(model: nn.Module) -> Tensor:
    """Weights of the first convolution of a model, K×3×k×k: one small colour image for each unit.

    Args:
        model: network that has a convolution.

    Returns:
        A copy of the weights.

    Raises:
        ValueError: the model has no convolution, or the first one does not have three input
            channels.

    >>> first_filters(nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU())).shape
    torch.Size([8, 3, 5, 5])
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            if module.weight.shape[1] != 3:
                raise ValueError(
                    "the first convolution must have 3 input channels, so that its filters can be "
                    f"shown in colour, got {module.weight.shape[1]} input channels"
                )
            return module.weight.detach().clone()
    raise ValueError(f"{type(model).__name__} has no convolution")


def filter_images(weights: Tensor, *, quantile: float = 1.0) -> Tensor:
    """Filters as images in [0, 1]: ``0.5 + 0.5 · w / max|w|``, with one scale for each filter.

    Zero becomes mid-grey. Positive values are brighter than mid-grey, negative values are darker.

    Args:
        weights: K×C×k×k, or any shape whose first axis counts the filters (or views).
        quantile: from 0 to 1. Below 1, this quantile of ``|w|`` replaces the maximum, and larger
            values are clipped. This suits a view, in which few pixels are by far the largest.

    Returns:
        The images, in the shape of `weights`, in [0, 1]. A filter of zeros is grey.

    >>> filter_images(torch.tensor([[2.0, -1.0, 0.0]]))
    tensor([[1.0000, 0.2500, 0.5000]])
    """
    sizes = weights.abs().flatten(1)
    scale = sizes.amax(dim=1) if quantile == 1 else sizes.quantile(quantile, dim=1)
    scale = torch.where(scale > 0, scale, sizes.amax(dim=1))
    scale = scale.clamp(min=torch.finfo(weights.dtype).tiny)
    return (0.5 + 0.5 * weights / scale.view(-1, *[1] * (weights.ndim - 1))).clamp(0, 1)


def unit_view(
    model: nn.Module,
    x: Tensor,
    layer: Layer,
    unit: int | Sequence[int] | Tensor,
    *,
    position: tuple[int, int] | Sequence[tuple[int, int]] | Tensor | None = None,
    rule: Rule | None = guided_rule,
) -> Tensor:
    """View of one unit: the backward pass from its activation to the pixels, N×3×H×W, signed.

    The layer may be before or after its ReLU. If it is after, the rule also applies to that ReLU.
    If a layer is called more than once, the last call counts.

    Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks"; Springenberg et
    al. 2015, "Striving for Simplicity: The All Convolutional Net".

    Args:
        model: any network that takes images N×3×H×W. Its output does not matter.
        x: images, N×3×H×W, float and finite.
        layer: dotted name of a layer that gives feature maps N×K×h×w or values N×K (a dense
            layer), or the module itself.
        unit: channel, one for all images or N of them.
        position: (row, column) in the feature map, one for all images or N of them; by default the
            position of the channel's largest value in each image.
        rule: backward rule of every activation before the unit: `gradients.guided_rule`,
            `gradients.deconvnet_rule`, or None for the true derivative.

    Raises:
        ValueError: `x` is not a batch of finite images, the layer, unit or position does not exist,
            or a rule is given and the model calls no activation.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> view = unit_view(model, torch.rand(1, 3, 9, 9), "2", unit=1, position=(0, 0), rule=None)
    >>> view.shape, bool(view[..., 5:].any())
    (torch.Size([1, 3, 9, 9]), False)
    """
    name, _ = find_layer(model, layer)
    with frozen(model):
        x = check_images(x).detach().clone().requires_grad_()
        rules = BackwardRules("activation")
        with record(model, [layer]) as outputs, rules:
            # A clone, because a network may overwrite its input.
            model(x.clone())
        if name not in outputs:
            raise ValueError(f"the forward pass never calls layer {name!r}: choose one that runs")
        if rule is not None and rules.count == 0:
            raise ValueError(
                f"{type(model).__name__} calls no activation to which the rule could apply: "
                "rule=None gives the plain gradient"
            )
        maps = _as_maps(outputs[name], name)
        images = torch.arange(len(x), device=x.device)
        activation = maps[images, *_positions(maps, unit, position)]
        rules.rules = {} if rule is None else {"activation": rule}
        return torch.autograd.grad(activation.sum(), x)[0]


def _as_maps(output: Tensor, name: str) -> Tensor:
    """Output of a layer as N×K×h×w; the units of a dense layer have one position each."""
    if output.ndim not in (2, 4):
        raise ValueError(
            f"layer {name!r} must give N×K×h×w maps or N×K values, got shape {tuple(output.shape)}"
        )
    return output if output.ndim == 4 else output[:, :, None, None]


def _positions(maps: Tensor, unit: object, position: object) -> tuple[Tensor, Tensor, Tensor]:
    """Channel, row and column for each image."""
    n, units, *size = maps.shape
    channel = _whole_numbers(unit, (n,), "unit", [units], maps)
    if position is None:
        chosen = maps.detach()[torch.arange(n, device=maps.device), channel]
        best = chosen.flatten(1).argmax(dim=1)
        return channel, best // size[1], best % size[1]
    row, column = _whole_numbers(position, (n, 2), "position", size, maps).unbind(-1)
    return channel, row, column


def _whole_numbers(
    value: object, shape: tuple[int, ...], name: str, ends: list[int], maps: Tensor
) -> Tensor:
    """Argument as whole numbers of the shape, each at least 0 and below its end; else an error."""
    try:
        numbers = torch.as_tensor(value, device=maps.device).expand(shape)
        fits = not numbers.is_floating_point() and numbers.dtype != torch.bool
    except (TypeError, ValueError, RuntimeError):
        fits = False
    if not fits:
        kind = "a whole number" if len(ends) == 1 else "a pair (row, column)"
        raise ValueError(f"{name} must be {kind}, or {shape[0]} of them, got {value!r}")
    end = torch.tensor(ends, device=maps.device)
    wrong = ((numbers < 0) | (numbers >= end)).view(shape[0], -1).any(1)
    if wrong.any():
        bad = numbers[wrong][0].tolist()
        raise ValueError(
            f"{name} {bad} does not exist: the layer gives {maps.shape[1]} maps of "
            f"{maps.shape[2]}×{maps.shape[3]}"
        )
    return numbers


@dataclass(frozen=True)
class Activity:
    """Activity of the K units of a layer over a set of images.

    Attributes:
        positions: fraction of all positions of all images at which the unit is above 0, K values.
        images: fraction of the images in which the unit is above 0 at any position, K values.
        largest: largest value of the unit, K values.
    """

    positions: Tensor
    images: Tensor
    largest: Tensor

    @property
    def dead(self) -> Tensor:
        """Whether each unit is never above 0, at any position of any image: K booleans."""
        return self.largest <= 0

    @property
    def sparsity(self) -> float:
        """Fraction of the layer's values that are 0 (or would be after a ReLU)."""
        return 1 - float(self.positions.mean())


def activity(
    model: nn.Module, layers: Sequence[Layer], images: Iterable[Tensor], *, batch: int = 32
) -> dict[str, Activity]:
    """Activity of the units of some layers: how often and how strongly they fire.

    A unit fires at the positions where its value is above 0. These are the same before and after
    its ReLU. The images are read one after the other, so their number is not limited.

    Args:
        model: any network.
        layers: dotted names or modules of layers that give feature maps N×K×h×w or values N×K.
        images: images 3×H×W, of one or several sizes.
        batch: number of images of one size that are processed together.

    Returns:
        The `Activity` of each layer, by its dotted name.

    Raises:
        ValueError: a layer does not exist or is never called, `images` is empty, or an image is not
            a finite float tensor 3×H×W.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> _ = nn.init.constant_(model[0].bias, -10.0)
    >>> activity(model, ["1"], torch.rand(5, 3, 8, 8))["1"].dead
    tensor([True, True, True, True])
    """
    names = [find_layer(model, layer)[0] for layer in layers]
    at_positions: dict[str, Tensor] = {}
    in_images: dict[str, Tensor] = {}
    largest: dict[str, Tensor] = {}
    positions, number = dict.fromkeys(names, 0), 0
    with frozen(model):
        for x in batches(images, batch):
            number += len(x)
            with record(model, layers) as outputs, torch.no_grad():
                model(to_device_of(model, x))
            for name in names:
                if name not in outputs:
                    raise ValueError(
                        f"the forward pass never calls layer {name!r}: choose one that runs"
                    )
                maps = _as_maps(outputs[name], name).flatten(2)  # N×K×positions
                fires, top = maps > 0, maps.amax(dim=2)
                positions[name] += maps.shape[0] * maps.shape[2]
                at_positions[name] = at_positions.get(name, 0) + fires.sum(dim=(0, 2))
                in_images[name] = in_images.get(name, 0) + (top > 0).sum(dim=0)
                largest[name] = torch.maximum(largest.get(name, top[0]), top.amax(dim=0))
    if not number:
        raise ValueError("images is empty: at least one image is needed")
    return {
        name: Activity(
            at_positions[name] / positions[name], in_images[name] / number, largest[name]
        )
        for name in names
    }


def batches(images: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Yield batches n×3×H×W of at most `size` successive images of equal size, in their order.

    Args:
        images: images 3×H×W.
        size: largest number of images in a batch.

    Raises:
        ValueError: `size` is below 1, or an image is not a finite float tensor 3×H×W.

    >>> [len(batch) for batch in batches([torch.rand(3, 8, w) for w in (8, 8, 8, 9)], 2)]
    [2, 1, 1]
    """
    if size < 1:
        raise ValueError(f"batch must be at least 1, got {size}")
    waiting: list[Tensor] = []
    for number, image in enumerate(images):
        if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
            got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(f"image {number} must be a float tensor 3×H×W, got {got}")
        if waiting and (len(waiting) == size or waiting[0].shape != image.shape):
            yield check_images(torch.stack(waiting))
            waiting = []
        waiting.append(image)
    if waiting:
        yield check_images(torch.stack(waiting))


def to_device_of(model: nn.Module, x: Tensor) -> Tensor:
    """Images `x` on the model's device and in its dtype."""
    parameter = next(model.parameters(), x)
    return x.to(parameter.device, parameter.dtype)
