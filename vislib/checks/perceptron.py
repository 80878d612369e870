"""Checks of notebook 01: perceptrons, a half adder, a chain of sigmoids, a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vislib import scratch
from vislib.checks import Wrong, call, numbers, right, same

CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])


def a_but_not_b(function: Callable[..., Any]) -> None:
    """``function() → [w1, w2], b``: a perceptron that says 1 for a = 1, b = 0 only."""
    try:
        w, b = map(numbers, call(function))
        b = b.reshape(())
    except (TypeError, ValueError):
        raise Wrong("return two weights and one bias, all numbers: return [w1, w2], b") from None
    if w.shape != (2,):
        raise Wrong(f"there are two inputs, so w holds two weights; yours has shape {w.shape}")
    z = CORNERS @ w + b
    fires, wants = z > 0, np.array([0, 0, 1, 0], dtype=bool)
    if (fires == wants).all():
        return right("fires for a without b, and for nothing else")
    if ((z >= 0) == wants).all():
        corner = tuple(map(int, CORNERS[z == 0][0]))
        raise Wrong(f"corner {corner} lies exactly on the line: 0 is not greater than 0")
    if (fires == ~wants).all():
        raise Wrong("it fires exactly where it should not: turn the sign of the weights and bias")
    if (fires == wants[[0, 2, 1, 3]]).all():
        raise Wrong("that is b but not a: which weight belongs to which input?")
    if not fires.any():
        raise Wrong("it never fires: the bias is too low (or the threshold too high)")
    if fires.all():
        raise Wrong("it always fires: the bias is too high (or the threshold too low)")
    bad = int(np.flatnonzero(fires != wants)[0])
    corner = tuple(map(int, CORNERS[bad]))
    raise Wrong(f"for (a, b) = {corner} it says {int(fires[bad])}, since w·x + b is {z[bad]:g}")


def half_adder(function: Callable[..., Any]) -> None:
    """``function(a, b, nand) → (sum bit, carry bit)``, made of `nand` alone."""
    rng = np.random.default_rng()
    a, b = np.concatenate([CORNERS, rng.integers(0, 2, (12, 2))]).T
    made = []

    def nand(p: Any, q: Any) -> Any:
        made.append(scratch.nand(p, q))
        return made[-1]

    found = call(function, a, b, nand)
    try:
        bits = [np.broadcast_to(numbers(bit), a.shape) for bit in found]
    except (TypeError, ValueError):
        bits = []
    if len(bits) != 2:
        raise Wrong("half_adder should return two bits: the sum, and the carry")
    same(
        np.stack(bits),
        np.stack([a ^ b, a & b]),
        what="(sum, carry)",
        mistakes={
            "You return the carry first: the sum bit comes first.": np.stack([a & b, a ^ b]),
            "The carry is upside down: nand says NOT (a and b).": np.stack([a ^ b, 1 - (a & b)]),
            "The sum bit is a OR b: 1 + 1 is binary 10, so its sum bit is 0.": np.stack(
                [a | b, a & b]
            ),
            "The sum bit is upside down.": np.stack([1 - (a ^ b), a & b]),
        },
    )
    if not all(any(np.array_equal(bit, one) for one in made) for bit in bits):
        raise Wrong("the bits are right, but not both come out of nand: use nothing else")
    right(f"adds two bits with {len(made)} NANDs")


def chain_slope(function: Callable[..., Any]) -> None:
    """``function(x, weights)``: ∂a/∂x of a chain of sigmoid neurons, a ← σ(w·a), no biases."""
    rng = np.random.default_rng()
    for length in (1, 2, 6):
        weights = rng.uniform(0.5, 2, length) * rng.choice([-1, 1], length)
        weights[0] = -abs(weights[0])  # so that the chain of one falls
        x = float(rng.uniform(-2, 2))
        inputs, zs, a = [], [], np.asarray(x)
        for w in weights:
            inputs.append(a)
            zs.append(w * a)
            a = scratch.sigmoid(zs[-1])
        slopes = scratch.sigmoid_prime(np.array(zs))
        back, turned = np.asarray(x), 1.0
        for w in weights[::-1]:
            turned = turned * w * scratch.sigmoid_prime(w * back)
            back = scratch.sigmoid(w * back)
        outputs = scratch.sigmoid(np.array(zs))
        same(
            call(function, x, weights),
            np.prod(weights * slopes),
            what=f"the slope of a chain of {length}",
            mistakes={
                "Each link gives the factor w · σ'(z): the weights are missing.": np.prod(slopes),
                "The chain rule multiplies the links; yours adds them.": np.sum(weights * slopes),
                "σ' is taken at the weighted input z = w·a, not at the output a.": np.prod(
                    weights * scratch.sigmoid_prime(outputs)
                ),
                "σ' is taken at z = w·a, the input times the weight.": np.prod(
                    weights * scratch.sigmoid_prime(np.array(inputs))
                ),
                "That is the output of the chain, not its slope.": a,
                "Only the last link is in it.": weights[-1] * slopes[-1],
                "Your chain runs backwards: weights[0] belongs to the input x.": turned,
            },
        )
    right("multiplies w · σ'(z) over the chain")


def forward(function: Callable[..., Any]) -> None:
    """``function(x, weights, biases)``: the last activations of an MLP of sigmoids, N×outputs."""
    rng = np.random.default_rng()
    for sizes in ((4, 4, 4), (5, 3, 2), (3, 6, 4, 1)):
        weights, _ = scratch.random_layers(sizes, rng, gain=2.0)
        biases = [rng.normal(size=n) for n in sizes[1:]]
        x = rng.normal(size=(7, sizes[0]))
        zs, activations = scratch.mlp_forward(x, weights, biases)
        square = len(set(sizes)) == 1

        def wrong(
            bias: float = 1.0,
            turn: bool = False,
            inner: Any = scratch.sigmoid,
            outer: Any = scratch.sigmoid,
            x: Any = x,
            layers: Any = (weights, biases),
        ) -> np.ndarray:
            a = x
            for depth, (w, b) in enumerate(zip(*layers, strict=True), start=1):
                z = a @ (w if turn else w.T) + bias * b
                a = outer(z) if depth == len(layers[0]) else inner(z)
            return a

        mistakes = {
            "The biases are missing.": wrong(bias=0),
            "The bias is added, not taken away: bias = −threshold.": wrong(bias=-1),
            "The last layer has no σ in yours: every layer has one.": zs[-1],
            "Only the last layer has a σ in yours: every layer has one.": wrong(inner=lambda z: z),
            "There is no σ in yours: without it all layers together are one linear map.": wrong(
                inner=lambda z: z, outer=lambda z: z
            ),
            "These are hard steps: take the sigmoid.": wrong(
                inner=lambda z: (z > 0) * 1.0, outer=lambda z: (z > 0) * 1.0
            ),
        }
        if square:
            mistakes["w[j, k] leads from input k to output j: use x @ w.T."] = wrong(turn=True)
        found = call(function, x, weights, biases)
        if isinstance(found, list | tuple) and len(found) != len(x):
            raise Wrong("return the last layer's activations only, one array")
        same(found, activations[-1], what="the output", mistakes=mistakes)
    right("a forward pass through any number of layers")
