"""Interactive figure of notebook 14: the strength γ of LRP-γ, and the layers with this rule."""

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
from vislib.widgets import float_slider, int_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox


def convolutions(model: nn.Module, x: Tensor) -> int:
    """Number of convolutions that a forward pass calls."""
    with one_forward(model, x, 0, families=["convolution"]) as forward:
        return len(forward.operations)


def composite(gamma: float, switch: int, count: int) -> Composite:
    """LRP-γ in the first `switch` of `count` convolutions, LRP-ε after them, zB at the pixels.

    Args:
        gamma: strength γ by which positive contributions are favoured.
        switch: number of convolutions with LRP-γ. The first convolution always has zB.
        count: number of all convolutions.
    """
    switch = max(0, min(switch, count))
    early = partial(gamma_rule, gamma=gamma)
    # With one rule for each convolution, the switch may be at any of them.
    rules = [early] * switch + [epsilon_rule] * (count - switch)
    return Composite(dense=epsilon_rule, convolution=rules, first=z_box_rule)


def look(
    model: nn.Module, x: Tensor, target: int, mask: np.ndarray, gamma: float, switch: int
) -> tuple[Tensor, float, float]:
    """LRP with `composite`, its energy on the object, and how much of the relevance cancels.

    Args:
        model: any network that LRP supports.
        x: image, 1×3×H×W in [0, 1].
        target: target class.
        mask: H×W, True on the object.
        gamma, switch: as in `composite`.

    Returns:
        The map R summed over the colours, 1×H×W; the fraction P of its energy on the mask; and
        ``Σ|R| / |ΣR|``, which is 1 if all relevance has one sign, and large if much of it cancels.
    """
    rule = composite(gamma, switch, convolutions(model, x))
    R = lrp(model, x, target, rule=rule)[0].sum(dim=0, keepdim=True)
    cancellation = float(R.abs().sum() / R.sum().abs())
    return R, energy.energy(R, mask).P, cancellation


def draw_look(
    model: nn.Module, x: Tensor, target: int, mask: np.ndarray, gamma: float, switch: int
) -> None:
    """Draw the outline of the object, the map, and the map over the image.

    Args:
        model, x, target, mask, gamma, switch: as in `look`.
    """
    R, P, cancellation = look(model, x, target, mask, gamma, switch)
    count = convolutions(model, x)
    show.panels(
        {
            "the object": show.outline(x[0], mask, width=2),
            f"γ = {gamma:.2f} in {min(switch, count)} of {count}": show.fine(R, signed=True),
            f"P = {P:.2f}, Σ|R| / |ΣR| = {cancellation:.1f}": show.overlay(x[0], R),
        },
        columns=3,
        alt=f"LRP with gamma {gamma:.2f} in the first {switch} of {count} convolutions: P on the "
        f"object {P:.2f}, the absolute values sum to {cancellation:.1f} times the relevance.",
    )


def composites(model: nn.Module, x: Tensor, target: int, mask: np.ndarray) -> VBox:
    """Sliders for γ and for the number of convolutions with LRP-γ, from the pixels on.

    Args:
        model, x, target, mask: as in `look`.
    """
    count = convolutions(model, x)
    return interactive_figure(
        partial(draw_look, model, x, target, mask),
        gamma=float_slider("γ", 0.25, 0.0, 2.0, 0.05),
        switch=int_slider("convolutions with γ", count // 2, 0, count),
    )
