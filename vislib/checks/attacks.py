"""Checks for the exercises of notebook 19, adversarial examples."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vislib.attacks import direction
from vislib.checks import Exercise


def _net(seed: int) -> nn.Module:
    """Small smooth network of four classes; its predictions depend on every pixel."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(3), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(54, 4)).eval()


def _gradient(model: nn.Module, x: Tensor, classes: int | Tensor) -> Tensor:
    """Gradient of the loss of one class, or of one class per image: N×C×H×W."""
    x = x.detach().clone().requires_grad_()
    classes = torch.as_tensor(classes).expand(len(x))
    return torch.autograd.grad(F.cross_entropy(model(x), classes, reduction="sum"), x)[0]


def _gradient_of_logit(model: nn.Module, x: Tensor, target: int) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(model(x)[:, target].sum(), x)[0]


# --- FGSM -----------------------------------------------------------------------------------------


def _moved(x: Tensor, perturbation: Tensor) -> Tensor:
    return (x + perturbation).clamp(0, 1)


def _perturbation(model: nn.Module, x: Tensor, target: int, epsilon: float) -> Tensor:
    return epsilon * _gradient(model, x, target).sign()


def _networks_to_attack() -> Iterator[tuple[Any, ...]]:
    rng = np.random.default_rng()
    for target, epsilon in [(0, 0.05), (3, 0.2)]:
        model = _net(int(rng.integers(1000)))
        # Some values are at the ends of the range.
        x = (1.3 * torch.rand(2, 3, 9, 8) - 0.15).clamp(0, 1)
        # If the target were the predicted class, an attack on the predicted class would pass.
        while int(model(x)[0].argmax()) == target:
            model = _net(int(rng.integers(1000)))
        yield model, x, target, epsilon


fgsm = Exercise(
    task="``fgsm(model, x, target, epsilon)``: one step of FGSM, N×3×H×W in [0, 1] to the same.",
    inputs=_networks_to_attack,
    solution=lambda model, x, *how: _moved(x, _perturbation(model, x, *how)),
    what="the attacked image",
    mistakes={
        "The step goes the wrong way: this lowers the loss": (
            lambda model, x, *how: _moved(x, -_perturbation(model, x, *how))
        ),
        "Some values left [0, 1]: clamp at the end": (
            lambda model, x, *how: x + _perturbation(model, x, *how)
        ),
        "This is the perturbation alone: add it to the image": _perturbation,
        "Take the sign of the gradient, so that each value moves by ε": (
            lambda model, x, target, epsilon: _moved(x, epsilon * _gradient(model, x, target))
        ),
        "Do not normalise the gradient; take its sign": (
            lambda model, x, target, epsilon: _moved(
                x, epsilon * direction(_gradient(model, x, target), "l2")
            )
        ),
        "This raises the logit of the class: an attack should make the class less likely": (
            lambda model, x, target, epsilon: _moved(
                x, epsilon * _gradient_of_logit(model, x, target).sign()
            )
        ),
        "Take the gradient of the loss −log p, not of the logit: other classes count too": (
            lambda model, x, target, epsilon: _moved(
                x, -epsilon * _gradient_of_logit(model, x, target).sign()
            )
        ),
        "The size of the step is missing": (
            lambda model, x, target, epsilon: _moved(x, _gradient(model, x, target).sign())
        ),
    },
    praise="One step, and the loss is up.",
)


# --- The projection for L∞ ------------------------------------------------------------------------


def _far_images() -> Iterator[tuple[Tensor, Tensor, float]]:
    for epsilon in (0.05, 0.3):
        x = torch.rand(2, 3, 7, 6)
        yield x, x + 0.5 * torch.randn(2, 3, 7, 6), epsilon


def _scaled_down(x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    largest = (y - x).abs().amax(dim=(1, 2, 3), keepdim=True)
    return (x + (y - x) * (epsilon / largest).clamp(max=1)).clamp(0, 1)


project_linf = Exercise(
    task="``project_linf(x, y, epsilon)``: y projected to within ε of x and [0, 1], N×C×H×W each.",
    inputs=_far_images,
    solution=lambda x, y, epsilon: (x + (y - x).clamp(-epsilon, epsilon)).clamp(0, 1),
    what="the projected image",
    mistakes={
        "Some values left [0, 1]: clamp the result as well": (
            lambda x, y, epsilon: x + (y - x).clamp(-epsilon, epsilon)
        ),
        "Some values are further than ε from x": lambda x, y, epsilon: y.clamp(0, 1),
        "Clamp the perturbation y − x to ±ε, not the image itself": (
            lambda x, y, epsilon: y.clamp(-epsilon, epsilon)
        ),
        "This is the perturbation: add x again": (
            lambda x, y, epsilon: (y - x).clamp(-epsilon, epsilon)
        ),
        "Clamp each value separately: if you scale down the whole perturbation, the small values "
        "shrink too": _scaled_down,
        "The perturbation may be negative, too: clamp it from −ε on": (
            lambda x, y, epsilon: (x + (y - x).clamp(0, epsilon)).clamp(0, 1)
        ),
        "The perturbation is y − x, not x − y": (
            lambda x, y, epsilon: (x + (x - y).clamp(-epsilon, epsilon)).clamp(0, 1)
        ),
    },
    praise="Within ε of the image, and a valid image.",
)


# --- A targeted step ------------------------------------------------------------------------------


def _networks_to_aim_at() -> Iterator[tuple[Any, ...]]:
    rng = np.random.default_rng()
    for aim, size in [(1, 0.02), (2, 0.1)]:
        model = _net(int(rng.integers(1000)))
        y = torch.rand(2, 3, 9, 8)
        # If the aim were the predicted class, a step away from the prediction would also be a step
        # away from the aim.
        while int(model(y)[0].argmax()) == aim:
            model = _net(int(rng.integers(1000)))
        yield model, y, aim, size


step_to_aim = Exercise(
    task="``step_to_aim(model, y, aim, size)``: one targeted step, not projected, N×3×H×W.",
    inputs=_networks_to_aim_at,
    solution=lambda model, y, aim, size: y - size * _gradient(model, y, aim).sign(),
    what="the image after the step",
    mistakes={
        "This step leads away from the aim: lower the loss of the aim": (
            lambda model, y, aim, size: y + size * _gradient(model, y, aim).sign()
        ),
        "This raises the logit of the aim alone; lower its loss, which all classes enter": (
            lambda model, y, aim, size: y + size * _gradient_of_logit(model, y, aim).sign()
        ),
        "Take the sign of the gradient": (
            lambda model, y, aim, size: y - size * _gradient(model, y, aim)
        ),
        "This is the step: add it to the image": (
            lambda model, y, aim, size: -size * _gradient(model, y, aim).sign()
        ),
        "The size of the step is missing": (
            lambda model, y, aim, size: y - _gradient(model, y, aim).sign()
        ),
        "Do not clamp here: the projection does": (
            lambda model, y, aim, size: (y - size * _gradient(model, y, aim).sign()).clamp(0, 1)
        ),
        "This step leads away from the predicted class, towards no class in particular": (
            lambda model, y, aim, size: y + size * _gradient(model, y, model(y).argmax(1)).sign()
        ),
    },
    praise="A step towards the aim.",
)


# --- The projection for L2 ------------------------------------------------------------------------


def _inside_and_outside(epsilon: float) -> tuple[Tensor, Tensor, float]:
    """Images inside and outside the ball, with some values at the ends of the range."""
    x = (1.4 * torch.rand(3, 3, 7, 6) - 0.2).clamp(0, 1)
    length = epsilon * torch.tensor([0.1, 4.0, 0.8]).view(3, 1, 1, 1)
    # The third power makes the values so uneven that some are larger than ε.
    uneven = torch.randn(3, 3, 7, 6) ** 3
    return x, x + direction(uneven, "l2") * length, epsilon


def _length(change: Tensor) -> Tensor:
    return change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _shrunk(x: Tensor, y: Tensor, factor: Tensor) -> Tensor:
    """Image with a perturbation that is shrunk, never stretched."""
    return (x + (y - x) * factor.clamp(max=1)).clamp(0, 1)


project_l2 = Exercise(
    task="``project_l2(x, y, epsilon)``: y projected to the L2 ball around x, N×C×H×W each.",
    inputs=lambda: (partial(_inside_and_outside, epsilon) for epsilon in (0.1, 0.3)),
    distinct=True,
    solution=lambda x, y, epsilon: _shrunk(x, y, epsilon / _length(y - x)),
    what="the projected image",
    mistakes={
        "Some values left [0, 1]: clamp at the end": (
            lambda x, y, epsilon: x + (y - x) * (epsilon / _length(y - x)).clamp(max=1)
        ),
        "An image inside the ball must not change: shrink a perturbation, but never stretch it": (
            lambda x, y, epsilon: (x + (y - x) * epsilon / _length(y - x)).clamp(0, 1)
        ),
        "Each image has its own norm: do not sum over the batch": (
            lambda x, y, epsilon: _shrunk(x, y, epsilon / (y - x).norm())
        ),
        "The norm is the square root of the sum of squares": (
            lambda x, y, epsilon: _shrunk(x, y, epsilon / _length(y - x) ** 2)
        ),
        "This clamps each value: for the L2 norm, shrink the whole perturbation": (
            lambda x, y, epsilon: (x + (y - x).clamp(-epsilon, epsilon)).clamp(0, 1)
        ),
        "The norm is over all values of an image, not over each channel": (
            lambda x, y, epsilon: _shrunk(x, y, epsilon / (y - x).norm(dim=(2, 3), keepdim=True))
        ),
        "Some images are further than ε from x": lambda x, y, epsilon: y.clamp(0, 1),
        "This is the perturbation: add x again": (
            lambda x, y, epsilon: (y - x) * (epsilon / _length(y - x)).clamp(max=1)
        ),
    },
    praise="Inside the ball, and a valid image.",
)
