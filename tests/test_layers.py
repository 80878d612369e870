"""Layers of a network: recorded calls, one layer for each size of map, names of operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.core import BackwardRules, frozen
from vislib.layers import (
    ModuleCall,
    classifier_head,
    last_conv_stage,
    layers_with_weights,
    module_calls,
    operation_labels,
    stages,
)


class Gap(nn.Module):
    """Convolutions, one with an in-place ReLU, mean over the positions, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 9, 3, stride=2), nn.ReLU()
        )
        self.head = nn.Linear(9, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(dim=(2, 3)))


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Gap()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))


@contextmanager
def unchanged(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Check that a block leaves weights, buffers, modes, gradients, hooks and images unchanged."""

    def state() -> dict[str, list]:
        return {
            "values": [value.clone() for value in model.state_dict().values()],
            "modes": [module.training for module in model.modules()],
            "flags": [p.requires_grad for p in model.parameters()],
            "gradients": [p.grad is None for p in model.parameters()],
            "hooks": [len(m._forward_hooks) for m in model.modules()],
            "pre-hooks": [len(m._forward_pre_hooks) for m in model.modules()],
        }

    before, pixels = state(), x.clone()
    yield
    after = state()
    values = zip(before.pop("values"), after.pop("values"), strict=True)
    assert all(torch.equal(old, new) for old, new in values)
    assert after == before
    assert torch.equal(x, pixels)


# --- Calls of modules -----------------------------------------------------------------------------


def test_calls_come_in_the_order_in_which_they_end(model, x):
    trace = module_calls(model, x)
    names = [call.name for call in trace.calls]
    assert names == [*(f"features.{i}" for i in range(4)), "features", "head", ""]
    assert [call.module for call in trace.calls] == [
        model.get_submodule(name) if name else model for name in names
    ]
    assert torch.equal(trace.output, model.eval()(x[:1]))
    assert trace.calls[-1].output is trace.output


def test_a_module_that_is_called_twice_has_two_calls(x):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)
            self.unused = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))

    calls = module_calls(Twice(), x).calls
    assert [call.name for call in calls] == ["conv", "conv", ""]
    assert calls[0].output_state.is_same(calls[1].input_state)


def test_each_input_is_the_output_of_the_module_before(model, x):
    trace = module_calls(model, x)
    by_name = {call.name: call for call in trace.calls}
    assert by_name["features.0"].input_state.is_same(trace.image)
    for i in (1, 2, 3):
        before, call = by_name[f"features.{i - 1}"], by_name[f"features.{i}"]
        assert call.input_state.is_same(before.output_state)
    # The mean is a function, so no module gave the input of the head.
    states = [call.output_state for call in trace.calls]
    assert not any(by_name["head"].input_state.is_same(state) for state in states)


def test_in_place_operations_make_a_new_version(model, x):
    convolution, relu, *_ = module_calls(model, x).calls
    assert convolution.output is relu.output
    assert not convolution.output_state.is_same(relu.output_state)
    assert relu.output_state.version > convolution.output_state.version
    assert relu.output.min() >= 0


def test_in_place_functions_make_a_new_version(x):
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            out = self.conv(x)
            out += x
            return self.relu(out)

    convolution, relu, _ = module_calls(Residual(), x).calls
    assert relu.input_state.tensor is convolution.output_state.tensor
    assert not relu.input_state.is_same(convolution.output_state)


def test_only_tensors_have_a_state(x):
    class Pair(nn.Module):
        def forward(self, x: Tensor, y: int) -> tuple[Tensor, int]:
            return x, y

    class First(nn.Module):
        def forward(self, pair: tuple[Tensor, int]) -> Tensor:
            return pair[0]

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.first, self.flat = Pair(), First(), nn.Flatten()

        def forward(self, x: Tensor) -> Tensor:
            return self.flat(input=self.first(self.pair(x, 3)))

    trace = module_calls(Both(), x)
    pair, first, flat, _ = trace.calls
    assert isinstance(pair, ModuleCall) and pair.output[1] == 3
    assert pair.input_state.is_same(trace.image) and pair.output_state is None
    assert first.input_state is None and first.output_state.is_same(trace.image)
    # Only positional arguments count.
    assert flat.input_state is None and flat.output_state is not None


@pytest.mark.parametrize("training", [True, False])
def test_recording_leaves_the_model_unchanged(training, x):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
    model.train(training)
    model[0].bias.requires_grad_(False)
    model[2].eval()
    model.register_forward_hook(lambda *args: None)
    with unchanged(model, x):
        first, again = module_calls(model, x).output, module_calls(model, x).output
    # In evaluation mode, dropout is the identity, and there are no gradients.
    assert torch.equal(first, again) and not first.requires_grad


def test_recording_uses_a_copy_of_the_first_image(x):
    sizes = []

    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(tuple(x.shape))
            return x.sub_(0.5)

    model = Centred()
    with unchanged(model, x):
        trace = module_calls(model, x)
    assert sizes == [(1, 3, 96, 96)]
    assert torch.equal(trace.output, x[:1] - 0.5)


@pytest.mark.parametrize("position", ["features.0", "features.3", "head"])
def test_hooks_are_removed_after_an_exception(position, model, x):
    def trouble(module: nn.Module, args: object) -> None:
        raise RuntimeError("in the forward pass")

    handle = model.get_submodule(position).register_forward_pre_hook(trouble)
    with unchanged(model, x), pytest.raises(RuntimeError, match="in the forward pass"):
        module_calls(model, x)
    handle.remove()
    assert len(module_calls(model, x).calls) == 7


def test_images_that_are_not_finite_are_refused(model, x):
    with unchanged(model, x), pytest.raises(ValueError, match="N×C×H×W"):
        module_calls(model, x[0])
    with pytest.raises(ValueError, match="NaN or infinite"):
        module_calls(model, x * torch.inf)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("outside", [torch.no_grad, torch.inference_mode])
def test_recording_works_without_gradients_outside(outside, model, x):
    expected = module_calls(model, x).output
    with outside():
        assert torch.equal(module_calls(model, x.clone()).output, expected)


# --- One layer for each size of map ---------------------------------------------------------------

STAGES = {
    "alexnet": ["features.1", "features.4", "features.11"],
    "vgg11": ["features.1", "features.4", "features.9", "features.14", "features.19"],
    "resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "squeezenet1_1": ["features.1", "features.4", "features.7", "features"],
    "googlenet": ["conv1", "conv3", "inception3b", "inception4e", "inception5b"],
    "densenet121": [
        "features.relu0",
        *(f"features.denseblock{number}" for number in (1, 2, 3)),
        "features",
    ],
}


def number_of_positions(model: nn.Module, layer: str, x: Tensor) -> int:
    sizes: list[int] = []
    module = model.get_submodule(layer)
    handle = module.register_forward_hook(lambda m, a, output: sizes.append(output[0, 0].numel()))
    with torch.no_grad():
        model(x)
    handle.remove()
    return sizes[0]


@pytest.mark.parametrize("net", STAGES)
def test_stages(untrained, net, x):
    model = untrained(net)
    hooks = [len(module._forward_hooks) for module in model.modules()]
    assert stages(model, x) == STAGES[net]
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    sizes = [number_of_positions(model, layer, x[:1]) for layer in STAGES[net]]
    assert sizes == sorted(set(sizes), reverse=True)


def test_stages_remove_their_hooks_after_an_exception(model, x):
    calls = []

    def trouble(module: nn.Module, args: object) -> None:
        calls.append(1)
        # The first run is that of `last_conv_stage`.
        if len(calls) == 2:
            raise RuntimeError("in the forward pass")

    handle = model.head.register_forward_pre_hook(trouble)
    with pytest.raises(RuntimeError, match="in the forward pass"):
        stages(model, x)
    handle.remove()
    assert not any(module._forward_hooks for module in model.modules())
    assert stages(model, x) == ["features.1", "features"]


def test_each_function_runs_the_model_as_often_as_it_says(model, x):
    runs = []
    model.register_forward_pre_hook(lambda module, args: runs.append(len(args[0])))
    for function, expected in [
        (last_conv_stage, 1),
        (stages, 2),
        (classifier_head, 1),
        (layers_with_weights, 1),
    ]:
        runs.clear()
        function(model, x)
        assert runs == [1] * expected, function.__name__


# --- Names of operations --------------------------------------------------------------------------


def test_operations_have_the_names_of_their_layers(x):
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)
            self.weight = nn.Parameter(torch.rand(5, 4))

        def forward(self, x: Tensor) -> Tensor:
            pooled = (self.norm(self.conv(x)) + 1).mean(dim=(2, 3))
            return F.linear(pooled, weight=self.weight)

    model = Mixed()
    rules = BackwardRules("convolution", "batch_norm", "sum", "average", "dense")
    with frozen(model), rules:
        model(x.clone().requires_grad_())
    label = operation_labels(model)
    names = [label(operation) for operation in rules.operations]
    # Batch normalisation without parameters is known by its running statistics.
    assert names == ["conv", "norm", "add", "mean", "weight"]
