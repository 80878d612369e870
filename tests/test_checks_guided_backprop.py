"""The checks of notebook 08: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import copy

import numpy as np
import torch
from answers import answer_tests
from scipy.stats import rankdata, spearmanr
from torch import nn

from vislib.checks import guided_backprop as check


def identify(rule, names=("gradient", "deconvnet", "guided")):
    against_the_signal = rule(1.0, -1.0) != 0
    through_a_closed_gate = rule(-1.0, 1.0) != 0
    return names[0 if against_the_signal else 1 if through_a_closed_gate else 2]


def spearman(a, b):
    return np.corrcoef(rankdata(np.abs(a).ravel()), rankdata(np.abs(b).ravel()))[0, 1]


def spearman_in_float32(a, b):
    ranks = np.stack([rankdata(np.abs(values).ravel()) for values in (a, b)])
    return torch.corrcoef(torch.tensor(ranks).float())[0, 1]


def weighted(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def randomise_top(model, k, draw, pick=lambda layers, k: layers[-k:]):
    model = copy.deepcopy(model)
    for layer in pick(weighted(model), k):
        draw(layer)
    return model


RIGHT = {
    "identify": (check.identify, identify),
    "spearman": (check.spearman, spearman),
    "spearman by scipy": (
        check.spearman,
        lambda a, b: spearmanr(np.abs(a).ravel(), np.abs(b).ravel())[0],
    ),
    "spearman in float32": (check.spearman, spearman_in_float32),
    "randomise": (check.randomise_top, randomise_top),
}


def in_place(model, k, draw):
    for layer in weighted(model)[-k:]:
        draw(layer)
    return model


def shallow(model, k, draw):
    return in_place(copy.copy(model), k, draw)


def shallow_by_reset(model, k, draw):
    return in_place(copy.copy(model), k, lambda layer: layer.reset_parameters())


def by_reset(model, k, draw):
    return randomise_top(model, k, lambda layer: layer.reset_parameters())


def top_alone(model, k, draw):
    return nn.Sequential(*list(randomise_top(model, k, draw)[-1])[-k:])


NAMES = "should return 'gradient', 'deconvnet' or 'guided', yours returned"

WRONG = {
    "two names swapped": (
        check.identify,
        lambda rule: identify(rule, ("deconvnet", "gradient", "guided")),
        "swapped, as in the text with the misprint",
    ),
    "always guided": (
        check.identify,
        lambda rule: "guided",
        "gradient rule was taken for guided",
    ),
    "the last two names swapped": (
        check.identify,
        lambda rule: identify(rule, ("gradient", "guided", "deconvnet")),
        "deconvnet rule was taken",
    ),
    "two names only": (
        check.identify,
        lambda rule: "gradient" if rule(1, -1) else "deconvnet",
        "guided rule was taken for deconv",
    ),
    "a capital letter": (check.identify, lambda rule: identify(rule).title(), NAMES),
    "a list": (check.identify, lambda rule: [rule(1.0, -1.0)], NAMES),
    "the rule itself": (check.identify, lambda rule: rule, NAMES),
    "a letter of the rule's name": (
        check.identify,
        lambda rule: rule.__name__.upper()[5],
        f"stopped with IndexError|{NAMES}",
    ),
    "the negative correlation": (
        check.spearman,
        lambda a, b: -spearman(a, b),
        "wrong sign|not right yet",
    ),
    "the matrix": (
        check.spearman,
        lambda a, b: np.corrcoef(rankdata(np.abs(a)), rankdata(np.abs(b))),
        "shape",
    ),
    "in place": (check.randomise_top, in_place, "given network is changed"),
    "a shallow copy": (check.randomise_top, shallow, "given network is changed"),
    "a shallow copy, reset": (check.randomise_top, shallow_by_reset, "given network is changed"),
    "reset, not drawn": (check.randomise_top, by_reset, "from draw"),
    "every second layer": (
        check.randomise_top,
        lambda *inputs: randomise_top(*inputs, pick=lambda layers, k: layers[::2]),
        r"For k = 4 the layers \[2, 3, 4, 5\] \(of 0 to 5\) should be new, yours are \[0, 2, 4\]",
    ),
    "always one layer": (
        check.randomise_top,
        lambda model, k, draw: randomise_top(model, 1, draw),
        "k = 4 the layers",
    ),
    "the top alone": (check.randomise_top, top_alone, "return the whole copy"),
    "another network": (
        check.randomise_top,
        lambda model, k, draw: nn.Linear(2, 2),
        "return the whole copy",
    ),
    "a list of layers": (
        check.randomise_top,
        lambda model, k, draw: [],
        "should return a network",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG, repeats=(30, 10))
)
