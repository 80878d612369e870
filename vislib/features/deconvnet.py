"""The deconvnet of Zeiler and Fergus, built from modules: unpool, rectify, filter.

Which pattern of the image makes a unit of an inner layer fire? The deconvnet sets all activations
of the layer to zero except one, and sends this activation through approximate inverses of all
operations back to the pixels:

    forward         backward
    max pooling     unpooling: each value goes back to the position of its window's maximum (the
                    "switch"), which the forward pass has recorded; all other positions are zero
    ReLU            rectify the signal: R ← max(R, 0); the gates of the forward ReLU are not used
    convolution     the transposed filters, with the same weights and without bias

`vislib.explain.gradients.deconvnet_rule` computes the same map by the backward pass of autograd,
for any network. The two methods compare as follows:

* **Pools without overlap** (VGG): the results are equal up to rounding.
* **Overlapping pools** (AlexNet): two windows may have the same maximum. The derivative of max
  pooling adds up the signals of both windows; unpooling keeps one of them, here the largest (see
  `unpool`). With ``overlap="sum"`` the results are equal again.
* **The start**: the deconvnet starts with the value of the activation, a gradient starts with 1. A
  deconvnet is positively homogeneous, so the two results differ by this factor.
* **Normalisation** is linear up to a constant, so the signal is divided by the standard deviation.
  The result therefore refers to the image in [0, 1].

References:
    Zeiler, Taylor & Fergus 2011, "Adaptive Deconvolutional Networks for Mid and High Level Feature
    Learning".
    Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.core import Layer, find_layer, frozen
from vislib.layers import module_calls
from vislib.nets import Normalize

# Modules that pass their input through unchanged in evaluation mode.
_IDENTITY = (nn.Identity, nn.Dropout, nn.Dropout2d)
_KNOWN = (nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.BatchNorm2d, Normalize, *_IDENTITY)


class Step(NamedTuple):
    """One module of the forward pass, with the data that the backward pass needs.

    Attributes:
        name: dotted name of the module.
        module: the module.
        size: (height, width) of the input.
        switches: for max pooling, the position of each maximum in the input map as
            ``row · width + column``, N×C×h×w; None for other modules.
    """

    name: str
    module: nn.Module
    size: tuple[int, int]
    switches: Tensor | None


def reconstruct(
    model: nn.Module,
    x: Tensor,
    layer: Layer,
    unit: int,
    position: tuple[int, int] | None = None,
    *,
    overlap: str = "largest",
    switches: str = "recorded",
) -> Tensor:
    """Pattern that makes one unit fire, by the deconvnet: N×C×H×W, signed.

    After the ordinary forward pass, all activations of the layer are set to zero except one, which
    `project` sends back to the pixels. The reconstruction of a unit with activation 0 is zero.

    Args:
        model: network in which the path from the image to the layer is a chain, see `chain`.
        x: images, N×C×H×W, in the range that the model expects ([0, 1] for `vislib.nets`).
        layer: dotted name of a layer with feature maps N×K×h×w, or the module itself.
        unit: channel, 0 to K − 1.
        position: (row, column) in the feature map; by default the position of the channel's largest
            value in each image.
        overlap: "largest", "last" or "sum", see `unpool`.
        switches: "recorded" by the forward pass; or the fixed "corner" or "centre" of each pooling
            window, which shows the result of a deconvnet without switches.

    Raises:
        ValueError: the path to the layer is not a chain, the layer, unit or position does not
            exist, or an option has an unknown value.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3))
    >>> x = torch.rand(1, 3, 12, 12)
    >>> reconstruction = reconstruct(model, x, "3", unit=1, position=(0, 0))
    >>> reconstruction.shape, bool(reconstruction[..., 8:, :].any())
    (torch.Size([1, 3, 12, 12]), False)
    """
    maps, steps = forward(model, x, layer)
    return project(only_unit(maps, unit, position), steps, overlap=overlap, switches=switches)


def forward(model: nn.Module, x: Tensor, layer: Layer) -> tuple[Tensor, list[Step]]:
    """Feature maps of a layer (N×K×h×w), and the steps from the image to the layer.

    Args:
        model, x, layer: as in `reconstruct`.

    Raises:
        ValueError: the path to the layer is not a chain, or the layer does not exist.
    """
    modules = chain(model, x, layer)
    steps = []
    with frozen(model), torch.no_grad():
        for name, module in modules:
            switches = None
            size = (x.shape[2], x.shape[3])
            if isinstance(module, nn.MaxPool2d):
                x, switches = F.max_pool2d(
                    x,
                    module.kernel_size,
                    module.stride,
                    module.padding,
                    module.dilation,
                    module.ceil_mode,
                    return_indices=True,
                )
            else:
                # An in-place ReLU would overwrite the caller's image, so it gets a clone.
                x = module(x.clone())
            steps.append(Step(name, module, size, switches))
    return x, steps


def only_unit(maps: Tensor, unit: int, position: tuple[int, int] | None = None) -> Tensor:
    """Feature maps N×K×h×w with all values set to zero except that of `unit` at `position`.

    Args:
        maps: N×K×h×w.
        unit: channel.
        position: (row, column); by default the position of the channel's largest value in each
            image (the first one on ties).

    Raises:
        ValueError: the unit or the position does not exist.

    >>> only_unit(torch.tensor([[[[1.0, 5.0]], [[2.0, 3.0]]]]), unit=0).tolist()
    [[[[0.0, 5.0]], [[0.0, 0.0]]]]
    """
    channels, height, width = maps.shape[1:]
    if not 0 <= unit < channels:
        raise ValueError(f"unit must be between 0 and {channels - 1}, got {unit}")
    channel = maps[:, unit].flatten(1)
    if position is None:
        index = channel.argmax(dim=1, keepdim=True)
    else:
        row, column = position
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"position must be inside maps of {height}×{width}, got {position}")
        index = torch.full_like(channel[:, :1], row * width + column, dtype=torch.long)
    kept = torch.zeros_like(channel).scatter(1, index, channel.gather(1, index))
    signal = torch.zeros_like(maps)
    signal[:, unit] = kept.view(-1, height, width)
    return signal


def project(
    signal: Tensor, steps: list[Step], *, overlap: str = "largest", switches: str = "recorded"
) -> Tensor:
    """Send a signal at the output of the last step back to the pixels: N×C×H×W, signed.

    Args:
        signal: N×K×h×w.
        steps: as returned by `forward`.
        overlap, switches: as in `reconstruct`.

    Raises:
        ValueError: an option has an unknown value, or a convolution does not pad with zeros.
    """
    with torch.no_grad():
        for step in reversed(steps):
            module = step.module
            if isinstance(module, nn.MaxPool2d):
                indices = (
                    step.switches if switches == "recorded" else fixed_switches(step, switches)
                )
                assert indices is not None
                signal = unpool(signal, indices, step.size, overlap=overlap)
            elif isinstance(module, nn.ReLU):
                signal = signal.clamp(min=0)
            elif isinstance(module, nn.Conv2d):
                signal = transposed(signal, module, step.size)
            elif isinstance(module, Normalize):
                signal = signal / module.std
            elif isinstance(module, nn.BatchNorm2d):
                signal = signal * _batch_norm_scale(module).view(1, -1, 1, 1)
    return signal


def unpool(
    signal: Tensor, switches: Tensor, size: tuple[int, int], *, overlap: str = "largest"
) -> Tensor:
    """Put each value at the position that its switch names, with zeros elsewhere: N×C×H×W.

    If windows overlap, several values may go to the same position. The paper does not treat this
    case.

    Args:
        signal: N×C×h×w.
        switches: indices ``row · width + column`` into the larger map, N×C×h×w.
        size: (height, width) of the larger map.
        overlap: "largest" keeps the largest of the values. "last" keeps the last value in reading
            order, which may be a zero, as `torch.nn.functional.max_unpool2d` does on a CPU. (On a
            GPU the choice of PyTorch is arbitrary, but not the choice of this function.) "sum" adds
            up the values, as the derivative of max pooling does.

    Raises:
        ValueError: `overlap` has another value.

    >>> signal, switches = torch.tensor([[[[5.0, 2.0]]]]), torch.tensor([[[[1, 1]]]])
    >>> unpool(signal, switches, (1, 3)).tolist()
    [[[[0.0, 5.0, 0.0]]]]
    >>> unpool(signal, switches, (1, 3), overlap="sum").tolist()
    [[[[0.0, 7.0, 0.0]]]]
    """
    n, channels = signal.shape[:2]
    values, index = signal.flatten(2), switches.flatten(2)
    zeros = values.new_zeros(n, channels, size[0] * size[1])
    if overlap == "sum":
        unpooled = zeros.scatter_add(2, index, values)
    elif overlap == "largest":
        unpooled = zeros.scatter_reduce(2, index, values, "amax", include_self=False)
    elif overlap == "last":
        order = torch.arange(values.shape[2], device=index.device).expand_as(index)
        none = torch.full_like(zeros, -1, dtype=torch.long)
        last = none.scatter_reduce(2, index, order, "amax")
        unpooled = torch.where(last >= 0, values.gather(2, last.clamp(min=0)), 0)
    else:
        raise ValueError(f"overlap must be 'largest', 'last' or 'sum', got {overlap!r}")
    return unpooled.view(n, channels, *size)


def transposed(signal: Tensor, conv: nn.Conv2d, size: tuple[int, int]) -> Tensor:
    """Send a signal back through a convolution, with the transposed filters and without bias.

    Args:
        signal: N×K×h×w, at the output of the convolution.
        conv: the convolution.
        size: (height, width) of the input of the convolution.

    Returns:
        N×C×height×width, at the input of the convolution.

    Raises:
        ValueError: the convolution does not pad with a given number of zeros.
    """
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        raise ValueError(
            "the deconvnet supports only convolutions with a number of zeros around the map, got "
            f"{conv} with padding {conv.padding!r} and padding_mode {conv.padding_mode!r}"
        )
    # With a stride, the windows may not reach the last rows and columns of the input.
    rest = [
        full - ((small - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
        for full, small, stride, padding, dilation, kernel in zip(
            size,
            signal.shape[2:],
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.kernel_size,
            strict=True,
        )
    ]
    return F.conv_transpose2d(
        signal,
        conv.weight.detach(),
        stride=conv.stride,
        padding=conv.padding,
        output_padding=rest,
        groups=conv.groups,
        dilation=conv.dilation,
    )


def fixed_switches(step: Step, switches: str) -> Tensor:
    """Switches with the same position in every pooling window: N×C×h×w.

    They show the result of a deconvnet without switches.

    Args:
        step: step of a max pooling.
        switches: "corner" (top left) or "centre" of the window.

    Raises:
        ValueError: `switches` has another value.
    """
    if switches not in ("corner", "centre"):
        raise ValueError(f"switches must be 'recorded', 'corner' or 'centre', got {switches!r}")
    assert step.switches is not None
    pool: Any = step.module
    shape = step.switches.shape
    axes = []
    for axis in (0, 1):
        kernel, stride, padding, dilation = (
            value if isinstance(value, int) else value[axis]
            for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        )
        inside = 0 if switches == "corner" else dilation * ((kernel - 1) // 2)
        start = torch.arange(shape[2 + axis], device=step.switches.device) * stride - padding
        axes.append((start + inside).clamp(0, step.size[axis] - 1))
    return (axes[0][:, None] * step.size[1] + axes[1]).expand(shape)


def shared_fraction(switches: Tensor) -> float:
    """Fraction of windows whose maximum is also the maximum of another window, from 0 to 1.

    Args:
        switches: N×C×h×w, as in `Step`. If the windows do not overlap, the fraction is 0.

    >>> shared_fraction(torch.tensor([[[[1, 1, 4, 7]]]]))
    0.5
    """
    index = switches.flatten(2)
    zeros = index.new_zeros(*index.shape[:2], int(index.max()) + 1)
    windows = zeros.scatter_add(2, index, torch.ones_like(index))
    return float((windows.gather(2, index) > 1).double().mean())


def chain(model: nn.Module, x: Tensor, layer: Layer) -> list[tuple[str, nn.Module]]:
    """Modules from the image to `layer`, where each takes the output of the one before it.

    The path is followed from the layer's output back to the image. The deconvnet can go back
    through convolutions, ReLUs, max pools, batch normalisations, `nets.Normalize` and Dropout:
    AlexNet's and VGG's ``features`` are such chains.

    Args:
        model: any network.
        x: N×C×H×W. The model runs once, on the first image.
        layer: last module of the chain.

    Returns:
        Dotted names and modules, from the image to the layer.

    Raises:
        ValueError: the path contains a sum (ResNet), a concatenation (SqueezeNet), a function or a
            module of another type. The message names the module at which the chain ends.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
    >>> [name for name, _ in chain(model, torch.rand(1, 3, 8, 8), "2")]
    ['0', '1', '2']
    """
    name, target = find_layer(model, layer)
    trace = module_calls(model, x)
    links = [
        (call.name, call.module, call.input_state, call.output_state)
        for call in trace.calls
        if call.input_state is not None and call.output_state is not None
    ]
    last = max((i for i, link in enumerate(links) if link[1] is target), default=None)
    if last is None:
        raise ValueError(f"the forward pass never gives a tensor at layer {name!r}: choose another")

    path: list[tuple[str, nn.Module]] = []
    state, end = links[last][3], name
    earlier = [
        link
        for link in links[: last + 1]
        if not list(link[1].children()) and not isinstance(link[1], nn.Sequential)
    ]
    while not state.is_same(trace.image):
        while earlier and not earlier[-1][3].is_same(state):
            earlier.pop()
        if not earlier:
            raise ValueError(
                f"the path to {name!r} is not a chain: the {'input' if path else 'output'} of "
                f"{end!r} is not the output of a single module (but of a sum, a concatenation or a "
                "function). Choose a layer in a chain such as the features of AlexNet and VGG, or "
                "use gradients.deconvnet_rule, which works for any network"
            )
        end, module, state, _ = earlier.pop()
        if not isinstance(module, _KNOWN):
            raise ValueError(
                f"the deconvnet cannot go back through {end!r} ({type(module).__name__}), only "
                "through convolutions, ReLUs, max pools and normalisations. Choose a layer before "
                "it, or use gradients.deconvnet_rule, which works for any network"
            )
        path.append((end, module))
    return path[::-1]


def _batch_norm_scale(norm: nn.BatchNorm2d) -> Tensor:
    """Factor of each channel in a batch normalisation, in evaluation mode."""
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    return scale if norm.weight is None else scale * norm.weight
