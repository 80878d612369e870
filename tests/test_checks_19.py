"""The checks of notebook 19: right answers pass, each usual mistake is named."""

import pytest
import torch
from torch.nn import functional as F

from vislib.attacks import direction, project
from vislib.checks import Wrong, attacks


def slope(model, x, target, *, loss=True):
    x = x.clone().requires_grad_()
    logits = model(x)
    classes = torch.full((len(x),), target)
    value = F.cross_entropy(logits, classes, reduction="sum") if loss else logits[:, target].sum()
    return torch.autograd.grad(value, x)[0]


def fgsm(model, x, target, epsilon, *, way=1, sign=True, clamp=True, loss=True, add=True):
    g = slope(model, x, target, loss=loss)
    step = way * epsilon * (g.sign() if sign else g)
    seen = x + step if add else step
    return seen.clamp(0, 1) if clamp else seen


def project_linf(x, y, epsilon):
    return project(x, y, epsilon, "linf")


def step_to_aim(model, y, aim, size, *, way=-1, sign=True, loss=True):
    g = slope(model, y, aim, loss=loss)
    return y + way * size * (g.sign() if sign else g)


def project_l2(x, y, epsilon, *, stretch=False, batch=False, square=False, clamp=True):
    change = y - x
    length = change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    length = change.norm() if batch else length**2 if square else length
    factor = epsilon / length if stretch else (epsilon / length).clamp(max=1)
    seen = x + change * factor
    return seen.clamp(0, 1) if clamp else seen


def in_place(x, y, epsilon):
    return y.sub_(x).clamp_(-epsilon, epsilon).add_(x).clamp_(0, 1)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (attacks.fgsm, fgsm),
        (attacks.project_linf, project_linf),
        (attacks.project_linf, lambda x, y, e: y.clamp(x - e, x + e).clamp(0, 1)),
        (attacks.step_to_aim, step_to_aim),
        (attacks.project_l2, project_l2),
        (attacks.project_l2, lambda x, y, e: project(x, y, e, "l2")),
    ],
)
def test_right_answers_pass(check, answer, capsys):
    for _ in range(5):
        check(answer)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (attacks.fgsm, lambda *a: fgsm(*a, way=-1), "lowers the loss"),
        (attacks.fgsm, lambda *a: fgsm(*a, sign=False), "Take the sign"),
        (attacks.fgsm, lambda *a: fgsm(*a, clamp=False), r"left \[0, 1\]"),
        (attacks.fgsm, lambda *a: fgsm(*a, loss=False), "raises the logit"),
        (attacks.fgsm, lambda *a: fgsm(*a, loss=False, way=-1), "not of the logit"),
        (attacks.fgsm, lambda *a: fgsm(*a, add=False, clamp=False), "change alone"),
        (attacks.fgsm, lambda m, x, t, e: fgsm(m, x, t, 1.0), "size of the step is missing"),
        (
            attacks.fgsm,
            lambda m, x, t, e: (x + e * direction(slope(m, x, t), "l2")).clamp(0, 1),
            "the sign is enough",
        ),
        (attacks.project_linf, lambda x, y, e: x + (y - x).clamp(-e, e), r"left \[0, 1\]"),
        (attacks.project_linf, lambda x, y, e: y.clamp(0, 1), "further than ε"),
        (attacks.project_linf, lambda x, y, e: y.clamp(-e, e), "not the image itself"),
        (attacks.project_linf, lambda x, y, e: (y - x).clamp(-e, e), "add x again"),
        (attacks.project_linf, lambda x, y, e: project(x, 2 * x - y, e), "y − x, not x − y"),
        (attacks.project_linf, lambda x, y, e: project(x, y.max(x), e), "may be negative"),
        (
            attacks.project_linf,
            lambda x, y, e: (
                x + (y - x) * e / (y - x).abs().amax((1, 2, 3), keepdim=True).clamp(min=e)
            ).clamp(0, 1),
            "Cut each value by itself",
        ),
        (attacks.project_linf, in_place, "changes its input"),
        (attacks.step_to_aim, lambda *a: step_to_aim(*a, way=1), "leads away from the aim"),
        (attacks.step_to_aim, lambda *a: step_to_aim(*a, way=1, loss=False), "logit of the aim"),
        (attacks.step_to_aim, lambda *a: step_to_aim(*a, sign=False), "Take the sign"),
        (attacks.step_to_aim, lambda *a: step_to_aim(*a).clamp(0, 1), "Do not clamp here"),
        (attacks.step_to_aim, lambda m, y, a, s: step_to_aim(m, y, a, 1.0), "size of the step"),
        (attacks.step_to_aim, lambda m, y, a, s: step_to_aim(m, y, a, s) - y, "add it"),
        (attacks.project_l2, lambda *a: project_l2(*a, stretch=True), "never stretch"),
        (attacks.project_l2, lambda *a: project_l2(*a, batch=True), "norm of its own"),
        (attacks.project_l2, lambda *a: project_l2(*a, square=True), "square root"),
        (attacks.project_l2, lambda *a: project_l2(*a, clamp=False), r"left \[0, 1\]"),
        (attacks.project_l2, lambda x, y, e: project(x, y, e, "linf"), "cuts each value"),
        (attacks.project_l2, lambda x, y, e: y.clamp(0, 1), "further than ε"),
        (attacks.project_l2, lambda x, y, e: project_l2(x, y, e, clamp=False) - x, "add x again"),
    ],
)
def test_each_mistake_is_named(check, answer, told):
    with pytest.raises(Wrong, match=told):
        check(answer)
