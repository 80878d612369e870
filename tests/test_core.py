"""The mechanism, and what holds for every method: the model stays as it was, bad input is refused.

A method of the registry joins all these tests by itself.
"""

import doctest
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial, update_wrapper
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vislib import attacks, core
from vislib.core import BackwardRules, find_layer, frozen, one_forward, record, score
from vislib.explain.averaging import integrated_gradients, smoothgrad
from vislib.explain.cam import (
    cam,
    eigen_cam,
    grad_cam,
    grad_cam_pp,
    guided_grad_cam,
    layer_cam,
    score_cam,
    xgrad_cam,
)
from vislib.explain.fullgrad import fullgrad
from vislib.explain.gradients import (
    saliency,
)
from vislib.explain.lrp import lrp, relevance_by_layer
from vislib.explain.occlusion import occlusion
from vislib.explain.shapley import shapley
from vislib.explain.taylor import root_point, simple_taylor
from vislib.layers import last_conv_stage
from vislib.measure import benchmark, methods, perturbation


def lrp_box(model: nn.Module, x: Tensor, target: core.Target) -> Tensor:
    """A composite that runs the model a second time, up to its first layer."""
    return lrp(model, x, target, rule="epsilon_gamma_box")


def taylor_at_grey(model: nn.Module, x: Tensor, target: core.Target) -> Tensor:
    """Not at a root point: there need not be one for nets with random weights."""
    return simple_taylor(model, x, target, torch.tensor(0.5))


def shapley_few(model: nn.Module, x: Tensor, target: core.Target) -> Tensor:
    """Few parts and orders: it is the number of forward passes that takes long."""
    return shapley(model, x, target, segments=4, samples=2)


def two_copies(model: nn.Module, x: Tensor, target: core.Target) -> Tensor:
    """SmoothGrad with few copies, which is what takes long."""
    return smoothgrad(model, x, target, n=2)


def two_steps(model: nn.Module, x: Tensor, target: core.Target) -> Tensor:
    """Integrated gradients with few steps, from grey."""
    return integrated_gradients(model, x, target, baseline=0.5, steps=2)


def occlusion_of_quarters(model: nn.Module, x: Tensor, target: core.Target) -> Tensor:
    """Few squares, which overlap a little where the image is not one of them doubled."""
    side = (min(x.shape[-2:]) + 1) // 2
    return occlusion(model, x, target, size=side, stride=side)


def two_bim_steps(model: nn.Module, x: Tensor, target: core.Target) -> Tensor:
    """The attacked image itself."""
    return attacks.bim(model, x, target, epsilon=0.03, steps=2)


def with_options(method: methods.Method) -> Callable[..., Tensor]:
    """The function of a method with the settings of the registry."""
    return update_wrapper(partial(method.function, **method.options), method.function)


# Settings that take less time than those of the registry, or round less. Score-CAM takes one
# forward pass for each feature map, and the deconvnet of a unit needs a chain of modules: they have
# tests of their own.
QUICK: dict[str, Callable[..., Tensor]] = {
    "simple_taylor": taylor_at_grey,
    "smoothgrad": two_copies,
    "integrated_gradients": two_steps,
    "shapley": shapley_few,
    "occlusion": occlusion_of_quarters,
    # A larger ε, because rounding errors are divided by denominators near 0.
    "lrp_epsilon": update_wrapper(partial(lrp, rule="epsilon", epsilon=0.01), lrp),
}
METHODS: dict[str, Callable[..., Tensor]] = {
    name: QUICK.get(name, with_options(method) if method.options else method.function)
    for name, method in methods.METHODS.items()
    if not method.control and name not in ("score_cam", "unit_deconvnet")
} | {"lrp_box": lrp_box, "bim": two_bim_steps}
LAYERED = ["cam", "grad_cam", "guided_grad_cam"]  # those that take layer=
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
every_layered = pytest.mark.parametrize("method", [METHODS[m] for m in LAYERED], ids=LAYERED)


class Net(nn.Module):
    """A GAP net with all that a method could disturb, and one ReLU used twice, in place.

    `trouble` is called in the midst of the forward pass, and may raise.
    """

    def __init__(self, maps: int = 8, classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(3, maps, 3, padding=1)
        self.bn = nn.BatchNorm2d(maps)
        self.drop = nn.Dropout(0.5)
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1)
        self.shortcut = nn.Sequential()  # empty, as in many ResNets: its truth value is False
        self.stage = nn.Sequential(self.conv2, self.relu)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(maps, classes)
        self.unused = nn.Conv2d(3, maps, 3)
        self.trouble: Callable[[], None] = lambda: None

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.relu(self.bn(self.conv1(x))))
        self.trouble()
        x = self.stage(self.shortcut(x))
        return self.head(self.pool(x).flatten(1))


@pytest.fixture
def net() -> Net:
    """A `Net` in a state that no method should even out."""
    net = Net()
    net.train()
    net.bn.eval()
    net.head.eval()
    net.conv1.weight.requires_grad_(False)
    net.head.bias.requires_grad_(False)
    net.conv2.weight.grad = torch.ones_like(net.conv2.weight)
    net.conv2.register_forward_hook(lambda module, args, output: None)
    net.bn.register_forward_pre_hook(lambda module, args: None)
    return net


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


# ------------------------------------------------------------ the model is as it was


def content(tensor: Tensor | None) -> tuple[Any, ...] | None:
    if tensor is None:
        return None
    return id(tensor), tensor.data_ptr(), tensor.detach().numpy().tobytes()


def state(model: nn.Module) -> dict[str, Any]:
    """All of the model and of PyTorch's global state that a method could leave changed."""
    return {
        "parameters": {
            name: (content(p), p.requires_grad, content(p.grad))
            for name, p in model.named_parameters()
        },
        "buffers": {name: content(buffer) for name, buffer in model.named_buffers()},
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": {
            (name, kind): dict(hooks)
            for name, module in model.named_modules()
            for kind, hooks in vars(module).items()
            if "_hooks" in kind
        },
        "attributes": {name: set(vars(module)) for name, module in model.named_modules()},
        "random numbers": torch.get_rng_state().tolist(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


@contextmanager
def unchanged(model: nn.Module, x: Tensor) -> Iterator[None]:
    before, pixels = state(model), x.clone()
    yield
    after = state(model)
    for part in before:
        assert after[part] == before[part], part
    assert torch.equal(x, pixels)
    assert x.is_inference() or x.grad is None


def explain(model: nn.Module, x: Tensor, target: core.Target) -> Tensor:
    return benchmark.explain(model, x, target, layer="stage")[0]["guided_grad_cam"]


def default_layer(model: nn.Module, x: Tensor, target: core.Target) -> None:
    last_conv_stage(model, x)


def root(model: nn.Module, x: Tensor, target: core.Target) -> None:
    with suppress(ValueError):  # there need not be one
        root_point(model, x, target)


def deleted(model: nn.Module, x: Tensor, target: core.Target) -> None:
    perturbation.deletion(model, x, target, x, steps=2)


CALLS = METHODS | {
    "score_cam": score_cam,
    "deletion": deleted,
    "explain": explain,
    "last_conv_stage": default_layer,
    "relevance_by_layer": relevance_by_layer,
    "root_point": root,
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
outside = pytest.mark.parametrize(
    "outside", [nullcontext, torch.no_grad, torch.inference_mode], ids=lambda c: c.__name__
)


def test_the_hooks_of_the_fixture_are_seen(net):
    """`state` would be worth nothing if it overlooked them."""
    hooks = state(net)["hooks"]
    assert len(hooks["conv2", "_forward_hooks"]) == len(hooks["bn", "_forward_pre_hooks"]) == 1
    assert ("head", "_backward_hooks") in hooks


@outside
@every_call
def test_model_is_as_it_was(call, outside, net, x):
    with outside(), unchanged(net, x):
        call(net, x, [1, 4])


@every_call
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_model_is_as_it_was_after_an_exception_in_it(call, error, net, x):
    def trouble() -> None:
        raise error("in the midst of the forward pass")

    net.trouble = trouble
    with unchanged(net, x), pytest.raises(error, match="in the midst"):
        call(net, x, 1)


@every_method
def test_model_is_as_it_was_after_bad_input(method, net, x):
    for image, target in [(x, 5), (x[0], 1), (x * torch.nan, 1)]:
        with unchanged(net, image.nan_to_num()), pytest.raises(ValueError):
            method(net, image, target)


@every_method
@outside
def test_result_does_not_depend_on_what_is_outside(method, outside, net, x):
    expected = method(net, x, [1, 4])
    with outside():
        assert torch.equal(method(net, x, [1, 4]), expected)
        assert torch.equal(method(net, x.clone(), [1, 4]), expected)  # maybe an inference tensor


@every_method
def test_images_that_require_gradients(method, net, x):
    image = x.clone().requires_grad_()
    seen = method(net, image, 1)
    assert not seen.requires_grad
    assert image.requires_grad and image.grad is None
    assert torch.equal(seen, method(net, x, 1))


@every_method
def test_dropout_and_batch_norm_are_in_evaluation_mode(method, net, x):
    expected = method(net, x, 1)
    assert torch.equal(method(net.eval(), x, 1), expected)
    assert expected.abs().sum() > 0


# ------------------------------------------------------------ any CNN

REFUSED = {  # heads that are not average pooling of a layer's maps and one linear layer
    ("cam", name) for name in ["alexnet", "vgg11", "densenet121"]
}


@every_method
@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "vgg11",
        "resnet18",
        "squeezenet1_1",
        "googlenet",
        "inception_v3",
        "densenet121",
        "mobilenet_v2",
    ],
)
def test_every_method_runs_or_says_why_not(untrained, name, method):
    # A small image, but not so small that the last maps have but one place.
    side = 160 if name == "inception_v3" else 96
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    model = untrained(name)
    target = int(model(image).argmax())
    if (method.__name__, name) in REFUSED:
        with pytest.raises(ValueError, match=r"CAM needs a network that .* use grad_cam"):
            method(model, image, target)
        return
    seen = method(model, image, target)
    assert seen.isfinite().all() and seen.abs().sum() > 0
    cams = (cam, grad_cam, grad_cam_pp, xgrad_cam, layer_cam, eigen_cam)
    one_channel = (saliency, fullgrad, shapley_few, occlusion_of_quarters, *cams)
    channels = 1 if method in one_channel else 3
    assert seen.shape[:2] == (1, channels)
    assert (seen.shape[2:] == image.shape[2:]) == (method not in cams)


STAGES = {
    "alexnet": "features.11",
    "vgg16": "features.29",
    "vgg19_bn": "features.51",
    "resnet50": "layer4",
    "squeezenet1_0": "features",
    "squeezenet1_1": "features",
    "googlenet": "inception5b",
    "inception_v3": "Mixed_7c",
    "densenet121": "features",
    "mobilenet_v2": "features",
    "mobilenet_v3_small": "features",
    "efficientnet_b0": "features",
    "shufflenet_v2_x0_5": "conv5",
    "mnasnet0_5": "layers",
    "regnet_y_400mf": "trunk_output",
    "convnext_tiny": "features",
}


@pytest.mark.parametrize("name", STAGES)
def test_default_layer(untrained, name):
    assert last_conv_stage(untrained(name), torch.rand(2, 3, 128, 128)) == STAGES[name]


# ------------------------------------------------------------ layers


def test_default_layer_where_there_are_as_many_maps_as_classes(x):
    """They are the head only where no linear layer follows."""
    assert last_conv_stage(Net(maps=5, classes=5).eval(), x) == "stage"
    head = nn.Sequential(nn.Conv2d(8, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert last_conv_stage(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), head), x) == "1"


def test_default_layer_of_a_net_without_maps(x):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 5))
    with pytest.raises(
        ValueError, match=r"no convolutional feature map larger than 1×1 .* pass layer="
    ):
        last_conv_stage(flat, x)


def test_default_layer_leaves_the_image_to_the_caller(x):
    class Centred(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5))

    with unchanged(model := Centred(), x):
        last_conv_stage(model, x)


@every_layered
def test_layer_by_name_and_by_module(method, net, x):
    by_name = method(net, x, 1, layer="stage")
    assert torch.equal(method(net, x, 1, layer=net.stage), by_name)
    assert torch.equal(method(net, x, 1), by_name)


@every_layered
def test_layer_errors(method, net, x):
    for layer, message in [
        ("stag", r"no layer 'stag': did you mean 'stage'"),
        ("conv9", r"did you mean 'conv[12]' or 'conv[12]'"),
        ("1", r"no layer '1': choose from stage.1"),
        ("", r"no layer ''"),
        (Net().conv1, r"module of the model, got another Conv2d"),
        ("unused", r"never calls layer 'unused'"),
    ]:
        with pytest.raises(ValueError, match=message):
            method(net, x, 1, layer=layer)


@every_layered
def test_layer_that_gives_several_tensors(method, x):
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    class First(nn.Module):
        def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
            return pair[0]

    model = nn.Sequential(Pair(), First(), Net())
    with pytest.raises(ValueError, match="layer '0' returns a tuple, not one tensor"):
        method(model, x, 1, layer="0")


@pytest.mark.parametrize("method", [grad_cam, guided_grad_cam])
def test_layer_without_places(method, net, x):
    with pytest.raises(ValueError, match=r"needs feature maps of shape N×K×h×w, got \(2, 5\)"):
        method(net, x, 1, layer="head")


def test_layer_that_is_an_empty_sequential(net, x):
    """Its truth value is False, and it is a layer all the same."""
    assert not torch.equal(grad_cam(net, x, 1, layer=net.shortcut), grad_cam(net, x, 1))
    assert torch.equal(grad_cam(net, x, 1, layer=net.shortcut), grad_cam(net, x, 1, layer="drop"))


def test_a_shared_module_is_found_by_each_of_its_names(net, x):
    assert find_layer(net, "conv2") == ("conv2", net.conv2)
    assert find_layer(net, "stage.0") == ("stage.0", net.conv2)
    assert find_layer(net, net.conv2) == ("conv2", net.conv2)
    expected = grad_cam(net, x, 1, layer=net.conv2)
    for layer in ("conv2", "stage.0"):
        assert torch.equal(grad_cam(net, x, 1, layer=layer), expected)


# ------------------------------------------------------------ the parts


def test_record_keeps_what_an_in_place_relu_overwrites(x):
    conv = nn.Conv2d(3, 4, 3)
    model = nn.Sequential(conv, nn.ReLU(inplace=True))
    with record(model, ["0", model[1]]) as outputs:
        result = model(x)
    assert torch.equal(outputs["0"], conv(x))
    assert outputs["0"].min() < 0
    assert torch.equal(outputs["1"], result)
    assert torch.equal(result, conv(x).relu())


def test_record_of_a_layer_that_is_called_twice_keeps_the_last(x):
    conv = nn.Conv2d(3, 3, 1)
    with record(model := nn.Sequential(conv, conv), ["0"]) as outputs:
        model(x)
    assert torch.equal(outputs["0"], conv(conv(x)))


def test_frozen(net, x):
    with torch.no_grad(), frozen(net) as same:
        assert same is net
        assert torch.is_grad_enabled()
        assert not any(module.training for module in net.modules())
        assert not any(parameter.requires_grad for parameter in net.parameters())
    assert net.training and net.conv2.weight.requires_grad and not net.conv1.weight.requires_grad


def test_rules_are_looked_up_when_the_backward_pass_runs():
    rules = BackwardRules("activation")
    z = torch.tensor([-1.0, 2.0], requires_grad=True)
    with rules:
        y = (z.relu() * torch.tensor([3.0, -5.0])).sum()
    seen = []
    for rule in (
        lambda operation, signal: (signal.clamp(min=0),),
        lambda operation, signal: (10 * signal,),
        lambda operation, signal: operation.vjp(signal),
        lambda operation, signal: (operation.output,),
    ):
        rules.rules = {"activation": rule}
        seen.append(torch.autograd.grad(y, z, retain_graph=True)[0].tolist())
    assert seen == [[3, 0], [30, -50], [0, -5], [0, 2]]
    assert rules.count == 1


def test_rules_act_only_inside_the_block():
    rules = BackwardRules("activation")
    rules.rules = {"activation": lambda operation, signal: (100 * signal,)}
    z = torch.tensor([2.0], requires_grad=True)
    with rules, torch.no_grad():
        z.relu()
    torch.relu(z).backward()
    assert rules.count == 0
    assert z.grad == 1


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "googlenet"])
def test_explain_equals_the_functions(untrained, name):
    """One forward pass for all of `methods.SHARED_PASS` changes no bit of any of them."""
    model = untrained(name)
    image = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    layer = last_conv_stage(model, image)
    maps, logits, _ = benchmark.explain(model, image, [3, 7], layer=layer)
    assert torch.equal(logits, model(image))
    assert tuple(maps) == methods.SHARED_PASS
    for method, seen in maps.items():
        expected = METHODS[method](model, image, [3, 7])
        if expected.shape[-2:] != (96, 96):
            expected = nn.functional.interpolate(
                expected, size=(96, 96), mode="bilinear", align_corners=False
            )
        assert torch.equal(seen, expected), method


@pytest.mark.parametrize(
    "chosen",
    [
        *itertools.permutations(methods.SHARED_PASS, 1),
        *itertools.combinations(methods.SHARED_PASS, 2),
    ],
    ids=" ".join,
)
def test_explain_with_some_methods(chosen, net, x):
    everything, *_ = benchmark.explain(net, x, [1, 4], layer="stage")
    some, *_ = benchmark.explain(net, x, [1, 4], chosen, layer="stage")
    assert list(some) == list(chosen)
    assert all(torch.equal(some[method], everything[method]) for method in chosen)


def test_target_as_a_function_of_the_logits(net, x):
    with one_forward(net, x, lambda logits: logits.argmax(dim=1)) as forward:
        assert torch.equal(forward.y, forward.logits.amax(dim=1))


# ------------------------------------------------------------ input


@every_method
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[0], r"shape N×C×H×W .*got torch.float32 of shape \(3, 12, 12\)"),
        (lambda x: (255 * x).to(torch.uint8), r"float tensor .*got torch.uint8 of shape"),
        (lambda x: x[:0], r"got torch.float32 of shape \(0, 3, 12, 12\)"),
        (lambda x: x.numpy(), r"got ndarray"),
        (
            lambda x: x.index_fill(0, torch.tensor(1), torch.nan),
            r"NaN or infinite values in image 1",
        ),
        (
            lambda x: x.index_fill(3, torch.tensor(5), torch.inf),
            r"NaN or infinite values in image 0",
        ),
    ],
    ids=["3-D", "integer", "empty", "array", "NaN", "infinite"],
)
def test_bad_images(method, spoil, message, net, x):
    with pytest.raises(ValueError, match=message):
        method(net, spoil(x), 1)


@every_method
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (5, r"target 5 does not exist: the model has 5 classes, 0 to 4"),
        (-1, r"target -1 does not exist"),
        ([0, 99], r"target 99 does not exist"),
        (1.0, r"must be a class index or 2 of them, got 1.0"),
        ([1, 2.5], r"must be a class index"),
        (True, r"must be a class index"),
        ("zebra", r"must be a class index or 2 of them, got 'zebra'"),
        (None, r"must be a class index"),
        ([1], r"2 images need one target or 2, got shape \(1,\)"),
        ([1, 2, 3], r"2 images need one target or 2, got shape \(3,\)"),
        ([[1, 2]], r"2 images need one target or 2, got shape \(1, 2\)"),
    ],
    ids=str,
)
def test_bad_targets(method, target, message, net, x):
    with pytest.raises(ValueError, match=message):
        method(net, x, target)


@every_method
@pytest.mark.parametrize(
    "target",
    [
        (1, 4),
        torch.tensor([1, 4]),
        torch.tensor([1, 4], dtype=torch.int32),
        torch.tensor([1, 4], dtype=torch.uint8),  # as an index, PyTorch takes it for a mask
        np.array([1, 4]),
    ],
    ids=lambda target: str(getattr(target, "dtype", type(target).__name__)),
)
def test_kinds_of_targets(method, target, net, x):
    assert torch.equal(method(net, x, target), method(net, x, [1, 4]))


@every_method
@pytest.mark.parametrize("target", [np.int64(4), torch.tensor(4), torch.tensor(4).byte()], ids=repr)
def test_one_target_for_all_images(method, target, net, x):
    assert torch.equal(method(net, x, target), method(net, x, [4, 4]))
    assert torch.equal(method(net, x, 4), method(net, x, [4, 4]))


@every_method
@pytest.mark.parametrize(
    ("output", "seen"),
    [
        (lambda maps: maps, r"\([12], 8, 12, 12\)"),
        (lambda maps: maps.mean(dim=(1, 2, 3)), r"\([12],\)"),
        (lambda maps: {"out": maps}, r"a dict"),
    ],
    ids=["maps", "numbers", "dict"],
)
def test_models_that_do_not_classify(method, output, seen, x):
    class Other(Net):
        def forward(self, x: Tensor) -> Any:
            return output(self.stage(self.conv1(x)))

    with pytest.raises(ValueError, match=rf"expected logits of shape N×classes, got {seen}"):
        method(Other(), x, 0)


@every_method
def test_a_batch_equals_its_images_one_by_one(method, net, x):
    together = method(net, x, [1, 4])
    singles = torch.cat([method(net, x[:1], 1), method(net, x[1:], 4)])
    assert (together - singles).abs().max() <= 1e-6 * singles.abs().max()


@every_method
def test_dtype_is_kept(method, net, x):
    single = method(net, x, 1)
    double = method(net.double(), x.double(), 1)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert (single - double).abs().max() <= 1e-5 * double.abs().max()


@every_method
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_device_is_kept(method, net, x):
    expected = method(net.eval(), x, [1, 4])
    seen = method(net.cuda(), x.cuda(), [1, 4])
    assert seen.device.type == "cuda"
    assert (seen.cpu() - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_score():
    logits = torch.arange(6.0).view(2, 3)
    assert score(logits, 1).tolist() == [1, 4]
    assert score(logits, [2, 0]).tolist() == [2, 3]


def test_examples_in_the_docstrings():
    result = doctest.testmod(core)
    assert result.attempted > 0 and result.failed == 0
