"""The checks of notebooks 03 and 04: the right answer passes, and each usual mistake is named."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vislib.checks import Wrong, backpropagation, convolution
from vislib.scratch import mlp_forward, sigmoid, sigmoid_prime

# ---------------------------------------------------------------------- right answers


def input_gradient(
    x, c, weights, biases, *, first=None, gate=sigmoid_prime, last=True, turned=None, late=0
):
    zs, _ = mlp_forward(x, weights, biases)
    if turned:
        weights = [w.T if turned(number) else w for number, w in enumerate(weights)]
    delta = np.zeros_like(zs[-1])
    delta[:, c] = 1
    delta = delta if first is None else first(zs[-1], delta)
    for layer in reversed(range(1, len(weights))):
        delta = (delta @ weights[layer]) * gate(zs[layer - 1 + late])
    return delta @ weights[0] if last else delta


def in_row(z, delta):
    c = delta[0].argmax()
    return (np.arange(len(delta)) == c)[:, None] * np.ones_like(z)


def conv(x, w, stride, padding):
    return F.conv2d(torch.tensor(x)[None], torch.tensor(w)[None], None, stride, padding)[0, 0]


def unpool(values, switches, shape):
    flat = np.zeros(shape[0] * shape[1])
    flat[switches.ravel()] = values.ravel()
    return flat.reshape(shape)


def field(chain, before=True, spare=1):
    size = jump = 1
    for kernel, stride in chain:
        step = jump if before else jump * stride
        size += (kernel - spare) * step
        jump *= stride
    return size, jump


RIGHT = [
    (backpropagation.output_delta, lambda z, y: (sigmoid(z) - y) * sigmoid_prime(z)),
    (backpropagation.hidden_delta, lambda d, w, z: (d @ w) * sigmoid_prime(z)),
    (backpropagation.weight_gradient, lambda a, d: d.T @ a / len(a)),
    (backpropagation.input_gradient, input_gradient),
    (convolution.output_size, lambda m, k, s, p: (m - k + 2 * p) // s + 1),
    (convolution.convolve, conv),
    (convolution.unpool, unpool),
    (convolution.receptive_field, field),
]


@pytest.mark.parametrize("repeat", range(10))
@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_pass_on_any_random_input(check, answer, repeat, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith("✓ ")


# ---------------------------------------------------------------------- planted mistakes


def moved(x, w, stride, padding):
    """The stride forgotten where the window starts."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    rows, columns = ((side - w.shape[1]) // stride + 1 for side in x.shape[1:])
    y = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            y[i, j] = (w * x[:, i : i + w.shape[1], j : j + w.shape[2]]).sum()
    return y


def late_padding(x, w, stride, padding):
    x = np.pad(x, ((0, 0), (0, 2 * padding), (0, 2 * padding)))
    return conv(x, w, stride, 0)


def corners(values, switches, shape):
    y = np.zeros(shape)
    y[::2, ::2] = values
    return y


def swapped_places(values, switches, shape):
    y = np.zeros(shape)
    for value, place in zip(values.ravel(), switches.ravel(), strict=True):
        column, row = divmod(int(place), shape[1])
        y.ravel()[(row * shape[0] + column) % y.size] = value
    return y


def changes_its_input(a, d):
    d /= len(a)
    return d.T @ a


WRONG = [
    (
        backpropagation.output_delta,
        [
            (lambda z, y: (y - sigmoid(z)) * sigmoid_prime(z), "sign is turned round"),
            (lambda z, y: sigmoid(z) - y, r"σ'\(z\) is missing"),
            (lambda z, y: (sigmoid(z) - y) * sigmoid_prime(sigmoid(z)), "not at the output a"),
            (lambda z, y: (sigmoid(z) - y) * sigmoid(z), "wants its derivative"),
            (lambda z, y: (z - y) * sigmoid_prime(z), "subtract y from z"),
            (lambda z, y: 2 * (sigmoid(z) - y) * sigmoid_prime(z), "no factor 2"),
            (lambda z, y: ((sigmoid(z) - y) * sigmoid_prime(z)).mean(0), "do not average"),
            (lambda z, y: (sigmoid(z) - y) @ sigmoid_prime(z).T, "entry by entry"),
            (lambda z, y: ((sigmoid(z) - y) * sigmoid_prime(z)).sum(1), "add the columns up"),
            (lambda z, y: (sigmoid(z) - y) * sigmoid_prime(z) / len(z), "Do not divide by N here"),
            (lambda z, y: 0.5 * (sigmoid(z) - y) ** 2, "want its derivative"),
            (lambda z, y: 0.5 * (sigmoid(z) - y) ** 2 * sigmoid_prime(z), "without the square"),
            (lambda z, y: (sigmoid(z) - y) + sigmoid_prime(z), "multiplied, not added"),
            (lambda z, y: np.abs(sigmoid(z) - y) * sigmoid_prime(z), "Keep the sign"),
            (lambda z, y: None, "does it end with return"),
        ],
    ),
    (
        backpropagation.hidden_delta,
        [
            (lambda d, w, z: d @ w, r"σ'\(z\) is missing"),
            (lambda d, w, z: (d @ w.T) * sigmoid_prime(z), "the wrong way round"),
            (lambda d, w, z: (d @ w) * sigmoid(z), "wants its derivative"),
            (lambda d, w, z: d @ w + sigmoid_prime(z), "do not add it"),
            (lambda d, w, z: -(d @ w) * sigmoid_prime(z), "sign is turned round"),
            (lambda d, w, z: (d @ w) * sigmoid_prime(sigmoid(z)), "not at the output"),
            (lambda d, w, z: (d @ w) * z, "multiply by z"),
            (lambda d, w, z: (d * sigmoid_prime(z)) @ w, "First back through the weights"),
            (lambda d, w, z: (d @ w) * sigmoid_prime(z) / len(z), "Do not divide by N here"),
            (lambda d, w, z: ((d @ w) * sigmoid_prime(z)).mean(0), "do not average"),
            (lambda d, w, z: 3 * (d @ w) * sigmoid_prime(z), "3 times what it should be"),
        ],
    ),
    (
        backpropagation.weight_gradient,
        [
            (lambda a, d: d.T @ a, "divide by N"),
            (lambda a, d: a.T @ d / len(a), "Rows and columns are swapped: w"),
            (lambda a, d: a.T @ d, "the mean is still a sum"),
            (lambda a, d: np.outer(d[0], a[0]), "first example only"),
            (lambda a, d: np.outer(d.mean(0), a.mean(0)), "product of the two means"),
            (lambda a, d: d.T @ a / d.size, "number of examples, not"),
            (changes_its_input, "changes its input"),
        ],
    ),
    (
        backpropagation.input_gradient,
        [
            (lambda *v: input_gradient(*v, last=False), "stop at δ"),
            (
                lambda *v: input_gradient(*v, first=lambda z, d: d * sigmoid_prime(z)),
                "before the last activation",
            ),
            (lambda *v: input_gradient(*v, gate=np.ones_like), "hidden layers is missing"),
            (
                lambda *v: input_gradient(*v, first=lambda z, d: np.ones_like(z)),
                "ones for all classes",
            ),
            (lambda *v: input_gradient(*v, first=lambda z, d: d * z), "not with the score itself"),
            (lambda *v: input_gradient(*v, first=in_row), "in column c"),
            (
                lambda *v: input_gradient(*v, first=lambda z, d: d * sigmoid(z)),
                "not with the output itself",
            ),
            (lambda *v: input_gradient(*v, turned=lambda n: n > 0), "exercise 2$"),
            (lambda *v: input_gradient(*v, turned=lambda n: True), "also at the end"),
            (lambda *v: input_gradient(*v, late=1), "where the signal arrives"),
            (lambda *v: input_gradient(*v).mean(0), "do not average"),
            (lambda *v: input_gradient(*v) * v[0], "gradient × input"),
            (lambda *v: np.abs(input_gradient(*v)), "Keep the sign"),
            (lambda *v: -input_gradient(*v), "wrong sign"),
            (
                lambda *v: input_gradient(
                    *v, first=lambda z, d: (sigmoid(z) - d) * sigmoid_prime(z)
                ),
                "gradient of the loss",
            ),
            (
                lambda x, c, w, b: input_gradient(x, (c + 1) % len(b[-1]), w, b),
                "map of another class",
            ),
        ],
    ),
    (
        convolution.output_size,
        [
            (lambda m, k, s, p: (m - k + 2 * p) // s, "One is missing"),
            (lambda m, k, s, p: (m - k + p) // s + 1, "on both sides"),
            (lambda m, k, s, p: (m - k) // s + 1, "Padding is not counted"),
            (lambda m, k, s, p: m - k + 2 * p + 1, "Stride is not counted"),
            (lambda m, k, s, p: (m - k + 2 * p) / s + 1, "Round down: a window"),
            (lambda m, k, s, p: -(-(m - k + 2 * p) // s) + 1, "Round down, not up"),
            (lambda m, k, s, p: (m - k + 2 * p + 1) // s, "Divide first"),
            (lambda m, k, s, p: (m + 2 * p) // s + 1, "The kernel takes room"),
        ],
    ),
    (
        convolution.convolve,
        [
            (lambda x, w, s, p: conv(x, w[:, ::-1, ::-1].copy(), s, p), "kernel is flipped"),
            (
                lambda x, w, s, p: torch.stack(
                    [conv(x[c : c + 1], w[c : c + 1], s, p) for c in range(len(x))]
                ),
                "channels are still apart",
            ),
            (lambda x, w, s, p: conv(x[:1], w[:1], s, p), "Only the first channel"),
            (lambda x, w, s, p: conv(x, w, 1, p), "stride is not used"),
            (moved, r"starts at pixel \(i · stride"),
            (lambda x, w, s, p: conv(x, w, s, 0), "padding is not used"),
            (late_padding, "all four sides"),
            (lambda x, w, s, p: conv(x, w, s, p) / w.size, "do not average"),
        ],
    ),
    (
        convolution.unpool,
        [
            (corners, "corner of its window"),
            (lambda v, s, shape: np.kron(v, np.ones((2, 2))), "one place only"),
            (swapped_places, "Rows and columns are swapped"),
            (lambda v, s, shape: unpool(v, s, shape).ravel(), "reshape it"),
            (lambda v, s, shape: -unpool(v, s, shape), "wrong sign"),
        ],
    ),
    (
        convolution.receptive_field,
        [
            (lambda chain: (1 + sum(k - 1 for k, _ in chain), field(chain)[1]), "jump is not used"),
            (lambda chain: field(chain, before=False), "before this layer's own stride"),
            (lambda chain: field(chain, spare=0), "adds K − 1 steps"),
            (lambda chain: (field(chain[::-1])[0], field(chain)[1]), "from the picture upwards"),
            (lambda chain: (field(chain)[0], sum(s for _, s in chain)), "product of the strides"),
            (lambda chain: field(chain)[0], "the size only"),
            (lambda chain: field(chain)[::-1], "in this order"),
        ],
    ),
]


@pytest.mark.parametrize("repeat", range(5))
@pytest.mark.parametrize(
    ("check", "answer", "message"),
    [(check, *case) for check, cases in WRONG for case in cases],
)
def test_each_mistake_is_named(check, answer, message, repeat):
    with pytest.raises(Wrong, match=message):
        check(answer)


@pytest.mark.parametrize("check", [check for check, _ in RIGHT])
def test_an_open_stub_and_a_value_are_told_apart(check):
    def stub(*arguments):
        raise NotImplementedError("write your code here")

    with pytest.raises(Wrong, match="stub is not written yet"):
        check(stub)
    with pytest.raises(Wrong, match="Give the check your function itself"):
        check(3)


def test_every_check_rejects_at_least_three_mistakes():
    assert [check for check, _ in RIGHT] == [check for check, _ in WRONG]
    assert all(len(cases) >= 3 for _, cases in WRONG)
    for module in (backpropagation, convolution):
        own = {f for f in vars(module).values() if getattr(f, "__module__", "") == module.__name__}
        assert {f for f in own if f.__name__[0] != "_"} <= {check for check, _ in RIGHT}
