"""The checks of notebook 01: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from answers import answer_tests

from vislib import scratch
from vislib.checks import Wrong
from vislib.checks import perceptron as check


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
    "weights as a list": (check.a_but_not_b, lambda: ([1, -1], -0.5)),
    "weights as an array": (check.a_but_not_b, lambda: (np.array([2.0, -3.0]), 0)),
    "weights as a tensor": (
        check.a_but_not_b,
        lambda: (torch.tensor([1.0, -1], requires_grad=True), -0.5),
    ),
    "half adder": (check.half_adder, half_adder),
    "half adder as one tensor": (
        check.half_adder,
        lambda *inputs: torch.tensor(np.array(half_adder(*inputs))),
    ),
    "chain": (check.chain_gradient, chain),
    "chain by autograd in float32": (check.chain_gradient, chain_by_autograd),
    "forward pass": (check.forward, forward),
    "forward pass by scratch": (
        check.forward,
        lambda *inputs: scratch.mlp_forward(*inputs)[1][-1],
    ),
    "forward pass as lists": (check.forward, lambda *inputs: forward(*inputs).tolist()),
}


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
        check.a_but_not_b(lambda: (w, b))


def abs_of(function):
    return lambda *inputs: abs(function(*inputs))


WRONG = {
    "carry first": (
        check.half_adder,
        lambda *inputs: half_adder(*inputs)[::-1],
        "carry first",
    ),
    "carry inverted": (
        check.half_adder,
        lambda a, b, nand: (half_adder(a, b, nand)[0], nand(a, b)),
        "carry is inverted: nand gives NOT",
    ),
    "sum bit is OR, from NANDs": (
        check.half_adder,
        lambda a, b, nand: (nand(nand(a, a), nand(b, b)), a & b),
        "sum bit is a OR b",
    ),
    "sum bit inverted": (
        check.half_adder,
        lambda a, b, nand: (1 - half_adder(a, b, nand)[0], a & b),
        "sum bit is inverted",
    ),
    "no NAND at all": (
        check.half_adder,
        lambda a, b, nand: (a ^ b, a & b),
        "not both are outputs of nand",
    ),
    "one bit without NAND": (
        check.half_adder,
        lambda a, b, nand: (a ^ b, nand(nand(a, b), nand(a, b))),
        "not both are outputs of nand",
    ),
    "one bit only": (check.half_adder, lambda a, b, nand: nand(a, b), "return two bits"),
    "bits of other lengths": (
        check.half_adder,
        lambda *inputs: (0, np.ones(3)),
        "return two bits",
    ),
    "two other bits": (
        check.half_adder,
        lambda a, b, nand: (nand(a, b), nand(a, a)),
        "not right yet",
    ),
    "negative chain": (
        check.chain_gradient,
        lambda *inputs: -chain(*inputs),
        "chain of 1 ",
    ),
    "chain without its sign": (check.chain_gradient, abs_of(chain), "chain of 1 "),
    "all layers": (check.forward, scratch.mlp_forward, "last layer's activations only"),
    "one example": (check.forward, lambda x, w, b: forward(x[0], w, b), "shape"),
    "one layer missing": (
        check.forward,
        lambda x, w, b: forward(x, w[:-1], b),
        "stopped with ValueError",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG, repeats=(30, 10))
)
