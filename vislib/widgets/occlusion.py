"""Interactive figure of notebook 13: a square that covers a part of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vislib import nets, show
from vislib.transforms import baseline_image
from vislib.widgets import int_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox

# Pixels between neighbouring positions of the sliders.
STEP = 8


def cover(x: Tensor, row: int, column: int, size: int, kind: str = "grey") -> Tensor:
    """Image in which a square shows the baseline, 1×3×H×W.

    Args:
        x: image, 1×3×H×W.
        row: top of the square, in steps of 8 pixels.
        column: left side of the square, in steps of 8 pixels.
        size: side of the square in pixels.
        kind: kind of the baseline, as in `vislib.transforms.baseline_image`.

    >>> covered = cover(torch.zeros(1, 3, 16, 16), row=1, column=0, size=4)
    >>> covered[0, 0, 7:13, 0].tolist()
    [0.0, 0.5, 0.5, 0.5, 0.5, 0.0]
    """
    covered = x.clone()
    square = (..., slice(row * STEP, row * STEP + size), slice(column * STEP, column * STEP + size))
    covered[square] = baseline_image(x, kind)[square]
    return covered


def probabilities(model: nets.Classifier, x: Tensor, targets: list[int]) -> list[float]:
    """Probabilities of the target classes for the first image.

    Args:
        model: any network.
        x: images, N×3×H×W.
        targets: indices of the target classes.
    """
    with torch.no_grad():
        return model(x).softmax(dim=1)[0, targets].tolist()


def draw_square(
    model: nets.Classifier,
    x: Tensor,
    targets: list[int],
    row: int,
    column: int,
    size: int,
    kind: str = "grey",
) -> None:
    """Draw the covered image, and the probabilities of some classes with and without the square.

    Args:
        model: any network with class names.
        targets: indices of the target classes.
        x, row, column, size, kind: as in `cover`.
    """
    import matplotlib.pyplot as plt

    covered = cover(x, row, column, size, kind)
    before, after = probabilities(model, x, targets), probabilities(model, covered, targets)
    names = [model.classes[target] for target in targets]
    with show.style():
        figure, axes = plt.subplots(
            1, 2, figsize=(9, 3.8), width_ratios=[1, 1.4], layout="constrained"
        )
        axes[0].imshow(show.rgb(covered[0]))
        axes[0].set_title(f"covered: {size} pixels of {x.shape[-1]}")
        axes[0].axis("off")
        for shift, values, style in (
            (-0.2, before, {"color": "0.75", "label": "whole image"}),
            (0.2, after, {"color": show.COLOURS[1], "hatch": "//", "label": "covered"}),
        ):
            axes[1].barh([i + shift for i in range(len(names))], values, 0.38, **style)
        axes[1].set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1), xlabel="probability")
        axes[1].invert_yaxis()
        axes[1].legend(loc="lower right", fontsize=11)
        changes = ", ".join(
            f"{name} {b:.2f} to {a:.2f}" for name, b, a in zip(names, before, after, strict=True)
        )
        show.figure(
            figure,
            alt=f"A {kind} square of {size} pixels in row {row * STEP}, column {column * STEP} "
            f"changes the probabilities: {changes}.",
        )


def square(model: nets.Classifier, x: Tensor, targets: list[int]) -> VBox:
    """Controls for the position of the square, its size and its baseline.

    Args:
        model: any network with class names.
        x: image, 1×3×H×W.
        targets: indices of the classes whose probabilities are shown.
    """
    from ipywidgets import Dropdown

    def draw(row: int, column: int, size: int, kind: str) -> None:
        draw_square(model, x, targets, row, column, size, kind)

    return interactive_figure(
        draw,
        row=int_slider("row", 5, 0, x.shape[-2] // STEP - 1),
        column=int_slider("column", 5, 0, x.shape[-1] // STEP - 1),
        size=int_slider("size of the square", 32, 4, 64),
        kind=Dropdown(options=["grey", "mean", "blur", "noise"], description="baseline"),
    )
