"""`vislib.scratch` (backpropagation, convolution) and `vislib.features` against PyTorch."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

from vislib import nets, scratch
from vislib.features import ReceptiveField, receptive_field

ACTIVATIONS = {
    "sigmoid": (scratch.sigmoid, scratch.sigmoid_prime, torch.sigmoid),
    "tanh": (scratch.tanh, scratch.tanh_prime, torch.tanh),
    "relu": (scratch.relu, scratch.relu_prime, torch.relu),
}


def _net(sizes=(6, 5, 4, 3), n=7, seed=0):
    rng = np.random.default_rng(seed)
    weights, _ = scratch.random_layers(sizes, rng)
    biases = [rng.normal(size=size) for size in sizes[1:]]
    return rng.normal(size=(n, sizes[0])), rng.normal(size=(n, sizes[-1])), weights, biases


def _torch_forward(x, weights, biases, activation):
    for w, b in zip(weights, biases, strict=True):
        z = x @ w.T + b
        x = activation(z)
    return z, x


@pytest.mark.parametrize("sizes", [(6, 3), (6, 5, 3), (6, 5, 4, 3)])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_backpropagate_equals_autograd(name, sizes):
    activation, derivative, in_torch = ACTIVATIONS[name]
    x, y, weights, biases = _net(sizes)
    by_weights, by_biases = scratch.backpropagate(x, y, weights, biases, activation, derivative)
    leaves = [torch.tensor(v, requires_grad=True) for v in (*weights, *biases)]
    half = len(weights)
    _, a = _torch_forward(torch.tensor(x), leaves[:half], leaves[half:], in_torch)
    loss = 0.5 * ((a - torch.tensor(y)) ** 2).sum(1).mean()
    expected = torch.autograd.grad(loss, leaves)
    for found, wanted in zip([*by_weights, *by_biases], expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-12)


def test_backpropagate_equals_finite_differences():
    x, y, weights, biases = _net()
    by_weights, by_biases = scratch.backpropagate(x, y, weights, biases)
    for layer in range(len(weights)):

        def loss_w(w, layer=layer):
            changed = [*weights[:layer], w, *weights[layer + 1 :]]
            return scratch.mse(scratch.mlp_forward(x, changed, biases)[1][-1], y)

        def loss_b(b, layer=layer):
            changed = [*biases[:layer], b, *biases[layer + 1 :]]
            return scratch.mse(scratch.mlp_forward(x, weights, changed)[1][-1], y)

        slopes = scratch.finite_differences(loss_w, weights[layer])
        np.testing.assert_allclose(by_weights[layer], slopes, rtol=0, atol=1e-8)
        slopes = scratch.finite_differences(loss_b, biases[layer])
        np.testing.assert_allclose(by_biases[layer], slopes, rtol=0, atol=1e-8)


def test_finite_differences_of_a_known_gradient_leave_the_point_alone():
    v = np.arange(6.0).reshape(2, 3)
    before = v.copy()
    np.testing.assert_allclose(scratch.finite_differences(lambda v: (v**3).sum(), v), 3 * v**2)
    np.testing.assert_array_equal(v, before)
    integers = scratch.finite_differences(lambda v: (v**2).sum(), np.array([1, 2]))
    np.testing.assert_allclose(integers, [2, 4])


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("target", [0, 2])
def test_input_gradient_equals_autograd(name, target):
    activation, derivative, in_torch = ACTIVATIONS[name]
    x, _, weights, biases = _net()
    found = scratch.input_gradient(x, target, weights, biases, activation, derivative)
    leaf = torch.tensor(x, requires_grad=True)
    params = [torch.tensor(w) for w in weights], [torch.tensor(b) for b in biases]
    z, _ = _torch_forward(leaf, *params, in_torch)
    expected = torch.autograd.grad(z[:, target].sum(), leaf)[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-12)


def test_train_takes_the_same_steps_as_pytorch_sgd_and_learns():
    x, y, weights, biases = _net(n=20)
    y = scratch.sigmoid(y)
    before = [w.copy() for w in weights]
    rng = np.random.default_rng(3)
    found_w, found_b, losses = scratch.train(x, y, weights, biases, 0.5, 6, 4, rng)
    assert all(np.array_equal(a, b) for a, b in zip(weights, before, strict=True))
    leaves = [torch.tensor(v, requires_grad=True) for v in (*weights, *biases)]
    optimiser = torch.optim.SGD(leaves, lr=0.5)
    rng = np.random.default_rng(3)
    for _ in range(4):
        for rows in scratch.minibatches(len(x), 6, rng):
            _, a = _torch_forward(torch.tensor(x[rows]), leaves[:3], leaves[3:], torch.sigmoid)
            optimiser.zero_grad()
            (0.5 * ((a - torch.tensor(y[rows])) ** 2).sum(1).mean()).backward()
            optimiser.step()
    for found, wanted in zip([*found_w, *found_b], leaves, strict=True):
        np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=0, atol=1e-12)
    assert len(losses) == 5 and losses[-1] < losses[0]


CASES = [(1, 0, 3, 3), (2, 1, 3, 3), (3, 2, 5, 5), (1, 1, 2, 3), (2, 0, 1, 1)]


@pytest.mark.parametrize(("stride", "padding", "height", "width"), CASES)
def test_convolve_equals_pytorch(stride, padding, height, width):
    rng = np.random.default_rng(1)
    x, b = rng.normal(size=(3, 11, 9)), rng.normal(size=4)
    w = rng.normal(size=(4, 3, height, width))
    found = scratch.convolve(x, w, b, stride, padding)
    x_, w_, b_ = (torch.tensor(v) for v in (x, w, b))
    wanted = F.conv2d(x_[None], w_, b_, stride, padding)[0].numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    assert found.shape[1] == scratch.output_size(11, height, stride, padding)


@pytest.mark.parametrize(("stride", "padding", "height", "width"), [*CASES[:-1], (2, 0, 2, 2)])
def test_transposed_convolve_equals_pytorch_and_is_the_transpose(stride, padding, height, width):
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(4, 5, 6)), rng.normal(size=(4, 3, height, width))
    found = scratch.transposed_convolve(x, w, stride, padding)
    wanted = F.conv_transpose2d(torch.tensor(x)[None], torch.tensor(w), None, stride, padding)[0]
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-12)
    other = rng.normal(size=found.shape)  # <conv(other), x> = <other, conv_transposed(x)>
    left = (scratch.convolve(other, w, 0.0, stride, padding) * x).sum()
    np.testing.assert_allclose(left, (other * found).sum())


@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, None), (3, 2), (2, 1)])
def test_pooling_equals_pytorch(size, stride):
    x = np.random.default_rng(3).normal(size=(2, 9, 12))
    x_ = torch.tensor(x)[None]
    maxima, switches = scratch.max_pool(x, size, stride)
    wanted, indices = F.max_pool2d(x_, size, stride, return_indices=True)
    np.testing.assert_allclose(maxima, wanted[0].numpy())
    np.testing.assert_array_equal(switches, indices[0].numpy())
    means = F.avg_pool2d(x_, size, stride)[0].numpy()
    np.testing.assert_allclose(scratch.average_pool(x, size, stride), means)


@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, 2)])
def test_unpool_equals_pytorch(size, stride):
    x = np.random.default_rng(4).normal(size=(2, 9, 12))
    maxima, switches = scratch.max_pool(x, size, stride)
    found = scratch.unpool(maxima, switches, (9, 12))
    wanted = F.max_unpool2d(
        torch.tensor(maxima)[None], torch.tensor(switches)[None], size, stride, output_size=(9, 12)
    )
    np.testing.assert_allclose(found, wanted[0].numpy())


def _measured(model, layer, x, row, column):
    """The frame of a unit's gradient, in a copy whose gradient cannot vanish inside the window."""
    model = copy.deepcopy(model).eval()
    for part in list(model.modules()):
        if isinstance(part, nn.Conv2d):
            weight = part.weight.data.abs() + 1e-3
            part.weight.data = weight / weight.sum((1, 2, 3), keepdim=True)
            part.bias = None
        for name, child in part.named_children():
            if isinstance(child, nn.MaxPool2d):
                swap = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(part, name, swap)
            elif isinstance(child, nn.BatchNorm2d):
                setattr(part, name, nn.Identity())

    class Reached(Exception):
        pass

    def stop(module, args, output):
        raise Reached(output)

    x = x.clone().requires_grad_()
    handle = dict(model.named_modules())[layer].register_forward_hook(stop)
    with pytest.raises(Reached) as reached:
        model(x)
    handle.remove()
    maps = reached.value.args[0]
    row, column = row % maps.shape[2], column % maps.shape[3]
    slopes = torch.autograd.grad(maps[0, :, row, column].sum(), x)[0].abs().sum((0, 1))
    rows, columns = (slopes.sum(i).nonzero().flatten().tolist() for i in (1, 0))
    return (row, column), (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)


# Sizes at which every window fits: no pixel is left over at the right and the bottom.
@pytest.mark.parametrize(
    ("name", "layer", "picture"),
    [
        ("alexnet", "features.0", (223, 191)),
        ("alexnet", "features.5", (223, 191)),
        ("alexnet", "features.11", (223, 191)),
        ("vgg11", "features.2", (64, 96)),
        ("vgg11", "features.10", (64, 96)),
        ("vgg11", "features.20", (192, 160)),
        ("squeezenet1_0", "features.3.expand3x3", (99, 131)),
        ("squeezenet1_0", "features.12", (227, 195)),
        ("resnet18", "conv1", (64, 96)),
        ("resnet18", "layer2.0.conv1", (65, 97)),
        ("resnet18", "layer2", (65, 97)),
        ("resnet18", "layer3", (225, 193)),
        ("densenet121", "features.denseblock1", (64, 96)),
        ("mobilenet_v2", "features.4", (65, 97)),
        ("pocket_squeezenet", "net.features.4", (67, 99)),
        ("pocket_resnet", "net.layer2", (65, 97)),
        ("pocket_alexnet", "net.features.5", (67, 91)),
    ],
)
def test_receptive_field_equals_the_gradient_of_one_unit(name, layer, picture):
    torch.manual_seed(0)
    if name.startswith("pocket"):
        model = nets.load(name, weights=False)
    else:
        model = models.get_model(name, weights=None)
    field = receptive_field(model, layer, picture=picture)
    x = torch.rand(1, 3, *picture) + 1
    for unit in [(0, 0), (-1, -1), (2, 1)]:
        unit, frame = _measured(model, layer, x, *unit)
        assert field.box(*unit, picture) == frame


def test_receptive_field_of_one_layer_by_hand():
    conv = nn.Sequential(nn.Conv2d(3, 2, (5, 3), stride=(2, 1), padding=(1, 0), dilation=(2, 1)))
    field = receptive_field(conv, "0", picture=(20, 30))
    assert field == ReceptiveField(size=(9, 3), jump=(2, 1), start=(-1, 0))
    assert field.box(2, 4) == (3, 12, 4, 7)
    assert field.box(0, 0) == (-1, 8, 0, 3) and field.box(0, 0, (20, 30)) == (0, 8, 0, 3)


def test_receptive_field_counts_functional_calls_padding_and_same():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(1, 4, 5, padding="same")
            self.second = nn.Conv2d(4, 4, 3, stride=2)

        def forward(self, x):
            x = F.max_pool2d(torch.relu(self.first(x)), 2)
            return self.second(F.pad(x, (1, 0, 2, 0))).sigmoid()

    field = receptive_field(Net(), "second", channels=1)
    assert field == ReceptiveField(size=(10, 10), jump=(4, 4), start=(-6, -4))


def test_receptive_field_leaves_the_model_as_it_was():
    model = models.resnet18().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    receptive_field(model, "layer4")
    assert all(part.training for part in model.modules())
    assert all(not part._forward_hooks for part in model.modules())
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    with pytest.raises(ValueError):
        receptive_field(model, "fc")
    assert all(not part._forward_hooks for part in model.modules()) and model.training


def test_receptive_field_of_adaptive_pooling_depends_on_the_picture():
    alexnet = models.alexnet()
    assert receptive_field(alexnet, "avgpool").size == (195, 195)  # 6×6 to 6×6: nothing to do
    with pytest.raises(ValueError, match="unequal size"):
        receptive_field(alexnet, "avgpool", picture=(256, 256))
    whole = receptive_field(models.resnet18(), "avgpool")
    assert whole.box(0, 0, (224, 224)) == (0, 224, 0, 224)


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("vgg11", "classifier.0", "come after flatten"),
        ("resnet18", "fc", "come after flatten"),
        ("resnet18", "layer5", "no layer 'layer5'.*layer"),
        ("mobilenet_v3_small", "features.1", "joins maps of different sizes|unequal|mixes"),
    ],
)
def test_receptive_field_says_why_there_is_none(name, layer, message):
    with pytest.raises(ValueError, match=message):
        receptive_field(models.get_model(name, weights=None), layer)


def test_receptive_field_of_what_is_never_called_or_cannot_be():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Conv2d(3, 1, 3), nn.Conv2d(3, 1, 3)
            self.late = nn.Conv2d(1, 1, 3)

        def forward(self, x):
            return self.late(self.used(x).flip(3)) + 0 * self.spare.weight.sum()

    with pytest.raises(ValueError, match="never calls layer 'spare'"):
        receptive_field(Net(), "spare")
    with pytest.raises(ValueError, match="come after flip"):
        receptive_field(Net(), "late")
    with pytest.raises(ValueError, match="could not be called with a picture of 2×2"):
        receptive_field(Net(), "late", picture=(2, 2))
