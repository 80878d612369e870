"""The deconvnet, against PyTorch's unpooling, Captum, the rule on autograd, and loops."""

from collections.abc import Callable

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib import nets
from vislib.core import one_forward
from vislib.explain import gradients
from vislib.explain.gradients import deconvnet_rule
from vislib.features import deconvnet, unit_view
from vislib.features.deconvnet import chain

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1)).double()


def relative_error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape and expected.abs().max() > 0
    return float((actual - expected).norm() / expected.norm())


# --- Single steps ---------------------------------------------------------------------------------

OVERLAPPING = torch.tensor([[1.0, 2.0, 0.0, 0.0], [3.0, 9.0, 5.0, 0.0], [0.0, 4.0, 0.0, 8.0]])


def unpool_loops(signal: Tensor, switches: Tensor, size: tuple[int, int], overlap: str) -> Tensor:
    n, channels, h, w = signal.shape
    out = torch.zeros(n, channels, *size, dtype=signal.dtype)
    filled = set()
    for i in range(n):
        for c in range(channels):
            for r in range(h):
                for s in range(w):
                    target = i, c, *divmod(int(switches[i, c, r, s]), size[1])
                    value = signal[i, c, r, s]
                    if overlap == "sum":
                        out[target] += value
                    elif overlap == "last" or target not in filled:
                        out[target] = value
                    else:
                        out[target] = max(out[target], value)
                    filled.add(target)
    return out


@pytest.mark.parametrize("overlap", ["largest", "last", "sum"])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 0), (3, 2, 1)])
def test_unpool_equals_plain_loops(kernel, stride, padding, overlap):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 11, 8, dtype=torch.float64)
    pooled, switches = F.max_pool2d(maps, kernel, stride, padding, return_indices=True)
    signal = torch.randn_like(pooled)  # both signs, because a largest value may be negative
    actual = deconvnet.unpool(signal, switches, (11, 8), overlap=overlap)
    assert torch.equal(actual, unpool_loops(signal, switches, (11, 8), overlap))
    if overlap == "last":
        torch_own = F.max_unpool2d(signal, switches, kernel, stride, padding, (11, 8))
        assert torch.equal(actual, torch_own)


def test_three_rules_for_windows_with_the_same_maximum():
    _, switches = F.max_pool2d(OVERLAPPING[None, None], 2, 1, return_indices=True)
    signal = torch.tensor([[[[7.0, 2, 0], [3, 1, 6]]]])
    assert switches[0, 0].tolist() == [[5, 5, 6], [5, 5, 11]]  # four windows have the 9
    at_nine = {
        overlap: deconvnet.unpool(signal, switches, (3, 4), overlap=overlap)[0, 0, 1, 1].item()
        for overlap in ("largest", "last", "sum")
    }
    assert at_nine == {"largest": 7, "last": 1, "sum": 13}
    assert deconvnet.shared_fraction(switches) == pytest.approx(4 / 6)
    with pytest.raises(ValueError, match="'largest', 'last' or 'sum', got 'first'"):
        deconvnet.unpool(signal, switches, (3, 4), overlap="first")


def test_overwriting_can_lose_the_only_value():
    _, switches = F.max_pool2d(OVERLAPPING[None, None], 2, 1, return_indices=True)
    one = deconvnet.only_unit(torch.full((1, 1, 2, 3), 5.0), 0, (0, 0))
    sums = {
        o: deconvnet.unpool(one, switches, (3, 4), overlap=o).sum() for o in ("largest", "last")
    }
    assert sums == {"largest": 5, "last": 0}


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 7, "stride": 3, "padding": 3},
        {"kernel_size": 11, "stride": 4, "padding": 2},
        {"kernel_size": (3, 5), "stride": (2, 3), "padding": (1, 0)},
        {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 1},
        {"kernel_size": 3, "groups": 2, "stride": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(17, 24), (18, 21)])
def test_transposed_filters_are_the_derivative_of_a_convolution(options, size):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, **options).double()
    maps = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    out = conv(maps)
    signal = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, maps, signal)
    assert relative_error(deconvnet.transposed(signal, conv, size), expected) < 1e-12


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding_mode": "reflect"}])
def test_padding_other_than_zeros_is_refused(options):
    conv = nn.Conv2d(3, 3, 3, **{"padding": 1} | options)
    with pytest.raises(ValueError, match="zeros around the map"):
        deconvnet.transposed(torch.rand(1, 3, 8, 8), conv, (8, 8))


def test_only_one_value_is_kept():
    maps = torch.tensor([[[1.0, 4.0], [4.0, 2.0]], [[-3.0, -1.0], [-2.0, -5.0]]])[None]
    assert deconvnet.only_unit(maps, 0).tolist() == [[[[0, 4], [0, 0]], [[0, 0], [0, 0]]]]
    assert deconvnet.only_unit(maps, 1).tolist() == [[[[0, 0], [0, 0]], [[0, -1], [0, 0]]]]
    assert deconvnet.only_unit(maps, 1, (1, 1)).sum() == -5
    with pytest.raises(ValueError, match="unit must be between 0 and 1, got 2"):
        deconvnet.only_unit(maps, 2)
    with pytest.raises(ValueError, match=r"position must be inside maps of 2×2, got \(0, 2\)"):
        deconvnet.only_unit(maps, 0, (0, 2))
    with pytest.raises(ValueError, match=r"position must be inside maps of 2×2, got \(-1, 0\)"):
        deconvnet.only_unit(maps, 0, (-1, 0))


@pytest.mark.parametrize(("kind", "inside"), [("corner", 0), ("centre", 1)])
def test_fixed_switches(kind, inside):
    pool = nn.MaxPool2d(3, 2, padding=1)
    _, switches = F.max_pool2d(torch.rand(1, 2, 7, 9), 3, 2, 1, return_indices=True)
    step = deconvnet.Step("pool", pool, (7, 9), switches)
    switches_of = deconvnet.fixed_switches(step, kind)
    assert switches_of.shape == switches.shape
    for row in range(4):
        for column in range(5):
            top, left = max(row * 2 - 1 + inside, 0), max(column * 2 - 1 + inside, 0)
            assert switches_of[0, 1, row, column] == top * 9 + left
    with pytest.raises(ValueError, match="'recorded', 'corner' or 'centre', got 'middle'"):
        deconvnet.fixed_switches(step, "middle")


# --- Whole reconstructions ------------------------------------------------------------------------

NO_OVERLAP = [
    ("emoji_vgg", "net.features.3"),  # a convolution, before its ReLU
    ("emoji_vgg", "net.features.12"),
    ("emoji_vgg", "net.features.13"),  # a pool
    ("emoji_vgg", "net.features"),
    ("emoji_gap", "net.features.15"),
    ("emoji_allconv", "net.features"),
]
OVERLAP = [
    ("emoji_alexnet", "net.features.5"),
    ("emoji_alexnet", "net.features.11"),
    ("emoji_alexnet", "net.features"),
    ("emoji_squeezenet", "net.features.3.expand3x3"),  # the path through one branch is a chain
    ("emoji_resnet", "net.layer1.0.bn2"),  # padded pool, batch normalisation
]


def by_rule(model: nn.Module, x: Tensor, layer: str, unit: int, position=None) -> Tensor:
    """The rule on autograd from one unit, times its activation, as the deconvnet starts."""
    maps, _ = deconvnet.forward(model, x, layer)
    activation = deconvnet.only_unit(maps, unit, position).sum(dim=(1, 2, 3)).view(-1, 1, 1, 1)
    assert (activation > 0).all(), "the unit must fire"
    view = unit_view(model, x, layer, unit, position=position, rule=deconvnet_rule)
    return activation * view


def firing(model: nn.Module, x: Tensor, layer: str) -> list[int]:
    maps, _ = deconvnet.forward(model, x, layer)
    units = (maps.flatten(2).amax(2) > 0).all(0).nonzero().flatten().tolist()
    return units[:: max(1, len(units) // 3)][:3]


@pytest.mark.parametrize(("name", "layer"), NO_OVERLAP)
@pytest.mark.parametrize("overlap", ["largest", "last", "sum"])
def test_without_overlap_it_equals_the_rule_on_autograd(name, layer, overlap, x):
    model = nets.load(name).double()
    for unit in firing(model, x, layer):
        actual = deconvnet.reconstruct(model, x, layer, unit, overlap=overlap)
        assert relative_error(actual, by_rule(model, x, layer, unit)) < 1e-10


@pytest.mark.parametrize(("name", "layer"), OVERLAP)
def test_with_overlap_the_sum_equals_the_rule_on_autograd(name, layer, x):
    model = nets.load(name).double()
    for unit in firing(model, x, layer):
        expected = by_rule(model, x, layer, unit)
        actual = deconvnet.reconstruct(model, x, layer, unit, overlap="sum")
        assert relative_error(actual, expected) < 1e-10


def test_a_given_position_equals_the_rule_on_autograd(x):
    model = nets.load("emoji_vgg").double()
    maps, _ = deconvnet.forward(model, x, "net.features.7")
    unit, row, column = (maps.amin(0) > 0).nonzero()[-1].tolist()
    actual = deconvnet.reconstruct(model, x, "net.features.7", unit, (row, column))
    expected = by_rule(model, x, "net.features.7", unit, (row, column))
    assert relative_error(actual, expected) < 1e-10


def test_overlapping_pools_differ_from_the_rule(x):
    model = nets.load("emoji_alexnet").double()
    _, steps = deconvnet.forward(model, x, "net.features")
    assert [
        deconvnet.shared_fraction(s.switches) > 0.1 for s in steps if s.switches is not None
    ] == [True] * 3
    unit = firing(model, x, "net.features.11")[0]
    expected = by_rule(model, x, "net.features.11", unit)
    for overlap in ("largest", "last"):
        actual = deconvnet.reconstruct(model, x, "net.features.11", unit, overlap=overlap)
        assert relative_error(actual, expected) > 0.1


def test_a_class_score_through_the_features(x):
    """The head by the rule, the features by the deconvnet: together `gradients.deconvnet`."""
    for name, equal in [("emoji_vgg", True), ("emoji_alexnet", False)]:
        model = nets.load(name).double()
        with one_forward(model, x, 3, layer="net.features", families=["activation"]) as forward:
            (signal,) = forward.backward(forward.maps, activation=deconvnet_rule)
        _, steps = deconvnet.forward(model, x, "net.features")
        expected = gradients.deconvnet(model, x, 3)
        assert (relative_error(deconvnet.project(signal, steps), expected) < 1e-10) == equal
        added = deconvnet.project(signal, steps, overlap="sum")
        assert relative_error(added, expected) < 1e-10


def in_torch(features: nn.Sequential, x: Tensor, unit: int) -> Tensor:
    """Zeiler's deconvnet of PyTorch's layers: MaxUnpool2d, ReLU, ConvTranspose2d."""
    way_down: list[Callable[[Tensor], Tensor]] = []
    for module in features:
        size = x.shape
        if isinstance(module, nn.MaxPool2d):
            pool = nn.MaxPool2d(module.kernel_size, module.stride, return_indices=True)
            x, switches = pool(x)
            undo = nn.MaxUnpool2d(module.kernel_size, module.stride)
            way_down.append(lambda s, u=undo, i=switches, size=size: u(s, i, output_size=size))
        elif isinstance(module, nn.Conv2d):
            c = module
            x = c(x)
            undo = nn.ConvTranspose2d(
                c.out_channels, c.in_channels, c.kernel_size, c.stride, c.padding, bias=False
            )
            undo.weight = c.weight
            way_down.append(lambda s, u=undo, size=size: u(s, output_size=size[2:]))
        else:
            x = x.relu()
            way_down.append(torch.relu)
    signal = torch.zeros_like(x)
    for n, maps in enumerate(x[:, unit]):
        row, column = divmod(int(maps.argmax()), maps.shape[1])
        signal[n, unit, row, column] = maps[row, column]
    for step in reversed(way_down):
        signal = step(signal)
    return signal.detach()


@pytest.mark.parametrize("name", ["alexnet", "vgg11"])
def test_torchvision_networks_equal_pytorchs_layers(name, untrained, x):
    model = untrained(name)
    for layer in ("features", "features.5", "features.8"):
        end = len(model.features) if layer == "features" else int(layer.split(".")[1]) + 1
        for unit in firing(model, x.float(), layer)[:2]:
            actual = deconvnet.reconstruct(model, x.float(), layer, unit, overlap="last")
            expected = in_torch(model.features[:end], x.float(), unit)
            assert actual.shape == expected.shape
            assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["alexnet", "vgg11"])
def test_sum_equals_captums_neuron_deconvolution(name, untrained, x):
    model, layer = untrained(name), "features.7"
    image = x.float()
    maps, _ = deconvnet.forward(model, image, layer)
    unit, row, column = (maps.amin(0) > 0).nonzero()[0].tolist()
    actual = deconvnet.reconstruct(model, image, layer, unit, (row, column), overlap="sum")
    in_place = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    try:
        for relu in in_place:
            relu.inplace = False  # Captum's hooks need ReLUs that are not in place
        method = captum.attr.NeuronDeconvolution(model, model.features[7])
        expected = method.attribute(image.clone().requires_grad_(), (unit, row, column))
    finally:
        for relu in in_place:
            relu.inplace = True
    activation = maps[:, unit, row, column].view(-1, 1, 1, 1)
    assert relative_error(actual, activation * expected.detach()) < 1e-5


def test_reconstruction_is_proportional_to_the_activation(x):
    model = nets.load("emoji_vgg").double()
    maps, steps = deconvnet.forward(model, x, "net.features.12")
    signal = deconvnet.only_unit(maps, firing(model, x, "net.features.12")[0])
    once, thrice = deconvnet.project(signal, steps), deconvnet.project(3 * signal, steps)
    assert relative_error(thrice, 3 * once) < 1e-12
    assert not deconvnet.project(0 * signal, steps).any()


def test_without_switches_all_values_go_to_one_corner(x):
    model = nets.load("emoji_vgg").double()
    layer, unit = "net.features.2", firing(model, x, "net.features.2")[0]
    maps, _ = deconvnet.forward(model, x, layer)
    signal = torch.zeros(2, maps.shape[1], 96, 96).double()
    signal[:, unit, 6, 10] = maps[:, unit, 3, 5]
    expected = F.conv_transpose2d(signal, model.net.features[0].weight.detach(), padding=1)
    actual = deconvnet.reconstruct(model, x, layer, unit, (3, 5), switches="corner")
    assert relative_error(actual, expected / model.normalize.std) < 1e-12
    assert not torch.equal(actual, deconvnet.reconstruct(model, x, layer, unit, (3, 5)))


def test_without_pools_all_images_give_the_same_map(x):
    """Only the switches depend on the image, so without pools all images give the same map."""
    signal = gradients.deconvnet(nets.load("emoji_allconv").double(), x, 3)
    assert relative_error(signal[0], signal[1]) < 1e-12
    signal = gradients.deconvnet(nets.load("emoji_vgg").double(), x, 3)
    assert relative_error(signal[0], signal[1]) > 0.5


# --- The chain ------------------------------------------------------------------------------------


def test_chain_is_in_the_order_of_the_calls(x):
    model = nets.load("emoji_squeezenet").double()
    path = [name for name, _ in chain(model, x, "net.features.3.expand3x3")]
    assert path == [
        "normalize",
        *(f"net.features.{i}" for i in range(3)),
        *(f"net.features.3.{part}.{i}" for part in ("squeeze", "expand3x3") for i in (0, 1)),
    ]


class Uses(nn.Module):
    """A network with a ReLU that is used twice, dropout, and a part that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.drop, self.same = nn.Dropout(0.5), nn.Identity()
        self.never, self.empty = nn.Conv2d(3, 3, 3), nn.Sequential()
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.relu(self.conv1(self.empty(x))))
        x = self.relu(self.conv2(self.empty(self.same(x))))
        return self.head(x.mean((2, 3)))


def test_chain_with_reused_relus_and_dropout(x):
    torch.manual_seed(0)
    model = Uses().double().train()
    path = [name for name, _ in chain(model, x, "relu")]
    assert path == ["conv1", "relu", "drop", "same", "conv2", "relu"]  # without the empty part
    with torch.inference_mode():
        assert [name for name, _ in chain(model, x.clone(), "relu")] == path
    unit = firing(model, x, "relu")[0]
    actual = deconvnet.reconstruct(model, x, "relu", unit)
    assert relative_error(actual, by_rule(model, x, "relu", unit)) < 1e-12
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(ValueError, match="never gives a tensor at layer 'never'"):
        chain(model, x, "never")
    with pytest.raises(ValueError, match=r"cannot go back through 'head' \(Linear\)"):
        chain(model, x, "head")


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("resnet18", "layer1.0", "the input of 'layer1.0.relu' is not the output of a single"),
        ("resnet18", "layer2.0.conv1", "the input of 'layer1.1.relu'"),  # a sum in place
        ("squeezenet1_1", "features.3", "the output of 'features.3' is not the output of a single"),
        ("googlenet", "maxpool1", "not the output of a single module"),  # functions between modules
        ("densenet121", "features.denseblock1", "not the output of a single module"),
        ("alexnet", "avgpool", r"cannot go back through 'avgpool' \(AdaptiveAvgPool2d\)"),
        ("alexnet", "feature", "the model has no layer 'feature'"),
    ],
)
def test_a_path_that_is_not_a_chain_is_refused(name, layer, message, untrained, x):
    with pytest.raises(ValueError, match=message):
        deconvnet.reconstruct(untrained(name), x.float(), layer, 0)


def test_model_and_image_stay_as_they_were(untrained, x):
    model = untrained("alexnet")
    model.train()
    image = x.float()
    kept = image.clone()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    try:
        deconvnet.reconstruct(model, image, "features", 0)
        with pytest.raises(ValueError, match="unit must be between 0 and 255, got 999"):
            deconvnet.reconstruct(model, image, "features", 999)
        with pytest.raises(ValueError, match="float tensor"):
            deconvnet.reconstruct(model, torch.zeros(3, 96, 96), "features", 0)
        assert all(module.training for module in model.modules())
    finally:
        model.eval()
    assert torch.equal(image, kept)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
