"""Checks for the exercises of notebook 01, perceptrons and networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from vislib import scratch
from vislib.checks import Exercise, Wrong, call, numbers
from vislib.scratch import sigmoid, sigmoid_prime

# --- A perceptron for "a but not b" ---------------------------------------------------------------

CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
_A_BUT_NOT_B = np.array([False, False, True, False])


def _fires(result: Any) -> np.ndarray:
    """Whether a perceptron with these weights and bias fires, at each of the four corners."""
    z = _weighted_inputs(result)
    fires = z > 0
    if (fires != _A_BUT_NOT_B).any() and ((z >= 0) == _A_BUT_NOT_B).all():
        corner = tuple(map(int, CORNERS[z == 0][0]))
        raise Wrong(f"The corner {corner} is exactly on the line: 0 is not greater than 0")
    return fires


def _weighted_inputs(result: Any) -> np.ndarray:
    """Weighted inputs ``z = w·x + b`` at the four corners."""
    try:
        w, b = map(numbers, result)
        b = b.reshape(())
    except (TypeError, ValueError):
        raise Wrong("Return two weights and one bias, all numbers: return [w1, w2], b") from None
    if w.shape != (2,):
        raise Wrong(f"Two inputs need two weights, yours have shape {w.shape}")
    return CORNERS @ w + b


def _first_wrong_corner(result: Any) -> str:
    z = _weighted_inputs(result)
    index = int(np.flatnonzero((z > 0) != _A_BUT_NOT_B)[0])
    corner = tuple(map(int, CORNERS[index]))
    return (
        f"For (a, b) = {corner} the output is {int(z[index] > 0)}, because w·x + b is {z[index]:g}"
    )


a_but_not_b = Exercise(
    task="``a_but_not_b() → [w1, w2], b``: a perceptron that fires for a = 1, b = 0 only.",
    inputs=lambda: [()],
    solution=lambda: ([1, -1], -0.5),
    what="the perceptron",
    mistakes={
        "It fires exactly where it should not: change the sign of the weights and the bias": (
            lambda: ([-1, 1], 0.5)
        ),
        "This is b but not a: which weight belongs to which input?": lambda: ([-1, 1], -0.5),
        "It never fires: the bias is too low (or the threshold too high)": lambda: ([1, -1], -3),
        "It always fires: the bias is too high (or the threshold too low)": lambda: ([1, 1], 3),
    },
    parse=_fires,
    explain=_first_wrong_corner,
    praise="fires for a without b, and for nothing else",
)


# --- A half adder ---------------------------------------------------------------------------------


def _bits() -> tuple[np.ndarray, np.ndarray]:
    """Two lists of 16 bits that begin with the four corners."""
    a, b = np.concatenate([CORNERS, np.random.default_rng().integers(0, 2, (12, 2))]).T
    return a, b


def _half_adder(a: Any, b: Any, nand: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    not_both = nand(a, b)
    return nand(nand(a, not_both), nand(b, not_both)), nand(not_both, not_both)


def _sum_and_carry(result: Any, a: np.ndarray, *_: Any) -> np.ndarray:
    try:
        bits = [np.broadcast_to(numbers(bit), a.shape) for bit in result]
    except (TypeError, ValueError):
        bits = []
    if len(bits) != 2:
        raise Wrong("half_adder should return two bits: the sum, and the carry")
    return np.stack(bits)


def _made_of_nands(function: Callable[..., Any]) -> str:
    """Check that both bits are outputs of `nand`, and count its calls."""
    a, b = _bits()
    outputs: list[np.ndarray] = []

    def nand(p: Any, q: Any) -> np.ndarray:
        outputs.append(scratch.nand(p, q))
        return outputs[-1]

    bits = _sum_and_carry(call(function, a, b, nand), a)
    if not all(any(np.array_equal(bit, output) for output in outputs) for bit in bits):
        raise Wrong("The bits are right, but not both are outputs of nand: use nothing else")
    return f"adds two bits with {len(outputs)} NANDs"


half_adder = Exercise(
    task="``half_adder(a, b, nand)``: the sum bit and the carry bit, made of `nand` alone.",
    inputs=lambda: [(*_bits(), scratch.nand)],
    solution=_half_adder,
    what="(sum, carry)",
    mistakes={
        "You return the carry first: the sum bit comes first": lambda a, b, nand: (a & b, a ^ b),
        "The carry is inverted: nand gives NOT (a and b)": lambda a, b, nand: (a ^ b, nand(a, b)),
        "Your sum bit is a OR b, but 1 + 1 is 10 in binary numbers": (
            lambda a, b, nand: (a | b, a & b)
        ),
        "The sum bit is inverted": lambda a, b, nand: (1 - (a ^ b), a & b),
    },
    parse=_sum_and_carry,
    praise="adds two bits",
    extra=_made_of_nands,
)


# --- The gradient of a chain ----------------------------------------------------------------------


def _factor(w: float, a: float) -> Any:
    """Factor of one link of the chain, ``w · σ'(z)`` with ``z = w·a``."""
    return w * sigmoid_prime(w * a)


def _chain(
    x: float,
    weights: np.ndarray,
    link: Callable[[float, float], Any] = _factor,
    join: Callable[[list[Any]], Any] = np.prod,
) -> Any:
    """Values ``link(w, a)`` of all neurons with weight w and input a, joined by `join`."""
    a: Any = x
    links = []
    for w in weights:
        links.append(link(w, a))
        a = sigmoid(w * a)
    return join(links)


def _last(links: list[Any]) -> Any:
    return links[-1]


def _chains() -> Iterator[tuple[float, np.ndarray]]:
    rng = np.random.default_rng()
    for length in (1, 2, 6):
        weights = rng.uniform(0.5, 2, length) * rng.choice([-1, 1], length)
        # The gradient of the chain of one is negative, so that a missing sign is noticed.
        weights[0] = -abs(weights[0])
        yield float(rng.uniform(-2, 2)), weights


chain_gradient = Exercise(
    task="``chain_gradient(x, weights)``: ∂a/∂x of a chain of neurons a ← σ(w·a), without biases.",
    inputs=_chains,
    solution=_chain,
    what=lambda x, weights: f"the gradient of a chain of {len(weights)}",
    mistakes={
        "Each link gives the factor w · σ'(z): the weights are missing": partial(
            _chain, link=lambda w, a: sigmoid_prime(w * a)
        ),
        "The chain rule multiplies the factors of the links: you add them": partial(
            _chain, join=np.sum
        ),
        "Take σ' at the weighted input z = w·a, not at the output a": partial(
            _chain, link=lambda w, a: w * sigmoid_prime(sigmoid(w * a))
        ),
        "Take σ' at the weighted input z = w·a, not at the input a": partial(
            _chain, link=lambda w, a: w * sigmoid_prime(a)
        ),
        "This is the output of the chain, not its gradient": partial(
            _chain, link=lambda w, a: sigmoid(w * a), join=_last
        ),
        "Your product contains only the last link": partial(_chain, join=_last),
        "Your chain runs backwards: weights[0] belongs to the input x": lambda x, weights: _chain(
            x, weights[::-1]
        ),
    },
    praise="multiplies w · σ'(z) over the chain",
)


# --- A forward pass -------------------------------------------------------------------------------


def _forward(
    x: np.ndarray,
    weights: list[np.ndarray],
    biases: list[np.ndarray],
    *,
    bias: float = 1.0,
    transposed: bool = False,
    hidden: Callable[[np.ndarray], np.ndarray] = sigmoid,
    last: Callable[[np.ndarray], np.ndarray] = sigmoid,
) -> np.ndarray:
    """Forward pass with the factor `bias` before the biases and other activations."""
    a = x
    for depth, (w, b) in enumerate(zip(weights, biases, strict=True), start=1):
        z = a @ (w if transposed else w.T) + bias * b
        a = last(z) if depth == len(weights) else hidden(z)
    return a


def _linear(z: np.ndarray) -> np.ndarray:
    return z


def _step(z: np.ndarray) -> np.ndarray:
    return (z > 0) * 1.0


def _networks() -> Iterator[tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]]:
    rng = np.random.default_rng()
    for sizes in ((4, 4, 4), (5, 3, 2), (3, 6, 4, 1)):
        weights, _ = scratch.random_layers(sizes, rng, gain=2.0)
        biases = [rng.normal(size=n) for n in sizes[1:]]
        yield rng.normal(size=(7, sizes[0])), weights, biases


def _last_layer_only(result: Any, x: np.ndarray, *_: Any) -> Any:
    if isinstance(result, list | tuple) and len(result) != len(x):
        raise Wrong("Return the last layer's activations only, as one array")
    return result


forward = Exercise(
    task="``forward(x, weights, biases)``: the output of an MLP of sigmoids, N×outputs.",
    inputs=_networks,
    solution=_forward,
    what="the output",
    mistakes={
        "The biases are missing": partial(_forward, bias=0),
        "The bias is added, not subtracted: bias = −threshold": partial(_forward, bias=-1),
        "Your last layer has no σ: every layer needs one": partial(_forward, last=_linear),
        "Only your last layer has a σ: every layer needs one": partial(_forward, hidden=_linear),
        "There is no σ: without it, all layers together are one linear map": partial(
            _forward, hidden=_linear, last=_linear
        ),
        "These are hard steps: use the sigmoid": partial(_forward, hidden=_step, last=_step),
        "w is transposed: w[j, k] connects input k with output j": partial(
            _forward, transposed=True
        ),
    },
    parse=_last_layer_only,
    praise="a forward pass through any number of layers",
)
