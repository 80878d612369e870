"""Simple Taylor decomposition."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vislib.core import Target, check_images, one_forward
from vislib.explain.gradients import gradient


def simple_taylor(
    model: nn.Module, x: Tensor, target: Target, root: Tensor | None = None
) -> Tensor:
    """``R_i = ∂f/∂x_i(x̃) · (x_i - x̃_i)`` at a root point ``f(x̃) = 0``, N×C×H×W, signed.

    `root` is x̃, of the shape of `x` or one that broadcasts to it (default: `root_point`'s). The sum
    differs from ``f(x)`` by the terms of higher order. ``ValueError`` where no root is found.
    Montavon et al. 2018; Bach et al. 2015.
    """
    x = check_images(x).detach()
    root = root_point(model, x, target) if root is None else root.detach().to(x).expand_as(x)
    return gradient(model, root, target) * (x - root)


def root_point(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    steps: int = 50,
    tolerance: float = 1e-4,
    box: tuple[float, float] | None = None,
) -> Tensor:
    """A point x̃ near `x` with ``|f(x̃)| ≤ tolerance · |f(x)|``, for each image: N×C×H×W.

    Newton's method: go along the gradient to where the score would be 0 if the net were linear,
    ``x ← x - f ∇f / ‖∇f‖²``, and again from there. Two points with scores of opposite sign have a
    root between them, which bisection finds. The point is near, not the nearest, and need not look
    like an image; `box` keeps the pixels within two values. ``ValueError`` names the images for
    which `steps` steps found none.
    """
    x = check_images(x).detach()
    above = below = torch.full_like(x, torch.nan)  # the last points with f > 0 and f ≤ 0
    at, goal = x, None
    for _ in range(steps):
        with one_forward(model, at, target) as forward:
            (slope,) = forward.backward()
            y = forward.y.detach()
        goal = tolerance * y.abs() if goal is None else goal
        done = y.abs() <= goal
        if done.all():
            return at
        above, below = at.where(_each(y > 0), above), at.where(_each(y <= 0), below)
        middle = (above + below) / 2
        newton = at - slope * _each(y / slope.square().sum(dim=(1, 2, 3)))
        newton = newton if box is None else newton.clamp(*box)
        onward = middle.where(middle.isfinite(), newton)
        at = at.where(_each(done), onward)
        if not at.isfinite().all():  # a gradient of 0 leads nowhere
            break
    missing = ", ".join(str(i) for i in (~done).nonzero()[:, 0].tolist())
    raise ValueError(
        f"no root point found for image {missing} of the batch in {steps} steps along the "
        "gradient: pass root=, for example a grey or blurred image whose score is near 0"
    )


def _each(v: Tensor) -> Tensor:
    """One number per image, in a shape to meet N×C×H×W."""
    return v.view(-1, 1, 1, 1)
