"""Widgets of notebook 03: what does it look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vislib import scratch, show
from vislib.widgets import sliders, whole

if TYPE_CHECKING:
    from ipywidgets import VBox


def look_at(
    net: tuple[list[np.ndarray], list[np.ndarray]], digit: np.ndarray, target: int
) -> tuple[np.ndarray, np.ndarray]:
    """The 10 scores of a digit (64 pixels), and ``∂y_c/∂x`` of class `target` as an 8×8 map."""
    zs, _ = scratch.mlp_forward(digit[None], *net)
    return zs[-1][0], scratch.input_gradient(digit[None], target, *net).reshape(8, 8)


def draw_look(
    net: tuple[list[np.ndarray], list[np.ndarray]], digit: np.ndarray, target: int
) -> None:
    """A digit, its scores, and the map that says which pixels would change one of them."""
    import matplotlib.pyplot as plt

    scores, slopes = look_at(net, digit, target)
    top = np.abs(slopes).max()
    with show.style():
        figure, axes = plt.subplots(
            1, 3, figsize=(11, 3.7), width_ratios=[1, 1.15, 1.2], layout="constrained"
        )
        axes[0].imshow(digit.reshape(8, 8), "gray_r")
        axes[0].set_title("the digit")
        hatches = ["//" if c == target else "" for c in range(10)]
        colours = [show.COLOURS[1] if c == target else "0.75" for c in range(10)]
        axes[1].barh(range(10), scores, color=colours, hatch=hatches, edgecolor="black")
        axes[1].axvline(0, color="black", lw=1)
        axes[1].set(yticks=range(10), ylabel="class", xlim=(-16, 8), title="scores $y_c$")
        axes[1].invert_yaxis()
        image = axes[2].imshow(slopes, show.DIVERGING, vmin=-top, vmax=top)
        axes[2].plot(*np.argwhere(digit.reshape(8, 8) > 0.5).T[::-1], "k.", ms=9)
        axes[2].set_title(f"$\\partial y_{target} / \\partial x$ (dots: ink)")
        figure.colorbar(image, ax=axes[2], shrink=0.85)
        for axis in (axes[0], axes[2]):
            axis.axis("off")
        row, column = np.unravel_index(np.abs(slopes).argmax(), slopes.shape)
        show.display(
            figure,
            f"A digit whose best class is {scores.argmax()}, its ten scores, and the gradient of "
            f"score {target} for each of its 64 pixels; the strongest is in row {row}, column "
            f"{column}.",
        )


def look(net: tuple[list[np.ndarray], list[np.ndarray]], digits: np.ndarray) -> VBox:
    """Choose one of the digits (N×64) and a class: the gradient map of that class's score."""

    def draw(number: int, target: int) -> None:
        draw_look(net, digits[number], target)

    last = len(digits) - 1
    return sliders(draw, number=whole("digit", 0, 0, last), target=whole("class c", 3, 0, 9))
