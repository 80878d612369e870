"""Attacks against torchattacks and against loops in float64, and the properties they guarantee.

The bound on the norm is tested in exact arithmetic, with fractions.
"""

from __future__ import annotations

import itertools
import math
import runpy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchattacks
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vislib import attacks, nets
from vislib.attacks import (
    bim,
    eot,
    fgsm,
    pgd,
    project,
    projected_gradient_ascent,
    random_view,
)
from vislib.data.coco import Coco
from vislib.data.images import resize, to_tensor
from vislib.explain import cam
from vislib.nets import training
from vislib.paths import DATA
from vislib.widgets import attacks as widgets


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """A small smooth network of five classes in float64; each logit depends on every pixel."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(96, 5)).double().eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    """Images that touch 0 and 1."""
    values = torch.rand(3, 3, 12, 10, generator=torch.Generator().manual_seed(1)).double()
    return (1.4 * values - 0.2).clamp(0, 1)


@pytest.fixture(scope="module")
def scenes() -> tuple[nets.Classifier, Tensor, Tensor]:
    """A course network, six scenes that it classifies correctly, and their classes."""
    model = nets.load("emoji_allconv")
    coco = Coco(DATA / "emoji_coco", "val")
    ids = coco.image_ids()
    single = [i for i in ids if len(coco.objects(i)) == 1]
    images, classes = [], []
    for i in single:
        image = resize(to_tensor(coco.image(i)), (64, 64))
        category = model.classes.index(coco.objects(i)[0])
        if int(model(image[None]).argmax()) == category:
            images.append(image)
            classes.append(category)
        if len(images) == 6:
            return model, torch.stack(images), torch.tensor(classes)
    raise AssertionError("too few scenes")


# --- Independent implementations ------------------------------------------------------------------


def by_loops(model, x, target, *, epsilon, norm, steps, step_size, targeted):
    """The iterates, one image and one value at a time, in float64."""
    results = []
    for image, c in zip(x, target, strict=True):
        y = image.clone()
        for _ in range(steps):
            y = y.requires_grad_()
            loss = F.cross_entropy(model(y[None]), c[None])
            g = torch.autograd.grad(-loss if targeted else loss, y)[0].flatten().tolist()
            length = math.sqrt(sum(v * v for v in g))
            new, old = y.detach().flatten().tolist(), image.flatten().tolist()
            delta = []
            for a, b, gradient in zip(new, old, g, strict=True):
                if norm == "linf":
                    moved = a + step_size * ((gradient > 0) - (gradient < 0)) - b
                    delta.append(max(-epsilon, min(epsilon, moved)))
                else:
                    delta.append(a + step_size * gradient / length - b)
            if norm == "l2":
                norm_of_delta = math.sqrt(sum(v * v for v in delta))
                delta = [v * min(1, epsilon / norm_of_delta) for v in delta]
            clipped = [max(0.0, min(1.0, b + v)) for b, v in zip(old, delta, strict=True)]
            y = torch.tensor(clipped, dtype=x.dtype).view_as(image)
        results.append(y)
    return torch.stack(results)


SETTINGS = list(itertools.product([("linf", 0.03), ("l2", 0.4)], [1, 7], [False, True]))


@pytest.mark.parametrize(("kind", "steps", "targeted"), SETTINGS)
@pytest.mark.parametrize("attack", [bim, eot])
def test_iterates_equal_plain_loops(net, x, attack, kind, steps, targeted):
    norm, epsilon = kind
    target = torch.tensor([0, 2, 4])
    options = {"epsilon": epsilon, "norm": norm, "steps": steps, "step_size": 0.4 * epsilon}
    actual = attack(net, x, target, targeted=targeted, **options)
    expected = by_loops(net, x, target, targeted=targeted, **options)
    assert (actual - expected).abs().max() < 1e-12
    assert (actual - x).abs().max() > 0.3 * epsilon / (1 if norm == "linf" else x[0].numel() ** 0.5)


@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize("targeted", [False, True])
def test_all_attacks_take_the_same_steps(net, x, norm, targeted):
    """Each attack has its own loop: with the same start and steps they must agree bit for bit."""
    options = {"epsilon": 0.1, "norm": norm, "targeted": targeted}
    one_step = bim(net, x, 1, **options, steps=1, step_size=0.1)
    assert torch.equal(fgsm(net, x, 1, **options), one_step)
    assert torch.equal(eot(net, x, 1, **options), bim(net, x, 1, **options))
    assert torch.equal(eot(net, x, 1, random_start=True, **options), pgd(net, x, 1, **options))


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1"])
@pytest.mark.parametrize("targeted", [False, True])
def test_iterates_equal_torchattacks(untrained, name, targeted):
    model = untrained(name).double()
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2)).double()
    target = torch.tensor([3, 700])
    e, a = 4 / 255, 1 / 255
    # By default torchattacks adds this number to a length, which makes the step shorter.
    small = {"eps_for_division": 0}
    pairs = [
        (torchattacks.FGSM(model, eps=e), fgsm, {"epsilon": e}),
        (
            torchattacks.PGD(model, eps=e, alpha=a, steps=4, random_start=False),
            bim,
            {"epsilon": e, "steps": 4, "step_size": a},
        ),
        (
            torchattacks.PGDL2(model, eps=0.5, alpha=0.2, steps=4, random_start=False, **small),
            bim,
            {"epsilon": 0.5, "norm": "l2", "steps": 4, "step_size": 0.2},
        ),
    ]
    try:
        for peer, method, options in pairs:
            if targeted:
                peer.set_mode_targeted_by_function(lambda images, labels: labels)
            attacked = method(model, image, target, targeted=targeted, **options)
            assert (peer(image, target) - attacked).abs().max() < 1e-9, type(peer).__name__
            assert not torch.equal(attacked, image)
    finally:
        model.float()


def test_success_equals_torchattacks(scenes):
    """PGD from other random starts: other iterates, but the same number of wrong predictions."""
    model, image, target = scenes
    options = {"eps": 4 / 255, "alpha": 1 / 255, "steps": 10}
    with torch.random.fork_rng():
        peer = torchattacks.PGD(model, **options)(image, target)
    mine = pgd(model, image, target, epsilon=4 / 255, step_size=1 / 255, steps=10)
    wrong = [int((model(y).argmax(1) != target).sum()) for y in (peer, mine)]
    assert abs(wrong[0] - wrong[1]) <= 1 and wrong[1] >= 4


def test_fgsm_of_a_linear_network_equals_the_formula():
    weights = torch.tensor([-1.0, -1, 1, -1, 1, -1, 1, 1, -1, 1, 0, 0]).view(1, 12)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.cat([torch.zeros_like(weights), weights]))
    image = torch.full((1, 3, 2, 2), 0.5)
    attacked = fgsm(model, image, 1, epsilon=0.125)
    assert torch.equal((attacked - image).flatten(), -0.125 * weights[0].sign())
    with torch.no_grad():
        drop = (model(image) - model(attacked))[0]
    assert (drop[1] - drop[0]).item() == pytest.approx(0.125 * weights.abs().sum().item())


# --- The bound on the norm ------------------------------------------------------------------------


def exact_norm(x: Tensor, y: Tensor, norm: str) -> Fraction:
    """The largest change of one image, or the square of its length, without any rounding."""
    changes = [
        Fraction(b) - Fraction(a)
        for a, b in zip(x.flatten().tolist(), y.flatten().tolist(), strict=True)
    ]
    return max(map(abs, changes)) if norm == "linf" else sum((c * c for c in changes), Fraction(0))


@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_bound_on_the_norm_is_exact(norm, dtype):
    rng = np.random.default_rng(0)
    for trial in range(60):
        epsilon = float(10 ** rng.uniform(-6, 0)) if trial else 8 / 255
        spread = torch.from_numpy(10 ** rng.uniform(-7, 0, (1, 3, 5, 6)))
        x = torch.from_numpy(rng.random((1, 3, 5, 6)) ** rng.integers(1, 9)).to(dtype)
        y = (x + torch.from_numpy(rng.standard_normal((1, 3, 5, 6))) * spread).to(dtype)
        projected = project(x, y, epsilon, norm)
        limit = Fraction(epsilon) if norm == "linf" else Fraction(epsilon) ** 2
        assert exact_norm(x, projected, norm) <= limit, (trial, epsilon)
        assert projected.min() >= 0 and projected.max() <= 1
        assert projected.dtype == dtype and projected.shape == x.shape


def test_naive_projection_exceeds_the_bound():
    """The test above can fail: ``x + clamp(y − x)`` is rounded towards x or away from it."""
    x = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    naive = (x + torch.full_like(x, 8 / 255)).clamp(0, 1)
    assert exact_norm(x, naive, "linf") > Fraction(8 / 255)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_projection_keeps_allowed_images_and_reaches_the_bound(norm):
    x = torch.full((2, 3, 4, 4), 0.5)
    epsilon = 0.25 if norm == "linf" else 1.0
    y = x + torch.tensor([0.01, 0.4]).view(2, 1, 1, 1)
    projected = project(x, y, epsilon, norm)
    assert torch.allclose(projected[0], y[0], rtol=0, atol=1e-7)
    change = (projected[1] - x[1]).abs()
    reached = change.max() if norm == "linf" else change.norm()
    assert reached == pytest.approx(epsilon, rel=1e-5)
    assert torch.allclose(project(x, project(x, y, epsilon, norm), epsilon, norm), projected)


@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize("attack", [bim, pgd, eot])
def test_attacks_keep_the_bound(net, x, norm, attack):
    epsilon = 0.1 if norm == "linf" else 0.7
    for dtype in (torch.float32, torch.float64):
        image = x[:1].to(dtype)
        attacked = attack(net.to(dtype), image, 1, epsilon=epsilon, norm=norm, steps=3)
        limit = Fraction(epsilon) if norm == "linf" else Fraction(epsilon) ** 2
        assert exact_norm(image, attacked, norm) <= limit
        assert attacked.dtype == dtype and attacked.min() >= 0 and attacked.max() <= 1
        assert not attacked.requires_grad
    net.double()


def test_epsilon_zero_or_a_zero_gradient_changes_nothing(net, x):
    assert torch.equal(pgd(net, x, 1, epsilon=0), x)
    for norm in attacks.NORMS:
        constant = projected_gradient_ascent(
            lambda y: 0 * y.sum((1, 2, 3)), x, epsilon=0.1, norm=norm
        )
        assert torch.equal(constant, x)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e20])
def test_directions_do_not_depend_on_the_scale(scale):
    gradient = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for norm in attacks.NORMS:
        assert torch.allclose(
            attacks.direction(gradient * scale, norm), attacks.direction(gradient, norm), atol=1e-6
        )


def test_random_starts_are_reproducible_and_fill_the_ball(net, x):
    state = torch.get_rng_state()
    options = {"epsilon": 0.2, "steps": 1, "step_size": 0.0}
    seeds = [torch.Generator().manual_seed(s) for s in (5, 5, 6)]
    first, same, other = (pgd(net, x, 1, generator=g, **options) for g in seeds)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(pgd(net, x, 1, **options), pgd(net, x, 1, **options))
    assert torch.equal(torch.get_rng_state(), state)
    grey = torch.full_like(x, 0.5)
    change = (pgd(net, grey, 1, **options) - grey).abs()
    assert change.mean() == pytest.approx(0.1, rel=0.1) and change.max() > 0.19
    for norm, length in (("linf", 0.2 * x[0].numel() ** 0.5), ("l2", 0.2)):
        noisy = attacks.add_noise(grey, epsilon=0.2, norm=norm)
        lengths = (noisy - grey).flatten(1).norm(dim=1)
        assert torch.allclose(lengths, torch.full_like(lengths, length), rtol=1e-6)


# --- Success of the attacks -----------------------------------------------------------------------


def test_attacks_succeed_and_noise_of_the_same_norm_does_not(scenes):
    model, image, target = scenes

    def loss(y: Tensor) -> float:
        with torch.no_grad():
            return F.cross_entropy(model(y), target).item()

    for norm, epsilon in (("linf", 4 / 255), ("l2", 1.5)):
        noisy = attacks.add_noise(image, epsilon=epsilon, norm=norm)
        one_step = fgsm(model, image, target, epsilon=epsilon, norm=norm)
        ten_steps = bim(model, image, target, epsilon=epsilon, norm=norm, steps=10)
        assert loss(ten_steps) > loss(one_step) > loss(noisy) + 0.5
        assert (model(noisy).argmax(1) == target).sum() >= 5
        assert (model(ten_steps).argmax(1) != target).sum() >= 5


def test_targeted_attacks_reach_the_target_class(scenes):
    model, image, classes = scenes
    target = (classes + 5) % 16
    attacked = bim(model, image, target, epsilon=8 / 255, steps=20, targeted=True)
    assert (model(attacked).argmax(1) == target).sum() >= 5
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    fooling = bim(model, noise, 3, epsilon=1, step_size=0.02, steps=20, targeted=True)
    assert model(fooling).softmax(1)[0, 3] >= 0.99


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "densenet121"])
def test_fgsm_works_on_any_network(untrained, name):
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    model = untrained(name)
    with torch.no_grad():
        before = model(image).log_softmax(1)[0, 7]
        after = model(fgsm(model, image, 7, epsilon=0.01)).log_softmax(1)[0, 7]
    assert after < before


def test_a_network_may_overwrite_its_input(net, x):
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return net(x.sub_(0.25).add_(0.25))

    pixels = x.clone()
    assert torch.allclose(fgsm(Centred(), x, 1, epsilon=0.1), fgsm(net, x, 1, epsilon=0.1))
    assert torch.equal(x, pixels)


# --- Transformations ------------------------------------------------------------------------------


def test_expectation_is_the_mean_of_the_losses(net, x):
    """One step, with a transform whose two results are known exactly."""
    factors = iter([0.5, 1.0] * 2)
    attacked = eot(
        net,
        x,
        [0, 1, 2],
        epsilon=0.3,
        norm="l2",
        steps=1,
        step_size=0.3,
        transform=lambda y, generator: y * next(factors),
        samples=2,
    )
    y = x.clone().requires_grad_()
    target = torch.tensor([0, 1, 2])
    losses = [F.cross_entropy(net(k * y), target, reduction="sum") for k in (0.5, 1.0)]
    (gradient,) = torch.autograd.grad(sum(losses), y)
    gradient = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(attacked, (x + 0.3 * gradient).clamp(0, 1), atol=1e-9)
    plain = bim(net, x, 1, epsilon=0.1, steps=3)
    same = eot(net, x, 1, epsilon=0.1, steps=3, transform=lambda y, g: y, samples=3)
    assert torch.allclose(plain, same, atol=1e-12)


def test_transforms_draw_from_the_generator(net, x):
    state = torch.get_rng_state()
    options = {"epsilon": 0.1, "steps": 2, "transform": random_view, "samples": 2}
    seeds = [torch.Generator().manual_seed(s) for s in (5, 5, 6)]
    first, same, other = (eot(net, x, 1, generator=g, **options) for g in seeds)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("draw", "options", "expected"),
    [
        ((0.5, 0.5, 0.5), {}, lambda x: x),
        ((1.0, 0.5, 0.5), {"angle": 90}, lambda x: torch.rot90(x, 1, (2, 3))),
        ((0.0, 0.5, 0.5), {"angle": 90}, lambda x: torch.rot90(x, -1, (2, 3))),
        ((0.5, 1.0, 0.5), {"zoom": 2}, lambda x: None),
        ((0.5, 0.5, 1.0), {"light": 0.5}, lambda x: (1.5 * x).clamp(0, 1)),
        ((0.5, 0.5, 0.0), {"light": 0.5}, lambda x: 0.5 * x),
    ],
)
def test_views_at_the_ends_of_their_ranges(monkeypatch, draw, options, expected):
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3)).double()
    numbers = torch.tensor(draw).view(3, 1).expand(3, 2)
    monkeypatch.setattr(attacks.torch, "rand", lambda *args, **kwargs: numbers)
    view = random_view(x, torch.Generator(), **options)
    image = expected(x)
    if image is None:  # enlarged twice: the central part fills the image
        image = F.interpolate(x[..., 4:12, 4:12], (16, 16), mode="bilinear")
        view, image = view[..., 2:-2, 2:-2], image[..., 2:-2, 2:-2]
    assert torch.allclose(view, image, atol=1e-6)


def test_views_of_oblong_images_are_rotated_not_sheared():
    """A disc stays a disc."""
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    disc = (((rows - 19.5) ** 2 + (columns - 29.5) ** 2) < 100).float().expand(1, 3, 40, 60)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        view = random_view(disc, generator, angle=90, zoom=1, light=0)
        # Reflections of the disc appear only outside the central part.
        difference = (view - disc).abs()[..., 5:35, 15:45]
        assert difference.mean() < 0.05


def test_views_have_gradients_and_differ_between_images():
    x = torch.rand(1, 3, 16, 16).expand(2, -1, -1, -1).clone().requires_grad_()
    views = random_view(x, torch.Generator().manual_seed(0))
    assert not torch.allclose(views[0], views[1], atol=0.01)
    assert torch.autograd.grad(views.sum(), x)[0].abs().sum() > 0
    with pytest.raises(ValueError, match=r"zoom must be at least 1 .*, got 0\.5"):
        random_view(x, torch.Generator(), zoom=0.5)


# --- An attack on an explanation ------------------------------------------------------------------


def test_grad_cam_moves_and_the_prediction_stays(scenes):
    model, image, target = scenes
    image, target = image[:2], target[:2]
    before = cam.grad_cam(model, image, target)
    goal = torch.zeros_like(before)
    goal[..., :3, :3] = 1
    options = {"epsilon": 8 / 255, "steps": 30}
    attacked = attacks.move_grad_cam(model, image, target, goal, **options)
    after = cam.grad_cam(model, attacked, target)

    def similarity(maps: Tensor) -> Tensor:
        return F.cosine_similarity(maps.flatten(1), goal.flatten(1))

    assert (similarity(after) > similarity(before) + 0.2).all()
    assert torch.equal(model(attacked).argmax(1), target)
    assert (attacked - image).abs().max() <= 8 / 255


# --- Bad arguments --------------------------------------------------------------------------------


BAD_ARGUMENTS = [
    ({"epsilon": -0.1}, r"epsilon must be a finite number, at least 0, got -0.1"),
    ({"epsilon": math.nan}, r"epsilon must be a finite number"),
    ({"epsilon": math.inf}, r"epsilon must be a finite number"),
    ({"norm": "linff"}, r"unknown norm 'linff': did you mean 'linf'\?"),
    ({"norm": "L2"}, r"unknown norm 'L2': did you mean 'l2'\?"),
    ({"norm": "max"}, r"unknown norm 'max': choose from linf, l2"),
    ({"steps": 0}, r"steps must be at least 1, got 0"),
    ({"step_size": -1}, r"step_size must be a finite number, at least 0, got -1"),
]


@pytest.mark.parametrize("attack", [bim, pgd, eot])
@pytest.mark.parametrize(("options", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused(net, x, attack, options, message):
    with pytest.raises(ValueError, match=message):
        attack(net, x, 1, **({"epsilon": 0.1} | options))


def test_no_samples_are_refused(net, x):
    with pytest.raises(ValueError, match=r"samples must be at least 1, got 0"):
        eot(net, x, 1, epsilon=0.1, samples=0)


def test_images_outside_0_and_1_are_refused(net, x):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\], got values from 0 to 255"):
        fgsm(net, 255 * x, 1, epsilon=8)
    with pytest.raises(ValueError, match=r"from -1 to 1: pass images before any normalisation"):
        attacks.add_noise(2 * x - 1, epsilon=0.1)
    rounded = torch.where(x == x.max(), 1 + 1e-7, x)
    assert fgsm(net, rounded, 1, epsilon=0.1).max() <= 1


def test_an_objective_that_is_not_finite_is_refused(x):
    with pytest.raises(ValueError, match="the objective must be finite, got"):
        projected_gradient_ascent(lambda y: y.sum((1, 2, 3)) / 0, x, epsilon=0.1)


# --- Adversarial training -------------------------------------------------------------------------


def test_training_learns_from_attacked_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The attack raises the loss of the batch within its bound, and the card records it."""
    monkeypatch.setattr(training.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(training, "BATCH", 8)
    monkeypatch.setattr(training, "measure", lambda model, progress: {"unseen": 0.5})
    attack, batches = training._attacked, []

    def measured_attack(model, x, target, settings, seed):
        y = attack(model, x, target, settings, seed)
        with torch.no_grad():
            losses = [F.cross_entropy(model.eval()(images), target).item() for images in (x, y)]
        model.train()
        batches.append((losses, (y - x).abs().max().item()))
        return y

    monkeypatch.setattr(training, "_attacked", measured_attack)
    start = tmp_path / "pocket_allconv.safetensors"
    save_file(nets.load("pocket_allconv", weights=False).net.state_dict(), start)
    out = tmp_path / "mine.safetensors"
    recipe = training.Recipe("pocket_allconv", epochs=1, scenes=16, start=start, adversarial=4)
    card = training.train(recipe, out=out, progress=False)
    assert len(batches) == 2
    assert all(after > before and change <= 4 / 255 for (before, after), change in batches)
    assert card["adversarial"] == "4" and card["start"] == "pocket_allconv"
    assert card["command"].endswith("--start pocket_allconv --adversarial 4")
    assert nets.load("pocket_allconv", weights=out)(torch.rand(1, 3, 64, 64)).isfinite().all()
    shipped = nets.WEIGHTS / "emoji_allconv_robust.safetensors"
    assert nets.card(shipped.stem)["command"].endswith("--start pocket_allconv --adversarial 4")
    with pytest.raises(ValueError, match="between 0 and 255 grey levels, got -1"):
        training.Recipe("pocket_allconv", adversarial=-1)


# --- Stored results -------------------------------------------------------------------------------


def test_stored_results_are_complete():
    names = {*nets.EMOJI_NETS, "emoji_allconv_robust"}
    transfer = pd.read_csv(DATA / "attacks" / "transfer.csv")
    assert set(transfer["attacked"]) == names | {"noise", "the others"}
    assert set(transfer["asked"]) == names and set(transfer["epsilon"]) == {8, 16}
    assert len(transfer) == 2 * len(names) * (len(names) + 2)
    curves = pd.read_csv(DATA / "attacks" / "curves.csv")
    views = pd.read_csv(DATA / "attacks" / "views.csv")
    for table in (transfer, curves, views):
        assert table.notna().all().all()
        assert table["share"].between(0, 1).all()


def test_stored_results_can_be_computed_again():
    """Compute one entry of the transfer matrix again from the stored weights."""
    tool = runpy.run_path(str(Path(__file__).parents[1] / "data" / "make" / "store_attacks.py"))
    x, target = tool["scenes"]()
    model = tool["load"]("emoji_allconv")
    correct = tool["correct"](model, x, target)
    y = attacks.add_noise(x, epsilon=16 / 255)
    wrong = float((~tool["correct"](model, y, target))[correct].float().mean())
    stored = pd.read_csv(DATA / "attacks" / "transfer.csv")
    row = stored.query("epsilon == 16 and attacked == 'noise' and asked == 'emoji_allconv'")
    assert int(row["scenes"].iloc[0]) == int(correct.sum())
    assert float(row["share"].iloc[0]) == pytest.approx(wrong, abs=0.05)


# --- The widget -----------------------------------------------------------------------------------


def test_widget_numbers_over_the_range(scenes):
    model, image, classes = scenes
    target = int(classes[0] + 3) % 16
    probabilities = []
    for level in (0, 1, 4, 16):
        attacked, p = widgets.attacked(model, image[:1], target, level)
        assert (attacked - image[:1]).abs().max() <= level / 255
        assert p.shape == (16,) and p.sum() == pytest.approx(1, abs=1e-5)
        probabilities.append(float(p[target]))
    assert probabilities[0] < 0.2 and probabilities[-1] > 0.8


def test_the_matrix_describes_the_best_transfer(monkeypatch: pytest.MonkeyPatch):
    """Its description names, for each row, the network to which the attack transfers best."""
    shares = pd.DataFrame([[1.0, 0.25], [0.5, 1.0], [0.0, 0.1]], ["a", "b", "noise"], ["a", "b"])
    shown = []
    monkeypatch.setattr(widgets.show, "figure", lambda figure, alt: shown.append((figure, alt)))
    widgets.draw_transfer(shares, "wrong")
    figure, alt = shown[0]
    assert (
        "a: at most 25% (b)" in alt and "b: at most 50% (a)" in alt and "noise: at most 10%" in alt
    )
    assert [text.get_text() for text in figure.axes[0].texts] == [
        "100",
        "25",
        "50",
        "100",
        "0",
        "10",
    ]
