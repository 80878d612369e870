"""Checks for the exercises of notebook 11, saliency, SmoothGrad and integrated gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vislib.checks import Exercise, Wrong, call
from vislib.explain.gradients import gradient
from vislib.maps import channel_maximum
from vislib.nets import nth_best as reference_nth_best

Gradient = Callable[[Tensor], Tensor]


def _net(seed: int, classes: int = 3) -> nn.Module:
    """Small smooth network whose gradients change from point to point."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten()]
        model = nn.Sequential(*layers, nn.Linear(64, classes)).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(3)
        return model


# --- A gradient as a map, and the n-th best class -------------------------------------------------

saliency = Exercise(
    task="``picture(g)``: the largest absolute value over the channels, N×3×H×W to N×1×H×W.",
    inputs=lambda: ((torch.randn(shape),) for shape in [(1, 3, 5, 7), (2, 3, 4, 4)]),
    solution=channel_maximum,
    what="the map",
    mistakes={
        "This is the signed maximum: a strong negative gradient matters too, take |g|": (
            lambda g: g.amax(dim=1, keepdim=True)
        ),
        "The absolute value comes first, then the maximum over the channels": (
            lambda g: g.amax(dim=1, keepdim=True).abs()
        ),
        "This is the mean over the channels: take the maximum": (
            lambda g: g.abs().mean(dim=1, keepdim=True)
        ),
        "This is the sum over the channels: take the maximum": (
            lambda g: g.abs().sum(dim=1, keepdim=True)
        ),
        "Red and blue cancel in this sum: take absolute values, then the maximum": (
            lambda g: g.sum(dim=1, keepdim=True).abs()
        ),
        "The channel axis is gone: keepdim=True leaves N×1×H×W": lambda g: g.abs().amax(dim=1),
        "max(dim=…) gives values and indices: this is the index of the channel": (
            lambda g: g.abs().argmax(dim=1, keepdim=True)
        ),
        "max(dim=…) gives values and indices: return the values, or use amax": (
            lambda g: g.abs().max(dim=1, keepdim=True)
        ),
        "Take the maximum over the channels, axis 1": lambda g: g.abs().amax(dim=0, keepdim=True),
    },
    praise="One value for each pixel: its strongest channel, regardless of the sign.",
)


nth_best = Exercise(
    task="``nth_best(model, x, n)``: the class with the n-th largest logit of one image, 1×3×H×W.",
    inputs=lambda: ((_net(n, classes=6), torch.rand(1, 3, 8, 8), n) for n in (1, 2, 4)),
    solution=lambda model, x, n: int(reference_nth_best(model(x), n)),
    what=lambda model, x, n: f"the class for n = {n}",
    mistakes={
        "Count from 1: the best class has n = 1": (
            lambda model, x, n: model(x)[0].argsort(descending=True)[n]
        ),
        "The largest logit comes first: sort in descending order": (
            lambda model, x, n: model(x)[0].argsort()[n - 1]
        ),
        "This is the logit: return the index of its class": (
            lambda model, x, n: model(x)[0].sort(descending=True).values[n - 1]
        ),
    },
    praise="The winner is 1, the runner-up 2, and so on.",
)


# --- SmoothGrad -----------------------------------------------------------------------------------


class _Seeded(Exercise):
    """Exercise in which the same seed must give the same map."""

    def __call__(self, function: Callable[..., Any]) -> None:
        # This trial comes in addition to the others and must not use up their random numbers.
        with torch.random.fork_rng(devices=[]):
            inputs = next(iter(self.inputs()))
            first, second = (call(function, *inputs) for _ in range(2))
        if isinstance(first, Tensor) and not torch.equal(first, second):
            raise Wrong(
                "The same seed gives two different maps: draw with generator=generator, "
                "where generator = torch.Generator().manual_seed(seed)"
            )
        super().__call__(function)


def _gradient_of(model: nn.Module) -> Gradient:
    return lambda image: gradient(model, image, 1)


def _noisy(
    x: Tensor,
    level: float,
    n: int,
    seed: int,
    *,
    sigma: Callable[[Tensor, float], Any] = lambda x, level: level * (x.max() - x.min()),
    draw: Callable[..., Tensor] = torch.randn,
) -> Tensor:
    """N noisy copies of SmoothGrad, n×3×H×W."""
    generator = torch.Generator().manual_seed(seed)
    noise = [draw(x.shape, generator=generator) for _ in range(n)]
    return x + sigma(x, level) * torch.cat(noise)


def _smooth(g: Gradient, x: Tensor, level: float, n: int, seed: int, **options: Any) -> Tensor:
    return g(_noisy(x, level, n, seed, **options)).mean(dim=0, keepdim=True)


def _images_to_smooth() -> Iterator[tuple[Gradient, Tensor, float, int, int]]:
    rng = np.random.default_rng()
    for n, low, high in [(3, 0.2, 0.7), (5, 0.0, 1.0)]:
        seed, level = int(rng.integers(1000)), 0.3
        yield _gradient_of(_net(n)), low + (high - low) * torch.rand(1, 3, 8, 8), level, n, seed


smooth = _Seeded(
    task=(
        "``smooth(gradient, x, level, n, seed)``: SmoothGrad in a loop, `x` and the result "
        "1×3×H×W; ``gradient(image)`` gives the gradient of an image."
    ),
    inputs=_images_to_smooth,
    solution=_smooth,
    what="the mean map",
    mistakes={
        "σ is relative to the range: level · (max - min) of the image": partial(
            _smooth, sigma=lambda x, level: level
        ),
        "The range is the maximum minus the minimum": partial(
            _smooth, sigma=lambda x, level: level * x.max()
        ),
        "σ is relative to the range, not to the standard deviation of the pixels": partial(
            _smooth, sigma=lambda x, level: level * x.std()
        ),
        "This is the sum of the n gradients: divide by n": (
            lambda g, x, *noise: g(_noisy(x, *noise)).sum(dim=0, keepdim=True)
        ),
        "Average the signed gradients: absolute values come after the mean": (
            lambda g, x, *noise: g(_noisy(x, *noise)).abs().mean(dim=0, keepdim=True)
        ),
        "All n copies have the same noise: make the generator once, before the loop": (
            lambda g, x, *noise: g(_noisy(x, *noise)[:1])
        ),
        "This is the gradient of the mean copy: average the gradients, not the images": (
            lambda g, x, *noise: g(_noisy(x, *noise).mean(dim=0, keepdim=True))
        ),
        "This is the plain gradient: the noise is missing": lambda g, x, *noise: g(x),
        "The noise is normal (torch.randn), not uniform (torch.rand)": partial(
            _smooth, draw=torch.rand
        ),
        "Each copy starts from the image itself, not from the copy before": (
            lambda g, x, *noise: g(x + (_noisy(x, *noise) - x).cumsum(dim=0)).mean(
                dim=0, keepdim=True
            )
        ),
    },
    praise="The mean of n gradients, with σ relative to the image's range.",
    tolerance=1e-4,
)


# --- Integrated gradients -------------------------------------------------------------------------


def _integral(
    g: Gradient,
    x: Tensor,
    baseline: Tensor,
    steps: int,
    *,
    alphas: Callable[[int], Tensor] = lambda steps: (torch.arange(steps) + 0.5) / steps,
    factor: Callable[[Tensor, Tensor], Any] = lambda x, baseline: x - baseline,
) -> Tensor:
    line = baseline + alphas(steps).view(-1, 1, 1, 1) * (x - baseline)
    return factor(x, baseline) * g(line).mean(dim=0, keepdim=True)


integral = Exercise(
    task=(
        "``integral(gradient, x, baseline, steps)``: integrated gradients by the midpoint rule, "
        "`x`, `baseline` and the result 1×3×H×W; ``gradient(image)`` as above."
    ),
    # The mistakes all differ for 4 steps. For 1 step, linspace(0, 1, steps) is the left end.
    inputs=lambda: (
        (
            _gradient_of(_net(steps)),
            torch.rand(1, 3, 8, 8),
            torch.rand(1, 3, 8, 8) * 0.5,
            steps,
        )
        for steps in (4, 1)
    ),
    solution=_integral,
    what="the map",
    mistakes={
        "These are the left ends: take the midpoints, α = (k + ½) / steps": partial(
            _integral, alphas=lambda steps: torch.arange(steps) / steps
        ),
        "These are the right ends: take the midpoints, α = (k + ½) / steps": partial(
            _integral, alphas=lambda steps: (torch.arange(steps) + 1) / steps
        ),
        "linspace(0, 1, steps) has both ends: take the midpoints, α = (k + ½) / steps": partial(
            _integral, alphas=lambda steps: torch.linspace(0, 1, steps)
        ),
        "This is the mean gradient: multiply it by x - x'": partial(
            _integral, factor=lambda x, baseline: 1
        ),
        "Multiply by x - x', not by x": partial(_integral, factor=lambda x, baseline: x),
        "The sign is reversed: multiply by x - x'": partial(
            _integral, factor=lambda x, baseline: baseline - x
        ),
        "This is the sum over the steps: divide by their number": (
            lambda g, x, baseline, steps: steps * _integral(g, x, baseline, steps)
        ),
        "These are points from black to x: begin at the baseline": (
            lambda g, x, baseline, steps: _integral(
                g, x, torch.zeros_like(x), steps, factor=lambda x, black: x - baseline
            )
        ),
        "This takes one gradient, at x: average the gradients on the line": (
            lambda g, x, baseline, steps: (x - baseline) * g(x)
        ),
    },
    praise="The middles of the parts, their mean gradient, times x - x'.",
    tolerance=1e-4,
)
