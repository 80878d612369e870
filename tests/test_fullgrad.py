"""FullGrad against autograd, pytorch-grad-cam, and its equation as loops; completeness."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from relevance_helpers import NETS, TARGETS, Mixed, for_net, relative_error, sums
from torch import Tensor, nn

from vislib import nets
from vislib.core import FAMILIES
from vislib.explain.fullgrad import fullgrad, fullgrad_parts


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(1))


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


@pytest.mark.parametrize("net", nets.EMOJI_NETS)
def test_fullgrad_is_complete_on_the_pocket_nets(net):
    model = nets.load(net).double()
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    parts = fullgrad_parts(model, image, [3, 7])
    assert ((parts.total() - parts.score).abs() / parts.score.abs()).max() <= 3e-13
    assert next(iter(parts.biases)) == "normalize"
    assert parts.biases["normalize"].shape == image.shape


def test_bias_gradients_are_those_of_autograd(double, x):
    """Summed over the positions, each channel has ``b ∂f/∂b``, in vgg11 for all of its biases."""
    model = double("vgg11")
    parts = fullgrad_parts(model, x[:1], 3)
    biases = {name[:-5]: p for name, p in model.named_parameters() if name.endswith(".bias")}
    assert list(parts.biases) == list(biases)
    gradients = torch.autograd.grad(model(x[:1])[0, 3], list(biases.values()))
    for (name, bias), gradient in zip(biases.items(), gradients, strict=True):
        part = parts.biases[name][0]
        actual = part.sum((1, 2)) if part.ndim == 3 else part
        assert torch.allclose(actual, (bias * gradient).detach(), rtol=1e-9, atol=1e-18), name


def test_bias_gradients_of_batch_norms_contain_the_shift(double, x):
    model = double("resnet18")
    parts = fullgrad_parts(model, x[:1], 3)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert set(parts.biases) == {*norms, "fc"}
    gradients = torch.autograd.grad(model(x[:1])[0, 3], [m.bias for m in norms.values()])
    for (name, norm), gradient in zip(norms.items(), gradients, strict=True):
        shift = norm.bias - norm.weight * norm.running_mean / (norm.running_var + norm.eps).sqrt()
        actual = parts.biases[name][0].sum((1, 2))
        assert torch.allclose(actual, (shift * gradient).detach(), rtol=1e-9, atol=1e-15), name


@pytest.mark.parametrize("name", sorted(FAMILIES["activation"]))
def test_activations_other_than_relu_have_implicit_biases(name, small_x):
    weight = torch.tensor([0.25], dtype=torch.double)
    activation = partial(F.prelu, weight=weight) if name == "prelu" else getattr(F, name)
    model = Mixed(activation)
    parts = fullgrad_parts(model, small_x, [1, 3])
    assert (parts.total() - parts.score).abs().max() <= 1e-12
    homogeneous = name in ("relu", "leaky_relu", "prelu", "rrelu")
    assert any(key.startswith(name) for key in parts.biases) == (not homogeneous)


@pytest.mark.parametrize(("rescale", "dims"), [("map", (1, 2)), ("layer", (0, 1, 2))])
def test_fullgrad_equals_its_equation_as_loops(double, x, rescale, dims):
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
def test_fullgrad_equals_pytorch_grad_cam(single, x, net):
    """The peer scales its map to [0, 1], and its rescaling adds 1e-7 to the denominators."""
    from pytorch_grad_cam import FullGrad
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, image = single(net), x[:1].float()
    peer = FullGrad(model, [])(image.clone(), [ClassifierOutputTarget(3)])[0]
    actual = fullgrad(model, image, 3)[0, 0]
    actual = (actual - actual.min()) / (actual.max() - actual.min())
    assert np.corrcoef(peer.ravel(), actual.numpy().ravel())[0, 1] > 0.99999
    assert np.abs(peer - actual.numpy()).max() <= 0.02


def test_wrong_arguments_and_operations(double, small_x):
    with pytest.raises(ValueError, match="rescale must be 'map' or 'layer', got 'image'"):
        fullgrad(Mixed(), small_x, 1, rescale="image")
    with pytest.raises(ValueError, match=r"FullGrad has no rule for softmax, which this"):
        fullgrad(Mixed(partial(F.softmax, dim=1)), small_x, 1)
