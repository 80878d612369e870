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


def draw_corners(axis: Any, points: Array, lines: Any, goal: str = "XOR") -> None:
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
    """The path in the valley, in three dimensions and over contour lines, and the loss by step."""
    import matplotlib.pyplot as plt

    path, losses = descend(rate, steps)
    inside = (np.abs(path) <= (10, 5)).all(axis=1)
    shown = path[: int(np.argmin(inside)) or len(path)]  # up to where it leaves the picture
    x, y = np.meshgrid(np.linspace(-10, 10, 41), np.linspace(-5, 5, 41))
    heights = valley(np.stack([x, y], axis=-1))
    outcome = "diverges" if losses[-1] > losses[0] else f"ends at loss {losses[-1]:.2g}"
    with show.style():
        figure = plt.figure(figsize=(11.5, 4.2), layout="constrained")
        solid = figure.add_subplot(1, 3, 1, projection="3d", computed_zorder=False)
        solid.plot_surface(x, y, heights, cmap="Greys", alpha=0.6, vmin=-60, vmax=260)
        solid.plot(*shown.T, valley(shown) + 3, "o-", ms=4, lw=1.8, zorder=5)
        solid.plot(*START, valley(START) + 3, "s", ms=9, color=show.COLOURS[1], zorder=6)
        solid.view_init(elev=38, azim=-68)
        solid.set(xlabel="$v_1$", ylabel="$v_2$", xticks=[-8, 0, 8], yticks=[-4, 0, 4])
        solid.set(zticks=[0, 80, 160], title="the valley")
        over = figure.add_subplot(1, 3, 2)
        draw_contours(over)
        over.plot(*path.T, "o-", ms=5, lw=1.8)
        over.plot(*START, "s", ms=11, color=show.COLOURS[1])
        over.set_title(f"$\\eta$ = {rate:.3f}: {outcome}")
        curve = figure.add_subplot(1, 3, 3)
        curve.semilogy(losses, "o-", ms=5)
        curve.set(xlabel="step", ylim=(1e-6, 1e6), title="loss at each step")
        show.display(
            figure,
            f"Gradient descent in the valley with rate {rate:.3f}: the loss goes from "
            f"{losses[0]:.3g} to {losses[-1]:.3g} in {steps} steps.",
        )


def draw_contours(axis: Any) -> None:
    """Contour lines of the valley, and a star at its lowest point."""
    x, y = np.meshgrid(np.linspace(-10, 10, 201), np.linspace(-5, 5, 201))
    levels = [0.5, 2, 5, 10, 20, 35, 55, 80, 120, 170]
    axis.contour(x, y, valley(np.stack([x, y], axis=-1)), levels, colors="0.6", linewidths=1)
    axis.plot(0, 0, "k*", ms=16)
    axis.set(xlim=(-10, 10), ylim=(-5, 5), xlabel="$v_1$", ylabel="$v_2$")


def descent() -> VBox:
    """A slider for the learning rate η, from too small to diverging."""
    return sliders(draw_descent, rate=slider("learning rate $\\eta$", 0.05, 0.005, 0.22, 0.005))


# ---------------------------------------------------------------------- 03: what does it look at


def whole(label: str, value: int, low: int, high: int) -> Any:
    """A slider for whole numbers, as wide as `slider`."""
    from ipywidgets import IntSlider, Layout

    wide = {"description_width": "9em"}
    return IntSlider(
        value, min=low, max=high, description=label, style=wide, layout=Layout(width="34em")
    )


def look_at(net: tuple[list[Array], list[Array]], digit: Array, target: int) -> tuple[Array, Array]:
    """The 10 scores of a digit (64 pixels), and ``∂y_c/∂x`` of class `target` as an 8×8 map."""
    zs, _ = scratch.mlp_forward(digit[None], *net)
    return zs[-1][0], scratch.input_gradient(digit[None], target, *net).reshape(8, 8)


def draw_look(net: tuple[list[Array], list[Array]], digit: Array, target: int) -> None:
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


def look(net: tuple[list[Array], list[Array]], digits: Array) -> VBox:
    """Choose one of the digits (N×64) and a class: the gradient map of that class's score."""

    def draw(number: int, target: int) -> None:
        draw_look(net, digits[number], target)

    last = len(digits) - 1
    return sliders(draw, number=whole("digit", 0, 0, last), target=whole("class c", 3, 0, 9))


# ---------------------------------------------------------------------- 04: the moving window

EDGE_PICTURE = np.array(
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


def window_at(position: int, stride: int = 1, padding: int = 0) -> tuple[int, int, Array, float]:
    """The window at a position counted in reading order: row, column, its pixels, its sum.

    Row and column are those of the output; the last position stands for all beyond it.
    """
    columns = scratch.output_size(len(EDGE_PICTURE), len(EDGE_KERNEL), stride, padding)
    row, column = divmod(min(position, columns**2 - 1), columns)
    top, left = row * stride, column * stride
    window = np.pad(EDGE_PICTURE, padding)[top : top + 3, left : left + 3]
    return row, column, window, float((window * EDGE_KERNEL).sum())


def draw_window(position: int, stride: int = 1, padding: int = 0) -> None:
    """One step of a convolution: the window, its products with the kernel, the output so far."""
    row, column, window, total = window_at(position, stride, padding)
    kernel = EDGE_KERNEL[None, None].astype(float)
    output = scratch.convolve(EDGE_PICTURE[None], kernel, 0.0, stride, padding)[0]
    output.ravel()[row * len(output) + column + 1 :] = np.nan
    top, left = row * stride, column * stride
    title = f"output: sum = {total:.0f}".replace("-", "−")
    arrays = {
        "picture": np.pad(EDGE_PICTURE, padding),
        "kernel": EDGE_KERNEL,
        "window × kernel": window * EDGE_KERNEL,
        title: output,
    }
    frames = {
        "picture": (top, top + 3, left, left + 3),
        title: (row, row + 1, column, column + 1),
    }
    show.matrices(
        arrays,
        frames=frames,
        alt=f"Step {position} of a convolution with stride {stride} and padding {padding}: the "
        f"window at row {top}, column {left} of the picture gives {total:.0f} at row {row}, column "
        f"{column} of the output.",
    )


def moving_window() -> VBox:
    """Sliders for the position of the window, the stride and the padding."""
    return sliders(
        draw_window,
        position=whole("position", 5, 0, 63),
        stride=whole("stride S", 1, 1, 3),
        padding=whole("padding P", 0, 0, 2),
    )
