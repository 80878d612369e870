"""Does an attribution map depend on what the network has learnt? Randomise the weights and compare.

Adebayo et al. 2018 ("Sanity Checks for Saliency Maps") give the layers of a trained network new
random weights, one after the other from the logits back to the pixels, and compare the map of each
step with the map of the trained network:

    ρ_l = Spearman( |map of the trained network|, |map with all layers from the last to l random| )

A map that shows what the network has learnt must change, ρ → 0. A map that stays the same shows the
image and not the weights. The check can only reject a method: a map that changes may still be
wrong.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vislib.core import Target
from vislib.layers import layers_with_weights
from vislib.maps import rank_correlation

Draw = Callable[[nn.Module], None]


# --- New weights for one layer --------------------------------------------------------------------


def torch_default(layer: nn.Module) -> None:
    """Give a layer new weights by its ``reset_parameters``.

    Batch normalisation gets scale 1, shift 0, mean 0 and variance 1, and so becomes the identity:
    its statistics belonged to feature maps that no longer exist.

    Raises:
        ValueError: the layer has no such method.
    """
    reset: Any = getattr(layer, "reset_parameters", None)
    if reset is None:
        raise ValueError(
            f"a {type(layer).__name__} has weights but no reset_parameters(): pass draw=, a "
            "function that gives such a layer new weights"
        )
    reset()


def kaiming(layer: nn.Module) -> None:
    """Give a layer the weights of an untrained network.

    Convolutions and dense layers get normal weights of variance 2 / (the number of inputs) and
    zero biases, all other layers those of `torch_default`. The signal then keeps its size from
    layer to layer. PyTorch's default multiplies it by about 0.4 in each ReLU layer, until the
    biases dominate: the logits of a random SqueezeNet, 26 layers deep, then differ between images
    by a millionth, so that nothing is left to explain.

    He et al. 2015, "Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet
    Classification".
    """
    if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return torch_default(layer)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def shuffled(layer: nn.Module) -> None:
    """Shuffle the weights of a layer: their histogram stays, their meaning is lost.

    Weights and biases are shuffled separately. The channels of a batch normalisation are shuffled
    as wholes, each with its statistics.
    """
    channels = None
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        channels = torch.randperm(layer.num_features)
    for values in layer.state_dict().values():
        if values.ndim:  # not the counter of batches in a batch normalisation
            order = torch.randperm(values.numel()) if channels is None else channels
            values.copy_(values.flatten()[order].view_as(values))


# --- Layer after layer ----------------------------------------------------------------------------


def randomised(
    model: nn.Module,
    x: Tensor,
    *,
    cascading: bool = True,
    seed: int = 0,
    blocks: Sequence[str] = (),
    draw: Draw = kaiming,
) -> Iterator[tuple[str, nn.Module]]:
    """Yield each layer's name with a copy of the model, random from the logits to this layer.

    >>> from vislib import nets
    >>> model = nets.load("pocket_gap")
    >>> [layer for layer, _ in randomised(model, torch.rand(1, 3, 64, 64))][:3]
    ['net.fc', 'net.features.16', 'net.features.14']

    Args:
        model: any network. It is not changed, nor is PyTorch's random state.
        x: N×C×H×W; the first image is used to find the order of the layers.
        cascading: False makes one layer at a time random and leaves all others trained.
        seed: a layer gets the same weights in every step and on every device.
        blocks: names of modules that form one step each, see `layers.layers_with_weights`.
        draw: a function that gives one layer new weights from PyTorch's global random numbers:
            `kaiming`, `torch_default`, `shuffled` or another one.

    Raises:
        ValueError: a block does not exist, or `draw` refuses a layer.
    """
    new: dict[str, dict[str, Tensor]] = {}
    for step, names in layers_with_weights(model, x, blocks=blocks).items():
        if not cascading:
            new = {}
        for name in names:
            new[name] = _drawn(model.get_submodule(name), draw, f"{name} {seed}")
        copied = copy.deepcopy(model)
        for name, state in new.items():
            copied.get_submodule(name).load_state_dict(state, strict=False)
        yield step, copied


def _drawn(layer: nn.Module, draw: Draw, seed: str) -> dict[str, Tensor]:
    """The new state of a layer, drawn on the CPU, whose random numbers are the same everywhere."""
    layer = copy.deepcopy(layer).cpu()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(zlib.crc32(seed.encode()))
        draw(layer)
    return {name: values for name, values in layer.state_dict().items() if "." not in name}


# --- The cascade ----------------------------------------------------------------------------------


def cascade(
    model: nn.Module,
    x: Tensor,
    target: Target,
    methods: Mapping[str, Callable[[nn.Module, Tensor, Target], Tensor]],
    *,
    similarity: Callable[[Tensor, Tensor], Tensor] = rank_correlation,
    **options: Any,
) -> dict[str, dict[str, Tensor]]:
    """The similarity of each method's maps before and after: ``{layer: {method: N numbers}}``.

    Args:
        model: the trained network.
        x: N×C×H×W.
        target: see `vislib.core.score`; the same in all steps, also where the random network
            predicts another class.
        methods: by their names; each is called as ``method(model, x, target)``.
        similarity: of two batches of maps, one number for each image.
        options: those of `randomised`: ``cascading``, ``seed``, ``blocks``, ``draw``.

    Adebayo et al. 2018, "Sanity Checks for Saliency Maps".
    """
    trained = {name: method(model, x, target) for name, method in methods.items()}
    return {
        layer: {
            name: similarity(trained[name], method(other, x, target))
            for name, method in methods.items()
        }
        for layer, other in randomised(model, x, **options)
    }
