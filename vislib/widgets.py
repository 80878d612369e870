"""What is under the sliders of the notebooks.

For each widget there are three functions, and each can be used without the next: one returns the
numbers (`descend`), one draws them (`draw_descent`), one puts sliders on the drawing (`descent`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vislib import scratch, show

if TYPE_CHECKING:
    from ipywidgets import VBox

Array = np.ndarray


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


# ---------------------------------------------------------------------- 01: the decision line

CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
GOALS = {"AND": (0, 0, 0, 1), "OR": (0, 1, 1, 1), "NAND": (1, 1, 1, 0), "XOR": (0, 1, 1, 0)}


def decisions(w1: float, w2: float, bias: float, goal: str = "NAND") -> tuple[Array, int]:
    """What a perceptron answers on the four corners, and how many of them are as the goal wants."""
    answers = scratch.perceptron(CORNERS, np.array([w1, w2]), bias)
    return answers, int(np.sum(answers == GOALS[goal]))


def draw_decision_line(w1: float, w2: float, bias: float, goal: str = "NAND") -> None:
    """The plane of two inputs: the side where the perceptron fires, its border, and the goal."""
    import matplotlib.pyplot as plt

    answers, right = decisions(w1, w2, bias, goal)
    grid = np.linspace(-0.6, 1.6, 331)
    x1, x2 = np.meshgrid(grid, grid)
    total = w1 * x1 + w2 * x2 + bias
    with show.style():
        figure, axis = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
        fires = (total > 0).astype(float)
        axis.contourf(
            x1,
            x2,
            fires,
            levels=[-0.5, 0.5, 1.5],
            colors=["white", "#d7e8f5"],
            hatches=[None, "//"],
        )
        if total.min() < 0 < total.max():
            axis.contour(x1, x2, total, levels=[0], colors="black", linewidths=2.5)
        for (a, b), want, answer in zip(CORNERS, GOALS[goal], answers, strict=True):
            face = show.COLOURS[1] if want else "white"
            axis.plot(a, b, "o", ms=17, mfc=face, mec="black", mew=2)
            verdict = "right" if want == answer else "WRONG"
            axis.annotate(
                f"wants {want}: {verdict}",
                (a, b),
                (0, 16),
                textcoords="offset points",
                ha="center",
                bbox={"fc": "white", "ec": "none", "pad": 1.5, "alpha": 0.85},
            )
        axis.set(
            xlabel="input $x_1$",
            ylabel="input $x_2$",
            aspect="equal",
            xticks=[0, 1],
            yticks=[0, 1],
            title=f"{goal}: {right} of 4 right (hatched: output 1)",
        )
        show.display(
            figure,
            f"Decision of the perceptron with weights {w1:g}, {w2:g} and bias {bias:g} over the "
            f"plane of two inputs; {right} of the 4 corners are as {goal} wants.",
        )


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


# ---------------------------------------------------------------------- 01: step or sigmoid


def small_change(change: float, z: float = -0.2) -> tuple[float, float]:
    """Output of a step neuron and of a sigmoid neuron after the weight grew by `change`.

    Both have the weighted input `z` before the change, and the changed weight's input is 1.
    """
    after = z + change
    return float(after > 0), float(scratch.sigmoid(after))


def draw_small_change(change: float) -> None:
    """Both neurons before and after the change of a weight, on their curves."""
    import matplotlib.pyplot as plt

    z = np.linspace(-3, 3, 601)
    curves = {"step": (z > 0).astype(float), "sigmoid": scratch.sigmoid(z)}
    before, after = small_change(0), small_change(change)
    with show.style():
        figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
        for axis, (name, curve), old, new in zip(axes, curves.items(), before, after, strict=True):
            axis.plot(z, curve, lw=2.5)
            axis.plot(-0.2, old, "o", ms=13, mfc="white", mec="black", mew=2, label="before")
            axis.plot(-0.2 + change, new, "D", ms=10, color=show.COLOURS[1], label="after")
            axis.set(title=f"{name}: {old:.3f} → {new:.3f}", xlabel="weighted input $z$")
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


# ---------------------------------------------------------------------- 02: the valley

CURVATURES = np.array([1.0, 10.0])
START = np.array([-8.0, 2.0])


def valley(v: Array) -> Array:
    """``L(v) = ½ (1·v₁² + 10·v₂²)``: a long valley, ten times steeper across than along."""
    return 0.5 * np.sum(CURVATURES * np.asarray(v) ** 2, axis=-1)


def valley_gradient(v: Array) -> Array:
    """``∇L = (1·v₁, 10·v₂)``."""
    return CURVATURES * v


def descend(rate: float, steps: int = 30) -> tuple[Array, Array]:
    """Gradient descent in the valley: the path (steps + 1) × 2, and the loss along it."""
    path = scratch.gradient_descent(valley_gradient, START, rate, steps)
    return path, valley(path)


def draw_descent(rate: float, steps: int = 30) -> None:
    """The path over the valley's contour lines, and the loss at each step."""
    import matplotlib.pyplot as plt

    path, losses = descend(rate, steps)
    x, y = np.meshgrid(np.linspace(-10, 10, 201), np.linspace(-5, 5, 201))
    outcome = "diverges" if losses[-1] > losses[0] else f"loss {losses[-1]:.2g} at the end"
    with show.style():
        figure, (map_, curve) = plt.subplots(
            1, 2, figsize=(11.5, 4), width_ratios=[1.5, 1], layout="constrained"
        )
        levels = np.array([0.5, 2, 5, 10, 20, 35, 55, 80, 120, 170])
        map_.contour(x, y, valley(np.stack([x, y], axis=-1)), levels, colors="0.6", linewidths=1)
        map_.plot(*path.T, "o-", ms=5, lw=1.8)
        map_.plot(*START, "s", ms=11, color=show.COLOURS[1])
        map_.plot(0, 0, "k*", ms=16)
        map_.set(xlim=(-10, 10), ylim=(-5, 5), xlabel="$v_1$", ylabel="$v_2$")
        map_.set_title(f"$\\eta$ = {rate:.3f}: {outcome}")
        curve.semilogy(np.maximum(losses, 1e-6), "o-", ms=5)
        curve.set(xlabel="step", ylabel="loss", ylim=(1e-6, 1e6), title="loss at each step")
        show.display(
            figure,
            f"Gradient descent in the valley with rate {rate:.3f}: the loss goes from "
            f"{losses[0]:.3g} to {losses[-1]:.3g} in {steps} steps.",
        )


def descent() -> VBox:
    """A slider for the learning rate η, from too small to diverging."""
    return sliders(draw_descent, rate=slider("learning rate $\\eta$", 0.05, 0.005, 0.22, 0.005))
