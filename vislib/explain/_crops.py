"""Run a net on many copies of one image that differ in a small square, computing only what changes.

A square of the image reaches only a part of each map: through a window of kernel ``K``, stride
``S`` and padding ``P``, changed rows ``a … b`` of the input change the rows

    ⌈(a + P − K + 1) / S⌉ … ⌊(b + P) / S⌋

of the output. So the net runs once on the image itself, and its maps are kept. For a changed copy
each convolution or pool then sees only a crop: the kept map around the changed part, with the
changed part laid in. The numbers are those of the full run, up to the order of the additions.

`Regions` does this below any net, as PyTorch offers it each operation. What it does not know to be
local (a global pool, a linear layer, a change of shape) gets full maps, and so does all that
follows. Where it cannot follow the maps at all (a compiled net, a part of a map overwritten in
place), the net gets full images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vislib.core import FAMILIES

Pair = tuple[int, int]

_COPIES = FAMILIES["activation"] | {"clone", "detach", "contiguous"}
_ARITHMETIC = frozenset(["add", "sub", "mul", "div", "truediv"])
_QUESTIONS = frozenset(["dim", "size", "numel", "__get__"])  # x.shape is Tensor.shape.__get__
_MAPS = 64  # of the image's size, as in VGG: what we expect of a net that gets full images


@dataclass
class Part:
    """Where a batch of crops lies in the full maps, and these maps for the clean image.

    `clean` is 1×C×H×W; crop number b begins in row ``rows[b]`` and column ``columns[b]``.
    """

    clean: Tensor
    rows: list[int]
    columns: list[int]

    def paste(
        self, crops: Tensor, into: Tensor, rows: Sequence[int], columns: Sequence[int]
    ) -> Tensor:
        """Lay the crops into B×C×h×w maps that themselves begin in these rows and columns."""
        height, width = crops.shape[-2:]
        for b, crop in enumerate(crops):
            top, left = self.rows[b] - rows[b], self.columns[b] - columns[b]
            into[b, :, top : top + height, left : left + width] = crop
        return into

    def full(self, crops: Tensor) -> Tensor:
        """The full maps, B×C×H×W: the clean ones with the crops laid in."""
        zeros = [0] * len(crops)
        return self.paste(crops, self.clean.repeat(len(crops), 1, 1, 1), zeros, zeros)


class Regions(TorchFunctionMode):
    """Within the ``with`` block: first `keep` the clean image's maps, then run the model on crops.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(7200, 5))
    >>> image, black = torch.rand(1, 3, 32, 32), torch.zeros(2, 3, 4, 4)
    >>> with Regions() as regions, torch.no_grad():
    ...     _ = regions.keep(model, image)
    ...     logits = model(regions.start(black, rows=[0, 9], columns=[5, 9]))
    >>> image[..., 9:13, 9:13] = 0
    >>> torch.allclose(logits[1], model(image)[0], atol=1e-5)
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest = 1  # floats in the largest map that one crop led to: what bounds the memory
        self._kept: list[Tensor] = []  # the clean image's map after each local operation
        self._padded: dict[int, Tensor] = {}
        self._keeping = False
        self._whole = False  # whether the net gets full images
        self._forget()

    def _forget(self) -> None:
        self._step = 0
        self._parts: dict[int, Part] = {}
        self._global: set[int] = set()  # tensors that depend on the image, but not locally
        self._alive: list[Tensor] = []  # an id is only good while its tensor lives

    def keep(self, model: nn.Module, image: Tensor) -> Tensor:
        """Run the model on the clean image, 1×C×H×W, keep its maps, and give its output."""
        self._image, self._kept, self._padded = image, [], {}
        self._keeping, self._whole = True, False
        try:
            output = model(self.start(image.clone(), [0], [0]))
        finally:
            self._keeping = False
        if id(output) not in self._parts and id(output) not in self._global:
            self._whole = True  # on its way from the image are operations that were not offered
        if self._whole:
            self.largest = max(self.largest, _MAPS * image[0, 0].numel())
        return output

    def start(self, crops: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
        """The crops, B×C×h×w, as the model's next input: the changed part of each copy.

        Each must lie within the image: it covers the rows from ``rows[b]`` on, and the columns.
        """
        self._forget()
        part = Part(self._image, list(rows), list(columns))
        return part.full(crops) if self._whole else self._follow(crops, part)

    def full(self, output: Tensor) -> Tensor:
        """The full maps, B×C×H×W, behind a layer's output. Call it when the block has ended."""
        part = self._parts.get(id(output))
        return output if part is None else part.full(output)

    def _follow(self, tensor: Tensor, part: Part) -> Tensor:
        self._parts[id(tensor)] = part
        self._alive.append(tensor)
        return tensor

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = list(_tensors([*args, *kwargs.values()]))
        followed = [t for t in tensors if id(t) in self._parts]
        spread = any(id(t) in self._global for t in tensors)
        if not followed and not spread:
            return func(*args, **kwargs)
        name, in_place = _name(func, kwargs)
        parts = [self._parts[id(t)] for t in followed]
        if name in _QUESTIONS and followed:  # about the full maps' shape: no need to make them
            shape = (len(followed[0]), *parts[0].clean.shape[1:])
            answer = func(followed[0].new_empty(1).expand(shape), *args[1:], **kwargs)
            if not isinstance(answer, Tensor):  # as x.data is
                return answer
        window = _window(name, args, kwargs) if name in _ARGUMENTS and not spread else None
        others = [t for t in tensors if id(t) not in self._parts]
        local = not spread and _pointwise(name, args, kwargs, parts, others)
        if self._keeping and in_place:
            changed = tensors[-1] if "out" in kwargs else tensors[0]
            beyond = id(changed) in self._parts and not local
            self._whole = self._whole or beyond or self._is_shared(changed)
        if window is None and not local:
            return self._beyond(func, args, kwargs, followed)
        if self._keeping:
            if in_place:  # what was kept before must stay
                self._kept = [k.clone() if k is followed[0] else k for k in self._kept]
            output = func(*args, **kwargs)
            self._kept.append(output)
            return self._follow(output, Part(output, [0], [0]))
        clean = self._kept[self._step]
        if window is not None:
            output, part = self._windowed(window, followed[0], parts[0], clean)
        else:
            joined, rows, columns = _join(followed, parts)
            known = {id(t): crops for t, crops in zip(followed, joined, strict=True)}
            output = func(*_swap(args, known), **_swap(kwargs, known))
            if in_place and output is not followed[0]:  # whoever holds it must see it change
                followed[0].data = output
                output = followed[0]
            part = Part(clean, rows, columns)
        self._step += 1
        self.largest = max(self.largest, output[0].numel())
        return self._follow(output, part)

    def _is_shared(self, tensor: Tensor) -> bool:
        """Whether crops would miss a change in place: one of two tensors with the same memory is
        done by crops, where the other is a copy."""
        memory = tensor.untyped_storage().data_ptr()
        return any(
            other is not tensor
            and (id(tensor) in self._parts or id(other) in self._parts)
            and other.untyped_storage().data_ptr() == memory
            for other in self._alive
        )

    def _beyond(
        self, func: Callable[..., Any], args: tuple, kwargs: dict, followed: list[Tensor]
    ) -> Any:
        """An operation that is not local, on full maps."""
        if not self._keeping:
            known = {id(t): self.full(t) for t in followed}
            args, kwargs = _swap(args, known), _swap(kwargs, known)
            self.largest = max(self.largest, *(t[0].numel() for t in known.values()), 1)
        output = func(*args, **kwargs)
        for tensor in _tensors([output]):
            self._global.add(id(tensor))
            self._alive.append(tensor)
        return output

    def _windowed(
        self, window: Window, crops: Tensor, part: Part, clean: Tensor
    ) -> tuple[Tensor, Part]:
        """A convolution or pool of what the crops can reach, and where that lies."""
        begins, pieces = [], []
        for axis, starts in enumerate((part.rows, part.columns)):
            begin, size = window.reach(axis, starts, crops.shape[2 + axis], clean.shape[2 + axis])
            begins.append(begin)
            pieces.append(window.span(axis, size))
        padded = self._padded.get(self._step)
        if padded is None:
            padded = self._padded[self._step] = window.pad(part.clean, clean.shape[2:])
        (above, beside), (height, width) = window.padding, pieces
        tops = [row * window.stride[0] for row in begins[0]]
        lefts = [column * window.stride[1] for column in begins[1]]
        around = torch.cat(
            [padded[..., y : y + height, x : x + width] for y, x in zip(tops, lefts, strict=True)]
        )
        for b, crop in enumerate(crops):
            y, x = part.rows[b] + above - tops[b], part.columns[b] + beside - lefts[b]
            seen = crop[:, max(0, -y) : height - y, max(0, -x) : width - x]  # the rest is not read
            y, x = max(0, y), max(0, x)
            around[b, :, y : y + seen.shape[1], x : x + seen.shape[2]] = seen
        return window.apply(around), Part(clean, *begins)


@dataclass(frozen=True)
class Window:
    """A convolution or pool, as a function of padded maps."""

    apply: Callable[[Tensor], Tensor]
    kernel: Pair  # from its first to its last element: with its dilation
    stride: Pair
    padding: Pair
    outside: float  # what stands in the padding

    def reach(self, axis: int, starts: Sequence[int], size: int, end: int) -> tuple[list[int], int]:
        """The outputs that see inputs ``start … start + size − 1``: their starts, and one size."""
        kernel, stride, padding = self.kernel[axis], self.stride[axis], self.padding[axis]
        first = [max(0, -((kernel - 1 - start - padding) // stride)) for start in starts]
        last = [min(end - 1, (start + size - 1 + padding) // stride) for start in starts]
        common = max(1, *(b - a + 1 for a, b in zip(first, last, strict=True)))
        return [min(a, end - common) for a in first], common

    def span(self, axis: int, size: int) -> int:
        """How many padded inputs `size` outputs see."""
        return (size - 1) * self.stride[axis] + self.kernel[axis]

    def pad(self, maps: Tensor, outputs: Sequence[int]) -> Tensor:
        """The maps in their padding, large enough for so many outputs (``ceil_mode``)."""
        pads: list[int] = []
        for axis in (1, 0):  # F.pad wants the last axis first
            before, size = self.padding[axis], maps.shape[2 + axis]
            pads += [before, max(before, self.span(axis, outputs[axis]) - before - size)]
        return F.pad(maps, pads, value=self.outside)


_ARGUMENTS = {
    "conv2d": "input weight bias stride padding dilation groups",
    "max_pool2d": "input kernel_size stride padding dilation ceil_mode return_indices",
    "avg_pool2d": "input kernel_size stride padding ceil_mode count_include_pad",
}


def _window(name: str, args: tuple, kwargs: dict) -> Window | None:
    """The window of a call of ``F.conv2d``, ``F.max_pool2d`` or ``F.avg_pool2d``.

    None where the border makes some outputs different from others: that is not done by crops.
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


def _pointwise(
    name: str, args: tuple, kwargs: dict, parts: list[Part], others: list[Tensor]
) -> bool:
    """Whether each output pixel depends on the input pixels at its own place alone."""
    if len({part.clean.shape[2:] for part in parts}) > 1:
        return False
    if name in _COPIES:
        return True
    if name in ("batch_norm", "dropout"):
        position = 5 if name == "batch_norm" else 2
        return not kwargs.get("training", args[position] if len(args) > position else True)
    if name in _ARITHMETIC:  # with one value for all places, as in a normalisation
        return all(t.ndim == 0 or t.shape[-2:] == (1, 1) for t in others)
    if name == "cat":
        return not others and kwargs.get("dim", args[1] if len(args) > 1 else 0) in (1, -3)
    return False


def _join(followed: list[Tensor], parts: list[Part]) -> tuple[list[Tensor], list[int], list[int]]:
    """Crops of several maps made to cover the same places, and where these begin."""
    if len(parts) == 1:
        return followed, parts[0].rows, parts[0].columns
    begins, sizes = [], []
    for axis in (0, 1):
        starts = [(part.rows, part.columns)[axis] for part in parts]
        ends = [
            [start + crops.shape[2 + axis] for start in one]
            for one, crops in zip(starts, followed, strict=True)
        ]
        low, high = (
            [min(b) for b in zip(*starts, strict=True)],
            [max(b) for b in zip(*ends, strict=True)],
        )
        size = max(b - a for a, b in zip(low, high, strict=True))
        begins.append([min(a, parts[0].clean.shape[2 + axis] - size) for a in low])
        sizes.append(size)
    (rows, columns), (height, width) = begins, sizes
    joined = []
    for crops, part in zip(followed, parts, strict=True):
        if part.rows != rows or part.columns != columns or crops.shape[2:] != (height, width):
            places = zip(rows, columns, strict=True)
            around = [part.clean[..., y : y + height, x : x + width] for y, x in places]
            crops = part.paste(crops, torch.cat(around), rows, columns)
        joined.append(crops)
    return joined, rows, columns


def _name(func: Callable[..., Any], kwargs: dict) -> tuple[str, bool]:
    """An operation's name without the marks of `add_` and `__iadd__`; is it in place?"""
    name = getattr(func, "__name__", "")
    if name in _QUESTIONS:
        return name, False
    if name in ("__setitem__", "__set__") or kwargs.get("out") is not None:
        return name, True
    if name.startswith("__i"):
        return name[3:].strip("_"), True
    if name.startswith("__"):
        return name.strip("_").removeprefix("r"), False
    return name.removesuffix("_"), name.endswith("_") or bool(kwargs.get("inplace"))


def _swap(value: Any, known: dict[int, Tensor]) -> Any:
    """Arguments in which tensors are replaced, by their ids."""
    if isinstance(value, Tensor):
        return known.get(id(value), value)
    if isinstance(value, dict):
        return {key: _swap(one, known) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_swap(one, known) for one in value)
    return value


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _pair(value: Any) -> Pair:
    pair = tuple(value) if isinstance(value, list | tuple) else (value,)
    return (pair * 2)[:2]
