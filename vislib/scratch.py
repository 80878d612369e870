"""Neural networks in NumPy: from one perceptron to a trained network, and convolution.

Each function is an equation of notebooks 01 to 04 in a few lines; read them from top to bottom.
Inputs are rows: ``x`` is one example (n numbers) or N of them (N×n). A layer has a weight matrix
``w`` (outputs × inputs: ``w[j, k]`` connects input k with output j) and a bias vector ``b``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

# --- Perceptrons (notebook 01) --------------------------------------------------------------------


def perceptron(x: np.ndarray, w: np.ndarray, b: np.ndarray | float) -> np.ndarray:
    """Decision of a perceptron: ``1 if w·x + b > 0 else 0``, where b is minus the threshold.

    Rosenblatt 1958, "The Perceptron: A Probabilistic Model for Information Storage and Organization
    in the Brain".

    Args:
        x: one example (n) or N examples (N×n).
        w: n weights, or outputs × n for a layer of perceptrons.
        b: bias, or one bias for each output.

    Returns:
        Zeros and ones: one for each example, or examples × outputs.

    >>> corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> perceptron(corners, np.array([1, 1]), -1.5)  # a logical "and"
    array([0, 0, 0, 1])
    """
    return (x @ w.T + b > 0).astype(int)


def nand(a: np.ndarray | int, b: np.ndarray | int) -> np.ndarray:
    """NAND gate, ``not (a and b)``: a perceptron with weights −2, −2 and bias 3.

    The inputs are 0 or 1, in arrays of any shape.

    >>> int(nand(1, 1)), int(nand(1, 0))
    (0, 1)
    """
    return perceptron(np.stack(np.broadcast_arrays(a, b), axis=-1), np.array([-2, -2]), 3)


# --- Activations (notebook 01) --------------------------------------------------------------------


def sigmoid(z: np.ndarray | float) -> np.ndarray:
    """Sigmoid, ``σ(z) = 1 / (1 + e^−z)``, between 0 and 1.

    Only ``e^−|z|`` is computed, which cannot overflow.
    """
    small = np.exp(-np.abs(z))
    return np.where(np.asarray(z) >= 0, 1 / (1 + small), small / (1 + small))


def sigmoid_prime(z: np.ndarray | float) -> np.ndarray:
    """Derivative of the sigmoid, ``σ'(z) = σ(z) (1 − σ(z))``: at most 1/4, at z = 0."""
    return sigmoid(z) * (1 - sigmoid(z))


def tanh(z: np.ndarray | float) -> np.ndarray:
    """Hyperbolic tangent, ``tanh(z) = 2 σ(2z) − 1``: a sigmoid scaled to the range −1 to 1."""
    return np.tanh(z)


def tanh_prime(z: np.ndarray | float) -> np.ndarray:
    """Derivative of the hyperbolic tangent, ``tanh'(z) = 1 − tanh(z)²``: at most 1, at z = 0."""
    return 1 - np.tanh(z) ** 2


def relu(z: np.ndarray | float) -> np.ndarray:
    """Rectified linear unit (ReLU), ``max(z, 0)``."""
    return np.maximum(z, 0)


def relu_prime(z: np.ndarray | float) -> np.ndarray:
    """Derivative of the ReLU: 1 where z > 0, else 0.

    At z = 0 the derivative does not exist; 0 is the usual choice.
    """
    return (np.asarray(z) > 0).astype(float)


def leaky_relu(z: np.ndarray | float, leak: float = 0.01) -> np.ndarray:
    """Leaky ReLU: z where z > 0, else ``leak · z``, so that the derivative is never 0."""
    return np.where(np.asarray(z) > 0, z, leak * np.asarray(z))


def leaky_relu_prime(z: np.ndarray | float, leak: float = 0.01) -> np.ndarray:
    """Derivative of the leaky ReLU: 1 where z > 0, else `leak`."""
    return np.where(np.asarray(z) > 0, 1.0, leak)


Activation = Callable[[np.ndarray], np.ndarray]
ACTIVATIONS: dict[str, tuple[Activation, Activation]] = {
    "sigmoid": (sigmoid, sigmoid_prime),
    "tanh": (tanh, tanh_prime),
    "ReLU": (relu, relu_prime),
    "leaky ReLU": (leaky_relu, leaky_relu_prime),
}


# --- Multilayer perceptrons (notebook 01) ---------------------------------------------------------


def random_layers(
    sizes: Sequence[int], rng: np.random.Generator, gain: float = 1.0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random weights ~ N(0, gain²/inputs) and zero biases for a multilayer perceptron.

    Gain 1 keeps the standard deviation of the signal about equal from layer to layer in a linear
    network, gain √2 in a ReLU network. Glorot & Bengio 2010, "Understanding the difficulty of
    training deep feedforward neural networks"; He et al. 2015, "Delving Deep into Rectifiers".

    Args:
        sizes: number of inputs, then number of outputs of each layer.
        rng: source of the random numbers.
        gain: factor of the standard deviation.

    Returns:
        The list of weights (outputs × inputs) and the list of biases (outputs), one per layer.

    >>> weights, biases = random_layers([64, 30, 10], np.random.default_rng(0))
    >>> [w.shape for w in weights], [b.shape for b in biases]
    ([(30, 64), (10, 30)], [(30,), (10,)])
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
    """Forward pass of a multilayer perceptron: ``z^l = w^l a^{l−1} + b^l``, ``a^l = σ(z^l)``.

    Args:
        x: one example (n) or N examples (N×n).
        weights: weights of each layer, outputs × inputs.
        biases: biases of each layer, outputs.
        activation: σ.

    Returns:
        The lists ``z^1 … z^V`` and ``a^0 … a^V`` of the V layers, where ``a^0 = x``.

    >>> weights, biases = random_layers([64, 30, 10], np.random.default_rng(0))
    >>> zs, activations = mlp_forward(np.zeros((5, 64)), weights, biases)
    >>> activations[-1].shape, float(activations[-2][0, 0])  # σ(0) = ½
    ((5, 10), 0.5)
    """
    zs, activations = [], [x]
    for w, b in zip(weights, biases, strict=True):
        zs.append(activations[-1] @ w.T + b)
        activations.append(activation(zs[-1]))
    return zs, activations


# --- Losses (notebook 02) -------------------------------------------------------------------------


def mse(a: np.ndarray, y: np.ndarray) -> float:
    """Quadratic loss ``½ ‖a − y‖²``, averaged over the examples.

    The rows of a matrix are examples, and so are the entries of a vector. With the factor ½ the
    gradient of one example is ``a − y``. (PyTorch's ``mse_loss`` does not have the factor ½, and
    also averages over the outputs.)
    """
    return float(0.5 * np.sum((a - y) ** 2) / len(a))


def softmax(z: np.ndarray) -> np.ndarray:
    """Softmax ``p_j = e^{z_j} / Σ_k e^{z_k}`` along the last axis: positive numbers with sum 1.

    The largest logit is subtracted first. The result is the same, and ``e^z`` cannot overflow.

    >>> float(softmax(np.array([1000.0, 1000.0]))[0])
    0.5
    """
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropy(z: np.ndarray, labels: np.ndarray) -> float:
    """Cross-entropy ``−ln softmax(z)[label]``, averaged over the examples.

    `z` has N×K logits and `labels` N class indices. The loss of one example is computed as
    ``ln Σ_k e^{z_k} − z_label``, which avoids the logarithm of 0.
    """
    z = z - z.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(z).sum(axis=-1))
    return float(np.mean(log_sum - z[np.arange(len(z)), labels]))


# --- Gradient descent (notebook 02) ---------------------------------------------------------------


def gradient_descent(
    loss_gradient: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    learning_rate: float,
    steps: int,
) -> np.ndarray:
    """Path of gradient descent, ``v ← v − η ∇L(v)``.

    Args:
        loss_gradient: ``∇L``, a function from v to an array of the same shape.
        start: initial v.
        learning_rate: η.
        steps: number of steps.

    Returns:
        (steps + 1) × (shape of v): the start, then v after each step.

    >>> path = gradient_descent(lambda v: 2 * v, np.array([1.0]), learning_rate=0.25, steps=3)
    >>> path[:, 0]  # L = v²
    array([1.   , 0.5  , 0.25 , 0.125])
    """
    path = [np.asarray(start, dtype=float)]
    for _ in range(steps):
        path.append(path[-1] - learning_rate * loss_gradient(path[-1]))
    return np.stack(path)


def minibatches(n: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the row numbers 0 … `n` − 1 of one epoch in random order, `size` at a time.

    The last mini-batch may be smaller. `rng` draws the order.

    >>> [len(rows) for rows in minibatches(10, 4, np.random.default_rng(0))]
    [4, 4, 2]
    """
    order = rng.permutation(n)
    for first in range(0, n, size):
        yield order[first : first + size]


def sgd(
    loss_gradient: Callable[[np.ndarray, np.ndarray], np.ndarray],
    start: np.ndarray,
    n: int,
    learning_rate: float,
    batch_size: int,
    epochs: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Path of stochastic gradient descent on mini-batches, ``v ← v − η ∇L_batch(v)``.

    Each epoch uses each example once.

    Args:
        loss_gradient: ``loss_gradient(v, rows)`` is the mean gradient over the examples `rows`.
        start: initial v.
        n: number of examples.
        learning_rate: η.
        batch_size: number of examples in a mini-batch.
        epochs: number of epochs.
        rng: source of the random order.

    Returns:
        (epochs + 1) × (shape of v): the start, then v after each epoch.
    """
    v = np.asarray(start, dtype=float)
    path = [v]
    for _ in range(epochs):
        for rows in minibatches(n, batch_size, rng):
            v = v - learning_rate * loss_gradient(v, rows)
        path.append(v)
    return np.stack(path)


def split(
    n: int, rng: np.random.Generator, validation: float = 0.2, test: float = 0.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random row numbers for training, validation and test; each row is in exactly one of them.

    Args:
        n: number of examples.
        rng: source of the random order.
        validation, test: fractions of the examples.

    Returns:
        The row numbers of training, validation and test.
    """
    order = rng.permutation(n)
    held_out, last = round(n * test), round(n * (test + validation))
    return order[last:], order[held_out:last], order[:held_out]


# --- Backpropagation (notebook 03) ----------------------------------------------------------------


def layer_errors(
    delta: np.ndarray,
    zs: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    derivative: Activation = sigmoid_prime,
) -> list[np.ndarray]:
    """Errors of all layers, backpropagated from the error of the last layer.

        δ^l = (w^{l+1})ᵀ δ^{l+1} ⊙ σ'(z^l)

    Examples are rows, so ``wᵀ δ`` for one example is ``delta @ w`` for N examples.

    Args:
        delta: δ^V, the error of the last layer V, N × outputs.
        zs: ``z^1 … z^V`` from `mlp_forward`.
        weights: weights of each layer, outputs × inputs.
        derivative: σ'.

    Returns:
        The list ``δ^1 … δ^V``.
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
    """Gradient of the quadratic loss (`mse`) with respect to all weights and biases.

        δ^V = ∇_a L ⊙ σ'(z^V)                    with ∇_a L = a − y
        δ^l = (w^{l+1})ᵀ δ^{l+1} ⊙ σ'(z^l)
        ∂L/∂b_j  = δ_j                           averaged over the examples
        ∂L/∂w_jk = a_k δ_j                       averaged over the examples

    Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors".

    Args:
        x: N×n inputs.
        y: N × outputs, the desired outputs.
        weights, biases, activation: as in `mlp_forward`.
        derivative: σ', the derivative of the activation.

    Returns:
        The list of ``∂L/∂w`` and the list of ``∂L/∂b``, one for each layer.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(5, 4)), rng.normal(size=(5, 2))
    >>> w, b = random_layers([4, 3, 2], rng)
    >>> by_weights, by_biases = backpropagate(x, y, w, b)
    >>> by_w1 = finite_differences(lambda v: mse(mlp_forward(x, [v, w[1]], b)[1][-1], y), w[0])
    >>> np.allclose(by_weights[0], by_w1)
    True
    """
    zs, activations = mlp_forward(x, weights, biases, activation)
    delta = (activations[-1] - y) * derivative(zs[-1])
    deltas = layer_errors(delta, zs, weights, derivative)
    weight_gradients = [d.T @ a / len(x) for d, a in zip(deltas, activations[:-1], strict=True)]
    bias_gradients = [d.mean(axis=0) for d in deltas]
    return weight_gradients, bias_gradients


def finite_differences(
    f: Callable[[np.ndarray], float], v: np.ndarray, step: float = 1e-5
) -> np.ndarray:
    """Gradient of `f` at `v`, entry by entry: ``(f(v + h e_i) − f(v − h e_i)) / 2h``.

    Two evaluations for each entry are far too slow for training, but suitable for checking a
    gradient.

    Args:
        f: function from an array to a number.
        v: point at which the gradient is taken, an array of any shape.
        step: h.

    Returns:
        The gradient, of v's shape.
    """
    gradient = np.zeros_like(v, dtype=float)
    for i in np.ndindex(v.shape):
        above, below = np.array(v, dtype=float), np.array(v, dtype=float)
        above[i] += step
        below[i] -= step
        gradient[i] = (f(above) - f(below)) / (2 * step)
    return gradient


def train(
    x: np.ndarray,
    y: np.ndarray,
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
    learning_rate: float,
    batch_size: int,
    epochs: int,
    rng: np.random.Generator,
) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    """Train a sigmoid network with the quadratic loss by stochastic gradient descent.

    Args:
        x: N×n inputs.
        y: N × outputs, the desired outputs.
        weights, biases: initial values, as in `mlp_forward`; they are not changed.
        learning_rate, batch_size, epochs, rng: as in `sgd`.

    Returns:
        The new weights, the new biases, and the loss on all rows before the first epoch and after
        each epoch: epochs + 1 numbers.
    """
    weights, biases = list(weights), list(biases)
    losses = [mse(mlp_forward(x, weights, biases)[1][-1], y)]
    for _ in range(epochs):
        for rows in minibatches(len(x), batch_size, rng):
            by_weights, by_biases = backpropagate(x[rows], y[rows], weights, biases)
            weights = [w - learning_rate * g for w, g in zip(weights, by_weights, strict=True)]
            biases = [b - learning_rate * g for b, g in zip(biases, by_biases, strict=True)]
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
    """Gradient of a class score with respect to the inputs, ``∂y_c/∂x = (w^1)ᵀ δ^1``.

    The score is ``y_c = z^V_c``, before the last activation. Backpropagation therefore starts with
    1 at the target class and 0 at the other outputs. Simonyan, Vedaldi & Zisserman 2014, "Deep
    Inside Convolutional Networks".

    Args:
        x: N×n inputs.
        target: target class c.
        weights, biases, activation, derivative: as in `backpropagate`.

    Returns:
        N×n.
    """
    zs, _ = mlp_forward(x, weights, biases, activation)
    delta = np.zeros_like(zs[-1])
    delta[:, target] = 1
    return layer_errors(delta, zs, weights, derivative)[0] @ weights[0]


# --- Convolution and pooling (notebook 04) --------------------------------------------------------


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """Number of window positions along M pixels: ``(M − K + 2P) / S + 1``, rounded down.

    M is `size`, K is `kernel`, S is `stride` and P is `padding`, all in pixels.

    >>> output_size(7, kernel=3, stride=2)
    3
    """
    return (size - kernel + 2 * padding) // stride + 1


def convolve(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | float = 0.0, stride: int = 1, padding: int = 0
) -> np.ndarray:
    """Convolution of feature maps with kernels: ``y_o[i, j] = Σ w_o · window(i, j) + b_o``.

    As in every deep-learning library, the kernel is not flipped. In mathematics this operation is
    called a cross-correlation.

    Args:
        x: C×H×W feature maps.
        w: O×C×K×L kernels, one stack of C kernels for each output channel.
        b: O biases.
        stride: distance between neighbouring windows, in pixels.
        padding: number of rows and columns of zeros on each side of the maps.

    Returns:
        O×M×N feature maps.

    >>> x = np.arange(9.0).reshape(1, 3, 3)
    >>> convolve(x, np.ones((1, 1, 2, 2)))
    array([[[ 8., 12.],
            [20., 24.]]])
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
    """Transpose of `convolve`: the backward pass of a convolution to its inputs.

        y = Σ_ij x[:, i, j] · w,  each product added to the output at window(i, j)

    Each value of `x` adds its kernel, times the value, to the output. Overlapping kernels add up.

    Args:
        x: C×H×W feature maps.
        w: C×O×K×L kernels: the array with which `convolve` maps O channels to C channels.
        stride: distance between neighbouring windows in the output, in pixels.
        padding: number of rows and columns that are cut off on each side of the output.

    Returns:
        O×M×N feature maps; a side of length H becomes ``(H − 1) S + K − 2P``.

    >>> transposed_convolve(np.array([[[1.0, 10.0]]]), np.ones((1, 1, 1, 2)))
    array([[[ 1., 11., 10.]]])
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
    """Max pooling: the largest value of each window, and its position (the "switch").

    Args:
        x: C×H×W feature maps.
        size: height and width of a window.
        stride: distance between neighbouring windows, in pixels; by default `size`.

    Returns:
        The maxima and the switches, C×M×N each. A switch is the position in the flattened map,
        ``row · W + column``, as in PyTorch's ``return_indices``.

    >>> maxima, switches = max_pool(np.array([[[1.0, 3.0], [2.0, 0.0]]]), 2)
    >>> float(maxima[0, 0, 0]), int(switches[0, 0, 0])
    (3.0, 1)
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
    """Unpooling: each value at the position of its maximum, and zeros elsewhere.

    If overlapping windows share a switch, the last value is kept, as in ``F.max_unpool2d``. (The
    derivative of max pooling adds up the values instead.) Zeiler & Fergus 2014, "Visualizing and
    Understanding Convolutional Networks".

    Args:
        values: C×M×N.
        switches: C×M×N, from `max_pool`.
        shape: height H and width W of the result.

    Returns:
        C×H×W.

    >>> unpool(np.array([[[3.0]]]), np.array([[[1]]]), (2, 2))
    array([[[0., 3.],
            [0., 0.]]])
    """
    y = np.zeros((len(values), shape[0] * shape[1]))
    for c in range(len(values)):
        y[c, switches[c].ravel()] = values[c].ravel()
    return y.reshape(len(values), *shape)


def average_pool(x: np.ndarray, size: int, stride: int | None = None) -> np.ndarray:
    """Average pooling: the mean of each window of the C×H×W maps `x`, C×H'×W'.

    The windows have `size`×`size` positions, at a distance of `stride` (default: `size`).
    """
    stride = stride or size
    channels, height, width = x.shape
    shape = channels, output_size(height, size, stride), output_size(width, size, stride)
    y = np.zeros(shape)
    for c, i, j in np.ndindex(shape):
        y[c, i, j] = x[c, i * stride : i * stride + size, j * stride : j * stride + size].mean()
    return y
