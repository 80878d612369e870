"""Widgets of notebook 01: the decision line, and step or sigmoid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vislib import scratch, show
from vislib.widgets import slider, sliders

if TYPE_CHECKING:
    from ipywidgets import VBox


CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
GOALS = {"AND": (0, 0, 0, 1), "OR": (0, 1, 1, 1), "NAND": (1, 1, 1, 0), "XOR": (0, 1, 1, 0)}


def decisions(w1: float, w2: float, bias: float, goal: str = "NAND") -> tuple[np.ndarray, int]:
    """What a perceptron answers on the four corners, and how many of them are as the goal wants."""
    answers = scratch.perceptron(CORNERS, np.array([w1, w2]), bias)
    return answers, int(np.sum(answers == GOALS[goal]))


def draw_decision_line(w1: float, w2: float, bias: float, goal: str = "NAND") -> None:
    """The plane of two inputs: the side where the perceptron fires, its border, and the goal."""
    import matplotlib.pyplot as plt

    answers, right = decisions(w1, w2, bias, goal)
    with show.style():
        figure, axis = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
        draw_corners(axis, CORNERS, [(w1, w2, bias)], goal=goal)
        for corner, want, answer in zip(CORNERS, GOALS[goal], answers, strict=True):
            axis.annotate(
                f"wants {want}: {'right' if want == answer else 'WRONG'}",
                corner,
                (0, 16),
                textcoords="offset points",
                ha="center",
                bbox={"fc": "white", "ec": "none", "pad": 1.5, "alpha": 0.85},
            )
        axis.set_title(f"{goal}: {right} of 4 right (hatched: output 1)")
        show.display(
            figure,
            f"Decision of the perceptron with weights {w1:g}, {w2:g} and bias {bias:g} over the "
            f"plane of two inputs; {right} of the 4 corners are as {goal} wants.",
        )


def draw_corners(axis: Any, points: np.ndarray, lines: Any, goal: str = "XOR") -> None:
    """The four corners of `goal` at `points`: filled where it wants 1, open where it wants 0.

    `lines` are triples (w1, w2, bias). With one line, the side where it fires is hatched.
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
    for (a, b), want in zip(points, GOALS[goal], strict=True):
        face = show.COLOURS[1] if want else "white"
        axis.plot(a, b, "o", ms=17, mfc=face, mec="black", mew=2)
    axis.set(xlabel="$x_1$", ylabel="$x_2$", xticks=[0, 1], yticks=[0, 1])
    axis.set_aspect("equal")


def decision_line() -> VBox:
    """Two weights and a bias move a decision line; the goal is one of AND, OR, NAND, XOR."""
    from ipywidgets import ToggleButtons

    return sliders(
        draw_decision_line,
        w1=slider("weight $w_1$", 1, -3, 3, 0.25),
        w2=slider("weight $w_2$", -1, -3, 3, 0.25),
        bias=slider("bias $b$", 0.5, -4, 4, 0.25),
        goal=ToggleButtons(options=list(GOALS), value="NAND", description="goal"),
    )


def small_change(change: float, z: float = -0.2) -> tuple[float, float]:
    """Output of a step neuron and of a sigmoid neuron after the weight grew by `change`.

    Both have the weighted input `z` before the change, and the changed weight's input is 1.
    """
    after = z + change
    return float(after > 0), float(scratch.sigmoid(after))


def draw_small_change(change: float) -> None:
    """Both neurons before and after the change of a weight, on their curves."""
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
        show.display(
            figure,
            f"Weight changed by {change:+.2f}: the step neuron's output goes from {before[0]:.0f} "
            f"to {after[0]:.0f}, the sigmoid neuron's from {before[1]:.3f} to {after[1]:.3f}.",
        )


def step_or_sigmoid() -> VBox:
    """A slider that changes one weight a little, under a step neuron and a sigmoid neuron."""
    return sliders(draw_small_change, change=slider("change of weight", 0.1, -1, 1, 0.05))
