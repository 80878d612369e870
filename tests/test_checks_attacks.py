"""Checks of notebook 19: right answers, and wrong ones written differently from the mistakes."""

import pytest

from vislib.attacks import project
from vislib.checks import Wrong
from vislib.checks import attacks as check


def gradient(model, x, target, *, loss=True):
    x = x.clone().requires_grad_()
    log_p = model(x).log_softmax(dim=1) if loss else model(x)
    (-log_p[:, target].sum() if loss else log_p[:, target].sum()).backward()
    return x.grad


def fgsm(model, x, target, epsilon, *, way=1, loss=True):
    step = way * epsilon * gradient(model, x, target, loss=loss).sign()
    return (x + step).clamp(0, 1)


def step_to_aim(model, y, aim, size, *, way=-1, loss=True):
    return y + way * size * gradient(model, y, aim, loss=loss).sign()


def project_l2(x, y, epsilon, *, stretch=False, batch=False):
    change = y - x
    length = change.norm() if batch else change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    factor = epsilon / length if stretch else (epsilon / length).clamp(max=1)
    return (x + change * factor).clamp(0, 1)


def in_place(x, y, epsilon):
    return y.sub_(x).clamp_(-epsilon, epsilon).add_(x).clamp_(0, 1)


RIGHT = [
    ("fgsm", fgsm),
    ("project_linf", project),
    ("project_linf", lambda x, y, e: y.clamp(x - e, x + e).clamp(0, 1)),
    ("step_to_aim", step_to_aim),
    ("project_l2", project_l2),
    ("project_l2", lambda x, y, e: project(x, y, e, "l2")),
    ("project_l2", lambda x, y, e: (x + (y - x).renorm(2, 0, e)).clamp(0, 1)),
]

WRONG = [
    ("fgsm", lambda *a: fgsm(*a, way=-1), "lowers the loss"),
    ("fgsm", lambda *a: fgsm(*a, loss=False), "raises the logit"),
    ("fgsm", lambda *a: fgsm(*a, loss=False, way=-1), "not of the logit"),
    ("fgsm", lambda m, x, t, e: fgsm(m, x, t, 1.0), "size of the step is missing"),
    ("project_linf", lambda x, y, e: project(x, 2 * x - y, e), "y − x, not x − y"),
    ("project_linf", lambda x, y, e: project(x, y.max(x), e), "may be negative"),
    (
        "project_linf",
        lambda x, y, e: (
            x + (y - x) * e / (y - x).abs().amax((1, 2, 3), keepdim=True).clamp(min=e)
        ).clamp(0, 1),
        "Clamp each value separately",
    ),
    ("project_linf", in_place, "changes its input"),
    ("step_to_aim", lambda *a: step_to_aim(*a, way=1), "leads away from the aim"),
    ("step_to_aim", lambda *a: step_to_aim(*a, way=1, loss=False), "logit of the aim"),
    ("step_to_aim", lambda m, y, a, s: step_to_aim(m, y, a, s) - y, "add it"),
    ("project_l2", lambda *a: project_l2(*a, stretch=True), "never stretch"),
    ("project_l2", lambda *a: project_l2(*a, batch=True), "its own norm"),
    ("project_l2", lambda x, y, e: project(x, y, e, "linf"), "This clamps each value"),
]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_right_answers_pass(name, answer, capsys):
    for _ in range(5):
        getattr(check, name)(answer)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(("name", "answer", "message"), WRONG)
def test_wrong_answers_get_advice(name, answer, message):
    with pytest.raises(Wrong, match=message):
        getattr(check, name)(answer)
