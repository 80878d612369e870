"""Views, activity and top patches of units, against Captum, small graphs and plain loops."""

from __future__ import annotations

import random
from collections.abc import Iterator

import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib import features, nets
from vislib.core import record
from vislib.explain.gradients import (
    deconvnet,
    deconvnet_rule,
    gradient,
    guided_backprop,
    guided_rule,
)
from vislib.features import (
    activity,
    filter_images,
    first_filters,
    receptive_field,
    top_patches,
    unit_view,
)

RULES = {"gradient": None, "deconvnet": deconvnet_rule, "guided": guided_rule}


def images(n: int, *size: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(seed))


def layers_of(model: nn.Module, x: Tensor, layer: str) -> Tensor:
    with record(model, [layer]) as outputs, torch.no_grad():
        model(x)
    return outputs[layer]


# --- Views ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("alexnet", "features.3"),  # a convolution, with an in-place ReLU after it
        ("alexnet", "features.4"),  # that ReLU
        ("alexnet", "features.12"),  # the last pooling
        ("alexnet", "classifier.4"),  # a dense layer
        ("vgg11", "features.11"),
        ("squeezenet1_1", "features.7"),
        ("squeezenet1_1", "features.4.squeeze"),
        ("resnet18", "layer1.0.conv2"),
        ("resnet18", "layer2"),
    ],
)
@pytest.mark.parametrize("rule", RULES)
def test_view_equals_captum(name, layer, rule, untrained, request):
    """Captum's hooks are right on these networks, except on resnet18, where they do not tell the
    two calls of one ReLU apart. Its plain gradient is always right."""
    model = untrained(name)
    x = images(2, 96, 96)
    maps = layers_of(model, x, layer)
    unit, *index = np.unravel_index(int(maps.sum(0).argmax()), maps.shape[1:])  # one that fires
    position = tuple(map(int, index)) or None
    neuron = (int(unit), *index) if position else int(unit)
    peers = {
        "gradient": captum.attr.NeuronGradient,
        "deconvnet": captum.attr.NeuronDeconvolution,
        "guided": captum.attr.NeuronGuidedBackprop,
    }
    module = model.get_submodule(layer)
    if rule == "gradient" or name != "resnet18":
        # Captum's documentation asks for ReLUs that are not in place while its hooks are on.
        inplace = [m for m in model.modules() if isinstance(m, nn.ReLU) and m.inplace]
        try:
            for relu in inplace:
                relu.inplace = False
            peer = peers[rule](model, module)
            expected = peer.attribute(x.clone().requires_grad_(), neuron)
        finally:
            for relu in inplace:
                relu.inplace = True
    else:
        expected = written_out_resnet(model, x, layer, neuron, rule)
    actual = unit_view(model, x, layer, int(unit), position=position, rule=RULES[rule])
    assert expected.abs().max() > 0, "zeros prove nothing"
    torch.testing.assert_close(
        actual, expected.detach(), rtol=1e-4, atol=1e-6 * expected.abs().max()
    )


class Relu(torch.autograd.Function):
    """The three backward rules of a ReLU, as an autograd function."""

    @staticmethod
    def forward(ctx, z, rule, top=torch.inf):
        ctx.rule, ctx.top = rule, top
        ctx.save_for_backward(z)
        return z.clamp(0, top)

    @staticmethod
    def backward(ctx, signal):
        (z,) = ctx.saved_tensors
        gate = ((z > 0) & (z < ctx.top)).to(signal)
        positive = signal.clamp(min=0)
        ways = {"gradient": gate * signal, "deconvnet": positive, "guided": gate * positive}
        return ways[ctx.rule], None, None


def written_out_resnet(model: nn.Module, x: Tensor, layer: str, neuron: tuple, rule: str) -> Tensor:
    """resnet18's first stages as a plain program."""

    def relu(z: Tensor) -> Tensor:
        return Relu.apply(z, rule)

    def block(b: nn.Module, a: Tensor) -> Tensor:
        inner = b.bn2(b.conv2(relu(b.bn1(b.conv1(a)))))
        return relu(inner + (a if b.downsample is None else b.downsample(a)))

    x = x.clone().requires_grad_()
    a = model.maxpool(relu(model.bn1(model.conv1(x))))
    if layer == "layer1.0.conv2":
        b = model.layer1[0]
        a = b.conv2(relu(b.bn1(b.conv1(a))))
    else:
        for b in [*model.layer1, *model.layer2]:
            a = block(b, a)
    return torch.autograd.grad(a[(slice(None), *neuron)].sum(), x)[0]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("googlenet", "inception3b"),
        ("densenet121", "features.transition1.conv"),
        ("densenet121", "features.denseblock1.denselayer2.conv2"),
        ("resnet18", "layer3.0.bn1"),
        ("mobilenet_v2", "features.4"),
    ],
)
@pytest.mark.parametrize("rule", RULES)
def test_view_equals_a_network_of_autograd_functions(name, layer, rule, untrained, monkeypatch):
    """Where Captum is wrong: an autograd function replaces every ReLU of the network."""
    model = untrained(name).double()
    x = images(1, 64, 64).double()
    maps = layers_of(model, x, layer)[0]
    unit, *index = map(int, np.unravel_index(int(maps.argmax()), maps.shape))
    actual = unit_view(model, x, layer, unit, position=tuple(index), rule=RULES[rule])

    monkeypatch.setattr(F, "relu", lambda z, inplace=False: Relu.apply(z, rule))
    monkeypatch.setattr(nn.ReLU6, "forward", lambda self, z: Relu.apply(z, rule, 6.0))
    inner = x.clone().requires_grad_()
    with record(model, [layer]) as outputs:
        model(inner)
    (expected,) = torch.autograd.grad(outputs[layer][0, unit, *index], inner)
    model.float()
    assert expected.abs().max() > 0
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def test_view_of_a_logit_is_the_explanation_of_its_class(untrained):
    model, x = untrained("alexnet"), images(2, 96, 96)
    for method, rule in [(gradient, None), (deconvnet, deconvnet_rule)]:
        torch.testing.assert_close(
            unit_view(model, x, "classifier.6", [3, 7], rule=rule), method(model, x, [3, 7])
        )
    torch.testing.assert_close(unit_view(model, x, "classifier.6", 3), guided_backprop(model, x, 3))


def test_view_starts_at_the_maximum_and_stays_in_the_field(untrained):
    model, x, layer = untrained("vgg11"), images(3, 96, 64), "features.8"
    units = torch.tensor([0, 5, 9])
    maps = layers_of(model, x, layer)
    best = [
        divmod(int(maps[n, unit].argmax()), maps.shape[3]) for n, unit in enumerate(units.tolist())
    ]
    views = unit_view(model, x, layer, units)
    assert torch.equal(views, unit_view(model, x, layer, units, position=best))
    alone = unit_view(model, x[1:2], layer, 5, position=best[1])
    torch.testing.assert_close(views[1:2], alone, rtol=1e-4, atol=1e-5 * float(alone.abs().max()))
    field = receptive_field(model, layer, image_size=(96, 64))
    for view, index in zip(views, best, strict=True):
        top, bottom, left, right = field.box(*index, (96, 64))
        inside = torch.zeros(96, 64, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert view[:, ~inside].abs().max() == 0 < view[:, inside].abs().max()


def test_view_of_the_first_layer_is_the_filter():
    model = nets.load("emoji_alexnet")
    actual = unit_view(model, images(1, 64, 64), "net.features.0", 4, position=(5, 6))[0]
    top, bottom, left, right = receptive_field(model, "net.features.0").box(5, 6)
    expected = first_filters(model)[4] / model.normalize.std[0]
    torch.testing.assert_close(actual[:, top:bottom, left:right], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "features.33"}, "no layer"),
        ({"unit": 64}, r"unit 64 does not exist.*64 maps of 16×16"),
        ({"unit": -1}, "unit -1 does not exist"),
        ({"unit": 1.5}, "unit must be a whole number, or 2 of them"),
        ({"unit": [1, 2, 3]}, "2 of them"),
        ({"unit": None}, "unit must be"),
        ({"position": (16, 0)}, r"position \[16, 0\] does not exist"),
        ({"position": [(1, 2)] * 3}, "pair"),
        ({"position": 3.0}, "pair"),
        ({"x": torch.full((1, 3, 64, 64), torch.nan)}, "NaN"),
        ({"x": torch.rand(3, 64, 64)}, "N×C×H×W"),
    ],
)
def test_view_with_a_wrong_argument_raises(options, message, untrained):
    model = nets.load("emoji_vgg", weights=False)
    arguments = {"x": images(2, 128, 128), "layer": "net.features.9", "unit": 1} | options
    with pytest.raises(ValueError, match=message):
        unit_view(model, **arguments)


def test_view_without_activation_refuses_a_rule():
    linear = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
    with pytest.raises(ValueError, match="no activation"):
        unit_view(linear, images(1, 9, 9), "1", 0)
    assert unit_view(linear, images(1, 9, 9), "1", 0, rule=None).abs().max() > 0

    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.used(x).relu()

    for function in (
        lambda: unit_view(Idle(), images(1, 9, 9), "spare", 0),
        lambda: activity(Idle(), ["spare"], images(1, 9, 9)),
        lambda: top_patches(Idle(), "spare", images(1, 9, 9)),
    ):
        with pytest.raises(ValueError, match="never calls layer 'spare'"):
            function()


# --- Filters --------------------------------------------------------------------------------------


def test_filter_pictures():
    weights = torch.tensor([[2.0, -1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.1, 0.1]]).view(3, 3, 1, 1)
    actual = filter_images(weights).view(3, 3)
    expected = torch.tensor([[1.0, 0.25, 0.5], [0.5, 0.5, 0.5], [0.5, 1.0, 1.0]])
    torch.testing.assert_close(actual, expected)


def test_filter_pictures_up_to_a_quantile():
    weights = torch.cat([torch.full((99,), 0.5), torch.tensor([100.0])]).view(1, 1, 10, 10)
    actual = filter_images(weights, quantile=0.9)
    assert (actual == 1).all()
    sparse = torch.zeros(1, 1, 10, 10)
    sparse[0, 0, 0, 0] = -2.0  # the quantile is 0, so the maximum is used
    assert filter_images(sparse, quantile=0.9)[0, 0, 0].tolist() == [0.0] + [0.5] * 9


def test_first_filters(untrained):
    model = untrained("resnet18")
    assert torch.equal(first_filters(model), model.conv1.weight)
    first_filters(model).zero_()
    assert model.conv1.weight.abs().max() > 0, "the result must be a copy"
    with pytest.raises(ValueError, match="1 input channels"):
        first_filters(nn.Conv2d(1, 4, 3))
    with pytest.raises(ValueError, match="no convolution"):
        first_filters(nn.Linear(3, 4))


# --- Activity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alexnet", "densenet121", "resnet18"])
def test_activity_equals_loops(name, untrained):
    model = untrained(name)
    layers = {
        "alexnet": ["features.3", "features.4", "classifier.1"],
        "densenet121": ["features.conv0", "features.denseblock1"],
        "resnet18": ["relu", "layer2.0.conv1"],
    }[name]
    stream = [*images(3, 96, 64), *images(2, 64, 96, seed=1)]
    result = activity(model, layers, iter(stream), batch=2)
    assert list(result) == layers
    for layer in layers:
        maps = [layers_of(model, image[None], layer)[0] for image in stream]
        units = range(3)
        for unit in units:
            values = [one_map[unit].flatten().tolist() for one_map in maps]
            flat = [value for of_image in values for value in of_image]
            actual = result[layer]
            assert actual.positions[unit] == pytest.approx(sum(v > 0 for v in flat) / len(flat))
            assert actual.images[unit] == pytest.approx(sum(max(v) > 0 for v in values) / 5)
            assert actual.largest[unit] == pytest.approx(max(flat), rel=1e-4)
            assert bool(actual.dead[unit]) == (max(flat) <= 0)
    if name == "alexnet":  # the activity is the same before and after the ReLU
        before, after = result["features.3"], result["features.4"]
        assert torch.equal(before.positions, after.positions)
        assert torch.equal(before.dead, after.dead) and before.sparsity == after.sparsity
        assert after.sparsity == pytest.approx(
            float(torch.cat([layers_of(model, p[None], "features.4").flatten() for p in stream])
                  .eq(0).float().mean()), abs=1e-5,
        )  # fmt: skip


def test_a_dead_unit_is_found():
    model = nets.load("emoji_vgg")
    with torch.no_grad():
        model.net.features[3].bias[[2, 7]] = -100.0
    result = activity(model, ["net.features.3"], images(4, 64, 64))["net.features.3"]
    assert {2, 7} <= set(result.dead.nonzero().flatten().tolist())
    assert result.largest[2] < -50 and result.images[2] == result.positions[2] == 0


def test_no_images_and_bad_images_are_refused():
    model = nets.load("emoji_vgg")
    for function in (
        lambda x, **o: activity(model, ["net.features.3"], x, **o),
        lambda x, **o: top_patches(model, "net.features.3", x, **o),
    ):
        with pytest.raises(ValueError, match="images is empty"):
            function([])
        with pytest.raises(ValueError, match=r"image 1 must be a float tensor 3×H×W.*\(1, 3, 8"):
            function([torch.rand(3, 8, 8), torch.rand(1, 3, 8, 8)])
        with pytest.raises(ValueError, match="image 0 must be"):
            function(["a.png"])
        with pytest.raises(ValueError, match="NaN"):
            function([torch.full((3, 8, 8), torch.nan)])
        with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
            function([torch.rand(3, 8, 8)], batch=0)


# --- Top patches ----------------------------------------------------------------------------------


def by_loops(model: nn.Module, layer: str, stream: list[Tensor], k: int, unit: int) -> list:
    """(value, image, row, column), strongest first, one for each image, from all at once."""
    best_of_each = []
    for number, image in enumerate(stream):
        plane = layers_of(model, image[None], layer)[0, unit]
        best = None
        for row in range(plane.shape[0]):
            for column in range(plane.shape[1]):
                value = float(plane[row, column])
                if best is None or value > best[0]:
                    best = (value, number, row, column)
        best_of_each.append(best)
    return sorted(best_of_each, key=lambda entry: -entry[0])[:k]  # a stable sort


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("alexnet", "features.3"),
        ("vgg11", "features.8"),
        ("squeezenet1_1", "features.4.expand3x3"),
        ("resnet18", "layer2.0.conv1"),
        ("googlenet", "inception3a"),
        ("densenet121", "features.denseblock1"),
    ],
)
def test_top_patches_equal_loops(name, layer, untrained):
    model = untrained(name)
    stream = [*images(3, 96, 64), *images(3, 80, 96, seed=1), *images(2, 96, 64, seed=2)]
    patches = top_patches(model, layer, iter(stream), k=5, units=[0, 7, 11], batch=2)
    assert patches.values.shape == patches.images.shape == (3, 5)
    for row, unit in enumerate(patches.units):
        expected = by_loops(model, layer, stream, 5, unit)
        for rank, (value, number, *position) in enumerate(expected):
            assert patches.values[row, rank] == pytest.approx(value, rel=1e-4, abs=1e-6)
            assert patches.images[row, rank] == number
            assert patches.positions[row, rank].tolist() == position
            size = tuple(stream[number].shape[1:])
            field = receptive_field(model, layer, image_size=size)
            assert patches.boxes[row, rank].tolist() == list(field.box(*position))
            top, bottom, left, right = field.box(*position, size)
            window = stream[number][:, top:bottom, left:right]
            assert torch.equal(patches.patch(unit, rank), window)
            # The crop has the image's pixels, and the given value outside the image.
            crop = patches.crops(unit, fill=0.25)[rank]
            assert tuple(crop.shape[1:]) == field.size
            first_row, _, first_column, _ = field.box(*position)
            for i, j in [(0, 0), (field.size[0] // 2, 3), (field.size[0] - 1, field.size[1] - 1)]:
                y, x = first_row + i, first_column + j
                inside = 0 <= y < size[0] and 0 <= x < size[1]
                pixel = stream[number][:, y, x] if inside else torch.full((3,), 0.25)
                assert torch.equal(crop[:, i, j], pixel)


def test_the_patch_alone_gives_the_same_activation():
    """The patch is all that the unit sees: replacing the rest of the image changes nothing."""
    model, layer = nets.load("emoji_vgg"), "net.features.9"
    stream = images(6, 128, 128)
    best = top_patches(model, layer, stream, k=2, units=[3, 8])
    for row, unit in enumerate(best.units):
        for rank in range(2):
            number = int(best.images[row, rank])
            top, bottom, left, right = best.boxes[row, rank].clamp(0, 128).tolist()
            other = images(1, 128, 128, seed=99)[0]
            other[:, top:bottom, left:right] = best.patch(unit, rank)
            assert not torch.equal(other, stream[number])
            value = layers_of(model, other[None], layer)[0, unit][tuple(best.positions[row, rank])]
            assert float(value) == pytest.approx(float(best.values[row, rank]), rel=1e-4)


def test_batch_size_and_order_of_the_images_do_not_matter():
    model = nets.load("emoji_alexnet", weights=False).double()
    stream = [*images(5, 48, 64).double(), *images(4, 64, 64, seed=1).double()]
    whole = top_patches(model, "net.features.3", stream, k=4, batch=32)
    for batch in (1, 2, 3):
        other = top_patches(model, "net.features.3", stream, k=4, batch=batch)
        torch.testing.assert_close(other.values, whole.values)
        assert torch.equal(other.images, whole.images)
        assert torch.equal(other.boxes, whole.boxes)
    order = random.Random(3).sample(range(9), 9)
    mixed = top_patches(model, "net.features.3", [stream[i] for i in order], k=4)
    torch.testing.assert_close(mixed.values, whole.values)
    assert torch.equal(torch.tensor(order)[mixed.images], whole.images)
    assert torch.equal(mixed.positions, whole.positions)
    for unit in (0, 40):
        assert torch.equal(mixed.crops(unit), whole.crops(unit))


def test_on_ties_the_earliest_patch_wins():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    nn.init.zeros_(model[0].weight)
    model[0].weight.data[0] = 1.0
    stream = torch.zeros(6, 3, 4, 5)
    stream[3:5, 0, 2, [1, 3]] = 1.0  # two equal images with two equal maxima each
    for batch in (1, 6):
        result = top_patches(model, "1", stream, k=3, batch=batch)
        assert result.images.tolist() == [[3, 4, 0], [0, 1, 2]]
        assert result.positions[0].tolist() == [[2, 1], [2, 1], [0, 0]]
        assert result.positions[1].tolist() == [[0, 0]] * 3


def test_each_image_gives_one_patch_also_if_there_are_few():
    model = nets.load("emoji_vgg")
    result = top_patches(model, "net.features.3", images(3, 64, 64), k=10, units=[1])
    assert result.values.shape == (1, 3) and len(result.crops(1)) == 3
    assert sorted(result.images[0].tolist()) == [0, 1, 2]
    with pytest.raises(
        ValueError, match=r"unit must be one of \[1\], the units of these results, got 0"
    ):
        result.crops(0)


def test_memory_does_not_grow_with_the_number_of_images():
    """Of 300 generated images, only a few are in memory at any time."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    alive, most = 0, 0

    class Counted(Tensor):
        """An image that counts how many of its kind are in memory."""

        def __new__(cls) -> Counted:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return torch.rand(3, 16, 16).as_subclass(cls)

        def __del__(self) -> None:
            nonlocal alive
            alive -= self.shape == (3, 16, 16) and type(self) is Counted

    def stream() -> Iterator[Tensor]:
        for _ in range(300):
            yield Counted()

    result = top_patches(model, "1", stream(), k=3, batch=4)
    assert int(result.images.max()) > 100
    assert most <= 20
    held = sum(
        result.patch(unit, rank).untyped_storage().nbytes()
        for unit in range(4)
        for rank in range(3)
    )
    assert held <= 4 * 3 * 3 * 3 * 3 * 4, "a patch must not keep its whole image in memory"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "net.avgpool"}, "have no receptive field|unequal|depends on the size"),
        ({"layer": "net.classifier.0"}, "no receptive field"),
        ({"layer": "net.features.77"}, "no layer"),
        ({"units": [3, 16]}, r"between 0 and 15, got \[16\]"),
        ({"units": []}, r"between 0 and 15, got \(\)"),
        ({"k": 0}, "k must be at least 1 patch"),
    ],
)
def test_top_patches_with_a_wrong_argument_raise(options, message):
    model = nets.load("emoji_vgg", weights=False)
    stream = [torch.rand(3, 64, 64), torch.rand(3, 96, 97)]
    with pytest.raises(ValueError, match=message):
        top_patches(model, **({"layer": "net.features.0", "images": stream} | options))


def test_values_that_are_not_finite_are_refused():
    model = nets.load("emoji_vgg", weights=False)
    model.net.features[0].bias.data[:] = torch.nan
    with pytest.raises(ValueError, match="maps of finite values"):
        top_patches(model, "net.features.0", images(2, 32, 32))


# --- The model is as it was -----------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails):
    from test_core import Net, state

    model = Net()
    model.train()
    model.head.eval()
    model.conv1.weight.requires_grad_(False)
    if fails:
        model.trouble = lambda: 1 / 0
    before = state(model)
    x = images(2, 12, 12)
    for function in (
        lambda: unit_view(model, x, "conv2", 1),
        lambda: activity(model, ["conv2", "relu"], x),
        lambda: top_patches(model, "conv2", x, k=1),
        lambda: first_filters(model),
    ):
        try:
            function()
        except (ZeroDivisionError, ValueError):
            assert fails
        assert state(model) == before
    assert features.__all__ == sorted(features.__all__)
