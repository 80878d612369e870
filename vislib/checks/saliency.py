"""Checks for notebook 11."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vislib.checks import Wrong, call, right, same
from vislib.explain.averaging import draws, integrated_gradients, smoothgrad
from vislib.explain.gradients import gradient
from vislib.maps import channel_maximum
from vislib.nets import nth_best as reference_nth_best


def saliency(function: Callable[..., Any]) -> None:
    """Largest absolute value over the channels, N×3×H×W to N×1×H×W: ``function(g)``."""
    for shape in [(1, 3, 5, 7), (2, 3, 4, 4)]:
        g = torch.randn(shape)
        mistakes = {
            "This is the signed maximum: a strong negative slope matters too, take |g|": (
                g.amax(dim=1, keepdim=True)
            ),
            "The absolute value comes first, then the maximum over the channels": (
                g.amax(dim=1, keepdim=True).abs()
            ),
            "This is the mean over the channels: take the maximum": (
                g.abs().mean(dim=1, keepdim=True)
            ),
            "This is the sum over the channels: take the maximum": (
                g.abs().sum(dim=1, keepdim=True)
            ),
            "Red and blue cancel in this sum: take absolute values, then the maximum": (
                g.sum(dim=1, keepdim=True).abs()
            ),
            "The channel axis is gone: keepdim=True leaves N×1×H×W": g.abs().amax(dim=1),
            "max(dim=…) gives values and places: this is the number of the channel": (
                g.abs().argmax(dim=1, keepdim=True)
            ),
            "The maximum goes over the channels, axis 1": g.abs().amax(dim=0, keepdim=True),
        }
        found = call(function, g)
        if isinstance(found, tuple):
            raise Wrong("max(dim=…) gives values and places: return the values, or use amax")
        same(found, channel_maximum(g), what="the map", mistakes=mistakes)
    right("One value for each pixel: its strongest channel, whatever the sign.")


def nth_best(function: Callable[..., Any]) -> None:
    """The class with the n-th largest logit of one image: ``function(model, x, n)``."""
    for n in (1, 2, 4):
        model = _net(n, classes=6)
        x = torch.rand(1, 3, 8, 8)
        logits = model(x).detach()
        order = logits[0].argsort()
        mistakes = {
            "Count from 1: the first best is the winner": order[-n - 1],
            "The largest logit comes first: sort in descending order": order[n - 1],
            "This is the logit: return the number of its class": logits[0, order[-n]],
        }
        found = call(function, model, x, n)
        expected = int(reference_nth_best(logits, n))
        same(found, expected, what=f"the class for n = {n}", mistakes=mistakes)
    right("The winner is 1, the runner-up 2, and so on.")


def smooth(function: Callable[..., Any]) -> None:
    """SmoothGrad in a loop: ``function(slope, x, level, n, seed)``, x 1×3×H×W."""
    rng = np.random.default_rng()
    for n in (3, 5):
        model, seed, level = _net(n), int(rng.integers(1000)), 0.3
        low, high = (0.2, 0.7) if n == 3 else (0.0, 1.0)
        x = low + (high - low) * torch.rand(1, 3, 8, 8)

        def slope(image: Tensor, model: nn.Module = model) -> Tensor:
            return gradient(model, image, 1)

        span = float(x.max() - x.min())
        noise = torch.cat([one[None] for one in draws(x.shape[1:], n, seed)])
        steps = noise * level * span
        each = slope(x + steps)

        def wider(sigma: float, x: Tensor = x, noise: Tensor = noise) -> Tensor:
            return slope(x + sigma * noise).mean(dim=0, keepdim=True)

        mistakes = {
            "σ is relative to the range: level · (max - min) of the image": wider(level),
            "The range is the maximum minus the minimum": wider(level * float(x.max())),
            "σ is relative to the range, not to the standard deviation of the pixels": wider(
                level * float(x.std())
            ),
            "This is the sum of the n gradients: divide by n": each.sum(dim=0, keepdim=True),
            "Average the signed gradients: absolute values come after the mean": each.abs().mean(
                dim=0, keepdim=True
            ),
            "All n copies have the same noise: make the generator once, before the loop": each[:1],
            "This is the gradient of the mean copy: average the gradients, not the images": slope(
                x + steps.mean(dim=0, keepdim=True)
            ),
            "This is the plain gradient: is the noise added?": slope(x),
            "The noise is normal (torch.randn), not uniform (torch.rand)": _uniform(
                slope, x, level * span, n, seed
            ),
            "Each copy starts from the image itself, not from the copy before": slope(
                x + steps.cumsum(dim=0)
            ).mean(dim=0, keepdim=True),
        }
        expected = smoothgrad(model, x, 1, level=level, n=n, seed=seed)
        found, again = (call(function, slope, x, level, n, seed) for _ in range(2))
        if isinstance(found, Tensor) and not torch.equal(found, again):
            raise Wrong(
                "The same seed gives two different maps: draw with generator=generator, "
                "where generator = torch.Generator().manual_seed(seed)"
            )
        same(found, expected, what="the mean map", mistakes=mistakes, tolerance=1e-4)
    right("The mean of n gradients, with σ relative to the image's range.")


def _uniform(
    slope: Callable[[Tensor], Tensor], x: Tensor, sigma: float, n: int, seed: int
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.cat([torch.rand(x.shape, generator=generator) for _ in range(n)])
    return slope(x + sigma * noise).mean(dim=0, keepdim=True)


def integral(function: Callable[..., Any]) -> None:
    """Integrated gradients by the midpoint rule: ``function(slope, x, baseline, steps)``."""
    for steps in (1, 4):
        model = _net(steps)
        x, baseline = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8) * 0.5

        def slope(image: Tensor, model: nn.Module = model) -> Tensor:
            return gradient(model, image, 1)

        apart = x - baseline

        def mean(
            alphas: Tensor, start: Tensor = baseline, apart: Tensor = apart, steps: int = steps
        ) -> Tensor:
            return slope(start + alphas.view(-1, 1, 1, 1) * apart).sum(0, keepdim=True) / steps

        k = torch.arange(steps)
        middles = mean((k + 0.5) / steps)
        mistakes = {
            "These are the left ends: take the middles, α = (k + ½) / steps": (
                apart * mean(k / steps)
            ),
            "These are the right ends: take the middles, α = (k + ½) / steps": (
                apart * mean((k + 1) / steps)
            ),
            "linspace(0, 1, steps) counts both ends: take the middles, α = (k + ½) / steps": (
                apart * mean(torch.linspace(0, 1, steps))
            ),
            "This is the mean gradient: multiply it by x - x'": middles,
            "Multiply by x - x', not by x": x * middles,
            "The sign is the other way round: x - x'": -apart * middles,
            "This is the sum over the steps: divide by their number": apart * middles * steps,
            "These are points from black to x: begin at the baseline": (
                apart * mean((k + 0.5) / steps, torch.zeros_like(x), x)
            ),
            "This takes one gradient, at x: average over the line": apart * slope(x),
        }
        expected = integrated_gradients(model, x, 1, baseline=baseline, steps=steps)
        found = call(function, slope, x, baseline, steps)
        same(found, expected, what="the map", mistakes=mistakes, tolerance=1e-4)
    right("The middles of the parts, their mean gradient, times x - x'.")


def _net(seed: int, classes: int = 3) -> nn.Module:
    """A small smooth net; its gradients change from point to point."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten()]
        model = nn.Sequential(*layers, nn.Linear(64, classes)).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(3)
        return model
