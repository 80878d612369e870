"""Images by optimisation: each part against plain loops, the ascent against known optima."""

import doctest
import itertools
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from vislib import nets, synthesis
from vislib.synthesis import (
    Objective,
    View,
    ascend,
    blur,
    channel,
    clip_small_norms,
    code,
    code_distance,
    content,
    diversity,
    dream,
    fourier,
    gram,
    jitter,
    l2,
    layer_norm,
    log_prior,
    log_probability,
    logit,
    maps_of,
    neuron,
    noise,
    pixels,
    similarity,
    style,
    tv,
    unit_mean,
    wobble,
)

double = partial(torch.rand, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return double(*shape, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    """``y = W x``: its maximum is known."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.w = nn.Linear(3 * 4 * 5, 2, bias=False).double()
        with torch.no_grad():
            self.w.weight.copy_(random(2, 60) - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.w(self.flat(x))


@pytest.fixture
def linear() -> Linear:
    return Linear()


@pytest.fixture(scope="module")
def smooth() -> nn.Module:
    """A small network in float64 whose scores are differentiable everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, 3), nn.Softplus()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()


# --- Objectives -----------------------------------------------------------------------------------

MAPS, GUIDE = random(2, 3, 4, 5), random(1, 3, 2, 2, seed=1)
LOGITS, IMAGE = random(2, 6, seed=2), random(2, 3, 4, 5, seed=3)
VIEW = View(IMAGE, LOGITS, {"a": MAPS}, [random(2, 7, seed=4)])


def variation(x: np.ndarray) -> float:
    channels, height, width = x.shape
    total = 0.0
    for k, i, j in itertools.product(range(channels), range(height), range(width)):
        total += abs(x[k, i, j] - x[k, i + 1, j]) if i + 1 < height else 0
        total += abs(x[k, i, j] - x[k, i, j + 1]) if j + 1 < width else 0
    return total


def gram_by_hand(maps: np.ndarray) -> np.ndarray:
    g = np.zeros((len(maps), len(maps)))
    for a, b in np.ndindex(*g.shape):
        for position in np.ndindex(*maps.shape[1:]):
            g[a, b] += maps[a][position] * maps[b][position]
    return g


def style_by_hand(maps: np.ndarray, target: np.ndarray) -> float:
    """Gatys' equation 4, with each Gram matrix divided by its number of positions."""
    a, b = (gram_by_hand(m) / m[0].size for m in (maps, target))
    return -((a - b) ** 2).sum() / (4 * len(maps) ** 2)


def similarity_by_hand(maps: np.ndarray, guide: np.ndarray) -> float:
    total = 0.0
    for i, j in np.ndindex(*maps.shape[1:]):
        total += max(maps[:, i, j] @ guide[:, p, q] for p, q in np.ndindex(*guide.shape[1:]))
    return total / maps[0].size


def diversity_by_hand(maps: np.ndarray) -> list[float]:
    one, two = (gram_by_hand(m) for m in maps)
    return [-(one * two).sum() / np.sqrt((one**2).sum() * (two**2).sum())] * 2


BY_HAND = {
    "logit": (logit([5, 1]), lambda n: LOGITS[n, [5, 1][n]]),
    "log_probability": (
        log_probability(4),
        lambda n: np.log(np.exp(LOGITS[n, 4]) / np.exp(LOGITS[n]).sum()),
    ),
    "channel": (channel("a", 2), lambda n: MAPS[n, 2].mean()),
    "channels": (channel("a", [2, 0]), lambda n: MAPS[n, [2, 0][n]].mean()),
    "neuron": (neuron("a", 1), lambda n: MAPS[n, 1, 2, 2]),
    "layer_norm": (layer_norm("a"), lambda n: (MAPS[n] ** 2).sum() / 60),
    "similarity": (
        similarity("a", GUIDE),
        lambda n: similarity_by_hand(MAPS[n].numpy(), GUIDE[0].numpy()),
    ),
    "diversity": (diversity("a"), lambda n: diversity_by_hand(MAPS.numpy())[n]),
    "content": (content("a", MAPS[:1]), lambda n: -0.5 * ((MAPS[n] - MAPS[0]) ** 2).sum()),
    "style": (style("a", GUIDE), lambda n: style_by_hand(MAPS[n].numpy(), GUIDE[0].numpy())),
    "l2": (l2(0.3), lambda n: ((IMAGE[n] - 0.3) ** 2).sum()),
    "tv": (tv(), lambda n: variation(IMAGE[n].numpy())),
    "code": (code_distance(0.1), lambda n: ((VIEW.parameters[0][n] - 0.1) ** 2).sum()),
}


@pytest.mark.parametrize(("objective", "by_hand"), BY_HAND.values(), ids=BY_HAND.keys())
def test_objectives_equal_plain_loops(objective, by_hand):
    expected = [float(by_hand(n)) for n in range(2)]
    assert objective.score(VIEW).tolist() == pytest.approx(expected, rel=1e-9)


def test_objectives_add_up():
    total = (logit(0) + 2 * tv() - l2() * 0.5).score(VIEW)
    parts = logit(0).score(VIEW) + 2 * tv().score(VIEW) - 0.5 * l2().score(VIEW)
    assert torch.allclose(total, parts)
    assert (channel("a", 0) + neuron("b", 0) - layer_norm("a")).layers == ("a", "b")


def test_the_examples_of_the_module_run():
    assert doctest.testmod(synthesis).failed == 0


def test_gram_does_not_depend_on_positions():
    shuffled = MAPS.flatten(2)[..., torch.randperm(20)].view_as(MAPS)
    assert torch.allclose(gram(shuffled), gram(MAPS))
    assert torch.allclose(gram(3 * MAPS), 9 * gram(MAPS))
    assert not torch.allclose(gram(MAPS.flip(1)), gram(MAPS))
    eigenvalues = torch.linalg.eigvalsh(gram(MAPS))
    assert (eigenvalues > -1e-9).all()


@pytest.mark.parametrize("channels", [1, 2])
def test_prior_equals_the_density_with_its_full_covariance(channels):
    """The covariance of the prior does not change under cyclic shifts; here it is a full matrix."""
    data = random(6, channels, 4, 4, seed=8)
    mean = data.mean(dim=(0, 2, 3), keepdim=True)
    log_p = log_prior(data)
    x = random(2, channels, 4, 4, seed=9)
    # The matrix of the quadratic form, from its second differences, is negative definite.
    quadratic = lambda v: float(log_p.score(View((mean + v)[:1]))[0])  # noqa: E731
    basis = torch.eye(16 * channels, dtype=torch.float64).view(-1, 1, channels, 4, 4)
    H = np.array([[quadratic(a + b) - quadratic(a) - quadratic(b) for a in basis] for b in basis])
    v = (x[0] - mean[0]).flatten().numpy()
    assert quadratic(x[:1] - mean) == pytest.approx(0.5 * v @ H @ v)
    assert np.linalg.eigvalsh(H).max() < 0
    # Minus its inverse is the covariance, whose trace is the variance of the data. It does not
    # change when all pixels are shifted.
    covariance = np.linalg.inv(-H)
    variance = ((data - mean) ** 2).mean() + 1e-4
    assert np.trace(covariance) / len(covariance) == pytest.approx(float(variance))
    rolled = torch.arange(16 * channels).view(channels, 4, 4).roll((1, 2), (1, 2)).flatten().numpy()
    assert np.allclose(covariance[np.ix_(rolled, rolled)], covariance)


def test_prior_prefers_images_like_its_data_to_shuffled_ones():
    x = torch.cat([noise(8, 3, 16, 16, seed=s).cumsum(-1).cumsum(-2) / 128 for s in (0, 1)])
    log_p = log_prior(x[:8])
    similar, shuffled = x[8:], x[8:].flatten(2)[..., torch.randperm(256)].view(8, 3, 16, 16)
    assert (log_p.score(View(similar)) > log_p.score(View(shuffled))).all()


# --- Transforms and edits -------------------------------------------------------------------------


def test_blur_is_scipys_gaussian():
    x = random(2, 3, 17, 12)
    expected = gaussian_filter(x.numpy(), (0, 0, 1.5, 1.5), mode="nearest", radius=[0, 0, 4, 4])
    assert np.allclose(blur(1.5)(x).numpy(), expected, atol=1e-6)


def test_clip_small_norms_by_hand():
    x = random(2, 3, 5, 4)
    clipped = clip_small_norms(30, 0.5)(x)
    for image, result in zip(x, clipped, strict=True):
        norms = (image - 0.5).square().sum(0).sqrt()
        small = norms < np.percentile(norms, 30)
        assert small.sum() == 6
        assert (result[:, small] == 0.5).all()
        assert torch.equal(result[:, ~small], image[:, ~small])


def test_jitter_shifts_and_wobble_rotates():
    x, generator = random(1, 3, 9, 9), torch.Generator().manual_seed(0)
    moved = [jitter(2)(x, generator) for _ in range(60)]
    shifts = list(itertools.product(range(-2, 3), repeat=2))
    drawn = {next(s for s in shifts if torch.equal(x.roll(s, (-2, -1)), one)) for one in moved}
    assert len(drawn) > 15
    assert torch.allclose(wobble(0, 0)(x, generator), x)
    assert not torch.allclose(wobble(20, 0)(x, generator), x, atol=0.01)
    uniform = torch.full_like(x, 0.3)
    assert torch.allclose(wobble(20, 0.3)(uniform, generator), uniform)


def test_unit_mean_scales_each_gradient():
    g = random(2, 3, 4, 4) * torch.tensor([1.0, 100.0]).view(2, 1, 1, 1)
    assert unit_mean(g).abs().mean(dim=(1, 2, 3)).tolist() == pytest.approx([1, 1])
    assert unit_mean(torch.zeros(1, 3, 2, 2)).abs().max() == 0


# --- Parametrisations -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (9, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_fourier_returns_its_starting_image(size, channels):
    x = 0.05 + 0.9 * random(2, channels, *size)
    assert torch.allclose(fourier(x).image(), x, atol=1e-6)
    assert torch.allclose(fourier(x, decay=2, colours=2 * torch.eye(channels)).image(), x)


def test_fourier_is_the_sum_of_its_waves():
    """One coefficient is a wave of one colour with amplitude 1/f, passed through the sigmoid."""
    theta = fourier(torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64))
    with torch.no_grad():
        theta.parameters[0][0, 1, 2, 3, 0] = 1.0  # colour 1, 2 waves down, 3 across, cosine
    i, j = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    wave = 2 * torch.cos(2 * torch.pi * (2 * i + 3 * j) / 8) / 8 / (13**0.5 / 8)
    expected = (synthesis.COLOURS[:, 1].view(3, 1, 1) * wave).sigmoid()
    assert torch.allclose(theta.image()[0], expected.double(), atol=1e-6)


def test_colours_are_those_of_the_photographs():
    """The colours of Emoji COCO have this covariance, up to a factor (on half of the scenes)."""
    from vislib.data.coco import Coco
    from vislib.data.images import to_tensor
    from vislib.paths import DATA

    coco = Coco(DATA / "emoji_coco", "val")
    numbers = coco.image_ids()[::5]
    colours = torch.cat([to_tensor(coco.image(n)).flatten(1)[:, ::97] for n in numbers], 1)
    covariance = torch.cov(colours)
    root = synthesis.COLOURS @ synthesis.COLOURS.t()
    assert np.corrcoef(covariance.flatten(), root.flatten())[0, 1] > 0.98
    ratio = torch.linalg.eigvalsh(covariance) / torch.linalg.eigvalsh(root)
    assert ratio.max() < 3 * ratio.min()


def test_code_optimises_through_the_decoder():
    """With a linear decoder and a linear score the best code is known."""
    D = (random(6, 60) - 0.5) / 40
    start = torch.zeros(1, 6, dtype=torch.float64)
    model = Linear()
    J = logit(1) - 0.1 * code_distance()
    theta = code(lambda z: (0.5 + z @ D).view(-1, 3, 4, 5), start)
    z = ascend(model, J, theta, steps=300, optimiser=partial(torch.optim.SGD, lr=1)).parameters[0]
    assert torch.allclose(z[0], D @ model.w.weight[1].detach() / 0.2, atol=1e-9)


# --- The loop -------------------------------------------------------------------------------------


def test_ascent_reaches_the_optimum_of_a_linear_network(linear):
    rate = partial(torch.optim.SGD, lr=1, momentum=0.9)
    result = ascend(linear, logit([0, 1]), random(2, 3, 4, 5), steps=200, optimiser=rate)
    best = (linear.w.weight.detach() > 0).double().view(2, 3, 4, 5)
    assert torch.equal(result.image, best)
    assert (result.trace.diff(dim=0) >= -1e-12).all()
    assert result.trace.shape == (200, 2)
    assert result.trace[-1].tolist() == pytest.approx(
        linear.w.weight.clamp(min=0).sum(dim=1).tolist()
    )


def test_ascent_with_l2_reaches_the_prototype(linear):
    """``w·x − λ‖x − c‖²`` has its maximum at ``c + w / 2λ``, clipped."""
    result = ascend(linear, logit(0) - 0.35 * l2(0.4), random(1, 3, 4, 5), steps=250)
    expected = (0.4 + linear.w.weight[0] / 0.7).clamp(0, 1).view(1, 3, 4, 5)
    assert 0 < int((expected == 0).sum()) < 60
    assert torch.allclose(result.image, expected, atol=1e-9)


LAYERED = {
    "logit": lambda: logit(1),
    "log_probability": lambda: log_probability(2),
    "channel": lambda: channel("1", 2),
    "layer_norm": lambda: layer_norm("3"),
    "style": lambda: style("1", random(1, 4, 3, 3)),
    "content": lambda: content("3", random(1, 5, 4, 4)) - 0.1 * tv(),
    "prior": lambda: log_prior(random(4, 3, 8, 8, seed=5)),
}


@pytest.mark.parametrize("objective", LAYERED.values(), ids=LAYERED.keys())
def test_a_step_follows_the_finite_differences(smooth, objective):
    x, J, h = 0.25 + 0.5 * random(1, 3, 8, 8), objective(), 1e-6

    def value(image: Tensor) -> float:
        return float(ascend(smooth, J, image, steps=1).trace[0, 0])

    rate = 1e-5
    after = ascend(smooth, J, x, steps=1, optimiser=partial(torch.optim.SGD, lr=rate)).image
    for pixel in [(0, 0, 0, 0), (0, 1, 4, 3), (0, 2, 7, 7), (0, 0, 2, 5)]:
        step = torch.zeros_like(x)
        step[pixel] = h
        gradient = (value(x + step) - value(x - step)) / (2 * h)
        assert float((after - x)[pixel]) / rate == pytest.approx(gradient, rel=1e-4, abs=1e-7)


def test_images_of_a_batch_are_independent_and_seeds_repeat():
    model = nets.load("emoji_allconv")
    x = noise(2, 3, 32, 32)
    state = torch.get_rng_state()
    settings = {"steps": 4, "transforms": [jitter(4), wobble()], "edits": [blur(0.5)]}
    both = ascend(model, logit([3, 5]), x, **settings).image
    again = ascend(model, logit([3, 5]), x, **settings).image
    alone = ascend(model, logit(5), x[1:], **settings).image
    other = ascend(model, logit(5), x[1:], **settings, seed=1).image
    assert torch.equal(both, again)
    assert torch.allclose(both[1:], alone, atol=1e-5)
    assert not torch.allclose(other, alone, atol=1e-3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(noise(2, 3, 32, 32), x)


@pytest.mark.parametrize("start", [pixels, fourier])
def test_images_stay_between_0_and_1(start):
    model = nets.load("emoji_allconv")
    x = noise(1, 3, 32, 32)
    result = ascend(model, logit(0), start(x), steps=5, optimiser=partial(torch.optim.Adam, lr=1))
    assert result.image.min() >= 0 and result.image.max() <= 1
    assert result.trace[-1] > result.trace[0]
    assert torch.equal(noise(1, 3, 32, 32), x)  # the starting image is not changed


def test_maps_before_and_after_the_relu_in_place(untrained):
    model = untrained("vgg11")
    x = noise(1, 3, 64, 64)
    maps = maps_of(model, x, "features.3", "features.4")
    assert maps["features.3"].min() < 0
    assert torch.equal(maps["features.3"].clamp(min=0), maps["features.4"])
    dead = int(maps["features.3"][0].amax((1, 2)).argmin())
    assert maps["features.3"][0, dead].max() < 0, "this test needs a channel that is never active"
    after = ascend(model, channel("features.4", dead), x, steps=3)
    before = ascend(model, channel("features.3", dead), x, steps=3)
    # There is no gradient through an inactive ReLU, so the image does not change.
    assert torch.equal(after.image, x)
    assert before.trace[-1] > before.trace[0]


@pytest.mark.parametrize(
    "name", ["alexnet", "squeezenet1_1", "resnet18", "googlenet", "densenet121"]
)
def test_ascent_works_on_any_network(untrained, name):
    model = untrained(name)
    result = ascend(
        model,
        logit(7),
        noise(1, 3, 96, 96),
        steps=3,
        optimiser=partial(torch.optim.SGD, lr=0.01),
        rescale=unit_mean,
    )
    assert result.trace[-1] > result.trace[0]


def test_an_interrupt_returns_the_result_so_far(linear):
    def stop(step: int, image: Tensor) -> None:
        assert image.shape == (1, 3, 4, 5)
        if step == 3:
            raise KeyboardInterrupt

    complete = ascend(linear, logit(0), random(1, 3, 4, 5), steps=3)
    result = ascend(linear, logit(0), random(1, 3, 4, 5), steps=50, watch=stop)
    assert len(result.trace) == len(result.seconds) == 3
    assert torch.equal(result.image, complete.image)
    assert list(result.seconds) == sorted(result.seconds)


def test_lbfgs_solves_a_quadratic_sooner_than_sgd(smooth):
    P = maps_of(smooth, random(1, 3, 8, 8, seed=6), "0")["0"]
    x = random(1, 3, 8, 8, seed=7)
    losses = [
        float(-ascend(smooth, content("0", P), x, steps=40, optimiser=o).trace[-1, 0])
        for o in (synthesis.lbfgs, synthesis.sgd)
    ]
    assert losses[0] < 0.2 * losses[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"objective": channel("nowhere", 0)}, "no layer 'nowhere'"),
        ({"objective": logit(2)}, "target 2 does not exist"),
        ({"objective": Objective(lambda view: view.logits)}, r"got shape \(1, 2\)"),
        ({"objective": Objective(lambda view: view.logits[:, 0] * torch.nan)}, "smaller steps"),
        (
            {"start": fourier(torch.ones(1, 3, 4, 5)), "edits": [blur(1)]},
            "edits work only on pixels",
        ),
        ({"start": torch.ones(3, 4, 5)}, r"image\[None\]"),
    ],
)
def test_bad_arguments_are_refused(linear, settings, message):
    with pytest.raises(ValueError, match=message):
        ascend(**({"model": linear, "objective": logit(0), "start": IMAGE[:1]} | settings))


# --- Dreams ---------------------------------------------------------------------------------------


def test_dream_goes_through_its_octaves():
    model = nets.load("emoji_allconv")
    photo, sizes = noise(1, 3, 48, 64, std=0.05), []
    J = layer_norm("net.features.4")
    settings = {"octaves": 3, "ratio": 1.5, "steps": 3, "lr": 0.02}
    dreamt = dream(model, J, photo, **settings, watch=lambda k, x: sizes.append((k, *x.shape[2:])))
    assert sizes == [(0, 21, 28), (1, 32, 43), (2, 48, 64)]
    value = {
        name: float(maps_of(model, x, "net.features.4")["net.features.4"].square().mean())
        for name, x in (("photo", photo), ("dream", dreamt))
    }
    assert value["dream"] > 2 * value["photo"]
    assert dreamt.min() >= 0 and dreamt.max() <= 1
    assert torch.equal(dream(model, J, photo, **settings), dreamt)
    for wrong in ({"octaves": 0}, {"ratio": 1.0}):
        with pytest.raises(ValueError, match="octaves must be at least 1 and ratio above 1, got"):
            dream(model, J, photo, **wrong)


def test_one_octave_equals_an_ascent():
    model = nets.load("emoji_allconv")
    x, J = noise(1, 3, 40, 40), layer_norm("net.features.2")
    step = partial(torch.optim.SGD, lr=0.01)
    plain = ascend(model, J, x, steps=4, optimiser=step, transforms=[jitter(16)], rescale=unit_mean)
    assert torch.allclose(dream(model, J, x, octaves=1, steps=4), plain.image, atol=1e-6)
