"""Simple Taylor decomposition: the class score, expanded around a point where it is zero.

Let ``f = y_c`` be the class score and x̃ a **root point**, ``f(x̃) = 0``. To first order, the score
of an image is a sum with one relevance for each pixel:

    f(x) ≈ Σ_i R_i,    R_i = ∂f/∂x_i(x̃) · (x_i - x̃_i)

For a linear f the sum is exact; otherwise the terms of higher order are missing. The result depends
on the root point. `root_point` searches for one with Newton's method, whose step is exact if f is
linear:

    x ← x - f(x) ∇f(x) / ‖∇f(x)‖²

Gradient × input (`vislib.explain.gradients`) is the special case x̃ → 0 for a network with ReLUs and
no biases. Layer-wise relevance propagation (`vislib.explain.lrp`) decomposes the score layer by
layer instead.

References:
    Bach, Binder, Montavon, Klauschen, Müller & Samek 2015, "On Pixel-Wise Explanations for
    Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation".
    Montavon, Samek & Müller 2018, "Methods for Interpreting and Understanding Deep Neural
    Networks".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vislib.core import Target, check_images, constant_target, one_forward
from vislib.explain.gradients import gradient


class NoRootPointError(ValueError):
    """Newton's method found no point near the image at which the score is 0."""


def simple_taylor(
    model: nn.Module, x: Tensor, target: Target, root: Tensor | None = None
) -> Tensor:
    """Simple Taylor decomposition, ``R_i = ∂f/∂x_i(x̃) · (x_i - x̃_i)``: N×C×H×W, signed.

    Bach et al. 2015; Montavon et al. 2018. The values of each image sum to its score, up to terms
    of higher order.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        root: root points x̃, N×C×H×W or a tensor that broadcasts to `x` (default: those of
            `root_point`). The function does not check the score at these points.

    Raises:
        ValueError: `root` is None and `root_point` finds none for an image.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(27, 5))
    >>> x = torch.rand(2, 3, 3, 3)
    >>> R = simple_taylor(model, x, target=1)
    >>> torch.allclose(R.sum(dim=(1, 2, 3)), model(x)[:, 1], rtol=1e-3, atol=1e-5)
    True
    """
    x = check_images(x).detach()
    target = constant_target(model, x, target)
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
    """Root points x̃ near the images, N×C×H×W, with ``|f(x̃)| ≤ tolerance · |f(x)|``.

    Newton's method starts at the image. Once two points with scores of opposite sign are known,
    bisection finds a root between them, which need not be the nearest or look like an image.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        steps: largest number of steps, at least 1.
        tolerance: largest score of a root point, as a fraction of the score of its image.
        box: smallest and largest value of a pixel in Newton's method (default: no limits).

    Raises:
        NoRootPointError: no root point was found; the message names the images.
        ValueError: `steps` is less than 1, or as in `vislib.explain.gradients`.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(27, 5))
    >>> x = torch.rand(2, 3, 3, 3)
    >>> scores = model(root_point(model, x, target=1))[:, 1]
    >>> bool((scores.abs() <= 1e-4 * model(x)[:, 1].abs()).all())
    True
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    point = check_images(x).detach()
    target = constant_target(model, point, target)
    # The latest points with f > 0 and with f ≤ 0; NaN for an image that has no such point yet.
    above = below = torch.full_like(point, torch.nan)
    limit = None
    for _ in range(steps):
        with one_forward(model, point, target) as forward:
            (grads,) = forward.backward()
            f = forward.y.detach()
        limit = tolerance * f.abs() if limit is None else limit
        done = f.abs() <= limit
        if done.all():
            return point
        above = point.where(_per_image(f > 0), above)
        below = point.where(_per_image(f <= 0), below)
        middle = (above + below) / 2
        newton = point - grads * _per_image(f / grads.square().sum(dim=(1, 2, 3)))
        newton = newton if box is None else newton.clamp(*box)
        following = middle.where(middle.isfinite(), newton)
        point = point.where(_per_image(done), following)
        # Where the gradient is 0, Newton's step is infinite or NaN.
        if not point.isfinite().all():
            break
    missing = ", ".join(str(i) for i in (~done).nonzero()[:, 0].tolist())
    raise NoRootPointError(
        f"no root point found for image {missing} of the batch in {steps} steps along the "
        "gradient: pass root=, for example a grey or blurred image whose score is near 0"
    )


def _per_image(values: Tensor) -> Tensor:
    """One value for each image, N, in a shape that broadcasts to N×C×H×W."""
    return values.view(-1, 1, 1, 1)
