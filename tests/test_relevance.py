"""Relevance: Taylor, FullGrad and LRP against zennit, Captum, grad-cam, and equations as loops.

LRP's rules are judged twice. By zennit, net by net and composite by composite. And by the formulas
written with a full matrix W of each layer (`MATRIX_RULES`), so that zennit is judged too.
"""

import copy
import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
import zennit.composites
import zennit.core
import zennit.rules
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vgg import make_layers
from zennit.attribution import Gradient
from zennit.canonizers import NamedMergeBatchNorm, SequentialMergeBatchNorm
from zennit.core import Stabilizer
from zennit.torchvision import ResNetCanonizer
from zennit.types import Linear

from vislib import nets
from vislib.core import FAMILIES, BackwardRules, frozen, one_forward
from vislib.explain.fullgrad import fullgrad, fullgrad_parts
from vislib.explain.gradients import gradient, gradient_x_input, sensitivity
from vislib.explain.lrp import lrp, relevance_by_layer, rules
from vislib.explain.lrp.composites import COMPOSITES, Composite, find_composite, uniform
from vislib.explain.lrp.rules import (
    alpha_beta_rule,
    epsilon_rule,
    flat_rule,
    gamma_rule,
    pass_rule,
    w_square_rule,
    z_box_rule,
    z_plus_rule,
    zero_rule,
)
from vislib.explain.taylor import root_point, simple_taylor
from vislib.maps import upsample

NETS = ["alexnet", "vgg11", "squeezenet1_1", "resnet18", "googlenet", "densenet121"]
TARGETS = [3, 7]


def _name(value: object) -> str:
    """A test's id without memory addresses, which differ from one worker to the next."""
    if isinstance(value, zennit.core.Hook):
        return type(value).__name__
    return getattr(value, "__name__", str(value))


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def for_net(net: str, x: Tensor) -> Tensor:
    """Images nearly as small as the net takes, for speed."""
    if net == "inception_v3":
        return upsample(x, (80, 80))
    size = {"alexnet": 64, "squeezenet1_1": 48}.get(net, 32)
    return x[..., :size, :size]


def narrow_alexnet() -> nn.Module:
    """torchvision's AlexNet with small dense layers, for speed: its own are never made."""
    torch.manual_seed(0)
    with torch.device("meta"):
        features = torchvision.models.alexnet().features
    features.to_empty(device="cpu")
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    dense = [nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(True), nn.Linear(32, 10)]
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(), *dense)


def narrow_vgg11() -> nn.Module:
    """torchvision's VGG-11 with a quarter of the channels and small dense layers, for speed."""
    torch.manual_seed(0)
    plan = [16, "M", 32, "M", 64, 64, "M", 128, 128, "M", 128, 128, "M"]
    dense = [nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(True), nn.Linear(32, 10)]
    features = make_layers(plan, batch_norm=False)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(), *dense)


class NarrowResNet18(ResNet):
    """torchvision's ResNet-18 with a quarter of the channels, for speed.

    Its batch norms know the mean and variance of some random images, as in `conftest.build`.
    """

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(BasicBlock, [2, 2, 2, 2])
        self.fc = nn.Linear(128, 10)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            self(torch.rand(4, 3, 64, 64))
        self.eval()

    def _make_layer(self, block, planes, *args, **options):  # type: ignore[no-untyped-def]
        return super()._make_layer(block, planes // 4, *args, **options)


NARROW: dict[str, Callable[[], nn.Module]] = {
    "alexnet": narrow_alexnet,
    "vgg11": narrow_vgg11,
    "resnet18": NarrowResNet18,
}


@pytest.fixture(scope="module")
def double(untrained) -> Callable[[str], nn.Module]:
    """Nets in float64: peers add in another order, and LRP divides by small numbers.

    AlexNet gets narrow dense layers, for speed, VGG and ResNet narrow layers of all kinds. Batch
    norms have their ε in the variance: zennit's merging into convolutions leaves it behind.
    """

    @functools.cache
    def build(name: str) -> nn.Module:
        model = NARROW[name]() if name in NARROW else copy.deepcopy(untrained(name))
        model = model.double().eval()
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_var += norm.eps
                norm.eps = 0.0
        return model

    return build


@pytest.fixture(scope="module")
def single(double) -> Callable[[str], nn.Module]:
    """The same nets in float32."""
    return functools.cache(lambda name: copy.deepcopy(double(name)).float())


def relative_error(seen: Tensor, expected: Tensor) -> float:
    assert seen.shape == expected.shape
    assert expected.abs().max() > 0, "a map of zeros would agree with anything"
    return float((seen - expected).abs().max() / expected.abs().max())


def sums(relevance: Tensor) -> Tensor:
    return relevance.flatten(1).sum(dim=1)


class Mixed(nn.Module):
    """Everything that LRP meets: BatchNorm merged and alone, a residual sum, overlapping pools."""

    def __init__(self, relu: Callable[[Tensor], Tensor] = F.relu, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=bias)
        self.bn1 = nn.BatchNorm2d(6)
        self.bn2 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, bias=bias)
        self.fc1 = nn.Linear(6 * 4 * 4, 10, bias=bias)
        self.fc2 = nn.Linear(10, 5, bias=bias)
        self.relu = relu
        for norm in (self.bn1, self.bn2):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.conv2(self.relu(self.bn2(x))) + x
        x = F.dropout(self.relu(x), 0.5, self.training)
        x = F.avg_pool2d(x, 2, ceil_mode=True)[:, :, :4, :4]
        return self.fc2(self.relu(self.fc1(x.flatten(1))))


@pytest.fixture(scope="module")
def small_x() -> Tensor:
    return torch.rand(2, 3, 18, 18, dtype=torch.double, generator=torch.Generator().manual_seed(1))


# ------------------------------------------------------------ sensitivity, gradient × input


def test_sensitivity_sums_to_the_squared_norm_of_the_gradient(double, x):
    model = double("squeezenet1_1")
    image = x.clone().requires_grad_()
    model(image)[range(2), TARGETS].sum().backward()
    seen = sensitivity(model, x, TARGETS)
    assert torch.allclose(sums(seen), image.grad.flatten(1).norm(dim=1) ** 2, rtol=1e-12)
    assert torch.allclose(seen, image.grad**2, rtol=1e-12)


@pytest.mark.parametrize("net", ["alexnet", "resnet18"])
def test_gradient_x_input_equals_captum(double, x, net):
    model = double(net)
    expected = captum.attr.InputXGradient(model).attribute(x.clone().requires_grad_(), TARGETS)
    assert relative_error(gradient_x_input(model, x, TARGETS), expected.detach()) <= 1e-12


# ------------------------------------------------------------ simple Taylor decomposition


def linear_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 18 * 18, 5)).double()


def test_simple_taylor_of_a_linear_net(small_x):
    """The root is the foot of the perpendicular, and the sum is the score, bias and all."""
    model = linear_net()
    w, b = model[1].weight[2].detach(), model[1].bias[2].detach()
    flat = small_x.flatten(1)
    f = flat @ w + b
    foot = (flat - (f / w.square().sum())[:, None] * w).view_as(small_x)
    root = root_point(model, small_x, 2)
    assert torch.allclose(root, foot, atol=1e-12)
    seen = simple_taylor(model, small_x, 2)
    assert torch.allclose(sums(seen), f, rtol=1e-9)
    assert torch.allclose(seen, w.view(1, 3, 18, 18) * (small_x - foot), atol=1e-12)


@pytest.mark.parametrize("net", ["pocket_vgg", "pocket_resnet"])
def test_root_points_of_a_trained_net(net):
    """For scores of both signs."""
    model = nets.load(net)
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    logits = model(image).detach()
    target = [int(logits[0].argmax()), int(logits[1].argmin())]
    y = logits[range(2), target]
    assert y[0] > 0 > y[1]
    root = root_point(model, image, target)
    with one_forward(model, root, target) as forward:
        assert (forward.y.abs() <= 1e-4 * y.abs()).all()
    assert ((root - image).flatten(1).norm(dim=1) <= 0.1 * image.flatten(1).norm(dim=1)).all()
    seen = simple_taylor(model, image, target)
    assert torch.equal(seen, simple_taylor(model, image, target, root))
    assert (sums(seen) * y > 0).all()


def test_simple_taylor_at_a_root_of_ones_own(small_x):
    model = Mixed()
    root = torch.full_like(small_x[:1], 0.5)
    seen = simple_taylor(model, small_x, 1, root)
    slope = gradient(model, root, 1)
    assert torch.allclose(seen, slope * (small_x - root), atol=1e-15)


def test_root_points_stay_in_the_box(small_x):
    root = root_point(linear_net(), small_x, 2, box=(0.0, 1.0))
    assert root.min() >= 0 and root.max() <= 1


def test_no_root_point(small_x):
    """``relu(z) + 1`` has none."""
    model = linear_net()
    above = nn.Sequential(model, nn.ReLU())
    above.forward = lambda x: model(x).relu() + 1
    with pytest.raises(ValueError, match=r"no root point found for image 0, 1 of the .* root="):
        simple_taylor(above, small_x, 2)


# ------------------------------------------------------------ FullGrad


@pytest.mark.parametrize(
    "net", [*NETS, "mobilenet_v2", "mobilenet_v3_small", "inception_v3", "efficientnet_b0"]
)
def test_fullgrad_is_complete(double, x, net):
    model, x = double(net), for_net(net, x)
    parts = fullgrad_parts(model, x, lambda logits: logits.argmax(1))
    assert torch.equal(parts.score, model(x).amax(1).detach())
    error = (parts.total() - parts.score).abs() / parts.score.abs()
    assert error.max() <= (1e-13 if net == "inception_v3" else 3e-14)  # Σ|parts| is 30 000 |f|
    assert (sums(parts.input) - parts.score).abs().min() > 1e-3 * parts.score.abs().min() or (
        net == "squeezenet1_1"  # its biases are 0
    )


@pytest.mark.parametrize("net", nets.POCKET_NETS)
def test_fullgrad_is_complete_on_the_course_nets(net):
    model = nets.load(net).double()
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    parts = fullgrad_parts(model, image, [3, 7])
    assert ((parts.total() - parts.score).abs() / parts.score.abs()).max() <= 3e-13
    assert next(iter(parts.biases)) == "normalize"
    assert parts.biases["normalize"].shape == image.shape


def test_bias_gradients_are_those_of_autograd(double, x):
    """Summed over the places, each channel's is ``b ∂f/∂b``, in vgg11 for every bias there is."""
    model = double("vgg11")
    parts = fullgrad_parts(model, x[:1], 3)
    biases = {name[:-5]: p for name, p in model.named_parameters() if name.endswith(".bias")}
    assert list(parts.biases) == list(biases)
    slopes = torch.autograd.grad(model(x[:1])[0, 3], list(biases.values()))
    for (name, bias), slope in zip(biases.items(), slopes, strict=True):
        part = parts.biases[name][0]
        seen = part.sum((1, 2)) if part.ndim == 3 else part
        assert torch.allclose(seen, (bias * slope).detach(), rtol=1e-9, atol=1e-18), name


def test_bias_gradients_of_batch_norms_hold_the_whole_shift(double, x):
    model = double("resnet18")
    parts = fullgrad_parts(model, x[:1], 3)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert set(parts.biases) == {*norms, "fc"}
    slopes = torch.autograd.grad(model(x[:1])[0, 3], [m.bias for m in norms.values()])
    for (name, norm), slope in zip(norms.items(), slopes, strict=True):
        shift = norm.bias - norm.weight * norm.running_mean / (norm.running_var + norm.eps).sqrt()
        seen = parts.biases[name][0].sum((1, 2))
        assert torch.allclose(seen, (shift * slope).detach(), rtol=1e-9, atol=1e-15), name


@pytest.mark.parametrize("name", sorted(FAMILIES["activation"]))
def test_fullgrad_of_other_activations_has_implicit_biases(name, small_x):
    weight = torch.tensor([0.25], dtype=torch.double)
    activation = partial(F.prelu, weight=weight) if name == "prelu" else getattr(F, name)
    model = Mixed(activation)
    parts = fullgrad_parts(model, small_x, [1, 3])
    assert (parts.total() - parts.score).abs().max() <= 1e-12
    homogeneous = name in ("relu", "leaky_relu", "prelu", "rrelu")
    assert any(key.startswith(name) for key in parts.biases) == (not homogeneous)


@pytest.mark.parametrize(("rescale", "dims"), [("map", (1, 2)), ("layer", (0, 1, 2))])
def test_fullgrad_as_loops(double, x, rescale, dims):
    parts = fullgrad_parts(model := double("resnet18"), x, TARGETS)
    expected = torch.zeros(2, 1, 64, 64, dtype=torch.double)
    for part in parts.parts():
        for n in range(2 if part.ndim == 4 else 0):
            maps = part[n].abs().numpy()
            low = maps.min(axis=dims, keepdims=True)
            span = (maps - low).max(axis=dims, keepdims=True)
            maps = np.divide(maps - low, span, out=np.zeros_like(maps), where=span > 0)
            big = F.interpolate(torch.from_numpy(maps)[None], size=(64, 64), mode="bilinear")
            expected[n, 0] += big.sum((0, 1))
    assert relative_error(fullgrad(model, x, TARGETS, rescale=rescale), expected) <= 1e-9


@pytest.mark.parametrize("net", ["resnet18", "googlenet"])
def test_fullgrad_equals_grad_cam_library(single, x, net):
    """Its picture is scaled to [0, 1], and its rescaling adds 1e-7 to the denominators."""
    from pytorch_grad_cam import FullGrad
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, image = single(net), x[:1].float()
    peer = FullGrad(model, [])(image.clone(), [ClassifierOutputTarget(3)])[0]
    seen = fullgrad(model, image, 3)[0, 0]
    seen = (seen - seen.min()) / (seen.max() - seen.min())
    assert np.corrcoef(peer.ravel(), seen.numpy().ravel())[0, 1] > 0.99999
    assert np.abs(peer - seen.numpy()).max() <= 0.02


def test_fullgrad_errors(double, small_x):
    with pytest.raises(ValueError, match="rescale must be 'map' or 'layer', got 'image'"):
        fullgrad(Mixed(), small_x, 1, rescale="image")
    with pytest.raises(ValueError, match=r"FullGrad has no rule for softmax, which this"):
        fullgrad(Mixed(partial(F.softmax, dim=1)), small_x, 1)


# ------------------------------------------------------------ LRP's rules as matrix algebra


def plus(v: Tensor) -> Tensor:
    return v.clamp(min=0)


def minus(v: Tensor) -> Tensor:
    return v.clamp(max=0)


def by_matrix(W: Tensor, x: Tensor, R: Tensor, q: Tensor, rest: Tensor | float = 0.0) -> Tensor:
    """``R_i = Σ_j q_ij / (Σ_i q_ij + rest_j + ε sign) R_j`` for one image, q outputs × inputs."""
    z = q.sum(1) + rest
    z = z + 1e-6 * torch.where(z < 0, -1.0, 1.0)
    return (q / z[:, None] * R[:, None]).sum(0)


def matrix_gamma(W: Tensor, b: Tensor, x: Tensor, R: Tensor, g: float) -> Tensor:
    """Each contribution ``c_ij = x_i w_ij`` of the sign of ``z_j`` counts 1 + γ times."""
    c, z = W * x, W @ x + b
    up = by_matrix(W, x, R * (z > 0), c + g * plus(c), b + g * plus(b))
    down = by_matrix(W, x, R * (z < 0), c + g * minus(c), b + g * minus(b))
    return up + down


def matrix_alpha_beta(W: Tensor, b: Tensor, x: Tensor, R: Tensor, alpha: float) -> Tensor:
    c = W * x
    return alpha * by_matrix(W, x, R, plus(c), plus(b)) - (alpha - 1) * by_matrix(
        W, x, R, minus(c), minus(b)
    )


MATRIX_RULES: dict[str, tuple[rules.Any, Callable[..., Tensor]]] = {
    "zero": (zero_rule, lambda W, b, x, R: (W * x / (W @ x + b)[:, None] * R[:, None]).sum(0)),
    "epsilon": (epsilon_rule, lambda W, b, x, R: by_matrix(W, x, R, W * x, b)),
    "epsilon 0.3": (
        partial(epsilon_rule, epsilon=0.3),
        lambda W, b, x, R: W.T @ (R / ((W @ x + b) + 0.3 * torch.sign(W @ x + b))) * x,
    ),
    "gamma": (gamma_rule, partial(matrix_gamma, g=0.25)),
    "gamma 10": (partial(gamma_rule, gamma=10), partial(matrix_gamma, g=10)),
    "z_plus": (z_plus_rule, partial(matrix_alpha_beta, alpha=1)),
    "alpha2_beta1": (alpha_beta_rule, partial(matrix_alpha_beta, alpha=2)),
    "alpha 3": (partial(alpha_beta_rule, alpha=3, beta=2), partial(matrix_alpha_beta, alpha=3)),
    "z_box": (
        partial(z_box_rule, low=-3.0, high=4.0),
        lambda W, b, x, R: by_matrix(W, x, R, W * x + 3 * plus(W) - 4 * minus(W)),
    ),
    "w_square": (w_square_rule, lambda W, b, x, R: by_matrix(W, x, R, W**2)),
    "flat": (flat_rule, lambda W, b, x, R: by_matrix(W, x, R, (W != 0).double())),
}

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(7, 5), (7,)),
    "no bias": (nn.Linear(7, 5, bias=False), (7,)),
    "conv2d": (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 5, 5)),
    "conv2d dilated": (nn.Conv2d(2, 3, 2, dilation=2, padding="same"), (2, 4, 4)),
    "conv1d": (nn.Conv1d(2, 3, 3), (2, 6)),
    "conv_transpose2d": (nn.ConvTranspose2d(2, 3, 2, stride=2), (2, 3, 3)),
}


def relevance_of_one_operation(
    layer: Callable[[Tensor], Tensor], rule: rules.Any, x: Tensor, R: Tensor
) -> Tensor:
    rules = BackwardRules(*FAMILIES)
    x = x.clone().requires_grad_()
    with rules:
        z = layer(x)
    rules.rules = dict.fromkeys(FAMILIES, rule)
    return torch.autograd.grad(z, x, R)[0]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", MATRIX_RULES)
def test_rule_equals_its_formula(kind, name):
    """On inputs, weights, biases and relevances of both signs, with the layer as a full matrix."""
    rule, formula = MATRIX_RULES[name]
    layer, shape = LAYERS[kind]
    torch.manual_seed(0)
    layer = layer.double()
    x = torch.randn(3, *shape, dtype=torch.double).clamp(-3, 4)  # zB has a box
    with frozen(layer):
        z = layer(x)
        R = torch.randn_like(z)
        jacobian = torch.autograd.functional.jacobian(layer, x[:1])
        W = jacobian.reshape(z[0].numel(), x[0].numel())
        b = layer(torch.zeros_like(x[:1])).flatten()
        seen = relevance_of_one_operation(layer, rule, x, R)
    for n in range(3):
        expected = formula(W, b, x[n].flatten(), R[n].flatten()).view(shape)
        assert torch.allclose(seen[n], expected, rtol=1e-9, atol=1e-12)


def test_relative_epsilon():
    torch.manual_seed(0)
    layer, x, R = nn.Linear(7, 5).double(), torch.randn(2, 7).double(), torch.randn(2, 5).double()
    with frozen(layer):
        rule = partial(epsilon_rule, epsilon=0.25, relative=True)
        seen = relevance_of_one_operation(layer, rule, x, R)
        z = layer(x)
        scale = (z**2).mean(dim=1, keepdim=True) ** 0.5
        expected = x * ((R / (z + 0.25 * scale * z.sign())) @ layer.weight)
    assert torch.allclose(seen, expected, rtol=1e-10)


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.linear by keyword": lambda x: F.linear(x, bias=B, weight=W),
    "addmm": lambda x: torch.addmm(B, x, W.T),
    "addmm by keyword": lambda x: torch.addmm(input=B, mat1=x, mat2=W.T),
    "x @ w + b": lambda x: x @ W.T + B,
    "matmul": lambda x: torch.matmul(x, W.T).add_(B),
    "mm": lambda x: x.mm(W.T) + B,
}
W = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).double()
B = torch.zeros(5).double()


@pytest.mark.parametrize("form", OPERATIONS)
@pytest.mark.parametrize("name", MATRIX_RULES)
def test_every_form_of_a_dense_layer(form, name):
    rule, formula = MATRIX_RULES[name]
    torch.manual_seed(1)
    x, R = torch.randn(1, 7).double(), torch.randn(1, 5).double()
    answer = {"sum": pass_rule}

    rules = BackwardRules("dense", "sum")
    leaf = x.clone().requires_grad_()
    with rules:
        z = OPERATIONS[form](leaf)
    rules.rules = {"dense": rule} | answer
    (seen,) = torch.autograd.grad(z, leaf, R)
    assert torch.allclose(seen[0], formula(W, B, x[0], R[0]), rtol=1e-9, atol=1e-12)


SUMS: dict[str, tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, Tensor]]]] = {
    "a + b": (lambda a, b: a + b, lambda a, b: (a, b)),
    "torch.add": (lambda a, b: torch.add(input=a, other=b, alpha=3), lambda a, b: (a, 3 * b)),
    "a += b": (lambda a, b: (a * 1).__iadd__(b), lambda a, b: (a, b)),
    "add_": (lambda a, b: (a * 1).add_(b), lambda a, b: (a, b)),
    "a - b": (lambda a, b: a - b, lambda a, b: (a, -b)),
    "builtin": (lambda a, b: sum([a, b]), lambda a, b: (a, b)),
    "into zeros": (lambda a, b: torch.zeros_like(a).add_(a).add_(b), lambda a, b: (a, b)),
    "stack": (lambda a, b: torch.stack([a, b]).sum(0), lambda a, b: (a, b)),
    "a + a + b": (lambda a, b: a + a + b, lambda a, b: (2 * a, b)),
    "mean": (lambda a, b: torch.stack([a, b]).mean(0), lambda a, b: (a / 2, b / 2)),
}


@pytest.mark.parametrize("form", SUMS)
def test_sums_share_by_their_summands(form):
    run, summands = SUMS[form]
    torch.manual_seed(0)
    a, b, R = (torch.randn(2, 3, dtype=torch.double) for _ in range(3))
    rules = BackwardRules("sum", "average", "scale")
    leaves = [a.clone().requires_grad_(), b.clone().requires_grad_()]
    with rules:
        z = run(*leaves)
    rules.rules = {"sum": zero_rule, "average": zero_rule, "scale": pass_rule}
    seen = torch.autograd.grad(z, leaves, R)
    assert torch.equal(z, run(a, b))
    for r, share in zip(seen, summands(a, b), strict=True):
        assert torch.allclose(r, share / sum(summands(a, b)) * R, rtol=1e-12)


def test_average_pooling_shares_by_the_inputs_and_max_pooling_gives_all_to_the_winner():
    """Also where windows overlap: what a place wins from several windows adds up."""
    torch.manual_seed(0)
    image, R = torch.randn(1, 1, 7, 7).double(), torch.randn(1, 1, 3, 3).double()
    average, winner = torch.zeros(7, 7).double(), torch.zeros(7, 7).double()
    for i in range(3):
        for j in range(3):
            window = image[0, 0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            r = R[0, 0, i, j]
            average[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += window / window.sum() * r
            k = int(window.argmax())
            winner[2 * i + k // 3, 2 * j + k % 3] += r
    seen = relevance_of_one_operation(nn.AvgPool2d(3, 2), zero_rule, image, R)
    assert torch.allclose(seen[0, 0], average, rtol=1e-10)
    seen = relevance_of_one_operation(nn.MaxPool2d(3, 2), pass_rule, image, R)
    assert torch.equal(seen[0, 0], winner)


# ------------------------------------------------------------ LRP on nets, against zennit

LOW, HIGH = torch.zeros(1, 3, 1, 1).double(), torch.ones(1, 3, 1, 1).double()


def of_layers(hook: zennit.rules.Hook) -> zennit.composites.LayerMapComposite:
    """zennit's composite with one rule for all layers, as its own composites treat the rest."""
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
    """zennit's own would merge each norm1 into the convolution before it in the list of modules."""
    names = dict(model.named_modules())
    pairs = [([n.replace("norm2", "conv1")], n) for n in names if n.endswith("norm2")]
    return NamedMergeBatchNorm([(["features.conv0"], "features.norm0"), *pairs])


CANONIZERS = {
    "resnet18": lambda model: ResNetCanonizer(),
    "googlenet": lambda model: SequentialMergeBatchNorm(),
    "densenet121": dense_canonizer,
}


# The big nets get each kind of rule once. Not w² and flat in all layers, where zennit does not see
# functional ReLUs, and not ε in DenseNet, where zennit passes relevance through lone BatchNorms.
EACH_KIND = ("epsilon", "epsilon_alpha2_beta1_flat", "epsilon_gamma_box")
SURGERY = [
    *(("resnet18", rule) for rule in ZENNIT),
    *(("googlenet", rule) for rule in EACH_KIND),
    *(("densenet121", rule) for rule in EACH_KIND[1:]),
]


@pytest.mark.parametrize(("net", "rule"), SURGERY)
def test_lrp_equals_zennit_where_that_needs_surgery(double, x, net, rule):
    """zennit merges BatchNorms and replaces forward functions, and here nothing was done."""
    model, x = double(net), for_net(net, x)  # DenseNet's last pool is then of 1×1 maps,
    tolerance = 1e-5 if net == "densenet121" else 1e-7  # where the stabiliser is only ours
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
    ids=_name,
)
def test_options_equal_zennits(double, x, rule, options, hook):
    model = double("alexnet")
    expected = by_zennit(model, x, TARGETS, of_layers(hook)())
    assert relative_error(lrp(model, x, TARGETS, rule=rule, **options), expected) <= 1e-8


def test_without_biases_equals_zennit(double, x):
    model = double("alexnet")
    composite = zennit.composites.EpsilonPlus(zero_params="bias")
    seen = lrp(model, x, TARGETS, rule=Composite(epsilon_rule, z_plus_rule, bias=False))
    assert relative_error(seen, by_zennit(model, x, TARGETS, composite)) <= 1e-8


def test_box_in_pixels_is_zennits_box_of_normalised_pixels(double, x):
    """The Normalize layer in front belongs to the first layer."""
    model = double("alexnet")
    normalize = nets.Normalize().double()
    low, high = normalize(LOW), normalize(HIGH)
    composite = zennit.composites.EpsilonGammaBox(low=low, high=high)
    expected = by_zennit(model, normalize(x), TARGETS, composite)
    whole = nn.Sequential(normalize, model)
    for box in ({}, {"low": LOW[0], "high": HIGH[0]}, {"low": 0, "high": 1}):
        seen = lrp(whole, x, TARGETS, rule="epsilon_gamma_box", **box)
        assert relative_error(seen, expected) <= 1e-8


@pytest.mark.parametrize("net", ["alexnet", "vgg11"])
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_lrp_epsilon_equals_captum(double, x, net):
    """With ε next to nothing: Captum has it in max pools too, and so takes from them."""
    model = copy.deepcopy(double(net))
    for module in model.modules():
        module.rule = EpsilonRule(1e-30)
    peer = captum.attr.LRP(model).attribute(x[:1].clone(), target=3).detach()
    assert relative_error(lrp(double(net), x[:1], 3, rule="zero"), peer) <= 1e-8


# ------------------------------------------------------------ identities


@pytest.mark.parametrize("net", [*NETS, "inception_v3"])
def test_lrp_0_is_gradient_x_input(double, x, net):
    model, x = double(net), for_net(net, x)
    seen = lrp(model, x, TARGETS, rule="zero")
    assert relative_error(seen, gradient_x_input(model, x, TARGETS)) <= 5e-10


@pytest.mark.parametrize("net", nets.POCKET_NETS)
def test_lrp_0_is_gradient_x_input_on_the_course_nets(net):
    """In pixels, with the net's Normalize in front and in float32."""
    model = nets.load(net)
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = lrp(model, image, [3, 7], rule="zero")
    assert relative_error(seen, gradient_x_input(model, image, [3, 7])) <= 1e-3
    seen = lrp(model.double(), image.double(), [3, 7], rule="zero")
    assert relative_error(seen, gradient_x_input(model, image.double(), [3, 7])) <= 1e-9


@pytest.mark.parametrize("net", ["pocket_vgg", "pocket_alexnet", "pocket_squeezenet"])
def test_relevance_is_conserved_without_biases_in_the_denominators(net):
    model = nets.load(net).double()
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    y = model(image)[range(2), TARGETS].detach()
    composite = Composite(epsilon_rule, z_plus_rule, z_box_rule, bias=False)
    assert torch.allclose(sums(lrp(model, image, TARGETS, rule=composite)), y, rtol=1e-3)
    with_biases = sums(lrp(model, image, TARGETS, rule="epsilon_plus"))
    assert ((with_biases - y).abs() > 1e-2 * y.abs()).all()


@pytest.mark.parametrize("rule", COMPOSITES)
def test_relevance_is_conserved_where_there_are_no_biases(rule):
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
    seen = lrp(model, image, [1, 4], rule=rule, **options)
    y = model(image)[range(2), [1, 4]].detach()
    loss = (sums(seen) - y).abs() / y.abs()
    assert loss.max() <= 1e-3
    assert seen.abs().max() > 0


SMALL_NETS, BIG_NETS = NETS[:4], (*NETS[4:], "mobilenet_v2")
PAIRS = [
    *((net, rule) for net in SMALL_NETS for rule in COMPOSITES),
    *((net, rule) for net in BIG_NETS for rule in ("z_plus", "alpha_beta", "by_depth")),
]


@pytest.mark.parametrize(("net", "rule"), PAIRS)
def test_every_composite_on_every_net(single, x, net, rule):
    """Finite, and what the list of layers says is what the pixels get."""
    model, image = single(net), for_net(net, x)[:1].float()
    target = int(model(image).argmax())
    y = model(image)[0, target].detach()
    seen = lrp(model, image, target, rule=rule)
    layers = relevance_by_layer(model, image, target, rule=rule)
    assert seen.isfinite().all() and seen.abs().max() > 0
    assert torch.allclose(layers[0].above, y)
    scale = seen.abs().sum()
    assert (layers[-1].left - sums(seen)).abs() <= 1e-4 * max(scale, y.abs())
    left = y
    for layer in layers:
        left = left + layer.below - layer.above
        assert torch.allclose(layer.left, left, rtol=1e-4, atol=1e-4 * float(y.abs() + scale))
    if rule == "z_plus" and net in ("googlenet", "vgg11"):
        assert 0 < sums(seen) < 1.001 * y  # only biases take, and only what is positive


def test_layers_have_names_and_rules(small_x):
    layers = relevance_by_layer(Mixed(), small_x, 1, rule="epsilon_gamma_box")
    seen = [(layer.name, layer.family, layer.rule) for layer in layers]
    assert seen == [
        ("fc2", "dense", "epsilon"),
        ("fc1", "dense", "epsilon"),
        ("avg_pool2d", "average", "epsilon"),
        ("add", "sum", "epsilon"),
        ("conv2", "convolution", "gamma"),
        ("conv1", "convolution", "z_box"),
    ]
    assert [layer.above.shape for layer in layers] == [(2,)] * 6
    assert torch.equal(layers[0].left, layers[0].below)
    layers = relevance_by_layer(Mixed(), small_x, 1, rule="zero")
    seen = [(layer.name, layer.rule) for layer in layers]
    assert ("bn2", "zero") in seen and ("bn1", "zero") not in seen


def test_composite_by_depth(double, x):
    layers = relevance_by_layer(double("vgg11"), x, 3, rule="by_depth")
    assert [layer.rule for layer in layers if layer.family != "average"] == (
        ["zero"] * 3 + ["epsilon"] * 4 + ["gamma"] * 3 + ["z_box"]
    )


def test_relevance_of_a_layer(double, x):
    """With LRP-0 that is activation × gradient."""
    model = double("resnet18")
    for layer in ("conv1", "layer1", "layer4.1.bn2"):
        with one_forward(model, x, TARGETS, layer=layer) as forward:
            (slope,) = forward.backward(forward.maps)
            expected = forward.maps.detach() * slope
        if layer == "conv1":  # with its BatchNorm, whose share of the bias is lost before
            continue
        assert relative_error(lrp(model, x, TARGETS, rule="zero", layer=layer), expected) <= 1e-9
    below = lrp(model, x, TARGETS, layer="layer1")
    assert below.shape == (2, 16, 16, 16)
    pixels = lrp(model, x, TARGETS)
    with one_forward(model, x, TARGETS, layer="layer1") as forward:
        pass
    assert sums(below).abs().min() > 0 and pixels.shape == x.shape


# ------------------------------------------------------------ the mechanism


class Overwrites(Mixed):
    """What convolutions and sums have read is overwritten later."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(0.5).div_(0.2)
        before = self.conv1(x)
        after = self.conv2(before)  # reads before …
        x = before.relu_() + after  # … which now is another
        after.mul_(0).add_(1)
        x = F.adaptive_avg_pool2d(x, 4)
        return self.fc2(self.fc1(x.flatten(1)).relu_())


class Plain(Mixed):
    def forward(self, x: Tensor) -> Tensor:
        before = self.conv1((x - 0.5) / 0.2)
        x = before.relu() + self.conv2(before)
        return self.fc2(self.fc1(F.adaptive_avg_pool2d(x, 4).flatten(1)).relu())


@pytest.mark.parametrize("rule", COMPOSITES)
def test_in_place_operations_do_not_matter(rule, small_x):
    seen = lrp(Overwrites(), small_x, [1, 4], rule=rule)
    assert torch.equal(seen, lrp(Plain(), small_x, [1, 4], rule=rule))
    assert torch.equal(Overwrites()(small_x.clone()), Plain()(small_x))


@pytest.mark.parametrize("rule", ["zero", "epsilon", "w_square", "flat"])  # where + b is a bias
def test_other_forms_of_the_same_net(rule, small_x):
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

    seen = lrp(Functional(), small_x, [1, 4], rule=rule)
    expected = lrp(Mixed(), small_x, [1, 4], rule=rule)
    assert relative_error(seen, expected) <= 1e-3


def test_a_batch_norm_merges_only_into_the_layer_it_directly_follows(small_x):
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


def test_all_layers_that_see_the_pixels_get_the_first_rule(small_x):
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


def test_rules_have_not_changed_what_the_net_computes(double, x):
    for net in ("resnet18", "densenet121"):
        model, image = double(net), for_net(net, x)
        with one_forward(model, image, 3, families=list(FAMILIES)) as forward:
            assert torch.equal(forward.logits, model(image))
            (slope,) = forward.backward()
        assert relative_error(slope, gradient(model, image, 3)) <= 1e-12


# ------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("epsilonplus", {}, r"no rule 'epsilonplus': did you mean 'epsilon_plus'"),
        ("lrp", {}, r"LRP has no rule 'lrp': "),
        ("epsilon", {"eps": 1}, r"rule 'epsilon' has no option 'eps': did you mean 'epsilon'"),
        ("z_plus", {"gamma": 1}, r"rule 'z_plus' has no option 'gamma'"),
        ("alpha_beta", {"alpha": 2, "beta": 0}, r"alpha - beta = 1 .* got alpha=2, beta=0"),
        ("alpha_beta", {"alpha": 0.5, "beta": -0.5}, r"beta >= 0"),
        ("gamma", {"gamma": -1}, r"gamma must be at least 0, got -1"),
        ("epsilon", {"epsilon": float("nan")}, r"epsilon must be at least 0, got nan"),
        (2, {}, r"rule must be a name, a Composite or a rule function, got 2"),
        (zero_rule, {"gamma": 1}, r"options \(gamma\) go with the name of a rule only"),
    ],
    ids=_name,
)
def test_bad_rules(rule, options, message, small_x):
    for method in (lrp, relevance_by_layer):
        with pytest.raises(ValueError, match=message):
            method(Mixed(), small_x, 1, rule=rule, **options)


def test_pixels_outside_the_box(small_x):
    with pytest.raises(ValueError, match=r"low=0.0 to high=1.0, but these lie between -?\d.* and"):
        lrp(Mixed(), small_x * 2, 1, rule="epsilon_gamma_box")


def test_z_box_is_for_pixels(small_x):
    with pytest.raises(ValueError, match=r"zB rule is for a first layer, .* between -?\d.* and \d"):
        lrp(Mixed(), small_x, 1, rule=z_box_rule)


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
        "this mean makes one number of all images",
    ),
    "divided by itself": (Mixed(lambda z: z / z.mean()), "no rule for a div by what depends"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_nets_that_lrp_cannot_explain(name, small_x):
    model, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        lrp(model, small_x, 1)


def test_attention_and_batch_statistics_are_refused(small_x):
    class Attends(Mixed):
        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x).flatten(2)
            return self.fc2((x @ x.mT).flatten(1)[:, :10])

    with pytest.raises(ValueError, match=r"no rule for this matmul: it is no layer"):
        lrp(Attends(), small_x, 1)
    model = Mixed()
    model.bn1 = nn.BatchNorm2d(6, track_running_stats=False).double()
    for method in (lrp, fullgrad):
        with pytest.raises(ValueError, match="computes its mean from the images at hand"):
            method(model, small_x, 1)


@pytest.mark.parametrize("net", ["convnext_tiny", "mobilenet_v3_small"])
def test_torchvision_nets_that_lrp_cannot_explain(untrained, net):
    image = torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"LRP has no rule for .*(layer_norm|a gate)"):
        lrp(untrained(net), image, 1)


class OwnSwish(torch.autograd.Function):
    """As some programs of EfficientNet have it, to save memory."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z * z.sigmoid()

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return signal * z.sigmoid() * (1 + z * (1 - z.sigmoid()))


@pytest.mark.parametrize("method", [lrp, fullgrad])
def test_functions_of_the_nets_own_are_refused(method, small_x):
    """No mode sees them: their own derivative would silently stand in place of a rule."""
    with pytest.raises(ValueError, match=r"no rule for OwnSwish, which this model calls"):
        method(Mixed(OwnSwish.apply), small_x, 1)


def test_composites_by_name_rule_or_themselves():
    composite = Composite(zero_rule, gamma_rule)
    assert find_composite(composite) is composite
    assert find_composite(flat_rule) == uniform(flat_rule) == find_composite("flat")
    assert set(COMPOSITES) >= set(ZENNIT)
