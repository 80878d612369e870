"""The checks of notebook 19: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

from answers import answer_tests

from vislib.attacks import project
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


RIGHT = {
    "FGSM": (check.fgsm, fgsm),
    "L-infinity projection by vislib": (check.project_linf, project),
    "L-infinity projection by clamp": (
        check.project_linf,
        lambda x, y, e: y.clamp(x - e, x + e).clamp(0, 1),
    ),
    "step to the aim": (check.step_to_aim, step_to_aim),
    "L2 projection": (check.project_l2, project_l2),
    "L2 projection by vislib": (check.project_l2, lambda x, y, e: project(x, y, e, "l2")),
    "L2 projection by renorm": (
        check.project_l2,
        lambda x, y, e: (x + (y - x).renorm(2, 0, e)).clamp(0, 1),
    ),
}

WRONG = {
    "FGSM that lowers the loss": (check.fgsm, lambda *a: fgsm(*a, way=-1), "lowers the loss"),
    "FGSM that raises the logit": (check.fgsm, lambda *a: fgsm(*a, loss=False), "raises the logit"),
    "FGSM that lowers the logit": (
        check.fgsm,
        lambda *a: fgsm(*a, loss=False, way=-1),
        "not of the logit",
    ),
    "FGSM with a step of 1": (
        check.fgsm,
        lambda m, x, t, e: fgsm(m, x, t, 1.0),
        "size of the step is missing",
    ),
    "a difference of the wrong sign": (
        check.project_linf,
        lambda x, y, e: project(x, 2 * x - y, e),
        "y − x, not x − y",
    ),
    "positive changes only": (
        check.project_linf,
        lambda x, y, e: project(x, y.max(x), e),
        "may be negative",
    ),
    "one factor for all values": (
        check.project_linf,
        lambda x, y, e: (
            x + (y - x) * e / (y - x).abs().amax((1, 2, 3), keepdim=True).clamp(min=e)
        ).clamp(0, 1),
        "Clamp each value separately",
    ),
    "an input that is changed": (check.project_linf, in_place, "changes its input"),
    "a step away from the aim": (
        check.step_to_aim,
        lambda *a: step_to_aim(*a, way=1),
        "leads away from the aim",
    ),
    "a step that raises the logit": (
        check.step_to_aim,
        lambda *a: step_to_aim(*a, way=1, loss=False),
        "logit of the aim",
    ),
    "the step alone": (check.step_to_aim, lambda m, y, a, s: step_to_aim(m, y, a, s) - y, "add it"),
    "an L2 projection that stretches": (
        check.project_l2,
        lambda *a: project_l2(*a, stretch=True),
        "never stretch",
    ),
    "one norm for the batch": (
        check.project_l2,
        lambda *a: project_l2(*a, batch=True),
        "its own norm",
    ),
    "an L-infinity projection": (
        check.project_l2,
        lambda x, y, e: project(x, y, e, "linf"),
        "This clamps each value",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)
