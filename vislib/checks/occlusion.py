"""Checks for the exercises of notebook 13, occlusion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vislib.checks import Exercise, right, same
from vislib.explain.occlusion import slide


def _net(seed: int, gain: float = 1) -> nn.Module:
    """Small network of three classes; with a `gain`, its predictions depend more on the pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 4, 5, stride=2), nn.Tanh(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
        dense = nn.Linear(64, 3)
        dense.weight.data.mul_(gain)
        return nn.Sequential(*layers, dense).eval()


# --- The probability lost under one square --------------------------------------------------------


def _covered(x: Tensor, row: int, column: int, size: int, value: float = 0.5) -> Tensor:
    covered = x.clone()
    covered[..., row : row + size, column : column + size] = value
    return covered


def _p(model: nn.Module, x: Tensor, target: int) -> float:
    return model(x).softmax(dim=1)[0, target].item()


def _drop(model: nn.Module, x: Tensor, target: int, *square: Any) -> float:
    return _p(model, x, target) - _p(model, _covered(x, *square), target)


def _drop_of_the_logit(model: nn.Module, x: Tensor, target: int, *square: Any) -> Tensor:
    return (model(x) - model(_covered(x, *square)))[0, target]


def _drop_in_one_channel(model: nn.Module, x: Tensor, target: int, *square: Any) -> float:
    covered = torch.cat([_covered(x[:, :1], *square), x[:, 1:]], dim=1)
    return _p(model, x, target) - _p(model, covered, target)


def _squares() -> Iterator[tuple[Any, ...]]:
    """Two trials with one network: a class that loses probability, and a class that gains it."""
    rng = np.random.default_rng()
    x, square = torch.rand(1, 3, 24, 20), (3, 9, 7)
    lost = torch.zeros(3)
    # The losses of three classes sum to 0: if one is near 0, the other two differ only in the sign.
    while lost.max() < 0.02 or lost.min() > -0.02 or lost.abs().min() < 0.005:
        model = _net(int(rng.integers(1000)), gain=20)
        lost = torch.tensor([_drop(model, x, target, *square) for target in range(3)])
    for target in (int(lost.argmax()), int(lost.argmin())):
        yield model, x, target, *square


drop = Exercise(
    task=(
        "``drop(model, x, target, row, column, size)``: the probability of a class that is lost "
        "under one grey square, x 1×3×H×W, to a number."
    ),
    inputs=_squares,
    solution=_drop,
    what="the loss of probability",
    mistakes={
        "This is the probability for the covered image: compare it with that for the whole image": (
            lambda model, x, target, *square: _p(model, _covered(x, *square), target)
        ),
        "This is the loss of the logit: use the probabilities": _drop_of_the_logit,
        "The sign is reversed: a lost probability is positive": lambda *inputs: -_drop(*inputs),
        "Fill the square with grey, 0.5, not with black": (
            lambda model, x, target, *square: _drop(model, x, target, *square, 0)
        ),
        "Rows come before columns: x[..., row, column]": (
            lambda model, x, target, row, column, size: _drop(model, x, target, column, row, size)
        ),
        "Cover all three channels": _drop_in_one_channel,
        "This is the loss of another class": (
            lambda model, x, target, *square: _drop(model, x, (target + 1) % 3, *square)
        ),
    },
    praise="The square costs what it should.",
    tolerance=1e-4,
)


# --- From one value per square to one value per pixel ---------------------------------------------


def _pixel_map(
    values: Tensor,
    size: int,
    stride: int,
    shape: tuple[int, int],
    *,
    side: int | None = None,
    add: bool = True,
    divide: bool = True,
) -> Tensor:
    """Mean of the squares over each pixel; the options reproduce mistakes of learners."""
    total, count = torch.zeros(shape), torch.zeros(shape)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            square = tuple(slice(at, at + (side or size)) for at in (i * stride, j * stride))
            total[square] = total[square] + value if add else value
            count[square] += 1
    return total / count.clamp(min=1) if divide else total


def _values_of_squares() -> Iterator[tuple[Any, ...]]:
    for size, stride, shape in [(6, 3, (18, 15)), (4, 4, (12, 16))]:
        squares = slide(_net(0), torch.rand(1, 3, *shape), size=size, stride=stride)
        values = torch.rand(len(squares.rows), len(squares.columns))
        yield values, size, stride, shape


pixel_map = Exercise(
    task=(
        "``pixel_map(values, size, stride, shape)``: from one value per square, r×c, to one value "
        "per pixel, H×W."
    ),
    inputs=_values_of_squares,
    solution=_pixel_map,
    what="the map",
    mistakes={
        "The values are summed: divide by the number of squares that cover the pixel": (
            lambda *inputs: _pixel_map(*inputs, divide=False)
        ),
        "A later square overwrites an earlier square: add the values, and divide at the end": (
            lambda *inputs: _pixel_map(*inputs, add=False, divide=False)
        ),
        "A square covers size × size pixels, not stride × stride": (
            lambda values, size, stride, shape: _pixel_map(values, size, stride, shape, side=stride)
        ),
        "Divide each pixel by the number of squares that cover this pixel": (
            lambda values, size, stride, shape: (
                _pixel_map(values, size, stride, shape, divide=False) / (size / stride) ** 2
            )
        ),
    },
    praise="Each pixel has the mean of the squares that cover it.",
    tolerance=1e-4,
)


# --- Squares that change the prediction -----------------------------------------------------------


def flips(value: Any, logits: Tensor, clean: Tensor) -> None:
    """Check the fraction of squares after which another class is the most likely class.

    Args:
        value: learner's number.
        logits: logits of the covered images, r×c×K.
        clean: logits of the whole image, K.
    """
    logits, best = logits.flatten(0, -2), int(clean.argmax())
    changed = logits.argmax(dim=-1) != best
    if not 0 < int(changed.sum()) < len(changed):
        raise ValueError(
            "logits must have squares that change the class and squares that do not, got "
            f"{int(changed.sum())} of {len(changed)} that change it: use another image"
        )
    mistakes = {
        "This is a number of squares: divide by the number of all squares": int(changed.sum()),
        "These are the squares that leave the class as it was": 1 - changed.float().mean(),
        "Take argmax over the classes, the last axis": (
            (logits.argmax(dim=0) != best).float().mean()
        ),
    }
    expected = changed.float().mean()
    same(value, expected, what="the fraction", mistakes=mistakes, tolerance=1e-4)
    right("That is how often one square changes the network's prediction.")
