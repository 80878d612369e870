"""Averaged gradients: SmoothGrad and integrated gradients.

The gradient ``g(x) = ∂y_c/∂x`` is a property of a single point x, and it changes strongly from one
point to the next. Both methods average it over many points, near the image or on the line from a
baseline x' to the image:

    SmoothGrad             1/n Σ_k g(x + ε_k),   ε_k ~ N(0, σ²)      Smilkov et al. 2017
    integrated gradients   (x - x') ∫₀¹ g(x' + α (x - x')) dα        Sundararajan et al. 2017

The points run through the model in batches. Apart from rounding, the map of an image depends
neither on the size of these batches nor on the other images in `x`. PyTorch's global random state
is not used. `vislib.maps` reduces a map to one value for each pixel.

References:
    Smilkov, Thorat, Kim, Viégas & Wattenberg 2017, "SmoothGrad: removing noise by adding noise".
    Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from vislib.core import Target, check_images, constant_target, split_target
from vislib.explain.gradients import gradient
from vislib.transforms import as_baseline

Method = Callable[[nn.Module, Tensor, Target], Tensor]
PathRule = Literal["midpoint", "gauss_legendre"]

# Number of pixels in a batch by default. Larger batches are not faster on a CPU.
_PIXELS = 4 * 224 * 224


# --- SmoothGrad -----------------------------------------------------------------------------------


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
    """SmoothGrad, ``1/n Σ_k g(x + ε_k)``, the mean map of n noisy copies: N×C×H×W, signed.

    Smilkov et al. 2017. The noise is normal with ``σ = level · (max(x) - min(x))``, computed for
    each image. All images get the same n draws. The draws are made on the CPU and are therefore the
    same for every device. As in the paper, the values of a noisy copy may leave [0, 1].

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        level: standard deviation of the noise as a fraction of the range max - min of the image, at
            least 0; the paper recommends 0.1 to 0.2.
        n: number of noisy copies.
        seed: seed of the noise.
        method: function ``method(model, x, target)`` whose maps are averaged, such as
            `gradients.guided_backprop`. `gradients.sensitivity` gives the mean of the squared
            gradients ("SmoothGrad²").
        batch: number of copies that run at once (default: about 200,000 pixels).

    Returns:
        The mean map, N×C×H×W, or in the shape that `method` returns.

    Raises:
        ValueError: `level` is negative, or `n` or `batch` is not a whole number of at least 1.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    >>> x = torch.rand(2, 3, 2, 2)
    >>> torch.allclose(smoothgrad(model, x, target=1, n=3), gradient(model, x, target=1))
    True
    """
    x = check_images(x).detach()
    if not level >= 0:
        raise ValueError(f"level must be a fraction of the image's range, at least 0, got {level}")
    _check_at_least_one("n", n)
    targets = split_target(constant_target(model, x, target), len(x))
    size = _batch_size(batch, x)
    weights = torch.full((n,), 1 / n, dtype=torch.float64)
    maps = []
    for image, one_target in zip(x, targets, strict=True):
        sigma = level * (image.max() - image.min())
        copies = (image + sigma * noise.to(image) for noise in draws(image.shape, n, seed))
        maps.append(_weighted_sum(method, model, copies, one_target, weights, size))
    return torch.stack(maps)


def draws(shape: Iterable[int], n: int, seed: int = 0) -> Iterable[Tensor]:
    """Standard normal noise for `smoothgrad`: n tensors, drawn one after another.

    Args:
        shape: shape of each tensor.
        n: number of tensors.
        seed: seed of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(tuple(shape), generator=generator) for _ in range(n))


# --- Integrated gradients -------------------------------------------------------------------------


def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    baseline: str | float | Tensor = 0.0,
    steps: int = 50,
    rule: PathRule = "midpoint",
    batch: int | None = None,
) -> Tensor:
    """Integrated gradients, ``(x - x') Σ_k w_k g(x' + α_k (x - x'))``: N×C×H×W, signed.

    Sundararajan et al. 2017. With enough steps the values of each image sum to
    ``y_c(x) - y_c(x')``, where x' is the baseline (completeness). A pixel with the same value in x
    and x' gets 0, however important it is for the model.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        baseline: x', a number (0 is black), C×1×1, N×C×H×W, or a kind of
            `vislib.transforms.baseline_image`.
        steps: number of points on the line from x' to x.
        rule: points α_k and weights w_k, see `path_rule`.
        batch: number of points that run at once (default: about 200,000 pixels).

    Raises:
        ValueError: `steps` or `batch` is not a whole number of at least 1, `rule` is unknown, or
            `baseline` does not broadcast to `x`.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh())
    >>> x = torch.rand(2, 3, 2, 2)
    >>> total = integrated_gradients(model, x, target=1).sum(dim=(1, 2, 3))
    >>> torch.allclose(total, (model(x) - model(0 * x))[:, 1], atol=1e-3)
    True
    """
    x = check_images(x).detach()
    alphas, weights = path_rule(steps, rule)
    origin = as_baseline(baseline, x)
    targets = split_target(constant_target(model, x, target), len(x))
    size = _batch_size(batch, x)
    maps = []
    for image, start, one_target in zip(x, origin, targets, strict=True):
        points = (start + alpha * (image - start) for alpha in alphas.tolist())
        mean = _weighted_sum(gradient, model, points, one_target, weights, size)
        maps.append((image - start) * mean)
    return torch.stack(maps)


def path_rule(steps: int, rule: PathRule = "midpoint") -> tuple[Tensor, Tensor]:
    """Points α_k in [0, 1] and weights w_k with ``Σ_k w_k h(α_k) ≈ ∫₀¹ h(α) dα``, as float64.

    Along the line, the gradient of a network with ReLUs has jumps. A rule of higher order, which is
    better for smooth functions, is therefore not necessarily more accurate.

    Args:
        steps: number of points.
        rule: ``"midpoint"``, the centres of equal intervals, or ``"gauss_legendre"``, which is
            exact for polynomials of degree up to 2 · steps - 1.

    Raises:
        ValueError: `steps` is not a whole number of at least 1, or `rule` is unknown.

    >>> alphas, weights = path_rule(2)
    >>> alphas.tolist(), weights.tolist()
    ([0.25, 0.75], [0.5, 0.5])
    """
    _check_at_least_one("steps", steps)
    if rule == "midpoint":
        alphas = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
        return alphas, torch.full_like(alphas, 1 / steps)
    if rule == "gauss_legendre":
        # NumPy gives the rule for the interval [-1, 1].
        points, weights = np.polynomial.legendre.leggauss(steps)
        return torch.from_numpy((1 + points) / 2), torch.from_numpy(weights / 2)
    raise ValueError(f"rule must be 'midpoint' or 'gauss_legendre', got {rule!r}")


# --- Weighted sums in batches ---------------------------------------------------------------------


def _weighted_sum(
    method: Method,
    model: nn.Module,
    points: Iterator[Tensor],
    target: Target,
    weights: Tensor,
    size: int,
) -> Tensor:
    """``Σ_k w_k method(model, point_k, target)``, computed from `size` points at a time."""
    total = torch.zeros(())
    for part in weights.split(size):
        maps = method(model, torch.stack([*islice(points, len(part))]), target)
        total = total + torch.tensordot(part.to(maps), maps, dims=1)
    return total


def _batch_size(batch: int | None, x: Tensor) -> int:
    """Number of images in a batch: `batch`, or by default as many as have `_PIXELS` pixels."""
    if batch is None:
        return max(1, _PIXELS // x[0, 0].numel())
    _check_at_least_one("batch", batch)
    return batch


def _check_at_least_one(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
