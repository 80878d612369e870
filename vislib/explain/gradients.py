"""Explanations that send the class score back to the pixels.

One backward pass, three ways through a ReLU ``f = max(z, 0)`` with the signal ``R`` coming from
above:

    gradient          R_in = (f > 0) · R               Simonyan et al. 2014
    deconvnet         R_in = (R > 0) · R               Zeiler & Fergus 2013
    guided backprop   R_in = (f > 0) · (R > 0) · R     Springenberg et al. 2015

All take ``model`` (N×C×H×W → N×K logits), ``x`` (N×C×H×W, as the model wants it: [0, 1] for nets of
`vislib.nets`) and ``target`` (one class or N), and return the raw signed map on x's device. The
model is left exactly as it was. All raise ``ValueError`` for images that are not finite N×C×H×W
floats and for classes that the model does not have.
"""

from __future__ import annotations

from torch import Tensor, nn

from vislib.core import Operation, Target, one_forward


def deconvnet_rule(operation: Operation, signal: Tensor) -> tuple[Tensor]:
    """Pass what is positive on the way back, whatever the forward pass was."""
    return (signal.clamp(min=0),)


def guided_rule(operation: Operation, signal: Tensor) -> tuple[Tensor, ...]:
    """Pass what is positive on the way back, through the activation's own derivative."""
    return operation.vjp(signal.clamp(min=0))


def gradient(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """``∂y_c/∂x``: how the class score changes with each pixel, N×C×H×W, signed.

    Simonyan, Vedaldi & Zisserman 2014, "Deep Inside Convolutional Networks".
    """
    with one_forward(model, x, target) as forward:
        return forward.backward()[0]


def saliency(model: nn.Module, x: Tensor, target: Target, *, positive: bool = False) -> Tensor:
    """Largest ``|∂y_c/∂x|`` over the channels, N×1×H×W, at least 0.

    `positive` keeps only the pixels that raise the score when they grow: ``max(∂y_c/∂x, 0)``.
    Simonyan, Vedaldi & Zisserman 2014.
    """
    slope = gradient(model, x, target)
    slope = slope.clamp(min=0) if positive else slope.abs()
    return slope.amax(dim=1, keepdim=True)


def deconvnet(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """The deconvnet's reconstruction, N×C×H×W, signed: backwards through ReLU, ``R_in = (R > 0) ·
    R``.

    The forward ReLU gates are not used; pooling passes the signal to where the maximum was (the
    "switches") and convolutions use their transposed filters, which is what autograd does for both.
    An activation other than ReLU is treated alike: only the positive signal passes.
    Zeiler & Fergus 2013, "Visualizing and Understanding Convolutional Networks".
    """
    with one_forward(model, x, target, families=["activation"]) as forward:
        return forward.backward(activation=deconvnet_rule)[0]


def guided_backprop(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """Guided backpropagation, N×C×H×W, signed: ``R_in = (f > 0) · (R > 0) · R`` at every ReLU.

    For an activation other than ReLU its own derivative stands in place of the gate:
    ``R_in = f'(z) · max(R, 0)``.
    Springenberg et al. 2015, "Striving for Simplicity: The All Convolutional Net".
    """
    with one_forward(model, x, target, families=["activation"]) as forward:
        return forward.backward(activation=guided_rule)[0]


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
