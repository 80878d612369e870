"""FullGrad: the class score as an exact sum over the pixels and the biases of all layers.

For a network with ReLUs, the class score ``f = y_c`` is

    f(x) = Σ_i x_i ∂f/∂x_i + Σ_b b ∂f/∂b

The first sum is gradient × input. The second sum is over all biases. The bias of a convolution
counts at each position of its feature map, so each convolution has maps of **bias-gradients**
``b ⊙ ∂f/∂b``, N×K×h×w. `fullgrad_parts` returns all terms. `fullgrad` combines them into one
attribution map, whose values no longer sum to the score:

    FullGrad(x) = Σ_channels ψ(x ⊙ ∂f/∂x) + Σ_layers Σ_maps ψ(b ⊙ ∂f/∂b)

    ψ(R) = upsample(rescale(|R|)),    rescale: linear, to [0, 1]

References:
    Srinivas & Fleuret 2019, "Full-Gradient Representation for Neural Network Visualization".
"""

from __future__ import annotations

from collections.abc import Sequence
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

# --- Exact parts ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class FullGradient:
    """Result of `fullgrad_parts`: the score of each image and the parts that sum to it.

    Attributes:
        score: ``f(x)``, N values.
        input: ``x ⊙ ∂f/∂x``, N×C×H×W, signed.
        biases: bias-gradients ``b ⊙ ∂f/∂b`` of every layer that has a bias, by the name of the
            layer, in the order of the forward pass: N×K×h×w after convolutions, N×K after dense
            layers, signed. The second call of a layer ``conv`` has the name ``conv#2``.
    """

    score: Tensor
    input: Tensor
    biases: dict[str, Tensor]

    def total(self) -> Tensor:
        """Sum of all parts of each image, N values: `score`, up to rounding."""
        return torch.stack([part.flatten(1).sum(1) for part in self.parts()]).sum(0)

    def parts(self) -> tuple[Tensor, ...]:
        """Part of the input, then the parts of the biases."""
        return (self.input, *self.biases.values())


def fullgrad_parts(model: nn.Module, x: Tensor, target: Target) -> FullGradient:
    """Exact decomposition of the score, ``f(x) = Σ_i x_i ∂f/∂x_i + Σ_b b ∂f/∂b``.

    Srinivas & Fleuret 2019. A bias is all that an operation adds independently of the image: the
    bias of a convolution or dense layer, the shift ``β - γ μ/σ`` of batch normalisation, or the
    ``-mean`` of an image normalisation. Two kinds of operations have an implicit bias, so that the
    sum is exact for these networks, too. An activation η other than ReLU has ``η(z) - η'(z) z``,
    the value of its tangent at 0 (``relu6``: 6 where it saturates). A product ``a · b`` of two
    tensors that depend on the image (a gate) has ``-a · b``.

    Args:
        model, x, target: as in `vislib.explain.gradients`.

    Returns:
        The score and all terms of the sum, as a `FullGradient`.

    Raises:
        ValueError: the model calls an operation that is neither of these kinds nor linear nor a
            selection of values, such as a softmax.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
    >>> parts = fullgrad_parts(model, torch.rand(2, 3, 4, 4), target=1)
    >>> {name: tuple(part.shape) for name, part in parts.biases.items()}
    {'0': (2, 4, 2, 2), '3': (2, 5)}
    >>> torch.allclose(parts.total(), parts.score, atol=1e-6)
    True
    """
    # Averages have no bias.
    families = [family for family in FAMILIES if family != "average"]
    parts: list[tuple[str, Tensor]] = []

    def collect(operation: Operation, signal: Tensor) -> tuple[Tensor, ...]:
        bias = _bias_term(operation)
        if bias is not None:
            parts.append((label(operation), bias * signal))
        return operation.vjp(signal)

    with one_forward(model, x, target, families=families) as forward:
        check_known(forward.others, "FullGrad", also=FAMILIES["average"])
        label = operation_labels(model)
        rules: dict[str, Any] = dict.fromkeys(families, collect)
        (grads,) = forward.backward(**rules)
        biases: dict[str, Tensor] = {}
        for name, part in reversed(parts):
            earlier = sum(name == known.partition("#")[0] for known in biases)
            biases[f"{name}#{earlier + 1}" if earlier else name] = part
        return FullGradient(forward.y.detach(), x.detach() * grads, biases)


def _bias_term(operation: Operation) -> Tensor | None:
    """Bias of an operation, in a shape that broadcasts to its output, or None."""
    z = operation.output.detach()
    match operation.family:
        case "convolution" | "dense":
            layer = as_layer(operation)
            return None if layer.bias is None else bias_of(layer)
        case "batch_norm":
            return on_channels(affine_of(operation)[1], z)
        case "sum":
            return at_zero(operation) if is_shift(operation) else None
        case "scale":
            # A product f = a · b has the bias f - a ∂f/∂a - b ∂f/∂b = -f.
            return -z if image_factors(operation) > 1 else None
        case "activation" if operation.name not in ("relu", "leaky_relu", "prelu", "rrelu"):
            (derivative,) = operation.vjp(torch.ones_like(z))
            return z - derivative * operation.inputs[0].detach()
    return None


# --- Attribution map ------------------------------------------------------------------------------


def fullgrad(
    model: nn.Module, x: Tensor, target: Target, *, rescale: Literal["map", "layer"] = "map"
) -> Tensor:
    """FullGrad, ``Σ_channels ψ(x ⊙ ∂f/∂x) + Σ_layers Σ_maps ψ(b ⊙ ∂f/∂b)``: N×1×H×W, at least 0.

    Srinivas & Fleuret 2019. The function ψ is `psi`. The values do not sum to the score; for the
    exact decomposition see `fullgrad_parts`. Dense layers have no positions, so their biases are
    left out.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        rescale: ``"map"`` rescales each map separately, as in the paper; ``"layer"`` rescales all
            maps of a layer together, as in the program of its authors.

    Raises:
        ValueError: `rescale` is neither of the two, or as in `fullgrad_parts`.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
    >>> fullgrad(model, torch.rand(2, 3, 4, 4), target=1).shape
    torch.Size([2, 1, 4, 4])
    """
    if rescale not in ("map", "layer"):
        raise ValueError(f"rescale must be 'map' or 'layer', got {rescale!r}")
    dims = (2, 3) if rescale == "map" else (1, 2, 3)
    parts = fullgrad_parts(model, x, target).parts()
    total = torch.zeros_like(x[:, :1])
    for part in parts:
        if part.ndim == 4:
            # Upsampling is linear, so the sum over the channels may come first. Thousands of maps
            # of the size of the image would need gigabytes.
            maps = _rescaled(part, dims).sum(dim=1, keepdim=True)
            total += upsample(maps, x.shape[-2:])
    return total


def psi(part: Tensor, size: Sequence[int], *, dims: tuple[int, ...] = (2, 3)) -> Tensor:
    """ψ of FullGrad: absolute values, rescaled to [0, 1] and upsampled bilinearly, N×K×H×W.

    Args:
        part: N×K×h×w, for example the bias-gradients of a layer.
        size: (H, W), height and width of the result.
        dims: dimensions that are rescaled together: (2, 3) for each map separately, (1, 2, 3) for
            all maps of the layer. Maps of constant absolute value become 0.

    >>> psi(torch.tensor([[[[-3.0, 1.0]]]]), (1, 2)).flatten().tolist()
    [1.0, 0.0]
    """
    return upsample(_rescaled(part, dims), size)


def _rescaled(part: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Absolute values, rescaled to [0, 1]."""
    maps = part.abs()
    maps = maps - maps.amin(dims, keepdim=True)
    return maps / maps.amax(dims, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
