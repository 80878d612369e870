"""The layers of a network: which of its modules run, and which one a method should look at.

`module_calls` runs the model once and notes each module's call. The functions below read that list:

    last_conv_stage      where Grad-CAM looks by default
    stages               one layer for each size of feature map
    classifier_head      the layer that computes the logits
    layers_with_weights  all layers that have parameters, from the logits back to the pixels
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vislib.core import (
    Operation,
    check_images,
    check_logits,
    find_layer,
    frozen,
)


class TensorState(NamedTuple):
    """A tensor at one moment. An in-place operation keeps the tensor and raises its version.

    Without the version, the result of ``out += shortcut`` in ResNet would be taken for the output
    of the layer before it.
    """

    tensor: Tensor
    version: int

    def is_same(self, other: TensorState) -> bool:
        """Whether both are the same tensor with the same values."""
        return self.tensor is other.tensor and self.version == other.version


class ModuleCall(NamedTuple):
    """One call of a module.

    Attributes:
        name: the module's dotted name.
        module: the module itself.
        takes: its first argument, None if that is not a tensor.
        gives: its output, None if that is not a tensor.
        output: its output, of any type.
    """

    name: str
    module: nn.Module
    takes: TensorState | None
    gives: TensorState | None
    output: Any


class ForwardTrace(NamedTuple):
    """What `module_calls` returns: the image, the calls in the order in which they ended, and the
    model's output."""

    image: TensorState
    calls: list[ModuleCall]
    output: Any


def module_calls(model: nn.Module, x: Tensor) -> ForwardTrace:
    """Run the model on the first image of a batch and note the call of each module.

    Args:
        model: any network. It is left as it was.
        x: N×C×H×W; only the first image is used.

    Raises:
        ValueError: `x` is not a batch of finite images.
    """
    names = {module: name for name, module in model.named_modules()}
    begun: dict[nn.Module, TensorState | None] = {}
    calls: list[ModuleCall] = []

    def before(module: nn.Module, args: tuple) -> None:
        begun[module] = _state(args[0]) if args else None

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        calls.append(ModuleCall(names[module], module, begun[module], _state(output), output))

    handles = [module.register_forward_pre_hook(before) for module in names]
    handles += [module.register_forward_hook(after) for module in names]
    try:
        with frozen(model), torch.no_grad():
            # A clone, because a network may overwrite its input.
            image = check_images(x)[:1].clone()
            start = TensorState(image, image._version)
            return ForwardTrace(start, calls, model(image))
    finally:
        for handle in handles:
            handle.remove()


def _state(value: Any) -> TensorState | None:
    return TensorState(value, value._version) if isinstance(value, Tensor) else None


def last_conv_stage(model: nn.Module, x: Tensor) -> str:
    """Name of the layer where Grad-CAM usually looks: the last convolutional stage before the head.

    It is the last convolution that still gives a feature map (larger than 1×1, and not yet one map
    for each class), and from there on through activations and normalisations up to the next
    pooling, dropout or change of shape. Of modules that return the very same tensor, it is the
    outermost. AlexNet ``features.11``, VGG19 ``features.35``, ResNet ``layer4``, SqueezeNet,
    DenseNet and MobileNet ``features``, GoogLeNet ``inception5b``.

    Args:
        model: a network that gives logits.
        x: N×C×H×W. The model runs once, on the first image.

    Raises:
        ValueError: the model has no convolutional feature map larger than 1×1.
    """
    _, calls, output = module_calls(model, x)
    classes = check_logits(output).shape[1]

    # One feature map per class, with no linear layer after it, is the head of a SqueezeNet.
    linear = max(
        (i for i, call in enumerate(calls) if isinstance(call.module, nn.Linear)), default=-1
    )
    head = [
        i > linear and _is_maps(c.output) and c.output.shape[1] == classes
        for i, c in enumerate(calls)
    ]
    convolutions = [
        i
        for i, call in enumerate(calls)
        if isinstance(call.module, nn.Conv2d) and not head[i] and call.output[0, 0].numel() > 1
    ]
    if not convolutions:
        raise ValueError(
            f"{type(model).__name__} has no convolutional map larger than 1×1: pass layer="
        )
    start = convolutions[-1]
    size = calls[start].output.shape[-2:]
    ends = (nn.Dropout, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    stage = [calls[start]]
    for i, call in enumerate(calls[start + 1 :], start + 1):
        if isinstance(call.module, ends) or head[i]:
            break
        if _is_maps(call.output) and call.output.shape[-2:] == size:
            stage.append(call)
    same = [call.name for call in reversed(stage) if call.output is stage[-1].output]
    # `min` keeps the first of equally short names. The list is reversed, so that is the ReLU and
    # not the convolution before it.
    return min(same, key=lambda name: name.count("."))


def _is_maps(output: Any) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4


def stages(model: nn.Module, x: Tensor) -> list[str]:
    """One layer for each size of feature map, from the first convolution to `last_conv_stage`.

    Of the layers whose feature maps have the same size it is the outermost, and of those the last.
    VGG16: ``features.3``, ``features.8``, … ``features.29``; ResNet: ``relu``, ``layer1``, …
    ``layer4``.

    Args:
        model: a network that gives logits.
        x: N×C×H×W. The model runs twice, on the first image.

    Raises:
        ValueError: the model has no convolutional feature map larger than 1×1.
    """
    last = last_conv_stage(model, x)
    calls = module_calls(model, x).calls
    begin = next(i for i, call in enumerate(calls) if isinstance(call.module, nn.Conv2d))
    end = next(i for i, call in enumerate(calls) if call.module is model.get_submodule(last))
    chosen: dict[torch.Size, str] = {}
    for call in calls[begin : end + 1]:
        if _is_maps(call.output):
            best = chosen.setdefault(call.output.shape[2:], call.name)
            if call.name.count(".") <= best.count("."):
                chosen[call.output.shape[2:]] = call.name
    return list(chosen.values())


def classifier_head(model: nn.Module, x: Tensor) -> str:
    """Name of the layer that computes the logits: the last linear or convolutional one that runs.

    ``classifier.6`` in AlexNet and VGG, ``fc`` in ResNet and GoogLeNet, the 1×1 convolution
    ``classifier.1`` in SqueezeNet.

    Args:
        model: a network that gives logits.
        x: N×C×H×W. The model runs once, on the first image.

    Raises:
        ValueError: that layer does not give one value, or one feature map, for each class.
    """
    _, calls, output = module_calls(model, x)
    classes = check_logits(output).shape[1]
    calls = [call for call in calls if isinstance(call.module, nn.Linear | nn.Conv2d)]
    if not calls or calls[-1].output.ndim < 2 or calls[-1].output.shape[1] != classes:
        raise ValueError(
            f"{type(model).__name__} does not end in a linear layer or convolution with one output "
            f"for each of its {classes} classes: say with layer= whose output you want"
        )
    return calls[-1].name


def layers_with_weights(
    model: nn.Module, x: Tensor, *, blocks: Sequence[str] = ()
) -> dict[str, list[str]]:
    """All layers with parameters, from the logits back to the pixels, as steps of one or several.

    The order is the reverse of the forward pass. A layer that is called twice has the position of
    its last call. A layer that is never called is left out.

    Args:
        model: any network.
        x: N×C×H×W. The model runs once, on the first image.
        blocks: dotted names (``"layer4"``, ``"inception5b"``) whose layers form one step each.

    Returns:
        The name of each step with the dotted names of its layers.

    Raises:
        ValueError: a block does not exist, or it contains no layer with parameters that runs.
    """
    called: dict[str, None] = {}
    for call in module_calls(model, x).calls:
        learnt: list[Tensor] = [*call.module.parameters(recurse=False)]
        # Batch normalisation may have running statistics and no parameters.
        if hasattr(call.module, "reset_parameters"):
            learnt += call.module.buffers(recurse=False)
        if learnt:
            called.pop(call.name, None)
            called[call.name] = None

    outer = [find_layer(model, block)[0] for block in blocks]
    steps: dict[str, list[str]] = {}
    for name in reversed(called):
        around = [block for block in outer if f"{name}.".startswith(f"{block}.")]
        steps.setdefault(min(around, key=len, default=name), []).append(name)
    if unused := [block for block in outer if block not in steps]:
        raise ValueError(
            f"block {unused[0]!r} holds no layer with weights that the net calls, or lies in "
            "another block"
        )
    return steps


def operation_labels(model: nn.Module) -> Callable[[Operation], str]:
    """A function that gives the name of the module whose parameters an operation uses.

    An operation without parameters has its own name, such as ``add``.
    """
    names = {
        id(tensor): name.rpartition(".")[0] or name
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
    }

    def label(operation: Operation) -> str:
        used = (names.get(id(a)) for a in (*operation.args, *operation.kwargs.values()))
        return next((name for name in used if name), operation.name.strip("_"))

    return label
