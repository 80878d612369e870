"""The checks of notebook 01: other right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vislib import scratch
from vislib.checks import Exercise, Wrong, perceptron


def half_adder(a, b, nand):
    n = nand(a, b)
    return nand(nand(a, n), nand(b, n)), nand(n, n)


def chain(x, weights):
    gradient = 1.0
    for w in weights:
        gradient *= w * scratch.sigmoid_prime(w * x)
        x = scratch.sigmoid(w * x)
    return gradient


def chain_by_autograd(x, weights):
    x = a = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    for w in weights:
        a = torch.sigmoid(float(w) * a)
    return torch.autograd.grad(a, x)[0]


def forward(x, weights, biases):
    for w, b in zip(weights, biases, strict=True):
        x = scratch.sigmoid(x @ w.T + b)
    return x


RIGHT = {
    "weights as a list": (perceptron.a_but_not_b, lambda: ([1, -1], -0.5)),
    "weights as an array": (perceptron.a_but_not_b, lambda: (np.array([2.0, -3.0]), 0)),
    "weights as a tensor": (
        perceptron.a_but_not_b,
        lambda: (torch.tensor([1.0, -1], requires_grad=True), -0.5),
    ),
    "half adder": (perceptron.half_adder, half_adder),
    "half adder as one tensor": (
        perceptron.half_adder,
        lambda *inputs: torch.tensor(np.array(half_adder(*inputs))),
    ),
    "chain": (perceptron.chain_gradient, chain),
    "chain by autograd in float32": (perceptron.chain_gradient, chain_by_autograd),
    "forward pass": (perceptron.forward, forward),
    "forward pass by scratch": (
        perceptron.forward,
        lambda *inputs: scratch.mlp_forward(*inputs)[1][-1],
    ),
    "forward pass as lists": (perceptron.forward, lambda *inputs: forward(*inputs).tolist()),
}


def test_every_exercise_has_an_independent_right_answer():
    exercises = {value for value in vars(perceptron).values() if isinstance(value, Exercise)}
    assert exercises == {exercise for exercise, _ in RIGHT.values()}


@pytest.mark.parametrize(("exercise", "answer"), RIGHT.values(), ids=RIGHT)
def test_right_answers_pass(exercise, answer, capsys):
    for _ in range(30):
        exercise(answer)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 30 and all(line.startswith("✓ ") for line in lines)


@pytest.mark.parametrize(
    ("w", "b", "message"),
    [
        ([1, -1], -1, r"corner \(1, 0\) is exactly on the line"),
        ([-1, 1], 0.5, "change the sign"),
        ([-1, 1], -0.5, "b but not a"),
        ([1, -1], -3, "never fires"),
        ([1, 1], 3, "always fires"),
        ([1, 1], -0.5, r"For \(a, b\) = \(0, 1\) the output is 1, because w·x \+ b is 0.5"),
        ([1, -1, 2], 0, "two weights"),
        ("ab", 0, "numbers"),
        ([1, -1], None, "numbers"),
    ],
)
def test_other_weights_are_rejected(w, b, message):
    with pytest.raises(Wrong, match=message):
        perceptron.a_but_not_b(lambda: (w, b))


def abs_of(function):
    return lambda *inputs: abs(function(*inputs))


WRONG = {
    "carry first": (
        perceptron.half_adder,
        lambda *inputs: half_adder(*inputs)[::-1],
        "carry first",
    ),
    "carry inverted": (
        perceptron.half_adder,
        lambda a, b, nand: (half_adder(a, b, nand)[0], nand(a, b)),
        "carry is inverted: nand gives NOT",
    ),
    "sum bit is OR, from NANDs": (
        perceptron.half_adder,
        lambda a, b, nand: (nand(nand(a, a), nand(b, b)), a & b),
        "sum bit is a OR b",
    ),
    "sum bit inverted": (
        perceptron.half_adder,
        lambda a, b, nand: (1 - half_adder(a, b, nand)[0], a & b),
        "sum bit is inverted",
    ),
    "no NAND at all": (
        perceptron.half_adder,
        lambda a, b, nand: (a ^ b, a & b),
        "not both are outputs of nand",
    ),
    "one bit without NAND": (
        perceptron.half_adder,
        lambda a, b, nand: (a ^ b, nand(nand(a, b), nand(a, b))),
        "not both are outputs of nand",
    ),
    "one bit only": (perceptron.half_adder, lambda a, b, nand: nand(a, b), "return two bits"),
    "bits of other lengths": (
        perceptron.half_adder,
        lambda *inputs: (0, np.ones(3)),
        "return two bits",
    ),
    "two other bits": (
        perceptron.half_adder,
        lambda a, b, nand: (nand(a, b), nand(a, a)),
        "not right yet",
    ),
    "negative chain": (
        perceptron.chain_gradient,
        lambda *inputs: -chain(*inputs),
        "chain of 1 ",
    ),
    "chain without its sign": (perceptron.chain_gradient, abs_of(chain), "chain of 1 "),
    "all layers": (perceptron.forward, scratch.mlp_forward, "last layer's activations only"),
    "one example": (perceptron.forward, lambda x, w, b: forward(x[0], w, b), "shape"),
    "one layer missing": (
        perceptron.forward,
        lambda x, w, b: forward(x, w[:-1], b),
        "stopped with ValueError",
    ),
}


@pytest.mark.parametrize(("exercise", "answer", "message"), WRONG.values(), ids=WRONG)
def test_wrong_answers_are_rejected(exercise, answer, message):
    for _ in range(10):
        with pytest.raises(Wrong, match=message):
            exercise(answer)
