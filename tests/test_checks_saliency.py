"""The checks of notebook 11: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import pytest
import torch
from answers import answer_tests

from vislib.checks import saliency as check
from vislib.explain.averaging import integrated_gradients, smoothgrad
from vislib.explain.gradients import gradient


def nth_best(model, x, n):
    return int(model(x)[0].argsort(descending=True)[n - 1])


def smooth(gradient, x, level, n, seed, *, each=lambda g: g, restart=False):
    generator = torch.Generator().manual_seed(seed)
    sigma, total = level * (x.max() - x.min()), 0
    for _ in range(n):
        if restart:
            generator.manual_seed(seed)
        total = total + each(gradient(x + sigma * torch.randn(x.shape, generator=generator)))
    return total / n


def without_seed(gradient, x, level, n, seed):
    sigma = level * (x.max() - x.min())
    return sum(gradient(x + sigma * torch.randn(x.shape)) for _ in range(n)) / n


def from_copy_to_copy(gradient, x, level, n, seed):
    generator, copy, total = torch.Generator().manual_seed(seed), x.clone(), 0
    for _ in range(n):
        copy = copy + level * (x.max() - x.min()) * torch.randn(x.shape, generator=generator)
        total = total + gradient(copy) / n
    return total


def noise_into_x(gradient, x, level, n, seed):
    x += 0.1
    return gradient(x)


def integral(gradient, x, baseline, steps, *, shift=0.5):
    alphas = [(k + shift) / steps for k in range(steps)]
    return (x - baseline) * sum(gradient(baseline + a * (x - baseline)) for a in alphas) / steps


def both_ends(gradient, x, baseline, steps):
    alphas = torch.linspace(0, 1, steps)
    return (x - baseline) * sum(gradient(baseline + a * (x - baseline)) for a in alphas) / steps


def from_black(gradient, x, baseline, steps):
    mean = sum(gradient((k + 0.5) / steps * x) for k in range(steps)) / steps
    return (x - baseline) * mean


RIGHT = {
    "saliency": (check.saliency, lambda g: g.abs().amax(dim=1, keepdim=True)),
    "saliency by the larger of both signs": (
        check.saliency,
        lambda g: torch.maximum(g.amax(1, keepdim=True), (-g).amax(1, keepdim=True)),
    ),
    "n-th best class": (check.nth_best, nth_best),
    "n-th best class by topk": (check.nth_best, lambda m, x, n: m(x).topk(n).indices[0, -1]),
    "SmoothGrad": (check.smooth, smooth),
    "integrated gradients": (check.integral, integral),
}

WRONG = {
    "gradients that are changed": (
        check.saliency,
        lambda g: g.abs_().amax(1, keepdim=True),
        "changes its input",
    ),
    "squares instead of absolute values": (
        check.saliency,
        lambda g: g.square().amax(1, keepdim=True),
        "off by",
    ),
    "n counted from 0": (check.nth_best, lambda m, x, n: nth_best(m, x, n + 1), "Count from 1"),
    "always the best class": (check.nth_best, lambda m, x, n: m(x)[0].argmax(), "not right yet"),
    "absolute values before the mean": (
        check.smooth,
        lambda *a: smooth(*a, each=torch.abs),
        "after the mean",
    ),
    "the same noise in each copy": (
        check.smooth,
        lambda *a: smooth(*a, restart=True),
        "same noise",
    ),
    "a sum instead of the mean": (check.smooth, lambda *a: smooth(*a) * a[3], "divide by n"),
    "noise added from copy to copy": (check.smooth, from_copy_to_copy, "the copy before"),
    "noise without a seed": (check.smooth, without_seed, "two different maps"),
    "an image that is changed": (check.smooth, noise_into_x, "changes its input"),
    "left ends of the steps": (check.integral, lambda *a: integral(*a, shift=0), "left ends"),
    "right ends of the steps": (check.integral, lambda *a: integral(*a, shift=1), "right ends"),
    "both ends of the path": (check.integral, both_ends, "both ends"),
    "a path from black": (check.integral, from_black, "begin at the baseline"),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)


@pytest.mark.parametrize("n", [1, 4])
def test_the_solutions_are_the_methods_of_vislib(n):
    model, x, baseline = check._net(n), torch.rand(1, 3, 8, 8), 0.5 * torch.rand(1, 3, 8, 8)

    def of_class_1(image):
        return gradient(model, image, 1)

    expected = smoothgrad(model, x, 1, level=0.3, n=n, seed=7)
    assert torch.allclose(check.smooth.solution(of_class_1, x, 0.3, n, 7), expected, atol=1e-5)
    expected = integrated_gradients(model, x, 1, baseline=baseline, steps=n)
    assert torch.allclose(check.integral.solution(of_class_1, x, baseline, n), expected, atol=1e-5)
