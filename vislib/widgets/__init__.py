"""Interactive figures of the notebooks, with one module for each notebook that has such figures.

Each figure has three functions: one computes the numbers (`descend`), one draws them
(`draw_descent`), and one adds the controls (`descent`). Each function works without the later ones.
If the slider for an index goes beyond the end of a list, the last entry is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ipywidgets import FloatSlider, IntSlider, VBox

# The class index and the mask (H×W, True on the object) of each class in a scene, by its name.
Targets = Mapping[str, int]
Masks = Mapping[str, np.ndarray]


def interactive_figure(draw: Callable[..., Any], **controls: Any) -> VBox:
    """Controls above the figure that `draw` displays, which is drawn again after each change.

    Args:
        draw: function that displays a figure, with one keyword argument for each control.
        **controls: widgets of ipywidgets, by the names of these arguments.
    """
    from ipywidgets import VBox, interactive_output

    return VBox([*controls.values(), interactive_output(draw, controls)])


def float_slider(label: str, value: float, low: float, high: float, step: float) -> FloatSlider:
    """Slider for real numbers from `low` to `high`, wide enough for a long label."""
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
