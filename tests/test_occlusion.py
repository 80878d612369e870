"""Occlusion against Captum, loops and identities; the partial forward pass against full images."""

import copy

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib import nets
from vislib.core import record
from vislib.explain._crops import PartialForward
from vislib.explain.occlusion import mean_over_squares, occlusion, slide
from vislib.transforms import baseline_image

NETS = [
    "alexnet", "vgg11", "squeezenet1_1", "resnet18", "googlenet", "densenet121", "mobilenet_v2",
    "inception_v3", "shufflenet_v2_x0_5", "efficientnet_b0",
]  # fmt: skip


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 80, 72, generator=torch.Generator().manual_seed(1))


def small(*layers: nn.Module) -> nn.Module:
    """A network of these layers, global average pooling and ten classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        maps = nn.Sequential(*layers)
        channels = maps(torch.rand(1, 3, 40, 40)).shape[1]
        head = nn.Linear(channels, 10)
    return nn.Sequential(maps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return small(
        nn.Conv2d(3, 8, 5, stride=2, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(inplace=True),
    )  # fmt: skip


# --- The partial forward pass ---------------------------------------------------------------------


def by_crops(model: nn.Module, image: Tensor, crops: Tensor, rows, columns) -> Tensor:
    with torch.no_grad(), PartialForward() as partial_forward:
        clean = partial_forward.keep(model, image)
        assert torch.equal(clean, model(image))
        return model(partial_forward.start(crops.clone(), rows, columns))


def on_full_images(model: nn.Module, image: Tensor, crops: Tensor, rows, columns) -> Tensor:
    full = image.repeat(len(crops), 1, 1, 1)
    height, width = crops.shape[-2:]
    for one, crop, row, column in zip(full, crops, rows, columns, strict=True):
        one[:, row : row + height, column : column + width] = crop
    with torch.no_grad():
        return model(full)


def check_crops(model: nn.Module, image: Tensor, crops: Tensor, rows, columns) -> None:
    expected = on_full_images(model, image, crops, rows, columns)
    actual = by_crops(model, image, crops, rows, columns)
    change = (expected - model(image)).abs().amax(dim=1)
    # Each square must change the logits, or nothing would be tested.
    assert (change > 0).all()
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", NETS)
def test_crops_give_what_full_images_give(name, untrained):
    """Crops at corners, at borders and inside; the height of the image is an odd number."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 141, 128, generator=generator)
    crops = torch.rand(5, 3, 16, 12, generator=generator)
    check_crops(untrained(name), image, crops, [0, 5, 125, 50, 0], [0, 116, 3, 47, 116])


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 4, 3, padding="same"), nn.ReLU()],
        [nn.Conv2d(3, 4, 4, padding="same"), nn.ReLU()],
        [nn.Conv2d(3, 4, 3, padding=2, dilation=2), nn.ReLU()],
        [nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU()],
        [nn.Conv2d(3, 6, 3, stride=3, groups=3), nn.ReLU()],
        [nn.Conv2d(3, 4, (1, 5), padding=(0, 2)), nn.Conv2d(4, 4, (5, 1), stride=(1, 2))],
        [nn.Conv2d(3, 4, 1, stride=2)],
        [nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(3, 4, 3)],
        [nn.MaxPool2d(3, 2, padding=1), nn.Conv2d(3, 4, 3)],
        [nn.MaxPool2d(2, 1, dilation=2), nn.Conv2d(3, 4, 3)],
        [nn.AvgPool2d(3, 2, padding=1), nn.Conv2d(3, 4, 3)],
        [nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), nn.Conv2d(3, 4, 3)],
        [nn.AvgPool2d(3, 2, ceil_mode=True), nn.Conv2d(3, 4, 3)],
        [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Dropout(0.5)],
        [nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU()],
        [nn.Conv2d(3, 4, 3), nn.Softmax(dim=1)],
        [nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3)],
        [nn.ConvTranspose2d(3, 4, 3, stride=2), nn.ReLU()],
        [nn.AdaptiveAvgPool2d(7), nn.Conv2d(3, 4, 3)],
    ],
    ids=lambda layers: " ".join(str(layer).replace(" ", "") for layer in layers)[:70],
)
def test_crops_through_every_kind_of_layer(layers):
    model = small(*layers)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 41, 38, generator=generator)
    crops = torch.rand(4, 3, 6, 7, generator=generator)
    check_crops(model, image, crops, [0, 35, 11, 20], [0, 31, 14, 9])


class Unusual(nn.Module):
    """What real networks do around their layers; the subclasses change the maps a in one way each.

    Examples are sums of maps with different receptive fields, gates, and in-place operations whose
    result is not used.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 10)

    def change(self, a: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        a = self.change(self.a((x - 0.4) / torch.full((3, 1, 1), 0.3)))
        return self.head(a.relu().mean(dim=(2, 3)))


class SumInPlace(Unusual):
    def change(self, a: Tensor) -> Tensor:
        b = self.b(a)
        b += a
        return b


class ReluWithUnusedResult(Unusual):
    def change(self, a: Tensor) -> Tensor:
        F.relu_(a)
        return self.b(a)


class BeforeAndAfterRelu(Unusual):
    def change(self, a: Tensor) -> Tensor:
        pooled = F.max_pool2d(a, 2)
        return F.max_pool2d(a.relu_(), 2) * pooled


class Gate(Unusual):
    def change(self, a: Tensor) -> Tensor:
        return a * a.mean(dim=(2, 3), keepdim=True).sigmoid()


class ReadsTheShape(Unusual):
    def change(self, a: Tensor) -> Tensor:
        n, c, h, w = a.shape
        a = self.b(a) / (h * w) + a.size(3)
        return a.reshape(n, 2, c // 2, h, w).transpose(1, 2).flatten(1, 2)


class Slices(Unusual):
    def change(self, a: Tensor) -> Tensor:
        return torch.cat([a[:, 2:], self.b(a)[:, :2]], dim=1)


class AddsColumnNumbers(Unusual):
    def change(self, a: Tensor) -> Tensor:
        return a + torch.arange(float(a.shape[-1]))


class CatOfRows(Unusual):
    def change(self, a: Tensor) -> Tensor:
        return torch.cat([a, self.b(a)], dim=2)


class SumWithUnusedResult(Unusual):
    """b has a larger receptive field than a."""

    def change(self, a: Tensor) -> Tensor:
        b = self.b(a)
        a.add_(b)
        return a


class AddsColumnNumbersInPlace(Unusual):
    def change(self, a: Tensor) -> Tensor:
        a = a.relu()
        a += torch.arange(float(a.shape[-1]))
        return a


class ClampWithUnusedResult(Unusual):
    def change(self, a: Tensor) -> Tensor:
        a.clamp_(min=0)
        return a


class OverwritesAChannel(Unusual):
    def change(self, a: Tensor) -> Tensor:
        a[:, 1] = 0.5
        return a


class OverwritesAView(Unusual):
    def change(self, a: Tensor) -> Tensor:
        a[:, :2].mul_(-1)
        return a


class UsesData(Unusual):
    def change(self, a: Tensor) -> Tensor:
        return self.b(a.data)


class OutArgument(Unusual):
    def change(self, a: Tensor) -> Tensor:
        # PyTorch allows ``out=`` only without gradients.
        with torch.no_grad():
            torch.mul(a, 2.0, out=a)
        return a


class ThroughNumpy(Unusual):
    def change(self, a: Tensor) -> Tensor:
        return torch.from_numpy(self.b(a).detach().numpy())


@pytest.mark.parametrize("kind", Unusual.__subclasses__())
def test_crops_through_unusual_networks(kind):
    with torch.random.fork_rng():
        model = kind().eval()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 30, 34, generator=generator)
    crops = torch.rand(3, 3, 5, 5, generator=generator)
    check_crops(model, image, crops, [0, 25, 10], [0, 29, 15])


def test_a_compiled_model_gets_full_images(untrained):
    """PyTorch does not offer the operations inside it to a mode."""
    model, image = untrained("resnet18"), torch.rand(1, 3, 64, 64)
    compiled = torch.jit.trace(model, image)
    crops = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    check_crops(compiled, image, crops, [0, 48, 20], [0, 48, 9])


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_b0"])
def test_ordinary_networks_do_not_get_full_images(name, untrained):
    with PartialForward() as partial_forward, torch.no_grad():
        partial_forward.keep(untrained(name), torch.rand(1, 3, 64, 64))
        crop = torch.rand(1, 3, 8, 8)
        assert partial_forward.start(crop, [0], [0]) is crop


def test_crops_are_cheaper_than_full_images():
    """The cost is counted in floating-point operations, not in seconds."""
    from torch.utils.flop_counter import FlopCounterMode

    model = nets.load("vgg16", weights=False)
    image, crops = torch.rand(1, 3, 224, 224), torch.rand(4, 3, 32, 32)
    positions = [0, 64, 100, 192], [0, 96, 150, 192]
    with FlopCounterMode(display=False) as whole:
        expected = on_full_images(model, image, crops, *positions)
    with torch.no_grad(), PartialForward() as partial_forward:
        partial_forward.keep(model, image)
        with FlopCounterMode(display=False) as parts:
            actual = model(partial_forward.start(crops, *positions))
    assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-5)
    assert parts.get_total_flops() < 0.25 * whole.get_total_flops()


# --- Occlusion ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "squeezenet1_1", "resnet18", "googlenet"])
def test_occlusion_equals_captum(name, x, untrained):
    model, target, x = copy.deepcopy(untrained(name)).double(), torch.tensor([3, 7]), x.double()
    expected = captum.attr.Occlusion(model).attribute(
        x, (3, 24, 24), (3, 16, 16), baselines=0.5, target=target, perturbations_per_eval=8
    )[:, :1]
    actual = occlusion(model, x, target, size=24, stride=16)
    # Captum also computes in float64, but returns float32.
    assert (actual - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize(("size", "stride"), [(1, 9), (7, 5), (16, 16), (72, 4), (10, 30)])
def test_slide_equals_plain_loops(size, stride, x, net):
    baseline = baseline_image(x, "noise")
    result = slide(net, x, size=size, stride=stride, baseline=baseline, layer="0.3")
    assert result.rows[0] == result.columns[0] == 0
    assert 80 - max(size, stride) <= result.rows[-1] < 80
    assert 72 - max(size, stride) <= result.columns[-1] < 72
    for i, row in enumerate(result.rows):
        for j, column in enumerate(result.columns):
            covered = x.clone()
            square = (..., slice(row, row + size), slice(column, column + size))
            covered[square] = baseline[square]
            with torch.no_grad(), record(net, ["0.3"]) as outputs:
                logits = net(covered)
            totals = outputs["0.3"].sum(dim=(2, 3))
            assert torch.allclose(result.logits[:, i, j], logits, rtol=1e-4, atol=1e-6)
            assert torch.allclose(result.totals[:, i, j], totals, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(result.clean, torch.cat([net(image[None]) for image in x]))


def test_a_square_that_changes_nothing_gives_zero(x, net):
    assert not slide(net, x, baseline=x).logits.sub(net(x)[:, None, None]).abs().gt(1e-6).any()
    assert occlusion(net, x, 3, baseline=x).abs().max() < 1e-6


def test_only_the_pixels_that_a_model_reads_count():
    """The model is the mean of a corner: the loss is the covered fraction of the corner."""

    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1, :8, :8].mean(dim=(2, 3)).expand(-1, 2)

    image = torch.ones(1, 3, 32, 32)
    values = slide(Corner(), image, size=8, stride=4, baseline=0.0).logits[0, :, :, 0]
    assert values[0, 0] == 0 and values[0, 1] == values[1, 0] == 0.5 and values[1, 1] == 0.75
    assert (values[2:] == 1).all() and (values[:, 2:] == 1).all()
    actual = occlusion(Corner(), image, 1, size=8, stride=4, baseline=0.0)[0, 0]
    assert actual[0, 0] == 1 and actual[12:].abs().max() == 0


def test_mean_over_the_squares_that_cover_a_pixel(x, net):
    squares = slide(net, x, size=20, stride=11)
    values = torch.rand(2, 1, len(squares.rows), len(squares.columns))
    means = mean_over_squares(values, squares, (80, 72))
    for row, column in [(0, 0), (19, 21), (20, 40), (79, 71)]:
        covering = [
            values[:, 0, i, j]
            for i, top in enumerate(squares.rows)
            for j, left in enumerate(squares.columns)
            if top <= row < top + 20 and left <= column < left + 20
        ]
        assert torch.allclose(means[:, 0, row, column], torch.stack(covering).mean(0))
    gaps = slide(net, x, size=4, stride=10)
    ones = torch.ones(2, 1, len(gaps.rows), len(gaps.columns))
    assert mean_over_squares(ones, gaps, (80, 72))[0, 0, 5, 5] == 0


@pytest.mark.parametrize("kind", ["grey", "mean", "blur", "noise"])
def test_baseline_images(kind, x):
    made = baseline_image(x, kind)
    assert made.shape == x.shape and made.min() >= 0 and made.max() <= 1
    assert torch.equal(made, baseline_image(x, kind))
    if kind == "mean":
        assert torch.allclose(made[1, 2], x[1, 2].mean())
    if kind == "blur":
        assert torch.allclose(made.mean(), x.mean(), atol=0.02) and made.std() < 0.2 * x.std()
    if kind == "noise":
        assert not torch.equal(made, baseline_image(x, kind, seed=1)) and 0.25 < made.std() < 0.33


def test_wrong_arguments(x, net):
    with pytest.raises(ValueError, match=r"size must be between 1 and 72, .* got 73"):
        slide(net, x, size=73)
    with pytest.raises(ValueError, match="stride must be at least 1 pixel, got 0"):
        slide(net, x, stride=0)
    with pytest.raises(ValueError, match="'grey', 'mean', 'blur' or 'noise', got 'gray'"):
        baseline_image(x, "gray")
    with pytest.raises(ValueError, match="target 10 does not exist"):
        occlusion(net, x, 10)
    with pytest.raises(ValueError, match="NaN"):
        slide(net, x * torch.nan)
    with pytest.raises(ValueError, match=r"no layer '0\.9'"):
        slide(net, x, layer="0.9")


def test_a_wrong_class_is_an_error_after_one_forward_pass(x, net):
    images = 0

    def count(module: nn.Module, args: tuple[Tensor]) -> None:
        nonlocal images
        images += len(args[0])

    with net.register_forward_pre_hook(count), pytest.raises(ValueError, match="target 10 does"):
        occlusion(net, x, [3, 10])
    assert images == 1
