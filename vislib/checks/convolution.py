"""Checks for notebook 04."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vislib import scratch
from vislib.checks import call, right, same


def output_size(function: Callable[..., Any]) -> None:
    """``(M − K + 2P) / S + 1``, rounded down, as ``function(size, kernel, stride, padding)``."""
    rng = np.random.default_rng()
    m, k = rng.integers(20, 60, 12), rng.integers(2, 8, 12)
    s, p = rng.integers(1, 5, 12), rng.integers(1, 4, 12)
    # the last two: one where the division leaves a rest, and the first layer of AlexNet
    m, k, s, p = (
        np.append(a, b) for a, b in [(m, [32, 224]), (k, [5, 11]), (s, [2, 4]), (p, [1, 2])]
    )
    whole = m - k + 2 * p
    found = [call(function, *map(int, numbers)) for numbers in zip(m, k, s, p, strict=True)]
    mistakes = {
        "One is missing: the window at the very start counts too": whole // s,
        "Padding is added on both sides: 2P, not P": (m - k + p) // s + 1,
        "Padding is not counted": (m - k) // s + 1,
        "Stride is not counted": whole + 1,
        "Round down: a window that does not fit any more is left out": whole / s + 1,
        "Round down, not up": -(-whole // s) + 1,
        "Divide first, then add 1": (whole + 1) // s,
        "The kernel takes room away: M − K": (m + 2 * p) // s + 1,
    }
    same(found, whole // s + 1, what="the output size", mistakes=mistakes)
    right("The formula is right, also where the last window does not fit.")


def convolve(function: Callable[..., Any]) -> None:
    """Convolution of C×H×W maps with one C×K×K kernel: ``function(x, w, stride, padding)``."""
    rng = np.random.default_rng()
    for stride, padding in [(1, 0), (2, 0), (1, 1), (2, 1)]:
        x, w = rng.normal(size=(4, 8, 7)), rng.normal(size=(4, 3, 3))  # C is not K

        def by_scratch(x: np.ndarray, w: np.ndarray, stride: int, padding: int) -> np.ndarray:
            return scratch.convolve(x, w[None], 0.0, stride, padding)[0]

        expected = by_scratch(x, w, stride, padding)
        apart = [by_scratch(x[c : c + 1], w[c : c + 1], stride, padding) for c in range(4)]
        full = by_scratch(x, w, 1, padding)
        mistakes = {
            "The kernel is flipped: a convolution layer multiplies without turning it round": (
                by_scratch(x, w[:, ::-1, ::-1], stride, padding)
            ),
            "The channels are still apart: add them up as well": np.stack(apart),
            "Only the first channel is counted: add up all of them": apart[0],
            "Add the products up; do not average them": expected / w.size,
        }
        if stride > 1:
            mistakes["The stride is not used: the window starts at i · stride"] = full
            mistakes["The window at (i, j) starts at pixel (i · stride, j · stride)"] = full[
                : expected.shape[0], : expected.shape[1]
            ]
        if padding:
            mistakes["The padding is not used"] = by_scratch(x, w, stride, 0)
            late = np.pad(x, ((0, 0), (0, 2 * padding), (0, 2 * padding)))
            mistakes["Pad on all four sides, not only on the right and at the bottom"] = by_scratch(
                late, w, stride, 0
            )
        found = call(function, x, w, stride, padding)
        what = f"the map for stride {stride}, padding {padding}"
        same(found, expected, what=what, mistakes=mistakes)
    right("This is a convolution, with stride, padding and channels.")


def unpool(function: Callable[..., Any]) -> None:
    """Values back to where the maxima were, one map: ``function(values, switches, shape)``."""
    rng = np.random.default_rng()
    for height, width in [(6, 6), (4, 8)]:
        pooled, found_at = scratch.max_pool(rng.normal(size=(1, height, width)), 2)
        switches = found_at[0]
        values = rng.normal(size=switches.shape)
        expected = scratch.unpool(values[None], found_at, (height, width))[0]
        corner = np.zeros((height, width))
        corner[::2, ::2] = values
        turned = np.zeros(height * width)
        turned[(switches % width) * height % (height * width) + switches // width] = values
        mistakes = {
            "Every value sits in the corner of its window: use the switches": corner,
            "Each value fills its whole window: it belongs to one place only, the rest is 0": (
                np.kron(values, np.ones((2, 2)))
            ),
            "Rows and columns are swapped: a switch is row · width + column": turned.reshape(
                height, width
            ),
            "The result is still flat: reshape it": expected.ravel(),
            "Put the given values back, not those of the forward pass": scratch.unpool(
                pooled, found_at, (height, width)
            )[0],
        }
        found = call(function, values, switches, (height, width))
        same(found, expected, what="the unpooled map", mistakes=mistakes)
    right("Each value is back where its maximum was.")


def receptive_field(function: Callable[..., Any]) -> None:
    """Size and jump after a chain of layers: ``function([(kernel, stride), …])`` → (r, j)."""
    rng = np.random.default_rng()
    tried = 0
    while tried < 4:
        kernels = rng.integers(2, 7, 4)
        chain = [(int(k), s) for k, s in zip(kernels, (2, 1, 3, 2), strict=True)]
        size, jump = _walk(chain)
        backwards, _ = _walk(chain[::-1])
        no_jump = 1 + sum(k - 1 for k, _ in chain)
        late = grown = j = 1
        for k, s in chain:
            grown += k * j
            j *= s
            late += (k - 1) * j
        if len({size, backwards, no_jump, late, grown}) < 5:
            continue  # two mistakes would give the same number: take other layers
        tried += 1
        mistakes = {
            "The jump is not used: after a stride, one step of the kernel is several pixels": (
                no_jump,
                jump,
            ),
            "Use the jump before this layer's own stride; multiply by the stride afterwards": (
                late,
                jump,
            ),
            "A kernel adds K − 1 steps, not K": (grown, jump),
            "Go through the layers from the picture upwards": (backwards, jump),
            "The jump is the product of the strides, not their sum": (
                size,
                sum(s for _, s in chain),
            ),
            "Return two numbers, (size, jump): this is the size only": size,
            "Return (size, jump), in this order": (jump, size),
        }
        found = call(function, chain)
        same(found, (size, jump), what="(size, jump)", mistakes=mistakes)
    right("Size and jump are right for every chain.")


def _walk(chain: list[tuple[int, int]]) -> tuple[int, int]:
    size = jump = 1
    for kernel, stride in chain:
        size += (kernel - 1) * jump
        jump *= stride
    return size, jump
