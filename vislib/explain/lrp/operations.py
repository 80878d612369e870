"""Operations of a forward pass as layers ``z = f(x; w, b)``, for LRP and FullGrad.

Both methods need the weights and biases of a network's operations. A network can call the same
layer in many forms: as a module, as a function with positional or keyword arguments, as
``x @ w + b``. This module gives the operations that `vislib.core.BackwardRules` records one form,
and classifies the other operations:

    as_layer       convolution or dense operation as a `LinearLayer`
    with_norm      layer merged with the batch normalisation after it
    without_bias   layer with ``b = 0``
    is_shift       whether a sum adds a constant, which is a bias
    image_factors  number of factors of a product that depend on the image
    check_known    error for operations that a method has no rule for
"""

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
    """Convolution or dense layer ``z = f(x; w, b)``, with `inputs` ``(x,)`` and `output` ``z``.

    Attributes:
        weight: w, as `torch.nn.functional.linear` or the convolution takes it.
        bias: b, one number for each output channel, or None.
        f: ``f(x, w, b)`` runs the layer with other numbers and the same stride, padding and groups.
    """

    weight: Tensor
    bias: Tensor | None
    f: Callable[[Tensor, Tensor, Tensor | None], Tensor]


# The names of the positional arguments of operations for which they are not x, weight, bias.
_POSITIONS = {
    "matmul": ("x", "weight"),
    "mm": ("x", "weight"),
    "addmm": ("bias", "x", "weight"),
    "batch_norm": ("x", "mean", "var", "weight", "bias", "training", "momentum", "eps"),
}

# The names used here for PyTorch's keywords. The keyword `input` is missing, because
# `BackwardRules` makes it the first positional argument, which is the bias in `addmm`.
_KEYWORDS = {
    "other": "weight",
    "mat1": "x",
    "mat2": "weight",
    "running_mean": "mean",
    "running_var": "var",
}


def arguments(operation: Operation) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """Arguments of the call by name, and the remaining positional arguments."""
    names = _POSITIONS.get(operation.name, ("x", "weight", "bias"))
    by_name = dict(zip(names, operation.args, strict=False)) | dict(operation.kwargs)
    return {_KEYWORDS.get(key, key): v for key, v in by_name.items()}, operation.args[len(names) :]


def as_layer(operation: Operation) -> LinearLayer:
    """Convolution or dense operation as a `LinearLayer`.

    Raises:
        ValueError: the operation is not such a layer, for example because it multiplies two tensors
            that depend on the image.
    """
    if isinstance(operation, LinearLayer):
        return operation
    options, rest = arguments(operation)
    x, weight, bias = options.pop("x"), options.pop("weight"), options.pop("bias", None)
    is_layer = operation.family in ("convolution", "dense") and len(operation.inputs) == 1
    if not is_layer or x is not operation.inputs[0]:
        raise ValueError(
            f"there is no rule for this {operation.name}: it is not a layer, because a layer "
            "multiplies an input that depends on the image by weights that do not"
        )

    def convolve(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return operation.function(x, w, b, *rest, **options)

    # In x @ w the weights are transposed.
    if operation.family == "dense" and operation.name != "linear":
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


# --- Batch normalisation and biases ---------------------------------------------------------------


def with_norm(layer: LinearLayer, norm: Operation) -> LinearLayer:
    """Layer and the batch normalisation after it, ``γ (z - μ) / σ + β``, as one layer.

    Raises:
        ValueError: the batch normalisation is not linear, see `affine_of`.
    """
    scale, shift = affine_of(norm)
    z = layer.output
    with torch.enable_grad():
        output = z * on_channels(scale, z) + on_channels(shift, z)
    weight = layer.weight * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    bias = shift if layer.bias is None else shift + scale * layer.bias
    return replace(layer, output=output, weight=weight, bias=bias)


def without_bias(layer: LinearLayer) -> LinearLayer:
    """Same layer with ``b = 0``, so that its inputs receive all of the relevance."""
    if layer.bias is None:
        return layer
    with torch.enable_grad():
        output = layer.output - bias_of(layer)
    return replace(layer, output=output, bias=None)


def affine_of(norm: Operation) -> tuple[Tensor, Tensor]:
    """Scale ``γ/σ`` and shift ``β - γ μ/σ`` of batch normalisation, one number for each channel.

    Raises:
        ValueError: mean and variance are computed from the batch, so the operation is not linear.
    """
    options, _ = arguments(norm)
    mean, var = options.get("mean"), options.get("var")
    if mean is None or var is None or options.get("training"):
        raise ValueError(
            "there is no rule for batch normalisation that computes its mean from the images of "
            "the batch, because it is not linear: use a layer with track_running_stats=True"
        )
    scale = (var + options.get("eps", 1e-5)).rsqrt()
    if options.get("weight") is not None:
        scale = scale * options["weight"]
    shift = -mean * scale
    return scale, shift if options.get("bias") is None else shift + options["bias"]


def bias_of(layer: LinearLayer) -> Tensor:
    """Bias of a layer that has one, in a shape that can be added to ``z``."""
    assert layer.bias is not None
    return layer.bias if layer.family == "dense" else on_channels(layer.bias, layer.output)


def on_channels(v: Tensor, maps: Tensor) -> Tensor:
    """One number for each channel, in a shape that broadcasts to feature maps N×C×…."""
    return v.view(1, -1, *[1] * (maps.ndim - 2))


# --- Sums and products ----------------------------------------------------------------------------


def is_shift(operation: Operation) -> bool:
    """Whether a sum adds a constant, which does not depend on the image."""
    return operation.family == "sum" and not all(_depending(operation))


def image_factors(operation: Operation) -> int:
    """Number of factors of a product that depend on the image, 0 to 2.

    Raises:
        ValueError: the operation divides by a tensor that depends on the image.
    """
    depending = _depending(operation)
    if "div" in operation.name and depending[-1]:
        raise ValueError(
            f"there is no rule for {operation.name} by a tensor that depends on the image"
        )
    return sum(depending)


def _depending(operation: Operation) -> list[bool]:
    """Whether each of an operation's two operands depends on the image."""
    operands = [*operation.args[:2], operation.kwargs.get("other")]
    return [any(a is x for x in operation.inputs) for a in operands if a is not None]


def at_zero(operation: Operation) -> Tensor:
    """Result of the operation if all its inputs are 0."""
    zeros = {id(x): torch.zeros_like(x) for x in operation.inputs}
    args = [zeros.get(id(a), a) for a in operation.args]
    return operation.function(
        *args, **{k: zeros.get(id(a), a) for k, a in operation.kwargs.items()}
    )


# --- Operations without a family ------------------------------------------------------------------

# Operations that move or select values. Their derivative is also the correct rule for relevance.
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
    """Check that a method has a rule for all operations outside the families.

    Args:
        others: names of the operations that the model calls, see `ForwardPass.others`.
        method: name of the method, for the message.
        also: names that the method allows in addition to `MOVES`.

    Raises:
        ValueError: the model calls an operation that is in neither of these lists.
    """
    if unknown := sorted(set(others) - MOVES - set(also)):
        raise ValueError(f"{method} has no rule for {', '.join(unknown)}, which this model calls")
