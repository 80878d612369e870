"""Checks for the exercises of notebook 07, the deconvnet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vislib.checks import Exercise
from vislib.features import deconvnet

# --- Three ways back through a ReLU ---------------------------------------------------------------


def _signals() -> Iterator[tuple[str, Tensor, Tensor]]:
    z, signal = torch.randn(2, 6, 6)
    for method in ("backprop", "deconvnet", "guided"):
        yield method, z, signal


def _gate(method: str, z: Tensor, R: Tensor) -> Tensor:
    """Gate: 1 where the signal passes, else 0."""
    gates = {"backprop": z > 0, "deconvnet": R > 0, "guided": (z > 0) & (R > 0)}
    return gates[method].float()


def _with_gates_of(**others: str) -> Callable[[str, Tensor, Tensor], Tensor]:
    """Mistake with the gates of other methods, such as ``_with_gates_of(guided="backprop")``."""
    return lambda method, z, R: _gate(others.get(method, method), z, R) * R


relu_backwards = Exercise(
    task=(
        "``relu_backwards(method, z, R)``: the signal below a ReLU with input z, for the signal R "
        'above it. `method` is "backprop", "deconvnet" or "guided".'
    ),
    inputs=_signals,
    solution=_with_gates_of(),
    what=lambda method, z, R: f"the signal below the ReLU for {method!r}",
    mistakes={
        "Are backprop and deconvnet swapped? Plain backprop tests where the forward pass was "
        "positive (z > 0), the deconvnet where the signal is (R > 0)": _with_gates_of(
            backprop="deconvnet", deconvnet="backprop"
        ),
        "The gate alone is 0 or 1: multiply it by R": _gate,
        "The signal R passes everywhere: no position is blocked": lambda method, z, R: R,
        "The signal that goes back is R: z only decides where it passes": lambda method, z, R: (
            _gate(method, z, R) * z
        ),
        "Keep the sign: R is blocked or not, but its sign never changes": lambda method, z, R: (
            _gate(method, z, R) * R.abs()
        ),
        "Guided backprop needs two gates, one is missing: this is backprop": _with_gates_of(
            guided="backprop"
        ),
        "Guided backprop needs two gates, one is missing: this is the deconvnet": _with_gates_of(
            guided="deconvnet"
        ),
        "Both conditions must hold, not only one of them": lambda method, z, R: (
            ((z > 0) | (R > 0)) * R if method == "guided" else _gate(method, z, R) * R
        ),
        "The deconvnet does not look at z at all: this is guided backprop": _with_gates_of(
            deconvnet="guided"
        ),
    },
    praise="All three ReLUs answer as in the papers, and nothing is swapped.",
)


# --- Unpooling with overlapping windows -----------------------------------------------------------


def _overlapping(height: int, width: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Values of both signs, as R has before the ReLU, for a 3×3 pooling with stride 2."""
    switches = _shared_switches(height, width)
    return torch.randn(switches.shape), switches, (height, width)


def _shared_switches(height: int, width: int) -> Tensor:
    """Switches of which many are shared by two or more windows."""
    while True:
        maps = torch.rand(1, 1, height, width)
        switches = F.max_pool2d(maps, 3, 2, return_indices=True)[1]
        if deconvnet.shared_fraction(switches) > 0.4:
            return switches[0, 0]


def _unpool(
    values: Tensor, switches: Tensor, shape: tuple[int, int], *, overlap: str = "largest"
) -> Tensor:
    return deconvnet.unpool(values[None, None], switches[None, None], shape, overlap=overlap)[0, 0]


def _swapped(values: Tensor, switches: Tensor, shape: tuple[int, int]) -> Tensor:
    """Switches read as column · height + row."""
    height, width = shape
    return _unpool(values, switches % width * height % (height * width) + switches // width, shape)


def _in_corners(values: Tensor, switches: Tensor, shape: tuple[int, int]) -> Tensor:
    unpooled = torch.zeros(shape)
    unpooled[: 2 * values.shape[0] : 2, : 2 * values.shape[1] : 2] = values
    return unpooled


unpool = Exercise(
    task=(
        "``unpool(values, switches, shape)``: h×w values at their switches in a map of this shape; "
        "of several values at one position, the largest stays."
    ),
    inputs=lambda: [partial(_overlapping, 9, 9), partial(_overlapping, 7, 11)],
    solution=_unpool,
    what="the unpooled map",
    mistakes={
        "Two values at one position are summed: the larger value should stay": (
            lambda values, switches, shape: _unpool(values, switches, shape, overlap="sum")
        ),
        "The last value overwrites the others: the largest value should stay": (
            lambda values, switches, shape: _unpool(values, switches, shape, overlap="last")
        ),
        "The first value stays: the largest value should stay": lambda values, switches, shape: (
            _unpool(values.flip(0, 1), switches.flip(0, 1), shape, overlap="last")
        ),
        "A value below zero is lost: it stays if it is the only value at its position": (
            lambda values, switches, shape: _unpool(values, switches, shape).clamp(min=0)
        ),
        "Rows and columns are swapped: a switch is row · width + column": _swapped,
        "The result is still flat: reshape it": (
            lambda values, switches, shape: _unpool(values, switches, shape).flatten()
        ),
        "The values are in the corners of their windows: use the switches": _in_corners,
    },
    praise="Each value is at its switch, and of several the largest stays.",
    distinct=True,
)


# --- One stage of the deconvnet -------------------------------------------------------------------


def _stages() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Inputs with five maps and four channels, so that a swap of the axes is noticed."""
    weight = torch.randn(5, 4, 3, 3)
    switches = F.max_pool2d(torch.rand(1, 5, 8, 10), 2, return_indices=True)[1]
    yield torch.randn(1, 5, 4, 5), switches, weight


def _up(signal: Tensor, switches: Tensor) -> Tensor:
    return F.max_unpool2d(signal, switches, (2, 2))


def _back(maps: Tensor, weight: Tensor) -> Tensor:
    return F.conv_transpose2d(maps, weight, padding=1)


stage = Exercise(
    task=(
        "``stage(signal, switches, weight)``: unpool, rectify, filter. On the way forward, a 3×3 "
        "convolution with padding 1 and `weight` O×C×3×3, a ReLU and a 2×2 pooling with these "
        "`switches` came one after the other. `signal` is 1×O×h×w, from above the pooling."
    ),
    inputs=_stages,
    solution=lambda signal, switches, weight: _back(_up(signal, switches).relu(), weight),
    what="the signal below the convolution",
    mistakes={
        "The signal is not rectified: only its positive part may go on": (
            lambda signal, switches, weight: _back(_up(signal, switches), weight)
        ),
        "Rectify before the filter, not after it": (
            lambda signal, switches, weight: _back(_up(signal, switches), weight).relu()
        ),
        "Rectify once: below this convolution there is no ReLU": (
            lambda signal, switches, weight: _back(_up(signal, switches).relu(), weight).relu()
        ),
        "This is a forward convolution: on the way back, each value is multiplied by the whole "
        "kernel and added around its position": lambda signal, switches, weight: F.conv2d(
            _up(signal, switches).relu(), weight.transpose(0, 1), padding=1
        ),
        "The values fill their whole windows: use the switches": lambda signal, switches, weight: (
            _back(F.interpolate(signal, scale_factor=2.0).relu(), weight)
        ),
        "The padding of the convolution is not removed again": lambda signal, switches, weight: (
            F.conv_transpose2d(_up(signal, switches).relu(), weight)
        ),
    },
    praise="Unpool, rectify, filter: one stage of the deconvnet.",
)


# --- The correlation of two maps ------------------------------------------------------------------


def _map_pairs() -> Iterator[tuple[Tensor, Tensor]]:
    """Four pairs of maps whose means are not zero; one pair has a negative correlation."""
    a, noise = torch.randn(2, 4, 3, 6, 5).double() + torch.arange(1.0, 5).view(4, 1, 1, 1)
    yield a, a * torch.tensor([1.0, -1, 0.3, 2]).view(4, 1, 1, 1) + noise


def _centred(maps: Tensor) -> Tensor:
    flat = maps.flatten(1)
    return flat - flat.mean(dim=1, keepdim=True)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(_centred(a), _centred(b))


correlation = Exercise(
    task="``correlation(a, b)``: the correlation of each pair of maps, N×C×H×W, to N numbers.",
    inputs=_map_pairs,
    solution=_correlation,
    what="the correlation",
    mistakes={
        "The means are not subtracted: this is the cosine of the two maps": lambda a, b: (
            F.cosine_similarity(a.flatten(1), b.flatten(1))
        ),
        "One number for each pair of maps, not one for the whole batch": lambda a, b: (
            torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        ),
        "This is the covariance: divide by both maps' lengths": lambda a, b: (
            _centred(a) * _centred(b)
        ).mean(dim=1),
        "This is the covariance, as a sum: divide by both maps' lengths": lambda a, b: (
            _centred(a) * _centred(b)
        ).sum(dim=1),
        "Keep the sign: two maps can be opposites": lambda a, b: _correlation(a, b).abs(),
        "This is the square of the correlation": lambda a, b: _correlation(a, b) ** 2,
        "The absolute values of the maps are compared: keep the signs": lambda a, b: _correlation(
            a.abs(), b.abs()
        ),
        "Do not average the N correlations: return one number for each pair": lambda a, b: (
            _correlation(a, b).mean()
        ),
    },
    praise="1 for equal maps, −1 for opposites, one number for each pair.",
)
