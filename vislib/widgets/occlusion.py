"""Widget of notebook 13: the square under the reader's hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vislib import nets, show
from vislib.transforms import baseline_image
from vislib.widgets import sliders, whole

if TYPE_CHECKING:
    from ipywidgets import VBox

STEP = 8  # pixels from one place of the sliders to the next


def cover(x: Tensor, row: int, column: int, size: int, kind: str = "grey") -> Tensor:
    """The image, 1×3×H×W, with a square of `size` pixels, row and column counted in steps of 8."""
    covered = x.clone()
    square = (..., slice(row * STEP, row * STEP + size), slice(column * STEP, column * STEP + size))
    covered[square] = baseline_image(x, kind)[square]
    return covered


def answers(model: nets.Classifier, x: Tensor, targets: list[int]) -> list[float]:
    """The probabilities of the target classes."""
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
    """The covered image, and the probabilities of some classes without and with the square."""
    import matplotlib.pyplot as plt

    covered = cover(x, row, column, size, kind)
    before, after = answers(model, x, targets), answers(model, covered, targets)
    names = [model.classes[target] for target in targets]
    with show.style():
        figure, axes = plt.subplots(
            1, 2, figsize=(9, 3.8), width_ratios=[1, 1.4], layout="constrained"
        )
        axes[0].imshow(show.picture(covered[0]))
        axes[0].set_title(f"covered: {size} pixels of {x.shape[-1]}")
        axes[0].axis("off")
        places = range(len(names))
        axes[1].barh([p - 0.2 for p in places], before, 0.38, color="0.75", label="whole image")
        axes[1].barh(
            [p + 0.2 for p in places],
            after,
            0.38,
            color=show.COLOURS[1],
            hatch="//",
            label="covered",
        )
        axes[1].set(yticks=places, yticklabels=names, xlim=(0, 1), xlabel="probability")
        axes[1].invert_yaxis()
        axes[1].legend(loc="lower right", fontsize=11)
        told = ", ".join(
            f"{name} {b:.2f} to {a:.2f}" for name, b, a in zip(names, before, after, strict=True)
        )
        show.display(
            figure,
            f"A {kind} square of {size} pixels in row {row * STEP}, column {column * STEP} changes "
            f"the probabilities: {told}.",
        )


def square(model: nets.Classifier, x: Tensor, targets: list[int]) -> VBox:
    """Move a square over the image, change its size and its filling."""
    from ipywidgets import Dropdown

    def draw(row: int, column: int, size: int, kind: str) -> None:
        draw_square(model, x, targets, row, column, size, kind)

    last = x.shape[-1] // STEP - 1
    return sliders(
        draw,
        row=whole("row", 5, 0, x.shape[-2] // STEP - 1),
        column=whole("column", 5, 0, last),
        size=whole("size of the square", 32, 4, 64),
        kind=Dropdown(options=["grey", "mean", "blur", "noise"], description="filling"),
    )
