"""Layers of a network: the modules that run, in their order, and the default layer of a method.

`module_calls` runs the model once and records the call of each module. The following functions read
this record, so they need no knowledge of the architecture:

    last_conv_stage      the default layer of Grad-CAM
    stages               one layer for each size of feature map
    classifier_head      the layer that computes the logits
    layers_with_weights  all layers that have parameters, from the logits back to the pixels

`operation_labels` gives an operation of a forward pass the name of its layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vislib.core import Operation, check_images, check_logits, find_layer, frozen

# --- Modules that run -----------------------------------------------------------------------------


class TensorState(NamedTuple):
    """Tensor and its version number, which every in-place operation increases.

    Two calls use the same values only if tensor and version are the same. Without the version, the
    result of ``out += shortcut`` in a ResNet would be taken for the output of the layer before it.

    Attributes:
        tensor: the tensor itself, not a copy.
        version: its version when it was recorded.
    """

    tensor: Tensor
    version: int

    def is_same(self, other: TensorState) -> bool:
        """Whether both states are the same tensor with the same values."""
        return self.tensor is other.tensor and self.version == other.version


class ModuleCall(NamedTuple):
    """One call of a module.

    Attributes:
        name: dotted name of the module; ``""`` is the model itself.
        module: the module.
        input_state: first positional argument of the call, None if this is not a tensor.
        output_state: output of the call, None if this is not a tensor.
        output: output of the call, of any type. A later in-place operation may have changed its
            values.
    """

    name: str
    module: nn.Module
    input_state: TensorState | None
    output_state: TensorState | None
    output: Any


class ForwardTrace(NamedTuple):
    """Result of `module_calls`: the record of one forward pass.

    Attributes:
        image: image that entered the model, 1×C×H×W.
        calls: calls in the order in which they ended, so a module comes after its parts.
        output: output of the model.
    """

    image: TensorState
    calls: list[ModuleCall]
    output: Any


def module_calls(model: nn.Module, x: Tensor) -> ForwardTrace:
    """Calls of all modules in one forward pass on the first image of a batch.

    The model runs in evaluation mode without gradients, and its previous state is restored
    afterwards, also after an exception. All outputs stay in memory as long as the record.

    Args:
        model: any network.
        x: images, N×C×H×W; only the first one is used.

    Raises:
        ValueError: `x` is not a batch of finite images.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    >>> calls = module_calls(model, torch.rand(2, 3, 8, 8)).calls
    >>> [(call.name, tuple(call.output.shape)) for call in calls]
    [('0', (1, 4, 6, 6)), ('1', (1, 4, 6, 6)), ('', (1, 4, 6, 6))]
    >>> calls[0].output is calls[1].output, calls[0].output_state.is_same(calls[1].output_state)
    (True, False)
    """
    names = {module: name for name, module in model.named_modules()}
    inputs: dict[nn.Module, TensorState | None] = {}
    calls: list[ModuleCall] = []

    def before(module: nn.Module, args: tuple) -> None:
        inputs[module] = _state(args[0]) if args else None

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        calls.append(ModuleCall(names[module], module, inputs[module], _state(output), output))

    with ExitStack() as hooks, frozen(model), torch.no_grad():
        for module in names:
            hooks.enter_context(module.register_forward_pre_hook(before))
            hooks.enter_context(module.register_forward_hook(after))
        # A clone, because a network may overwrite its input.
        image = check_images(x)[:1].clone()
        start = TensorState(image, image._version)
        return ForwardTrace(start, calls, model(image))


def _state(value: Any) -> TensorState | None:
    return TensorState(value, value._version) if isinstance(value, Tensor) else None


def _is_feature_map(output: Any) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4


# --- Choice of a layer ----------------------------------------------------------------------------


def last_conv_stage(model: nn.Module, x: Tensor) -> str:
    """Name of the last convolutional stage before the head, the default layer of Grad-CAM.

    The stage begins at the last convolution whose feature map is larger than 1×1 and that is not
    part of the head. It includes the activations and normalisations up to the next pooling, dropout
    or change of size. If several modules return the same tensor, the outermost one gives the name.
    Examples: ``features.11`` in AlexNet, ``features.35`` in VGG19, ``layer4`` in ResNet,
    ``features`` in SqueezeNet, DenseNet and MobileNet, ``inception5b`` in GoogLeNet.

    Args:
        model: N×C×H×W images to N×K logits.
        x: images, N×C×H×W. The model runs once, on the first one.

    Raises:
        ValueError: the model has no convolutional feature map larger than 1×1.

    >>> head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *head)
    >>> last_conv_stage(model, torch.rand(1, 3, 8, 8))
    '1'
    """
    _, calls, output = module_calls(model, x)
    in_head = _in_convolutional_head(calls, classes=check_logits(output).shape[1])
    convolutions = [
        i
        for i, call in enumerate(calls)
        if isinstance(call.module, nn.Conv2d) and not in_head[i] and call.output[0, 0].numel() > 1
    ]
    if not convolutions:
        raise ValueError(
            f"{type(model).__name__} has no convolutional feature map larger than 1×1 for an image "
            f"of {x.shape[-1]}×{x.shape[-2]} pixels: pass layer= or a larger image"
        )
    start = convolutions[-1]
    size = calls[start].output.shape[-2:]
    ends = (nn.Dropout, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    stage = [calls[start]]
    for i, call in enumerate(calls[start + 1 :], start + 1):
        if isinstance(call.module, ends) or in_head[i]:
            break
        if _is_feature_map(call.output) and call.output.shape[-2:] == size:
            stage.append(call)
    same = [call.name for call in reversed(stage) if call.output is stage[-1].output]
    # `min` returns the first of equally short names. The list is reversed, so that an in-place ReLU
    # comes before its convolution.
    return min(same, key=lambda name: name.count("."))


def _in_convolutional_head(calls: Sequence[ModuleCall], classes: int) -> list[bool]:
    """Whether each call belongs to a head without a linear layer, as in SqueezeNet.

    Such a call returns one feature map for each class, and no linear layer runs after it.
    """
    linear = [i for i, call in enumerate(calls) if isinstance(call.module, nn.Linear)]
    last_linear = max(linear, default=-1)
    return [
        i > last_linear and _is_feature_map(call.output) and call.output.shape[1] == classes
        for i, call in enumerate(calls)
    ]


def stages(model: nn.Module, x: Tensor) -> list[str]:
    """Names of layers, one for each size of feature map, from the pixels to `last_conv_stage`.

    If several layers return feature maps of the same size, the last one of the outermost layers is
    chosen. VGG16: ``features.3``, ``features.8``, … ``features.29``; ResNet: ``relu``, ``layer1``,
    … ``layer4``.

    Args:
        model: N×C×H×W images to N×K logits.
        x: images, N×C×H×W. The model runs twice, on the first one.

    Raises:
        ValueError: the model has no convolutional feature map larger than 1×1.

    >>> pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    >>> convolutions = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU()]
    >>> stages(nn.Sequential(*convolutions, *pool), torch.rand(1, 3, 8, 8))
    ['1', '3']
    """
    last = last_conv_stage(model, x)
    calls = module_calls(model, x).calls
    begin = next(i for i, call in enumerate(calls) if isinstance(call.module, nn.Conv2d))
    end = next(i for i, call in enumerate(calls) if call.module is model.get_submodule(last))
    chosen: dict[torch.Size, str] = {}
    for call in calls[begin : end + 1]:
        if _is_feature_map(call.output):
            size = call.output.shape[2:]
            best = chosen.setdefault(size, call.name)
            if call.name.count(".") <= best.count("."):
                chosen[size] = call.name
    return list(chosen.values())


def classifier_head(model: nn.Module, x: Tensor) -> str:
    """Name of the layer that computes the logits: the last linear layer or convolution that runs.

    Examples: ``classifier.6`` in AlexNet and VGG, ``fc`` in ResNet and GoogLeNet, the 1×1
    convolution ``classifier.1`` in SqueezeNet.

    Args:
        model: N×C×H×W images to N×K logits.
        x: images, N×C×H×W. The model runs once, on the first one.

    Raises:
        ValueError: the last of these layers does not return one value, or one feature map, for each
            class.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4, 5))
    >>> classifier_head(model, torch.rand(1, 3, 8, 8))
    '3'
    """
    _, calls, output = module_calls(model, x)
    classes = check_logits(output).shape[1]
    calls = [call for call in calls if isinstance(call.module, nn.Linear | nn.Conv2d)]
    if not calls or calls[-1].output.ndim < 2 or calls[-1].output.shape[1] != classes:
        raise ValueError(
            f"{type(model).__name__} does not end in a linear layer or convolution with one output "
            f"for each of its {classes} classes: pass layer="
        )
    return calls[-1].name


def layers_with_weights(
    model: nn.Module, x: Tensor, *, blocks: Sequence[str] = ()
) -> dict[str, list[str]]:
    """All layers with parameters, from the logits back to the pixels, in steps.

    The order is the reverse of the forward pass. For a layer that is called twice, the last call
    counts. A layer that is never called is left out.

    Args:
        model: any network.
        x: images, N×C×H×W. The model runs once, on the first one.
        blocks: dotted names (``"layer4"``, ``"inception5b"``). All layers of a block form one step;
            every other layer is a separate step.

    Returns:
        The name of each step with the dotted names of its layers.

    Raises:
        ValueError: a block does not exist, contains no layer with parameters that runs, or is part
            of another block.

    >>> block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), block, nn.Flatten(), nn.Linear(64, 5))
    >>> layers_with_weights(model, torch.rand(1, 3, 8, 8), blocks=["1"])
    {'3': ['3'], '1': ['1.1', '1.0'], '0': ['0']}
    """
    called: dict[str, None] = {}
    for call in module_calls(model, x).calls:
        learnt: list[Tensor] = [*call.module.parameters(recurse=False)]
        # Batch normalisation may have running statistics and no parameters.
        if hasattr(call.module, "reset_parameters"):
            learnt += call.module.buffers(recurse=False)
        if learnt:
            # Removing the name first moves it to the end, after all earlier calls.
            called.pop(call.name, None)
            called[call.name] = None

    known_blocks = [find_layer(model, block)[0] for block in blocks]
    steps: dict[str, list[str]] = {}
    for name in reversed(called):
        around = [block for block in known_blocks if f"{name}.".startswith(f"{block}.")]
        steps.setdefault(min(around, key=len, default=name), []).append(name)
    if unused := [block for block in known_blocks if block not in steps]:
        raise ValueError(
            f"block {unused[0]!r} holds no layer with weights that the model calls, or is part of "
            "another block: remove it from blocks"
        )
    return steps


# --- Names of operations --------------------------------------------------------------------------


def operation_labels(model: nn.Module) -> Callable[[Operation], str]:
    """Function from an operation to the name of the module whose parameters the operation uses.

    An operation without parameters gets its operation name, such as ``add``.

    Args:
        model: network that the operations belong to.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 5))
    >>> label = operation_labels(model)
    >>> label(Operation(torch.conv2d, (), torch.empty(0), "conv2d", args=(model[0].weight,)))
    '0'
    >>> label(Operation(torch.add, (), torch.empty(0), "add"))
    'add'
    """
    names = {
        id(tensor): name.rpartition(".")[0] or name
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
    }

    def label(operation: Operation) -> str:
        used = (names.get(id(a)) for a in (*operation.args, *operation.kwargs.values()))
        return next((name for name in used if name), operation.name.strip("_"))

    return label
