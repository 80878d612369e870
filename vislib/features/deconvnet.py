"""The deconvnet of Zeiler and Fergus, built as a net of its own: unpool, rectify, filter.

A unit of an inner layer fired. Which pattern of the picture made it fire? The deconvnet runs the
net's own operations in the opposite direction, from the maps with everything but this one value
set to zero, down to the pixels:

    forwards        backwards
    max pooling     unpooling: each value goes to the place of its window's maximum (the "switch"),
                    which the forward pass has written down; all other places are zero
    ReLU            rectify: R ← max(R, 0), on the signal; the forward ReLU's gates are not used
    convolution     the transposed filters, the same weights, without bias

`vislib.explain.gradients.deconvnet_rule` does the same on autograd's backward pass, for any net. Where each
is right, and where the two differ:

* **Pools that do not overlap** (VGG): equal to the last digits.
* **Overlapping pools** (AlexNet): two windows may have the same maximum. The derivative of max
  pooling adds up what they send to it; unpooling keeps one value, here the largest (see `unpool`).
  With ``overlap="sum"`` the two are equal again.
* **The start**: the deconvnet starts with the activation itself, a gradient with 1. A deconvnet is
  positively homogeneous, so the pictures differ by this one factor.
* **Normalisation** is linear up to its constant, so its way back is the same factor: the signal is
  divided by the deviation, and the picture is one of the image in [0, 1].

Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks"; Zeiler, Taylor &
Fergus 2011, "Adaptive Deconvolutional Networks for Mid and High Level Feature Learning".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.core import Layer, find_layer, frozen
from vislib.layers import module_calls
from vislib.nets import Normalize

_NO_OPERATION = (nn.Identity, nn.Dropout, nn.Dropout2d)  # in evaluation mode
_KNOWN = (nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.BatchNorm2d, Normalize, *_NO_OPERATION)


class Step(NamedTuple):
    """One module of the forward pass, and what the way back through it needs to know.

    `size` is the (height, width) of its input; `switches` are a max pool's, N×C×h×w, each the
    place ``row · width + column`` in its input map, and None for other modules.
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
    places: str = "switches",
) -> Tensor:
    """The pattern that made one unit fire, by the deconvnet: N×C×H×W, signed.

    The forward pass is the net's own; then all of `layer`'s values are set to zero but one, which
    goes back through `project`. A unit that is 0 gives a picture of zeros: nothing made it fire.

    Args:
        model: a net whose path from the picture to the layer is a chain, see `chain`.
        x: N×C×H×W, as the model wants it ([0, 1] for nets of `vislib.nets`).
        layer: the dotted name of a layer with maps N×K×h×w, or the module.
        unit: the channel.
        position: its (row, column); None takes the largest value of the channel in each image.
        overlap: see `unpool`.
        places: "switches", or "corner" or "centre" for a deconvnet that has forgotten them.

    Raises:
        ValueError: no chain, no such layer, unit or position.
    """
    maps, steps = forward(model, x, layer)
    return project(only_unit(maps, unit, position), steps, overlap=overlap, places=places)


def forward(model: nn.Module, x: Tensor, layer: Layer) -> tuple[Tensor, list[Step]]:
    """The maps of `layer` (N×K×h×w), and the steps that lead there from the picture."""
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
                x = module(x.clone())  # a ReLU in place would overwrite what the caller holds
            steps.append(Step(name, module, size, switches))
    return x, steps


def only_unit(maps: Tensor, unit: int, position: tuple[int, int] | None = None) -> Tensor:
    """N×K×h×w maps with all values set to zero but one: that of `unit` at `position`.

    Without a position it is the channel's largest value in each image (of equals the first).
    """
    channels, height, width = maps.shape[1:]
    if not 0 <= unit < channels:
        raise ValueError(f"there is no unit {unit}: the layer has units 0 to {channels - 1}")
    channel = maps[:, unit].flatten(1)
    if position is None:
        place = channel.argmax(dim=1, keepdim=True)
    else:
        row, column = position
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"there is no position {position}: the maps are {height}×{width}")
        place = torch.full_like(channel[:, :1], row * width + column, dtype=torch.long)
    kept = torch.zeros_like(channel).scatter(1, place, channel.gather(1, place))
    signal = torch.zeros_like(maps)
    signal[:, unit] = kept.view(-1, height, width)
    return signal


def project(
    signal: Tensor, steps: list[Step], *, overlap: str = "largest", places: str = "switches"
) -> Tensor:
    """Send a signal (N×K×h×w, at the last step's output) down to the pixels: N×C×H×W, signed."""
    with torch.no_grad():
        for step in reversed(steps):
            module = step.module
            if isinstance(module, nn.MaxPool2d):
                switches = step.switches if places == "switches" else fixed_switches(step, places)
                assert switches is not None
                signal = unpool(signal, switches, step.size, overlap=overlap)
            elif isinstance(module, nn.ReLU):
                signal = signal.clamp(min=0)
            elif isinstance(module, nn.Conv2d):
                signal = transposed(signal, module, step.size)
            elif isinstance(module, Normalize):
                signal = signal / module.std
            elif isinstance(module, nn.BatchNorm2d):
                signal = signal * _slope(module).view(1, -1, 1, 1)
    return signal


def unpool(
    signal: Tensor, switches: Tensor, size: tuple[int, int], *, overlap: str = "largest"
) -> Tensor:
    """Put each value (N×C×h×w) to the place that its switch names, zeros elsewhere: N×C×H×W.

    Where windows overlap, several values may go to one place. The paper does not say what then:

    * ``overlap="largest"`` keeps the largest of them;
    * ``"last"`` the last in reading order, as `torch.nn.functional.max_unpool2d` does on a CPU (on
      a GPU it is a race there, not here). A zero may overwrite the only value that came down;
    * ``"sum"`` adds them up, as the derivative of max pooling does.
    """
    n, channels = signal.shape[:2]
    values, to = signal.flatten(2), switches.flatten(2)
    empty = values.new_zeros(n, channels, size[0] * size[1])
    if overlap == "sum":
        put = empty.scatter_add(2, to, values)
    elif overlap == "largest":
        put = empty.scatter_reduce(2, to, values, "amax", include_self=False)
    elif overlap == "last":
        order = torch.arange(values.shape[2], device=to.device).expand_as(to)
        nobody = torch.full_like(empty, -1, dtype=torch.long)
        last = nobody.scatter_reduce(2, to, order, "amax")
        put = torch.where(last >= 0, values.gather(2, last.clamp(min=0)), 0)
    else:
        raise ValueError(f"overlap is 'largest', 'last' or 'sum', not {overlap!r}")
    return put.view(n, channels, *size)


def transposed(signal: Tensor, conv: nn.Conv2d, size: tuple[int, int]) -> Tensor:
    """Back through a convolution: its transposed filters, no bias, to maps of `size`."""
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        raise ValueError(
            f"{conv} pads with {conv.padding!r}, mode {conv.padding_mode!r}: "
            "the deconvnet knows convolutions with a number of zeros around the map"
        )
    # Strided windows may leave a rest of the map unseen. It belongs to the size all the same.
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


def fixed_switches(step: Step, where: str) -> Tensor:
    """In place of a max pool's switches: the same place, "corner" or "centre", in every window.

    What a deconvnet would do that has not written the switches down.
    """
    if where not in ("corner", "centre"):
        raise ValueError(f"places are 'switches', 'corner' or 'centre', not {where!r}")
    assert step.switches is not None
    pool: Any = step.module
    shape = step.switches.shape
    axes = []
    for axis in (0, 1):
        kernel, stride, padding, dilation = (
            value if isinstance(value, int) else value[axis]
            for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        )
        inside = 0 if where == "corner" else dilation * ((kernel - 1) // 2)
        start = torch.arange(shape[2 + axis], device=step.switches.device) * stride - padding
        axes.append((start + inside).clamp(0, step.size[axis] - 1))
    return (axes[0][:, None] * step.size[1] + axes[1]).expand(shape)


def shared_fraction(switches: Tensor) -> float:
    """The share of windows whose maximum is another window's maximum too (0 without overlap)."""
    to = switches.flatten(2)
    empty = to.new_zeros(*to.shape[:2], int(to.max()) + 1)
    count = empty.scatter_add(2, to, torch.ones_like(to))  # how many windows chose each place
    return float((count.gather(2, to) > 1).double().mean())


def chain(model: nn.Module, x: Tensor, layer: Layer) -> list[tuple[str, nn.Module]]:
    """The modules from the image to `layer`, where each takes the output of the one before it.

    Found by following the layer's output back to the image. The deconvnet goes back through
    convolutions, ReLUs, max pools, batch normalisations, `vislib.nets.Normalize` and Dropout:
    AlexNet's and VGG's ``features`` are such chains.

    Args:
        model: any network.
        x: N×C×H×W. The model runs once, on the first image.
        layer: the last module of the chain.

    Returns:
        Dotted names and modules, from the image to the layer.

    Raises:
        ValueError: the path contains a sum (ResNet), a concatenation (SqueezeNet), a function or a
            module of another type. The message names the module where the chain ends.
    """
    name, wanted = find_layer(model, layer)
    trace = module_calls(model, x)
    links = [
        (call.name, call.module, call.takes, call.gives)
        for call in trace.calls
        if call.takes is not None and call.gives is not None
    ]
    last = max((i for i, link in enumerate(links) if link[1] is wanted), default=None)
    if last is None:
        raise ValueError(f"the forward pass never gives a tensor at layer {name!r}")

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
                f"the path to {name!r} is no chain: what {end!r} {'takes' if path else 'gives'} "
                "comes from no single module before it (a sum, a concatenation, a function). The "
                "deconvnet goes back through chains such as AlexNet's and VGG's features; "
                "gradients.deconvnet_rule works for any net"
            )
        end, module, state, _ = earlier.pop()
        if not isinstance(module, _KNOWN):
            raise ValueError(
                f"the deconvnet knows no way back through {end!r} ({type(module).__name__}), "
                "only through convolutions, ReLUs, max pools and normalisations. Choose a layer "
                "before it, or use gradients.deconvnet_rule, which works for any net"
            )
        path.append((end, module))
    return path[::-1]


def _slope(norm: nn.BatchNorm2d) -> Tensor:
    """What a batch normalisation in evaluation mode multiplies each channel with."""
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    return scale if norm.weight is None else scale * norm.weight
