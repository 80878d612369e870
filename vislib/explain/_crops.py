"""An exact partial forward pass for occlusion: compute only what a covered square can change.

Occlusion runs a network on hundreds of copies of one image that differ in a small square. A square
changes only a part of each feature map. Through a window of kernel ``K``, stride ``S`` and padding
``P``, changed rows ``a … b`` of the input change the rows

    ⌈(a + P − K + 1) / S⌉ … ⌊(b + P) / S⌋

of the output, and the same holds for columns. Therefore the network runs once on the clean image,
and its feature maps are kept. For each changed copy, a convolution or pooling then gets a crop
only: the kept map around the changed part, with the changed part pasted in. This saves most of the
computation in early layers, where the changed part is small.

`PartialForward` does this for any network, because PyTorch offers it each operation. An operation
that is not known to be local (global pooling, a linear layer, a change of shape) gets full maps,
and so do all operations after it. If the maps cannot be followed at all (a compiled model, a part
of a map that is overwritten in place), the network gets full images.

The results are those of full forward passes, apart from rounding, because sums are computed in
another order. The tests of occlusion compare both on ten architectures, on single layers of many
kinds, and on networks with views, in-place operations and compiled parts.
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
# x.shape is called as Tensor.shape.__get__.
_SHAPE_QUERIES = frozenset(["dim", "size", "numel", "__get__"])
# Channels of image size that a network with full images is assumed to need, as the first layers of
# VGG do.
_CHANNELS = 64


@dataclass
class Placement:
    """The positions of a batch of crops in the full maps, and these maps for the clean image.

    Attributes:
        clean: the maps of the clean image, 1×C×H×W.
        rows: the first row of each crop.
        columns: the first column of each crop.
    """

    clean: Tensor
    rows: list[int]
    columns: list[int]

    def paste(
        self, crops: Tensor, into: Tensor, rows: Sequence[int], columns: Sequence[int]
    ) -> Tensor:
        """Paste the crops into B×C×h×w maps that themselves begin at these rows and columns."""
        height, width = crops.shape[-2:]
        for b, crop in enumerate(crops):
            top, left = self.rows[b] - rows[b], self.columns[b] - columns[b]
            into[b, :, top : top + height, left : left + width] = crop
        return into

    def full(self, crops: Tensor) -> Tensor:
        """The full maps, B×C×H×W: the clean ones with the crops pasted in."""
        zeros = [0] * len(crops)
        return self.paste(crops, self.clean.repeat(len(crops), 1, 1, 1), zeros, zeros)


class PartialForward(TorchFunctionMode):
    """Within the ``with`` block, first `keep` the maps of the clean image, then run crops.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(7200, 5))
    >>> image, black = torch.rand(1, 3, 32, 32), torch.zeros(2, 3, 4, 4)
    >>> with PartialForward() as forward, torch.no_grad():
    ...     _ = forward.keep(model, image)
    ...     logits = model(forward.start(black, rows=[0, 9], columns=[5, 9]))
    >>> image[..., 9:13, 9:13] = 0
    >>> torch.allclose(logits[1], model(image)[0], atol=1e-5)
    True

    Attributes:
        largest: how many numbers the largest map has that one crop led to, which bounds the memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest = 1
        # The clean image's map after each local operation, and the same maps with padding.
        self._kept: list[Tensor] = []
        self._padded: dict[int, Tensor] = {}
        # Whether the clean image runs, and whether the network gets full images.
        self._keeping = False
        self._whole = False
        self._forget()

    def _forget(self) -> None:
        self._step = 0
        self._placements: dict[int, Placement] = {}
        # Tensors that depend on the image, but not locally.
        self._global: set[int] = set()
        # Tensors are known by their ids. An id is valid only as long as its tensor is alive.
        self._alive: list[Tensor] = []

    def keep(self, model: nn.Module, image: Tensor) -> Tensor:
        """Run the model on the clean image, 1×C×H×W, keep its maps, and return its output."""
        self._image, self._kept, self._padded = image, [], {}
        self._keeping, self._whole = True, False
        try:
            output = model(self.start(image.clone(), [0], [0]))
        finally:
            self._keeping = False
        # If the output is unknown, operations between image and output were not offered.
        if id(output) not in self._placements and id(output) not in self._global:
            self._whole = True
        if self._whole:
            self.largest = max(self.largest, _CHANNELS * image[0, 0].numel())
        return output

    def start(self, crops: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
        """The next input of the model: the changed part of each copy, B×C×h×w.

        Args:
            crops: the changed parts. Each must be inside the image.
            rows: the first row of each crop in the image.
            columns: the first column of each crop.
        """
        self._forget()
        placement = Placement(self._image, list(rows), list(columns))
        return placement.full(crops) if self._whole else self._follow(crops, placement)

    def full(self, output: Tensor) -> Tensor:
        """The full maps, B×C×H×W, of a layer's output. To be called after the ``with`` block."""
        placement = self._placements.get(id(output))
        return output if placement is None else placement.full(output)

    def _follow(self, tensor: Tensor, placement: Placement) -> Tensor:
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
        # A question about the shape of the full maps is answered without making them.
        if name in _SHAPE_QUERIES and followed:
            shape = (len(followed[0]), *placements[0].clean.shape[1:])
            result = func(followed[0].new_empty(1).expand(shape), *args[1:], **kwargs)
            # x.data is a __get__ as well, but its result is a tensor.
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
            # An in-place operation must not change the map that was kept before.
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
            # Everything that holds the tensor must see an in-place change.
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
        """The result of an operation that is not local."""
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
        """A convolution or pooling of the part that the crops can reach, and its placement."""
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
            # The rest of the crop is outside of what the window reads.
            read = crop[:, max(0, -y) : height - y, max(0, -x) : width - x]
            y, x = max(0, y), max(0, x)
            inputs[b, :, y : y + read.shape[1], x : x + read.shape[2]] = read
        return window.apply(inputs), Placement(clean, *begins)


@dataclass(frozen=True)
class Window:
    """A convolution or pooling as a function of padded maps.

    Attributes:
        apply: the function, which adds no padding.
        kernel: the height and width of the window, with its dilation.
        stride: the vertical and horizontal stride.
        padding: the padding on each side, vertical and horizontal.
        padding_value: the value of the padding.
    """

    apply: Callable[[Tensor], Tensor]
    kernel: Pair
    stride: Pair
    padding: Pair
    padding_value: float

    def reach(self, axis: int, starts: Sequence[int], size: int, end: int) -> tuple[list[int], int]:
        """The outputs that see the inputs ``start … start + size − 1``: their starts and one size.

        Args:
            axis: 0 for rows, 1 for columns.
            starts: the first changed input of each crop.
            size: how many inputs of each crop are changed.
            end: how many outputs there are in all.
        """
        kernel, stride, padding = self.kernel[axis], self.stride[axis], self.padding[axis]
        first = [max(0, -((kernel - 1 - start - padding) // stride)) for start in starts]
        last = [min(end - 1, (start + size - 1 + padding) // stride) for start in starts]
        common = max(1, *(b - a + 1 for a, b in zip(first, last, strict=True)))
        return [min(a, end - common) for a in first], common

    def span(self, axis: int, size: int) -> int:
        """How many padded inputs `size` outputs see."""
        return (size - 1) * self.stride[axis] + self.kernel[axis]

    def pad(self, maps: Tensor, outputs: Sequence[int]) -> Tensor:
        """The maps with padding, large enough for this many outputs (as with ``ceil_mode``)."""
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
}


def _window(name: str, args: tuple, kwargs: dict) -> Window | None:
    """The window of a call of ``F.conv2d``, ``F.max_pool2d`` or ``F.avg_pool2d``.

    None if outputs at the border are computed differently from others, because crops cannot do it.
    """
    given = dict(zip(_ARGUMENTS[name].split(), args, strict=False)) | kwargs
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
    """Crops of several maps, enlarged to cover the same positions, and their rows and columns."""
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
    """The operation's name, the same for `add_` and `__iadd__`, and whether it works in place."""
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
    pair = tuple(value) if isinstance(value, list | tuple) else (value,)
    return (pair * 2)[:2]
