"""Does an explanation depend on what the net has learnt? Randomise the weights and look.

Adebayo et al. 2018 ("Sanity Checks for Saliency Maps") give the layers of a trained net new random
weights, one after the other from the logits down to the pixels, and compare the map of each step
with the map of the trained net:

    ρ_l = Spearman( |map of the trained net|, |map with all layers from the top to l random| )

A map that shows what the net has learnt must change, ρ → 0. One that stays the same shows the
picture, through whatever weights there are. The check can only fail a method: a map that changes
may still be wrong.
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


# --- New weights for one layer -------------------------------------------------------------------


def torch_default(layer: nn.Module) -> None:
    """New weights by the layer's own ``reset_parameters``; ``ValueError`` where it has none.

    Batch normalisation gets scale 1, shift 0, mean 0 and variance 1, and so becomes the identity:
    what it had learnt were the statistics of maps that no longer exist.
    """
    reset: Any = getattr(layer, "reset_parameters", None)
    if reset is None:
        raise ValueError(
            f"a {type(layer).__name__} has weights of its own but no reset_parameters(): pass "
            "draw=, a function that gives such a layer new weights"
        )
    reset()


def kaiming(layer: nn.Module) -> None:
    """As before a training: convolutions and dense layers with normal weights of variance 2 / (the
    number of inputs) and no bias (He et al. 2015), all others as `torch_default`.

    So the signal keeps its size on the way up. PyTorch's default shrinks it by about 0.4 in each
    ReLU layer, until the biases rule: the logits of a random SqueezeNet, 26 layers deep, then
    differ from picture to picture by a millionth, and there is nothing left to explain.
    """
    if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return torch_default(layer)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def shuffled(layer: nn.Module) -> None:
    """The layer's own numbers in another order: their histogram stays, what they mean is lost.

    Weights and biases are shuffled apart; the channels of a batch normalisation as wholes, each
    with its statistics.
    """
    channels = None
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        channels = torch.randperm(layer.num_features)
    for values in layer.state_dict().values():
        if values.ndim:  # batch normalisation counts its batches in a single number
            order = torch.randperm(values.numel()) if channels is None else channels
            values.copy_(values.flatten()[order].view_as(values))


# --- Layer after layer ---------------------------------------------------------------------------


def randomised(
    model: nn.Module,
    x: Tensor,
    *,
    cascading: bool = True,
    seed: int = 0,
    blocks: Sequence[str] = (),
    draw: Draw = kaiming,
) -> Iterator[tuple[str, nn.Module]]:
    """Yield (layer, a copy of the model with random weights from the logits down to this layer).

    >>> from vislib import nets
    >>> model = nets.load("pocket_gap")
    >>> [layer for layer, _ in randomised(model, torch.rand(1, 3, 64, 64))][:3]
    ['net.fc', 'net.features.16', 'net.features.14']

    Args:
        model: any net; it is left untouched, and so is PyTorch's random state.
        x: N×C×H×W, the first image is used to find the order of the layers.
        cascading: False makes one layer at a time random, with all others as they were learnt.
        seed: with it, a layer gets the same weights in every step, on every device.
        blocks: names of modules to be taken as one step each, see `layers`.
        draw: gives one layer new weights, from PyTorch's global random numbers: `kaiming`,
            `torch_default`, `shuffled` or your own.

    ``ValueError`` for a block that does not exist, and for a layer that `draw` cannot do.
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
    """The layer's own new state, made on the CPU, whose random numbers are the same everywhere."""
    layer = copy.deepcopy(layer).cpu()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(zlib.crc32(seed.encode()))
        draw(layer)
    return {name: values for name, values in layer.state_dict().items() if "." not in name}


# --- How alike are two maps? ---------------------------------------------------------------------


def cascade(
    model: nn.Module,
    x: Tensor,
    target: Target,
    methods: Mapping[str, Callable[[nn.Module, Tensor, Target], Tensor]],
    *,
    likeness: Callable[[Tensor, Tensor], Tensor] = rank_correlation,
    **options: Any,
) -> dict[str, dict[str, Tensor]]:
    """How alike each method's maps are before and after: ``{layer: {method: N numbers}}``.

    Args:
        model: the trained net.
        x: N×C×H×W.
        target: the class that is explained, the same in all steps, whatever the random net says.
        methods: by their names; each is called as ``method(model, x, target)``.
        likeness: of two batches of maps, one number for each image.
        options: those of `randomised`: ``cascading``, ``seed``, ``blocks``, ``draw``.
    """
    learnt = {name: method(model, x, target) for name, method in methods.items()}
    return {
        layer: {
            name: likeness(learnt[name], method(other, x, target))
            for name, method in methods.items()
        }
        for layer, other in randomised(model, x, **options)
    }
