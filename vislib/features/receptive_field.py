"""What a unit of an inner layer can see: its receptive field, computed from the net's geometry.

A unit of a convolutional layer sees a window of the picture. Going from layer to layer, a window of
kernel ``K`` (dilation ``D``), stride ``S`` and padding ``P`` changes three numbers:

    size    r ← r + D · (K − 1) · j        pixels that one unit sees
    start   s ← s − P · j                  first pixel that unit 0 sees (negative in the padding)
    jump    j ← j · S                      pixels between neighbouring units

from ``r = 1, s = 0, j = 1`` at the pixels themselves. Unit ``i`` sees the pixels ``s + i·j`` to
``s + i·j + r − 1``. Rows and columns are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vislib.core import Layer, find_layer

Pair = tuple[int, int]

# Operations that give each position from the same position alone (or from several maps of one
# size), by the names under which PyTorch offers them; see `vislib.core.FAMILIES`.
_NAMES = (
    "relu relu6 hardtanh leaky_relu prelu rrelu elu celu selu gelu silu mish softplus hardswish "
    "hardsigmoid sigmoid tanh clamp abs exp log sqrt square neg pow batch_norm dropout dropout2d "
    "feature_dropout alpha_dropout local_response_norm add sub rsub mul div true_divide truediv "
    "cat concat stack maximum minimum clone contiguous detach to float double half requires_grad "
    "__add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__ __truediv__ "
    "__rtruediv__ __itruediv__ __neg__ __pow__"
)
_SAME_PLACE = frozenset(_NAMES.split())


@dataclass(frozen=True)
class ReceptiveField:
    """Which pixels the units of a layer see; every pair is (rows, columns).

    Attributes:
        size: the height and width of one unit's window in the picture.
        jump: the pixels from one unit's window to its neighbour's.
        start: the first row and column that unit (0, 0) sees; negative where it begins in padding.
    """

    size: Pair = (1, 1)
    jump: Pair = (1, 1)
    start: Pair = (0, 0)

    def box(self, row: int, column: int, picture: Pair | None = None) -> tuple[int, int, int, int]:
        """The window of unit (row, column): top, bottom, left, right, the ends exclusive.

        `picture` is the picture's (height, width): the box is then cut at its border, so that
        ``x[..., top:bottom, left:right]`` is exactly what the unit sees.
        """
        top, left = (
            s + i * j for s, i, j in zip(self.start, (row, column), self.jump, strict=True)
        )
        bottom, right = top + self.size[0], left + self.size[1]
        if picture is not None:
            top, bottom = (min(max(edge, 0), picture[0]) for edge in (top, bottom))
            left, right = (min(max(edge, 0), picture[1]) for edge in (left, right))
        return top, bottom, left, right

    def through(
        self, kernel: Pair, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
    ) -> ReceptiveField:
        """The receptive field after one more window operation."""
        return ReceptiveField(
            _pairwise(
                lambda r, k, d, j: r + d * (k - 1) * j, self.size, kernel, dilation, self.jump
            ),
            _pairwise(lambda j, s: j * s, self.jump, stride),
            _pairwise(lambda s, p, j: s - p * j, self.start, padding, self.jump),
        )


def receptive_field(
    model: nn.Module, layer: Layer, *, picture: Pair = (224, 224), channels: int = 3
) -> ReceptiveField:
    """The receptive field of a layer's units, from kernels, strides, paddings and dilations.

    The model is called once with a picture that has a shape but no values (device "meta"), which
    takes no arithmetic and leaves the model as it is. Where branches meet (ResNet's sum,
    SqueezeNet's and GoogLeNet's concatenation) the window is the smallest that holds all of them.
    A layer that is called more than once counts with its last call, as in `vislib.core.record`.

    Args:
        model: a feed-forward convolutional net.
        layer: its dotted name or the module itself.
        picture: the (height, width) of the picture. It matters only to adaptive pooling, whose
            windows depend on it, and to nets that demand a certain size.
        channels: those of the picture.

    Returns:
        Size, jump and start. The window is the outer frame: where a stride is larger than its
        kernel, or with dilation, not every pixel inside is used.

    Raises:
        ValueError: the layer does not exist, is never called, or its units have no window of
            their own, because an operation before it mixes all positions or is not known here.
    """
    name, module = find_layer(model, layer)
    found: list[ReceptiveField | str] = []
    geometry = _Geometry()

    def look(module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise ValueError(
                f"layer {name!r} returns a {type(output).__name__}, not one tensor: "
                "choose a layer inside it"
            )
        found.append(geometry.of(output))

    # A module with two names is swapped once: swapped twice, PyTorch would not put it back right.
    shapes = {
        f"{prefix}.{key}".lstrip("."): value.to("meta")
        for prefix, part in model.named_modules()
        for key, value in [
            *part.named_parameters(recurse=False, remove_duplicate=False),
            *part.named_buffers(recurse=False, remove_duplicate=False),
        ]
    }
    dtype = next((value.dtype for value in shapes.values() if value.is_floating_point()), None)
    x = torch.empty(1, channels, *picture, device="meta", dtype=dtype)
    geometry.set(x, ReceptiveField())
    modes = {part: part.training for part in model.modules()}
    handle = module.register_forward_hook(look)
    try:
        model.eval()
        with torch.no_grad(), geometry:
            torch.func.functional_call(model, shapes, (x,), tie_weights=False)
    except Exception as error:
        if not found:
            raise ValueError(
                f"the model could not be called with a picture of {picture[0]}×{picture[1]} "
                f"pixels and {channels} channels: {error}"
            ) from error
    finally:
        handle.remove()
        for part, training in modes.items():
            part.training = training
    if not found:
        raise ValueError(f"the forward pass never calls layer {name!r}")
    if isinstance(found[-1], str):
        raise ValueError(f"the units of layer {name!r} have no receptive field: {found[-1]}")
    return found[-1]


class _Geometry(TorchFunctionMode):
    """Follow receptive fields through every operation; a `str` says why there is none."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, ReceptiveField | str] = {}
        self._kept: list[Tensor] = []  # an id is only good while its tensor lives

    def of(self, tensor: Tensor) -> ReceptiveField | str:
        return self._known.get(id(tensor), "they do not depend on the picture")

    def set(self, tensor: Tensor, field: ReceptiveField | str) -> None:
        self._known[id(tensor)] = field
        self._kept.append(tensor)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        name = name.rstrip("_") if not name.endswith("__") else name
        inputs = [t for t in _tensors([*args, *kwargs.values()]) if id(t) in self._known]
        fields = [self._known[id(t)] for t in inputs]
        shapes = [tuple(t.shape[2:]) for t in inputs if t.ndim == 4]
        output = func(*args, **kwargs)
        if inputs:
            after = _after(name, args, kwargs, fields, shapes)
            for tensor in _tensors([output]):
                self.set(tensor, after)
        return output


def _after(
    name: str, args: tuple, kwargs: dict, fields: list[ReceptiveField | str], shapes: list[tuple]
) -> ReceptiveField | str:
    """The receptive field after one operation whose inputs have `fields` and map `shapes`."""
    lost = next((field for field in fields if isinstance(field, str)), None)
    if lost is not None:
        return lost
    known = [field for field in fields if isinstance(field, ReceptiveField)]

    def setting(position: int, key: str, default: Any) -> Any:
        value = kwargs.get(key, args[position] if len(args) > position else default)
        return default if value is None or value == [] else value

    if name == "conv2d":
        kernel = tuple(setting(1, "weight", None).shape[-2:])
        stride, dilation = _pair(setting(3, "stride", 1)), _pair(setting(5, "dilation", 1))
        padding = setting(4, "padding", 0)
        if padding == "same":
            padding = _pairwise(lambda k, d: d * (k - 1) // 2, kernel, dilation)
        elif padding == "valid":
            padding = 0
        return known[0].through(kernel, stride, _pair(padding), dilation)
    if name in ("max_pool2d", "max_pool2d_with_indices", "avg_pool2d"):
        kernel = _pair(setting(1, "kernel_size", None))
        dilation = _pair(setting(4, "dilation", 1)) if name != "avg_pool2d" else (1, 1)
        return known[0].through(
            kernel,
            _pair(setting(2, "stride", kernel)),
            _pair(setting(3, "padding", 0)),
            dilation,
        )
    if name in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        wanted = _pair(setting(1, "output_size", 1))
        size = [h if w is None else w for h, w in zip(shapes[0], wanted, strict=True)]
        if any(h % w for h, w in zip(shapes[0], size, strict=True)):
            return (
                f"{name} turns maps of {shapes[0][0]}×{shapes[0][1]} into {size[0]}×{size[1]} with "
                "windows of unequal size; choose a layer before it"
            )
        kernel = _pairwise(lambda h, w: h // w, shapes[0], size)
        return known[0].through(kernel, stride=kernel)
    if name == "pad":
        left, top = setting(1, "pad", None)[0], (*setting(1, "pad", None), 0, 0)[2]
        if setting(2, "mode", "constant") != "constant":
            return "the padding copies pixels from elsewhere; choose a layer before it"
        return known[0].through((1, 1), padding=(top, left))
    if name in ("__getitem__", "unsqueeze", "chunk", "split"):  # of channels, not of positions
        channels_only = name != "__getitem__" or not _touches_positions(args[1])
        return known[0] if channels_only else "a part of the map is cut out before it"
    if name not in _SAME_PLACE:
        return (
            f"they come after {name}, which mixes positions or is not known here; "
            "choose a layer before it"
        )
    if len(set(shapes)) > 1:
        return f"{name} joins maps of different sizes before it; choose a layer inside one branch"
    if len({field.jump for field in known}) > 1:
        return f"{name} joins branches whose strides differ; choose a layer inside one branch"
    start = _pairwise(_least, *(field.start for field in known))
    end = _pairwise(_most, *(_pairwise(lambda s, r: s + r, f.start, f.size) for f in known))
    return ReceptiveField(_pairwise(lambda e, s: e - s, end, start), known[0].jump, start)


def _touches_positions(index: Any) -> bool:
    index = index if isinstance(index, tuple) else (index,)
    return any(part is None or part is Ellipsis for part in index) or any(
        part != slice(None) for part in index[2:]
    )


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _pair(value: Any) -> Any:
    """``3`` as ``(3, 3)``; ``(3,)`` too, which PyTorch allows."""
    pair = tuple(value) if isinstance(value, list | tuple) else (value,)
    return pair * 2 if len(pair) == 1 else pair


def _pairwise(rule: Callable[..., int], *pairs: Iterable[int]) -> Pair:
    rows, columns = (rule(*values) for values in zip(*pairs, strict=True))
    return rows, columns


def _least(*values: int) -> int:
    return min(values)


def _most(*values: int) -> int:
    return max(values)
