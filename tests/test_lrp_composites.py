"""Composites of LRP against those of zennit, and which layer gets which rule."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import zennit.composites
import zennit.core
import zennit.rules
from relevance_helpers import NETS, TARGETS, Mixed, for_net, relative_error, sums
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.canonizers import NamedMergeBatchNorm, SequentialMergeBatchNorm
from zennit.core import Stabilizer
from zennit.torchvision import ResNetCanonizer
from zennit.types import Linear

from vislib import nets
from vislib.explain.lrp import COMPOSITES, Composite, lrp, relevance_by_layer
from vislib.explain.lrp.composites import find_composite, uniform
from vislib.explain.lrp.rules import epsilon_rule, flat_rule, gamma_rule, z_plus_rule, zero_rule


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def name_of(value: object) -> str:
    """The id of a test case, without memory addresses, which differ between workers."""
    if isinstance(value, zennit.core.Hook):
        return type(value).__name__
    return getattr(value, "__name__", str(value))


# --- Against zennit -------------------------------------------------------------------------------

LOW, HIGH = torch.zeros(1, 3, 1, 1).double(), torch.ones(1, 3, 1, 1).double()


def of_layers(hook: zennit.rules.Hook) -> zennit.composites.LayerMapComposite:
    """zennit's composite with one rule for all layers; other operations as in its composites."""
    layers = zennit.composites.layer_map_base()
    return partial(zennit.composites.LayerMapComposite, [*layers, (Linear, hook)])


ZENNIT: dict[str, Callable[..., zennit.core.Composite]] = {
    "epsilon": of_layers(zennit.rules.Epsilon()),
    "gamma": of_layers(zennit.rules.Gamma()),
    "alpha_beta": of_layers(zennit.rules.AlphaBeta()),
    "z_plus": of_layers(zennit.rules.ZPlus()),
    "w_square": of_layers(zennit.rules.WSquare(zero_params="bias")),
    "flat": of_layers(zennit.rules.Flat()),
    "epsilon_plus": zennit.composites.EpsilonPlus,
    "epsilon_plus_flat": zennit.composites.EpsilonPlusFlat,
    "epsilon_alpha2_beta1": zennit.composites.EpsilonAlpha2Beta1,
    "epsilon_alpha2_beta1_flat": zennit.composites.EpsilonAlpha2Beta1Flat,
    "epsilon_gamma_box": partial(zennit.composites.EpsilonGammaBox, low=LOW, high=HIGH),
}


def by_zennit(
    model: nn.Module, x: Tensor, target: list[int], composite: zennit.core.Composite
) -> Tensor:
    with torch.no_grad():
        logits = model(x)
    start = logits * F.one_hot(torch.tensor(target), logits.shape[1])
    with Gradient(model=model, composite=composite) as attributor:
        _, relevance = attributor(x.clone(), start)
    return relevance.detach()


@pytest.mark.parametrize("rule", ZENNIT)
@pytest.mark.parametrize("net", ["alexnet", "vgg11", "squeezenet1_1"])
def test_lrp_equals_zennit(double, x, net, rule):
    model, x = double(net), for_net(net, x)
    expected = by_zennit(model, x, TARGETS, ZENNIT[rule]())
    assert relative_error(lrp(model, x, TARGETS, rule=rule), expected) <= 1e-8


def dense_canonizer(model: nn.Module) -> NamedMergeBatchNorm:
    """zennit's canonizer would merge norm1 into the module before it, which is not its input."""
    names = dict(model.named_modules())
    pairs = [([n.replace("norm2", "conv1")], n) for n in names if n.endswith("norm2")]
    return NamedMergeBatchNorm([(["features.conv0"], "features.norm0"), *pairs])


CANONIZERS = {
    "resnet18": lambda model: ResNetCanonizer(),
    "googlenet": lambda model: SequentialMergeBatchNorm(),
    "densenet121": dense_canonizer,
}


# Each kind of rule is tested once on the large networks. w² and flat in all layers are left out,
# because zennit does not see functional ReLUs, and ε in DenseNet, because zennit passes relevance
# unchanged through batch normalisation that does not follow a layer.
EACH_KIND = ("epsilon", "epsilon_alpha2_beta1_flat", "epsilon_gamma_box")
CANONISED = [
    *(("resnet18", rule) for rule in ZENNIT),
    *(("googlenet", rule) for rule in EACH_KIND),
    *(("densenet121", rule) for rule in EACH_KIND[1:]),
]


@pytest.mark.parametrize(("net", "rule"), CANONISED)
def test_lrp_equals_zennit_with_canonizers(double, x, net, rule):
    """zennit merges batch normalisation and replaces forward functions, vislib changes nothing."""
    model, x = double(net), for_net(net, x)
    # The last pool of DenseNet has 1×1 maps here, where only vislib has a stabiliser.
    tolerance = 1e-5 if net == "densenet121" else 1e-7
    composite = ZENNIT[rule](canonizers=[CANONIZERS[net](model)])
    expected = by_zennit(model, x, TARGETS, composite)
    assert relative_error(lrp(model, x, TARGETS, rule=rule), expected) <= tolerance


@pytest.mark.parametrize(
    ("rule", "options", "hook"),
    [
        ("epsilon", {"epsilon": 0.25}, zennit.rules.Epsilon(epsilon=0.25)),
        (
            "epsilon",
            {"epsilon": 0.25, "relative": True},
            zennit.rules.Epsilon(epsilon=Stabilizer(0.25, norm_scale=True)),
        ),
        ("gamma", {"gamma": 1.0}, zennit.rules.Gamma(gamma=1.0)),
        ("alpha_beta", {"alpha": 1, "beta": 0}, zennit.rules.AlphaBeta(1, 0)),
        ("alpha_beta", {"alpha": 1.5, "beta": 0.5}, zennit.rules.AlphaBeta(1.5, 0.5)),
    ],
    ids=name_of,
)
def test_options_equal_those_of_zennit(double, x, rule, options, hook):
    model = double("alexnet")
    expected = by_zennit(model, x, TARGETS, of_layers(hook)())
    assert relative_error(lrp(model, x, TARGETS, rule=rule, **options), expected) <= 1e-8


def test_without_biases_equals_zennit(double, x):
    model = double("alexnet")
    composite = zennit.composites.EpsilonPlus(zero_params="bias")
    actual = lrp(model, x, TARGETS, rule=Composite(epsilon_rule, z_plus_rule, bias=False))
    assert relative_error(actual, by_zennit(model, x, TARGETS, composite)) <= 1e-8


def test_box_in_pixels_is_zennits_box_after_normalising(double, x):
    """The Normalize layer in front belongs to the first layer."""
    model = double("alexnet")
    normalize = nets.Normalize().double()
    low, high = normalize(LOW), normalize(HIGH)
    composite = zennit.composites.EpsilonGammaBox(low=low, high=high)
    expected = by_zennit(model, normalize(x), TARGETS, composite)
    whole = nn.Sequential(normalize, model)
    for box in ({}, {"low": LOW[0], "high": HIGH[0]}, {"low": 0, "high": 1}):
        actual = lrp(whole, x, TARGETS, rule="epsilon_gamma_box", **box)
        assert relative_error(actual, expected) <= 1e-8


# --- Which layer gets which rule ------------------------------------------------------------------


def test_steps_have_names_and_rules(small_x):
    layers = relevance_by_layer(Mixed(), small_x, 1, rule="epsilon_gamma_box")
    actual = [(layer.name, layer.family, layer.rule) for layer in layers]
    assert actual == [
        ("fc2", "dense", "epsilon"),
        ("fc1", "dense", "epsilon"),
        ("avg_pool2d", "average", "epsilon"),
        ("add", "sum", "epsilon"),
        ("conv2", "convolution", "gamma"),
        ("conv1", "convolution", "z_box"),
    ]
    assert [layer.at_output.shape for layer in layers] == [(2,)] * 6
    assert torch.equal(layers[0].remaining, layers[0].at_inputs)
    layers = relevance_by_layer(Mixed(), small_x, 1, rule="zero")
    actual = [(layer.name, layer.rule) for layer in layers]
    assert ("bn2", "zero") in actual and ("bn1", "zero") not in actual


def test_composite_by_depth(double, x):
    layers = relevance_by_layer(double("vgg11"), x, 3, rule="by_depth")
    assert [layer.rule for layer in layers if layer.family != "average"] == (
        ["zero"] * 3 + ["epsilon"] * 4 + ["gamma"] * 3 + ["z_box"]
    )


def test_a_batch_norm_merges_only_if_it_directly_follows(small_x):
    class Forked(Mixed):
        def forward(self, x: Tensor) -> Tensor:
            z = self.conv1(x)
            x = self.bn1(z) + z if self.fork else self.bn1(z) + z.detach()
            return self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(F.relu(x), 4).flatten(1))))

        fork = True

    merged = [layer.name for layer in relevance_by_layer(Forked(), small_x, 1, rule="zero")]
    assert "bn1" in merged
    Forked.fork = False
    assert "bn1" not in [
        layer.name for layer in relevance_by_layer(Forked(), small_x, 1, rule="zero")
    ]


def test_all_layers_that_see_the_pixels_get_rule_first(small_x):
    class TwoStems(Mixed):
        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x).relu() + self.conv1(2 * x.flip(3) - 1).relu()
            return self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(self.conv2(x), 4).flatten(1))))

    layers = relevance_by_layer(TwoStems(), small_x, 1, rule="epsilon_gamma_box")
    assert [layer.rule for layer in layers if layer.family == "convolution"] == [
        "gamma",
        "z_box",
        "z_box",
    ]


def test_composites_are_found_by_name_or_rule():
    composite = Composite(zero_rule, gamma_rule)
    assert find_composite(composite) is composite
    assert find_composite(flat_rule) == uniform(flat_rule) == find_composite("flat")
    assert set(COMPOSITES) >= set(ZENNIT)


# --- All composites on all networks ---------------------------------------------------------------

SMALL_NETS, BIG_NETS = NETS[:4], (*NETS[4:], "mobilenet_v2")
PAIRS = [
    *((net, rule) for net in SMALL_NETS for rule in COMPOSITES),
    *((net, rule) for net in BIG_NETS for rule in ("z_plus", "alpha_beta", "by_depth")),
]


@pytest.mark.parametrize(("net", "rule"), PAIRS)
def test_every_composite_on_every_net(single, x, net, rule):
    """The maps are finite, and their sum is the relevance that remains after the last layer."""
    model, image = single(net), for_net(net, x)[:1].float()
    target = int(model(image).argmax())
    y = model(image)[0, target].detach()
    actual = lrp(model, image, target, rule=rule)
    layers = relevance_by_layer(model, image, target, rule=rule)
    assert actual.isfinite().all() and actual.abs().max() > 0
    assert torch.allclose(layers[0].at_output, y)
    scale = actual.abs().sum()
    assert (layers[-1].remaining - sums(actual)).abs() <= 1e-4 * max(scale, y.abs())
    remaining, atol = y, 1e-4 * float(y.abs() + scale)
    for layer in layers:
        remaining = remaining + layer.at_inputs - layer.at_output
        assert torch.allclose(layer.remaining, remaining, rtol=1e-4, atol=atol)
    if rule == "z_plus" and net in ("googlenet", "vgg11"):
        # Only biases absorb relevance, and they absorb only positive relevance.
        assert 0 < sums(actual) < 1.001 * y


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("epsilonplus", {}, r"composite, got 'epsilonplus': did you mean 'epsilon_plus'"),
        ("lrp", {}, r"rule must be the name of a composite, got 'lrp': "),
        ("epsilon", {"eps": 1}, r"composite 'epsilon' has no option 'eps': did you mean 'epsilon'"),
        ("z_plus", {"gamma": 1}, r"composite 'z_plus' has no option 'gamma'"),
        ("alpha_beta", {"alpha": 2, "beta": 0}, r"alpha - beta = 1 .* got alpha=2, beta=0"),
        ("alpha_beta", {"alpha": 0.5, "beta": -0.5}, r"beta >= 0"),
        ("gamma", {"gamma": -1}, r"gamma must be at least 0, got -1"),
        ("epsilon", {"epsilon": float("nan")}, r"epsilon must be at least 0, got nan"),
        (2, {}, r"rule must be a name, a Composite or a rule function, got 2"),
        (
            zero_rule,
            {"gamma": 1},
            r"options \(gamma\) are allowed only if rule is a name, got <function zero_rule",
        ),
    ],
    ids=name_of,
)
def test_wrong_rules_and_options(rule, options, message, small_x):
    for method in (lrp, relevance_by_layer):
        with pytest.raises(ValueError, match=message):
            method(Mixed(), small_x, 1, rule=rule, **options)


def test_pixels_outside_the_box_are_an_error(small_x):
    with pytest.raises(ValueError, match=r"low=0.0 to high=1.0, got pixels between -?\d.* and"):
        lrp(Mixed(), small_x * 2, 1, rule="epsilon_gamma_box")
