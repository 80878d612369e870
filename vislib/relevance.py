"""How much of the class score is due to each pixel: Taylor, FullGrad, layer-wise relevance.

A gradient says how the score ``f = y_c`` would change. The methods here ask what it consists of:
``f(x) ≈ Σ_i R_i``, with a relevance ``R_i`` for each pixel.

    sensitivity        R_i = (∂f/∂x_i)²                     sums to ‖∇f‖², not to f
    gradient × input   R_i = x_i ∂f/∂x_i                    f, for a net with ReLUs and no biases
    simple Taylor      R_i = (x_i - x̃_i) ∂f/∂x_i(x̃)         f to first order, where f(x̃) = 0
    FullGrad           f = Σ_i x_i ∂f/∂x_i + Σ_b b ∂f/∂b    exactly, b at every place of every layer
    LRP                layer by layer, from the score down  f, up to what biases absorb

All take ``model`` (N×C×H×W → N×K logits), ``x`` and ``target`` as in `vislib.gradients`, and leave
the model as it was. LRP's rules are in `vislib.lrp_rules`, and which layer gets which in
`vislib.composites`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vislib.cam import upsample
from vislib.composites import (
    Composite,
    assign,
    check_known,
    find_composite,
    first_layers,
    rule_name,
)
from vislib.core import (
    FAMILIES,
    BackwardRules,
    Layer,
    Operation,
    Rule,
    Target,
    check_images,
    one_forward,
)
from vislib.gradients import gradient
from vislib.lrp_rules import (
    affine_of,
    as_layer,
    at_zero,
    bias_of,
    image_factors,
    is_shift,
    on_channels,
    pass_rule,
    z_box_rule,
)


def sensitivity(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """``R_i = (∂f/∂x_i)²``, N×C×H×W, at least 0; each image's sums to ``‖∇f‖²``.

    It answers what would make this a better example of the class, not what makes it one now.
    Montavon et al. 2018, "Methods for Interpreting and Understanding Deep Neural Networks".
    """
    return gradient(model, x, target).square()


def gradient_x_input(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """``R_i = x_i ∂f/∂x_i``, N×C×H×W, signed. A black pixel (0) gets nothing.

    Shrikumar et al. 2016, "Not Just a Black Box: Learning Important Features Through Propagating
    Activation Differences".
    """
    slope = gradient(model, x, target)
    return x.detach() * slope


# ------------------------------------------------------------ simple Taylor decomposition


def simple_taylor(
    model: nn.Module, x: Tensor, target: Target, root: Tensor | None = None
) -> Tensor:
    """``R_i = ∂f/∂x_i(x̃) · (x_i - x̃_i)`` at a root point ``f(x̃) = 0``, N×C×H×W, signed.

    `root` is x̃, of the shape of `x` or one that broadcasts to it (default: `root_point`'s). The sum
    differs from ``f(x)`` by the terms of higher order. ``ValueError`` where no root is found.
    Montavon et al. 2018; Bach et al. 2015.
    """
    x = check_images(x).detach()
    root = root_point(model, x, target) if root is None else root.detach().to(x).expand_as(x)
    return gradient(model, root, target) * (x - root)


def root_point(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    steps: int = 50,
    tolerance: float = 1e-4,
    box: tuple[float, float] | None = None,
) -> Tensor:
    """A point x̃ near `x` with ``|f(x̃)| ≤ tolerance · |f(x)|``, for each image: N×C×H×W.

    Newton's method: go along the gradient to where the score would be 0 if the net were linear,
    ``x ← x - f ∇f / ‖∇f‖²``, and again from there. Two points with scores of opposite sign have a
    root between them, which bisection finds. The point is near, not the nearest, and need not look
    like an image; `box` keeps the pixels within two values. ``ValueError`` names the images for
    which `steps` steps found none.
    """
    x = check_images(x).detach()
    above = below = torch.full_like(x, torch.nan)  # the last points with f > 0 and f ≤ 0
    at, goal = x, None
    for _ in range(steps):
        with one_forward(model, at, target) as forward:
            (slope,) = forward.backward()
            y = forward.y.detach()
        goal = tolerance * y.abs() if goal is None else goal
        done = y.abs() <= goal
        if done.all():
            return at
        above, below = at.where(_each(y > 0), above), at.where(_each(y <= 0), below)
        middle = (above + below) / 2
        newton = at - slope * _each(y / slope.square().sum(dim=(1, 2, 3)))
        newton = newton if box is None else newton.clamp(*box)
        onward = middle.where(middle.isfinite(), newton)
        at = at.where(_each(done), onward)
        if not at.isfinite().all():  # a gradient of 0 leads nowhere
            break
    missing = ", ".join(str(i) for i in (~done).nonzero()[:, 0].tolist())
    raise ValueError(
        f"no root point found for image {missing} of the batch in {steps} steps along the "
        "gradient: pass root=, for example a grey or blurred image whose score is near 0"
    )


def _each(v: Tensor) -> Tensor:
    """One number per image, in a shape to meet N×C×H×W."""
    return v.view(-1, 1, 1, 1)


# ------------------------------------------------------------ FullGrad


@dataclass(frozen=True)
class FullGradient:
    """The score of each image in parts that sum to it.

    Attributes:
        score: ``f(x)``, N numbers.
        input: ``x ⊙ ∂f/∂x``, N×C×H×W.
        biases: the bias-gradients ``b ⊙ ∂f/∂b`` of every layer that has any, by its name in the
            model, from the pixels up: N×K×h×w after convolutions, N×K after dense layers.
    """

    score: Tensor
    input: Tensor
    biases: dict[str, Tensor]

    def total(self) -> Tensor:
        """The sum of all parts of each image, N numbers: `score`, up to rounding."""
        return torch.stack([part.flatten(1).sum(1) for part in self.parts()]).sum(0)

    def parts(self) -> tuple[Tensor, ...]:
        """The input's part, then those of the biases."""
        return (self.input, *self.biases.values())


def fullgrad_parts(model: nn.Module, x: Tensor, target: Target) -> FullGradient:
    """``f(x) = xᵀ ∇_x f + Σ_b b ∂f/∂b`` exactly: the score, taken apart.

    A bias is whatever an operation adds that does not depend on the image: that of convolutions and
    dense layers, a BatchNorm's whole shift ``β - γ μ/σ``, and the ``-mean`` of a normalisation of
    the image. An activation η other than ReLU has the implicit bias ``η(z) - η'(z) z``, where its
    tangent meets the axis (``relu6``: 6 where it saturates), and a product ``a·b`` of two tensors
    that depend on the image (a gate) has ``-a·b``. So the sum is exact for such nets too.
    ``ValueError`` for operations beyond these.
    Srinivas & Fleuret 2019, "Full-Gradient Representation for Neural Network Visualization".
    """
    families = [family for family in FAMILIES if family != "average"]  # these have no bias
    parts: list[tuple[str, Tensor]] = []

    def collect(operation: Operation, signal: Tensor) -> tuple[Tensor, ...]:
        bias = _added(operation)
        if bias is not None:
            parts.append((label(operation), bias * signal))
        return operation.vjp(signal)

    with one_forward(model, x, target, families=families) as forward:
        check_known(forward.others, "FullGrad", also=FAMILIES["average"])
        label = labels(model)
        rules: dict[str, Any] = dict.fromkeys(families, collect)
        (slope,) = forward.backward(**rules)
        biases: dict[str, Tensor] = {}
        for name, part in reversed(parts):
            same = sum(name == known.partition("#")[0] for known in biases)
            biases[f"{name}#{same + 1}" if same else name] = part
        return FullGradient(forward.y.detach(), x.detach() * slope, biases)


def _added(operation: Operation) -> Tensor | None:
    """What an operation adds to a linear function of its inputs, in a shape to meet its output."""
    z = operation.output.detach()
    match operation.family:
        case "convolution" | "dense":
            layer = as_layer(operation)
            return None if layer.bias is None else bias_of(layer)
        case "batch_norm":
            return on_channels(affine_of(operation)[1], z)
        case "sum":
            return at_zero(operation) if is_shift(operation) else None
        case "scale":  # a product: f - a ∂f/∂a - b ∂f/∂b
            return -z if image_factors(operation) > 1 else None
        case "activation" if operation.name not in ("relu", "leaky_relu", "prelu", "rrelu"):
            (slope,) = operation.vjp(torch.ones_like(z))
            return z - slope * operation.inputs[0].detach()
    return None


def fullgrad(
    model: nn.Module, x: Tensor, target: Target, *, rescale: Literal["map", "layer"] = "map"
) -> Tensor:
    """FullGrad's picture ``ψ(x ⊙ ∇_x f) + Σ_layers Σ_maps ψ(b ⊙ ∂f/∂b)``, N×1×H×W, at least 0.

    ψ takes absolute values, rescales linearly to [0, 1], and upsamples bilinearly to the image's
    size; what comes out is summed over maps and layers. It is a picture only: the sum is no longer
    the score (`fullgrad_parts` has it exactly). `rescale` each map by itself, as the paper writes
    it, or all maps of a "layer" together, as its authors' code does. Dense layers have no places,
    so their biases are left out.
    Srinivas & Fleuret 2019.
    """
    if rescale not in ("map", "layer"):
        raise ValueError(f"rescale must be 'map' or 'layer', got {rescale!r}")
    dim = (2, 3) if rescale == "map" else (1, 2, 3)
    parts = fullgrad_parts(model, x, target).parts()
    total = torch.zeros_like(x[:, :1])
    for part in parts:
        if part.ndim == 4:
            part = part.abs() - part.abs().amin(dim, keepdim=True)
            part = part / part.amax(dim, keepdim=True).clamp(min=torch.finfo(part.dtype).tiny)
            total += upsample(part, x.shape[-2:]).sum(dim=1, keepdim=True)
    return total


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

    `rule` is the name of a composite in `vislib.composites.COMPOSITES` with its `options`, a
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
    name = labels(model)

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


def labels(model: nn.Module) -> Callable[[Operation], str]:
    """A function that gives the name of the module whose weights an operation uses."""
    names = {
        id(tensor): name.rpartition(".")[0] or name
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
    }

    def label(operation: Operation) -> str:
        used = (names.get(id(a)) for a in (*operation.args, *operation.kwargs.values()))
        return next((name for name in used if name), operation.name.strip("_"))

    return label
