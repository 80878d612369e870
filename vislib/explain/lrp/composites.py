"""Composites of layer-wise relevance propagation: which layer of a network gets which rule.

One rule for the whole network is seldom the best choice (Montavon et al. 2019). In the late layers
many concepts are mixed, and contributions that cancel must be kept (LRP-0, LRP-ε). In the
convolutions before them, rules that favour positive contributions give less noise (γ, αβ, z⁺). At
the pixels, a value of 0 is a colour and not the absence of a signal (zB, flat).

A `Composite` assigns rules to layers by their kind and depth. `assign` applies it to the operations
of a forward pass. If zennit (Anders et al. 2021) has the same composite, the name in `COMPOSITES`
is that of zennit.

References:
    Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview".
    Anders et al. 2021, "Software for Dataset-wide XAI: From Local Explanations to Global Insights
    with Zennit, CoRelAy, and ViRelAy".
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
    """Rules for the operations of a network.

    Attributes:
        dense: rule of dense layers.
        convolution: rule of convolutions. Several rules are distributed over the depth: of two
            rules, the first one is for the first half of the convolutions, counted from the pixels.
        first: rule of the layers that see the pixels (default: as for the other layers).
            `z_box_rule` takes its bounds from `box`.
        sums: rule of averages and of sums of feature maps (the end of a residual block).
        affine: rule of shifts by a constant, such as the normalisation of the image, and of batch
            normalisation that does not follow a layer. With `pass_rule` their constants get no
            relevance.
        bias: whether the denominators contain the biases. If False, biases absorb no relevance.
        box: smallest and largest value of a pixel, as numbers or tensors C×1×1.

    >>> from functools import partial
    >>> from vislib.explain.lrp import lrp
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 4, 3),
    ...     torch.nn.ReLU(),
    ...     torch.nn.AdaptiveAvgPool2d(1),
    ...     torch.nn.Flatten(),
    ...     torch.nn.Linear(4, 5),
    ... )
    >>> composite = Composite(
    ...     dense=epsilon_rule, convolution=partial(gamma_rule, gamma=0.1), first=z_box_rule
    ... )
    >>> lrp(model, torch.rand(2, 3, 8, 8), target=3, rule=composite).shape
    torch.Size([2, 3, 8, 8])
    """

    dense: Rule
    convolution: Rule | Sequence[Rule]
    first: Rule | None = None
    sums: Rule = epsilon_rule
    affine: Rule = pass_rule
    bias: bool = True
    box: tuple[Any, Any] = (0.0, 1.0)


# --- Composites by name ---------------------------------------------------------------------------


def uniform(rule: Rule) -> Composite:
    """Same rule in every layer."""
    return Composite(dense=rule, convolution=rule)


def lrp_zero() -> Composite:
    """LRP-0 in every layer, which is gradient × input for a network with ReLUs."""
    return Composite(zero_rule, zero_rule, sums=zero_rule, affine=zero_rule)


def lrp_epsilon(epsilon: float = STABILISER, relative: bool = False) -> Composite:
    """LRP-ε in every layer. Sums, averages and shifts keep the default ε of `rules.STABILISER`.

    Args:
        epsilon, relative: as in `rules.epsilon_rule`.

    Raises:
        ValueError: `epsilon` is negative.
    """
    rule = partial(epsilon_rule, epsilon=_at_least_0("epsilon", epsilon), relative=relative)
    return Composite(rule, rule, affine=epsilon_rule)


def lrp_gamma(gamma: float = 0.25) -> Composite:
    """LRP-γ in every layer.

    Args:
        gamma: γ, at least 0.

    Raises:
        ValueError: `gamma` is negative.
    """
    return uniform(partial(gamma_rule, gamma=_at_least_0("gamma", gamma)))


def lrp_alpha_beta(alpha: float = 2.0, beta: float = 1.0) -> Composite:
    """LRP-αβ in every layer.

    Args:
        alpha: α = 1 + β.
        beta: β, at least 0.

    Raises:
        ValueError: ``α - β`` is not 1, or `beta` is negative.
    """
    if abs(alpha - beta - 1) > 1e-9 or beta < 0:
        raise ValueError(
            f"LRP-αβ needs alpha - beta = 1 and beta >= 0, so that relevance is conserved, got "
            f"alpha={alpha}, beta={beta}"
        )
    return uniform(partial(alpha_beta_rule, alpha=alpha, beta=beta))


def epsilon_plus(epsilon: float = STABILISER) -> Composite:
    """LRP-ε in dense layers, z⁺ in convolutions."""
    return Composite(_epsilon(epsilon), z_plus_rule)


def epsilon_plus_flat(epsilon: float = STABILISER) -> Composite:
    """LRP-ε in dense layers, z⁺ in convolutions, flat at the pixels."""
    return Composite(_epsilon(epsilon), z_plus_rule, flat_rule)


def epsilon_alpha2_beta1(epsilon: float = STABILISER) -> Composite:
    """LRP-ε in dense layers, α2β1 in convolutions."""
    return Composite(_epsilon(epsilon), alpha_beta_rule)


def epsilon_alpha2_beta1_flat(epsilon: float = STABILISER) -> Composite:
    """LRP-ε in dense layers, α2β1 in convolutions, flat at the pixels."""
    return Composite(_epsilon(epsilon), alpha_beta_rule, flat_rule)


def epsilon_gamma_box(
    epsilon: float = STABILISER, gamma: float = 0.25, low: Any = 0.0, high: Any = 1.0
) -> Composite:
    """LRP-ε in dense layers, γ in convolutions, zB at the pixels.

    Args:
        epsilon: ε, at least 0.
        gamma: γ, at least 0.
        low: smallest value of a pixel, a number or C×1×1.
        high: largest value of a pixel, a number or C×1×1.

    Raises:
        ValueError: `epsilon` or `gamma` is negative.
    """
    rule = partial(gamma_rule, gamma=_at_least_0("gamma", gamma))
    return Composite(_epsilon(epsilon), rule, z_box_rule, box=(low, high))


def by_depth(
    epsilon: float = 0.25, gamma: float = 0.25, low: Any = 0.0, high: Any = 1.0
) -> Composite:
    """Composite of Montavon et al. 2019: from the pixels to the score zB, γ, ε and LRP-0.

    LRP-γ is for the first half of the convolutions, LRP-ε for the second half, and LRP-0 for the
    dense layers. As in the paper, ε is relative to the root mean square of the outputs z.

    Args:
        epsilon: ε, at least 0.
        gamma: γ, at least 0.
        low: smallest value of a pixel, a number or C×1×1.
        high: largest value of a pixel, a number or C×1×1.

    Raises:
        ValueError: `epsilon` or `gamma` is negative.
    """
    early = partial(gamma_rule, gamma=_at_least_0("gamma", gamma))
    late = partial(epsilon_rule, epsilon=_at_least_0("epsilon", epsilon), relative=True)
    return Composite(zero_rule, (early, late), z_box_rule, box=(low, high))


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
    """Composite from its name or from one rule for all layers, or the given composite.

    Args:
        rule: key of `COMPOSITES`, rule function, or `Composite`.
        options: parameters of the named composite, such as ``gamma=0.1``.

    Raises:
        ValueError: the name or an option does not exist (the message suggests the nearest one), an
            option has a wrong value, or options are given although `rule` is not a name.
    """
    if isinstance(rule, str):
        if rule not in COMPOSITES:
            raise ValueError(
                f"rule must be the name of a composite, got {rule!r}: {nearest(rule, COMPOSITES)}"
            )
        known = inspect.signature(COMPOSITES[rule]).parameters
        for option in options.keys() - known.keys():
            raise ValueError(
                f"composite {rule!r} has no option {option!r}: {nearest(option, known)}"
            )
        return COMPOSITES[rule](**options)
    if options:
        raise ValueError(
            f"options ({', '.join(options)}) are allowed only if rule is a name, got {rule!r}: "
            "set them in the rule, for example with functools.partial"
        )
    if isinstance(rule, Composite):
        return rule
    if not callable(rule):
        raise ValueError(f"rule must be a name, a Composite or a rule function, got {rule!r}")
    return uniform(rule)


# --- Assignment of rules to operations ------------------------------------------------------------


def first_layers(operations: Sequence[Operation]) -> list[int]:
    """Indices of the layers that see the pixels, with no other layer between."""
    # Layers, and operations that are computed from the output of a layer.
    after_layer: set[Operation] = set()
    indices = []
    for i, operation in enumerate(operations):
        is_layer = operation.family in ("convolution", "dense")
        sees_layer = any(source in after_layer for source in operation.sources)
        if is_layer and not sees_layer:
            indices.append(i)
        if is_layer or sees_layer:
            after_layer.add(operation)
    return indices


def norms_after(operations: Sequence[Operation]) -> dict[Operation, Operation]:
    """Batch normalisations that directly follow a layer, by the layer.

    A batch normalisation directly follows a layer if its input is the unchanged output of the layer
    and if no other operation uses this output.
    """
    uses = Counter(source for operation in operations for source in operation.sources)
    norms = {}
    for norm in operations:
        if norm.family == "batch_norm" and len(norm.sources) == 1:
            (layer,), (maps,) = norm.sources, norm.inputs
            # Merging needs a row of weights for each channel of the normalisation. Transposed
            # convolutions do not have such rows. For a dense layer on N×L×C the normalisation takes
            # the dimension L for its channels.
            is_convolution = layer.family == "convolution" and "transpose" not in layer.name
            is_layer = is_convolution or (layer.family == "dense" and maps.ndim == 2)
            if is_layer and uses[layer] == 1 and torch.equal(maps, layer.output):
                norms[layer] = norm
    return norms


def assign(
    operations: Sequence[Operation],
    composite: Composite,
    boxes: dict[int, tuple[Tensor, Tensor]],
) -> dict[Operation, Rule]:
    """Rule of each operation under a composite.

    Batch normalisation is merged into the layer that it directly follows.

    Args:
        operations: operations of a forward pass, in the order of the calls.
        composite: the rules.
        boxes: lower and upper bounds of the inputs of the layers with `rules.z_box_rule`, by the
            index of the layer.

    Raises:
        ValueError: LRP has no rule for an operation.
    """
    first, norms = set(first_layers(operations)), norms_after(operations)
    rules = composite.convolution
    rules = (rules,) if callable(rules) else tuple(rules)
    convolutions = [op for op in operations if op.family == "convolution"]
    depth = {op: k * len(rules) // len(convolutions) for k, op in enumerate(convolutions)}

    def rule_of(i: int, operation: Operation) -> Rule:
        if operation.family in ("convolution", "dense"):
            rule = rules[depth[operation]] if operation in depth else composite.dense
            if i in first and composite.first is not None:
                rule = composite.first
            if i in boxes:
                rule = partial(z_box_rule, low=boxes[i][0], high=boxes[i][1])
            norm = norms.get(operation)
            return partial(in_layer, rule=rule, norm=norm, bias=composite.bias)
        if operation.family == "batch_norm":
            # The result is not used. The call raises if the batch normalisation is not linear.
            affine_of(operation)
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
    operation: Operation, relevance: Tensor, *, rule: Rule, norm: Operation | None, bias: bool
) -> tuple[Tensor, ...]:
    """Relevance of the input of a layer, with or without its bias.

    Args:
        operation: the layer.
        relevance: relevance of the output of the layer, or of the output of `norm`.
        rule: rule of the layer.
        norm: batch normalisation that is merged into the layer, or None.
        bias: whether the denominators contain the bias.
    """
    layer = as_layer(operation)
    layer = layer if norm is None else with_norm(layer, norm)
    return rule(layer if bias else without_bias(layer), relevance)


def rule_name(rule: Rule) -> str:
    """Name of a rule, such as ``"gamma"`` for `gamma_rule`, also if its parameters are set."""
    while isinstance(rule, partial):
        rule = rule.keywords.get("rule", rule.func)
    return rule.__name__.removesuffix("_rule")
