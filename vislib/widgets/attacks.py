"""Interactive figure of notebook 19: how large a perturbation must be to reach a target class.

The module also draws the matrix of attacks that are evaluated on other networks.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vislib import nets, show
from vislib.attacks import bim
from vislib.widgets import int_slider, interactive_figure

if TYPE_CHECKING:
    import pandas as pd
    from ipywidgets import VBox


def attacked(
    model: nets.Classifier, x: Tensor, target: int, level: int, *, steps: int = 10
) -> tuple[Tensor, Tensor]:
    """Image attacked towards a class, and the model's probabilities for the result.

    Args:
        model: any network with class names.
        x: image, 1×C×H×W in [0, 1].
        target: class that the attack should reach.
        level: largest perturbation of a value, in grey levels of 255.
        steps: number of steps of `vislib.attacks.bim`.

    Returns:
        The attacked image, 1×C×H×W, and one probability for each class, K.

    Raises:
        ValueError: `level` is negative, or another argument is wrong, as in `vislib.attacks.bim`.

    >>> model = nets.load("emoji_vgg")
    >>> image, probabilities = attacked(model, torch.rand(1, 3, 64, 64), 3, level=2, steps=1)
    >>> image.shape, probabilities.shape
    (torch.Size([1, 3, 64, 64]), torch.Size([16]))
    """
    image = bim(model, x, target, epsilon=level / 255, steps=steps, targeted=True)
    with torch.no_grad():
        return image, model(image).softmax(1)[0]


def difference(x: Tensor, image: Tensor, *, factor: float = 10) -> Tensor:
    """``0.5 + factor · (image − x)`` of the first image, C×H×W, clipped to [0, 1].

    On mid-grey both signs are visible.

    Args:
        x: original images, N×C×H×W.
        image: attacked images, N×C×H×W.
        factor: factor by which the difference is enlarged.
    """
    return (0.5 + factor * (image - x)[0]).clamp(0, 1)


def draw_attack(
    model: nets.Classifier, x: Tensor, target: int, level: int, *, steps: int = 10
) -> None:
    """Draw the attacked image, the difference × 10, and bars of the probabilities.

    Args:
        model, x, target, level, steps: as in `attacked`.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    image, after = attacked(model, x, target, level, steps=steps)
    with torch.no_grad():
        before = model(x).softmax(1)[0]
    ranking = (before + after).argsort(descending=True).tolist()
    shown = list(dict.fromkeys([target, *ranking]))[:4]
    names = [model.classes[c].split(",")[0] for c in shown]
    positions = np.arange(len(shown))
    with show.style():
        figure, axes = plt.subplots(
            1, 3, figsize=(13, 4), width_ratios=[1, 1, 1.1], layout="constrained"
        )
        for axis, shown_image, title in (
            (axes[0], image[0], f"changed by up to {level}/255"),
            (axes[1], difference(x, image), "difference × 10"),
        ):
            axis.imshow(show.rgb(shown_image), interpolation="nearest")
            axis.set_title(title)
            axis.axis("off")
        for shift, values, colour, hatch, label in (
            (-0.2, before, show.COLOURS[5], "", "before"),
            (0.2, after, show.COLOURS[1], "//", "after"),
        ):
            style = {"color": colour, "hatch": hatch, "edgecolor": "white"}
            axes[2].barh(positions + shift, values[shown], 0.38, label=label, **style)
        axes[2].set_yticks(positions, [f"aim: {names[0]}", *names[1:]])
        axes[2].set(xlim=(0, 1), xlabel="probability")
        axes[2].invert_yaxis()
        axes[2].legend(fontsize=11, loc="lower right")
    show.figure(
        figure,
        alt=f"The image changed by up to {level} grey levels of 255, the difference times ten, and "
        f"bars: the probability of {names[0]} goes from {before[target]:.2f} to "
        f"{after[target]:.2f}.",
    )


def draw_transfer(fractions: pd.DataFrame, title: str) -> None:
    """Draw the success of attacks on other networks as a matrix, in %.

    Args:
        fractions: fraction of successful attacks, with a row for each attacked network and a column
            for each network that is evaluated.
        title: title of the matrix.
    """
    height, width = fractions.shape
    figure = show.matrix_figure({title: (100 * fractions).round()})
    figure.axes[0].set(xlabel="evaluated network", ylabel="attacked network")
    show.figure(
        figure,
        alt=f"A matrix of {height} rows, the attacked networks, and {width} columns, the evaluated "
        f"networks: {title}. " + "; ".join(_best_transfers(fractions)) + ".",
    )


def _best_transfers(fractions: pd.DataFrame) -> list[str]:
    """Largest number off the diagonal of each row, in words."""
    texts = []
    for name, row in fractions.iterrows():
        others = row.drop(name, errors="ignore")
        texts.append(f"{name}: at most {others.max():.0%} ({others.idxmax()}) on another network")
    return texts


def attack_size(model: nets.Classifier, x: Tensor, target: int) -> VBox:
    """Sliders for the largest perturbation, in grey levels, and for the target class.

    Args:
        model, x, target: as in `attacked`. The slider for the class starts at `target`.
    """
    return interactive_figure(
        partial(draw_attack, model, x),
        level=int_slider("ε in 255ths", 2, 0, 16),
        target=int_slider("class aimed at", target, 0, len(model.classes) - 1),
    )
