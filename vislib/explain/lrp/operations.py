"""Operations as layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vislib.core import Operation


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearLayer(Operation):
    """A convolution or dense layer ``z = f(x; w, b)``, `inputs` ``(x,)``, `output` ``z``.

    `f` runs it with other numbers.
    """

    weight: Tensor
    bias: Tensor | None
    f: Callable[[Tensor, Tensor, Tensor | None], Tensor]


# Arguments by position, and other keywords for them. What `addmm` calls "input" is its bias.
_POSITIONS = {
    "matmul": ("x", "weight"),
    "mm": ("x", "weight"),
    "addmm": ("bias", "x", "weight"),
    "batch_norm": ("x", "mean", "var", "weight", "bias", "training", "momentum", "eps"),
}


_KEYWORDS = {
    "other": "weight",
    "mat1": "x",
    "mat2": "weight",
    "running_mean": "mean",
    "running_var": "var",
}


def arguments(operation: Operation) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """The call's arguments by name, and what stands by position after them."""
    names = _POSITIONS.get(operation.name, ("x", "weight", "bias"))
    by_name = dict(zip(names, operation.args, strict=False)) | dict(operation.kwargs)
    return {_KEYWORDS.get(key, key): v for key, v in by_name.items()}, operation.args[len(names) :]


def as_layer(operation: Operation) -> LinearLayer:
    """A convolution or dense operation as a `LinearLayer`.

    ``ValueError`` for what is no such layer, as a product of two tensors that depend on the image.
    """
    if isinstance(operation, LinearLayer):
        return operation
    options, rest = arguments(operation)
    x, weight, bias = options.pop("x"), options.pop("weight"), options.pop("bias", None)
    is_layer = operation.family in ("convolution", "dense") and len(operation.inputs) == 1
    if not is_layer or x is not operation.inputs[0]:
        raise ValueError(
            f"there is no rule for this {operation.name}: it is no layer, where an input that "
            "depends on the image meets weights that do not"
        )

    def convolve(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return operation.function(x, w, b, *rest, **options)  # with its stride, padding, groups

    if operation.family == "dense" and operation.name != "linear":  # x @ w
        weight = weight.mT
    return LinearLayer(
        function=operation.function,
        inputs=operation.inputs,
        output=operation.output,
        name=operation.name,
        family=operation.family,
        weight=weight,
        bias=bias,
        f=convolve if operation.family == "convolution" else F.linear,
    )


def with_norm(layer: LinearLayer, norm: Operation) -> LinearLayer:
    """A layer and the BatchNorm after it as one layer: ``γ (z - μ) / σ + β`` is linear in x too."""
    scale, shift = affine_of(norm)
    z = layer.output
    with torch.enable_grad():
        output = z * on_channels(scale, z) + on_channels(shift, z)
    weight = layer.weight * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    bias = shift if layer.bias is None else shift + scale * layer.bias
    return replace(layer, output=output, weight=weight, bias=bias)


def without_bias(layer: LinearLayer) -> LinearLayer:
    """The same layer with ``b = 0``, so that its inputs share all the relevance."""
    if layer.bias is None:
        return layer
    with torch.enable_grad():
        output = layer.output - bias_of(layer)
    return replace(layer, output=output, bias=None)


def affine_of(norm: Operation) -> tuple[Tensor, Tensor]:
    """Scale ``γ/σ`` and shift ``β - γ μ/σ`` of each channel of a BatchNorm in evaluation mode."""
    options, _ = arguments(norm)
    mean, var = options.get("mean"), options.get("var")
    if mean is None or var is None or options.get("training"):
        raise ValueError(
            "a batch norm that computes its mean from the images at hand is not linear: "
            "there is no rule for it (does it keep track_running_stats?)"
        )
    scale = (var + options.get("eps", 1e-5)).rsqrt()
    if options.get("weight") is not None:
        scale = scale * options["weight"]
    shift = -mean * scale
    return scale, shift if options.get("bias") is None else shift + options["bias"]


def bias_of(layer: LinearLayer) -> Tensor:
    """The bias in a shape to be added to ``z``."""
    assert layer.bias is not None
    return layer.bias if layer.family == "dense" else on_channels(layer.bias, layer.output)


def on_channels(v: Tensor, maps: Tensor) -> Tensor:
    """One number per channel, in a shape to be multiplied with N×C×…."""
    return v.view(1, -1, *[1] * (maps.ndim - 2))


def is_shift(operation: Operation) -> bool:
    """Whether a sum adds something that does not depend on the image."""
    return operation.family == "sum" and not all(_depending(operation))


def image_factors(operation: Operation) -> int:
    """How many factors of a product depend on the image. ``ValueError`` for one that divides."""
    depending = _depending(operation)
    if "div" in operation.name and depending[-1]:
        raise ValueError(f"there is no rule for a {operation.name} by what depends on the image")
    return sum(depending)


def _depending(operation: Operation) -> list[bool]:
    """Which of an operation's two operands depend on the image."""
    operands = [*operation.args[:2], operation.kwargs.get("other")]
    return [any(a is x for x in operation.inputs) for a in operands if a is not None]


def at_zero(operation: Operation) -> Tensor:
    """The operation's result where all its inputs are 0."""
    zeros = {id(x): torch.zeros_like(x) for x in operation.inputs}
    args = [zeros.get(id(a), a) for a in operation.args]
    return operation.function(
        *args, **{k: zeros.get(id(a), a) for k, a in operation.kwargs.items()}
    )


# Operations that move or select numbers: what their derivative does is right for relevance too.
MOVES = frozenset(
    """
    cat concat concatenate stack flatten unflatten ravel view view_as reshape reshape_as permute
    transpose swapaxes movedim contiguous clone __getitem__ __get__ chunk split tensor_split
    unbind squeeze unsqueeze expand expand_as narrow select index_select roll flip pad dropout
    dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout
    max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices
    max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax max
    pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle to float double half
    bfloat16 type requires_grad_
    """.split()  # noqa: SIM905
)


def check_known(others: Iterable[str], method: str, also: Iterable[str] = ()) -> None:
    """``ValueError`` for operations outside all families that do more than move numbers."""
    if unknown := sorted(set(others) - MOVES - set(also)):
        raise ValueError(f"{method} has no rule for {', '.join(unknown)}, which this model calls")
