"""Other measures of an explanation than its energy on the object, and whether they agree.

A map gives each pixel a *strength*, the energy that P is made of, ``s(p) = Σ_c I_c(p)²``. With it

    pointing game   does argmax_p s(p) lie on the object?         high is good   Zhang et al. 2016
    deletion        mean of p(c | all but the strongest pixels)   low is good    Petsiuk et al. 2018
    insertion       mean of p(c | the strongest pixels alone)     high is good   Petsiuk et al. 2018

The first asks where a map points, as P does; the other two ask the net what those pixels are worth
to it, and need no mask. `rank_correlation` compares the orders in which measures put the methods.

The strength has no sign: a pixel that speaks against the class counts as much as one that speaks
for it, because a gradient's sign says nothing of the kind. Where a method's sign does (occlusion,
LRP), pass ``maps.clamp(min=0)`` to let only the evidence for the class count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vislib.core import Target, check_images, check_logits, check_target, frozen, score
from vislib.transforms import baseline_image

if TYPE_CHECKING:
    pass


class Curve(NamedTuple):
    """The class probability while pixels are taken away, or put in, strongest first.

    Attributes:
        auc: area under the curve, the mean probability along the way, N numbers in 0..1.
        scores: the probability after each step, N×(steps + 1).
        shares: the share of the pixels that were changed until then, steps + 1 numbers from 0 to 1.
    """

    auc: Tensor
    scores: Tensor
    shares: Tensor


def strength(maps: Tensor) -> Tensor:
    """``Σ_c I_c²`` of one map, C×H×W or H×W, as float64 H×W on the CPU.

    ``ValueError`` where it is not finite.
    """
    if maps.ndim not in (2, 3):
        raise ValueError(f"one map is C×H×W or H×W, got shape {tuple(maps.shape)}")
    if not maps.isfinite().all():
        raise ValueError("the map holds NaN or infinite values: no place is the strongest")
    power = maps.detach().to("cpu", torch.float64).square()
    return power.reshape(-1, *maps.shape[-2:]).sum(dim=0)


def pointing_game(maps: Tensor, mask: np.ndarray, tolerance: float = 15) -> float:
    """1 where the strongest place of the map lies on the object or at most `tolerance` pixels
    (Euclidean) from it, else 0.

    Where several places are equally strong, the share of them that hit, which is what to expect of
    one drawn at random; so a map that is the same everywhere gets the share of the grown mask. NaN
    for a map of zeros, which points nowhere.

    The paper's 15 pixels belong to photographs of about 500 pixels. Take the same share of the
    image elsewhere: 4 pixels at 128. The mask is the object as outlined (not dilated as for P).
    ``ValueError`` for an empty mask, a negative tolerance, and sizes that differ.
    Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop".
    """
    from scipy.ndimage import distance_transform_edt

    if maps.shape[-2:] != mask.shape:
        raise ValueError(
            f"the map is {tuple(maps.shape[-2:])} and the mask {mask.shape}: "
            "upsample the map to the image"
        )
    if not tolerance >= 0:
        raise ValueError(f"tolerance is a distance in pixels, at least 0, got {tolerance}")
    mask = mask.astype(bool)
    if not mask.any():
        raise ValueError("the mask is empty: there is no object to point at")
    values = strength(maps).numpy()
    if not values.any():
        return float("nan")
    near = distance_transform_edt(~mask) <= tolerance
    return float(near[values == values.max()].mean())


def deletion(
    model: nn.Module,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    steps: int = 32,
    baseline: str | float | Tensor = "mean",
    batch: int = 64,
) -> Curve:
    """Replace the strongest pixels by `baseline`, step by step, until none of the image is left.

    A low area means that the map found what the net needs; or that it found a pattern of holes
    that breaks the net, which the curve cannot tell apart.

    Args:
        model: N×C×H×W → N×K logits. The curve is of the softmax of them.
        x: the images, N×C×H×W.
        target: one class or N.
        maps: one for each image and of its size, N×C'×H×W, raw.
        steps: how often the net is asked; as many pixels, up to one, change each time.
        baseline: what stands in the place of a pixel: a name that `transforms.baseline_image` knows, a number,
            C×1×1, or N×C×H×W.
        batch: how many images go through the net at once.

    Pixels of equal strength (all of them, in a map that is the same everywhere) are changed in a
    random order that is always the same one: such a map is the control.

    Raises:
        ValueError: for maps of another size or that are not finite, and less than one step.

    Petsiuk, Das & Saenko 2018, "RISE: Randomized Input Sampling for Explanation of Black-box
    Models".
    """
    return _curve(model, x, _filled(x, baseline), target, maps, steps, batch)


def insertion(
    model: nn.Module,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    steps: int = 32,
    baseline: str | float | Tensor = "blur",
    batch: int = 64,
) -> Curve:
    """Begin with `baseline`, the blurred image, and put the strongest pixels in. High is good.

    Arguments, ties and errors as for `deletion`. Petsiuk et al. 2018.
    """
    return _curve(model, _filled(x, baseline), x, target, maps, steps, batch)


def _filled(x: Tensor, baseline: str | float | Tensor) -> Tensor:
    x = check_images(x).detach()
    if isinstance(baseline, str):
        return baseline_image(x, baseline)
    return torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(x)


def _curve(
    model: nn.Module,
    start: Tensor,
    end: Tensor,
    target: Target,
    maps: Tensor,
    steps: int,
    batch: int,
) -> Curve:
    """From `start` to `end`, the strongest pixels first."""
    if maps.ndim != 4 or len(maps) != len(start) or maps.shape[-2:] != start.shape[-2:]:
        raise ValueError(
            f"images of shape {tuple(start.shape)} need maps N×C×H×W of that size, "
            f"got {tuple(maps.shape)}: use cam.upsample"
        )
    if steps < 1 or batch < 1:
        raise ValueError(f"steps and batch are at least 1, got {steps} and {batch}")
    shares = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    pixels = start[0, 0].numel()
    changed = (shares * pixels).round()  # how many pixels after each step
    classes = check_target(target, len(start))
    scores = []
    with frozen(model), torch.no_grad():
        for one_map, before, after, chosen in zip(maps, start, end, classes, strict=True):
            place = _places(one_map).view(1, 1, *start.shape[-2:])
            for part in changed.split(batch):
                new = (place < part.view(-1, 1, 1, 1)).to(start.device)
                logits = check_logits(model(torch.where(new, after, before)))
                scores.append(score(logits.double().softmax(dim=1), int(chosen)).cpu())
    along = torch.cat(scores).view(len(start), steps + 1)
    return Curve(torch.trapezoid(along, shares), along, shares)


def _places(one_map: Tensor) -> Tensor:
    """Each pixel's place in the order: 0 for the strongest. Ties in an order that is always the
    same, but no pattern of the picture."""
    values = strength(one_map).flatten()
    shuffled = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    order = shuffled[values[shuffled].argsort(descending=True, stable=True)]
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
