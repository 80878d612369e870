"""Code behind the interactive figures, one module for each notebook that has any.

Each figure has three functions, and each works without the next: one computes the numbers
(`descend`), one draws them (`draw_descent`), one adds the controls (`descent`). Sliders for an
index go beyond the last entry of a shorter list; the last entry is then shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ipywidgets import FloatSlider, IntSlider, VBox

# The classes of a scene by their names: class index, and mask H×W, True on the object.
Targets = Mapping[str, int]
Masks = Mapping[str, np.ndarray]


def interactive_figure(draw: Callable[..., Any], **controls: Any) -> VBox:
    """Controls above the figure that `draw` displays, which is drawn again after each change.

    Args:
        draw: a function that displays a figure, with one keyword argument for each control.
        controls: widgets of ipywidgets, by the names of these arguments.
    """
    from ipywidgets import VBox, interactive_output

    return VBox([*controls.values(), interactive_output(draw, controls)])


def float_slider(label: str, value: float, low: float, high: float, step: float) -> FloatSlider:
    """Slider for real numbers from `low` to `high`, with room for a long label."""
    from ipywidgets import FloatSlider, Layout

    return FloatSlider(
        value,
        min=low,
        max=high,
        step=step,
        description=label,
        style={"description_width": "9em"},
        layout=Layout(width="34em"),
        readout_format=".3f" if step < 0.01 else ".2f",
    )


def int_slider(label: str, value: int, low: int, high: int) -> IntSlider:
    """Slider for whole numbers from `low` to `high`, as wide as `float_slider`."""
    from ipywidgets import IntSlider, Layout

    return IntSlider(
        value,
        min=low,
        max=high,
        description=label,
        style={"description_width": "9em"},
        layout=Layout(width="34em"),
    )
