"""Class activation maps (CAM): the positions of a layer's feature maps that support a class.

Let ``A^k``, k = 1 … K, be the feature maps of a layer, each with Z positions ``(i, j)``. Let
``y_c`` be the class score and ``g^k_ij = ∂y_c/∂A^k_ij`` its gradient:

    CAM           Σ_k w_k^c A^k              w: weights of the linear layer after global pooling
    Grad-CAM      ReLU(Σ_k α_k A^k)          α_k = (1/Z) Σ_ij g^k_ij, for any network
    Grad-CAM++    ReLU(Σ_k α_k A^k)          α_k = Σ_ij ReLU(g^k_ij) / (2 + g^k_ij Σ_ab A^k_ab)
    XGrad-CAM     ReLU(Σ_k α_k A^k)          α_k = Σ_ij g^k_ij A^k_ij / Σ_ij A^k_ij
    LayerCAM      ReLU(Σ_k ReLU(g^k) A^k)    one weight for each position
    Score-CAM     ReLU(Σ_k α_k A^k)          α: softmax over k of the score of x masked by A^k
    Eigen-CAM     Σ_k v_k A^k                v: first right singular vector of A (positions × K)

In a network that ends in global average pooling and one linear layer, ``g^k_ij = w_k^c / Z`` at
every position. For such a network, Grad-CAM and XGrad-CAM without their ReLU equal CAM divided
by Z.

All maps have the size of the layer, N×1×h×w; `vislib.maps.upsample` enlarges them to the size of
the image. The default layer is the last convolutional stage (`vislib.layers.last_conv_stage`),
which costs one more forward pass of the first image.

Each formula that needs only ``A`` and ``g`` is a separate function, and `FORMULAS` lists these
functions by name. One forward and one backward pass are enough for all of their maps. Eigen-CAM
does not depend on the class. Score-CAM needs K forward passes instead of one backward pass.

References:
    Zhou, Khosla, Lapedriza, Oliva & Torralba 2016, "Learning Deep Features for Discriminative
    Localization".
    Oquab, Bottou, Laptev & Sivic 2015, "Is object localization for free? – Weakly-supervised
    learning with convolutional neural networks".
    Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra 2017, "Grad-CAM: Visual Explanations from
    Deep Networks via Gradient-based Localization".
    Chattopadhay, Sarkar, Howlader & Balasubramanian 2018, "Grad-CAM++: Generalized Gradient-based
    Visual Explanations for Deep Convolutional Networks".
    Fu, Hu, Dong, Guo, Gao & Li 2020, "Axiom-based Grad-CAM: Towards Accurate Visualization and
    Explanation of CNNs".
    Jiang, Zhang, Hou, Cheng & Wei 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for
    Localization".
    Wang, Wang, Du, Yang, Zhang, Ding, Mardziel & Hu 2020, "Score-CAM: Score-Weighted Visual
    Explanations for Convolutional Neural Networks".
    Muhammad & Yeasin 2020, "Eigen-CAM: Class Activation Map using Principal Components".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.core import Layer, Target, Weighted, find_layer, one_forward, score
from vislib.explain.gradients import guided_rule
from vislib.layers import last_conv_stage
from vislib.maps import upsample

# --- CAM ------------------------------------------------------------------------------------------


def cam(model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None) -> Tensor:
    """Class activation map, ``M_c = Σ_k w_k^c A^k``: N×1×h×w, signed.

    Zhou et al. 2016 for global average pooling (GAP), Oquab et al. 2015 for global max pooling
    (GMP). The model must end in GAP or GMP and one linear layer, or in a 1×1 convolution and GAP
    (SqueezeNet), which is equivalent. The function tests this on `x`: the logits must equal
    ``W · mean(A) + b`` or ``W · max(A) + b``, with the mean or maximum over the positions of each
    feature map. It also accepts ``mean(ReLU(W · A + b))``, because torchvision's SqueezeNets have a
    ReLU before their GAP.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        layer: as in `grad_cam`.

    Raises:
        ValueError: the model does not end in this way after the layer.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ...                       nn.Linear(4, 5))
    >>> x = torch.rand(2, 3, 8, 8)
    >>> mean = cam(model, x, target=1).mean(dim=(1, 2, 3))
    >>> torch.allclose(mean + model[4].bias[1], model(x)[:, 1], atol=1e-6)
    True
    """
    layer = _layer_or_default(model, x, layer)
    with one_forward(model, x, target, layer=layer) as forward, torch.no_grad():
        weights = _head_weights(model, forward.maps, forward.logits)
        if weights is None:
            raise ValueError(
                "CAM needs a network that takes the mean or the maximum of each feature map of its "
                f"last convolutional stage and ends in one linear layer. {type(model).__name__} "
                f"does not after layer {find_layer(model, layer)[0]!r}: use grad_cam"
            )
        # For a target class c, the weights of the logits are 1 at c and 0 elsewhere.
        w = forward.weights @ weights
        return _weighted_sum(w[..., None, None], forward.maps, relu=False)


def _head_weights(model: nn.Module, maps: Tensor, logits: Tensor) -> Tensor | None:
    """Weights W, classes × K, of the layer that computes the logits as in `cam`, or None."""
    if maps.ndim != 4:
        return None
    mean, maximum = maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))
    # In half precision, rounding errors exceed 1e-3.
    tolerance = max(1e-3, 8 * torch.finfo(maps.dtype).eps)
    for head in model.modules():
        if not isinstance(head, nn.Linear | nn.Conv2d):
            continue
        weights = head.weight.flatten(1)
        if weights.shape != (logits.shape[1], maps.shape[1]):
            continue
        at_positions = F.conv2d(maps, weights[..., None, None], head.bias)
        candidates = [F.linear(pooled, weights, head.bias) for pooled in (mean, maximum)]
        candidates.append(F.relu(at_positions).mean(dim=(2, 3)))
        # The scale is computed without the bias, because a large bias would hide the errors of
        # small weights.
        scale = F.linear(mean, weights).abs().max()
        if any((logits - other).abs().max() <= tolerance * scale for other in candidates):
            return weights
    return None


# --- Weights from gradients -----------------------------------------------------------------------


def grad_cam(
    model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None, relu: bool = True
) -> Tensor:
    """Grad-CAM, ``ReLU(Σ_k α_k A^k)`` with α_k the mean of ``∂y_c/∂A^k`` over the positions.

    Selvaraju et al. 2017.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        layer: module of the model or its dotted name (default: the last convolutional stage).
        relu: whether to set negative values to 0, which belong to positions that lower the score.

    Returns:
        N×1×h×w, at least 0 with `relu`, signed without.

    Raises:
        ValueError: the layer does not exist, is not called, or does not give feature maps N×K×h×w.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ...                       nn.Linear(4, 5))
    >>> x = torch.rand(2, 3, 8, 8)
    >>> signed = grad_cam(model, x, target=1, relu=False)
    >>> signed.shape
    torch.Size([2, 1, 6, 6])
    >>> torch.allclose(6 * 6 * signed, cam(model, x, target=1), atol=1e-6)
    True
    """
    maps, grads = _maps_and_gradients(model, x, target, layer)
    return grad_cam_formula(maps, grads, relu=relu)


def guided_grad_cam(
    model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None
) -> Tensor:
    """Guided Grad-CAM, ``upsample(Grad-CAM) · guided backprop``: N×C×H×W, signed.

    Selvaraju et al. 2017.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        layer: as in `grad_cam`.

    Raises:
        ValueError: as in `grad_cam` and `gradients.guided_backprop`.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ...                       nn.Linear(4, 5))
    >>> guided_grad_cam(model, torch.rand(2, 3, 8, 8), target=1).shape
    torch.Size([2, 3, 8, 8])
    """
    layer = _layer_or_default(model, x, layer)
    with one_forward(model, x, target, layer=layer, families=["activation"]) as forward:
        (grads,) = forward.backward(forward.maps)
        (guided,) = forward.backward(activation=guided_rule)
        return upsample(grad_cam_formula(forward.maps, grads), guided.shape[-2:]) * guided


def grad_cam_pp(
    model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None
) -> Tensor:
    """Grad-CAM++ by `grad_cam_pp_formula`: N×1×h×w, at least 0.

    Chattopadhay et al. 2018. The method is meant for images with several objects of one class: only
    positions with a positive gradient contribute to the weight of a feature map.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        layer: as in `grad_cam`.

    Raises:
        ValueError: as in `grad_cam`.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ...                       nn.Linear(4, 5))
    >>> bool((grad_cam_pp(model, torch.rand(2, 3, 8, 8), target=1) >= 0).all())
    True
    """
    return grad_cam_pp_formula(*_maps_and_gradients(model, x, target, layer))


def xgrad_cam(
    model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None, relu: bool = True
) -> Tensor:
    """XGrad-CAM by `xgrad_cam_formula`: N×1×h×w, at least 0 with `relu`, signed without.

    Fu et al. 2020.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        layer, relu: as in `grad_cam`.

    Raises:
        ValueError: as in `grad_cam`.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ...                       nn.Linear(4, 5))
    >>> x = torch.rand(2, 3, 8, 8)
    >>> expected = grad_cam(model, x, target=1, relu=False)
    >>> torch.allclose(xgrad_cam(model, x, target=1, relu=False), expected, atol=1e-6)
    True
    """
    maps, grads = _maps_and_gradients(model, x, target, layer)
    return xgrad_cam_formula(maps, grads, relu=relu)


def layer_cam(model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None) -> Tensor:
    """LayerCAM by `layer_cam_formula`: N×1×h×w, at least 0.

    Jiang et al. 2021. The method is meant for any layer, not only for the last one. Because each
    position has its separate weight, the maps of early layers stay sharp.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        layer: as in `grad_cam`.

    Raises:
        ValueError: as in `grad_cam`.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ...                       nn.Linear(4, 5))
    >>> layer_cam(model, torch.rand(2, 3, 8, 8), target=1, layer="0").shape
    torch.Size([2, 1, 6, 6])
    """
    return layer_cam_formula(*_maps_and_gradients(model, x, target, layer))


# --- Weights without gradients --------------------------------------------------------------------


def eigen_cam(model: nn.Module, x: Tensor, target: Target, *, layer: Layer | None = None) -> Tensor:
    """Eigen-CAM by `eigen_cam_formula`: N×1×h×w, signed, **the same map for all classes**.

    Muhammad & Yeasin 2020. No backward pass is needed. The sum of the map is at least 0.

    Args:
        model, x: as in `vislib.explain.gradients`.
        target: checked but not used, so that all methods have the same signature.
        layer: as in `grad_cam`.

    Raises:
        ValueError: as in `grad_cam`.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ...                       nn.Linear(4, 5))
    >>> x = torch.rand(2, 3, 8, 8)
    >>> torch.equal(eigen_cam(model, x, target=1), eigen_cam(model, x, target=2))
    True
    """
    with one_forward(model, x, target, layer=_layer_or_default(model, x, layer)) as forward:
        return eigen_cam_formula(forward.maps)


def score_cam(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: Layer | None = None,
    batch: int = 32,
) -> Tensor:
    """Score-CAM, ``ReLU(Σ_k α_k A^k)`` without gradients: N×1×h×w, at least 0.

        H^k = upsample(A^k), scaled to [0, 1]          a mask
        α = softmax over k of y_c(x · H^k) - y_c(b)    score of the masked image

    Wang et al. 2020. This is the formula of their paper; their program uses probabilities instead
    of scores. The score of the baseline image b is the same for every k, so it cancels in the
    softmax and is not computed. Where ``H^k`` is 0, the masked image is 0: black for the networks
    of `vislib.nets`, the mean colour for a network that takes normalised images. A constant feature
    map (of a dead filter, or of size 1×1) cannot serve as a mask and gets the weight 0. If all
    feature maps are constant, the result is 0. Each image needs K + 1 forward passes.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        layer: as in `grad_cam`.
        batch: number of masked images that run at once.

    Raises:
        ValueError: `batch` is less than 1, or as in `grad_cam`.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ...                       nn.Linear(4, 5))
    >>> score_cam(model, torch.rand(2, 3, 8, 8), target=1).shape
    torch.Size([2, 1, 6, 6])
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1 image, got {batch}")
    layer = _layer_or_default(model, x, layer)
    with one_forward(model, x, target, layer=layer) as forward, torch.no_grad():
        maps = _check_maps(forward.maps)
        weights = maps.new_zeros(maps.shape[:2])
        for n, (image, of_logits) in enumerate(zip(forward.x, forward.weights, strict=True)):
            (varying,) = _is_varying(maps[n]).nonzero(as_tuple=True)
            scores = [
                score(model(image * _masks(maps[n, part], image.shape[1:])), Weighted(of_logits))
                for part in varying.split(batch)
            ]
            weights[n, varying] = torch.cat(scores).softmax(dim=0) if len(varying) else 0.0
        return _weighted_sum(weights[..., None, None], maps)


def _is_varying(maps: Tensor) -> Tensor:
    """Whether each of the K×h×w feature maps has more than one value, K booleans."""
    return maps.amax(dim=(1, 2)) > maps.amin(dim=(1, 2))


def _masks(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Feature maps K×h×w as masks K×1×H×W: upsampled, then each scaled to [0, 1]."""
    large = upsample(maps[:, None], size)
    low, high = large.amin(dim=(2, 3), keepdim=True), large.amax(dim=(2, 3), keepdim=True)
    return (large - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)


# --- Formulas -------------------------------------------------------------------------------------


def grad_cam_formula(maps: Tensor, grads: Tensor, *, relu: bool = True) -> Tensor:
    """Formula of Grad-CAM, ``ReLU(Σ_k α_k A^k)`` with ``α_k = (1/Z) Σ_ij g^k_ij``: N×1×h×w.

    Args:
        maps: feature maps ``A^k``, N×K×h×w.
        grads: gradients ``g^k = ∂y_c/∂A^k`` of the class score, N×K×h×w.
        relu: as in `grad_cam`.

    Raises:
        ValueError: `maps` does not have four dimensions.
    """
    maps = _check_maps(maps)
    return _weighted_sum(grads.mean(dim=(2, 3), keepdim=True), maps, relu=relu)


def grad_cam_pp_formula(maps: Tensor, grads: Tensor) -> Tensor:
    """Formula of Grad-CAM++, ``α_k = Σ_ij ReLU(g^k_ij) / (2 + g^k_ij Σ_ab A^k_ab)``: N×1×h×w.

    The paper takes ``exp(y_c)`` as the score. In a piecewise linear network its second and third
    derivatives are ``exp(y_c) g²`` and ``exp(y_c) g³``, and a position contributes to the weight

        exp(y_c) · ReLU(g) · g² / (2 g² + g³ Σ_ab A_ab)

    The factor ``exp(y_c)`` is the same at all positions and is left out here, as in other programs.
    Cancelling ``g²`` avoids underflow for small gradients, so no ε is needed. The formula is meant
    for feature maps after a ReLU. Where A is negative, the denominator can come near 0 or change
    its sign; a position where it is 0 does not contribute.

    Args:
        maps, grads: as in `grad_cam_formula`.

    Raises:
        ValueError: as in `grad_cam_formula`.
    """
    maps = _check_maps(maps)
    denominator = 2 + grads * maps.sum(dim=(2, 3), keepdim=True)
    summands = torch.where(denominator != 0, grads.clamp(min=0) / denominator, 0)
    return _weighted_sum(summands.sum(dim=(2, 3), keepdim=True), maps)


def xgrad_cam_formula(maps: Tensor, grads: Tensor, *, relu: bool = True) -> Tensor:
    """Formula of XGrad-CAM, ``α_k = Σ_ij g^k_ij A^k_ij / Σ_ij A^k_ij``: N×1×h×w.

    The weight α_k is the mean of the gradient, weighted by the feature map. Without the ReLU the
    values therefore sum to ``Σ_k Σ_ij g^k_ij A^k_ij``. A feature map whose sum is 0 gets the
    weight 0.

    Args:
        maps, grads, relu: as in `grad_cam_formula`.

    Raises:
        ValueError: as in `grad_cam_formula`.
    """
    maps = _check_maps(maps)
    total = maps.sum(dim=(2, 3), keepdim=True)
    product = (grads * maps).sum(dim=(2, 3), keepdim=True)
    return _weighted_sum(torch.where(total != 0, product / total, 0), maps, relu=relu)


def layer_cam_formula(maps: Tensor, grads: Tensor) -> Tensor:
    """Formula of LayerCAM, ``ReLU(Σ_k ReLU(g^k) · A^k)``: N×1×h×w, at least 0.

    Args:
        maps, grads: as in `grad_cam_formula`.

    Raises:
        ValueError: as in `grad_cam_formula`.
    """
    return _weighted_sum(grads.clamp(min=0), _check_maps(maps))


def eigen_cam_formula(maps: Tensor, grads: Tensor | None = None) -> Tensor:
    """Formula of Eigen-CAM, ``A v`` with v the first right singular vector of A: N×1×h×w, signed.

    For each image A is the matrix (positions × K) of its feature maps. As in the paper, its columns
    are not centred. (pytorch-grad-cam centres them, which gives another method: the first principal
    component.) The sign of a singular vector is arbitrary. Here it is chosen such that the map has
    a sum of at least 0. For feature maps after a ReLU each value is then at least 0.

    Args:
        maps: as in `grad_cam_formula`.
        grads: not used, so that all formulas have the same signature.

    Raises:
        ValueError: as in `grad_cam_formula`.
    """
    maps = _check_maps(maps)
    matrix = maps.flatten(2).mT
    _, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    component = matrix @ vh[:, :1].mT
    component = torch.where(component.sum(dim=1, keepdim=True) < 0, -component, component)
    return component.mT.reshape(len(maps), 1, *maps.shape[2:])


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grad_cam": grad_cam_formula,
    "grad_cam_pp": grad_cam_pp_formula,
    "xgrad_cam": xgrad_cam_formula,
    "layer_cam": layer_cam_formula,
    "eigen_cam": eigen_cam_formula,
}
"""Formulas that need only the feature maps of a layer and their gradients, by method name."""


# --- Shared steps ---------------------------------------------------------------------------------


def _layer_or_default(model: nn.Module, x: Tensor, layer: Layer | None) -> Layer:
    """Given layer, or the last convolutional stage, which costs one forward pass."""
    return last_conv_stage(model, x) if layer is None else layer


def _maps_and_gradients(
    model: nn.Module, x: Tensor, target: Target, layer: Layer | None
) -> tuple[Tensor, Tensor]:
    """``A`` and ``∂y_c/∂A`` of a layer, N×K×h×w, from one forward and one backward pass."""
    with one_forward(model, x, target, layer=_layer_or_default(model, x, layer)) as forward:
        (grads,) = forward.backward(forward.maps)
        return forward.maps.detach(), grads


def _check_maps(maps: Tensor) -> Tensor:
    """Feature maps without their graph; ``ValueError`` if they are not N×K×h×w."""
    if maps.ndim != 4:
        raise ValueError(
            "a class activation map needs feature maps of shape N×K×h×w, got "
            f"{tuple(maps.shape)} from the layer: choose a convolutional layer"
        )
    return maps.detach()


def _weighted_sum(weights: Tensor, maps: Tensor, *, relu: bool = True) -> Tensor:
    """``Σ_k weights · A^k``, N×1×h×w, with the ReLU if `relu`."""
    weighted = (weights * maps).sum(dim=1, keepdim=True)
    return weighted.clamp(min=0) if relu else weighted
