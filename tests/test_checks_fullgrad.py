"""The checks of notebook 12: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from answers import answer_tests

from vislib.checks import fullgrad as check
from vislib.maps import upsample


def two_layers(W1, b1, w2, b2, x, *, gates=True, times=True, weights=True, sums=False):
    gate = (W1 @ x + b1 > 0).float() if gates else torch.ones_like(b1)
    gradient = (w2 * gate) @ W1
    of_x = x * gradient if times else gradient
    of_b1 = (b1 if times else 1) * (w2 if weights else 1) * gate
    return (of_x.sum(), of_b1.sum(), b2) if sums else (of_x, of_b1, b2)


def batch_norm_bias(gamma, beta, mean, variance, eps):
    return beta - gamma * mean / (variance + eps).sqrt()


def psi(part, size, *, absolute=True, dims=(2, 3), rescale=True):
    part = part.abs() if absolute else part
    if rescale:
        part = part - part.amin(dims, keepdim=True)
        part = part / part.amax(dims, keepdim=True).clamp(min=1e-30)
    return upsample(part, size).sum(dim=1, keepdim=True)


def spread(part, size):
    large = upsample(part.sum(dim=1, keepdim=True), size)
    return large * part[0, 0].numel() / large[0, 0].numel()


RIGHT = {
    "two layers": (check.two_layers, two_layers),
    "part of x": (check.part_of_x, lambda *a: two_layers(*a)[0]),
    "part of the hidden biases": (check.part_of_b1, lambda *a: two_layers(*a)[1]),
    "part of the output bias": (check.part_of_b2, lambda *a: two_layers(*a)[2]),
    "bias of batch normalisation": (check.batch_norm_bias, batch_norm_bias),
    "bias of batch normalisation by PyTorch": (
        check.batch_norm_bias,
        lambda gamma, beta, mean, variance, eps: F.batch_norm(
            torch.zeros(1, len(mean)), mean, variance, gamma, beta, eps=eps
        )[0],
    ),
    "psi": (check.psi, psi),
    "spread": (check.spread, spread),
}

WRONG = {
    "all gates open": (
        check.two_layers,
        lambda *a: two_layers(*a, gates=False),
        r"\(z > 0\) let the gradient through",
    ),
    "gradients that are not multiplied": (
        check.two_layers,
        lambda *a: two_layers(*a, times=False),
        "multiply it by x",
    ),
    "output weights missing": (
        check.two_layers,
        lambda *a: two_layers(*a, weights=False),
        "The weights w2 are missing",
    ),
    "sums of the parts": (
        check.two_layers,
        lambda *a: two_layers(*a, sums=True),
        "one number for each input",
    ),
    "two parts only": (check.two_layers, lambda *a: two_layers(*a)[:2], "Return three things"),
    "no output bias": (
        check.two_layers,
        lambda *a: (*two_layers(*a)[:2], torch.zeros(())),
        "its gradient is 1",
    ),
    "all gates open for the biases": (
        check.two_layers,
        lambda *a: (two_layers(*a)[0], two_layers(*a, gates=False)[1], a[3]),
        "only where its unit is on",
    ),
    "psi without absolute values": (
        check.psi,
        lambda *a: psi(*a, absolute=False),
        "absolute values first",
    ),
    "psi rescaled per layer": (
        check.psi,
        lambda *a: psi(*a, dims=(1, 2, 3)),
        "not the whole layer",
    ),
    "psi not rescaled": (check.psi, lambda *a: psi(*a, rescale=False), "not rescaled"),
    "psi of the sum": (check.psi, lambda p, s: psi(p.sum(1, keepdim=True), s), "not right yet"),
    "psi not upsampled": (check.psi, lambda p, s: psi(p, p.shape[2:]), "Upsample the maps"),
    "spread of absolute values": (
        check.spread,
        lambda p, s: spread(p.abs(), s),
        "Do not take absolute values",
    ),
    "spread divided by the size of the map": (
        check.spread,
        lambda p, s: spread(p, s) / p[0, 0].numel(),
        "number of pixels of one position",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)
