"""Composites of layer-wise relevance propagation: which layer of a net gets which rule.

One rule for the whole net is seldom the best (Montavon et al. 2019, "Layer-Wise Relevance
Propagation: An Overview"): near the score many concepts mix, and contributions that cancel must be
kept (0, ε); in the convolutions below, a rule that favours positive contributions gives less noise
(γ, αβ, z⁺); and at the pixels a value of 0 is no absence (zB, flat). A `Composite` says so in a
line, by the kind of the layer and its depth, and `assign` puts it on the operations of a forward
pass. Names are those of zennit (Anders et al. 2021).
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vislib.core import Operation, Rule
from vislib.errors import nearest
from vislib.explain.lrp.operations import (
    affine_of,
    as_layer,
    image_factors,
    is_shift,
    with_norm,
    without_bias,
)
from vislib.explain.lrp.rules import (
    STABILISER,
    alpha_beta_rule,
    epsilon_rule,
    flat_rule,
    gamma_rule,
    pass_rule,
    w_square_rule,
    z_box_rule,
    z_plus_rule,
    zero_rule,
)


@dataclass(frozen=True)
class Composite:
    """Which rule goes where.

    Attributes:
        dense: rule of dense layers.
        convolution: rule of convolutions, or several, from the pixels up: with two of them, the
            lower half of the convolutions gets the first.
        first: rule of the layers that see the pixels (default: as the others). `z_box_rule` takes
            its bounds from `box`.
        sums: rule of sums of maps (the end of a residual block) and of averages.
        affine: rule of a BatchNorm that no layer precedes and of shifts by a constant, such as the
            normalisation of the image. With `pass_rule` their constants get no relevance.
        bias: False computes all layers' denominators without bias: nothing is lost to it.
        box: least and largest value of a pixel, numbers or tensors of shape C×1×1.
    """

    dense: Rule
    convolution: Rule | Sequence[Rule]
    first: Rule | None = None
    sums: Rule = epsilon_rule
    affine: Rule = pass_rule
    bias: bool = True
    box: tuple[Any, Any] = (0.0, 1.0)


def uniform(rule: Rule) -> Composite:
    """The same rule for every layer."""
    return Composite(dense=rule, convolution=rule)


def lrp_zero() -> Composite:
    """LRP-0 everywhere: gradient × input, for a net with ReLUs."""
    return Composite(zero_rule, zero_rule, sums=zero_rule, affine=zero_rule)


def lrp_epsilon(epsilon: float = STABILISER, relative: bool = False) -> Composite:
    """LRP-ε everywhere."""
    rule = partial(epsilon_rule, epsilon=_at_least_0("epsilon", epsilon), relative=relative)
    return Composite(rule, rule, affine=epsilon_rule)


def lrp_gamma(gamma: float = 0.25) -> Composite:
    """LRP-γ in every layer."""
    return uniform(partial(gamma_rule, gamma=_at_least_0("gamma", gamma)))


def lrp_alpha_beta(alpha: float = 2.0, beta: float = 1.0) -> Composite:
    """LRP-αβ in every layer. ``ValueError`` where not ``α - β = 1`` and ``β ≥ 0``."""
    if abs(alpha - beta - 1) > 1e-9 or beta < 0:
        raise ValueError(
            f"LRP-αβ needs alpha - beta = 1 and beta >= 0, got alpha={alpha}, beta={beta}: "
            "otherwise relevance would not be conserved"
        )
    return uniform(partial(alpha_beta_rule, alpha=alpha, beta=beta))


def epsilon_plus(epsilon: float = STABILISER) -> Composite:
    """ε in dense layers, z⁺ in convolutions."""
    return Composite(_epsilon(epsilon), z_plus_rule)


def epsilon_plus_flat(epsilon: float = STABILISER) -> Composite:
    """ε in dense layers, z⁺ in convolutions, flat at the pixels."""
    return Composite(_epsilon(epsilon), z_plus_rule, flat_rule)


def epsilon_alpha2_beta1(epsilon: float = STABILISER) -> Composite:
    """ε in dense layers, α2β1 in convolutions."""
    return Composite(_epsilon(epsilon), alpha_beta_rule)


def epsilon_alpha2_beta1_flat(epsilon: float = STABILISER) -> Composite:
    """ε in dense layers, α2β1 in convolutions, flat at the pixels."""
    return Composite(_epsilon(epsilon), alpha_beta_rule, flat_rule)


def epsilon_gamma_box(
    epsilon: float = STABILISER, gamma: float = 0.25, low: Any = 0.0, high: Any = 1.0
) -> Composite:
    """ε in dense layers, γ in convolutions, zB at the pixels."""
    rule = partial(gamma_rule, gamma=_at_least_0("gamma", gamma))
    return Composite(_epsilon(epsilon), rule, z_box_rule, box=(low, high))


def by_depth(
    epsilon: float = 0.25, gamma: float = 0.25, low: Any = 0.0, high: Any = 1.0
) -> Composite:
    """From the pixels up zB, γ, ε and 0, after Montavon et al. 2019.

    ε is relative to the size of the neurons' values here, as in that paper.
    """
    middle = partial(epsilon_rule, epsilon=_at_least_0("epsilon", epsilon), relative=True)
    lower = partial(gamma_rule, gamma=_at_least_0("gamma", gamma))
    return Composite(zero_rule, (lower, middle), z_box_rule, box=(low, high))


def _epsilon(value: float) -> Rule:
    return partial(epsilon_rule, epsilon=_at_least_0("epsilon", value))


def _at_least_0(name: str, value: float) -> float:
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return value


COMPOSITES: dict[str, Callable[..., Composite]] = {
    "zero": lrp_zero,
    "epsilon": lrp_epsilon,
    "gamma": lrp_gamma,
    "alpha_beta": lrp_alpha_beta,
    "z_plus": partial(uniform, z_plus_rule),
    "w_square": partial(uniform, w_square_rule),
    "flat": partial(uniform, flat_rule),
    "epsilon_plus": epsilon_plus,
    "epsilon_plus_flat": epsilon_plus_flat,
    "epsilon_alpha2_beta1": epsilon_alpha2_beta1,
    "epsilon_alpha2_beta1_flat": epsilon_alpha2_beta1_flat,
    "epsilon_gamma_box": epsilon_gamma_box,
    "by_depth": by_depth,
}


def find_composite(rule: str | Rule | Composite, **options: Any) -> Composite:
    """A composite from its name and options, from one rule for all layers, or itself.

    ``ValueError`` for an unknown name or option, with the nearest known ones.
    """
    if isinstance(rule, str):
        if rule not in COMPOSITES:
            raise ValueError(f"LRP has no rule {rule!r}: {nearest(rule, COMPOSITES)}")
        known = inspect.signature(COMPOSITES[rule]).parameters
        for option in options.keys() - known.keys():
            raise ValueError(f"rule {rule!r} has no option {option!r}: {nearest(option, known)}")
        return COMPOSITES[rule](**options)
    if options:
        raise ValueError(f"options ({', '.join(options)}) go with the name of a rule only")
    if isinstance(rule, Composite):
        return rule
    if not callable(rule):
        raise ValueError(f"rule must be a name, a Composite or a rule function, got {rule!r}")
    return uniform(rule)


# ------------------------------------------------------------ a net under a composite


def first_layers(operations: Sequence[Operation]) -> list[int]:
    """Places of the layers that see the pixels: no other layer lies on their way back."""
    above: set[Operation] = set()  # what is computed from a layer's output
    found = []
    for i, operation in enumerate(operations):
        is_layer = operation.family in ("convolution", "dense")
        behind = any(source in above for source in operation.sources)
        if is_layer and not behind:
            found.append(i)
        if is_layer or behind:
            above.add(operation)
    return found


def norms_after(operations: Sequence[Operation]) -> dict[Operation, Operation]:
    """For each layer that a BatchNorm directly follows, that BatchNorm.

    Directly: its input is the layer's output as it was, and nothing else uses that.
    """
    uses = Counter(source for operation in operations for source in operation.sources)
    found = {}
    for norm in operations:
        if norm.family == "batch_norm" and len(norm.sources) == 1:
            (layer,), (maps,) = norm.sources, norm.inputs
            # A row of weights for each of the norm's channels: not so in transposed convolutions,
            # nor in dense layers on N×L×C, where BatchNorm counts L as the channels.
            is_convolution = layer.family == "convolution" and "transpose" not in layer.name
            is_layer = is_convolution or (layer.family == "dense" and maps.ndim == 2)
            if is_layer and uses[layer] == 1 and torch.equal(maps, layer.output):
                found[layer] = norm
    return found


def assign(
    operations: Sequence[Operation],
    composite: Composite,
    boxes: dict[int, tuple[Tensor, Tensor]],
) -> dict[Operation, Rule]:
    """Each operation's rule under the composite, BatchNorms merged into the layers before them.

    `boxes` holds the bounds of the inputs of `first_layers`, by place, where the composite has
    `z_box_rule` there. ``ValueError`` for operations that LRP has no rule for.
    """
    first, norms = set(first_layers(operations)), norms_after(operations)
    rising = composite.convolution
    rising = (rising,) if callable(rising) else tuple(rising)
    convolutions = [op for op in operations if op.family == "convolution"]
    depth = {op: k * len(rising) // len(convolutions) for k, op in enumerate(convolutions)}

    def rule_of(i: int, operation: Operation) -> Rule:
        if operation.family in ("convolution", "dense"):
            rule = rising[depth[operation]] if operation in depth else composite.dense
            if i in first and composite.first is not None:
                rule = composite.first
            if i in boxes:
                rule = partial(z_box_rule, low=boxes[i][0], high=boxes[i][1])
            norm = norms.get(operation)
            return partial(in_layer, rule=rule, norm=norm, bias=composite.bias)
        if operation.family == "batch_norm":
            affine_of(operation)  # it is one
            return pass_rule if operation in norms.values() else composite.affine
        if operation.family == "scale" and image_factors(operation) > 1:
            raise ValueError(
                f"LRP has no rule for {operation.name} of two tensors that depend on the image "
                "(a gate, as in squeeze-and-excitation blocks)"
            )
        if operation.family in ("sum", "average"):
            return composite.affine if is_shift(operation) else composite.sums
        return pass_rule

    return {operation: rule_of(i, operation) for i, operation in enumerate(operations)}


def in_layer(
    operation: Operation, signal: Tensor, *, rule: Rule, norm: Operation | None, bias: bool
) -> tuple[Tensor, ...]:
    """The rule on a layer, together with the BatchNorm after it, with its bias or without."""
    layer = as_layer(operation)
    layer = layer if norm is None else with_norm(layer, norm)
    return rule(layer if bias else without_bias(layer), signal)


def rule_name(rule: Rule) -> str:
    """``"gamma"`` for `gamma_rule`, also with its parameters set."""
    while isinstance(rule, partial):
        rule = rule.keywords.get("rule", rule.func)
    return rule.__name__.removesuffix("_rule")
