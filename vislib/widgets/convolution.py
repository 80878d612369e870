"""Widgets of notebook 04: the moving window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vislib import scratch, show
from vislib.widgets import sliders, whole

if TYPE_CHECKING:
    from ipywidgets import VBox


EDGE_PICTURE = np.array(
    [
        [0, 0, 0, 2, 2, 2],
        [0, 0, 0, 2, 2, 2],
        [0, 0, 1, 2, 2, 2],
        [0, 0, 1, 2, 2, 1],
        [0, 1, 2, 2, 1, 0],
        [0, 1, 2, 2, 1, 0],
    ]
)
EDGE_KERNEL = np.array([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]])


def window_at(
    position: int, stride: int = 1, padding: int = 0
) -> tuple[int, int, np.ndarray, float]:
    """The window at a position counted in reading order: row, column, its pixels, its sum.

    Row and column are those of the output; the last position stands for all beyond it.
    """
    columns = scratch.output_size(len(EDGE_PICTURE), len(EDGE_KERNEL), stride, padding)
    row, column = divmod(min(position, columns**2 - 1), columns)
    top, left = row * stride, column * stride
    window = np.pad(EDGE_PICTURE, padding)[top : top + 3, left : left + 3]
    return row, column, window, float((window * EDGE_KERNEL).sum())


def draw_window(position: int, stride: int = 1, padding: int = 0) -> None:
    """One step of a convolution: the window, its products with the kernel, the output so far."""
    row, column, window, total = window_at(position, stride, padding)
    kernel = EDGE_KERNEL[None, None].astype(float)
    output = scratch.convolve(EDGE_PICTURE[None], kernel, 0.0, stride, padding)[0]
    lowest, highest = output.min(), output.max()
    output.ravel()[row * len(output) + column + 1 :] = np.nan
    top, left = row * stride, column * stride
    title = f"output: sum = {total:.0f}".replace("-", "−")
    arrays = {
        "picture": np.pad(EDGE_PICTURE, padding),
        "kernel": EDGE_KERNEL,
        "window × kernel": window * EDGE_KERNEL,
        title: output,
    }
    frames = {
        "picture": (top, top + 3, left, left + 3),
        title: (row, row + 1, column, column + 1),
    }
    # The same colour for the same number at every position
    limits = {"picture": (0, 2), "window × kernel": (-2, 2), title: (lowest, highest)}
    show.matrices(
        arrays,
        frames=frames,
        limits=limits,
        alt=f"Step {position} of a convolution with stride {stride} and padding {padding}: the "
        f"window at row {top}, column {left} of the picture gives {total:.0f} at row {row}, column "
        f"{column} of the output.",
    )


def moving_window() -> VBox:
    """Sliders for the position of the window, the stride and the padding."""
    return sliders(
        draw_window,
        position=whole("position", 5, 0, 63),
        stride=whole("stride S", 1, 1, 3),
        padding=whole("padding P", 0, 0, 2),
    )
