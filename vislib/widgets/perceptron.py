"""Interactive figures of notebook 01: the decision line, and step or sigmoid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vislib import scratch, show
from vislib.widgets import float_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox


CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
# The expected output at each corner, for four logical functions.
GOALS = {"AND": (0, 0, 0, 1), "OR": (0, 1, 1, 1), "NAND": (1, 1, 1, 0), "XOR": (0, 1, 1, 0)}


def decisions(w1: float, w2: float, bias: float, goal: str = "NAND") -> tuple[np.ndarray, int]:
    """Outputs of a perceptron at the four corners, and how many of them are right.

    Args:
        w1, w2: weights of the two inputs.
        bias: bias of the perceptron.
        goal: name of the logical function, "AND", "OR", "NAND" or "XOR".

    >>> outputs, right = decisions(-2, -2, 3, goal="NAND")
    >>> outputs.tolist(), right
    ([1, 1, 1, 0], 4)
    """
    outputs = scratch.perceptron(CORNERS, np.array([w1, w2]), bias)
    return outputs, int(np.sum(outputs == GOALS[goal]))


def draw_decision_line(w1: float, w2: float, bias: float, goal: str = "NAND") -> None:
    """Draw the plane of two inputs with the decision line, the firing side and the goal.

    Args:
        w1, w2, bias, goal: as in `decisions`.
    """
    import matplotlib.pyplot as plt

    outputs, right = decisions(w1, w2, bias, goal)
    with show.style():
        figure, axis = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
        draw_corners(axis, CORNERS, [(w1, w2, bias)], goal=goal)
        for corner, expected, output in zip(CORNERS, GOALS[goal], outputs, strict=True):
            axis.annotate(
                f"wants {expected}: {'right' if expected == output else 'WRONG'}",
                corner,
                (0, 16),
                textcoords="offset points",
                ha="center",
                bbox={"fc": "white", "ec": "none", "pad": 1.5, "alpha": 0.85},
            )
        axis.set_title(f"{goal}: {right} of 4 right (hatched: output 1)")
        show.figure(
            figure,
            alt=f"Decision of the perceptron with weights {w1:g}, {w2:g} and bias {bias:g} over "
            f"the plane of two inputs; {right} of the 4 corners are as {goal} wants.",
        )


def draw_corners(axis: Any, points: np.ndarray, lines: Any, goal: str = "XOR") -> None:
    """Draw the four corners at `points`, filled for a goal of 1 and open for 0, and lines.

    Args:
        axis: axes of matplotlib.
        points: positions of the four corners, 4×2.
        lines: decision lines as triples (w1, w2, bias). If there is only one, the side on which the
            perceptron fires is hatched.
        goal: as in `decisions`.
    """
    x1, x2 = np.meshgrid(np.linspace(-0.6, 1.6, 331), np.linspace(-0.6, 1.6, 331))
    for w1, w2, bias in lines:
        total = w1 * x1 + w2 * x2 + bias
        fires = (total > 0).astype(float)
        if len(lines) == 1:
            colours, hatches = ["white", "#d7e8f5"], [None, "//"]
            axis.contourf(x1, x2, fires, [-0.5, 0.5, 1.5], colors=colours, hatches=hatches)
        if total.min() < 0 < total.max():
            axis.contour(x1, x2, total, levels=[0], colors="black", linewidths=2.5)
    for (a, b), expected in zip(points, GOALS[goal], strict=True):
        face = show.COLOURS[1] if expected else "white"
        axis.plot(a, b, "o", ms=17, mfc=face, mec="black", mew=2)
    axis.set(xlabel="$x_1$", ylabel="$x_2$", xticks=[0, 1], yticks=[0, 1])
    axis.set_aspect("equal")


def decision_line() -> VBox:
    """Controls for two weights, a bias and the goal AND, OR, NAND or XOR."""
    from ipywidgets import ToggleButtons

    return interactive_figure(
        draw_decision_line,
        w1=float_slider("weight $w_1$", 1, -3, 3, 0.25),
        w2=float_slider("weight $w_2$", -1, -3, 3, 0.25),
        bias=float_slider("bias $b$", 0.5, -4, 4, 0.25),
        goal=ToggleButtons(options=list(GOALS), value="NAND", description="goal"),
    )


def small_change(change: float, z: float = -0.2) -> tuple[float, float]:
    """Outputs of a step neuron and of a sigmoid neuron after a change of one weight.

    Args:
        change: change of the weight, whose input is 1.
        z: weighted input of both neurons before the change.

    >>> small_change(0.2, z=-0.2)
    (0.0, 0.5)
    """
    after = z + change
    return float(after > 0), float(scratch.sigmoid(after))


def draw_small_change(change: float) -> None:
    """Draw both neurons before and after the change of a weight, on their curves.

    Args:
        change: as in `small_change`.
    """
    import matplotlib.pyplot as plt

    z = np.linspace(-1.5, 1.5, 601)
    curves = {"step": (z > 0).astype(float), "sigmoid": scratch.sigmoid(z)}
    before, after = small_change(0), small_change(change)
    with show.style():
        figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
        for axis, (name, curve), old, new in zip(axes, curves.items(), before, after, strict=True):
            axis.plot(z, curve, lw=2.5)
            axis.plot(-0.2, old, "o", ms=13, mfc="white", mec="black", mew=2, label="before")
            axis.plot(-0.2 + change, new, "D", ms=10, color=show.COLOURS[1], label="after")
            axis.set(title=f"{name}: {old:.3g} → {new:.3g}", xlabel="weighted input $z$")
        axes[0].set_ylabel("output")
        axes[0].legend(loc="center left")
        show.figure(
            figure,
            alt=f"Weight changed by {change:+.2f}: the step neuron's output goes from "
            f"{before[0]:.0f} to {after[0]:.0f}, the sigmoid neuron's from "
            f"{before[1]:.3f} to {after[1]:.3f}.",
        )


def step_or_sigmoid() -> VBox:
    """Slider for a small change of one weight of a step neuron and a sigmoid neuron."""
    return interactive_figure(
        draw_small_change, change=float_slider("change of weight", 0.1, -1, 1, 0.05)
    )
