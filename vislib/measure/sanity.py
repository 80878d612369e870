"""Sanity check by randomised weights: does an attribution map depend on what was learnt?

Adebayo et al. 2018 give the layers of a trained network new random weights, one layer after the
other from the logits back to the pixels. They compare the map of each step with the map of the
trained network:

    ρ_l = Spearman( |map of the trained network|, |map with all layers from the last to l random| )

A map that shows what the network has learnt must change, ρ → 0. A map that stays the same shows the
image and not the weights. The check can only reject a method: a map that changes may still be
wrong.

References:
    Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim 2018, "Sanity Checks for Saliency Maps".
    He, Zhang, Ren & Sun 2015, "Delving Deep into Rectifiers: Surpassing Human-Level Performance on
    ImageNet Classification".
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
    """Give a layer new weights, in place, by its ``reset_parameters``.

    Batch normalisation becomes the identity: scale 1, shift 0, mean 0, variance 1. Its statistics
    belong to the feature maps of the trained network.

    Raises:
        ValueError: the layer has no such method.
    """
    reset: Any = getattr(layer, "reset_parameters", None)
    if reset is None:
        raise ValueError(
            f"a {type(layer).__name__} has weights but no reset_parameters(): pass draw=, a "
            "function that gives this layer new weights"
        )
    reset()


def kaiming(layer: nn.Module) -> None:
    """Give a layer new weights, in place, by the initialisation of He et al. 2015.

    Convolutions and dense layers get normal weights of variance 2 / (number of inputs of a neuron)
    and zero biases. All other layers get those of `torch_default`. The signal then keeps its size
    from layer to layer. PyTorch's default multiplies it by about 0.4 in each ReLU layer, until the
    biases dominate. The logits of a random SqueezeNet (26 layers) then differ between images by
    only a millionth, so that nothing is left to explain.

    Raises:
        ValueError: as in `torch_default`.
    """
    if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return torch_default(layer)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def shuffled(layer: nn.Module) -> None:
    """Shuffle the weights of a layer in place, which keeps their histogram.

    Weights and biases are shuffled separately. The channels of a batch normalisation are shuffled
    together with their statistics.
    """
    channels = None
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        channels = torch.randperm(layer.num_features)
    for values in layer.state_dict().values():
        # The counter of batches in a batch normalisation has no dimension.
        if values.ndim:
            order = torch.randperm(values.numel()) if channels is None else channels
            values.copy_(values.flatten()[order].view_as(values))


# --- Randomised copies of a model -----------------------------------------------------------------


def randomised(
    model: nn.Module,
    x: Tensor,
    *,
    cascading: bool = True,
    seed: int = 0,
    blocks: Sequence[str] = (),
    draw: Draw = kaiming,
) -> Iterator[tuple[str, nn.Module]]:
    """Yield each step's name and a copy of the model with new weights from the logits to this step.

    The steps are those of `layers.layers_with_weights`: one layer or one block each. The given
    model and PyTorch's random state are not changed.

    Args:
        model: any network.
        x: images, N×C×H×W; the first one is used to find the order of the layers.
        cascading: whether the layers of all earlier steps have new weights, too. If False, all
            layers but those of the step keep their trained weights.
        seed: seed of the new weights. A layer gets the same weights in every step and on every
            device.
        blocks: as in `layers.layers_with_weights`.
        draw: function that gives a layer new weights, in place, from PyTorch's global random
            numbers: `kaiming`, `torch_default`, `shuffled` or another one.

    Raises:
        ValueError: a block does not exist, or `draw` raises for a layer.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4, 5))
    >>> steps = dict(randomised(model, torch.rand(1, 3, 8, 8)))
    >>> [(name, torch.equal(copy[0].weight, model[0].weight)) for name, copy in steps.items()]
    [('3', True), ('0', False)]
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
    """New state of a layer, drawn on the CPU so that it is the same on every device."""
    layer = copy.deepcopy(layer).cpu()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(zlib.crc32(seed.encode()))
        draw(layer)
    return {name: values for name, values in layer.state_dict().items() if "." not in name}


# --- Cascade --------------------------------------------------------------------------------------


def cascade(
    model: nn.Module,
    x: Tensor,
    target: Target,
    methods: Mapping[str, Callable[[nn.Module, Tensor, Target], Tensor]],
    *,
    similarity: Callable[[Tensor, Tensor], Tensor] = rank_correlation,
    **options: Any,
) -> dict[str, dict[str, Tensor]]:
    """Similarity of each method's maps to those of the trained network, in each step.

    Adebayo et al. 2018.

    Args:
        model: the trained network.
        x: images, N×C×H×W.
        target: as in `vislib.explain.gradients`. It is the same in all steps, also if the network
            with random weights predicts another class.
        methods: functions ``method(model, x, target)`` by their names.
        similarity: function from two batches of maps to N numbers.
        options: options of `randomised`: ``cascading``, ``seed``, ``blocks``, ``draw``.

    Returns:
        For each step, the similarities by method: ``{step: {method: N numbers}}``.

    Raises:
        ValueError: as in `randomised`, or a method raises.

    >>> from vislib.explain.gradients import gradient
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4, 5))
    >>> result = cascade(model, torch.rand(2, 3, 8, 8), 3, {"gradient": gradient})
    >>> [(step, similarities["gradient"].shape) for step, similarities in result.items()]
    [('3', torch.Size([2])), ('0', torch.Size([2]))]
    """
    trained = {name: method(model, x, target) for name, method in methods.items()}
    return {
        layer: {
            name: similarity(trained[name], method(other, x, target))
            for name, method in methods.items()
        }
        for layer, other in randomised(model, x, **options)
    }
