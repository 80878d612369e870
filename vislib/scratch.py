"""Neural networks from nothing but NumPy: from one perceptron to a trained multilayer net.

Read it from the top: every function is an equation of notebooks 01 to 03, in a few lines that say
the same. Inputs are rows: ``x`` is one example (n) or N of them (N×n). A layer has a weight matrix
``w`` (outputs × inputs: ``w[j, k]`` leads from input k to output j) and a bias vector ``b``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

# ---------------------------------------------------------------------- perceptrons (01)


def perceptron(x: np.ndarray, w: np.ndarray, b: np.ndarray | float) -> np.ndarray:
    """The decision of Rosenblatt's neuron: ``1 if w·x + b > 0 else 0``, where bias = −threshold.

    With `w` outputs × inputs and `b` one bias for each output it is a whole layer of decisions.
    Rosenblatt 1958, "The Perceptron".
    """
    return (x @ w.T + b > 0).astype(int)


def nand(a: np.ndarray | int, b: np.ndarray | int) -> np.ndarray:
    """``not (a and b)``: a perceptron with weights −2, −2 and bias 3. Inputs 0 or 1, any shape."""
    return perceptron(np.stack(np.broadcast_arrays(a, b), axis=-1), np.array([-2, -2]), 3)


def add_bits(a: np.ndarray | int, b: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """``a + b`` of two bits as (sum bit, carry bit), made of five NAND perceptrons.

    The sum bit is ``a xor b``: no single perceptron computes it, three layers of NANDs do.
    """
    neither = nand(a, b)
    return nand(nand(a, neither), nand(b, neither)), nand(neither, neither)


# ---------------------------------------------------------------------- activations (01)


def sigmoid(z: np.ndarray | float) -> np.ndarray:
    """``σ(z) = 1 / (1 + e^−z)``, between 0 and 1. Never overflows: ``e`` gets only ``−|z|``."""
    small = np.exp(-np.abs(z))
    return np.where(np.asarray(z) >= 0, 1 / (1 + small), small / (1 + small))


def sigmoid_prime(z: np.ndarray | float) -> np.ndarray:
    """``σ'(z) = σ(z) (1 − σ(z))``: at most 1/4, at z = 0."""
    return sigmoid(z) * (1 - sigmoid(z))


def tanh(z: np.ndarray | float) -> np.ndarray:
    """``tanh(z) = 2 σ(2z) − 1``: a sigmoid stretched to go from −1 to 1."""
    return np.tanh(z)


def tanh_prime(z: np.ndarray | float) -> np.ndarray:
    """``tanh'(z) = 1 − tanh(z)²``: at most 1, at z = 0."""
    return 1 - np.tanh(z) ** 2


def relu(z: np.ndarray | float) -> np.ndarray:
    """``max(z, 0)``, the rectified linear unit."""
    return np.maximum(z, 0)


def relu_prime(z: np.ndarray | float) -> np.ndarray:
    """``1 where z > 0, else 0``. At z = 0 there is no derivative; 0 is the usual choice."""
    return (np.asarray(z) > 0).astype(float)


def leaky_relu(z: np.ndarray | float, leak: float = 0.01) -> np.ndarray:
    """``z where z > 0, else 0.01 z``: a ReLU that never goes quite silent."""
    return np.where(np.asarray(z) > 0, z, leak * np.asarray(z))


def leaky_relu_prime(z: np.ndarray | float, leak: float = 0.01) -> np.ndarray:
    """``1 where z > 0, else 0.01``."""
    return np.where(np.asarray(z) > 0, 1.0, leak)


Activation = Callable[[np.ndarray], np.ndarray]
ACTIVATIONS: dict[str, tuple[Activation, Activation]] = {
    "sigmoid": (sigmoid, sigmoid_prime),
    "tanh": (tanh, tanh_prime),
    "ReLU": (relu, relu_prime),
    "leaky ReLU": (leaky_relu, leaky_relu_prime),
}

# ---------------------------------------------------------------------- multilayer nets (01)


def random_layers(
    sizes: Sequence[int], rng: np.random.Generator, gain: float = 1.0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights ~ N(0, gain²/inputs) and zero biases for layers of the given sizes, inputs first.

    Gain 1 keeps the spread of the signal about equal from layer to layer in a linear net, √2 in a
    ReLU net. Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward
    neural networks"; He et al. 2015, "Delving Deep into Rectifiers".
    """
    weights = [
        rng.normal(0, gain / np.sqrt(inputs), (outputs, inputs))
        for inputs, outputs in pairwise(sizes)
    ]
    return weights, [np.zeros(outputs) for outputs in sizes[1:]]


def mlp_forward(
    x: np.ndarray,
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
    activation: Activation = sigmoid,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """All layers of a multilayer perceptron: ``z^l = w^l a^{l−1} + b^l`` and ``a^l = σ(z^l)``.

    Returns the lists ``z^1 … z^L`` and ``a^0 … a^L``, where ``a^0 = x``.
    """
    zs, activations = [], [x]
    for w, b in zip(weights, biases, strict=True):
        zs.append(activations[-1] @ w.T + b)
        activations.append(activation(zs[-1]))
    return zs, activations


# ---------------------------------------------------------------------- losses (02)


def mse(a: np.ndarray, y: np.ndarray) -> float:
    """Quadratic loss ``½ ‖a − y‖²``, averaged over the examples (rows; a vector is N examples).

    The half makes the gradient ``a − y``. (PyTorch's ``mse_loss`` has no half, and averages over
    the outputs as well.)
    """
    return float(0.5 * np.sum((a - y) ** 2) / len(a))


def binary_cross_entropy(a: np.ndarray, y: np.ndarray) -> float:
    """``−[y ln a + (1 − y) ln(1 − a)]``, averaged; `a` is a probability, `y` is 0 or 1.

    Probabilities are kept 1e-12 away from 0 and 1, so that the loss is always finite.
    """
    a = np.clip(a, 1e-12, 1 - 1e-12)
    return float(-np.mean(y * np.log(a) + (1 - y) * np.log(1 - a)))


def softmax(z: np.ndarray) -> np.ndarray:
    """``p_j = e^{z_j} / Σ_k e^{z_k}`` along the last axis: positive, and adds up to 1.

    The largest logit is taken away first. That changes nothing but keeps ``e^z`` from overflowing.
    """
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropy(z: np.ndarray, labels: np.ndarray) -> float:
    """``−ln softmax(z)[label]``, averaged over the examples; `z` N×K logits, `labels` N integers.

    Computed as ``ln Σ_k e^{z_k} − z_label``, which never takes the logarithm of 0.
    """
    z = z - z.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(z).sum(axis=-1))
    return float(np.mean(log_sum - z[np.arange(len(z)), labels]))


# ---------------------------------------------------------------------- gradient descent (02)


def gradient_descent(
    loss_gradient: Callable[[np.ndarray], np.ndarray], start: np.ndarray, rate: float, steps: int
) -> np.ndarray:
    """Steps downhill, ``v ← v − η ∇L(v)``: the path, (steps + 1) × (shape of v), start first."""
    path = [np.asarray(start, dtype=float)]
    for _ in range(steps):
        path.append(path[-1] - rate * loss_gradient(path[-1]))
    return np.stack(path)


def minibatches(n: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """One epoch: the numbers 0 … n − 1 in random order, `size` at a time (fewer at the end)."""
    order = rng.permutation(n)
    for first in range(0, n, size):
        yield order[first : first + size]


def sgd(
    loss_gradient: Callable[[np.ndarray, np.ndarray], np.ndarray],
    start: np.ndarray,
    n: int,
    rate: float,
    batch: int,
    epochs: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Mini-batch gradient descent, ``v ← v − η ∇L_batch(v)``: the path, one row for each epoch.

    ``loss_gradient(v, rows)`` is the mean gradient over the examples `rows` out of `n`. Every epoch
    sees each example once. The start is the first row.
    """
    v = np.asarray(start, dtype=float)
    path = [v]
    for _ in range(epochs):
        for rows in minibatches(n, batch, rng):
            v = v - rate * loss_gradient(v, rows)
        path.append(v)
    return np.stack(path)


def split(
    n: int, rng: np.random.Generator, validation: float = 0.2, test: float = 0.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers for training, validation and test: random, and no row in two of them."""
    order = rng.permutation(n)
    held_out, last = round(n * test), round(n * (test + validation))
    return order[last:], order[held_out:last], order[:held_out]


# ---------------------------------------------------------------------- backpropagation (03)


def send_back(
    delta: np.ndarray,
    zs: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    derivative: Activation = sigmoid_prime,
) -> list[np.ndarray]:
    """The errors of all layers from that of the last: ``δ^l = (w^{l+1})ᵀ δ^{l+1} ⊙ σ'(z^l)``.

    `delta` is δ^V, N×(outputs of the last layer V). Returns the list ``δ^1 … δ^V``. Examples are
    rows here, so that ``wᵀ δ`` for one example reads ``delta @ w`` for N of them.
    """
    deltas = [delta]
    for w, z in zip(weights[:0:-1], zs[-2::-1], strict=True):
        deltas.insert(0, (deltas[0] @ w) * derivative(z))
    return deltas


def backpropagate(
    x: np.ndarray,
    y: np.ndarray,
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
    activation: Activation = sigmoid,
    derivative: Activation = sigmoid_prime,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The gradient of the quadratic loss (`mse`) for all weights and biases, by four equations.

    ``δ^V = ∇_a L ⊙ σ'(z^V)``, ``δ^l = (w^{l+1})ᵀ δ^{l+1} ⊙ σ'(z^l)``, ``∂L/∂b = δ``,
    ``∂L/∂w_jk = a_k δ_j``, where ``∇_a L = a − y``; the mean over the N rows of `x` and `y`.
    Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors".
    """
    zs, activations = mlp_forward(x, weights, biases, activation)
    delta = (activations[-1] - y) * derivative(zs[-1])
    deltas = send_back(delta, zs, weights, derivative)
    weight_gradients = [d.T @ a / len(x) for d, a in zip(deltas, activations[:-1], strict=True)]
    bias_gradients = [d.mean(axis=0) for d in deltas]
    return weight_gradients, bias_gradients


def finite_differences(
    f: Callable[[np.ndarray], float], v: np.ndarray, step: float = 1e-5
) -> np.ndarray:
    """The gradient of `f` at `v`, entry by entry: ``(f(v + h e_i) − f(v − h e_i)) / 2h``.

    Two evaluations for every entry: far too slow for training, and just right for checking.
    """
    slopes = np.zeros_like(v, dtype=float)
    for i in np.ndindex(v.shape):
        there, back = np.array(v, dtype=float), np.array(v, dtype=float)
        there[i] += step
        back[i] -= step
        slopes[i] = (f(there) - f(back)) / (2 * step)
    return slopes


def train(
    x: np.ndarray,
    y: np.ndarray,
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
    rate: float,
    batch: int,
    epochs: int,
    rng: np.random.Generator,
) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    """Mini-batch gradient descent on a sigmoid net: new weights, new biases, the loss per epoch.

    The losses are those of all rows, before the first epoch and after each: epochs + 1 numbers.
    """
    weights, biases = list(weights), list(biases)
    losses = [mse(mlp_forward(x, weights, biases)[1][-1], y)]
    for _ in range(epochs):
        for rows in minibatches(len(x), batch, rng):
            by_weights, by_biases = backpropagate(x[rows], y[rows], weights, biases)
            weights = [w - rate * g for w, g in zip(weights, by_weights, strict=True)]
            biases = [b - rate * g for b, g in zip(biases, by_biases, strict=True)]
        losses.append(mse(mlp_forward(x, weights, biases)[1][-1], y))
    return weights, biases, losses


def input_gradient(
    x: np.ndarray,
    target: int,
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
    activation: Activation = sigmoid,
    derivative: Activation = sigmoid_prime,
) -> np.ndarray:
    """``∂y_c/∂x = (w^1)ᵀ δ^1``: how the score of class `target` changes with each input, N×n.

    The score is ``y_c = z^V_c``, before the last activation. The signal that starts the way back is
    therefore 1 at the target and 0 at the other outputs. Simonyan et al. 2014, "Deep Inside
    Convolutional Networks".
    """
    zs, _ = mlp_forward(x, weights, biases, activation)
    delta = np.zeros_like(zs[-1])
    delta[:, target] = 1
    return send_back(delta, zs, weights, derivative)[0] @ weights[0]


# ---------------------------------------------------------------------- convolution (04)


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """``(M − K + 2P) / S + 1``, rounded down: how many positions a window has along M pixels."""
    return (size - kernel + 2 * padding) // stride + 1


def convolve(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | float = 0.0, stride: int = 1, padding: int = 0
) -> np.ndarray:
    """Slide kernels over maps, multiply, add up: ``y_o[i, j] = Σ w_o · window(i, j) + b_o``.

    Args:
        x: C×H×W maps.
        w: O×C×K×L kernels, one stack of C kernels for each output map.
        b: O biases.
        stride: pixels between two windows.
        padding: rows and columns of zeros around the maps.

    Returns:
        O×M×N maps. As in every deep-learning library the kernel is not flipped, so that this is
        what mathematics calls a correlation.
    """
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    outputs, _, height, width = w.shape
    rows, columns = output_size(x.shape[1], height, stride), output_size(x.shape[2], width, stride)
    y = np.zeros((outputs, rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            window = x[:, top : top + height, left : left + width]
            y[:, i, j] = (w * window).sum(axis=(1, 2, 3)) + b
    return y


def transposed_convolve(
    x: np.ndarray, w: np.ndarray, stride: int = 1, padding: int = 0
) -> np.ndarray:
    """The way back through `convolve`: every value of `x` paints its kernel into the output.

    Where painted kernels overlap, they add up. `w` is (C of x)×(O of the output)×K×L, the same
    array that `convolve` used to go from O maps to C. A side of M becomes ``(M − 1) S + K − 2P``.
    """
    _, outputs, height, width = w.shape
    rows, columns = x.shape[1:]
    y = np.zeros((outputs, (rows - 1) * stride + height, (columns - 1) * stride + width))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            y[:, top : top + height, left : left + width] += np.tensordot(x[:, i, j], w, axes=1)
    return y[:, padding : y.shape[1] - padding, padding : y.shape[2] - padding]


def max_pool(x: np.ndarray, size: int, stride: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The largest value of every window of C×H×W maps, and its place: (maxima, switches).

    A switch is the place in the flattened map, ``row · W + column``, as PyTorch's
    ``return_indices`` has it. The stride is the window's size unless given.
    """
    stride = stride or size
    channels, height, width = x.shape
    shape = channels, output_size(height, size, stride), output_size(width, size, stride)
    maxima, switches = np.zeros(shape), np.zeros(shape, dtype=int)
    for c, i, j in np.ndindex(shape):
        top, left = i * stride, j * stride
        window = x[c, top : top + size, left : left + size]
        row, column = np.unravel_index(window.argmax(), window.shape)
        maxima[c, i, j] = window[row, column]
        switches[c, i, j] = (top + row) * width + left + column
    return maxima, switches


def unpool(values: np.ndarray, switches: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Put each value back to where its maximum was, zeros elsewhere: C×height×width.

    Where windows overlapped and share a switch, the last value stays, as in ``F.max_unpool2d``
    (the derivative of max pooling would add them up). Zeiler & Fergus 2013.
    """
    y = np.zeros((len(values), shape[0] * shape[1]))
    for c in range(len(values)):
        y[c, switches[c].ravel()] = values[c].ravel()
    return y.reshape(len(values), *shape)


def average_pool(x: np.ndarray, size: int, stride: int | None = None) -> np.ndarray:
    """The mean of every window of C×H×W maps."""
    stride = stride or size
    channels, height, width = x.shape
    shape = channels, output_size(height, size, stride), output_size(width, size, stride)
    y = np.zeros(shape)
    for c, i, j in np.ndindex(shape):
        y[c, i, j] = x[c, i * stride : i * stride + size, j * stride : j * stride + size].mean()
    return y
