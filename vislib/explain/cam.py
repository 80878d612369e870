"""Class activation maps: which places of a layer's maps speak for a class.

With ``A^k`` the K maps of a layer, each with Z places ``(i, j)``, the class score ``y_c`` and its
slopes ``g^k_ij = ∂y_c/∂A^k_ij``:

    CAM           Σ_k w_k^c A^k              for a net that ends: average over places, linear layer
    Grad-CAM      ReLU(Σ_k α_k A^k)          α_k = (1/Z) Σ_ij g^k_ij, for any net
    Grad-CAM++    ReLU(Σ_k α_k A^k)          α_k = Σ_ij ReLU(g^k_ij) / (2 + g^k_ij Σ_ab A^k_ab)
    XGrad-CAM     ReLU(Σ_k α_k A^k)          α_k = Σ_ij g^k_ij A^k_ij / Σ_ij A^k_ij
    LayerCAM      ReLU(Σ_k ReLU(g^k) A^k)    every place has a weight of its own
    Score-CAM     ReLU(Σ_k α_k A^k)          α = softmax over k of the score of the image behind A^k
    Eigen-CAM     Σ_k v_k A^k                v the first right singular vector of A (places × maps)

On a net where CAM exists, ``g^k_ij = w_k^c / Z`` at every place. So Grad-CAM and XGrad-CAM without
their ReLU are CAM divided by Z. Maps come at the layer's own size, N×1×h×w; `upsample` brings them
to the image's.

Each formula that needs no more than ``A`` and ``g`` is a function of its own, and `FORMULAS` holds
them by name: one forward and one backward pass give all of their maps. Eigen-CAM never asks for the
class, and Score-CAM asks by K forward passes in place of one backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.core import Layer, Target, find_layer, one_forward, score
from vislib.explain.gradients import guided_rule
from vislib.layers import last_conv_stage
from vislib.maps import upsample


def cam(model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None) -> Tensor:
    """``M_c = Σ_k w_k^c A^k``, N×1×h×w, signed, for a net that ends in global pooling (GAP or GMP)
    and one linear layer, or in a 1×1 convolution and GAP (SqueezeNet), which is the same.

    ``ValueError`` where the net does not end so: it is checked on `x` that the logits are
    ``W · mean(A) + b`` or ``W · max(A) + b``, mean and maximum over the places of each map.
    torchvision's SqueezeNets have a ReLU before their GAP: ``mean(ReLU(W · A + b))`` passes too.
    Zhou et al. 2016, "Learning Deep Features for Discriminative Localization" (GAP); Oquab et al.
    2015, "Is object localization for free?" (GMP).
    """
    layer = _stage(model, x, layer)
    with one_forward(model, x, target, layer=layer) as forward, torch.no_grad():
        weight = _head(model, forward.maps, forward.logits)
        if weight is None:
            raise ValueError(
                "CAM needs a net that takes the mean or the maximum of each map of its last "
                "convolutional stage and ends in one linear layer. After "
                f"{find_layer(model, layer)[0]!r} this one does not: use grad_cam"
            )
        w = weight[torch.as_tensor(target).long()].view(-1, weight.shape[1], 1, 1)
        return (w * forward.maps).sum(dim=1, keepdim=True)


def _head(model: nn.Module, maps: Tensor, logits: Tensor) -> Tensor | None:
    """The weights W, classes × maps, of the layer that makes the logits of the maps, as `cam` says;
    None where the model has no such layer."""
    if maps.ndim != 4:
        return None
    pools = (maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3)))
    shape = (logits.shape[1], maps.shape[1])
    rounding = max(1e-3, 8 * torch.finfo(maps.dtype).eps)  # the second in half precision
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for head in layers:
        weight = head.weight.flatten(1)
        if weight.shape != shape:
            continue
        at_places = F.conv2d(maps, weight[..., None, None], head.bias)
        ends = [F.linear(pooled, weight, head.bias) for pooled in pools]
        ends.append(F.relu(at_places).mean(dim=(2, 3)))
        evidence = F.linear(pools[0], weight)  # b would hide an error in small weights
        if any((end - logits).abs().max() <= rounding * evidence.abs().max() for end in ends):
            return weight
    return None


def grad_cam(
    model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None, relu: bool = True
) -> Tensor:
    """``ReLU(Σ_k α_k A^k)`` with ``α_k`` the mean of ``∂y_c/∂A^k`` over places, N×1×h×w.

    `layer` is a module or its dotted name (default: the last convolutional stage). ``relu=False``
    keeps the negative part: the places that speak against the class.
    Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks".
    """
    maps, slope = _maps_and_slope(model, x, target, layer)
    return grad_cam_formula(maps, slope, relu=relu)


def guided_grad_cam(
    model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None
) -> Tensor:
    """Grad-CAM, upsampled to the image, times guided backprop: N×C×H×W, signed.

    Selvaraju et al. 2017.
    """
    layer = _stage(model, x, layer)
    with one_forward(model, x, target, layer=layer, families=["activation"]) as forward:
        (slope,) = forward.backward(forward.maps)
        (guided,) = forward.backward(activation=guided_rule)
        return upsample(grad_cam_formula(forward.maps, slope), guided.shape[-2:]) * guided


def grad_cam_pp(
    model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None
) -> Tensor:
    """Grad-CAM++: `grad_cam_pp_formula` of the layer's maps, N×1×h×w, at least 0.

    Meant for several objects of one class: a map counts for more where its slopes are positive.
    Chattopadhay et al. 2018, "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep
    Convolutional Networks".
    """
    return grad_cam_pp_formula(*_maps_and_slope(model, x, target, layer))


def xgrad_cam(
    model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None, relu: bool = True
) -> Tensor:
    """XGrad-CAM: `xgrad_cam_formula` of the layer's maps, N×1×h×w.

    Fu et al. 2020, "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs".
    """
    maps, slope = _maps_and_slope(model, x, target, layer)
    return xgrad_cam_formula(maps, slope, relu=relu)


def layer_cam(model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None) -> Tensor:
    """LayerCAM: `layer_cam_formula` of the layer's maps, N×1×h×w, at least 0.

    Meant for any layer, not only the last: a weight for each place keeps early maps sharp.
    Jiang et al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization".
    """
    return layer_cam_formula(*_maps_and_slope(model, x, target, layer))


def eigen_cam(model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None) -> Tensor:
    """Eigen-CAM: `eigen_cam_formula` of the layer's maps, N×1×h×w, signed.

    It is the **same for every class**: `target` is only checked, so that all methods are called
    alike. No backward pass. Muhammad & Yeasin 2020, "Eigen-CAM: Class Activation Map using
    Principal Components".
    """
    with one_forward(model, x, target, layer=_stage(model, x, layer)) as forward:
        return eigen_cam_formula(forward.maps)


def score_cam(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: Layer | None = None,
    batch: int = 32,
) -> Tensor:
    """Score-CAM, ``ReLU(Σ_k α_k A^k)``, N×1×h×w, at least 0: no gradients, K + 1 forward passes an
    image.

        H^k = upsample(A^k), scaled to [0, 1]          a mask
        α = softmax over k of y_c(x · H^k) - y_c(b)    what is visible through the mask

    The score of the baseline image b is the same for every k, so the softmax cancels it and it is
    not computed. Where ``H^k`` is 0 the image is 0: black for nets of `vislib.nets`, the mean
    colour for a net that is given normalised images. A map that is constant (a dead filter, or
    maps of 1×1) hides nothing and gets no weight; if all are, the result is 0.

    `batch` masked images go through the net at a time. ``ValueError`` where it is below 1.
    Wang et al. 2020, "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural
    Networks". (Their program weighs by the probability instead of this formula of their paper.)
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1 image, got {batch}")
    with one_forward(model, x, target, layer=_stage(model, x, layer)) as forward, torch.no_grad():
        maps = _check_maps(forward.maps)
        classes = torch.as_tensor(target).expand(len(x))
        weights = maps.new_zeros(maps.shape[:2])
        for n, image in enumerate(forward.x):
            (seen,) = _varying(maps[n]).nonzero(as_tuple=True)
            scores = [
                score(model(image * _mask(maps[n, part], image.shape[1:])), int(classes[n]))
                for part in seen.split(batch)
            ]
            weights[n, seen] = torch.cat(scores).softmax(dim=0) if len(seen) else 0.0
        return (weights[..., None, None] * maps).sum(dim=1, keepdim=True).clamp(min=0)


def _varying(maps: Tensor) -> Tensor:
    """Which of the K×h×w maps are not constant."""
    return maps.amax(dim=(1, 2)) > maps.amin(dim=(1, 2))


def _mask(maps: Tensor, size: Sequence[int]) -> Tensor:
    """K×h×w maps as K×1×H×W masks: upsampled, then each scaled to [0, 1]."""
    large = upsample(maps[:, None], size)
    low, high = large.amin(dim=(2, 3), keepdim=True), large.amax(dim=(2, 3), keepdim=True)
    return (large - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)


def grad_cam_formula(maps: Tensor, slope: Tensor, *, relu: bool = True) -> Tensor:
    """Grad-CAM's formula, from the maps ``A^k`` and ``∂y_c/∂A^k`` (both N×K×h×w) to N×1×h×w."""
    maps = _check_maps(maps)
    return _weighted(slope.mean(dim=(2, 3), keepdim=True), maps, relu=relu)


def grad_cam_pp_formula(maps: Tensor, slope: Tensor) -> Tensor:
    """Grad-CAM++: ``α_k = Σ_ij ReLU(g_ij) / (2 + g_ij Σ_ab A^k_ab)``, then as Grad-CAM.

    The paper takes ``exp(y_c)`` for the score. With a net that is linear in pieces, its second and
    third derivatives are ``exp(y_c) g²`` and ``exp(y_c) g³``, and the paper's weight is

        ReLU(g) · g² / (2 g² + g³ Σ_ab A_ab),    times exp(y_c), which is the same at every place

    and left out here, as in other programs. Cancelling ``g²`` leaves nothing to underflow where
    slopes are small, so no ε is needed. The formula is meant for maps after a ReLU; where A is
    negative the denominator can come near 0 or change its sign.
    """
    maps = _check_maps(maps)
    below = 2 + slope * maps.sum(dim=(2, 3), keepdim=True)
    places = torch.where(below != 0, slope.clamp(min=0) / below, 0)
    return _weighted(places.sum(dim=(2, 3), keepdim=True), maps)


def xgrad_cam_formula(maps: Tensor, slope: Tensor, *, relu: bool = True) -> Tensor:
    """XGrad-CAM: ``α_k = Σ_ij g_ij A^k_ij / Σ_ij A^k_ij``, then as Grad-CAM.

    The slopes are averaged with the map as weight, so that without the ReLU the result adds up to
    ``Σ g · A``. A map whose sum is 0 gets the weight 0.
    """
    maps = _check_maps(maps)
    total = maps.sum(dim=(2, 3), keepdim=True)
    share = (slope * maps).sum(dim=(2, 3), keepdim=True)
    return _weighted(torch.where(total != 0, share / total, 0), maps, relu=relu)


def layer_cam_formula(maps: Tensor, slope: Tensor) -> Tensor:
    """LayerCAM: each place is weighed by its own positive slope, ``ReLU(Σ_k ReLU(g^k) · A^k)``."""
    return _weighted(slope.clamp(min=0), _check_maps(maps))


def eigen_cam_formula(maps: Tensor, slope: Tensor | None = None) -> Tensor:
    """Eigen-CAM: ``A v`` with v the first right singular vector of A, places × maps; N×1×h×w.

    The maps are not centred (as in the paper; pytorch-grad-cam centres them, which is another
    method: the first principal component). A singular vector has no sign of its own: here the
    result adds up to at least 0, which makes it at least 0 everywhere for maps after a ReLU.
    `slope` is not used: it makes the signature that of the other formulas.
    """
    maps = _check_maps(maps)
    places = maps.flatten(2).mT
    _, _, v = torch.linalg.svd(places, full_matrices=False)
    component = places @ v[:, :1].mT
    component = torch.where(component.sum(dim=1, keepdim=True) < 0, -component, component)
    return component.mT.reshape(len(maps), 1, *maps.shape[2:])


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grad_cam": grad_cam_formula,
    "grad_cam_pp": grad_cam_pp_formula,
    "xgrad_cam": xgrad_cam_formula,
    "layer_cam": layer_cam_formula,
    "eigen_cam": eigen_cam_formula,
}
"""The formulas that need only a layer's maps and slopes, by the name of the method."""


def _stage(model: nn.Module, x: Tensor, layer: Layer | None) -> Layer:
    """The layer to look at: the one that was asked for, or the last convolutional stage."""
    return last_conv_stage(model, x) if layer is None else layer


def _maps_and_slope(
    model: nn.Module, x: Tensor, target: Target, layer: Layer | None
) -> tuple[Tensor, Tensor]:
    """``A`` and ``∂y_c/∂A`` of a layer, from one forward and one backward pass."""
    with one_forward(model, x, target, layer=_stage(model, x, layer)) as forward:
        (slope,) = forward.backward(forward.maps)
        return forward.maps.detach(), slope


def _check_maps(maps: Tensor) -> Tensor:
    """Return maps N×K×h×w without their graph; else ``ValueError``."""
    if maps.ndim != 4:
        raise ValueError(
            f"a class map needs maps of shape N×K×h×w, this layer gives {tuple(maps.shape)}: "
            "choose a convolutional layer"
        )
    return maps.detach()


def _weighted(weights: Tensor, maps: Tensor, *, relu: bool = True) -> Tensor:
    """``Σ_k weights · A^k``, N×1×h×w, and its positive part where `relu`."""
    weighted = (weights * maps).sum(dim=1, keepdim=True)
    return weighted.clamp(min=0) if relu else weighted
