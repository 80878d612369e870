"""Checks for the exercises of notebook 08, guided backprop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import nn

from vislib.checks import Exercise, Wrong, describe

# --- Which rule is it? ----------------------------------------------------------------------------

Rule = Callable[[Any, Any], np.ndarray]

RULES: dict[str, Rule] = {
    "gradient": lambda z, R: (np.asarray(z) > 0) * R,
    "deconvnet": lambda z, R: (np.asarray(R) > 0) * R,
    "guided": lambda z, R: (np.asarray(z) > 0) * (np.asarray(R) > 0) * R,
}
"""The three ways back through a ReLU with the input ``z``, for the signal ``R`` above it."""


def _named(**others: str) -> Callable[[Rule], str]:
    """Function that confuses names of the rules, such as ``_named(guided="gradient")``."""

    def identify(rule: Rule) -> str:
        name = next(name for name, known in RULES.items() if known is rule)
        return others.get(name, name)

    return identify


def _number_of_the_rule(result: Any, rule: Rule) -> int:
    if not isinstance(result, str) or result not in RULES:
        raise Wrong(
            f"identify should return 'gradient', 'deconvnet' or 'guided', "
            f"yours returned {describe(result)}"
        )
    return list(RULES).index(result)


identify = Exercise(
    task="``identify(rule)``: the name of an unknown rule, from its results alone.",
    inputs=lambda: [(rule,) for rule in RULES.values()],
    solution=_named(),
    what="the name",
    mistakes={
        "Are gradient and deconvnet swapped, as in the text with the misprint? The gradient tests "
        "the forward pass (z > 0), the deconvnet the signal (R > 0)": _named(
            gradient="deconvnet", deconvnet="gradient"
        ),
        "The gradient rule was taken for guided. Which of the two blocks where z > 0 and R < 0?": (
            _named(gradient="guided")
        ),
        "The deconvnet rule was taken for guided. Which of the two blocks where z < 0 and R > 0?": (
            _named(deconvnet="guided")
        ),
        "The guided rule was taken for gradient. Which of the two blocks where z > 0 and R < 0?": (
            _named(guided="gradient")
        ),
        "The guided rule was taken for deconvnet. Which of the two blocks where z < 0 and R > 0?": (
            _named(guided="deconvnet")
        ),
    },
    parse=_number_of_the_rule,
    praise="All three rules are recognised by what they do.",
)


# --- Rank correlation -----------------------------------------------------------------------------


def _maps() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Maps with many equal values; attribution maps have many zeros."""
    rng = np.random.default_rng()
    for shape in [(40,), (3, 6, 5)]:
        a = rng.integers(-6, 7, shape).astype(float)
        yield a, np.round(a + rng.normal(size=shape) * 3) ** 3


def _order(values: np.ndarray) -> np.ndarray:
    return np.argsort(values, kind="stable")


def _spearman(
    a: np.ndarray,
    b: np.ndarray,
    *,
    size: Callable[[np.ndarray], np.ndarray] = np.abs,
    rank: Callable[[np.ndarray], np.ndarray] = rankdata,
) -> float:
    return float(np.corrcoef(rank(size(a).ravel()), rank(size(b).ravel()))[0, 1])


spearman = Exercise(
    task="``spearman(a, b)``: the rank correlation of the absolute values of two maps.",
    inputs=_maps,
    solution=_spearman,
    what="the rank correlation",
    mistakes={
        "Take absolute values first: a pixel can matter with either sign": partial(
            _spearman, size=np.asarray
        ),
        "This is Pearson's correlation of the values: replace them by their ranks": partial(
            _spearman, rank=np.asarray
        ),
        "argsort gives the positions of the sorted values, not the rank of each value": partial(
            _spearman, rank=_order
        ),
        "Equal values must have equal ranks, their mean rank: use scipy.stats.rankdata": partial(
            _spearman, rank=lambda values: _order(_order(values))
        ),
    },
    praise="This is Spearman's rank correlation, with one rank for equal values.",
)


# --- Randomised layers ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Draw:
    """Function that draws weights between 10 and 11, which no other initialisation gives.

    Attributes:
        before: copy of the network with its initial weights.
    """

    before: nn.Module

    def __call__(self, layer: nn.Module) -> None:
        with torch.no_grad():
            for values in layer.parameters():
                values.copy_(torch.rand_like(values) + 10)


def _networks() -> Iterator[tuple[nn.Module, int, _Draw]]:
    """Network of six layers; for k = 4, the first trial, all mistakes differ."""
    torch.manual_seed(int(np.random.default_rng().integers(2**31)))
    features = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()]
    hidden = [nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU()]
    model = nn.Sequential(
        nn.Sequential(*features),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Sequential(*hidden, nn.Linear(6, 5)),
    )
    draw = _Draw(copy.deepcopy(model))
    for k in (4, 1, 2):
        yield model, k, draw


def _weighted(model: nn.Module) -> list[nn.Module]:
    """Layers with weights, in the order of the forward pass."""
    return [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def _leaves(model: nn.Module) -> list[nn.Module]:
    """All layers, with and without weights, but without containers."""
    return [m for m in model.modules() if not [*m.children()]]


def _randomise(
    model: nn.Module,
    k: int,
    draw: Callable[[nn.Module], None],
    *,
    pick: Callable[[list[nn.Module], int], list[nn.Module]] = lambda layers, k: layers[-k:],
    among: Callable[[nn.Module], list[nn.Module]] = _weighted,
) -> nn.Module:
    model = copy.deepcopy(model)
    for layer in pick(among(model), k):
        draw(layer)
    return model


def _new_layers(result: Any, model: nn.Module, k: int, draw: _Draw) -> list[bool]:
    """Check the copy, and return for each layer with weights whether they are new."""
    if not isinstance(result, nn.Module):
        raise Wrong(f"randomise_top should return a network, yours returns {describe(result)}")
    if result is model or any(_changed(draw.before, model)):
        raise Wrong("The given network is changed: work on copy.deepcopy(model)")
    if _shapes(result) != _shapes(model):
        raise Wrong("The copy should have the layers of the given network: return the whole copy")
    new = _changed(model, result)
    drawn = [all(v.min() >= 10 for v in layer.parameters()) for layer in _weighted(result)]
    if any(is_new and not is_drawn for is_new, is_drawn in zip(new, drawn, strict=True)):
        raise Wrong("The new weights should come from draw(layer)")
    return new


def _shapes(model: nn.Module) -> list[torch.Size]:
    return [values.shape for values in model.parameters()]


def _changed(before: nn.Module, after: nn.Module) -> list[bool]:
    """Whether the weights of each layer differ."""
    pairs = zip(_weighted(before), _weighted(after), strict=True)
    return [not _same_weights(one, other) for one, other in pairs]


def _same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


def _expected_and_new(result: nn.Module, model: nn.Module, k: int, draw: _Draw) -> str:
    new = [i for i, is_new in enumerate(_new_layers(result, model, k, draw)) if is_new]
    total = len(_weighted(model))
    return (
        f"For k = {k} the layers {list(range(total - k, total))} (of 0 to {total - 1}) should be "
        f"new, yours are {new}"
    )


randomise_top = Exercise(
    task=(
        "``randomise_top(model, k, draw)``: a copy in which the last k layers with weights have "
        "new ones; ``draw(layer)`` draws them in place."
    ),
    inputs=_networks,
    solution=_randomise,
    what="the list of new layers",
    mistakes={
        "No layer has new weights: call draw(layer) for each of the layers": partial(
            _randomise, pick=lambda layers, k: []
        ),
        "All layers are new: draw weights only for the last k": partial(
            _randomise, pick=lambda layers, k: layers
        ),
        "The first k layers are new: the logits are at the other end": partial(
            _randomise, pick=lambda layers, k: layers[:k]
        ),
        "Only one layer is new: the last k layers must all be new": partial(
            _randomise, pick=lambda layers, k: [layers[-k]]
        ),
        "You counted the ReLUs too: only convolutions and dense layers have weights": partial(
            _randomise, among=_leaves
        ),
        "One layer too many is new: draw weights for k layers": partial(
            _randomise, pick=lambda layers, k: layers[-k - 1 :]
        ),
        "One new layer is missing: draw weights for k layers": partial(
            _randomise, pick=lambda layers, k: layers[len(layers) - k + 1 :]
        ),
    },
    parse=_new_layers,
    explain=_expected_and_new,
    praise="The last k layers are new, and the given network is unchanged.",
)
