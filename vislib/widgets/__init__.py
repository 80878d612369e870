"""What is under the sliders of the notebooks, one module for each notebook.

For each widget there are three functions, and each can be used without the next: one returns the
numbers (`descend`), one draws them (`draw_descent`), one puts sliders on the drawing (`descent`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipywidgets import VBox


def sliders(draw: Callable[..., Any], **controls: Any) -> VBox:
    """Put controls (ipywidgets by the names of draw's arguments) above what `draw` displays."""
    from ipywidgets import VBox, interactive_output

    return VBox([*controls.values(), interactive_output(draw, controls)])


def slider(label: str, value: float, low: float, high: float, step: float) -> Any:
    """A slider for real numbers, with a wide label; it redraws while it is moved."""
    from ipywidgets import FloatSlider, Layout

    wide = {"description_width": "9em"}
    return FloatSlider(
        value,
        min=low,
        max=high,
        step=step,
        description=label,
        style=wide,
        layout=Layout(width="34em"),
        readout_format=".3f" if step < 0.01 else ".2f",
    )


def whole(label: str, value: int, low: int, high: int) -> Any:
    """A slider for whole numbers, as wide as `slider`."""
    from ipywidgets import IntSlider, Layout

    wide = {"description_width": "9em"}
    return IntSlider(
        value, min=low, max=high, description=label, style=wide, layout=Layout(width="34em")
    )
