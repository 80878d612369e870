"""Display names: words of the field in place of the names of variables, modules and files."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_OURS = {
    "alexnet": "AlexNet",
    "vgg": "VGG",
    "resnet": "ResNet",
    "squeezenet": "SqueezeNet",
    "gap": "GAP network",
    "gmp": "GMP network",
    "allconv": "All-convolutional",
}
# Patterns of whole names, and the display names. The first match counts.
_FAMILIES = {
    r"efficientnet_lite(\d)": r"EfficientNet-Lite\1",
    r"efficientnet_b(\d)": r"EfficientNet-B\1",
    r"efficientnet_v2_(\w)": r"EfficientNet v2 \1",
    r"alexnet": "AlexNet",
    r"vgg(\d+)": r"VGG-\1",
    r"vgg(\d+)_bn": r"VGG-\1 with BatchNorm",
    r"resnet(\d+)": r"ResNet-\1",
    r"resnext(\d+)_(\d+)x(\w+)": r"ResNeXt-\1, \2×\3",
    r"wide_resnet(\d+)_(\d)": r"Wide ResNet-\1-\2",
    r"squeezenet(\d)_(\d)": r"SqueezeNet \1.\2",
    r"googlenet": "GoogLeNet",
    r"inception_v3": "Inception v3",
    r"densenet(\d+)": r"DenseNet-\1",
    r"mobilenet_v(\d)": r"MobileNet v\1",
    r"mobilenet_v(\d)_(\w+)": r"MobileNet v\1 \2",
    r"mnasnet(\d)_(\d+)": r"MNASNet \1.\2",
    r"shufflenet_v2_x(\d)_(\d)": r"ShuffleNet v2 ×\1.\2",
    r"regnet_([xy])_(\d+)(mf|gf)": r"RegNet-\1 \2 \3",
    r"regnet_([xy])_(\d+)_(\d+)(mf|gf)": r"RegNet-\1 \2.\3 \4",
    r"convnext_(\w+)": r"ConvNeXt \1",
}


def name(key: object) -> str:
    """Display name of a network or of a method, for heads, legends and tables.

    Args:
        key: name in `vislib.nets` or in `vislib.measure.methods`, also with the suffix ``_random``
            for random weights. In any other text, underscores become spaces.

    >>> name("pocket_vgg"), name("efficientnet_lite0"), name("vgg16")
    ('VGG (ours)', 'EfficientNet-Lite0', 'VGG-16')
    >>> name("guided_grad_cam_random"), name("pocket_allconv_robust")
    ('Guided Grad-CAM, random weights', 'All-convolutional, robust (ours)')
    """
    # The reports in vislib.measure draw their charts with this package.
    from vislib.measure.methods import MAP_CONTROLS, METHODS, RANDOM

    text = str(key)
    method = text.removesuffix(RANDOM)
    suffix = ", random weights" if text.endswith(RANDOM) else ""
    if method in METHODS:
        return METHODS[method].title + suffix
    if method in MAP_CONTROLS:
        return MAP_CONTROLS[method].title
    return (_network(method) or method.replace("_", " ")) + suffix


def _network(key: str) -> str:
    """Display name of a network; empty if there is no network with this name."""
    world, _, rest = key.partition("_")
    family, _, kind = rest.partition("_")
    if world in ("pocket", "emoji") and family in _OURS:
        kind = f", {kind.replace('_', ' ')}" if kind else ""
        return f"{_OURS[family]}{kind} ({'ours' if world == 'pocket' else 'emoji'})"
    for pattern, display in _FAMILIES.items():
        if match := re.fullmatch(pattern, key):
            text = match.expand(display)
            return re.sub(r"(?<=RegNet-)[xy]|\b[mg]f$|(?<=v2 )[sml]$", lambda m: m[0].upper(), text)
    return ""


def layer_names(model: nn.Module, x: Tensor, layers: Sequence[str] | None = None) -> dict[str, str]:
    """Display names of layers: "layer 4 of 7, 16×16", with the size of the feature map.

    Args:
        model: N×C×H×W images to N×K logits.
        x: images, N×C×H×W. The model runs on the first one.
        layers: dotted names of the layers, from early to late; by default those of
            `vislib.layers.stages`.

    Returns:
        Display name of each layer, by its dotted name.

    Raises:
        ValueError: a layer does not exist or does not run.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU())
    >>> layer_names(model, torch.rand(1, 3, 8, 8), ["1", "3"])
    {'1': 'layer 1 of 2, 6×6', '3': 'layer 2 of 2, 4×4'}
    """
    from vislib.core import frozen, record
    from vislib.layers import stages

    layers = stages(model, x) if layers is None else list(layers)
    with torch.no_grad(), frozen(model), record(model, layers) as values:
        model(x[:1])
    names = {}
    for number, layer in enumerate(layers, 1):
        size = "×".join(str(side) for side in values[layer].shape[2:])
        names[layer] = f"layer {number} of {len(layers)}" + (f", {size}" if size else "")
    return names
