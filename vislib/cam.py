"""Class activation maps: which places of the last convolutional maps speak for a class.

With ``A^k`` the K maps of a layer, each with Z places, and the class score ``y_c``:

    CAM         M_c = Σ_k w_k^c A^k         for a net that ends: average over places, linear layer
    Grad-CAM    M_c = ReLU(Σ_k α_k A^k),    α_k = (1/Z) Σ_places ∂y_c/∂A^k, for any net

On a net where both exist, ``∂y_c/∂A^k = w_k^c / Z`` at every place, so ``α_k = w_k^c / Z`` and
Grad-CAM without its ReLU is CAM divided by Z. Maps come at the layer's own size, N×1×h×w;
`upsample` brings them to the image's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.core import Layer, Target, find_layer, last_conv_stage, one_forward
from vislib.gradients import guided_rule


def cam(model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None) -> Tensor:
    """``M_c = Σ_k w_k^c A^k``, N×1×h×w, signed, for a net that ends in average pooling and one
    linear layer.

    ``ValueError`` where the net does not end so: it is checked on `x` that the logits are
    ``W · mean(A) + b``. Zhou et al. 2016, "Learning Deep Features for Discriminative Localization".
    """
    if layer is None:
        layer = last_conv_stage(model, x)
    with one_forward(model, x, target, layer=layer) as forward, torch.no_grad():
        head = _linear_head(model, forward.maps, forward.logits)
        if head is None:
            raise ValueError(
                "CAM needs a net that averages the maps of its last convolutional stage and ends "
                f"in one linear layer. After {find_layer(model, layer)[0]!r} this one does not: "
                "use grad_cam"
            )
        w = head.weight[torch.as_tensor(target).long()].view(-1, head.in_features, 1, 1)
        return (w * forward.maps).sum(dim=1, keepdim=True)


def _linear_head(model: nn.Module, maps: Tensor, logits: Tensor) -> nn.Linear | None:
    """The layer with ``logits = W · mean(maps) + b``, where the model has one."""
    if maps.ndim != 4:
        return None
    pooled = maps.mean(dim=(2, 3))
    shape = (logits.shape[1], maps.shape[1])
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight.shape == shape:
            evidence = F.linear(pooled, module.weight)  # b would hide an error in small weights
            if (module(pooled) - logits).abs().max() <= 1e-3 * evidence.abs().max():
                return module
    return None


def grad_cam(
    model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None, relu: bool = True
) -> Tensor:
    """``ReLU(Σ_k α_k A^k)`` with ``α_k`` the mean of ``∂y_c/∂A^k`` over places, N×1×h×w.

    `layer` is a module or its dotted name (default: the last convolutional stage). ``relu=False``
    keeps the negative part: the places that speak against the class.
    Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks".
    """
    if layer is None:
        layer = last_conv_stage(model, x)
    with one_forward(model, x, target, layer=layer) as forward:
        (slope,) = forward.backward(forward.maps)
        return weigh_maps(forward.maps, slope, relu=relu)


def guided_grad_cam(
    model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None
) -> Tensor:
    """Grad-CAM, upsampled to the image, times guided backprop: N×C×H×W, signed.

    Selvaraju et al. 2017.
    """
    if layer is None:
        layer = last_conv_stage(model, x)
    with one_forward(model, x, target, layer=layer, families=["activation"]) as forward:
        (slope,) = forward.backward(forward.maps)
        (guided,) = forward.backward(activation=guided_rule)
        return upsample(weigh_maps(forward.maps, slope), guided.shape[-2:]) * guided


def weigh_maps(maps: Tensor, slope: Tensor, *, relu: bool = True) -> Tensor:
    """Grad-CAM's formula, from the maps ``A^k`` and ``∂y_c/∂A^k`` (both N×K×h×w) to N×1×h×w."""
    if maps.ndim != 4:
        raise ValueError(
            f"Grad-CAM needs maps of shape N×K×h×w, this layer gives {tuple(maps.shape)}: "
            "choose a convolutional layer"
        )
    alpha = slope.mean(dim=(2, 3), keepdim=True)
    weighted = (alpha * maps.detach()).sum(dim=1, keepdim=True)
    return weighted.clamp(min=0) if relu else weighted


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear upsampling of N×C×h×w maps to `size` (height, width), with pixels as areas."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
