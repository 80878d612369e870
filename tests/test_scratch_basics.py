"""The first half of `vislib.scratch`, and the numbers behind the sliders of notebooks 01 and 02.

Each function is compared with an independent implementation: PyTorch, SciPy, finite differences or
plain Python.
"""

import itertools

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import torch
import torch.nn.functional as F

from vislib import scratch
from vislib.widgets import gradient_descent, perceptron

RNG = np.random.default_rng(0)
TORCH = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "ReLU": torch.relu,
    "leaky ReLU": F.leaky_relu,
}

# --- Perceptrons ----------------------------------------------------------------------------------


def test_perceptron_compares_the_weighted_sum_with_the_threshold():
    x, w, threshold = RNG.normal(size=(50, 4)), RNG.normal(size=4), 0.3
    expected = [int(sum(a * b for a, b in zip(row, w, strict=True)) > threshold) for row in x]
    assert scratch.perceptron(x, w, -threshold).tolist() == expected
    assert scratch.perceptron(x[0], w, -threshold) == expected[0]


def test_perceptron_is_0_on_its_decision_boundary():
    assert scratch.perceptron(np.array([1, 1]), np.array([1, -1]), 0) == 0


def test_perceptron_layer_is_one_perceptron_per_row():
    x, w, b = RNG.normal(size=(20, 3)), RNG.normal(size=(5, 3)), RNG.normal(size=5)
    rows = [scratch.perceptron(x, w[j], b[j]) for j in range(5)]
    assert (scratch.perceptron(x, w, b) == np.stack(rows, axis=1)).all()


@pytest.mark.parametrize(("a", "b"), itertools.product((0, 1), repeat=2))
def test_nand_equals_python(a, b):
    assert scratch.nand(a, b) == int(not (a and b))


def test_nand_takes_arrays_and_computes_a_half_adder():
    a, b = RNG.integers(0, 2, (2, 3, 7))
    nand = scratch.nand
    inner = nand(a, b)
    total, carry = nand(nand(a, inner), nand(b, inner)), nand(inner, inner)
    assert (2 * carry + total == a + b).all()
    assert (scratch.nand(a, 1) == 1 - a).all()


# --- Activations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TORCH)
def test_activation_and_derivative_equal_pytorch(name):
    z = np.concatenate([np.linspace(-30, 30, 241), [-800.0, 800.0]])
    function, derivative = scratch.ACTIVATIONS[name]
    leaf = torch.tensor(z, requires_grad=True)
    value = TORCH[name](leaf)
    value.sum().backward()
    np.testing.assert_allclose(function(z), value.detach(), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(derivative(z), leaf.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_sigmoid_equals_scipy_without_overflow():
    z = np.array([-1e4, -745, -40, -1, 0, 1, 40, 745, 1e4])
    np.testing.assert_allclose(scratch.sigmoid(z), scipy.special.expit(z), rtol=1e-12, atol=1e-300)
    assert scratch.sigmoid(0.0) == 0.5 and scratch.sigmoid_prime(0.0) == 0.25


def test_activations_do_not_change_their_input():
    for function in itertools.chain(*scratch.ACTIVATIONS.values()):
        z = np.array([-1.0, 0.5])
        function(z)
        assert z.tolist() == [-1, 0.5]


# --- Multilayer perceptrons -----------------------------------------------------------------------


@pytest.mark.parametrize("name", TORCH)
def test_mlp_forward_equals_pytorch_linear_layers(name):
    weights, _ = scratch.random_layers([6, 5, 4, 3], RNG)
    biases = [RNG.normal(size=n) for n in (5, 4, 3)]
    x = RNG.normal(size=(8, 6))
    zs, activations = scratch.mlp_forward(x, weights, biases, scratch.ACTIVATIONS[name][0])
    assert len(zs) == 3 and len(activations) == 4 and activations[0] is x
    a = torch.tensor(x)
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        z = F.linear(a, torch.tensor(w), torch.tensor(b))
        a = TORCH[name](z)
        np.testing.assert_allclose(zs[layer], z, atol=1e-12)
        np.testing.assert_allclose(activations[layer + 1], a, atol=1e-12)
    single = scratch.mlp_forward(x[2], weights, biases, scratch.ACTIVATIONS[name][0])[1][-1]
    np.testing.assert_allclose(single, activations[-1][2], atol=1e-12)


def test_random_layers_have_the_documented_shapes_and_deviation():
    weights, biases = scratch.random_layers([400, 300, 20], np.random.default_rng(0), gain=2)
    assert [w.shape for w in weights] == [(300, 400), (20, 300)]
    assert [b.tolist() for b in biases] == [[0.0] * 300, [0.0] * 20]
    assert np.std(weights[0]) == pytest.approx(2 / 20, rel=0.01)
    assert abs(np.mean(weights[0])) < 0.001


# --- Losses ---------------------------------------------------------------------------------------


def test_mse_is_half_the_summed_squares_per_example():
    a, y = RNG.normal(size=(2, 9, 4))
    expected = 0.5 * F.mse_loss(torch.tensor(a), torch.tensor(y), reduction="sum") / 9
    assert scratch.mse(a, y) == pytest.approx(float(expected), rel=1e-12)
    assert scratch.mse(a[:, 0], y[:, 0]) == pytest.approx(0.5 * np.mean((a - y)[:, 0] ** 2))


def test_softmax_and_cross_entropy_equal_scipy_and_pytorch():
    z, labels = RNG.normal(0, 5, (12, 7)), RNG.integers(0, 7, 12)
    z[0] += 1000
    np.testing.assert_allclose(scratch.softmax(z), scipy.special.softmax(z, axis=1), rtol=1e-12)
    expected = F.cross_entropy(torch.tensor(z), torch.tensor(labels))
    assert scratch.cross_entropy(z, labels) == pytest.approx(float(expected), rel=1e-12)
    assert scratch.cross_entropy(np.array([[0.0, 2000.0]]), np.array([0])) == 2000


# --- Gradient descent -----------------------------------------------------------------------------


def test_gradient_descent_takes_the_steps_of_pytorch_sgd():
    hessian, start = np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([1, -2])
    path = scratch.gradient_descent(lambda v: hessian @ v, start, 0.1, 25)
    v = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([v], lr=0.1)
    assert path.shape == (26, 2) and start.tolist() == [1, -2]
    for point in path:
        np.testing.assert_allclose(point, v.detach(), rtol=1e-12)
        optimiser.zero_grad()
        (0.5 * v @ torch.tensor(hessian) @ v).backward()
        optimiser.step()


def test_gradient_descent_finds_the_same_minimum_as_scipy():
    expected = scipy.optimize.minimize(scipy.optimize.rosen, [0.5, 0.5]).x
    path = scratch.gradient_descent(scipy.optimize.rosen_der, np.array([0.5, 0.5]), 1e-3, 20_000)
    np.testing.assert_allclose(path[-1], expected, atol=1e-3)


def test_minibatches_contain_every_example_once():
    batches = list(scratch.minibatches(23, 5, np.random.default_rng(0)))
    assert [len(rows) for rows in batches] == [5, 5, 5, 5, 3]
    assert sorted(np.concatenate(batches)) == list(range(23))
    assert np.concatenate(batches).tolist() != list(range(23))


def test_sgd_with_one_batch_is_gradient_descent():
    x, y = RNG.normal(size=(30, 3)), RNG.normal(size=30)

    def gradient(v, rows):
        return x[rows].T @ (x[rows] @ v - y[rows]) / len(rows)

    all_rows = np.arange(30)
    rng = np.random.default_rng(0)
    options = {"learning_rate": 0.2, "batch_size": 30, "epochs": 50}
    path = scratch.sgd(gradient, np.zeros(3), 30, **options, rng=rng)
    expected = scratch.gradient_descent(lambda v: gradient(v, all_rows), np.zeros(3), 0.2, 50)
    np.testing.assert_allclose(path, expected, atol=1e-12)


def test_sgd_takes_the_steps_of_pytorch_on_the_same_batches():
    x, y = RNG.normal(size=(20, 2)), RNG.normal(size=20)
    path = scratch.sgd(
        lambda v, rows: x[rows].T @ (x[rows] @ v - y[rows]) / len(rows),
        np.zeros(2),
        20,
        learning_rate=0.1,
        batch_size=6,
        epochs=3,
        rng=np.random.default_rng(7),
    )
    v = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser, rng = torch.optim.SGD([v], lr=0.1), np.random.default_rng(7)
    assert path.shape == (4, 2)
    for epoch in range(1, 4):
        for rows in scratch.minibatches(20, 6, rng):
            optimiser.zero_grad()
            (0.5 * (torch.tensor(x[rows]) @ v - torch.tensor(y[rows])) ** 2).mean().backward()
            optimiser.step()
        np.testing.assert_allclose(path[epoch], v.detach(), atol=1e-12)


@pytest.mark.parametrize("n", [10, 442, 1797])
def test_split_is_a_partition_of_the_given_sizes(n):
    train, validation, test = scratch.split(n, np.random.default_rng(0), 0.2, 0.1)
    assert sorted(np.concatenate([train, validation, test])) == list(range(n))
    assert abs(len(validation) - 0.2 * n) <= 1 and abs(len(test) - 0.1 * n) <= 1


# --- The sliders ----------------------------------------------------------------------------------


def values_of(slider):
    return np.arange(slider.min, slider.max + slider.step / 2, slider.step)


def test_decisions_over_the_range_of_the_sliders():
    w1, w2, bias, goal, _ = perceptron.decision_line().children
    best = dict.fromkeys(goal.options, 0)
    for a, b, c in itertools.product(*(values_of(s)[::2] for s in (w1, w2, bias))):
        expected = [int(a * x1 + b * x2 + c > 0) for x1, x2 in perceptron.CORNERS]
        for name, wants in perceptron.GOALS.items():
            answers, right = perceptron.decisions(a, b, c, name)
            assert answers.tolist() == expected
            assert right == sum(e == want for e, want in zip(expected, wants, strict=True))
            best[name] = max(best[name], right)
    assert best == {"AND": 4, "OR": 4, "NAND": 4, "XOR": 3}


def test_small_change_over_the_range_of_the_slider():
    slider = perceptron.step_or_sigmoid().children[0]
    before = 0.0
    for change in values_of(slider):
        step, smooth = perceptron.small_change(change)
        assert step == (change > 0.2 + 1e-9 or change - 0.2 > 0)
        assert smooth == pytest.approx(scipy.special.expit(change - 0.2)) and smooth > before
        before = smooth


def test_descend_over_the_range_of_the_slider():
    slider = gradient_descent.descent().children[0]
    assert slider.min < 0.2 < slider.max
    for rate in values_of(slider):
        path, losses = gradient_descent.descend(rate, 30)
        factors = (1 - rate * np.array([1, 10])) ** np.arange(31)[:, None]
        np.testing.assert_allclose(path, factors * gradient_descent.START, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(losses, 0.5 * path[:, 0] ** 2 + 5 * path[:, 1] ** 2)
        if abs(rate - 0.2) > 1e-6:
            assert (abs(path[-1, 1]) < 2) == (rate < 0.2)


def test_valley_gradient_equals_finite_differences():
    v = np.array([-3.0, 1.5])
    expected = scipy.optimize.approx_fprime(v, gradient_descent.valley, 1e-7)
    np.testing.assert_allclose(gradient_descent.valley_gradient(v), expected, atol=1e-5)


DRAWINGS = [
    (perceptron.draw_decision_line, perceptron.decision_line),
    (perceptron.draw_small_change, perceptron.step_or_sigmoid),
    (gradient_descent.draw_descent, gradient_descent.descent),
]


@pytest.mark.parametrize(("draw", "widget"), DRAWINGS)
def test_drawings_describe_both_ends_of_every_slider(draw, widget, monkeypatch):
    import matplotlib.pyplot as plt

    descriptions = []

    def display(figure, alt):
        figure.canvas.draw()
        plt.close(figure)
        descriptions.append(alt)

    monkeypatch.setattr("vislib.show.figure", display)
    *controls, _ = widget().children
    names = draw.__code__.co_varnames[: len(controls)]
    start = {name: control.value for name, control in zip(names, controls, strict=True)}
    descriptions.clear()
    for name, control in zip(names, controls, strict=True):
        ends = control.options if hasattr(control, "options") else (control.min, control.max)
        for end in ends:
            draw(**start | {name: end})
    assert len(descriptions) == len(set(descriptions)) >= 2


def test_a_perceptron_without_weights_can_be_drawn(monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setattr("vislib.show.figure", lambda figure, alt: plt.close(figure))
    perceptron.draw_decision_line(0, 0, 1, "OR")
