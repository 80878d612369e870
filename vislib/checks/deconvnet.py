"""Checks for notebook 07."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vislib.checks import Wrong, call, right, same
from vislib.features import deconvnet


def relu_backwards(function: Callable[..., Any]) -> None:
    """The three ways back through a ReLU: ``function(method, z, R)``.

    `method` is "backprop", "deconvnet" or "guided"; z went into the ReLU, R comes from above.
    """
    z, signal = torch.randn(2, 6, 6)
    forward, backward = (z > 0).float(), (signal > 0).float()
    gates = {"backprop": forward, "deconvnet": backward, "guided": forward * backward}
    found = {method: call(function, method, z, signal) for method in gates}
    swapped = {"backprop": "deconvnet", "deconvnet": "backprop"}
    if all(_equal(found[method], gates[other] * signal) for method, other in swapped.items()):
        raise Wrong(
            "backprop and deconvnet are swapped: plain backprop asks where the forward pass was "
            "positive (z > 0), the deconvnet where the signal is (R > 0)"
        )
    for method, gate in gates.items():
        mistakes = {
            "The gate alone is 0 or 1: multiply it with R": gate,
            "Nothing is stopped: R comes through as it came": signal,
            "What goes back is the signal R; z only decides about it": gate * z,
            "Keep the sign: R is stopped or not, but never turned round": gate * signal.abs(),
        }
        if method == "guided":
            mistakes["Both gates: one of the two is missing (that is backprop)"] = forward * signal
            mistakes["Both gates: one of the two is missing (that is the deconvnet)"] = (
                backward * signal
            )
            either = ((forward + backward) > 0).float()
            mistakes["Both conditions must hold, not one of them"] = either * signal
        if method == "deconvnet":
            mistakes["The deconvnet does not look at z at all (this is guided backprop)"] = (
                forward * backward * signal
            )
        same(found[method], gate * signal, what=f"the signal below the ReLU for {method!r}",
             mistakes=mistakes)  # fmt: skip
    right("All three ReLUs answer as in the papers, and nothing is swapped.")


def unpool(function: Callable[..., Any]) -> None:
    """Unpooling with overlapping windows, the largest wins: ``function(values, switches, shape)``.

    `values` and `switches` are h×w tensors; the result is a map of `shape`.
    """
    for height, width in [(9, 9), (7, 11)]:
        switches = _shared_switches(height, width)
        values = torch.randn(switches.shape)  # below zero too: R has both signs before the ReLU

        def by(
            overlap: str, values: Tensor, where: Tensor = switches, shape: Any = (height, width)
        ) -> Tensor:
            return deconvnet.unpool(values[None, None], where[None, None], shape, overlap=overlap)[
                0, 0
            ]

        expected = by("largest", values)
        turned = (switches % width) * height % (height * width) + switches // width
        first = by("last", values.flip(0, 1), switches.flip(0, 1))
        mistakes = {
            "Two values at one place are added up; the larger one should stay": by("sum", values),
            "The last value overwrites the others; the largest should stay": by("last", values),
            "The first value stays; the largest should": first,
            "A value below zero is lost: where it comes alone, it stays": by(
                "largest", values
            ).clamp(min=0),
            "Rows and columns are swapped: a switch is row · width + column": by(
                "largest", values, turned
            ),
            "The result is still flat: reshape it": expected.flatten(),
            "Values are put into the corner of their windows: use the switches": _corners(
                values, height, width
            ),
        }
        found = call(function, values, switches, (height, width))
        same(found, expected, what="the unpooled map", mistakes=mistakes)
    right("Each value is at its switch, and of several the largest stays.")


def stage(function: Callable[..., Any]) -> None:
    """Unpool, rectify, filter: ``function(signal, switches, weight)``.

    On the way up stood a 3×3 convolution with padding 1 and `weight` O×C×3×3, a ReLU and a 2×2
    pooling with these `switches`. `signal` is 1×O×h×w, from above the pooling.
    """
    weight = torch.randn(5, 4, 3, 3)  # 4 and not 3 channels, 5 maps: a swap cannot go unseen
    switches = F.max_pool2d(torch.rand(1, 5, 8, 10), 2, return_indices=True)[1]
    signal = torch.randn(1, 5, 4, 5)
    up = F.max_unpool2d(signal, switches, (2, 2))

    def back(maps: Tensor) -> Tensor:
        return F.conv_transpose2d(maps, weight, padding=1)

    expected = back(up.relu())
    mistakes = {
        "The signal is not rectified: only what is positive may go on": back(up),
        "Rectify before the filter, not after it": back(up).relu(),
        "Rectify once: below this convolution there is no ReLU": back(up.relu()).relu(),
        "This is a forward convolution: on the way back every value paints its kernel": (
            F.conv2d(up.relu(), weight.transpose(0, 1), padding=1)
        ),
        "Values fill their whole windows: use the switches": back(
            F.interpolate(signal, scale_factor=2.0).relu()
        ),
        "The padding of the convolution is not taken off again": F.conv_transpose2d(
            up.relu(), weight
        ),
    }
    found = call(function, signal, switches, weight)
    same(found, expected, what="the signal below the convolution", mistakes=mistakes)
    right("Unpool, rectify, filter: one stage of the deconvnet.")


def correlation(function: Callable[..., Any]) -> None:
    """The correlation of each pair of maps: ``function(a, b)``, N×C×H×W twice, to N numbers."""
    a, noise = torch.randn(2, 4, 3, 6, 5).double() + torch.arange(1.0, 5).view(4, 1, 1, 1)
    b = a * torch.tensor([1.0, -1, 0.3, 2]).view(4, 1, 1, 1) + noise
    u, v = a.flatten(1), b.flatten(1)
    cu, cv = u - u.mean(1, keepdim=True), v - v.mean(1, keepdim=True)
    expected = (cu * cv).sum(1) / (cu.norm(dim=1) * cv.norm(dim=1))
    everything = torch.corrcoef(torch.stack([u.flatten(), v.flatten()]))[0, 1]
    mistakes = {
        "The means are not taken off: this is the cosine of the two maps": F.cosine_similarity(
            u, v
        ),
        "One number for each pair of maps, not one for the whole batch": everything,
        "This is the covariance: divide by both maps' lengths": (cu * cv).mean(1),
        "This is the covariance, as a sum: divide by both maps' lengths": (cu * cv).sum(1),
        "Keep the sign: two maps can be opposites": expected.abs(),
        "This is the square of it": expected**2,
        "The absolute values of the maps are compared: keep the signs": _pearson(u.abs(), v.abs()),
        "The average of the N numbers hides what they are: return all N": expected.mean(),
    }
    same(call(function, a, b), expected, what="the correlation", mistakes=mistakes)
    right("1 for equal maps, −1 for opposites, one number for each pair.")


def _shared_switches(height: int, width: int) -> Tensor:
    """The switches of a 3×3 pooling with stride 2, some of them shared."""
    while True:
        maps = torch.rand(1, 1, height, width)
        switches = F.max_pool2d(maps, 3, 2, return_indices=True)[1]
        if deconvnet.shared_fraction(switches) > 0.4:
            return switches[0, 0]


def _corners(values: Tensor, height: int, width: int) -> Tensor:
    out = torch.zeros(height, width)
    out[: 2 * values.shape[0] : 2, : 2 * values.shape[1] : 2] = values
    return out


def _pearson(u: Tensor, v: Tensor) -> Tensor:
    u, v = u - u.mean(1, keepdim=True), v - v.mean(1, keepdim=True)
    return (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))


def _equal(found: Any, expected: Tensor) -> bool:
    return (
        isinstance(found, Tensor)
        and found.shape == expected.shape
        and torch.allclose(found.float(), expected)
    )
