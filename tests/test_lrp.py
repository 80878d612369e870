"""Layer-wise relevance propagation: identities, conservation, other forms of the same network."""

import copy
from functools import partial
from typing import Any

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from captum.attr._utils.lrp_rules import EpsilonRule
from relevance_helpers import NETS, TARGETS, Mixed, for_net, relative_error, sums
from torch import Tensor, nn

from vislib import nets
from vislib.core import FAMILIES, one_forward
from vislib.explain.fullgrad import fullgrad
from vislib.explain.gradients import gradient, gradient_x_input
from vislib.explain.lrp import COMPOSITES, Composite, lrp
from vislib.explain.lrp.rules import epsilon_rule, z_box_rule, z_plus_rule


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(1))


# --- Identities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["alexnet", "vgg11"])
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_lrp_epsilon_equals_captum(double, x, net):
    """ε is close to 0, because Captum applies it to max pools too, which then absorb relevance."""
    model = copy.deepcopy(double(net))
    for module in model.modules():
        module.rule = EpsilonRule(1e-30)
    peer = captum.attr.LRP(model).attribute(x[:1].clone(), target=3).detach()
    assert relative_error(lrp(double(net), x[:1], 3, rule="zero"), peer) <= 1e-8


@pytest.mark.parametrize("net", [*NETS, "inception_v3"])
def test_lrp_0_is_gradient_x_input(double, x, net):
    model, x = double(net), for_net(net, x)
    actual = lrp(model, x, TARGETS, rule="zero")
    assert relative_error(actual, gradient_x_input(model, x, TARGETS)) <= 5e-10


@pytest.mark.parametrize("net", nets.EMOJI_NETS)
def test_lrp_0_is_gradient_x_input_on_the_pocket_nets(net):
    """The relevance is that of pixels, before the Normalize layer, in float32 and float64."""
    model = nets.load(net)
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    actual = lrp(model, image, [3, 7], rule="zero")
    assert relative_error(actual, gradient_x_input(model, image, [3, 7])) <= 1e-3
    actual = lrp(model.double(), image.double(), [3, 7], rule="zero")
    assert relative_error(actual, gradient_x_input(model, image.double(), [3, 7])) <= 1e-9


def test_relevance_of_a_layer(double, x):
    """With LRP-0 it is activation × gradient."""
    model = double("resnet18")
    for layer in ("conv1", "layer1", "layer4.1.bn2"):
        with one_forward(model, x, TARGETS, layer=layer) as forward:
            (grad,) = forward.backward(forward.maps)
            expected = forward.maps.detach() * grad
        # conv1 includes its batch normalisation, whose bias absorbs relevance before the layer.
        if layer == "conv1":
            continue
        assert relative_error(lrp(model, x, TARGETS, rule="zero", layer=layer), expected) <= 1e-9
    hidden = lrp(model, x, TARGETS, layer="layer1")
    assert hidden.shape == (2, 16, 16, 16)
    pixels = lrp(model, x, TARGETS)
    with one_forward(model, x, TARGETS, layer="layer1") as forward:
        pass
    assert sums(hidden).abs().min() > 0 and pixels.shape == x.shape


# --- Conservation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["emoji_vgg", "emoji_alexnet", "emoji_squeezenet"])
def test_relevance_is_conserved_with_bias_false(net):
    model = nets.load(net).double()
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    y = model(image)[range(2), TARGETS].detach()
    composite = Composite(epsilon_rule, z_plus_rule, z_box_rule, bias=False)
    assert torch.allclose(sums(lrp(model, image, TARGETS, rule=composite)), y, rtol=1e-3)
    with_biases = sums(lrp(model, image, TARGETS, rule="epsilon_plus"))
    assert ((with_biases - y).abs() > 1e-2 * y.abs()).all()


@pytest.mark.parametrize("rule", COMPOSITES)
def test_relevance_is_conserved_in_a_network_without_biases(rule):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5, bias=False),
    ).double()
    image = torch.rand(2, 3, 18, 18).double()
    options = {"epsilon": 0.0} if rule == "by_depth" else {}
    actual = lrp(model, image, [1, 4], rule=rule, **options)
    y = model(image)[range(2), [1, 4]].detach()
    loss = (sums(actual) - y).abs() / y.abs()
    assert loss.max() <= 1e-3
    assert actual.abs().max() > 0


# --- In-place operations and other forms of a network ---------------------------------------------


class Overwrites(Mixed):
    """The inputs of convolutions and sums are overwritten later."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(0.5).div_(0.2)
        before = self.conv1(x)
        after = self.conv2(before)
        # This overwrites the input of conv2.
        x = before.relu_() + after
        after.mul_(0).add_(1)
        x = F.adaptive_avg_pool2d(x, 4)
        return self.fc2(self.fc1(x.flatten(1)).relu_())


class Plain(Mixed):
    def forward(self, x: Tensor) -> Tensor:
        before = self.conv1((x - 0.5) / 0.2)
        x = before.relu() + self.conv2(before)
        return self.fc2(self.fc1(F.adaptive_avg_pool2d(x, 4).flatten(1)).relu())


@pytest.mark.parametrize("rule", COMPOSITES)
def test_in_place_operations_do_not_change_the_result(rule, small_x):
    actual = lrp(Overwrites(), small_x, [1, 4], rule=rule)
    assert torch.equal(actual, lrp(Plain(), small_x, [1, 4], rule=rule))
    assert torch.equal(Overwrites()(small_x.clone()), Plain()(small_x))


# With these rules it makes no difference whether b is a bias or a shift ``+ b``.
@pytest.mark.parametrize("rule", ["zero", "epsilon", "w_square", "flat"])
def test_other_forms_of_the_same_network(rule, small_x):
    class Functional(Mixed):
        def forward(self, x: Tensor) -> Tensor:
            p = dict(self.named_parameters()) | dict(self.named_buffers())
            x = F.conv2d(input=x, weight=p["conv1.weight"], bias=p["conv1.bias"], padding=1)
            x = F.batch_norm(
                x,
                weight=p["bn1.weight"],
                running_var=p["bn1.running_var"],
                running_mean=p["bn1.running_mean"],
                bias=p["bn1.bias"],
            )
            x = torch.relu_(x)
            x = torch.max_pool2d(x, 3, 2)
            x = torch.add(self.conv2(self.bn2(x).relu()), other=x)
            x = F.avg_pool2d(x.relu(), 2, ceil_mode=True)[:, :, :4, :4]
            x = x.reshape(len(x), -1) @ p["fc1.weight"].T + p["fc1.bias"]
            return torch.addmm(p["fc2.bias"], x.relu(), p["fc2.weight"].T)

    actual = lrp(Functional(), small_x, [1, 4], rule=rule)
    expected = lrp(Mixed(), small_x, [1, 4], rule=rule)
    assert relative_error(actual, expected) <= 1e-3


def test_the_forward_pass_is_unchanged_by_rules(double, x):
    for net in ("resnet18", "densenet121"):
        model, image = double(net), for_net(net, x)
        with one_forward(model, image, 3, families=list(FAMILIES)) as forward:
            assert torch.equal(forward.logits, model(image))
            (grad,) = forward.backward()
        assert relative_error(grad, gradient(model, image, 3)) <= 1e-12


# --- Networks that LRP cannot explain -------------------------------------------------------------


class Gate(Mixed):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * torch.sigmoid(x))


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "gate": (Gate(), "LRP has no rule for mul of two tensors that depend on the image"),
    "softmax": (Mixed(partial(F.softmax, dim=1)), "LRP has no rule for softmax, which this"),
    "clamp": (Mixed(lambda z: z.clamp(min=0)), "no rule for clamp"),
    "square": (Mixed(lambda z: z * z), "no rule for mul of two tensors"),
    "quotient": (Mixed(lambda z: 1 / (1 + z.abs())), "no rule for __rdiv__, abs|__rdiv__"),
    "mean of the batch": (
        Mixed(lambda z: z - z.mean()),
        "this mean reduces the whole batch to one number",
    ),
    "divided by itself": (
        Mixed(lambda z: z / z.mean()),
        "no rule for div by a tensor that depends",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_operations_without_a_rule_are_an_error(name, small_x):
    model, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        lrp(model, small_x, 1)


def test_attention_and_batch_statistics_are_an_error(small_x):
    class Attends(Mixed):
        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x).flatten(2)
            return self.fc2((x @ x.mT).flatten(1)[:, :10])

    with pytest.raises(ValueError, match=r"no rule for this matmul: it is not a layer"):
        lrp(Attends(), small_x, 1)
    model = Mixed()
    model.bn1 = nn.BatchNorm2d(6, track_running_stats=False).double()
    for method in (lrp, fullgrad):
        with pytest.raises(ValueError, match="computes its mean from the images of"):
            method(model, small_x, 1)


@pytest.mark.parametrize("net", ["convnext_tiny", "mobilenet_v3_small"])
def test_torchvision_networks_without_rules_are_an_error(untrained, net):
    image = torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"LRP has no rule for .*(layer_norm|a gate)"):
        lrp(untrained(net), image, 1)


class OwnSwish(torch.autograd.Function):
    """Some implementations of EfficientNet define it like this to save memory."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z * z.sigmoid()

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return signal * z.sigmoid() * (1 + z * (1 - z.sigmoid()))


@pytest.mark.parametrize("method", [lrp, fullgrad])
def test_custom_autograd_functions_are_an_error(method, small_x):
    """No mode sees them, so their derivative would silently replace a rule."""
    with pytest.raises(ValueError, match=r"no rule for OwnSwish, which this model calls"):
        method(Mixed(OwnSwish.apply), small_x, 1)
