"""Interactive figure of notebook 04: the moving window of a convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vislib import scratch, show
from vislib.widgets import int_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox


EDGE_IMAGE = np.array(
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
    """One window of the convolution of ``EDGE_IMAGE`` with ``EDGE_KERNEL``.

    Args:
        position: number of the output cell in reading order, from 0. A number beyond the last cell
            gives the last cell.
        stride: stride of the convolution.
        padding: number of zeros on each side of the image.

    Returns:
        Row and column of the output cell, the 3×3 pixels of the window, and the sum of their
        products with the kernel.

    >>> row, column, window, total = window_at(5)
    >>> row, column, window.tolist(), total
    (1, 1, [[0, 0, 2], [0, 1, 2], [0, 1, 2]], 6.0)
    """
    columns = scratch.output_size(len(EDGE_IMAGE), len(EDGE_KERNEL), stride, padding)
    row, column = divmod(min(position, columns**2 - 1), columns)
    top, left = row * stride, column * stride
    window = np.pad(EDGE_IMAGE, padding)[top : top + 3, left : left + 3]
    return row, column, window, float((window * EDGE_KERNEL).sum())


def draw_window(position: int, stride: int = 1, padding: int = 0) -> None:
    """Draw one step of a convolution: the window, its products, and the output up to this cell.

    Args:
        position, stride, padding: as in `window_at`.
    """
    row, column, window, total = window_at(position, stride, padding)
    kernel = EDGE_KERNEL[None, None].astype(float)
    output = scratch.convolve(EDGE_IMAGE[None], kernel, 0.0, stride, padding)[0]
    lowest, highest = output.min(), output.max()
    output.ravel()[row * len(output) + column + 1 :] = np.nan
    top, left = row * stride, column * stride
    title = f"output: sum = {total:.0f}".replace("-", "−")
    arrays = {
        "image": np.pad(EDGE_IMAGE, padding),
        "kernel": EDGE_KERNEL,
        "window × kernel": window * EDGE_KERNEL,
        title: output,
    }
    frames = {
        "image": (top, top + 3, left, left + 3),
        title: (row, row + 1, column, column + 1),
    }
    # With fixed limits, a number has the same colour at every position.
    limits = {"image": (0, 2), "window × kernel": (-2, 2), title: (lowest, highest)}
    show.matrices(
        arrays,
        frames=frames,
        limits=limits,
        alt=f"Step {position} of a convolution with stride {stride} and padding {padding}: the "
        f"window at row {top}, column {left} of the image gives {total:.0f} at row {row}, column "
        f"{column} of the output.",
    )


def moving_window() -> VBox:
    """Sliders for the position of the window, the stride and the padding."""
    return interactive_figure(
        draw_window,
        position=int_slider("position", 5, 0, 63),
        stride=int_slider("stride S", 1, 1, 3),
        padding=int_slider("padding P", 0, 0, 2),
    )
