"""The gradient as a picture, and gradients made calm: means over many points.

One gradient ``g = ∂y_c/∂x`` says how the score reacts at one point. For the eye it is made into one
value a pixel, and because it changes wildly from point to point, it is averaged:

    saliency               max_c |g_c|                              Simonyan et al. 2014
    SmoothGrad             1/n Σ_k g(x + ε_k),   ε_k ~ N(0, σ²)       Smilkov et al. 2017
    integrated gradients   (x - x') ∫₀¹ g(x' + α (x - x')) dα         Sundararajan et al. 2017

The first line holds pure functions of a gradient (or of any signed map): `largest`, `positive`. The
others run one method, by default the plain gradient, at many points near the image or on the line
from a baseline x' to it, as batches of a size that memory allows. The result does not depend on
that size, nor on which other images are in `x`; PyTorch's global random numbers stay untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from vislib.core import Target, check_images, check_target
from vislib.explain.gradients import gradient

Method = Callable[[nn.Module, Tensor, Target], Tensor]
PathRule = Literal["midpoint", "gauss_legendre"]

_PIXELS = 4 * 224 * 224  # in one batch, by default; larger ones are not faster on a CPU


# ------------------------------------------------------------ one value for each pixel


# ------------------------------------------------------------ means over many points


def smoothgrad(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    level: float = 0.15,
    n: int = 50,
    seed: int = 0,
    method: Method = gradient,
    batch: int | None = None,
) -> Tensor:
    """``1/n Σ_k g(x + ε_k)``: the mean map of n noisy copies of the image, N×C×H×W, signed.

    The noise is normal with ``σ = level · (max(x) - min(x))``, the range of each image by itself.
    Each image gets the same n draws, made on the CPU, so its map is the same on every device and in
    every batch. A noisy copy may leave [0, 1], as in the paper.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        level: the noise as a share of the image's range, at least 0; the paper likes 0.1 to 0.2.
        n: how many noisy copies.
        seed: of the noise.
        method: what is averaged, any ``method(model, x, target)``: `guided_backprop`, or with
            `gradients.sensitivity` the mean of the squares ("SmoothGrad²").
        batch: how many copies run at once (default: as many as give about 200,000 pixels).

    Raises:
        ValueError: for a negative level, no copies, or an empty batch.

    Smilkov, Thorat, Kim, Viégas & Wattenberg 2017, "SmoothGrad: removing noise by adding noise".
    """
    x = check_images(x).detach()
    if not level >= 0:
        raise ValueError(f"level is a share of the image's range, at least 0, got {level}")
    _at_least_one("n", n)
    weights = torch.full((n,), 1 / n, dtype=torch.float64)
    maps = []
    for image, wanted in zip(x, check_target(target, len(x)).tolist(), strict=True):
        sigma = level * (image.max() - image.min())
        noisy = (image + sigma * noise.to(image) for noise in draws(image.shape, n, seed))
        maps.append(_weighted_sum(method, model, noisy, wanted, weights, batch))
    return torch.stack(maps)


def draws(shape: Iterable[int], n: int, seed: int = 0) -> Iterable[Tensor]:
    """The n draws of standard normal noise that `smoothgrad` adds, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(tuple(shape), generator=generator) for _ in range(n))


def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    baseline: float | Tensor = 0.0,
    steps: int = 50,
    rule: PathRule = "midpoint",
    batch: int | None = None,
) -> Tensor:
    """``(x - x') Σ_k w_k g(x' + α_k (x - x'))``: from a baseline x' to x, N×C×H×W, signed.

    With enough steps the map sums to ``y_c(x) - y_c(x')`` (completeness). A pixel that is equal in
    x and x' gets nothing, whatever it means to the net.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        baseline: x', a number (0 is black) or a tensor that broadcasts to x, as `transforms.baseline_image`
            makes them.
        steps: at how many points of the line the gradient is taken.
        rule: where they lie, see `path_rule`.
        batch: how many points run at once (default: as many as give about 200,000 pixels).

    Raises:
        ValueError: for no steps, an unknown rule, an empty batch, or a baseline of another shape.

    Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks".
    """
    x = check_images(x).detach()
    alphas, weights = path_rule(steps, rule)
    origin = torch.as_tensor(baseline).detach().to(x)
    try:
        origin = origin.expand_as(x)
    except RuntimeError:
        raise ValueError(
            f"the baseline, {tuple(origin.shape)}, does not fit images of {tuple(x.shape)}: "
            "give a number, C×1×1, or whole images"
        ) from None
    maps = []
    classes = check_target(target, len(x)).tolist()
    for image, start, wanted in zip(x, origin, classes, strict=True):
        line = (start + alpha * (image - start) for alpha in alphas.tolist())
        mean = _weighted_sum(gradient, model, line, wanted, weights, batch)
        maps.append((image - start) * mean)
    return torch.stack(maps)


def path_rule(steps: int, rule: PathRule = "midpoint") -> tuple[Tensor, Tensor]:
    """Points α_k in [0, 1] and weights w_k with ``Σ_k w_k h(α_k) ≈ ∫₀¹ h``, as float64.

    ``"midpoint"``: the middles of equal parts. ``"gauss_legendre"``: exact for polynomials of
    degree up to 2 · steps - 1. Gradients of a net with ReLUs are no polynomials along the line but
    jump, so the better rule for smooth functions has no advantage to count on.
    """
    _at_least_one("steps", steps)
    if rule == "midpoint":
        alphas = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
        return alphas, torch.full_like(alphas, 1 / steps)
    if rule == "gauss_legendre":
        places, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
        return torch.from_numpy((1 + places) / 2), torch.from_numpy(weights / 2)
    raise ValueError(f"there is no rule {rule!r}: use midpoint or gauss_legendre")


def _weighted_sum(
    method: Method,
    model: nn.Module,
    points: Iterable[Tensor],
    target: Target,
    weights: Tensor,
    batch: int | None,
) -> Tensor:
    """``Σ_k w_k method(model, points_k, target)``, with at most `batch` points alive at once."""
    if batch is not None:
        _at_least_one("batch", batch)
    points, total, done = iter(points), torch.tensor(0.0), 0
    while done < len(weights):
        some = [next(points)]
        most = batch or max(1, _PIXELS // some[0][0].numel())
        some += [next(points) for _ in range(min(most, len(weights) - done) - 1)]
        maps = method(model, torch.stack(some), target)
        shares = weights[done : done + len(some)].to(maps)
        total = total.to(maps) + torch.tensordot(shares, maps, dims=1)
        done += len(some)
    return total


def _at_least_one(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
