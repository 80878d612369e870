"""Class activation maps: which places of the last convolutional maps speak for a class.

With ``A^k`` the K maps of a layer, each with Z places, and the class score ``y_c``:

    CAM         M_c = Σ_k w_k^c A^k            needs a net that ends: average over places, one
    linear layer
    Grad-CAM    M_c = ReLU(Σ_k α_k A^k),       α_k = (1/Z) Σ_places ∂y_c/∂A^k, for any net

On a net where both exist, ``∂y_c/∂A^k = w_k^c / Z`` at every place, so ``α_k = w_k^c / Z`` and
Grad-CAM without its ReLU is CAM divided by Z. Maps come at the layer's own size, N×1×h×w;
`upsample` brings them to the image's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.core import Layer, Target, last_conv_stage, one_forward
from vislib.gradients import guided_rule


def cam(model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None) -> Tensor:
    """``M_c = Σ_k w_k^c A^k``, N×1×h×w, signed, for a net that ends in average pooling and one
    linear layer.

    ``ValueError`` where the net does not end so: it is checked on `x` that the logits are
    ``W · mean(A) + b``. Zhou et al. 2016, "Learning Deep Features for Discriminative Localization".
    """
    layer = layer or last_conv_stage(model, x)
    with one_forward(model, x, target, layer=layer) as forward, torch.no_grad():
        heads = [module for module in model.modules() if isinstance(module, nn.Linear)]
        pooled = forward.maps.mean(dim=(2, 3))
        if (
            not heads
            or heads[-1].in_features != pooled.shape[1]
            or not torch.allclose(heads[-1](pooled), forward.logits, rtol=1e-3, atol=1e-3)
        ):
            raise ValueError(
                "CAM needs a net that averages the maps of its last convolutional stage and ends in "
                f"one linear layer. After {layer!r} this one does not: use grad_cam"
            )
        w = heads[-1].weight[torch.as_tensor(target)].view(-1, pooled.shape[1], 1, 1)
        return (w * forward.maps).sum(dim=1, keepdim=True)


def grad_cam(
    model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None, relu: bool = True
) -> Tensor:
    """``ReLU(Σ_k α_k A^k)`` with ``α_k`` the mean of ``∂y_c/∂A^k`` over places, N×1×h×w.

    `layer` is a module or its dotted name (default: the last convolutional stage). ``relu=False``
    keeps the negative part: the places that speak against the class.
    Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks".
    """
    layer = layer or last_conv_stage(model, x)
    with one_forward(model, x, target, layer=layer) as forward:
        (slope,) = forward.backward(forward.maps)
        return weigh_maps(forward.maps, slope, relu=relu)


def guided_grad_cam(
    model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None
) -> Tensor:
    """Grad-CAM, upsampled to the image, times guided backprop: N×C×H×W, signed.

    Selvaraju et al. 2017.
    """
    layer = layer or last_conv_stage(model, x)
    with one_forward(model, x, target, layer=layer, families=["activation"]) as forward:
        (slope,) = forward.backward(forward.maps)
        (guided,) = forward.backward(activation=guided_rule)
        return upsample(weigh_maps(forward.maps, slope), guided.shape[-2:]) * guided


def weigh_maps(maps: Tensor, slope: Tensor, *, relu: bool = True) -> Tensor:
    """Grad-CAM's formula, from the maps ``A^k`` and ``∂y_c/∂A^k`` (both N×K×h×w) to N×1×h×w."""
    alpha = slope.mean(dim=(2, 3), keepdim=True)
    weighted = (alpha * maps.detach()).sum(dim=1, keepdim=True)
    return weighted.clamp(min=0) if relu else weighted


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear upsampling of N×C×h×w maps to `size` (height, width), with pixels as areas."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
