"""How much of the class score is due to each pixel: Taylor, FullGrad, layer-wise relevance.

A gradient says how the score ``f = y_c`` would change. The methods here ask what it consists of:
``f(x) ≈ Σ_i R_i``, with a relevance ``R_i`` for each pixel.

    sensitivity        R_i = (∂f/∂x_i)²                     sums to ‖∇f‖², not to f
    gradient × input   R_i = x_i ∂f/∂x_i                    f, for a net with ReLUs and no biases
    simple Taylor      R_i = (x_i - x̃_i) ∂f/∂x_i(x̃)         f to first order, where f(x̃) = 0
    FullGrad           f = Σ_i x_i ∂f/∂x_i + Σ_b b ∂f/∂b    exactly, b at every place of every layer
    LRP                layer by layer, from the score down  f, up to what biases absorb

All take ``model`` (N×C×H×W → N×K logits), ``x`` and ``target`` as in `vislib.explain.gradients`, and leave
the model as it was. LRP's rules are in `vislib.explain.lrp.rules`, and which layer gets which in
`vislib.explain.lrp.composites`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vislib.core import (
    FAMILIES,
    BackwardRules,
    Layer,
    Operation,
    Rule,
    Target,
    one_forward,
)
from vislib.explain.lrp.composites import Composite, assign, find_composite, first_layers, rule_name
from vislib.explain.lrp.operations import (
    check_known,
)
from vislib.explain.lrp.rules import pass_rule, z_box_rule
from vislib.layers import operation_labels

# ------------------------------------------------------------ simple Taylor decomposition


# ------------------------------------------------------------ FullGrad


# ------------------------------------------------------------ layer-wise relevance propagation


def lrp(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    rule: str | Rule | Composite = "epsilon_plus",
    layer: Layer | None = None,
    **options: Any,
) -> Tensor:
    """Layer-wise relevance propagation: N×C×H×W, signed, sums to ``y_c`` up to what is absorbed.

    `rule` is the name of a composite in `vislib.explain.lrp.composites.COMPOSITES` with its `options`, a
    `Composite` of your own, or one rule for all layers:

    >>> lrp(model, x, 3, rule="epsilon_gamma_box", gamma=0.1)                      # doctest: +SKIP
    >>> lrp(model, x, 3, rule=Composite(dense=zero_rule, convolution=gamma_rule))  # doctest: +SKIP

    With `layer` the relevance of that layer's output instead of the pixels'.

    Relevance starts as ``R = y_c``. Activations pass it on, max pooling gives it to the maximum,
    sums and averages share it out by LRP-ε, and a BatchNorm right after a layer is a part of it. So
    nets with BatchNorm and residual sums need no surgery. What biases and ε get is lost on the way
    (`relevance_by_layer` shows where), everything else is conserved. LRP-0 is gradient × input.

    ``ValueError`` for a rule that does not exist, pixels outside the zB rule's box, and operations
    that LRP has no rule for (gates, softmax, layer norm).
    Bach et al. 2015, "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise
    Relevance Propagation"; Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview".
    """
    return _propagate(model, x, target, find_composite(rule, **options), layer)[0]


@dataclass(frozen=True)
class LayerRelevance:
    """One operation on the way down, and the sums of relevance of each image, N numbers each.

    Attributes:
        name: of the layer in the model, or of the operation where it has no weights.
        family: of the operation, a key of `vislib.core.FAMILIES`.
        rule: the name of its rule.
        above: at its output.
        below: at its inputs; what is missing went to its bias or to ε.
        left: in the whole net once this operation is passed. In a chain of layers that is `below`,
            where paths run side by side, `above` and `below` are one path's share.
    """

    name: str
    family: str
    rule: str
    above: Tensor
    below: Tensor
    left: Tensor


def relevance_by_layer(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    rule: str | Rule | Composite = "epsilon_plus",
    **options: Any,
) -> list[LayerRelevance]:
    """How much relevance `lrp` has left after each operation, from the score down to the pixels.

    Operations that pass relevance on unchanged are not listed.
    """
    return _propagate(model, x, target, find_composite(rule, **options), None)[1]


def _propagate(
    model: nn.Module, x: Tensor, target: Target, composite: Composite, layer: Layer | None
) -> tuple[Tensor, list[LayerRelevance]]:
    rules: dict[Operation, Rule] = {}
    steps: list[LayerRelevance] = []
    name = operation_labels(model)

    def answer(operation: Operation, signal: Tensor) -> tuple[Tensor, ...]:
        rule = rules[operation]
        relevance = rule(operation, signal)
        if rule is not pass_rule:
            above = _sums(signal)
            below = torch.stack([_sums(r) for r in relevance]).sum(dim=0)
            left = (steps[-1].left if steps else start) + below - above
            told = (name(operation), operation.family, rule_name(rule))
            steps.append(LayerRelevance(*told, above, below, left))
        return relevance

    with one_forward(model, x, target, layer=layer, families=list(FAMILIES)) as forward:
        check_known(forward.others, "LRP")
        boxes = {}
        if composite.first is z_box_rule:
            boxes = _boxes(model, x, composite.box, first_layers(forward.operations))
        rules |= assign(forward.operations, composite, boxes)
        for operation in rules:
            if operation.output.ndim == 0:
                raise ValueError(
                    f"LRP explains each image by itself, but this {operation.name} makes one "
                    "number of all images: give it the dims of one image"
                )
        start = forward.y.detach()
        answers: dict[str, Any] = dict.fromkeys(FAMILIES, answer)
        (relevance,) = forward.backward(forward.maps, signal=start, **answers)
    return relevance, steps


def _sums(relevance: Tensor) -> Tensor:
    return relevance.flatten(1).sum(dim=1)


class _Reached(Exception):
    pass


class _UpTo(BackwardRules):
    """Leave the forward pass, by `_Reached`, once `stop` operations were recorded."""

    def __init__(self, stop: int) -> None:
        super().__init__(*FAMILIES)
        self.stop = stop

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if len(self.operations) >= self.stop:
            raise _Reached
        return super().__torch_function__(func, types, args, kwargs)


def _boxes(
    model: nn.Module, x: Tensor, box: tuple[Any, Any], layers: Sequence[int]
) -> dict[int, tuple[Tensor, Tensor]]:
    """Bounds of the inputs of the first layers, from those of the pixels.

    They are what the layers get for the image of all lowest and that of all highest values, with
    the normalisation in between, whatever it is.
    """
    ends = [torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in box]
    low, high = (end.expand(x.shape[1:]) for end in ends)
    if (x < low).any() or (x > high).any():
        raise ValueError(
            f"the zB rule needs pixels within its box, low={box[0]} to high={box[1]}, but these "
            f"lie between {x.min():.3g} and {x.max():.3g}: pass low= and high="
        )
    rules = _UpTo(stop=max(layers, default=-1) + 1)
    with rules, suppress(_Reached):
        model(torch.stack([low, high]).requires_grad_().clone())
    inputs = {i: rules.operations[i].inputs[0].detach() for i in layers}
    return {i: (v.amin(0, keepdim=True), v.amax(0, keepdim=True)) for i, v in inputs.items()}
