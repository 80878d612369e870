"""`vislib.features.receptive_field` against the gradient of single units."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

from vislib import nets
from vislib.features import ReceptiveField, receptive_field


def _measured(model, layer, x, row, column):
    """The bounding box of one unit's gradient.

    It is measured in a copy of the model in which all weights are positive and pooling takes the
    mean, so that no gradient inside the receptive field is 0.
    """
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d):
            weight = module.weight.data.abs() + 1e-3
            module.weight.data = weight / weight.sum((1, 2, 3), keepdim=True)
            module.bias = None
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                swap = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, swap)
            elif isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())

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
    gradient = torch.autograd.grad(maps[0, :, row, column].sum(), x)[0].abs().sum((0, 1))
    rows, columns = (gradient.sum(i).nonzero().flatten().tolist() for i in (1, 0))
    return (row, column), (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)


# At these sizes every window fits: no pixel is left over at the right and at the bottom.
@pytest.mark.parametrize(
    ("name", "layer", "image_size"),
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
        ("emoji_squeezenet", "net.features.4", (67, 99)),
        ("emoji_resnet", "net.layer2", (65, 97)),
        ("emoji_alexnet", "net.features.5", (67, 91)),
    ],
)
def test_receptive_field_equals_the_gradient_of_one_unit(name, layer, image_size):
    torch.manual_seed(0)
    if name.startswith("emoji"):
        model = nets.load(name, weights=False)
    else:
        model = models.get_model(name, weights=None)
    field = receptive_field(model, layer, image_size=image_size)
    x = torch.rand(1, 3, *image_size) + 1
    for unit in [(0, 0), (-1, -1), (2, 1)]:
        unit, box = _measured(model, layer, x, *unit)
        assert field.box(*unit, image_size) == box


def test_receptive_field_of_one_layer_by_hand():
    conv = nn.Sequential(nn.Conv2d(3, 2, (5, 3), stride=(2, 1), padding=(1, 0), dilation=(2, 1)))
    field = receptive_field(conv, "0", image_size=(20, 30))
    assert field == ReceptiveField(size=(9, 3), jump=(2, 1), start=(-1, 0))
    assert field.box(2, 4) == (3, 12, 4, 7)
    assert field.box(0, 0) == (-1, 8, 0, 3) and field.box(0, 0, (20, 30)) == (0, 8, 0, 3)


def test_receptive_field_counts_functional_calls_and_padding():
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


def test_receptive_field_does_not_change_the_model():
    model = models.resnet18().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    receptive_field(model, "layer4")
    assert all(module.training for module in model.modules())
    assert all(not module._forward_hooks for module in model.modules())
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    with pytest.raises(ValueError):
        receptive_field(model, "fc")
    assert all(not module._forward_hooks for module in model.modules()) and model.training


def test_receptive_field_of_adaptive_pooling_varies_with_size():
    alexnet = models.alexnet()
    assert receptive_field(alexnet, "avgpool").size == (195, 195)  # 6×6 to 6×6: no change
    with pytest.raises(ValueError, match="unequal size"):
        receptive_field(alexnet, "avgpool", image_size=(256, 256))
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
def test_layers_without_a_receptive_field_are_refused(name, layer, message):
    with pytest.raises(ValueError, match=message):
        receptive_field(models.get_model(name, weights=None), layer)


def test_layers_that_cannot_be_reached_are_refused():
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
    with pytest.raises(ValueError, match="could not be called with an image of 2×2"):
        receptive_field(Net(), "late", image_size=(2, 2))
