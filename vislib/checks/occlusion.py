"""Checks for notebook 13."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vislib.checks import call, right, same
from vislib.explain.occlusion import slide, spread


def _net(seed: int, gain: float = 1) -> nn.Module:
    """A small net of three classes; its answers depend on every pixel (much, with a gain)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 4, 5, stride=2), nn.Tanh(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
        dense = nn.Linear(64, 3)
        dense.weight.data.mul_(gain)
        return nn.Sequential(*layers, dense).eval()


def drop(function: Callable[..., Any]) -> None:
    """Probability lost under one square: ``function(model, x, target, row, column, size)``."""
    rng = np.random.default_rng()
    x, row, column, size = torch.rand(1, 3, 24, 20), 3, 9, 7
    covered = _covered(x, row, column, size)
    lost = torch.zeros(3)
    while lost.max() < 0.02 or lost.min() > -0.02:
        model = _net(int(rng.integers(1000)), gain=20)
        with torch.no_grad():
            lost = (model(x).softmax(dim=1) - model(covered).softmax(dim=1))[0]
    for target in (int(lost.argmax()), int(lost.argmin())):  # one loses, one gains
        other = (target + 1) % 3
        one_channel = torch.cat([covered[:, :1], x[:, 1:]], dim=1)

        def p(image: Tensor, model: nn.Module = model, c: int = target) -> float:
            return float(model(image).softmax(dim=1)[0, c])

        with torch.no_grad():
            expected = p(x) - p(covered)
            mistakes = {
                "This is the covered image's probability: subtract it from the whole image's": p(
                    covered
                ),
                "This is the loss of the logit: use the probabilities": (
                    model(x)[0, target] - model(covered)[0, target]
                ),
                "The sign is the other way round: before minus after": p(covered) - p(x),
                "Fill with grey, 0.5, not with black": p(x) - p(_covered(x, row, column, size, 0)),
                "Rows come before columns: x[..., row, column]": (
                    p(x) - p(_covered(x, column, row, size))
                ),
                "Cover all three channels": p(x) - p(one_channel),
                "This is the loss of another class": p(x, c=other) - p(covered, c=other),
            }
        found = call(function, model, x, target, row, column, size)
        what = "the loss of probability"
        same(found, expected, what=what, mistakes=mistakes, tolerance=1e-4)
    right("The square costs what it should.")


def _covered(x: Tensor, row: int, column: int, size: int, value: float = 0.5) -> Tensor:
    covered = x.clone()
    covered[..., row : row + size, column : column + size] = value
    return covered


def pixel_map(function: Callable[..., Any]) -> None:
    """From one value per square to one per pixel: ``function(values, size, stride, shape)``."""
    for size, stride, shape in [(6, 3, (18, 15)), (4, 4, (12, 16))]:
        x = torch.rand(1, 3, *shape)
        places = slide(_net(0), x, size=size, stride=stride)
        values = torch.rand(len(places.rows), len(places.columns))
        expected = spread(values[None, None], places, shape)[0, 0]
        total, last, corner = (torch.zeros(shape) for _ in range(3))
        for i, row in enumerate(places.rows):
            for j, column in enumerate(places.columns):
                square = (slice(row, row + size), slice(column, column + size))
                total[square] += values[i, j]
                last[square] = values[i, j]
                corner[row : row + stride, column : column + stride] = values[i, j]
        mistakes = {
            "The values are added up: divide by how many squares cover the pixel": total,
            "A later square overwrites an earlier one: add, and divide at the end": last,
            "A square covers size × size pixels, not stride × stride": corner,
            "Divide each pixel by its own number of squares": total / (size / stride) ** 2,
        }
        found = call(function, values, size, stride, shape)
        same(found, expected, what="the map", mistakes=mistakes, tolerance=1e-4)
    right("Each pixel has the mean of the squares that cover it.")


def flips(value: Any, logits: Tensor, clean: Tensor) -> None:
    """Share of squares after which another class is the most likely one."""
    best = int(clean.argmax())
    changed = logits.flatten(0, -2).argmax(dim=-1) != best
    n = len(changed)
    if not 0 < int(changed.sum()) < n:
        raise ValueError("this scene does not tell right from wrong: take one where a square flips")
    mistakes = {
        "This is a number of squares: divide by how many there are": int(changed.sum()),
        "These are the squares that leave the class as it was": 1 - changed.float().mean(),
        "argmax over the classes: the last axis": (logits.flatten(0, -2).argmax(dim=0) != best)
        .float()
        .mean(),
    }
    same(value, changed.float().mean(), what="the share", mistakes=mistakes, tolerance=1e-4)
    right("That is how often one square changes the net's mind.")
