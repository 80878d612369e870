"""Shapley values against Captum, shap, plain loops and the four properties that define them."""

from itertools import permutations
from math import comb, factorial

import captum.attr
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vislib.explain import shapley
from vislib.explain.shapley import Game
from vislib.transforms import baseline_image

SEEDS = range(6)


def game(n: int, seed: int) -> Game:
    """A game with a random value for each coalition, also for the empty one."""
    table = torch.randn(2**n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lambda members: table[(members.long() * 2 ** torch.arange(n)).sum(1)]


def by_orders(value: Game, n: int) -> Tensor:
    """The mean contribution over all n! orders, in plain loops."""
    phi = torch.zeros(n, dtype=torch.float64)
    for order in permutations(range(n)):
        members = torch.zeros(1, n, dtype=torch.bool)
        for player in order:
            before = value(members)
            members[0, player] = True
            phi[player] += (value(members) - before)[0]
    return phi / factorial(n)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    return torch.allclose(a.double(), b.double(), rtol=0, atol=tolerance)


# --- Shapley values of any game -------------------------------------------------------------------


def test_the_weights_of_three_players():
    assert close(shapley.weights(3), torch.tensor([1 / 3, 1 / 6, 1 / 3], dtype=torch.float64))
    for n in range(1, 8):
        of_all = [shapley.weights(n)[s] * comb(n - 1, s) for s in range(n)]
        assert sum(of_all) == pytest.approx(1)
        for s in range(n):
            expected = factorial(s) * factorial(n - s - 1) / factorial(n)
            assert shapley.weights(n)[s] == pytest.approx(expected)


def test_coalitions_are_complete_and_numbered_by_bits():
    members = shapley.coalitions(4)
    assert members.shape == (16, 4) and len(members.unique(dim=0)) == 16
    assert ((members.long() * 2 ** torch.arange(4)).sum(1) == torch.arange(16)).all()
    for n in (0, 21):
        with pytest.raises(ValueError, match=r"use permutations\(\)"):
            shapley.coalitions(n)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_exact_is_the_mean_over_all_orders(n, seed):
    assert close(shapley.exact(game(n, seed), n), by_orders(game(n, seed), n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("seed", SEEDS)
def test_kernel_with_all_coalitions_is_exact(n, seed):
    assert close(shapley.kernel(game(n, seed), n), shapley.exact(game(n, seed), n))


@pytest.mark.parametrize("seed", SEEDS)
def test_kernel_with_equal_weights_is_not_exact(seed, monkeypatch):
    """The weights of the regression make the solution exact."""
    monkeypatch.setattr(shapley, "kernel_weights", lambda n: torch.ones(n - 1).double())
    apart = shapley.kernel(game(5, seed), 5) - shapley.exact(game(5, seed), 5)
    assert apart.abs().max() > 1e-3


METHODS = {
    "exact": shapley.exact,
    "permutations": lambda v, n: shapley.permutations(v, n, 12).values,
    "antithetic": lambda v, n: shapley.permutations(v, n, 12, antithetic=True).values,
    "kernel": shapley.kernel,
    "kernel by samples": lambda v, n: shapley.kernel(v, n, 40),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


@every_method
@pytest.mark.parametrize("seed", SEEDS)
def test_efficiency(method, seed):
    v = game(5, seed)
    none, everyone = v(torch.tensor([[False] * 5, [True] * 5]))
    assert method(v, 5).sum() == pytest.approx(float(everyone - none))


@pytest.mark.parametrize("method", [shapley.exact, shapley.kernel])
@pytest.mark.parametrize("seed", SEEDS)
def test_symmetry(method, seed):
    """Players 1 and 3 are interchangeable: the game depends on how many of them are present."""
    v, swap = game(5, seed), [0, 3, 2, 1, 4]
    phi = method(lambda members: v(members) + v(members[:, swap]), 5)
    assert phi[1] == pytest.approx(float(phi[3]))
    alone = method(v, 5)
    # Without the symmetrisation the values must differ, or nothing would be tested.
    assert abs(alone[1] - alone[3]) > 1e-3


@pytest.mark.parametrize("name", [name for name in METHODS if name != "kernel by samples"])
@pytest.mark.parametrize("seed", SEEDS)
def test_dummy(name, seed):
    """A regression on drawn coalitions is left out: it gives a dummy a small value."""
    method, v = METHODS[name], game(4, seed)
    phi = method(lambda members: v(members[:, [0, 1, 3, 4]]), 5)
    assert abs(phi[2]) < 1e-9 and (phi[[0, 1, 3, 4]].abs() > 1e-6).all()


@every_method
@pytest.mark.parametrize("seed", SEEDS)
def test_additivity(method, seed):
    v, w = game(5, seed), game(5, seed + 100)
    total = method(lambda members: 2 * v(members) - 3 * w(members), 5)
    assert close(total, 2 * method(v, 5) - 3 * method(w, 5))


@pytest.mark.parametrize("antithetic", [False, True])
def test_permutations_are_unbiased_with_correct_errors(antithetic):
    v, truth = game(6, 0), shapley.exact(game(6, 0), 6)
    runs = [shapley.permutations(v, 6, 40, antithetic=antithetic, seed=s) for s in range(300)]
    values = torch.stack([run.values for run in runs])
    error = torch.stack([run.standard_errors for run in runs]).square().mean(0).sqrt()
    assert ((values.mean(0) - truth).abs() < 4 * error / 300**0.5).all()
    assert (values.std(0) / error - 1).abs().max() < 0.2


def test_error_decreases_with_the_root_of_the_samples():
    v, truth = game(6, 1), shapley.exact(game(6, 1), 6)
    rms = []
    for samples in (10, 1000):
        runs = [shapley.permutations(v, 6, samples, seed=s).values for s in range(60)]
        rms.append(float((torch.stack(runs) - truth).square().mean().sqrt()))
    assert 8 < rms[0] / rms[1] < 12.5  # √100 = 10


def test_reverse_orders_are_exact_for_games_of_pairs():
    """In a game of single and pairwise terms, errors of early and late contributions cancel."""
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(7, generator=generator), torch.randn(7, 7, generator=generator)

    def v(members: Tensor) -> Tensor:
        z = members.float()
        return z @ a + ((z @ b) * z).sum(1)

    truth = shapley.exact(v, 7)
    assert close(shapley.permutations(v, 7, 2, antithetic=True).values, truth, 1e-5)
    assert not close(shapley.permutations(v, 7, 2).values, truth, 1e-2)


def test_sampled_kernel_approaches_the_exact_values():
    v, truth = game(8, 2), shapley.exact(game(8, 2), 8)
    errors = {}
    for samples in (60, 6000):
        runs = [shapley.kernel(v, 8, samples, seed=s) for s in range(20)]
        errors[samples] = float((torch.stack(runs) - truth).square().mean().sqrt())
    assert errors[6000] < 0.2 * errors[60] and errors[6000] < 0.05


def test_only_different_coalitions_are_evaluated():
    evaluated = []

    def v(members: Tensor) -> Tensor:
        evaluated.extend(map(tuple, members.tolist()))
        return members.sum(1)

    actual = shapley.permutations(v, 3, 50)
    assert len(evaluated) == len(set(evaluated)) == actual.evaluations == 8


def test_the_global_random_state_is_unchanged():
    before = torch.get_rng_state()
    shapley.permutations(game(4, 0), 4, 6)
    shapley.kernel(game(4, 0), 4, 20)
    assert torch.equal(before, torch.get_rng_state())


def test_wrong_arguments():
    v = game(4, 0)
    with pytest.raises(ValueError, match="at least one order"):
        shapley.permutations(v, 4, 0)
    with pytest.raises(ValueError, match="whole pairs"):
        shapley.permutations(v, 4, 3, antithetic=True)
    with pytest.raises(ValueError, match="whole pairs"):
        shapley.kernel(v, 4, 5)
    with pytest.raises(ValueError, match="do not determine"):
        shapley.kernel(game(12, 0), 12, 4)
    with pytest.raises(ValueError, match=r"must return 16 values, .*\(1,\)"):
        shapley.exact(lambda members: torch.zeros(1), 4)
    with pytest.raises(ValueError, match="NaN"):
        shapley.exact(lambda members: torch.full((len(members),), torch.nan), 4)


# --- Games on a table -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> Tensor:
    """Correlated features: the second is nearly the first."""
    rows = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    rows[:, 1] = rows[:, 0] + 0.2 * rows[:, 1]
    return 3 * rows + 7


def nonlinear(rows: Tensor) -> Tensor:
    """A model with products, for which the mean prediction is not that of the mean."""
    return rows[:, 0] * rows[:, 2] - rows[:, 1] ** 2 / 5 + (rows[:, 3] / 4).sin() * 9


def linear(rows: Tensor) -> Tensor:
    return rows @ torch.tensor([3.0, -2.0, 1.0, 0.5, 0.0], dtype=torch.float64)


def test_marginal_and_conditional_in_plain_loops(rows):
    x, width, members = rows[0] + 1, 0.7, shapley.coalitions(5)
    deviation = rows.numpy().std(axis=0)
    for game_of, own_width in ((shapley.marginal, np.inf), (shapley.conditional, width)):
        expected = []
        for coalition in members.tolist():
            total = mass = 0.0
            for row in rows:
                there = [i for i in range(5) if coalition[i]]
                d2 = [float((x[i] - row[i]) / deviation[i]) ** 2 for i in there]
                weight = np.exp(-np.mean(d2) / (2 * own_width**2)) if there else 1.0
                mixed = torch.stack([x[i] if coalition[i] else row[i] for i in range(5)])
                total, mass = total + weight * float(nonlinear(mixed[None])), mass + weight
            expected.append(total / mass)
        options = {} if game_of is shapley.marginal else {"width": width}
        actual = game_of(nonlinear, x, rows, **options)(members)
        assert close(actual, torch.tensor(expected, dtype=torch.float64), 1e-8)


def test_all_games_agree_on_the_full_and_empty_coalition(rows):
    x = rows[3]
    ends = torch.tensor([[False] * 5, [True] * 5])
    mean = nonlinear(rows).mean()
    for game_of in (shapley.marginal, shapley.conditional):
        assert close(game_of(nonlinear, x, rows)(ends), torch.stack([mean, nonlinear(x[None])[0]]))
    assert close(shapley.mean_input(nonlinear, x, rows)(ends)[1], nonlinear(x[None])[0])


def test_mean_input_is_marginal_only_for_a_linear_model(rows):
    members, x = shapley.coalitions(5), rows[0]
    for predict, same in ((linear, True), (nonlinear, False)):
        a = shapley.mean_input(predict, x, rows)(members)
        b = shapley.marginal(predict, x, rows)(members)
        assert close(a, b) == same


def test_shapley_values_of_a_linear_model(rows):
    phi = shapley.exact(shapley.marginal(linear, rows[0], rows), 5)
    gradient = torch.tensor([3.0, -2.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    assert close(phi, gradient * (rows[0] - rows.mean(0)))


def test_conditional_expectation_of_gaussian_features():
    """Two correlated Gaussian features: ``E[x_2 | x_1] = ρ x_1``, and a model that reads x_2."""
    generator = torch.Generator().manual_seed(5)
    rho, z = 0.9, torch.randn(100_000, 2, dtype=torch.float64, generator=generator)
    rows = torch.stack([z[:, 0], rho * z[:, 0] + (1 - rho**2) ** 0.5 * z[:, 1]], dim=1)
    x, first = torch.tensor([1.0, 1.0], dtype=torch.float64), torch.tensor([[True, False]])
    actual = shapley.conditional(lambda r: r[:, 1], x, rows, width=0.05)(first)
    assert float(actual) == pytest.approx(rho, abs=0.03)
    assert float(shapley.marginal(lambda r: r[:, 1], x, rows)(first)) == pytest.approx(0, abs=0.02)


def test_a_feature_that_the_model_ignores(rows):
    """Such a feature is a dummy of the marginal game, but not of the conditional game."""
    x = rows[0] + torch.tensor([6.0, 6.0, 0, 0, 0], dtype=torch.float64)

    def first(rows: Tensor) -> Tensor:
        return rows[:, 0]

    assert abs(shapley.exact(shapley.marginal(first, x, rows), 5)[1]) < 1e-9
    assert shapley.exact(shapley.conditional(first, x, rows), 5)[1] > 0.5


def test_a_narrow_kernel_and_a_constant_feature(rows):
    rows = rows.clone()
    rows[:, 4] = 1.0
    actual = shapley.conditional(nonlinear, rows[0], rows, width=1e-3)(shapley.coalitions(5))
    assert actual.isfinite().all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("game_of", [shapley.marginal, shapley.mean_input])
def test_against_shap(rows, game_of):
    shap = pytest.importorskip("shap", reason="shap is a peer only on Linux with Python < 3.12")
    used = rows if game_of is shapley.marginal else rows.mean(0, keepdim=True)

    def predict(array: np.ndarray) -> np.ndarray:
        return nonlinear(torch.from_numpy(np.asarray(array, dtype=np.float64))).numpy()

    x = rows[2].numpy()
    masker = shap.maskers.Independent(used.numpy(), max_samples=len(rows))
    peers = {
        "exact": shap.explainers.Exact(predict, masker)(x[None]).values[0],
        "kernel": shap.KernelExplainer(predict, used.numpy()).shap_values(
            x, nsamples=1000, silent=True, l1_reg=False
        ),
    }
    v = game_of(nonlinear, rows[2], rows)
    for name, expected in peers.items():
        for actual in (shapley.exact(v, 5), shapley.kernel(v, 5)):
            assert np.allclose(actual.numpy(), expected, atol=1e-6), name


def test_wrong_tables(rows):
    for x, background in [
        (rows, rows),
        (rows[0], rows[0]),
        (rows[0], rows[:0]),
        (rows[0, :3], rows),
    ]:
        with pytest.raises(ValueError, match="got shapes"):
            shapley.marginal(nonlinear, x, background)
    with pytest.raises(ValueError, match="width must be above 0, got 0"):
        shapley.conditional(nonlinear, rows[0], rows, width=0)


# --- Games on an image ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def x() -> Tensor:
    """Two smooth images of 96 pixels."""
    noise = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(noise, size=(96, 96), mode="bicubic").clamp(0, 1)


def squares(side: int, rows: int) -> Tensor:
    """rows² square segments."""
    index = torch.arange(side) * rows // side
    return index[:, None] * rows + index


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "resnet18"])
def test_against_captum(untrained, name, x):
    """Exact Shapley values of four segments, with another image as baseline."""
    model, image, parts = untrained(name), x[:1], squares(96, 2)
    baseline = x[1:]
    expected = captum.attr.ShapleyValues(model).attribute(
        image,
        baselines=baseline,
        target=7,
        feature_mask=parts[None, None],
        perturbations_per_eval=16,
    )
    game = shapley.image_game(model, image, 7, parts, baseline=baseline)
    actual = shapley.exact(game, 4)[parts]
    scale = float(expected.abs().max())
    assert scale > 0 and close(actual, expected[0, 0].detach(), 1e-4 * scale)
    all_orders = shapley.shapley(model, image, 7, segments=parts, baseline=baseline, samples=200)
    assert close(all_orders, expected[:, :1].detach(), 0.2 * scale)


def small() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(5), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(150, 40), nn.ReLU(), nn.Linear(40, 5)).eval()


def test_samples_against_captum(x):
    """Both are estimates, each within a few standard errors of the exact values."""
    model, parts = small(), squares(96, 3)
    v = shapley.image_game(model, x[:1], 2, parts)
    truth = shapley.exact(v, 9)
    own = shapley.permutations(v, 9, 60)
    assert ((own.values - truth).abs() < 4.5 * own.standard_errors).all()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        arguments = {"baselines": 0.5, "target": 2, "feature_mask": parts[None, None]}
        sampling = captum.attr.ShapleyValueSampling(model).attribute(
            x[:1], n_samples=60, perturbations_per_eval=64, **arguments
        )
        regression = captum.attr.KernelShap(model).attribute(
            x[:1], n_samples=300, perturbations_per_eval=64, **arguments
        )
    corner = [int((parts.flatten() == i).nonzero()[0]) for i in range(9)]
    assert ((sampling[0, 0].flatten()[corner] - truth).abs() < 4.5 * own.standard_errors).all()
    scale = float(truth.abs().max())
    assert (regression[0, 0].flatten()[corner] - truth).abs().max() < 0.25 * scale
    assert (shapley.kernel(v, 9, 400) - truth).abs().max() < 0.1 * scale


@pytest.mark.parametrize("kind", ["grey", "mean", "blur", "noise"])
def test_efficiency_on_images(x, kind):
    model, baseline = small(), baseline_image(x, kind)
    actual = shapley.shapley(model, x, [2, 4], segments=12, baseline=baseline, samples=4)
    assert actual.shape == (2, 1, 96, 96) and actual.dtype == x.dtype
    with torch.no_grad():
        for n, target in enumerate([2, 4]):
            parts = shapley.superpixels(x[n], 12)
            one_of_each = [actual[n, 0][parts == i].unique().item() for i in range(parts.max() + 1)]
            total = model(x[n : n + 1])[0, target] - model(baseline[n : n + 1])[0, target]
            assert sum(one_of_each) == pytest.approx(float(total), abs=1e-5)


def test_a_batch_is_its_images_and_segments_may_differ(x):
    model, parts = small(), torch.stack([squares(96, 2), squares(96, 3)])
    both = shapley.shapley(model, x, [1, 3], segments=parts, samples=4)
    for n, target in enumerate([1, 3]):
        one = shapley.shapley(model, x[n : n + 1], target, segments=parts[n], samples=4)
        assert close(both[n], one[0], 1e-6)


def test_the_model_runs_on_a_few_images_at_a_time(x, monkeypatch):
    batches = []
    model = small()
    model.register_forward_hook(lambda module, args, output: batches.append(len(output)))
    v = shapley.image_game(model, x[:1], 1, squares(96, 3))
    whole = v(shapley.coalitions(9))
    assert max(batches) <= 2**22 // (64 * 96 * 96) and sum(batches) == 512
    monkeypatch.setattr(shapley, "_FLOATS", 1)
    assert close(v(shapley.coalitions(9))[:4], whole[:4], 1e-5)
    again = shapley.image_game(model, x[:1], 1, squares(96, 3))
    batches.clear()
    again(shapley.coalitions(2).repeat(1, 5)[:, :9])
    assert max(batches) == 1


def test_superpixels_follow_edges_and_are_numbered():
    image = torch.zeros(3, 40, 60)
    image[:, :, 25:] = 0.9
    parts = shapley.superpixels(image, 12)
    assert parts.shape == (40, 60) and parts.dtype == torch.int64
    assert torch.equal(parts.unique(), torch.arange(int(parts.max()) + 1)) and parts.max() > 4
    assert not set(parts[:, :25].unique().tolist()) & set(parts[:, 25:].unique().tolist())
    assert not shapley.superpixels(image, 1).any()
    with pytest.raises(ValueError, match="count must be at least 1 segment, got 0"):
        shapley.superpixels(image, 0)


def test_a_single_segment_gets_the_whole_difference(x):
    model = small()
    actual = shapley.shapley(model, x[:1], 1, segments=1, samples=2)
    with torch.no_grad():
        total = model(x[:1])[0, 1] - model(torch.full_like(x[:1], 0.5))[0, 1]
    assert close(actual, total.expand(1, 1, 96, 96), 1e-5)


def test_wrong_images(x):
    model, parts = small(), squares(96, 2)
    for segments, message in [
        (parts[:50], r"segments must have the size of the image, \(96, 96\), got shape \(50, 96\)"),
        (parts.float(), "whole numbers, got torch.float32"),
        (parts * 2, "without a gap"),
        (parts - 1, "without a gap"),
    ]:
        with pytest.raises(ValueError, match=message):
            shapley.image_game(model, x[:1], 1, segments)
    with pytest.raises(ValueError, match=r"segments of 2 images must be H×W.*\(3, 96, 96\)"):
        shapley.shapley(model, x, 1, segments=torch.stack([parts] * 3))
    with pytest.raises(ValueError, match="one image, got 2"):
        shapley.image_game(model, x, 1, parts)
    with pytest.raises(ValueError, match="target 5 does not exist"):
        shapley.shapley(model, x, 5, segments=parts)
    with pytest.raises(ValueError, match="2 images need one target or 2"):
        shapley.shapley(model, x, [1, 2, 3], segments=parts)
    with pytest.raises(ValueError, match="whole pairs"):
        shapley.shapley(model, x, 1, segments=parts, samples=5)
