"""Randomised weights: which layers are new in which copy, and that nothing else changes.

`layers` is judged by the nets' own lists of modules, `rank_correlation` by SciPy, and what is said
about the methods in the docstrings and in notebook 08 by the course's nets.
"""

import copy
import doctest
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from vislib import nets
from vislib.explain.cam import grad_cam
from vislib.explain.gradients import deconvnet, gradient, guided_backprop
from vislib.layers import layers_with_weights
from vislib.maps import rank_correlation
from vislib.measure import sanity
from vislib.measure.sanity import cascade, kaiming, randomised, shuffled, torch_default

# Six families; AlexNet and VGG as the course's small ones, for a net is copied at each step.
FAMILIES = ["emoji_alexnet", "emoji_vgg", "squeezenet1_1", "resnet18", "googlenet", "densenet121"]
DRAWS = [kaiming, torch_default, shuffled]


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def build(untrained: Callable[[str], nn.Module]) -> Callable[[str], nn.Module]:
    """A net of the course as it was learnt, or an untrained one of torchvision."""
    return lambda name: nets.load(name) if name.startswith("emoji") else untrained(name)


def weighted(model: nn.Module) -> list[str]:
    """Convolutions, dense layers and normalisations, in the order in which they are written."""
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def state(model: nn.Module, layer: str) -> Tensor:
    """All numbers of a layer that are worth drawing anew, as one vector."""
    values = model.get_submodule(layer).state_dict()
    return torch.cat([values[k].flatten().float() for k in sorted(values) if values[k].ndim])


def changed(model: nn.Module, other: nn.Module) -> set[str]:
    return {
        name for name in weighted(model) if not torch.equal(state(model, name), state(other, name))
    }


# ------------------------------------------------------------------ order


@pytest.mark.parametrize("name", ["emoji_alexnet", "emoji_vgg", "emoji_allconv", "emoji_gap"])
def test_in_a_chain_the_layers_come_in_reversed_order(name, x):
    model = nets.load(name)
    steps = layers_with_weights(model, x)
    assert list(steps) == weighted(model)[::-1]
    assert all(names == [step] for step, names in steps.items())


@pytest.mark.parametrize("name", dict.fromkeys([*FAMILIES, *nets.EMOJI_NETS]))
def test_every_layer_comes_once_and_after_all_that_use_it(name, build, x):
    model = build(name)
    steps = list(layers_with_weights(model, x))
    assert sorted(steps) == sorted(weighted(model))
    # second opinion: a layer above another one depends on it, so it cannot come later
    place = {layer: steps.index(layer) for layer in steps}
    for bottom, top in [("conv1", "bn1"), ("conv1", "conv2"), ("squeeze", "expand3x3")]:
        for layer in steps:
            stem, _, last = layer.rpartition(".")
            above = f"{stem}.{top}".lstrip(".")
            if last == bottom and above in place:
                assert place[above] < place[layer]
    assert steps[0] == weighted(model)[-1]


def test_blocks_are_one_step_where_their_last_layer_is(untrained, x):
    model = untrained("resnet18")
    steps = layers_with_weights(model, x, blocks=["layer4", "layer2", "layer3", "layer1"])
    assert list(steps) == ["fc", "layer4", "layer3", "layer2", "layer1", "bn1", "conv1"]
    assert sorted(steps["layer4"]) == sorted(n for n in weighted(model) if n.startswith("layer4."))
    assert steps["conv1"] == ["conv1"]
    # block "1" must not take "10" with it
    ones = [nn.Sequential(nn.Conv2d(3, 3, 1)) for _ in range(11)]
    flat = layers_with_weights(nn.Sequential(*ones, nn.AdaptiveAvgPool2d(1)), x, blocks=["1"])
    assert flat["1"] == ["1.0"] and flat["10.0"] == ["10.0"] and len(flat) == 11


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (["layer5"], "no layer 'layer5'.*layer"),
        (["relu"], "block 'relu' holds no layer with weights"),
        (["layer4", "layer4.0"], "block 'layer4.0' holds no layer .* is part of another"),
    ],
)
def test_blocks_that_do_not_work_are_named(blocks, message, untrained, x):
    with pytest.raises(ValueError, match=message):
        layers_with_weights(untrained("resnet18"), x, blocks=blocks)


class Odd(nn.Module):
    """A layer that is called twice, one that never is, and statistics without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.never = nn.Conv2d(3, 3, 1)
        self.twice = nn.Conv2d(3, 3, 1)
        self.once = nn.Conv2d(3, 3, 1)
        self.statistics = nn.BatchNorm2d(3, affine=False)
        self.register_buffer("constant", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.statistics(self.once(self.twice(x)))
        return self.twice(x).mean(dim=(2, 3)) * self.constant


def test_a_layer_that_is_called_twice_stands_at_its_last_call(x):
    assert list(layers_with_weights(Odd(), x)) == ["twice", "statistics", "once"]


def test_weights_that_no_draw_can_do_are_named(x):
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    model = nn.Sequential(Scale(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"a Scale has weights .* pass draw="):
        list(randomised(model, x))

    def own(layer: nn.Module) -> None:
        layer.scale.fill_(7) if isinstance(layer, Scale) else kaiming(layer)

    *_, (_, last) = randomised(model, x, draw=own)
    assert last[0].scale == 7 and model[0].scale == 1


# ------------------------------------------------------------------ copies


def containers(model: nn.Module) -> list[str]:
    """The net's outer parts, so that a cascade through all of it has a few steps only."""
    inside = "net." if hasattr(model, "net") else ""
    parts = model.get_submodule(inside.rstrip(".")).named_children()
    return [inside + name for name, part in parts if [*part.children()] and weighted(part)]


@pytest.mark.parametrize("name", FAMILIES)
def test_exactly_the_layers_from_the_top_are_new(name, build, x):
    model = copy.deepcopy(build(name))
    with torch.no_grad():  # now every layer differs from a freshly drawn one
        for parameter in model.parameters():
            parameter.add_(0.01)
    model.train()
    next(model.parameters()).requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    random_state = torch.random.get_rng_state()
    for blocks in ([], containers(model)):
        steps = layers_with_weights(model, x, blocks=blocks)
        new: set[str] = set()
        walk = itertools.islice(randomised(model, x, blocks=blocks), None if blocks else 2)
        for (layer, other), (step, names) in zip(walk, steps.items(), strict=False):
            new |= set(names)
            assert layer == step and changed(model, other) == new
        assert (new == set(weighted(model))) == bool(blocks)
    assert other.training and not next(other.parameters()).requires_grad
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.training and not next(model.parameters()).requires_grad
    assert not any(m._forward_hooks for net in (model, other) for m in net.modules())
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("name", ["emoji_vgg", "emoji_resnet"])
def test_cascading_and_one_at_a_time(name, draw, x):
    model = nets.load(name)
    steps = list(layers_with_weights(model, x))
    down = dict(randomised(model, x, draw=draw))
    alone = dict(randomised(model, x, draw=draw, cascading=False))
    assert list(down) == list(alone) == steps
    for i, layer in enumerate(steps):
        assert changed(model, down[layer]) == set(steps[: i + 1])
        assert changed(model, alone[layer]) == {layer}
        assert torch.equal(state(down[layer], layer), state(alone[layer], layer))
        assert torch.equal(state(down[steps[-1]], layer), state(alone[layer], layer))
        assert down[layer](x).isfinite().all()


def test_the_seed_decides_and_copies_are_independent(x):
    model = nets.load("emoji_gap")
    first, second = (list(randomised(model, x, seed=seed)) for seed in (0, 0))
    other = list(randomised(model, x, seed=1))
    for (layer, a), (_, b), (_, c) in zip(first, second, other, strict=True):
        assert torch.equal(state(a, layer), state(b, layer))
        assert not torch.equal(state(a, layer), state(c, layer))
    with torch.no_grad():
        first[0][1].net.fc.weight.zero_()
    assert first[1][1].net.fc.weight.any() and model.net.fc.weight.any()
    # layers of the same shape do not get the same numbers
    block = dict(randomised(nets.load("emoji_alexnet"), x))["net.features.0"].net
    assert not torch.equal(block.features[8].weight[:96], block.features[10].weight[:96])
    assert block.features[8].weight.shape == (96, 96, 3, 3)


def test_a_new_batch_normalisation_is_the_identity(x):
    *_, (_, other) = randomised(nets.load("emoji_resnet"), x)
    norm = other.net.layer2[0].bn1.eval()
    maps = torch.randn(2, norm.num_features, 5, 5)
    torch.testing.assert_close(norm(maps), maps, rtol=1e-4, atol=1e-4)


def test_kaiming_has_the_variance_that_it_says():
    layer = nn.Conv2d(64, 128, 3)
    torch.manual_seed(0)
    kaiming(layer)
    assert layer.weight.var().item() == pytest.approx(2 / (64 * 9), rel=0.02)
    assert not layer.bias.any()


def test_shuffled_keeps_the_histogram_and_each_channels_statistics():
    model = nets.load("emoji_resnet").net
    norm, conv = copy.deepcopy(model.bn1), copy.deepcopy(model.conv1)
    torch.manual_seed(0)
    with torch.no_grad():
        shuffled(norm), shuffled(conv)
    assert torch.equal(conv.weight.flatten().sort()[0], model.conv1.weight.flatten().sort()[0])
    assert not torch.equal(conv.weight, model.conv1.weight)

    def channels(layer):
        return sorted(
            zip(*(v.tolist() for v in layer.state_dict().values() if v.ndim), strict=True)
        )

    assert channels(norm) == channels(model.bn1)
    assert not torch.equal(norm.weight, model.bn1.weight)


def test_through_pytorchs_default_weights_no_picture_comes_to_the_top(x):
    """The reason why `kaiming` is the default, as its docstring says."""
    apart = {}
    model = nets.load("squeezenet1_0", weights=False)
    for draw in (kaiming, torch_default):
        *_, (_, other) = randomised(model, x, draw=draw, blocks=["net.features"])
        logits = other(x).double()
        apart[draw] = ((logits[0] - logits[1]).abs().mean() / logits.abs().mean()).item()
    assert apart[torch_default] < 1e-5 < 1e-2 < apart[kaiming]


# ------------------------------------------------------------------ rank correlation


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("shape", [(4, 3, 9, 7), (5, 1, 4, 4), (2, 6)])
def test_rank_correlation_is_scipys(shape, absolute):
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (2, *shape)) / 4  # with many equal values
    b = b + a / 3
    found = rank_correlation(torch.tensor(a), torch.tensor(b), absolute=absolute)
    if absolute:
        a, b = np.abs(a), np.abs(b)
    expected = [scipy.stats.spearmanr(i.ravel(), j.ravel())[0] for i, j in zip(a, b, strict=True)]
    assert found.dtype == torch.float64 and found.shape == shape[:1]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_rank_correlation_by_hand():
    a = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).repeat(4, 1)
    b = torch.tensor([[1.0, 20, 300, 4e9], [8, 6, 4, 2], [2, 1, 4, 3], [0, 0, 0, 0]])
    found = rank_correlation(a, b)
    np.testing.assert_allclose(found[:3], [1, -1, 1 - 6 * 4 / (4 * 15)], atol=1e-12)
    assert found[3].isnan()
    assert rank_correlation(a[:1], -b[:1]) == pytest.approx(1)
    assert rank_correlation(a[:1], -b[:1], absolute=False) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.rand(2, 3), torch.rand(2, 4), r"same shape .* \(2, 3\) and \(2, 4\)"),
        (torch.rand(3), torch.rand(3), r"same shape N×"),
        (torch.rand(1, 3), torch.tensor([[1.0, torch.nan, 2]]), "NaN or infinite"),
        (torch.tensor([[1.0, torch.inf, 2]]), torch.rand(1, 3), "NaN or infinite"),
    ],
)
def test_maps_that_cannot_be_compared(a, b, message):
    with pytest.raises(ValueError, match=message):
        rank_correlation(a, b)


# ------------------------------------------------------------------ cascade


def test_cascade_is_the_loop_that_it_stands_for(x):
    model = nets.load("emoji_gap")
    methods = {
        "gradient": gradient,
        "noise": lambda model, x, target: torch.randn_like(x),
        "picture": lambda model, x, target: x,
        "nothing": lambda model, x, target: torch.zeros_like(x),
    }
    found = cascade(model, x, [3, 5], methods, seed=4)
    assert list(found) == list(layers_with_weights(model, x))
    for layer, other in randomised(model, x, seed=4):
        expected = rank_correlation(gradient(model, x, [3, 5]), gradient(other, x, [3, 5]))
        assert torch.equal(found[layer]["gradient"], expected)
        assert found[layer]["noise"].abs().max() < 0.05
        assert found[layer]["picture"].tolist() == pytest.approx([1, 1])
        assert found[layer]["nothing"].isnan().all()
    signed = cascade(
        model,
        x,
        3,
        {"gradient": gradient},
        blocks=["net.features"],
        similarity=lambda a, b: rank_correlation(a, b, absolute=False),
    )
    assert list(signed) == ["net.fc", "net.features"]
    for layer, other in randomised(model, x, blocks=["net.features"]):
        maps = gradient(model, x, 3), gradient(other, x, 3)
        assert torch.equal(signed[layer]["gradient"], rank_correlation(*maps, absolute=False))
        assert not torch.equal(signed[layer]["gradient"], rank_correlation(*maps))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_methods_run_on_every_random_net(name, build, x):
    model = build(name)
    methods = {"guided": guided_backprop, "grad_cam": grad_cam}
    target = int(model(x[:1]).argmax())
    found = cascade(model, x[:1], target, methods, blocks=containers(model))
    assert len(found) >= 2
    values = [row[name].item() for row in found.values() for name in methods]
    # SqueezeNet has a ReLU behind its logits: where it is silent the map is 0, without an order
    assert all(abs(value) <= 1 or np.isnan(value) for value in values)
    assert not np.isnan(values).all()


# ------------------------------------------------------------------ what notebook 08 shows


def test_without_pooling_the_deconvnet_draws_the_same_picture_for_every_image(x):
    without, with_pools = nets.load("emoji_allconv"), nets.load("emoji_vgg")
    a, b = deconvnet(without, x, 3)
    assert torch.equal(a, b) and a.abs().max() > 0
    a, b = deconvnet(with_pools, x, 3)
    assert rank_correlation(a[None], b[None]) < 0.5
    a, b = guided_backprop(without, x, 3)
    assert rank_correlation(a[None], b[None]) < 0.5


def test_the_examples_in_the_docstrings():
    failed, tried = doctest.testmod(sanity)
    assert tried >= 3 and not failed
