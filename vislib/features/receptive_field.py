"""Receptive field of a unit, computed from the kernels, strides and paddings of the network.

The receptive field is the window of the image that a unit of a convolutional layer depends on. A
layer with kernel ``K``, dilation ``D``, stride ``S`` and padding ``P`` changes three numbers:

    size    r ← r + D · (K − 1) · j        number of pixels that one unit sees
    start   s ← s − P · j                  first pixel that unit 0 sees (negative in the padding)
    jump    j ← j · S                      distance between neighbouring units in pixels

At the pixels, the numbers are ``r = 1, s = 0, j = 1``. Unit ``i`` sees the pixels ``s + i·j`` to
``s + i·j + r − 1``. Rows and columns are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vislib.core import Layer, find_layer, frozen, operation_name, record, tensors_in

Pair = tuple[int, int]


@dataclass(frozen=True)
class ReceptiveField:
    """Receptive fields of the units of a layer. Every pair is (rows, columns).

    Attributes:
        size: height and width of one unit's receptive field, in pixels.
        jump: distance between the receptive fields of neighbouring units, in pixels.
        start: first row and column that unit (0, 0) sees, negative in the padding.
    """

    size: Pair = (1, 1)
    jump: Pair = (1, 1)
    start: Pair = (0, 0)

    def box(
        self, row: int, column: int, image_size: Pair | None = None
    ) -> tuple[int, int, int, int]:
        """Receptive field of one unit: top, bottom, left, right, with exclusive ends.

        Args:
            row: row of the unit in the feature map.
            column: column of the unit in the feature map.
            image_size: (height, width) of the image. If given, the box is cut at the border of the
                image, so that the unit sees exactly ``x[..., top:bottom, left:right]``.

        >>> field = ReceptiveField(size=(5, 5), jump=(2, 2), start=(-1, -1))
        >>> field.box(0, 3), field.box(0, 3, image_size=(8, 8))
        ((-1, 4, 5, 10), (0, 4, 5, 8))
        """
        top, left = (
            s + i * j for s, i, j in zip(self.start, (row, column), self.jump, strict=True)
        )
        bottom, right = top + self.size[0], left + self.size[1]
        if image_size is not None:
            top, bottom = (min(max(edge, 0), image_size[0]) for edge in (top, bottom))
            left, right = (min(max(edge, 0), image_size[1]) for edge in (left, right))
        return top, bottom, left, right

    def through(
        self, kernel: Pair, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
    ) -> ReceptiveField:
        """Receptive field after one more convolution or pooling, by the formulas of this module.

        Args:
            kernel: kernel size K, as (rows, columns) like all the following.
            stride: stride S.
            padding: padding P at the top and on the left.
            dilation: dilation D.

        >>> ReceptiveField().through((7, 7), stride=(2, 2), padding=(3, 3)).through((3, 3))
        ReceptiveField(size=(11, 11), jump=(2, 2), start=(-3, -3))
        """
        return ReceptiveField(
            _pairwise(
                lambda r, k, d, j: r + d * (k - 1) * j, self.size, kernel, dilation, self.jump
            ),
            _pairwise(lambda j, s: j * s, self.jump, stride),
            _pairwise(lambda s, p, j: s - p * j, self.start, padding, self.jump),
        )


def receptive_field(
    model: nn.Module, layer: Layer, *, image_size: Pair = (224, 224), channels: int = 3
) -> ReceptiveField:
    """Receptive field of the units of a layer, from kernels, strides, paddings and dilations.

    The model is called once with an image that has a shape but no values (device "meta"). This
    needs no arithmetic and does not change the model. Where branches meet (the sum in ResNet, the
    concatenation in SqueezeNet and GoogLeNet), the result is the smallest window that contains the
    receptive fields of all branches. For a layer that is called more than once, the last call
    counts, as in `vislib.core.record`.

    Args:
        model: feed-forward convolutional network.
        layer: dotted name of the layer, or the module itself.
        image_size: (height, width) of the image. It matters only for adaptive pooling, whose
            windows depend on it, and for models that accept only one size.
        channels: number of channels of the image.

    Returns:
        Size, jump and start of the smallest rectangle that contains the receptive field. With
        dilation, or with a stride larger than the kernel, some pixels of this rectangle are not
        used.

    Raises:
        ValueError: the layer does not exist or is never called, the model cannot process an image
            of this size, or the units have no receptive field, because an operation before the
            layer mixes all positions or is not supported.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2))
    >>> receptive_field(model, "2")
    ReceptiveField(size=(7, 7), jump=(4, 4), start=(0, 0))
    """
    name, _ = find_layer(model, layer)
    tensors = _without_values(model)
    dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), None)
    x = torch.empty(1, channels, *image_size, device="meta", dtype=dtype)
    tracker = _FieldTracker(x)
    outputs: Mapping[str, Tensor] = {}
    try:
        with frozen(model), torch.no_grad(), record(model, [layer]) as outputs, tracker:
            torch.func.functional_call(model, tensors, (x,), tie_weights=False)
    except Exception as error:
        # An error after the layer does not matter.
        if not outputs:
            raise ValueError(
                f"the model could not be called with an image of {image_size[0]}×{image_size[1]} "
                f"pixels and {channels} channels: {error}"
            ) from error
    if not outputs:
        raise ValueError(f"the forward pass never calls layer {name!r}: choose one that runs")
    field = tracker.of(outputs[name])
    if isinstance(field, str):
        raise ValueError(f"the units of layer {name!r} have no receptive field: {field}")
    return field


def _without_values(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a model on the device "meta", which has shapes only.

    A module with two names is listed once, because PyTorch does not restore a tensor correctly
    after it has replaced the tensor twice.
    """
    return {
        f"{prefix}.{key}".lstrip("."): value.to("meta")
        for prefix, part in model.named_modules()
        for key, value in [
            *part.named_parameters(recurse=False, remove_duplicate=False),
            *part.named_buffers(recurse=False, remove_duplicate=False),
        ]
    }


class _FieldTracker(TorchFunctionMode):
    """Receptive fields of all tensors of a forward pass. A `str` explains why there is none."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self._fields: dict[int, ReceptiveField | str] = {}
        # Python may give the id of a deleted tensor to another one, so all tensors are kept.
        self._kept: list[Tensor] = []
        self._set(image, ReceptiveField())

    def of(self, tensor: Tensor) -> ReceptiveField | str:
        return self._fields.get(id(tensor), "they do not depend on the image")

    def _set(self, tensor: Tensor, field: ReceptiveField | str) -> None:
        self._fields[id(tensor)] = field
        self._kept.append(tensor)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = [t for t in tensors_in([*args, *kwargs.values()]) if id(t) in self._fields]
        fields = [self._fields[id(t)] for t in inputs]
        # Shapes are read before the call, which may change a tensor in place.
        shapes = [tuple(t.shape[2:]) for t in inputs if t.ndim == 4]
        output = func(*args, **kwargs)
        if inputs:
            after = _after(operation_name(func), args, kwargs, fields, shapes)
            for tensor in tensors_in([output]):
                self._set(tensor, after)
        return output


# --- Receptive fields after one operation ---------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """One call of an operation.

    Attributes:
        name: name of the operation, as in `vislib.core.operation_name`.
        args: positional arguments.
        kwargs: keyword arguments.
        fields: receptive fields of the inputs that depend on the image.
        shapes: (height, width) of the inputs that depend on the image and are feature maps.
    """

    name: str
    args: tuple
    kwargs: Mapping[str, Any]
    fields: list[ReceptiveField]
    shapes: list[tuple]

    def argument(self, position: int, key: str, default: Any) -> Any:
        """Argument by its position or keyword; the default replaces None and ``[]``."""
        given = self.args[position] if len(self.args) > position else default
        value = self.kwargs.get(key, given)
        return default if value is None or value == [] else value


def _after(
    name: str, args: tuple, kwargs: dict, fields: list[ReceptiveField | str], shapes: list[tuple]
) -> ReceptiveField | str:
    """Receptive field after an operation, by the table ``_OPERATIONS``."""
    for field in fields:
        if isinstance(field, str):
            return field
    known = [field for field in fields if isinstance(field, ReceptiveField)]
    operation = _OPERATIONS.get(name, _unsupported)
    return operation(_Call(name, args, kwargs, known, shapes))


def _convolution(call: _Call) -> ReceptiveField:
    kernel = tuple(call.argument(1, "weight", None).shape[-2:])
    stride, dilation = _pair(call.argument(3, "stride", 1)), _pair(call.argument(5, "dilation", 1))
    padding = call.argument(4, "padding", 0)
    if padding == "same":
        padding = _pairwise(lambda k, d: d * (k - 1) // 2, kernel, dilation)
    elif padding == "valid":
        padding = 0
    return call.fields[0].through(kernel, stride, _pair(padding), dilation)


def _pooling(call: _Call) -> ReceptiveField:
    kernel = _pair(call.argument(1, "kernel_size", None))
    stride = _pair(call.argument(2, "stride", kernel))
    padding = _pair(call.argument(3, "padding", 0))
    # The argument at this position of average pooling is `ceil_mode`.
    dilation = (1, 1) if call.name == "avg_pool2d" else _pair(call.argument(4, "dilation", 1))
    return call.fields[0].through(kernel, stride, padding, dilation)


def _adaptive_pooling(call: _Call) -> ReceptiveField | str:
    before = call.shapes[0]
    output_size = _pair(call.argument(1, "output_size", 1))
    after = [h if w is None else w for h, w in zip(before, output_size, strict=True)]
    if any(h % w for h, w in zip(before, after, strict=True)):
        return (
            f"{call.name} turns maps of {before[0]}×{before[1]} into {after[0]}×{after[1]} with "
            "windows of unequal size; choose a layer before it"
        )
    kernel = _pairwise(lambda h, w: h // w, before, after)
    return call.fields[0].through(kernel, stride=kernel)


def _padding(call: _Call) -> ReceptiveField | str:
    pad = call.argument(1, "pad", None)
    if call.argument(2, "mode", "constant") != "constant":
        return "the padding copies pixels from other positions; choose a layer before it"
    left, top = pad[0], (*pad, 0, 0)[2]
    return call.fields[0].through((1, 1), padding=(top, left))


def _indexing(call: _Call) -> ReceptiveField | str:
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    # None and ... shift the axes, so that the third entry may not belong to the rows.
    shifted = any(entry is None or entry is Ellipsis for entry in index)
    if shifted or any(entry != slice(None) for entry in index[2:]):
        return "an operation before it cuts out a part of the feature map"
    return call.fields[0]


def _split_of_channels(call: _Call) -> ReceptiveField:
    return call.fields[0]


def _same_position(call: _Call) -> ReceptiveField | str:
    """Smallest window that contains the receptive fields of all inputs."""
    fields = call.fields
    if len(set(call.shapes)) > 1:
        return f"{call.name} joins maps of different sizes; choose a layer inside one branch"
    if len({field.jump for field in fields}) > 1:
        return f"{call.name} joins branches of different strides; choose a layer inside one branch"
    start = _pairwise(lambda *s: min(s), *(field.start for field in fields))
    ends = [_pairwise(lambda s, r: s + r, field.start, field.size) for field in fields]
    end = _pairwise(lambda *e: max(e), *ends)
    return ReceptiveField(_pairwise(lambda e, s: e - s, end, start), fields[0].jump, start)


def _unsupported(call: _Call) -> str:
    return (
        f"they come after {call.name}, which mixes positions or is not supported; "
        "choose a layer before it"
    )


# Operations that compute each position from the same position of their inputs.
_SAME_POSITION = (
    "relu relu6 hardtanh leaky_relu prelu rrelu elu celu selu gelu silu mish softplus hardswish "
    "hardsigmoid sigmoid tanh clamp abs exp log sqrt square neg pow batch_norm dropout dropout2d "
    "feature_dropout alpha_dropout local_response_norm add sub rsub mul div true_divide truediv "
    "cat concat stack maximum minimum clone contiguous detach to float double half requires_grad "
    "__add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__ __truediv__ "
    "__rtruediv__ __itruediv__ __neg__ __pow__"
)
_OPERATIONS: dict[str, Callable[[_Call], ReceptiveField | str]] = {
    **dict.fromkeys(_SAME_POSITION.split(), _same_position),
    "conv2d": _convolution,
    **dict.fromkeys(["max_pool2d", "max_pool2d_with_indices", "avg_pool2d"], _pooling),
    **dict.fromkeys(["adaptive_avg_pool2d", "adaptive_max_pool2d"], _adaptive_pooling),
    **dict.fromkeys(["unsqueeze", "chunk", "split"], _split_of_channels),
    "pad": _padding,
    "__getitem__": _indexing,
}


def _pair(value: Any) -> Any:
    """Pair for one number or for a tuple of one: ``3`` and ``(3,)`` become ``(3, 3)``."""
    pair = tuple(value) if isinstance(value, list | tuple) else (value,)
    return pair * 2 if len(pair) == 1 else pair


def _pairwise(rule: Callable[..., int], *pairs: Iterable[int]) -> Pair:
    """Rule applied to the rows and to the columns of the pairs."""
    rows, columns = (rule(*values) for values in zip(*pairs, strict=True))
    return rows, columns
