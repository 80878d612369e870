"""The checks of notebook 14: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from answers import answer_tests
from torch import nn

from vislib.checks import relevance as check
from vislib.core import BackwardRules
from vislib.explain.lrp import rules
from vislib.explain.lrp.operations import as_layer, without_bias


def epsilon_layer(x, w, b, R, epsilon):
    q = x[:, None] * w
    z = q.sum(2) + b
    return (q / (z + epsilon * z.sign())[:, :, None] * R[:, :, None]).sum(dim=1)


def bias_takes(x, w, b, R):
    return R.sum(dim=1) - epsilon_layer(x, w, b, R, 0).sum(dim=1)


def alpha_beta_layer(x, w, R, alpha, beta):
    q = x[:, None] * w
    up, down = (part / part.sum(2, keepdim=True) for part in (q.clamp(min=0), q.clamp(max=0)))
    return ((alpha * up - beta * down) * R[:, :, None]).sum(dim=1)


def z_box_layer(x, w, R, low, high):
    q = x[:, None] * w - low * w.clamp(min=0) - high * w.clamp(max=0)
    return (q / q.sum(2, keepdim=True) * R[:, :, None]).sum(dim=1)


def in_matrices(x, w, b, R, epsilon):
    z = x @ w.T + b
    return x * ((R / (z + epsilon * z.sign())) @ w)


def alpha_beta_in_matrices(x, w, R, alpha, beta):
    def part(v, u, v2, u2):
        z = v @ u.T + v2 @ u2.T
        return v * ((R / z) @ u) + v2 * ((R / z) @ u2)

    up, down, w_up, w_down = x.clamp(min=0), x.clamp(max=0), w.clamp(min=0), w.clamp(max=0)
    return alpha * part(up, w_up, down, w_down) - beta * part(up, w_down, down, w_up)


def z_box_in_matrices(x, w, R, low, high):
    up, down = w.clamp(min=0), w.clamp(max=0)
    lows, highs = torch.full_like(x, low), torch.full_like(x, high)
    s = R / (x @ w.T - lows @ up.T - highs @ down.T)
    return x * (s @ w) - lows * (s @ up) - highs * (s @ down)


def in_place(x, w, b, R, epsilon):
    return x.mul_((R / (x @ w.T + b + epsilon * (x @ w.T + b).sign())) @ w)


RIGHT = {
    "epsilon rule": (check.epsilon_layer, epsilon_layer),
    "epsilon rule in matrices": (check.epsilon_layer, in_matrices),
    "relevance of the bias": (check.bias_takes, bias_takes),
    "relevance of the bias by its fraction": (
        check.bias_takes,
        lambda x, w, b, R: (b / (x @ w.T + b) * R).sum(dim=1),
    ),
    "alpha-beta rule": (check.alpha_beta_layer, alpha_beta_layer),
    "alpha-beta rule in matrices": (check.alpha_beta_layer, alpha_beta_in_matrices),
    "z-box rule": (check.z_box_layer, z_box_layer),
    "z-box rule in matrices": (check.z_box_layer, z_box_in_matrices),
}

WRONG = {
    "an input that is changed": (check.epsilon_layer, in_place, "changes its input"),
    "epsilon rule without epsilon": (
        check.epsilon_layer,
        lambda *a: epsilon_layer(*a[:4], 0),
        "this is LRP-0",
    ),
    "epsilon rule without the bias": (
        check.epsilon_layer,
        lambda x, w, b, R, e: epsilon_layer(x, w, 0, R, e),
        "bias belongs",
    ),
    "alpha and beta exchanged": (
        check.alpha_beta_layer,
        lambda x, w, R, a, b: alpha_beta_layer(x, w, R, b, a),
        "exchanged",
    ),
    "relevance without a split": (
        check.alpha_beta_layer,
        lambda x, w, R, a, b: x * ((R / (x @ w.T)) @ w),
        "not right",
    ),
    "low and high exchanged": (
        check.z_box_layer,
        lambda x, w, R, a, b: z_box_layer(x, w, R, b, a),
        "low goes with",
    ),
    "upper bound of 0": (
        check.z_box_layer,
        lambda x, w, R, a, b: z_box_layer(x, w, R, a, 0),
        "high · w⁻ is missing",
    ),
    "bounds that are added": (
        check.z_box_layer,
        lambda x, w, R, a, b: z_box_layer(x, w, R, -a, -b),
        "do not add them",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)


@pytest.mark.parametrize(
    ("exercise", "arguments", "rule"),
    [
        (check.epsilon_layer, (0.3,), partial(rules.epsilon_rule, epsilon=0.3)),
        (check.alpha_beta_layer, (2, 1), lambda o, R: rules.alpha_beta_rule(_without_bias(o), R)),
        (check.z_box_layer, (-9.0, 9.0), partial(rules.z_box_rule, low=-9.0, high=9.0)),
    ],
    ids=["epsilon", "alpha-beta", "z-box"],
)
def test_right_answers_are_the_rules_of_vislib(exercise, arguments, rule):
    x, w, b, R = check._both_signs(8, 4)
    backward, leaf = BackwardRules("dense"), x.clone().requires_grad_()
    with backward:
        z = nn.functional.linear(leaf, w, b)
    backward.rules = {"dense": rule}
    (actual,) = torch.autograd.grad(z, leaf, R)
    inputs = (x, w, b, R) if exercise is check.epsilon_layer else (x, w, R)
    answers = [answer for its_exercise, answer in RIGHT.values() if its_exercise is exercise]
    for answer in (*answers, exercise.solution):
        assert torch.allclose(actual, answer(*inputs, *arguments), rtol=1e-3, atol=1e-4)


def _without_bias(operation):
    return without_bias(as_layer(operation))
