"""Interactive figure of notebook 02: gradient descent in a valley."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vislib import scratch, show
from vislib.widgets import float_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox


CURVATURES = np.array([1.0, 10.0])
START = np.array([-8.0, 2.0])


def valley(v: np.ndarray) -> np.ndarray:
    """Loss ``L(v) = ½ (1·v₁² + 10·v₂²)``: a valley with ten times the curvature across as along.

    Args:
        v: one point (2 values) or many (…×2).
    """
    return 0.5 * np.sum(CURVATURES * np.asarray(v) ** 2, axis=-1)


def valley_gradient(v: np.ndarray) -> np.ndarray:
    """Gradient ``∇L = (1·v₁, 10·v₂)`` of `valley`, in the shape of `v`."""
    return CURVATURES * v


def descend(rate: float, steps: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Gradient descent in the valley: the path, (steps + 1) × 2, and the loss along it.

    Args:
        rate: learning rate η. The descent converges for η < 0.2.
        steps: number of steps.

    >>> path, losses = descend(0.1, steps=2)
    >>> path.round(2).tolist()
    [[-8.0, 2.0], [-7.2, 0.0], [-6.48, 0.0]]
    """
    path = scratch.gradient_descent(valley_gradient, START, rate, steps)
    return path, valley(path)


def draw_descent(rate: float, steps: int = 30) -> None:
    """Draw the path in the valley, in three dimensions and over contour lines, and the loss.

    Args:
        rate, steps: as in `descend`.
    """
    import matplotlib.pyplot as plt

    path, losses = descend(rate, steps)
    inside = (np.abs(path) <= (10, 5)).all(axis=1)
    # The path is drawn up to the point where it leaves the plot.
    shown = path[: int(np.argmin(inside)) or len(path)]
    x, y = np.meshgrid(np.linspace(-10, 10, 41), np.linspace(-5, 5, 41))
    heights = valley(np.stack([x, y], axis=-1))
    outcome = "diverges" if losses[-1] > losses[0] else f"ends at loss {losses[-1]:.2g}"
    with show.style():
        figure = plt.figure(figsize=(10.2, 4.0), layout="constrained")
        solid = figure.add_subplot(1, 3, 1, projection="3d", computed_zorder=False)
        solid.plot_surface(x, y, heights, cmap="Greys", alpha=0.6, vmin=-60, vmax=260)
        solid.plot(*shown.T, valley(shown) + 3, "o-", ms=4, lw=1.8, zorder=5)
        solid.plot(*START, valley(START) + 3, "s", ms=9, color=show.COLOURS[1], zorder=6)
        solid.view_init(elev=38, azim=-68)
        solid.set(xlabel="$v_1$", ylabel="$v_2$", xticks=[-8, 0, 8], yticks=[-4, 0, 4])
        solid.set(zticks=[0, 80, 160], title="the valley")
        contours = figure.add_subplot(1, 3, 2)
        draw_contours(contours)
        contours.plot(*path.T, "o-", ms=5, lw=1.8)
        contours.plot(*START, "s", ms=11, color=show.COLOURS[1])
        contours.set_title(f"$\\eta$ = {rate:.3f}: {outcome}")
        curve = figure.add_subplot(1, 3, 3)
        curve.semilogy(losses, "o-", ms=5)
        curve.set(xlabel="step", ylim=(1e-6, 1e6), title="loss at each step")
        show.figure(
            figure,
            alt=f"Gradient descent in the valley with rate {rate:.3f}: the loss goes from "
            f"{losses[0]:.3g} to {losses[-1]:.3g} in {steps} steps.",
        )


def draw_contours(axis: Any) -> None:
    """Draw contour lines of the valley, and a star at its minimum, on axes of matplotlib."""
    x, y = np.meshgrid(np.linspace(-10, 10, 201), np.linspace(-5, 5, 201))
    levels = [0.5, 2, 5, 10, 20, 35, 55, 80, 120, 170]
    axis.contour(x, y, valley(np.stack([x, y], axis=-1)), levels, colors="0.6", linewidths=1)
    axis.plot(0, 0, "k*", ms=16)
    axis.set(xlim=(-10, 10), ylim=(-5, 5), xlabel="$v_1$", ylabel="$v_2$")


def descent() -> VBox:
    """Slider for the learning rate η, from too small to diverging."""
    return interactive_figure(
        draw_descent, rate=float_slider("learning rate $\\eta$", 0.05, 0.005, 0.22, 0.005)
    )
