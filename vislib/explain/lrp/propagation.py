"""Layer-wise relevance propagation from the score to the pixels.

`lrp` returns the relevance of the pixels or of a hidden layer. `relevance_by_layer` returns the sum
of relevance at each operation, which shows how much of the score is conserved. Both run the model
once, assign a rule to each operation of the forward pass (`vislib.explain.lrp.composites`), and let
PyTorch's backward pass apply the rules.

References:
    Bach et al. 2015, "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise
    Relevance Propagation".
    Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview".
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
from vislib.explain.lrp.operations import check_known
from vislib.explain.lrp.rules import pass_rule, z_box_rule
from vislib.layers import operation_labels


def lrp(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    rule: str | Rule | Composite = "epsilon_plus",
    layer: Layer | None = None,
    **options: Any,
) -> Tensor:
    """Layer-wise relevance propagation: the relevance of each pixel, N×C×H×W, signed.

    Bach et al. 2015; Montavon et al. 2019. Relevance starts at the score ``y_c``. Activations pass
    it on unchanged, max pooling gives it to the maximum, sums and averages redistribute it by
    LRP-ε. Batch normalisation that directly follows a layer is merged into this layer, so networks
    with batch normalisation and residual sums need no canonisation.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        rule: name of a composite in `vislib.explain.lrp.composites.COMPOSITES`, a `Composite`, or
            one rule of `vislib.explain.lrp.rules` for all layers.
        layer: module of the model or its dotted name, whose output gets the relevance instead of
            the pixels.
        options: parameters of a named composite, such as ``gamma=0.1``.

    Returns:
        The relevance ``R_i`` in the shape of `x`, or of the output of `layer`. The values of each
        image sum to its score, except for the relevance that biases and ε absorb
        (`relevance_by_layer` shows where).

    Raises:
        ValueError: the rule, an option, the target or the layer does not exist, pixels are outside
            the box of the zB rule, or LRP has no rule for an operation of the model (gates,
            softmax, layer normalisation).

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(
    ...     nn.Conv2d(3, 4, 3, bias=False),
    ...     nn.ReLU(),
    ...     nn.AdaptiveAvgPool2d(1),
    ...     nn.Flatten(),
    ...     nn.Linear(4, 5, bias=False),
    ... )
    >>> x = torch.rand(1, 3, 8, 8)
    >>> relevance = lrp(model, x, target=3, rule="epsilon_gamma_box", gamma=0.1)
    >>> torch.allclose(relevance.sum(), model(x)[0, 3], rtol=1e-3)
    True
    """
    return _propagate(model, x, target, find_composite(rule, **options), layer)[0]


@dataclass(frozen=True)
class LayerRelevance:
    """Sums of relevance before and after one operation of the backward pass.

    Attributes:
        name: dotted name of the layer, or the name of an operation without weights.
        family: family of the operation, a key of `vislib.core.FAMILIES`.
        rule: name of its rule.
        at_output: sum of relevance at the output, N numbers.
        at_inputs: sum of relevance at the inputs, N numbers. The bias or ε of the operation has
            absorbed ``at_output - at_inputs``.
        remaining: sum of relevance in the whole network after this step, N numbers. In a chain of
            layers it equals `at_inputs`. If several paths are parallel, `at_output` and `at_inputs`
            are the sums on one path.
    """

    name: str
    family: str
    rule: str
    at_output: Tensor
    at_inputs: Tensor
    remaining: Tensor


def relevance_by_layer(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    rule: str | Rule | Composite = "epsilon_plus",
    **options: Any,
) -> list[LayerRelevance]:
    """Sums of relevance at each operation, from the score to the pixels.

    Operations that pass relevance on unchanged are left out.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        rule, options: as in `lrp`.

    Returns:
        One `LayerRelevance` for each operation, in the order of the backward pass.

    Raises:
        ValueError: as in `lrp`.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4, 5))
    >>> steps = relevance_by_layer(model, torch.rand(2, 3, 8, 8), target=3)
    >>> [(step.name, step.rule) for step in steps]
    [('3', 'epsilon'), ('0', 'z_plus')]
    """
    return _propagate(model, x, target, find_composite(rule, **options), None)[1]


def _propagate(
    model: nn.Module, x: Tensor, target: Target, composite: Composite, layer: Layer | None
) -> tuple[Tensor, list[LayerRelevance]]:
    """Relevance at the layer (default: at the pixels), and the steps of the backward pass to it."""
    rules: dict[Operation, Rule] = {}
    steps: list[LayerRelevance] = []
    label = operation_labels(model)

    def apply_rule(operation: Operation, relevance: Tensor) -> tuple[Tensor, ...]:
        rule = rules[operation]
        result = rule(operation, relevance)
        if rule is not pass_rule:
            at_output = _sum_per_image(relevance)
            at_inputs = torch.stack([_sum_per_image(r) for r in result]).sum(dim=0)
            before = steps[-1].remaining if steps else forward.y.detach()
            steps.append(
                LayerRelevance(
                    name=label(operation),
                    family=operation.family,
                    rule=rule_name(rule),
                    at_output=at_output,
                    at_inputs=at_inputs,
                    remaining=before + at_inputs - at_output,
                )
            )
        return result

    with one_forward(model, x, target, layer=layer, families=list(FAMILIES)) as forward:
        check_known(forward.others, "LRP")
        boxes = {}
        if composite.first is z_box_rule:
            boxes = _boxes(model, x, composite.box, first_layers(forward.operations))
        rules |= assign(forward.operations, composite, boxes)
        for operation in rules:
            if operation.output.ndim == 0:
                raise ValueError(
                    f"LRP explains each image separately, but this {operation.name} reduces the "
                    "whole batch to one number: pass dim= without the batch dimension"
                )
        by_family: dict[str, Any] = dict.fromkeys(FAMILIES, apply_rule)
        (relevance,) = forward.backward(forward.maps, signal=forward.contributions, **by_family)
    return relevance, steps


def _sum_per_image(relevance: Tensor) -> Tensor:
    return relevance.flatten(1).sum(dim=1)


# --- Bounds of the zB rule ------------------------------------------------------------------------


def _boxes(
    model: nn.Module, x: Tensor, box: tuple[Any, Any], layers: Sequence[int]
) -> dict[int, tuple[Tensor, Tensor]]:
    """Bounds of the inputs of the first layers, by the index of the layer, from those of pixels.

    An image of all smallest values and an image of all largest values run through the model up to
    these layers, so that any normalisation before them also applies to the bounds.
    """
    ends = [torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in box]
    low, high = (end.expand(x.shape[1:]) for end in ends)
    if (x < low).any() or (x > high).any():
        raise ValueError(
            f"the zB rule needs pixels within its box, low={box[0]} to high={box[1]}, got pixels "
            f"between {x.min():.3g} and {x.max():.3g}: set low= and high="
        )
    recording = _RecordUntil(max(layers, default=-1) + 1)
    with recording, suppress(_StopForward):
        model(torch.stack([low, high]).requires_grad_().clone())
    inputs = {i: recording.operations[i].inputs[0].detach() for i in layers}
    return {i: (v.amin(0, keepdim=True), v.amax(0, keepdim=True)) for i, v in inputs.items()}


class _StopForward(Exception):
    """Raised inside the model's forward method to leave it early, see `_RecordUntil`."""


class _RecordUntil(BackwardRules):
    """Record the first `count` operations of a forward pass, then raise `_StopForward`.

    An exception is the only way to leave the forward method of a model that may call functions as
    well as modules. The rest of the forward pass must not run: it would cost time and memory, it
    may not accept a batch of two images, and hooks would count it as a second forward pass.
    """

    def __init__(self, count: int) -> None:
        super().__init__(*FAMILIES)
        self.limit = count

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if len(self.operations) >= self.limit:
            raise _StopForward
        return super().__torch_function__(func, types, args, kwargs)
