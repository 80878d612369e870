"""Interactive figure of notebook 03: the gradient of one class score on a digit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vislib import scratch, show
from vislib.widgets import int_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox


def look_at(
    net: tuple[list[np.ndarray], list[np.ndarray]], digit: np.ndarray, target: int
) -> tuple[np.ndarray, np.ndarray]:
    """Class scores of a digit, and the gradient ``∂y_c/∂x`` of one of them.

    Args:
        net: weights and biases of all layers, as in `vislib.scratch.mlp_forward`.
        digit: 64 pixels.
        target: target class c, 0 to 9.

    Returns:
        10 scores, and the gradient as a signed map, 8×8.

    >>> net = [np.ones((10, 64))], [np.zeros(10)]
    >>> scores, gradient = look_at(net, np.full(64, 0.5), target=3)
    >>> scores.tolist() == [32.0] * 10, gradient.shape
    (True, (8, 8))
    """
    zs, _ = scratch.mlp_forward(digit[None], *net)
    return zs[-1][0], scratch.input_gradient(digit[None], target, *net).reshape(8, 8)


def draw_look(
    net: tuple[list[np.ndarray], list[np.ndarray]], digit: np.ndarray, target: int
) -> None:
    """Draw a digit, its scores, and the gradient of one of them with respect to the pixels.

    Args:
        net, digit, target: as in `look_at`.
    """
    import matplotlib.pyplot as plt

    scores, gradient = look_at(net, digit, target)
    largest = np.abs(gradient).max()
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
        image = axes[2].imshow(gradient, show.DIVERGING, vmin=-largest, vmax=largest)
        axes[2].plot(*np.argwhere(digit.reshape(8, 8) > 0.5).T[::-1], "k.", ms=9)
        axes[2].set_title(f"$\\partial y_{target} / \\partial x$ (dots: ink)")
        figure.colorbar(image, ax=axes[2], shrink=0.85)
        for axis in (axes[0], axes[2]):
            axis.axis("off")
        row, column = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        show.figure(
            figure,
            alt=f"A digit whose best class is {scores.argmax()}, its ten scores, and the gradient "
            f"of score {target} for each of its 64 pixels; the strongest is in row {row}, column "
            f"{column}.",
        )


def look(net: tuple[list[np.ndarray], list[np.ndarray]], digits: np.ndarray) -> VBox:
    """Sliders for the digit and for the class whose gradient is shown.

    Args:
        net: as in `look_at`.
        digits: digits to choose from, N×64.
    """

    def draw(number: int, target: int) -> None:
        draw_look(net, digits[number], target)

    last = len(digits) - 1
    return interactive_figure(
        draw,
        number=int_slider("digit", 0, 0, last),
        target=int_slider("class c", 3, 0, 9),
    )
