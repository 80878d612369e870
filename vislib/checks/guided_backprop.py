"""Checks for notebook 08."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from vislib.checks import Wrong, call, describe, right, same

RULES: dict[str, Callable[[Any, Any], np.ndarray]] = {
    "gradient": lambda z, R: (np.asarray(z) > 0) * R,
    "deconvnet": lambda z, R: (np.asarray(R) > 0) * R,
    "guided": lambda z, R: (np.asarray(z) > 0) * (np.asarray(R) > 0) * R,
}
"""The three ways back through a ReLU: what came in forwards, ``z``, and from above, ``R``."""


def identify(function: Callable[..., Any]) -> None:
    """The name of an unknown rule, from what it does alone: ``function(rule)``."""
    found = {name: call(function, rule) for name, rule in RULES.items()}
    for answer in found.values():
        if not isinstance(answer, str) or answer not in RULES:
            raise Wrong(
                f"identify should return 'gradient', 'deconvnet' or 'guided', "
                f"yours returned {describe(answer)}"
            )
    if found["gradient"] == "deconvnet" and found["deconvnet"] == "gradient":
        raise Wrong(
            "Gradient and deconvnet are swapped, as in the text with the misprint. The gradient "
            "asks the forward pass (z > 0), the deconvnet the signal (R > 0)"
        )
    for name, answer in found.items():
        if answer != name:
            raise Wrong(
                f"The {name} rule was taken for {answer}. Which of the two blocks where z > 0 and "
                "R < 0, and which where z < 0 and R > 0?"
            )
    right("All three rules are recognised by what they do.")


def spearman(function: Callable[..., Any]) -> None:
    """Rank correlation of the absolute values of two maps: ``function(a, b)``."""
    rng = np.random.default_rng()
    for shape in [(40,), (3, 6, 5)]:
        a = rng.integers(-6, 7, shape).astype(float)  # with many equal values, as maps have zeros
        b = np.round(a + rng.normal(size=shape) * 3) ** 3
        size_a, size_b = np.abs(a).ravel(), np.abs(b).ravel()

        def correlation(u: np.ndarray, v: np.ndarray) -> float:
            return float(np.corrcoef(u.ravel(), v.ravel())[0, 1])

        order = [np.argsort(values, kind="stable") for values in (size_a, size_b)]
        ordinal = [np.argsort(places, kind="stable") for places in order]
        mistakes = {
            "Take absolute values first: a place can matter with either sign": correlation(
                rankdata(a), rankdata(b)
            ),
            "This is Pearson's correlation of the values: replace them by their ranks": correlation(
                size_a, size_b
            ),
            "argsort gives the places of the sorted values, not the rank of each value": (
                correlation(*order)
            ),
            "Equal values must share their mean rank: scipy.stats.rankdata does it": correlation(
                *ordinal
            ),
        }
        expected = correlation(rankdata(size_a), rankdata(size_b))
        found = call(function, a, b)
        same(found, expected, what="the rank correlation", mistakes=mistakes)
    right("This is Spearman's rank correlation, with equal values treated alike.")


def randomise_top(function: Callable[..., Any]) -> None:
    """A copy with the last k layers with weights drawn anew: ``function(model, k, draw)``."""
    torch.manual_seed(int(np.random.default_rng().integers(2**31)))
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5)),
    )
    before = copy.deepcopy(model)
    total = 5
    for k in (1, 4, 2):  # with 4, all hints differ
        result = call(function, model, k, _draw)
        if not isinstance(result, nn.Module):
            raise Wrong(f"randomise_top should return a net, yours returns {describe(result)}")
        if result is model or _new(before, model):
            raise Wrong("The given net is changed: work on copy.deepcopy(model)")
        if _shapes(result) != _shapes(before):
            raise Wrong("The copy should have the layers of the given net: return the whole copy")
        new = _new(before, result)
        wanted = list(range(total - k, total))
        hints: dict[str, list[int]] = {
            "Nothing was drawn anew: call draw(layer) for each of the layers": [],
            "All layers are new: draw only the last k": list(range(total)),
            "The first k layers are new: the logits are at the other end": list(range(k)),
            "Only one layer is new: all from the last down to the k-th must be": [total - k],
            "ReLUs were counted too: only convolutions and dense layers have weights": [
                i for i in wanted if _from_top(before)[i] <= k
            ],
            f"One layer too many for k = {k}": wanted[:1] and [total - k - 1, *wanted],
            f"One layer is missing for k = {k}": wanted[1:],
        }
        for advice, layers in hints.items():
            if new == layers != wanted:
                raise Wrong(advice)
        if new != wanted:
            raise Wrong(
                f"For k = {k} the layers {wanted} (of 0 to {total - 1}) should be new, "
                f"yours are {new}"
            )
        if not all(values.min() >= 10 for i in new for values in _weighted(result)[i].parameters()):
            raise Wrong("The new weights should come from draw(layer)")
    right("The last k layers are new, and the given net is as it was.")


def _draw(layer: nn.Module) -> None:
    """Weights between 10 and 11, as no other way of drawing gives."""
    with torch.no_grad():
        for values in layer.parameters():
            values.copy_(torch.rand_like(values) + 10)


def _weighted(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def _shapes(model: nn.Module) -> list[torch.Size]:
    return [values.shape for values in model.parameters()]


def _new(before: nn.Module, after: nn.Module) -> list[int]:
    """Which of the layers with weights, counted from the picture, have other weights now."""
    pairs = zip(_weighted(before), _weighted(after), strict=True)
    return [i for i, (a, b) in enumerate(pairs) if not _equal(a, b)]


def _equal(a: nn.Module, b: nn.Module) -> bool:
    states: list[list[Tensor]] = [list(layer.state_dict().values()) for layer in (a, b)]
    return all(torch.equal(one, other) for one, other in zip(*states, strict=True))


def _from_top(model: nn.Module) -> list[int]:
    """For each layer with weights: its place among all modules that are no containers, from top."""
    leaves = [m for m in model.modules() if not [*m.children()]]
    return [len(leaves) - leaves.index(layer) for layer in _weighted(model)]
