"""The checks of notebook 03: other right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from vislib import scratch
from vislib.checks import Exercise, Wrong, backpropagation
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
        backpropagation.output_delta,
        lambda z, y: (sigmoid(z) - y) * sigmoid_prime(z),
    ),
    "hidden delta": (backpropagation.hidden_delta, lambda d, w, z: (d @ w) * sigmoid_prime(z)),
    "weight gradient": (backpropagation.weight_gradient, lambda a, d: d.T @ a / len(a)),
    "input gradient": (backpropagation.input_gradient, input_gradient),
}


def test_every_exercise_has_an_independent_right_answer():
    exercises = {value for value in vars(backpropagation).values() if isinstance(value, Exercise)}
    assert exercises == {exercise for exercise, _ in RIGHT.values()}


@pytest.mark.parametrize("repeat", range(10))
@pytest.mark.parametrize(("exercise", "answer"), RIGHT.values(), ids=RIGHT)
def test_right_answers_pass(exercise, answer, repeat, capsys):
    exercise(answer)
    assert capsys.readouterr().out.startswith("✓ ")


def changes_its_input(a, d):
    d /= len(a)
    return d.T @ a


def without_biases(x, c, weights, biases):
    return scratch.input_gradient(x, c, weights, [0 * b for b in biases])


def transposed(weights):
    return [w.T for w in weights]


WRONG = {
    "the error of the wrong sign": (
        backpropagation.output_delta,
        lambda z, y: (y - sigmoid(z)) * sigmoid_prime(z),
        "sign is reversed",
    ),
    "three times the error": (
        backpropagation.hidden_delta,
        lambda d, w, z: 3 * (d @ w) * sigmoid_prime(z),
        "3 times what it should be",
    ),
    "an input that is changed": (
        backpropagation.weight_gradient,
        changes_its_input,
        "changes its input",
    ),
    "the gradient of the wrong sign": (
        backpropagation.input_gradient,
        lambda *inputs: -input_gradient(*inputs),
        "wrong sign",
    ),
    "the gradient without biases": (
        backpropagation.input_gradient,
        without_biases,
        "not right yet",
    ),
    "the gradient of another class": (
        backpropagation.input_gradient,
        lambda x, c, w, b: input_gradient(x, (c + 1) % len(b[-1]), w, b),
        "map of another class",
    ),
    "transposed hidden weights": (
        backpropagation.input_gradient,
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


@pytest.mark.parametrize("repeat", range(5))
@pytest.mark.parametrize(("exercise", "answer", "message"), WRONG.values(), ids=WRONG)
def test_wrong_answers_are_rejected(exercise, answer, message, repeat):
    with pytest.raises(Wrong, match=message):
        exercise(answer)
