"""Checks for the exercises of notebook 19, adversarial examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vislib.attacks import direction
from vislib.checks import call, right, same


def _net(seed: int) -> nn.Module:
    """A small smooth net of four classes; its answers depend on every pixel."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(3), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(54, 4)).eval()


def _slope(model: nn.Module, x: Tensor, target: int, *, loss: bool = True) -> Tensor:
    """The slope of the loss, or of the logit, of a class: N×C×H×W."""
    x = x.detach().clone().requires_grad_()
    logits = model(x)
    classes = torch.full((len(x),), target)
    value = F.cross_entropy(logits, classes, reduction="sum") if loss else logits[:, target].sum()
    return torch.autograd.grad(value, x)[0]


def fgsm(function: Callable[..., Any]) -> None:
    """One step of FGSM: ``function(model, x, target, epsilon)``, N×3×H×W in [0, 1] to the same."""
    rng = np.random.default_rng()
    for target, epsilon in [(0, 0.05), (3, 0.2)]:
        model = _net(int(rng.integers(1000)))
        x = (1.3 * torch.rand(2, 3, 9, 8) - 0.15).clamp(0, 1)  # some values are at the border
        while int(model(x)[0].argmax()) == target:  # the target is not the net's own answer
            model = _net(int(rng.integers(1000)))
        slope = _slope(model, x, target)
        step = epsilon * slope.sign()
        mistakes = {
            "The step goes the wrong way: this lowers the loss": (x - step).clamp(0, 1),
            "Some values left [0, 1]: clamp at the end": x + step,
            "This is the change alone: add it to the image": step,
            "Take the sign of the gradient, so that each value moves by ε": (
                (x + epsilon * slope).clamp(0, 1)
            ),
            "Divide by nothing: the sign is enough": (
                (x + epsilon * direction(slope, "l2")).clamp(0, 1)
            ),
            "This raises the logit of the class, which is what an attack must not do": (
                (x + epsilon * _slope(model, x, target, loss=False).sign()).clamp(0, 1)
            ),
            "Take the gradient of the loss −log p, not of the logit: other classes count too": (
                (x - epsilon * _slope(model, x, target, loss=False).sign()).clamp(0, 1)
            ),
            "The size of the step is missing": (x + slope.sign()).clamp(0, 1),
        }
        found = call(function, model, x, target, epsilon)
        same(found, (x + step).clamp(0, 1), what="the attacked image", mistakes=mistakes)
    right("One step, and the loss is up.")


def project_linf(function: Callable[..., Any]) -> None:
    """Back to what is allowed: ``function(x, y, epsilon)``, all N×C×H×W."""
    for epsilon in (0.05, 0.3):
        x = torch.rand(2, 3, 7, 6)
        y = x + 0.5 * torch.randn(2, 3, 7, 6)
        change = y - x
        largest = change.abs().amax(dim=(1, 2, 3), keepdim=True)
        mistakes = {
            "Some values left [0, 1]: a picture has none there": x
            + change.clamp(-epsilon, epsilon),
            "Some values are further than ε from x": y.clamp(0, 1),
            "Clamp the change y − x to ±ε, not the image itself": y.clamp(-epsilon, epsilon),
            "This is the change: add x again": change.clamp(-epsilon, epsilon),
            "Cut each value by itself; scaling the whole change down shrinks the small ones too": (
                (x + change * (epsilon / largest).clamp(max=1)).clamp(0, 1)
            ),
            "The change may be negative, too: clamp it from −ε on": (
                (x + change.clamp(0, epsilon)).clamp(0, 1)
            ),
            "The change is y − x, not x − y": (x - change.clamp(-epsilon, epsilon)).clamp(0, 1),
        }
        expected = (x + change.clamp(-epsilon, epsilon)).clamp(0, 1)
        found = call(function, x, y, epsilon)
        same(found, expected, what="the projected image", mistakes=mistakes)
    right("Within ε of the image, and a picture.")


def step_to_aim(function: Callable[..., Any]) -> None:
    """One targeted step, not projected: ``function(model, y, aim, size)``, N×3×H×W."""
    rng = np.random.default_rng()
    for aim, size in [(1, 0.02), (2, 0.1)]:
        model = _net(int(rng.integers(1000)))
        y = torch.rand(2, 3, 9, 8)
        slope = _slope(model, y, aim)
        logit = _slope(model, y, aim, loss=False)
        answer = int(model(y)[0].argmax())
        mistakes = {
            "This step leads away from the aim: its loss is to fall": y + size * slope.sign(),
            "This raises the logit of the aim alone; lower its loss, in which all classes are": (
                y + size * logit.sign()
            ),
            "Take the sign of the gradient": y - size * slope,
            "This is the step: add it to the image": -size * slope.sign(),
            "The size of the step is missing": y - slope.sign(),
            "Do not clamp here: the projection does": (y - size * slope.sign()).clamp(0, 1),
        }
        if answer != aim:
            mistakes["This leaves the net's answer, and goes to no class in particular"] = (
                y + size * _slope(model, y, answer).sign()
            )
        found = call(function, model, y, aim, size)
        same(found, y - size * slope.sign(), what="the image after the step", mistakes=mistakes)
    right("A step towards the aim.")


def project_l2(function: Callable[..., Any]) -> None:
    """Back into the ball of the L2 norm: ``function(x, y, epsilon)``, all N×C×H×W."""
    for epsilon in (0.1, 0.3):
        x = (1.4 * torch.rand(3, 3, 7, 6) - 0.2).clamp(0, 1)  # some values are at the border
        spread = torch.tensor([0.1, 4.0, 0.8]).view(3, 1, 1, 1)  # inside the ball and outside
        uneven = torch.randn(3, 3, 7, 6) ** 3  # so that some values are larger than ε, too
        change = direction(uneven, "l2") * epsilon * spread

        def shrunk(factor: Tensor, x: Tensor = x, change: Tensor = change) -> Tensor:
            return (x + change * factor).clamp(0, 1)

        length = change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        factor = (epsilon / length).clamp(max=1)
        mistakes = {
            "Some values left [0, 1]: clamp at the end": x + change * factor,
            "An image that is near enough already must stay: only shrink, never stretch": (
                shrunk(epsilon / length)
            ),
            "Each image has a norm of its own: do not add up over the batch": (
                shrunk((epsilon / change.norm()).clamp(max=1))
            ),
            "The norm is the square root of the sum of squares": (
                shrunk((epsilon / length**2).clamp(max=1))
            ),
            "This cuts each value: for the L2 norm shrink the whole change": (
                (x + change.clamp(-epsilon, epsilon)).clamp(0, 1)
            ),
            "The norm is over all values of an image, not for each channel": (
                shrunk((epsilon / change.flatten(2).norm(dim=2)[..., None, None]).clamp(max=1))
            ),
            "Some images are further than ε from x": (x + change).clamp(0, 1),
            "This is the change: add x again": change * factor,
        }
        found = call(function, x, x + change, epsilon)
        same(found, shrunk(factor), what="the projected image", mistakes=mistakes, tolerance=1e-5)
    right("Inside the ball, and a picture.")
