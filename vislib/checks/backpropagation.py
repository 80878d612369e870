"""Checks for the exercises of notebook 03, backpropagation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from vislib import scratch
from vislib.checks import Exercise
from vislib.scratch import sigmoid, sigmoid_prime

# --- Equation 1: the error of the last layer ------------------------------------------------------


def _outputs_and_targets() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng()
    yield rng.normal(0, 1.5, (5, 3)), rng.uniform(0, 1, (5, 3))


def _output_delta(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (sigmoid(z) - y) * sigmoid_prime(z)


output_delta = Exercise(
    task="Equation 1, ``δ^V = (a − y) ⊙ σ'(z)``, as ``output_delta(z, y)`` with N×m arrays.",
    inputs=_outputs_and_targets,
    solution=_output_delta,
    what="δ^V",
    mistakes={
        "The sign is reversed: ½(a − y)² grows with a where a > y, so it is a − y": (
            lambda z, y: -_output_delta(z, y)
        ),
        "σ'(z) is missing: this is ∇_a L, the gradient with respect to a and not yet to z": (
            lambda z, y: sigmoid(z) - y
        ),
        "Take σ' at the weighted input z, not at the output a": lambda z, y: (
            (sigmoid(z) - y) * sigmoid_prime(sigmoid(z))
        ),
        "You multiply by σ(z); the chain rule needs its derivative, σ'(z)": lambda z, y: (
            (sigmoid(z) - y) * sigmoid(z)
        ),
        "a is σ(z): you subtract y from z": lambda z, y: (z - y) * sigmoid_prime(z),
        "The half and the square cancel in the derivative: no factor 2": (
            lambda z, y: 2 * _output_delta(z, y)
        ),
        "Return one δ for each example, N×m: do not average over the rows here": (
            lambda z, y: _output_delta(z, y).mean(axis=0)
        ),
        "⊙ multiplies entry by entry (*): @ sums the products": lambda z, y: (
            (sigmoid(z) - y) @ sigmoid_prime(z).T
        ),
        "Do not divide by N here: the mean over the examples comes with the weights": (
            lambda z, y: _output_delta(z, y) / len(z)
        ),
        "Return an error for each output, N×m: do not sum over the columns": (
            lambda z, y: _output_delta(z, y).sum(axis=1)
        ),
        "This is the loss, ½(a − y)²: return its derivative": (
            lambda z, y: 0.5 * (sigmoid(z) - y) ** 2
        ),
        "The derivative of ½(a − y)² with respect to a is a − y, without the square": (
            lambda z, y: 0.5 * (sigmoid(z) - y) ** 2 * sigmoid_prime(z)
        ),
        "The factors of a chain are multiplied, not added": lambda z, y: (
            (sigmoid(z) - y) + sigmoid_prime(z)
        ),
        "Keep the sign: it shows whether the output should rise or fall": (
            lambda z, y: np.abs(_output_delta(z, y))
        ),
    },
    praise="The error of the last layer is right.",
)


# --- Equation 2: the error of a hidden layer ------------------------------------------------------


def _next_layers() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Errors and weights of the next layer, and z of this layer; the first w is square."""
    rng = np.random.default_rng()
    for outputs, inputs in [(4, 4), (3, 5)]:
        delta, w = rng.normal(size=(6, outputs)), rng.normal(size=(outputs, inputs))
        yield delta, w, rng.normal(0, 1.5, (6, inputs))


def _hidden_delta(delta: np.ndarray, w: np.ndarray, z: np.ndarray) -> np.ndarray:
    return (delta @ w) * sigmoid_prime(z)


hidden_delta = Exercise(
    task=(
        "Equation 2, ``δ^l = (w^{l+1})ᵀ δ^{l+1} ⊙ σ'(z^l)``, as ``hidden_delta(delta_next, w_next, "
        "z)``."
    ),
    inputs=_next_layers,
    solution=_hidden_delta,
    what="δ^l",
    mistakes={
        "σ'(z) is missing: the signal must pass the activation of this layer as well": (
            lambda delta, w, z: delta @ w
        ),
        "You multiply by σ(z); the chain rule needs its derivative, σ'(z)": (
            lambda delta, w, z: (delta @ w) * sigmoid(z)
        ),
        "Multiply the signal after w by σ'(z), entry by entry: do not add it": (
            lambda delta, w, z: delta @ w + sigmoid_prime(z)
        ),
        "The sign is reversed": lambda delta, w, z: -_hidden_delta(delta, w, z),
        "Take σ' at the weighted input z, not at the output σ(z)": (
            lambda delta, w, z: (delta @ w) * sigmoid_prime(sigmoid(z))
        ),
        "You multiply by z; the chain rule needs σ'(z)": lambda delta, w, z: (delta @ w) * z,
        "Do not divide by N here: the mean over the examples comes with the weights": (
            lambda delta, w, z: _hidden_delta(delta, w, z) / len(z)
        ),
        "Return one δ for each example, N×n: do not average over the rows here": (
            lambda delta, w, z: _hidden_delta(delta, w, z).mean(axis=0)
        ),
        "w is transposed: x @ w.T is the forward pass, and the backward pass needs w itself": (
            lambda delta, w, z: (delta @ w.T) * sigmoid_prime(z)
        ),
        "Go back through the weights first, and multiply by σ' afterwards: z belongs to layer l, "
        "where the signal arrives": lambda delta, w, z: (delta * sigmoid_prime(z)) @ w,
    },
    praise="The error goes back through a hidden layer as it should.",
)


# --- Equation 4: the gradient of the weights ------------------------------------------------------


def _activations_and_errors() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Activations that enter a layer, and the errors of the layer; the first layer is square."""
    rng = np.random.default_rng()
    for outputs, inputs in [(4, 4), (3, 5)]:
        yield rng.normal(size=(6, inputs)), rng.normal(size=(6, outputs))


weight_gradient = Exercise(
    task="Equation 4, the mean of ``a_k δ_j`` over N examples, m×n: ``weight_gradient(a, delta)``.",
    inputs=_activations_and_errors,
    solution=lambda a, delta: np.einsum("nj,nk->jk", delta, a) / len(a),
    what="∂L/∂w",
    mistakes={
        "This is the sum over the examples; the loss is their mean, so divide by N": (
            lambda a, delta: delta.T @ a
        ),
        "Rows and columns are swapped: w[j, k] connects input k to output j": (
            lambda a, delta: a.T @ delta / len(a)
        ),
        "Rows and columns are swapped, and the mean is still a sum": lambda a, delta: a.T @ delta,
        "Divide by the number of examples, not by the number of entries": (
            lambda a, delta: delta.T @ a / delta.size
        ),
        "You use the first example only": lambda a, delta: np.outer(delta[0], a[0]),
        "Multiply a and δ example by example and then average; the product of the two means "
        "is not the mean of the products": (
            lambda a, delta: np.outer(delta.mean(axis=0), a.mean(axis=0))
        ),
    },
    praise="The gradient of the weights is right.",
)


# --- The gradient of a score with respect to the pixels -------------------------------------------


def _network(
    rng: np.random.Generator, sizes: tuple[int, ...], c: int
) -> tuple[np.ndarray, int, list[np.ndarray], list[np.ndarray]]:
    weights, _ = scratch.random_layers(sizes, rng, gain=2.0)
    biases = [rng.normal(size=n) for n in sizes[1:]]
    return rng.normal(size=(3, sizes[0])), c, weights, biases


def _networks() -> Iterator[Callable[[], tuple[Any, ...]]]:
    """Networks; the first has square weights, so that transposed weights give a result."""
    rng = np.random.default_rng()
    for sizes, c in [((4, 4, 4, 4), 0), ((5, 4, 3), 2)]:
        yield partial(_network, rng, sizes, c)


def _transposed(weights: list[np.ndarray]) -> list[np.ndarray]:
    return [w.T for w in weights]


def _input_gradient(
    x: np.ndarray,
    c: int,
    weights: list[np.ndarray],
    biases: list[np.ndarray],
    *,
    start: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda one, z: one,
    derivative: Callable[[np.ndarray], np.ndarray] = sigmoid_prime,
    delays: int = 0,
    hidden: Callable[[list[np.ndarray]], list[np.ndarray]] = lambda weights: weights,
    first: Callable[[list[np.ndarray]], list[np.ndarray]] | None = lambda weights: weights,
) -> np.ndarray:
    """Gradient of the score, in which steps can be replaced by mistakes.

    Args:
        x, c, weights, biases: as in the exercise.
        start: function from 1 at the target, and z of the last layer, to the first signal.
        derivative: function from z to the factor of a hidden layer.
        delays: number of layers by which z is taken too late.
        hidden: function that gives the weights for the way back to the first hidden layer.
        first: function that gives the weights from there to the pixels; None leaves out this step.
    """
    zs, _ = scratch.mlp_forward(x, weights, biases)
    one = np.zeros_like(zs[-1])
    one[:, c] = 1
    signal, late = start(one, zs[-1]), [*zs[delays:], *zs[-1:] * delays]
    delta = scratch.layer_errors(signal, late, hidden(weights), derivative)[0]
    return delta if first is None else delta @ first(weights)[0]


def _in_row(one: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Signal with ones in row c instead of column c."""
    row = np.zeros_like(one)
    row[one[0].argmax()] = 1
    return row


_WRONG_WAY = "w is transposed: the backward pass uses w as in exercise 2"

input_gradient = Exercise(
    task="``input_gradient(x, c, weights, biases)``: ∂y_c/∂x of an MLP of sigmoids of any depth.",
    inputs=_networks,
    solution=scratch.input_gradient,
    what="∂y_c/∂x",
    mistakes={
        "You stop at δ^1: one step is missing, through w^1 to the pixels": partial(
            _input_gradient, first=None
        ),
        "You start with σ'(z^V): the score is y_c = z^V_c, before the last activation": partial(
            _input_gradient, start=lambda one, z: one * sigmoid_prime(z)
        ),
        "σ'(z^l) of the hidden layers is missing": partial(
            _input_gradient, derivative=np.ones_like
        ),
        "You start with ones for all classes: only the entry of the target is 1": partial(
            _input_gradient, start=lambda one, z: np.ones_like(one)
        ),
        "This is the map of another class: start with the 1 at the target": partial(
            _input_gradient, start=lambda one, z: np.roll(one, 1, axis=1)
        ),
        "The 1 belongs in column c of every row, not in row c": partial(
            _input_gradient, start=_in_row
        ),
        "Start with 1 at the target, not with the score itself": partial(
            _input_gradient, start=lambda one, z: one * z
        ),
        "Start with 1 at the target, not with the output itself": partial(
            _input_gradient, start=lambda one, z: one * sigmoid(z)
        ),
        "Return a map for each digit, N×n: do not average over the rows": (
            lambda *inputs: _input_gradient(*inputs).mean(axis=0)
        ),
        "This is gradient × input; leave out the last multiplication": (
            lambda x, *inputs: x * _input_gradient(x, *inputs)
        ),
        "Keep the sign: the absolute value comes later, if at all": (
            lambda *inputs: np.abs(_input_gradient(*inputs))
        ),
        "This is the gradient of the loss: the gradient of the score starts with 1": partial(
            _input_gradient, start=lambda one, z: (sigmoid(z) - one) * sigmoid_prime(z)
        ),
        _WRONG_WAY: partial(_input_gradient, hidden=_transposed),
        f"{_WRONG_WAY}, also at the end": partial(
            _input_gradient, hidden=_transposed, first=_transposed
        ),
        "Take σ' at the layer where the signal arrives, not one layer later": partial(
            _input_gradient, delays=1
        ),
    },
    praise="This is the gradient of the score with respect to the pixels.",
    distinct=True,
)
