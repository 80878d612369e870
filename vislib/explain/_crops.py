"""Partial forward pass for occlusion: only the part that a covered square can change is computed.

Occlusion runs a network on hundreds of copies of one image that differ in a small square. A square
changes only a part of each feature map. Let a convolution or pooling have kernel size ``K``, stride
``S`` and padding ``P``. If rows ``a … b`` of its input change, the rows

    ⌈(a + P - K + 1) / S⌉ … ⌊(b + P) / S⌋

of its output change, and the same holds for columns. Therefore the network runs once on the clean
image, and its feature maps are kept. For each changed copy, a convolution or pooling then gets only
a crop: the kept feature map around the changed part, with the changed part pasted in. This saves
most of the computation in early layers, where the changed part is small.

`PartialForward` does this for any network, because PyTorch passes it each operation. An operation
that is not known to be local (global pooling, a linear layer, a change of shape) gets full feature
maps, and so do all operations after it. If the feature maps cannot be followed at all (a compiled
model, a part of a feature map that is overwritten in place), the network gets full images.

The results equal those of full forward passes up to rounding, because sums are computed in another
order. The tests of occlusion compare both on ten architectures, on single layers of many kinds, and
on networks with views, in-place operations and compiled parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vislib.core import FAMILIES, operation_name, tensors_in

Pair = tuple[int, int]

_POINTWISE = FAMILIES["activation"] | {"clone", "detach", "contiguous"}
_ARITHMETIC = frozenset(["add", "sub", "mul", "div", "truediv"])
# PyTorch passes x.shape to a mode as Tensor.shape.__get__.
_SHAPE_QUERIES = frozenset(["dim", "size", "numel", "__get__"])
# Assumed number of channels of the largest feature maps if the network gets full images. The first
# layers of VGG have 64 channels at the size of the image.
_CHANNELS = 64


@dataclass
class Placement:
    """Positions of a batch of crops in the full feature maps, with those of the clean image.

    Attributes:
        clean: feature maps of the clean image, 1×C×H×W.
        rows: first row of each crop.
        columns: first column of each crop.
    """

    clean: Tensor
    rows: list[int]
    columns: list[int]

    def paste(
        self, crops: Tensor, into: Tensor, rows: Sequence[int], columns: Sequence[int]
    ) -> Tensor:
        """Paste the crops into larger crops B×C×h×w, which begin at `rows` and `columns`."""
        height, width = crops.shape[-2:]
        for b, crop in enumerate(crops):
            top, left = self.rows[b] - rows[b], self.columns[b] - columns[b]
            into[b, :, top : top + height, left : left + width] = crop
        return into

    def full(self, crops: Tensor) -> Tensor:
        """Full feature maps, B×C×H×W: those of the clean image with the crops pasted in."""
        zeros = [0] * len(crops)
        return self.paste(crops, self.clean.repeat(len(crops), 1, 1, 1), zeros, zeros)


class PartialForward(TorchFunctionMode):
    """Context manager that runs a network on crops, after `keep` has run it on the clean image.

    Attributes:
        largest: number of values of the largest feature map of one crop so far, which determines
            the memory that a crop needs.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(7200, 5))
    >>> image, black = torch.rand(1, 3, 32, 32), torch.zeros(2, 3, 4, 4)
    >>> with PartialForward() as forward, torch.no_grad():
    ...     _ = forward.keep(model, image)
    ...     logits = model(forward.start(black, rows=[0, 9], columns=[5, 9]))
    >>> image[..., 9:13, 9:13] = 0
    >>> torch.allclose(logits[1], model(image)[0], atol=1e-5)
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest = 1
        # The feature maps of the clean image after each local operation, and the same with padding.
        self._kept: list[Tensor] = []
        self._padded: dict[int, Tensor] = {}
        # Whether the clean image is running, and whether the network gets full images.
        self._keeping = False
        self._whole = False
        self._forget()

    def _forget(self) -> None:
        self._step = 0
        self._placements: dict[int, Placement] = {}
        # Tensors that depend on the image, but not locally.
        self._global: set[int] = set()
        # Tensors are identified by their ids. An id is valid only as long as its tensor exists.
        self._alive: list[Tensor] = []

    def keep(self, model: nn.Module, image: Tensor) -> Tensor:
        """Run the model on the clean image, 1×C×H×W, keep its feature maps, return its output."""
        self._image, self._kept, self._padded = image, [], {}
        self._keeping, self._whole = True, False
        try:
            output = model(self.start(image.clone(), [0], [0]))
        finally:
            self._keeping = False
        # If the output is unknown, PyTorch did not pass some operation to this mode.
        if id(output) not in self._placements and id(output) not in self._global:
            self._whole = True
        if self._whole:
            self.largest = max(self.largest, _CHANNELS * image[0, 0].numel())
        return output

    def start(self, crops: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
        """Next input of the model for a batch of changed copies of the image.

        Args:
            crops: changed part of each copy, B×C×h×w, inside the image.
            rows: first row of each crop in the image.
            columns: first column of each crop in the image.

        Returns:
            The crops, or full images B×C×H×W if the model cannot run on crops.
        """
        self._forget()
        placement = Placement(self._image, list(rows), list(columns))
        return placement.full(crops) if self._whole else self._follow(crops, placement)

    def full(self, output: Tensor) -> Tensor:
        """Full feature maps, B×C×H×W, of a layer's output. Call it after the ``with`` block."""
        placement = self._placements.get(id(output))
        return output if placement is None else placement.full(output)

    def _follow(self, tensor: Tensor, placement: Placement) -> Tensor:
        """Return the tensor after storing that it is crops with this placement."""
        self._placements[id(tensor)] = placement
        self._alive.append(tensor)
        return tensor

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = list(tensors_in([*args, *kwargs.values()]))
        followed = [t for t in tensors if id(t) in self._placements]
        has_global = any(id(t) in self._global for t in tensors)
        if not followed and not has_global:
            return func(*args, **kwargs)
        name, in_place = _name_and_in_place(func, kwargs)
        placements = [self._placements[id(t)] for t in followed]
        # A query of the shape gets that of the full feature maps, without making them.
        if name in _SHAPE_QUERIES and followed:
            shape = (len(followed[0]), *placements[0].clean.shape[1:])
            result = func(followed[0].new_empty(1).expand(shape), *args[1:], **kwargs)
            # x.data is also a __get__, but its result is a tensor.
            if not isinstance(result, Tensor):
                return result
        window = _window(name, args, kwargs) if name in _ARGUMENTS and not has_global else None
        others = [t for t in tensors if id(t) not in self._placements]
        local = not has_global and _is_pointwise(name, args, kwargs, placements, others)
        if self._keeping and in_place:
            changed = tensors[-1] if "out" in kwargs else tensors[0]
            not_followed = id(changed) in self._placements and not local
            self._whole = self._whole or not_followed or self._is_shared(changed)
        if window is None and not local:
            return self._on_full_maps(func, args, kwargs, followed)
        if self._keeping:
            # An in-place operation must not change the feature map that was kept before.
            if in_place:
                self._kept = [k.clone() if k is followed[0] else k for k in self._kept]
            output = func(*args, **kwargs)
            self._kept.append(output)
            return self._follow(output, Placement(output, [0], [0]))
        clean = self._kept[self._step]
        if window is not None:
            output, placement = self._through_window(window, followed[0], placements[0], clean)
        else:
            joined, rows, columns = _join(followed, placements)
            replacements = {id(t): crops for t, crops in zip(followed, joined, strict=True)}
            output = func(*_replace(args, replacements), **_replace(kwargs, replacements))
            # All other references to the tensor must see an in-place change.
            if in_place and output is not followed[0]:
                followed[0].data = output
                output = followed[0]
            placement = Placement(clean, rows, columns)
        self._step += 1
        self.largest = max(self.largest, output[0].numel())
        return self._follow(output, placement)

    def _is_shared(self, tensor: Tensor) -> bool:
        """Whether an in-place change of the tensor would be lost with crops.

        This happens if two tensors use the same memory and only one of them is replaced by crops.
        """
        memory = tensor.untyped_storage().data_ptr()
        return any(
            other is not tensor
            and (id(tensor) in self._placements or id(other) in self._placements)
            and other.untyped_storage().data_ptr() == memory
            for other in self._alive
        )

    def _on_full_maps(
        self, func: Callable[..., Any], args: tuple, kwargs: dict, followed: list[Tensor]
    ) -> Any:
        """Result of an operation that is not local, computed from full feature maps."""
        if not self._keeping:
            full = {id(t): self.full(t) for t in followed}
            args, kwargs = _replace(args, full), _replace(kwargs, full)
            self.largest = max(self.largest, *(t[0].numel() for t in full.values()), 1)
        output = func(*args, **kwargs)
        for tensor in tensors_in([output]):
            self._global.add(id(tensor))
            self._alive.append(tensor)
        return output

    def _through_window(
        self, window: Window, crops: Tensor, placement: Placement, clean: Tensor
    ) -> tuple[Tensor, Placement]:
        """Output of a convolution or pooling where the crops can change it, and its placement."""
        begins, sizes = [], []
        for axis, starts in enumerate((placement.rows, placement.columns)):
            begin, size = window.reach(axis, starts, crops.shape[2 + axis], clean.shape[2 + axis])
            begins.append(begin)
            sizes.append(window.span(axis, size))
        padded = self._padded.get(self._step)
        if padded is None:
            padded = self._padded[self._step] = window.pad(placement.clean, clean.shape[2:])
        (pad_top, pad_left), (height, width) = window.padding, sizes
        tops = [row * window.stride[0] for row in begins[0]]
        lefts = [column * window.stride[1] for column in begins[1]]
        inputs = torch.cat(
            [padded[..., y : y + height, x : x + width] for y, x in zip(tops, lefts, strict=True)]
        )
        for b, crop in enumerate(crops):
            y = placement.rows[b] + pad_top - tops[b]
            x = placement.columns[b] + pad_left - lefts[b]
            # The window does not read the rest of the crop.
            read = crop[:, max(0, -y) : height - y, max(0, -x) : width - x]
            y, x = max(0, y), max(0, x)
            inputs[b, :, y : y + read.shape[1], x : x + read.shape[2]] = read
        return window.apply(inputs), Placement(clean, *begins)


@dataclass(frozen=True)
class Window:
    """Convolution or pooling as a function of padded feature maps.

    Attributes:
        apply: the function, which adds no padding.
        kernel: height and width of the kernel, including its dilation.
        stride: vertical and horizontal stride.
        padding: vertical and horizontal padding on each side.
        padding_value: value of the padding.
    """

    apply: Callable[[Tensor], Tensor]
    kernel: Pair
    stride: Pair
    padding: Pair
    padding_value: float

    def reach(self, axis: int, starts: Sequence[int], size: int, end: int) -> tuple[list[int], int]:
        """Outputs that depend on the inputs ``start … start + size - 1`` of each crop.

        Args:
            axis: 0 for rows, 1 for columns.
            starts: first changed input of each crop.
            size: number of changed inputs of each crop.
            end: total number of outputs.

        Returns:
            The first output for each crop, and the number of outputs, the same for all crops.
        """
        kernel, stride, padding = self.kernel[axis], self.stride[axis], self.padding[axis]
        first = [max(0, -((kernel - 1 - start - padding) // stride)) for start in starts]
        last = [min(end - 1, (start + size - 1 + padding) // stride) for start in starts]
        common = max(1, *(b - a + 1 for a, b in zip(first, last, strict=True)))
        return [min(a, end - common) for a in first], common

    def span(self, axis: int, size: int) -> int:
        """Number of padded inputs that `size` neighbouring outputs depend on."""
        return (size - 1) * self.stride[axis] + self.kernel[axis]

    def pad(self, maps: Tensor, outputs: Sequence[int]) -> Tensor:
        """Feature maps with padding, enough for this many outputs (more with ``ceil_mode``)."""
        pads: list[int] = []
        # F.pad takes the last axis first.
        for axis in (1, 0):
            before, size = self.padding[axis], maps.shape[2 + axis]
            pads += [before, max(before, self.span(axis, outputs[axis]) - before - size)]
        return F.pad(maps, pads, value=self.padding_value)


_ARGUMENTS = {
    "conv2d": "input weight bias stride padding dilation groups",
    "max_pool2d": "input kernel_size stride padding dilation ceil_mode return_indices",
    "avg_pool2d": "input kernel_size stride padding ceil_mode count_include_pad",
    "pad": "input pad mode value",
}


def _window(name: str, args: tuple, kwargs: dict) -> Window | None:
    """Window of a call of ``F.conv2d``, ``F.max_pool2d``, ``F.avg_pool2d`` or ``F.pad``.

    The result is None if outputs at the border are computed differently from the others, because
    crops do not have this border.
    """
    given = dict(zip(_ARGUMENTS[name].split(), args, strict=False)) | kwargs
    if name == "pad":
        sides = given["pad"]
        if given.get("mode", "constant") != "constant" or len(sides) != 4 or min(sides) < 0:
            return None
        # `Window.pad` adds the zeros below and on the right up to the size of the output.
        return Window(lambda x: x, (1, 1), (1, 1), (sides[2], sides[0]), given.get("value") or 0.0)
    padding, dilation = given.get("padding", 0), _pair(given.get("dilation", 1))
    if isinstance(padding, str):
        return None
    padding = _pair(padding)
    if name == "conv2d":
        weight, stride = given["weight"], _pair(given.get("stride", 1))
        height, width = (d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True))
        rest = (weight, given.get("bias"), stride, 0, dilation, given.get("groups", 1))
        return Window(lambda x: F.conv2d(x, *rest), (height, width), stride, padding, 0.0)
    kernel = _pair(given["kernel_size"])
    stride = _pair(given.get("stride") or kernel)
    if name == "max_pool2d":
        if dilation != (1, 1) or given.get("return_indices"):
            return None
        return Window(
            lambda x: F.max_pool2d(x, kernel, stride), kernel, stride, padding, -torch.inf
        )
    counted = given.get("count_include_pad", True) or padding == (0, 0)
    if not counted or given.get("ceil_mode") or given.get("divisor_override"):
        return None
    return Window(lambda x: F.avg_pool2d(x, kernel, stride), kernel, stride, padding, 0.0)


def _is_pointwise(
    name: str, args: tuple, kwargs: dict, placements: list[Placement], others: list[Tensor]
) -> bool:
    """Whether each output pixel depends only on the input pixels at the same position."""
    if len({placement.clean.shape[2:] for placement in placements}) > 1:
        return False
    if name in _POINTWISE:
        return True
    if name in ("batch_norm", "dropout"):
        position = 5 if name == "batch_norm" else 2
        return not kwargs.get("training", args[position] if len(args) > position else True)
    if name in _ARITHMETIC:
        # The other operand has one value for all positions, as in a normalisation.
        return all(t.ndim == 0 or t.shape[-2:] == (1, 1) for t in others)
    if name == "cat":
        return not others and kwargs.get("dim", args[1] if len(args) > 1 else 0) in (1, -3)
    return False


def _join(
    followed: list[Tensor], placements: list[Placement]
) -> tuple[list[Tensor], list[int], list[int]]:
    """Crops of several feature maps, enlarged to the same positions, with rows and columns."""
    if len(placements) == 1:
        return followed, placements[0].rows, placements[0].columns
    begins, sizes = [], []
    for axis in (0, 1):
        starts = [(placement.rows, placement.columns)[axis] for placement in placements]
        ends = [
            [start + crops.shape[2 + axis] for start in of_map]
            for of_map, crops in zip(starts, followed, strict=True)
        ]
        low = [min(b) for b in zip(*starts, strict=True)]
        high = [max(b) for b in zip(*ends, strict=True)]
        size = max(b - a for a, b in zip(low, high, strict=True))
        begins.append([min(a, placements[0].clean.shape[2 + axis] - size) for a in low])
        sizes.append(size)
    (rows, columns), (height, width) = begins, sizes
    joined = []
    for crops, placement in zip(followed, placements, strict=True):
        same_begin = placement.rows == rows and placement.columns == columns
        if not same_begin or crops.shape[2:] != (height, width):
            positions = zip(rows, columns, strict=True)
            around = [placement.clean[..., y : y + height, x : x + width] for y, x in positions]
            crops = placement.paste(crops, torch.cat(around), rows, columns)
        joined.append(crops)
    return joined, rows, columns


def _name_and_in_place(func: Callable[..., Any], kwargs: dict) -> tuple[str, bool]:
    """Name of the operation, the same for `add_` and `__iadd__`, and whether it works in place."""
    name = getattr(func, "__name__", "")
    if name in _SHAPE_QUERIES:
        return name, False
    if name in ("__setitem__", "__set__") or kwargs.get("out") is not None:
        return name, True
    if name.startswith("__i"):
        return name[3:].strip("_"), True
    if name.startswith("__"):
        return name.strip("_").removeprefix("r"), False
    return operation_name(func), name.endswith("_") or bool(kwargs.get("inplace"))


def _replace(value: Any, replacements: dict[int, Tensor]) -> Any:
    """Arguments in which tensors are replaced, by their ids."""
    if isinstance(value, Tensor):
        return replacements.get(id(value), value)
    if isinstance(value, dict):
        return {key: _replace(item, replacements) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_replace(item, replacements) for item in value)
    return value


def _pair(value: Any) -> Pair:
    """Vertical and horizontal value, from one number or two."""
    pair = tuple(value) if isinstance(value, list | tuple) else (value,)
    return (pair * 2)[:2]
