"""FullGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vislib.core import FAMILIES, Operation, Target, one_forward
from vislib.explain.lrp.operations import (
    affine_of,
    as_layer,
    at_zero,
    bias_of,
    check_known,
    image_factors,
    is_shift,
    on_channels,
)
from vislib.layers import operation_labels
from vislib.maps import upsample


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
        label = operation_labels(model)
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
