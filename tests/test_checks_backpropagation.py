"""The checks of notebook 03: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import numpy as np
from answers import answer_tests

from vislib import scratch
from vislib.checks import backpropagation as check
from vislib.scratch import mlp_forward, sigmoid, sigmoid_prime


def input_gradient(x, c, weights, biases):
    zs, _ = mlp_forward(x, weights, biases)
    delta = np.zeros_like(zs[-1])
    delta[:, c] = 1
    for layer in reversed(range(1, len(weights))):
        delta = (delta @ weights[layer]) * sigmoid_prime(zs[layer - 1])
    return delta @ weights[0]


RIGHT = {
    "output delta": (
        check.output_delta,
        lambda z, y: (sigmoid(z) - y) * sigmoid_prime(z),
    ),
    "hidden delta": (check.hidden_delta, lambda d, w, z: (d @ w) * sigmoid_prime(z)),
    "weight gradient": (check.weight_gradient, lambda a, d: d.T @ a / len(a)),
    "input gradient": (check.input_gradient, input_gradient),
}


def changes_its_input(a, d):
    d /= len(a)
    return d.T @ a


def without_biases(x, c, weights, biases):
    return scratch.input_gradient(x, c, weights, [0 * b for b in biases])


def transposed(weights):
    return [w.T for w in weights]


WRONG = {
    "the error of the wrong sign": (
        check.output_delta,
        lambda z, y: (y - sigmoid(z)) * sigmoid_prime(z),
        "sign is reversed",
    ),
    "three times the error": (
        check.hidden_delta,
        lambda d, w, z: 3 * (d @ w) * sigmoid_prime(z),
        "3 times what it should be",
    ),
    "an input that is changed": (
        check.weight_gradient,
        changes_its_input,
        "changes its input",
    ),
    "the gradient of the wrong sign": (
        check.input_gradient,
        lambda *inputs: -input_gradient(*inputs),
        "wrong sign",
    ),
    "the gradient without biases": (
        check.input_gradient,
        without_biases,
        "not right yet",
    ),
    "the gradient of another class": (
        check.input_gradient,
        lambda x, c, w, b: input_gradient(x, (c + 1) % len(b[-1]), w, b),
        "map of another class",
    ),
    "transposed hidden weights": (
        check.input_gradient,
        lambda x, c, w, b: (
            scratch.layer_errors(one_hot(x, c, w, b), mlp_forward(x, w, b)[0], transposed(w))[0]
            @ w[0]
        ),
        "exercise 2$",
    ),
}


def one_hot(x, c, weights, biases):
    delta = np.zeros((len(x), len(biases[-1])))
    delta[:, c] = 1
    return delta


test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)
