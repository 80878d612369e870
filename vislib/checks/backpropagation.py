"""Checks for notebook 03."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vislib import scratch
from vislib.checks import call, right, same


def output_delta(function: Callable[..., Any]) -> None:
    """Equation 1, ``δ^V = (a − y) ⊙ σ'(z)``, as ``function(z, y)`` with N×m arrays."""
    rng = np.random.default_rng()
    z, y = rng.normal(0, 1.5, (5, 3)), rng.uniform(0, 1, (5, 3))
    a, slope = scratch.sigmoid(z), scratch.sigmoid_prime(z)
    expected = (a - y) * slope
    mistakes = {
        "The sign is turned round: ½(a − y)² grows with a where a > y, so it is a − y": -expected,
        "σ'(z) is missing: this is ∇_a L, not yet the change with z": a - y,
        "Take σ' at the weighted input z, not at the output a": (a - y) * scratch.sigmoid_prime(a),
        "You multiply by σ(z); the chain rule wants its derivative, σ'(z)": (a - y) * a,
        "a is σ(z): you subtract y from z": (z - y) * slope,
        "The half and the square cancel in the derivative: no factor 2": 2 * expected,
        "Give one δ for each example, N×m: do not average over the rows here": expected.mean(
            axis=0
        ),
        "⊙ multiplies entry by entry (*): @ adds the entries up": (a - y) @ slope.T,
        "Do not divide by N here: the mean over the examples comes with the weights": expected / 5,
        "Give an error for each output, N×m: do not add the columns up": expected.sum(axis=1),
        "This is the loss, ½(a − y)²: you want its derivative": 0.5 * (a - y) ** 2,
        "The derivative of ½(a − y)² with a is a − y, without the square": 0.5
        * (a - y) ** 2
        * slope,
        "The factors of a chain are multiplied, not added": (a - y) + slope,
        "Keep the sign: it says whether the output should rise or fall": np.abs(expected),
    }
    same(call(function, z, y), expected, what="δ^V", mistakes=mistakes)
    right("The error of the last layer is right.")


def hidden_delta(function: Callable[..., Any]) -> None:
    """Equation 2, ``δ^l = (w^{l+1})ᵀ δ^{l+1} ⊙ σ'(z^l)``: ``function(delta_next, w_next, z)``."""
    rng = np.random.default_rng()
    for outputs, inputs in [(4, 4), (3, 5)]:
        delta, w = rng.normal(size=(6, outputs)), rng.normal(size=(outputs, inputs))
        z = rng.normal(0, 1.5, (6, inputs))
        slope = scratch.sigmoid_prime(z)
        expected = (delta @ w) * slope
        mistakes = {
            "σ'(z) is missing: the signal has to pass this layer's activation as well": delta @ w,
            "You multiply by σ(z); the chain rule wants its derivative, σ'(z)": (delta @ w)
            * scratch.sigmoid(z),
            "σ'(z) gates the signal after w, entry by entry: do not add it": delta @ w + slope,
            "The sign is turned round": -expected,
            "Take σ' at the weighted input z, not at the output σ(z)": (delta @ w)
            * scratch.sigmoid_prime(scratch.sigmoid(z)),
            "You multiply by z; the chain rule wants σ'(z)": (delta @ w) * z,
            "Do not divide by N here: the mean over the examples comes with the weights": expected
            / len(z),
            "Give one δ for each example, N×n: do not average over the rows here": expected.mean(
                axis=0
            ),
        }
        if outputs == inputs:
            mistakes |= {
                "w is the wrong way round: on the way forward it is x @ w.T, back it is @ w": (
                    (delta @ w.T) * slope
                ),
                "First back through the weights, then σ': z and σ'(z) are those of layer l, where "
                "the signal arrives": (delta * slope) @ w,
            }
        same(call(function, delta, w, z), expected, what="δ^l", mistakes=mistakes)
    right("The error goes back through a hidden layer as it should.")


def weight_gradient(function: Callable[..., Any]) -> None:
    """Equation 4, the mean of ``a_k δ_j`` over N examples, as ``function(a, delta)``: m×n."""
    rng = np.random.default_rng()
    for outputs, inputs in [(4, 4), (3, 5)]:
        a, delta = rng.normal(size=(6, inputs)), rng.normal(size=(6, outputs))
        expected = np.einsum("nj,nk->jk", delta, a) / 6
        mistakes = {
            "This is the sum over the examples; the loss is their mean, so divide by N": expected
            * 6,
            "Rows and columns are swapped: w[j, k] leads from input k to output j": expected.T,
            "Rows and columns are swapped, and the mean is still a sum": expected.T * 6,
            "Divide by the number of examples, not by the number of entries": expected / outputs,
            "You use the first example only": np.outer(delta[0], a[0]),
            "Multiply a and δ example by example and then average; the product of the two means "
            "is not the mean of the products": np.outer(delta.mean(axis=0), a.mean(axis=0)),
        }
        same(call(function, a, delta), expected, what="∂L/∂w", mistakes=mistakes)
    right("The gradient of the weights is right.")


def input_gradient(function: Callable[..., Any]) -> None:
    """``∂y_c/∂x`` of a sigmoid net of any depth: ``function(x, c, weights, biases)``."""
    rng = np.random.default_rng()
    for sizes, c in [((4, 4, 4, 4), 0), ((5, 4, 3), 2)]:
        expected = np.ones(1)
        while not expected.min() < 0 < expected.max():  # both signs, or |∂y/∂x| might look right
            weights, _ = scratch.random_layers(sizes, rng, gain=2.0)
            biases = [rng.normal(size=n) for n in sizes[1:]]
            x = rng.normal(size=(3, sizes[0]))
            expected = scratch.input_gradient(x, c, weights, biases)
        zs, activations = scratch.mlp_forward(x, weights, biases)

        one = np.zeros_like(zs[-1])
        one[:, c] = 1
        gate = scratch.sigmoid_prime(zs[-1])
        identity = {"derivative": np.ones_like}

        def back(delta: np.ndarray, weights=weights, zs=zs, **kwargs: Any) -> np.ndarray:
            return scratch.send_back(delta, zs, weights, **kwargs)[0] @ weights[0]

        all_classes, other = np.ones_like(one), np.roll(one, 1, axis=1)
        row = np.zeros_like(one)
        row[c] = 1
        mistakes = {
            "You stop at δ^1: one step is missing, through w^1 to the pixels": scratch.send_back(
                one, zs, weights
            )[0],
            "You start with σ'(z^V): the score is y_c = z^V_c, before the last activation": back(
                one * gate
            ),
            "σ'(z^l) of the hidden layers is missing": back(one, **identity),
            "You start with ones for all classes: only the target's entry is 1": back(all_classes),
            "This is the map of another class: start with the 1 at the target": back(other),
            "The 1 belongs in column c of every row (delta[:, c]), not in row c": back(row),
            "Start with 1 at the target, not with the score itself": back(one * zs[-1]),
            "Start with 1 at the target, not with the output itself": back(one * activations[-1]),
            "Give a map for each digit, N×n: do not average over the rows": expected.mean(axis=0),
            "This is gradient × input; leave out the last multiplication": expected * x,
            "Keep the sign: the absolute value comes later, if at all": np.abs(expected),
            "This is the gradient of the loss, a − target; the score starts with a plain 1": back(
                (activations[-1] - one) * gate
            ),
        }
        if len(set(sizes)) == 1:
            turned = [w.T for w in weights]
            advice = "w is the wrong way round: back it is delta @ w, as in exercise 2"
            mistakes[advice] = scratch.send_back(one, zs, turned)[0] @ weights[0]
            mistakes[f"{advice}, also at the end"] = back(one, weights=turned)
            late = scratch.send_back(one, [*zs[1:], zs[-1]], weights)[0] @ weights[0]
            mistakes["σ' is that of the layer where the signal arrives: zs[layer - 1]"] = late
        found = call(function, x, c, weights, biases)
        same(found, expected, what="∂y_c/∂x", mistakes=mistakes)
    right("This is the gradient of the score with respect to the pixels.")
