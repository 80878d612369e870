"""Gradient, deconvnet and guided backpropagation: backward passes from the score to the pixels.

Each method needs one forward and one backward pass. At every ReLU ``f = max(z, 0)`` the backward
pass receives a signal ``R`` at the output and computes the signal ``R_in`` at the input:

    gradient           R_in = (f > 0) · R               Simonyan et al. 2014
    deconvnet          R_in = (R > 0) · R               Zeiler & Fergus 2014
    guided backprop    R_in = (f > 0) · (R > 0) · R     Springenberg et al. 2015

Three more maps are functions of the gradient ``g = ∂y_c/∂x`` of the class score:

    saliency           max |g| over the channels        Simonyan et al. 2014
    sensitivity        g²                               Montavon et al. 2018
    gradient × input   x · g                            Shrikumar et al. 2016

Gradient × input is a decomposition of the score: for a network with ReLUs and no biases its values
sum to ``y_c``. The values of the sensitivity sum to ``‖g‖²``, which is not the score.

All explanation methods of `vislib.explain` share three arguments:

    model    network from images N×C×H×W to logits N×K. It runs in evaluation mode, and its previous
             state is restored afterwards, also after an exception.
    x        images, N×C×H×W, float and finite, in the range that the model expects: [0, 1] for the
             networks of `vislib.nets`.
    target   target class: one class index for all images or N of them. The target may also be a
             `vislib.core.Contrast` of classes ("why A rather than B") or a `vislib.core.Weighted`
             sum of logits.

They return a raw, signed attribution map on the device and in the dtype of `x`. They raise
``ValueError`` if `x` is not a finite float tensor N×C×H×W, or if the target class does not exist.

References:
    Simonyan, Vedaldi & Zisserman 2014, "Deep Inside Convolutional Networks: Visualising Image
    Classification Models and Saliency Maps".
    Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks".
    Springenberg, Dosovitskiy, Brox & Riedmiller 2015, "Striving for Simplicity: The All
    Convolutional Net".
    Montavon, Samek & Müller 2018, "Methods for Interpreting and Understanding Deep Neural
    Networks".
    Shrikumar, Greenside, Shcherbina & Kundaje 2016, "Not Just a Black Box: Learning Important
    Features Through Propagating Activation Differences".
"""

from __future__ import annotations

from torch import Tensor, nn

from vislib.core import Operation, Target, one_forward
from vislib.maps import channel_maximum

# --- Backward rules -------------------------------------------------------------------------------


def deconvnet_rule(operation: Operation, signal: Tensor) -> tuple[Tensor]:
    """Positive part of the signal, ``max(R, 0)``, independent of the forward pass."""
    return (signal.clamp(min=0),)


def guided_rule(operation: Operation, signal: Tensor) -> tuple[Tensor, ...]:
    """Positive part of the signal times the derivative, ``f'(z) · max(R, 0)``."""
    return operation.vjp(signal.clamp(min=0))


# --- Methods --------------------------------------------------------------------------------------


def gradient(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """Gradient of the class score, ``∂y_c/∂x``: N×C×H×W, signed.

    Simonyan et al. 2014.

    Args:
        model, x, target: as explained at the top of this module.

    Raises:
        ValueError: `x` is not a batch of finite images, or the target class does not exist.

    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    >>> x = torch.rand(1, 3, 2, 2)
    >>> torch.equal(gradient(model, x, target=1).flatten(), model[1].weight[1])
    True
    """
    with one_forward(model, x, target) as forward:
        return forward.backward()[0]


def saliency(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """Saliency map, ``max |∂y_c/∂x|`` over the channels: N×1×H×W, at least 0.

    Simonyan et al. 2014. `vislib.maps.positive_part` of the `gradient` keeps only the pixels that
    raise the score when they become brighter.

    Args:
        model, x, target: as explained at the top of this module.

    Raises:
        ValueError: `x` is not a batch of finite images, or the target class does not exist.

    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    >>> saliency(model, torch.rand(2, 3, 2, 2), target=1).shape
    torch.Size([2, 1, 2, 2])
    """
    return channel_maximum(gradient(model, x, target))


def deconvnet(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """Deconvnet: backward pass with ``R_in = (R > 0) · R`` at every ReLU, N×C×H×W, signed.

    Zeiler & Fergus 2014. The rule does not use the gates ``f > 0`` of the forward pass. Max pooling
    passes the signal to the position of the maximum (the "switches") and convolutions use their
    transposed filters, as in every backward pass. Other activations have the same rule as ReLU.

    Args:
        model, x, target: as explained at the top of this module.

    Raises:
        ValueError: `x` is not a batch of finite images, the target class does not exist, or the
            model calls no activation, so that the result would be the plain gradient.

    >>> import torch
    >>> model = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(3, 1, bias=False))
    >>> model[2].weight.data = torch.tensor([[-2.0, 3.0, 1.0]])
    >>> x = torch.tensor([1.0, -1.0, 5.0]).view(1, 1, 1, 3)
    >>> gradient(model, x, target=0).flatten().tolist()
    [-2.0, 0.0, 1.0]
    >>> deconvnet(model, x, target=0).flatten().tolist()
    [0.0, 3.0, 1.0]
    """
    with one_forward(model, x, target, families=["activation"]) as forward:
        return forward.backward(activation=deconvnet_rule)[0]


def guided_backprop(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """Guided backpropagation: ``R_in = (f > 0) · (R > 0) · R`` at every ReLU, N×C×H×W, signed.

    Springenberg et al. 2015. For another activation ``f(z)`` the derivative replaces the gate
    ``f > 0``: ``R_in = f'(z) · max(R, 0)``.

    Args:
        model, x, target: as explained at the top of this module.

    Raises:
        ValueError: `x` is not a batch of finite images, the target class does not exist, or the
            model calls no activation, so that the result would be the plain gradient.

    >>> import torch
    >>> model = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(3, 1, bias=False))
    >>> model[2].weight.data = torch.tensor([[-2.0, 3.0, 1.0]])
    >>> x = torch.tensor([1.0, -1.0, 5.0]).view(1, 1, 1, 3)
    >>> guided_backprop(model, x, target=0).flatten().tolist()
    [0.0, 0.0, 1.0]
    """
    with one_forward(model, x, target, families=["activation"]) as forward:
        return forward.backward(activation=guided_rule)[0]


def sensitivity(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """Sensitivity, ``R_i = (∂y_c/∂x_i)²``: N×C×H×W, at least 0.

    Montavon et al. 2018. The values of each image sum to ``‖∇y_c‖²``. The map shows the pixels
    whose change would make the image more, or less, an example of the class. It does not show the
    pixels that make the image an example of the class.

    Args:
        model, x, target: as explained at the top of this module.

    Raises:
        ValueError: `x` is not a batch of finite images, or the target class does not exist.

    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    >>> R = sensitivity(model, torch.rand(1, 3, 2, 2), target=1)
    >>> torch.allclose(R.sum(), model[1].weight[1].square().sum())
    True
    """
    return gradient(model, x, target).square()


def gradient_x_input(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """Gradient × input, ``R_i = x_i ∂y_c/∂x_i``: N×C×H×W, signed.

    Shrikumar et al. 2016. A pixel of value 0 (black) always has the relevance 0. For a network with
    ReLUs and no biases the values of each image sum to its class score.

    Args:
        model, x, target: as explained at the top of this module.

    Raises:
        ValueError: `x` is not a batch of finite images, or the target class does not exist.

    >>> import torch
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 2, bias=False), nn.ReLU(), nn.Flatten(1))
    >>> x = torch.rand(1, 3, 2, 2)
    >>> R = gradient_x_input(model, x, target=1)
    >>> torch.allclose(R.sum(), model(x)[0, 1], atol=1e-6)
    True
    """
    grads = gradient(model, x, target)
    return x.detach() * grads
