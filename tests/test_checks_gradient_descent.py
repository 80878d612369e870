"""The checks of notebook 02: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from answers import answer_tests

from vislib import scratch
from vislib.checks import gradient_descent as check


def descend(loss_gradient, start, rate, steps):
    path = [start]
    for _ in range(steps):
        path.append(path[-1] - rate * loss_gradient(path[-1]))
    return np.array(path)


def descend_in_tensors(gradient, start, rate, steps):
    path = [torch.tensor(start, requires_grad=True)]
    for _ in range(steps):
        path.append(path[-1] - rate * torch.tensor(gradient(path[-1].detach().numpy())))
    return path


def logit_gradient(z, labels):
    p = scratch.softmax(z)
    p[np.arange(len(z)), labels] -= 1
    return p / len(z)


def logit_gradient_by_autograd(z, labels):
    z = torch.tensor(z.astype(np.float32), requires_grad=True)
    F.cross_entropy(z, torch.tensor(labels)).backward()
    return z.grad


def early_stopping(losses, patience):
    best = 0
    for step, loss in enumerate(losses):
        if loss < losses[best]:
            best = step
        if step - best >= patience:
            break
    return best


RIGHT = {
    "descent": (check.descend, descend),
    "descent as a list": (check.descend, lambda *inputs: list(descend(*inputs))),
    "descent in tensors": (check.descend, descend_in_tensors),
    "largest rate": (check.largest_rate, lambda h: 2 / np.linalg.eigvalsh(h).max()),
    "logit gradient": (check.logit_gradient, logit_gradient),
    "logit gradient by autograd": (check.logit_gradient, logit_gradient_by_autograd),
    "early stopping": (check.early_stopping, early_stopping),
}


def descend_changing_the_start(loss_gradient, start, rate, steps):
    path = [start.copy()]
    for _ in range(steps):
        start -= rate * loss_gradient(start)
        path.append(start.copy())
    return np.array(path)


def overflowing(z, labels):
    e = np.exp(z)
    return (e / e.sum(axis=1, keepdims=True) - np.eye(z.shape[1])[labels]) / len(z)


def overflow_to_zero(z, labels):
    e = np.exp(z)
    p = np.nan_to_num(e / e.sum(axis=1, keepdims=True))
    p[np.arange(len(z)), labels] -= 1
    return p / len(z)


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


def count_bad_steps(losses, patience, late=0, reset=False):
    best = bad = 0
    for step, loss in enumerate(losses):
        better = loss < losses[best]
        best, bad = (step, bad if not reset else 0) if better else (best, bad + (step > 0))
        if bad >= patience + late:
            break
    return best


WRONG = {
    "the start is changed": (
        check.descend,
        descend_changing_the_start,
        "changes its input",
    ),
    "an empty path": (check.descend, lambda *inputs: [], "should have shape"),
    "points of other lengths": (
        check.descend,
        lambda gradient, start, rate, steps: [start, start[:1]],
        "should have shape",
    ),
    "one rate per direction": (
        check.largest_rate,
        lambda h: 2 / np.linalg.eigvalsh(h),
        "shape",
    ),
    "the curvature itself": (
        check.largest_rate,
        lambda h: np.linalg.eigvalsh(h).max(),
        "not right|should be|factor",
    ),
    "softmax that overflows": (check.logit_gradient, overflowing, "overflows"),
    "softmax that overflows to zero": (
        check.logit_gradient,
        overflow_to_zero,
        "logits of 1000",
    ),
    "the last step tried": (
        check.early_stopping,
        where_it_stopped,
        "step at which you stop",
    ),
    "a list": (
        check.early_stopping,
        lambda losses, patience: [early_stopping(losses, patience)],
        "one number",
    ),
    "one step too early": (
        check.early_stopping,
        lambda losses, patience: early_stopping(losses, patience - 1),
        "first rise|not right",
    ),
    "an equal loss counts as better": (
        check.early_stopping,
        equal_is_better,
        "compare with <",
    ),
    "bad steps not in a row": (
        check.early_stopping,
        count_bad_steps,
        "in a row without a new best count",
    ),
    "one step too late": (
        check.early_stopping,
        lambda losses, patience: count_bad_steps(losses, patience, late=1, reset=True),
        "one step too late",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG, repeats=(30, 10))
)
