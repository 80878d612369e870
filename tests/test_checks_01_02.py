"""The checks of notebooks 01 and 02: the right answer passes, and each usual mistake is named."""

import numpy as np
import pytest

from vislib import scratch
from vislib.checks import Wrong, gradient_descent, perceptron

# ---------------------------------------------------------------------- the right answers


def half_adder(a, b, nand):
    n = nand(a, b)
    return nand(nand(a, n), nand(b, n)), nand(n, n)


def forward(x, weights, biases):
    a = x
    for w, b in zip(weights, biases, strict=True):
        a = scratch.sigmoid(a @ w.T + b)
    return a


def chain(x, weights):
    slope, a = 1.0, x
    for w in weights:
        slope *= w * scratch.sigmoid_prime(w * a)
        a = scratch.sigmoid(w * a)
    return slope


def descend(loss_gradient, start, rate, steps):
    path = [start]
    for _ in range(steps):
        path.append(path[-1] - rate * loss_gradient(path[-1]))
    return np.array(path)


def largest_rate(hessian):
    return 2 / np.linalg.eigvalsh(hessian).max()


def logit_gradient(z, labels):
    p = scratch.softmax(z)
    p[np.arange(len(z)), labels] -= 1
    return p / len(z)


def early_stopping(losses, patience):
    best = 0
    for step, loss in enumerate(losses):
        if loss < losses[best]:
            best = step
        if step - best >= patience:
            break
    return best


@pytest.mark.parametrize("repeat", range(20))
def test_right_answers_pass_on_any_random_input(repeat, capsys):
    perceptron.a_but_not_b(lambda: ([1, -1], -0.5))
    perceptron.a_but_not_b(lambda: (np.array([2.0, -3.0]), 0))
    perceptron.half_adder(half_adder)
    perceptron.chain_slope(chain)
    perceptron.forward(forward)
    gradient_descent.descend(descend)
    gradient_descent.descend(lambda *given: list(descend(*given)))
    gradient_descent.largest_rate(largest_rate)
    gradient_descent.logit_gradient(logit_gradient)
    gradient_descent.early_stopping(early_stopping)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and all(line.startswith("✓ ") for line in lines)


# ---------------------------------------------------------------------- planted mistakes, 01


@pytest.mark.parametrize(
    ("w", "b", "message"),
    [
        ([1, -1], -1, r"corner \(1, 0\) lies exactly on the line"),
        ([-1, 1], 0.5, "turn the sign"),
        ([-1, 1], -0.5, "b but not a"),
        ([1, -1], -3, "never fires"),
        ([1, 1], 3, "always fires"),
        ([1, 1], -0.5, r"for \(a, b\) = \(0, 1\) it says 1"),
        ([1, -1, 2], 0, "two weights"),
        ("ab", 0, "numbers"),
        ([1, -1], None, "numbers"),
    ],
)
def test_a_but_not_b_names_the_mistake(w, b, message):
    with pytest.raises(Wrong, match=message):
        perceptron.a_but_not_b(lambda: (w, b))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda a, b, nand: half_adder(a, b, nand)[::-1], "carry first"),
        (lambda a, b, nand: (half_adder(a, b, nand)[0], nand(a, b)), "upside down: nand says NOT"),
        (lambda a, b, nand: (nand(nand(a, a), nand(b, b)), a & b), "sum bit is a OR b"),
        (lambda a, b, nand: (1 - half_adder(a, b, nand)[0], a & b), "sum bit is upside down"),
        (lambda a, b, nand: (a ^ b, a & b), "come out of nand"),
        (lambda a, b, nand: nand(a, b), "return two bits"),
        (lambda a, b, nand: (nand(a, b), nand(a, a)), "not right yet"),
    ],
)
def test_half_adder_names_the_mistake(answer, message):
    with pytest.raises(Wrong, match=message):
        perceptron.half_adder(answer)


def chain_of(link, join=np.prod):
    def answer(x, weights):
        a, links = x, []
        for w in weights:
            links.append(link(w, a))
            a = scratch.sigmoid(w * a)
        return join(links)

    return answer


prime = scratch.sigmoid_prime


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (chain_of(lambda w, a: prime(w * a)), "weights are missing"),
        (chain_of(lambda w, a: w * prime(w * a), np.sum), "yours adds"),
        (chain_of(lambda w, a: w * prime(scratch.sigmoid(w * a))), "not at the output a"),
        (chain_of(lambda w, a: w * prime(a)), "the input times the weight"),
        (chain_of(lambda w, a: scratch.sigmoid(w * a), lambda links: links[-1]), "not its slope"),
        (chain_of(lambda w, a: w * prime(w * a), lambda links: links[-1]), "Only the last link"),
        (lambda x, weights: -chain(x, weights), "chain of 1 "),
        (lambda x, weights: chain(x, weights[::-1]), "runs backwards"),
        (lambda x, weights: None, "end with return"),
    ],
)
def test_chain_slope_names_the_mistake(answer, message):
    with pytest.raises(Wrong, match=message):
        perceptron.chain_slope(answer)


def forward_with(inner=scratch.sigmoid, outer=scratch.sigmoid, bias=1.0, turn=False):
    def answer(x, weights, biases):
        a = x
        for depth, (w, b) in enumerate(zip(weights, biases, strict=True), start=1):
            z = a @ (w if turn else w.T) + bias * b
            a = outer(z) if depth == len(weights) else inner(z)
        return a

    return answer


def step(z):
    return (z > 0).astype(float)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (forward_with(bias=0), "biases are missing"),
        (forward_with(bias=-1), "added, not taken away"),
        (forward_with(outer=lambda z: z), "last layer has no σ"),
        (forward_with(inner=lambda z: z), "Only the last layer has a σ"),
        (forward_with(inner=lambda z: z, outer=lambda z: z), "no σ in yours"),
        (forward_with(inner=step, outer=step), "hard steps"),
        (forward_with(turn=True), r"use x @ w\.T"),
        (lambda x, w, b: scratch.mlp_forward(x, w, b), "last layer's activations only"),
        (lambda x, w, b: forward(x[0], w, b), "shape"),
        (lambda x, w, b: forward(x, w[:-1], b), "stopped with ValueError"),
    ],
)
def test_forward_names_the_mistake(answer, message):
    with pytest.raises(Wrong, match=message):
        perceptron.forward(answer)


# ---------------------------------------------------------------------- planted mistakes, 02


def descend_in_place(loss_gradient, start, rate, steps):
    v, path = start.copy(), []
    path.append(v)
    for _ in range(steps):
        v -= rate * loss_gradient(v)
        path.append(v)
    return np.array(path)


def descend_changing_the_start(loss_gradient, start, rate, steps):
    path = [start.copy()]
    for _ in range(steps):
        start -= rate * loss_gradient(start)
        path.append(start.copy())
    return np.array(path)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda g, v, rate, n: descend(g, v, -rate, n), "It climbs"),
        (lambda g, v, rate, n: descend(g, v, 1.0, n), "rate is missing"),
        (lambda g, v, rate, n: descend(lambda _: g(v), v, rate, n), "anew at each point"),
        (
            lambda g, v, rate, n: descend(lambda u: g(u) / np.linalg.norm(g(u)), v, rate, n),
            "divide the gradient",
        ),
        (lambda *given: descend(*given)[1:], "start is missing"),
        (lambda *given: descend(*given)[:-1], "one step is missing"),
        (lambda *given: descend(*given)[-1], "last point only"),
        (descend_in_place, "the same array"),
        (descend_changing_the_start, "changes its input"),
    ],
)
def test_descend_names_the_mistake(answer, message):
    with pytest.raises(Wrong, match=message):
        gradient_descent.descend(answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda h: 1 / np.linalg.eigvalsh(h).max(), "one perfect step"),
        (lambda h: 2 / np.linalg.eigvalsh(h).min(), "largest eigenvalue"),
        (lambda h: 2 / np.trace(h), "trace"),
        (lambda h: 2 / np.diag(h).max(), "diagonal"),
        (lambda h: 2 / np.linalg.eigvalsh(h)[[0, -1]].sum(), "fastest rate"),
        (lambda h: 2 / np.linalg.eigvalsh(h), "shape"),
        (lambda h: np.linalg.eigvalsh(h).max(), "not right|should be|factor"),
    ],
)
def test_largest_rate_names_the_mistake(answer, message):
    with pytest.raises(Wrong, match=message):
        gradient_descent.largest_rate(answer)


def one_hot(z, labels):
    return np.eye(z.shape[1])[labels]


def overflowing(z, labels):
    e = np.exp(z)
    return (e / e.sum(axis=1, keepdims=True) - one_hot(z, labels)) / len(z)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda z, y: (scratch.softmax(z.T).T - one_hot(z, y)) / len(z), "over the examples"),
        (lambda z, y: scratch.softmax(z), "take away 1 at the right class, and divide by N"),
        (lambda z, y: scratch.softmax(z) / len(z), "probabilities over N"),
        (lambda z, y: (z - one_hot(z, y)) / len(z), "where is the softmax"),
        (lambda z, y: -logit_gradient(z, y), "the gradient itself is p − y"),
        (lambda z, y: logit_gradient(z, y) * len(z), "divide by N"),
        (lambda z, y: logit_gradient(z, y) / z.shape[1], "not of classes"),
        (overflowing, "overflows"),
    ],
)
def test_logit_gradient_names_the_mistake(answer, message):
    with pytest.raises(Wrong, match=message), np.errstate(all="ignore"):
        gradient_descent.logit_gradient(answer)


def first_rise(losses, patience):
    return next((i for i in range(len(losses) - 1) if losses[i + 1] > losses[i]), len(losses) - 1)


def where_it_stopped(losses, patience):
    return min(early_stopping(losses, patience) + patience, len(losses) - 1)


def equal_is_better(losses, patience):
    best = 0
    for step, loss in enumerate(losses):
        if loss <= losses[best]:
            best = step
        if step - best >= patience:
            break
    return best


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (first_rise, "first rise"),
        (where_it_stopped, "where you stop"),
        (lambda losses, patience: int(np.argmin(losses)), "after the stop"),
        (lambda losses, patience: len(losses) - 1, "last step of all"),
        (lambda losses, patience: losses[early_stopping(losses, patience)], "return its step"),
        (lambda losses, patience: early_stopping(losses, patience) + 1, "one step after"),
        (lambda losses, patience: [early_stopping(losses, patience)], "one number"),
        (lambda losses, patience: early_stopping(losses, patience - 1), "first rise|not right"),
        (equal_is_better, "compare with <"),
    ],
)
def test_early_stopping_names_the_mistake(answer, message):
    with pytest.raises(Wrong, match=message):
        gradient_descent.early_stopping(answer)


EVERY_CHECK = [
    perceptron.a_but_not_b,
    perceptron.half_adder,
    perceptron.chain_slope,
    perceptron.forward,
    gradient_descent.descend,
    gradient_descent.largest_rate,
    gradient_descent.logit_gradient,
    gradient_descent.early_stopping,
]


@pytest.mark.parametrize("check", EVERY_CHECK)
def test_an_empty_stub_and_a_called_function_get_plain_words(check):
    def stub(*given):
        raise NotImplementedError

    with pytest.raises(Wrong, match="not written yet"):
        check(stub)
    with pytest.raises(Wrong, match="your function itself"):
        check(0.5)
