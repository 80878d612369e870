"""Widget of notebook 19: how large a change must be until the net gives the answer that we want.

And its matrix of attacks that are shown to another net.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vislib import nets, show
from vislib.attacks import bim
from vislib.widgets import sliders, whole

if TYPE_CHECKING:
    import pandas as pd
    from ipywidgets import VBox


def change(
    model: nets.Classifier, x: Tensor, aim: int, level: int, *, steps: int = 10
) -> tuple[Tensor, Tensor]:
    """The image 1×C×H×W, attacked so that the net says `aim`, and the net's probabilities, K.

    Each value changes by at most ``level / 255``, in `steps` steps. ``ValueError`` below level 0.
    """
    changed = bim(model, x, aim, epsilon=level / 255, steps=steps, targeted=True)
    with torch.no_grad():
        return changed, model(changed).softmax(1)[0]


def difference(x: Tensor, changed: Tensor, *, times: float = 10) -> Tensor:
    """``times · (changed − x)`` of the first image, on mid-grey so that both signs are seen."""
    return (0.5 + times * (changed - x)[0]).clamp(0, 1)


def draw_change(
    model: nets.Classifier, x: Tensor, aim: int, level: int, *, steps: int = 10
) -> None:
    """The changed image, the difference ×10, and the probabilities before and after as bars."""
    import matplotlib.pyplot as plt
    import numpy as np

    changed, after = change(model, x, aim, level, steps=steps)
    with torch.no_grad():
        before = model(x).softmax(1)[0]
    shown = list(dict.fromkeys([aim, *(before + after).argsort(descending=True).tolist()]))[:4]
    places = np.arange(len(shown))
    with show.style():
        figure, axes = plt.subplots(
            1, 3, figsize=(13, 4), width_ratios=[1, 1, 1.1], layout="constrained"
        )
        for axis, image, title in (
            (axes[0], changed[0], f"changed by up to {level}/255"),
            (axes[1], difference(x, changed), "difference × 10"),
        ):
            axis.imshow(show.picture(image), interpolation="nearest")
            axis.set_title(title)
            axis.axis("off")
        for shift, values, colour, hatch, label in (
            (-0.2, before, show.COLOURS[5], "", "before"),
            (0.2, after, show.COLOURS[1], "//", "after"),
        ):
            style = {"color": colour, "hatch": hatch, "edgecolor": "white"}
            axes[2].barh(places + shift, values[shown], 0.38, label=label, **style)
        names = [model.classes[c].split(",")[0] for c in shown]
        axes[2].set_yticks(places, [f"aim: {names[0]}", *names[1:]])
        axes[2].set(xlim=(0, 1), xlabel="probability")
        axes[2].invert_yaxis()
        axes[2].legend(fontsize=11, loc="lower right")
    show.display(
        figure,
        f"The image changed by up to {level} grey levels of 255, the difference times ten, and "
        f"bars: the probability of {names[0]} goes from {before[aim]:.2f} to {after[aim]:.2f}.",
    )


def draw_transfer(shares: pd.DataFrame, title: str) -> None:
    """Shares in % as a matrix: a row for each net that was attacked, a column for each asked."""
    from vislib.measure import report

    height, width = shares.shape
    figure = report.matrix({title: (100 * shares).round()}, cell=0.85)
    figure.axes[0].set(xlabel="net that is asked", ylabel="net that was attacked")
    show.display(
        figure,
        f"A matrix of {height} rows, the nets that were attacked, and {width} columns, the nets "
        f"that are asked: {title}. " + "; ".join(_largest(shares)) + ".",
    )


def _largest(shares: pd.DataFrame) -> list[str]:
    """For each row its largest number off the diagonal, in words."""
    texts = []
    for name, row in shares.iterrows():
        others = row.drop(name, errors="ignore")
        texts.append(f"{name}: at most {others.max():.0%} ({others.idxmax()}) away from home")
    return texts


def size(model: nets.Classifier, x: Tensor, aim: int) -> VBox:
    """Sliders for the largest change, in grey levels, and for the class that is aimed at."""
    return sliders(
        partial(draw_change, model, x),
        level=whole("ε in 255ths", 2, 0, 16),
        aim=whole("class aimed at", aim, 0, len(model.classes) - 1),
    )
