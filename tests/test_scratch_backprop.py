"""The second half of `vislib.scratch`, backpropagation and convolution, against PyTorch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vislib import scratch

ACTIVATIONS = {
    "sigmoid": (scratch.sigmoid, scratch.sigmoid_prime, torch.sigmoid),
    "tanh": (scratch.tanh, scratch.tanh_prime, torch.tanh),
    "relu": (scratch.relu, scratch.relu_prime, torch.relu),
}


def _net(sizes=(6, 5, 4, 3), n=7, seed=0):
    rng = np.random.default_rng(seed)
    weights, _ = scratch.random_layers(sizes, rng)
    biases = [rng.normal(size=size) for size in sizes[1:]]
    return rng.normal(size=(n, sizes[0])), rng.normal(size=(n, sizes[-1])), weights, biases


def _torch_forward(x, weights, biases, activation):
    for w, b in zip(weights, biases, strict=True):
        z = x @ w.T + b
        x = activation(z)
    return z, x


@pytest.mark.parametrize("sizes", [(6, 3), (6, 5, 3), (6, 5, 4, 3)])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_backpropagate_equals_autograd(name, sizes):
    activation, derivative, in_torch = ACTIVATIONS[name]
    x, y, weights, biases = _net(sizes)
    by_weights, by_biases = scratch.backpropagate(x, y, weights, biases, activation, derivative)
    leaves = [torch.tensor(v, requires_grad=True) for v in (*weights, *biases)]
    half = len(weights)
    _, a = _torch_forward(torch.tensor(x), leaves[:half], leaves[half:], in_torch)
    loss = 0.5 * ((a - torch.tensor(y)) ** 2).sum(1).mean()
    expected = torch.autograd.grad(loss, leaves)
    for actual, gradient in zip([*by_weights, *by_biases], expected, strict=True):
        np.testing.assert_allclose(actual, gradient.numpy(), rtol=0, atol=1e-12)


def test_backpropagate_equals_finite_differences():
    x, y, weights, biases = _net()
    by_weights, by_biases = scratch.backpropagate(x, y, weights, biases)
    for layer in range(len(weights)):

        def loss_w(w, layer=layer):
            changed = [*weights[:layer], w, *weights[layer + 1 :]]
            return scratch.mse(scratch.mlp_forward(x, changed, biases)[1][-1], y)

        def loss_b(b, layer=layer):
            changed = [*biases[:layer], b, *biases[layer + 1 :]]
            return scratch.mse(scratch.mlp_forward(x, weights, changed)[1][-1], y)

        expected = scratch.finite_differences(loss_w, weights[layer])
        np.testing.assert_allclose(by_weights[layer], expected, rtol=0, atol=1e-8)
        expected = scratch.finite_differences(loss_b, biases[layer])
        np.testing.assert_allclose(by_biases[layer], expected, rtol=0, atol=1e-8)


def test_finite_differences_equal_a_known_gradient():
    v = np.arange(6.0).reshape(2, 3)
    before = v.copy()
    np.testing.assert_allclose(scratch.finite_differences(lambda v: (v**3).sum(), v), 3 * v**2)
    np.testing.assert_array_equal(v, before)
    integers = scratch.finite_differences(lambda v: (v**2).sum(), np.array([1, 2]))
    np.testing.assert_allclose(integers, [2, 4])


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("target", [0, 2])
def test_input_gradient_equals_autograd(name, target):
    activation, derivative, in_torch = ACTIVATIONS[name]
    x, _, weights, biases = _net()
    actual = scratch.input_gradient(x, target, weights, biases, activation, derivative)
    leaf = torch.tensor(x, requires_grad=True)
    params = [torch.tensor(w) for w in weights], [torch.tensor(b) for b in biases]
    z, _ = _torch_forward(leaf, *params, in_torch)
    expected = torch.autograd.grad(z[:, target].sum(), leaf)[0]
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=1e-12)


def test_train_takes_the_steps_of_pytorch_sgd_and_learns():
    x, y, weights, biases = _net(n=20)
    y = scratch.sigmoid(y)
    before = [w.copy() for w in weights]
    rng = np.random.default_rng(3)
    new_weights, new_biases, losses = scratch.train(x, y, weights, biases, 0.5, 6, 4, rng)
    assert all(np.array_equal(a, b) for a, b in zip(weights, before, strict=True))
    leaves = [torch.tensor(v, requires_grad=True) for v in (*weights, *biases)]
    optimiser = torch.optim.SGD(leaves, lr=0.5)
    rng = np.random.default_rng(3)
    for _ in range(4):
        for rows in scratch.minibatches(len(x), 6, rng):
            _, a = _torch_forward(torch.tensor(x[rows]), leaves[:3], leaves[3:], torch.sigmoid)
            optimiser.zero_grad()
            (0.5 * ((a - torch.tensor(y[rows])) ** 2).sum(1).mean()).backward()
            optimiser.step()
    for actual, expected in zip([*new_weights, *new_biases], leaves, strict=True):
        np.testing.assert_allclose(actual, expected.detach().numpy(), rtol=0, atol=1e-12)
    assert len(losses) == 5 and losses[-1] < losses[0]


CASES = [(1, 0, 3, 3), (2, 1, 3, 3), (3, 2, 5, 5), (1, 1, 2, 3), (2, 0, 1, 1)]


@pytest.mark.parametrize(("stride", "padding", "height", "width"), CASES)
def test_convolve_equals_pytorch(stride, padding, height, width):
    rng = np.random.default_rng(1)
    x, b = rng.normal(size=(3, 11, 9)), rng.normal(size=4)
    w = rng.normal(size=(4, 3, height, width))
    actual = scratch.convolve(x, w, b, stride, padding)
    x_, w_, b_ = (torch.tensor(v) for v in (x, w, b))
    expected = F.conv2d(x_[None], w_, b_, stride, padding)[0].numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
    assert actual.shape[1] == scratch.output_size(11, height, stride, padding)


@pytest.mark.parametrize(("stride", "padding", "height", "width"), [*CASES[:-1], (2, 0, 2, 2)])
def test_transposed_convolve_equals_pytorch_and_the_transpose(stride, padding, height, width):
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(4, 5, 6)), rng.normal(size=(4, 3, height, width))
    actual = scratch.transposed_convolve(x, w, stride, padding)
    expected = F.conv_transpose2d(torch.tensor(x)[None], torch.tensor(w), None, stride, padding)[0]
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=1e-12)
    other = rng.normal(size=actual.shape)  # <conv(other), x> = <other, conv_transposed(x)>
    left = (scratch.convolve(other, w, 0.0, stride, padding) * x).sum()
    np.testing.assert_allclose(left, (other * actual).sum())


@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, None), (3, 2), (2, 1)])
def test_pooling_equals_pytorch(size, stride):
    x = np.random.default_rng(3).normal(size=(2, 9, 12))
    x_ = torch.tensor(x)[None]
    maxima, switches = scratch.max_pool(x, size, stride)
    expected, indices = F.max_pool2d(x_, size, stride, return_indices=True)
    np.testing.assert_allclose(maxima, expected[0].numpy())
    np.testing.assert_array_equal(switches, indices[0].numpy())
    means = F.avg_pool2d(x_, size, stride)[0].numpy()
    np.testing.assert_allclose(scratch.average_pool(x, size, stride), means)


@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, 2)])
def test_unpool_equals_pytorch(size, stride):
    x = np.random.default_rng(4).normal(size=(2, 9, 12))
    maxima, switches = scratch.max_pool(x, size, stride)
    actual = scratch.unpool(maxima, switches, (9, 12))
    expected = F.max_unpool2d(
        torch.tensor(maxima)[None], torch.tensor(switches)[None], size, stride, output_size=(9, 12)
    )
    np.testing.assert_allclose(actual, expected[0].numpy())
