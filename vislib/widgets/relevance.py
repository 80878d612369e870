"""Widget of notebook 14: how much the lower layers favour support, and up to which layer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from vislib import show
from vislib.core import one_forward
from vislib.explain.lrp import lrp
from vislib.explain.lrp.composites import Composite
from vislib.explain.lrp.rules import epsilon_rule, gamma_rule, z_box_rule
from vislib.measure import energy
from vislib.widgets import slider, sliders, whole

if TYPE_CHECKING:
    from ipywidgets import VBox


def convolutions(model: nn.Module, x: Tensor) -> int:
    """How many convolutions a forward pass calls."""
    with one_forward(model, x, 0, families=["convolution"]) as forward:
        return len(forward.operations)


def composite(gamma: float, switch: int, count: int) -> Composite:
    """LRP-γ in the lower `switch` of `count` convolutions, LRP-ε above, zB at the pixels.

    Several rules are spread over the convolutions from the pixels up: with one for each of them,
    the switch may lie anywhere. The first convolution has zB in any case.
    """
    switch = max(0, min(switch, count))
    lower = partial(gamma_rule, gamma=gamma)
    rules = [lower] * switch + [epsilon_rule] * (count - switch)
    return Composite(dense=epsilon_rule, convolution=rules, first=z_box_rule)


def look(
    model: nn.Module, x: Tensor, target: int, mask: np.ndarray, gamma: float, switch: int
) -> tuple[Tensor, float, float]:
    """The map summed over colours, 1×H×W, its share of energy on the mask, and how much it cancels.

    The last number is ``Σ|R| / |ΣR|``: 1 where all relevance has one sign, large where much of it
    cancels.
    """
    rule = composite(gamma, switch, convolutions(model, x))
    R = lrp(model, x, target, rule=rule)[0].sum(dim=0, keepdim=True)
    cancels = float(R.abs().sum() / R.sum().abs())
    return R, energy.energy(R, mask).P, cancels


def draw_look(
    model: nn.Module, x: Tensor, target: int, mask: np.ndarray, gamma: float, switch: int
) -> None:
    """The object outlined, the map, and the map over the scene."""
    R, share, cancels = look(model, x, target, mask, gamma, switch)
    count = convolutions(model, x)
    show.panels(
        {
            "the object": show.outline(x[0], mask, width=2),
            f"γ = {gamma:.2f} in {min(switch, count)} of {count}": show.heat(R),
            f"P = {share:.2f}, Σ|R| / |ΣR| = {cancels:.1f}": show.overlay(x[0], R),
        },
        columns=3,
        size=3.7,
        alt=f"LRP with gamma {gamma:.2f} in the lower {switch} of {count} convolutions: P on the "
        f"object {share:.2f}, the absolute values sum to {cancels:.1f} times the relevance.",
    )


def composites(model: nn.Module, x: Tensor, target: int, mask: np.ndarray) -> VBox:
    """Sliders for γ and for the number of convolutions, from the pixels up, that have it."""
    count = convolutions(model, x)
    return sliders(
        partial(draw_look, model, x, target, mask),
        gamma=slider("γ", 0.25, 0.0, 2.0, 0.05),
        switch=whole("convolutions with γ", count // 2, 0, count),
    )
