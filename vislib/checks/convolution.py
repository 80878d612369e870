"""Checks for the exercises of notebook 04, convolution."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from vislib import scratch
from vislib.checks import Exercise

# --- The size of the output -----------------------------------------------------------------------


def _sizes() -> Iterator[tuple[int, int, int, int]]:
    """Size, kernel, stride and padding of layers; the first three tell all mistakes apart.

    With a stride of 1, mistakes in the stride and in rounding do not change the result. Without a
    remainder of the division, mistakes in rounding do not change the result.
    """
    rng = np.random.default_rng()
    for stride, rest in [(1, 0), (3, 0), (4, 2)]:
        windows, kernel, padding = (int(rng.integers(*ends)) for ends in [(9, 20), (2, 8), (2, 4)])
        yield stride * windows + rest + kernel - 2 * padding, kernel, stride, padding
    for _ in range(12):
        size, kernel = int(rng.integers(20, 60)), int(rng.integers(2, 8))
        yield size, kernel, int(rng.integers(1, 5)), int(rng.integers(1, 4))
    yield 32, 5, 2, 1
    # These are the numbers of the first layer of AlexNet.
    yield 224, 11, 4, 2


output_size = Exercise(
    task="``output_size(size, kernel, stride, padding)``: ``(M − K + 2P) / S + 1``, rounded down.",
    inputs=_sizes,
    solution=lambda m, k, s, p: (m - k + 2 * p) // s + 1,
    what=lambda m, k, s, p: f"the output size for M = {m}, K = {k}, S = {s} and P = {p}",
    mistakes={
        "Divide first, then add 1": lambda m, k, s, p: (m - k + 2 * p + 1) // s,
        "One is missing: the window at the start counts too": (
            lambda m, k, s, p: (m - k + 2 * p) // s
        ),
        "Padding is added on both sides: 2P, not P": lambda m, k, s, p: (m - k + p) // s + 1,
        "The padding is missing": lambda m, k, s, p: (m - k) // s + 1,
        "The stride is missing": lambda m, k, s, p: m - k + 2 * p + 1,
        "Round down: a window that no longer fits is left out": (
            lambda m, k, s, p: (m - k + 2 * p) / s + 1
        ),
        "Round down, not up": lambda m, k, s, p: -(-(m - k + 2 * p) // s) + 1,
        "The kernel size K is missing: a larger kernel has fewer positions": lambda m, k, s, p: (
            (m + 2 * p) // s + 1
        ),
    },
    praise="The formula is right, also where the last window does not fit.",
)


# --- Convolution ----------------------------------------------------------------------------------


def _layers() -> Iterator[tuple[np.ndarray, np.ndarray, int, int]]:
    """Maps, a kernel, stride and padding; the number of channels differs from the kernel size."""
    rng = np.random.default_rng()
    for stride, padding in [(1, 0), (2, 0), (1, 1), (2, 1)]:
        yield rng.normal(size=(4, 8, 7)), rng.normal(size=(4, 3, 3)), stride, padding


def _convolve(x: np.ndarray, w: np.ndarray, stride: int, padding: int) -> np.ndarray:
    return scratch.convolve(x, w[None], 0.0, stride, padding)[0]


def _stride_not_at_the_start(x: np.ndarray, w: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Convolution with as many windows as with the stride, but one pixel apart."""
    rows, columns = _convolve(x, w, stride, padding).shape
    return _convolve(x, w, 1, padding)[:rows, :columns]


def _padded_on_two_sides(x: np.ndarray, w: np.ndarray, stride: int, padding: int) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 2 * padding), (0, 2 * padding)))
    return _convolve(padded, w, stride, 0)


convolve = Exercise(
    task="``convolve(x, w, stride, padding)``: C×H×W maps convolved with one C×K×K kernel.",
    inputs=_layers,
    solution=_convolve,
    what=lambda x, w, stride, padding: f"the map for stride {stride}, padding {padding}",
    mistakes={
        "The kernel is flipped: a convolution layer multiplies without rotating the kernel": (
            lambda x, w, stride, padding: _convolve(x, w[:, ::-1, ::-1], stride, padding)
        ),
        "The channels are still separate: sum over them as well": lambda x, w, stride, padding: (
            np.stack([_convolve(x[[c]], w[[c]], stride, padding) for c in range(len(x))])
        ),
        "Only the first channel is counted: sum over all of them": (
            lambda x, w, stride, padding: _convolve(x[:1], w[:1], stride, padding)
        ),
        "Sum the products; do not average them": (
            lambda x, w, stride, padding: _convolve(x, w, stride, padding) / w.size
        ),
        "The stride is not used: the window starts at i · stride": (
            lambda x, w, stride, padding: _convolve(x, w, 1, padding)
        ),
        "The window at (i, j) starts at pixel (i · stride, j · stride)": _stride_not_at_the_start,
        "The padding is not used": lambda x, w, stride, padding: _convolve(x, w, stride, 0),
        "Pad on all four sides, not only on the right and at the bottom": _padded_on_two_sides,
    },
    praise="This is a convolution, with stride, padding and channels.",
)


# --- Unpooling ------------------------------------------------------------------------------------


def _pooled() -> Iterator[tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
    """New values for the switches of a 2×2 max pooling."""
    rng = np.random.default_rng()
    for height, width in [(6, 6), (4, 8)]:
        _, switches = scratch.max_pool(rng.normal(size=(1, height, width)), 2)
        yield rng.normal(size=switches[0].shape), switches[0], (height, width)


def _unpool(values: np.ndarray, switches: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return scratch.unpool(values[None], switches[None], shape)[0]


def _in_corners(values: np.ndarray, switches: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    unpooled = np.zeros(shape)
    unpooled[::2, ::2] = values
    return unpooled


def _swapped(values: np.ndarray, switches: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Switches read as column · height + row."""
    height, width = shape
    positions = (switches % width) * height % (height * width) + switches // width
    return _unpool(values, positions, shape)


unpool = Exercise(
    task="``unpool(values, switches, shape)``: the values back where the maxima were, one map.",
    inputs=_pooled,
    solution=_unpool,
    what="the unpooled map",
    mistakes={
        "Every value is in the corner of its window: use the switches": _in_corners,
        "Each value fills its whole window: it belongs to one position only, the rest is 0": (
            lambda values, switches, shape: np.kron(values, np.ones((2, 2)))
        ),
        "Rows and columns are swapped: a switch is row · width + column": _swapped,
        "The result is still flat: reshape it": (
            lambda values, switches, shape: _unpool(values, switches, shape).ravel()
        ),
        "The positions are right, but the values are all 1: put the given values there": (
            lambda values, switches, shape: _unpool(np.ones_like(values), switches, shape)
        ),
    },
    praise="Each value is back where its maximum was.",
)


# --- Receptive fields -----------------------------------------------------------------------------

Chain = list[tuple[int, int]]


def _chain(rng: np.random.Generator) -> tuple[Chain]:
    kernels = rng.integers(2, 7, 4)
    return ([(int(k), s) for k, s in zip(kernels, (2, 1, 3, 2), strict=True)],)


def _receptive_field(chain: Chain, *, less: int = 1, stride_first: bool = False) -> tuple[int, int]:
    """Size and jump, if each kernel adds ``kernel - less`` jumps before or after its stride."""
    size = jump = 1
    for kernel, stride in chain:
        size += (kernel - less) * jump * (stride if stride_first else 1)
        jump *= stride
    return size, jump


def _size(chain: Chain) -> int:
    return _receptive_field(chain)[0]


def _jump(chain: Chain) -> int:
    return _receptive_field(chain)[1]


receptive_field = Exercise(
    task="``field([(kernel, stride), …])``: size and jump after a chain of layers.",
    inputs=lambda: [partial(_chain, np.random.default_rng()) for _ in range(4)],
    solution=_receptive_field,
    what="(size, jump)",
    mistakes={
        "The jump is not used: after a stride, one step of the kernel is several pixels": (
            lambda chain: (1 + sum(kernel - 1 for kernel, _ in chain), _jump(chain))
        ),
        "Use the jump before this layer's own stride; multiply by the stride afterwards": partial(
            _receptive_field, stride_first=True
        ),
        "A kernel adds K − 1 steps, not K": partial(_receptive_field, less=0),
        "Go through the layers in the order of the forward pass, from the image on": (
            lambda chain: _receptive_field(chain[::-1])
        ),
        "The jump is the product of the strides, not their sum": (
            lambda chain: (_size(chain), sum(stride for _, stride in chain))
        ),
        "Return two numbers, (size, jump): this is the size only": _size,
        "Return (size, jump), in this order": lambda chain: (_jump(chain), _size(chain)),
    },
    praise="Size and jump are right for every chain.",
    distinct=True,
)
