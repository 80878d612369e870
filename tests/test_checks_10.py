"""Notebook 10: its checks name each usual mistake, its widget draws over the sliders' range."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vislib import nets
from vislib.checks import Wrong
from vislib.checks import grad_cam as check
from vislib.explain import cam
from vislib.layers import stages
from vislib.measure import energy
from vislib.measure.localisation import mask_iou
from vislib.widgets import grad_cam as widgets

# ---------------------------------------------------------------------- checks


def mean(slope):
    return slope.mean(dim=(2, 3), keepdim=True)


def total(maps):
    return maps.sum(dim=1, keepdim=True)


def seed(small, mask, threshold, *, share=None, **options):
    large = F.interpolate(small, tuple(mask.shape), **({"mode": "bilinear"} | options))
    return (large > (large.max() if share is None else share(large)) * threshold)[0, 0]


def iou(found, mask):
    return mask_iou(found.numpy(), mask.numpy())


def cut_first(small, mask, threshold):
    above = (small > threshold * small.max()).float()
    return iou(F.interpolate(above, tuple(mask.shape), mode="bilinear")[0, 0] > 0.5, mask)


RIGHT = [
    (check.against, lambda maps, slope: total(-mean(slope) * maps).relu()),
    (check.seed_iou, lambda small, mask, threshold: iou(seed(small, mask, threshold), mask)),
    (check.layer_cam, lambda maps, slope: total(slope.relu() * maps).relu()),
]


@pytest.mark.parametrize("repeat", range(10))
@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_pass_on_any_random_input(check, answer, repeat, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith("✓ ")


WRONG = [
    (
        check.against,
        [
            (lambda a, g: total(mean(g) * a).relu(), "This is Grad-CAM itself"),
            (lambda a, g: -total(mean(g) * a).relu(), "The ReLU comes last"),
            (lambda a, g: -total(mean(g) * a), "The ReLU is missing"),
            (lambda a, g: total(mean(g) * a).abs(), "No absolute value"),
            (lambda a, g: total(mean(g) * a).clamp(max=0), "sign turned round"),
            (lambda a, g: total((-mean(g)).relu() * a), "or its weight"),
            (lambda a, g: total((-mean(g) * a).relu()), "not for each map"),
            (lambda a, g: total(-g * a).relu(), "one α for each map"),
            (
                lambda a, g: total(-g.sum(dim=(2, 3), keepdim=True) * a).relu(),
                "not their sum",
            ),
            (lambda a, g: (-mean(g) * a).mean(dim=1, keepdim=True).relu(), "do not average"),
            (lambda a, g: (-mean(g) * a).relu(), "still apart"),
            (lambda a, g: (-mean(g) * a).sum(dim=1).relu(), "N×1×h×w"),
        ],
    ),
    (
        check.seed_iou,
        [
            (lambda s, m, t: iou(seed(s, m, t, mode="nearest"), m), "map bilinearly"),
            (lambda s, m, t: iou(seed(s, m, t, align_corners=True), m), "align_corners"),
            (cut_first, "Upsample first"),
            (lambda s, m, t: iou(seed(s, m, t, share=lambda x: 1), m), "not a value of the map"),
            (lambda s, m, t: iou(seed(s, m, t, share=torch.mean), m), "not of the mean"),
            (lambda s, m, t: iou(~seed(s, m, t), m), "wrong side"),
            (lambda s, m, t: (seed(s, m, t) & m).sum() / m.sum(), "not by the mask"),
            (lambda s, m, t: (seed(s, m, t) & m).sum() / seed(s, m, t).sum(), "not by the seed"),
            (
                lambda s, m, t: (seed(s, m, t) & m).sum() / (seed(s, m, t).sum() + m.sum()),
                "counts the intersection once",
            ),
            (
                lambda s, m, t: 2 * (seed(s, m, t) & m).sum() / (seed(s, m, t).sum() + m.sum()),
                "This is Dice",
            ),
            (lambda s, m, t: (seed(s, m, t) == m).float().mean(), "on which both agree"),
        ],
    ),
    (
        check.layer_cam,
        [
            (cam.grad_cam_formula, "This is Grad-CAM"),
            (lambda a, g: total(g * a).relu(), "slopes go through a ReLU first"),
            (lambda a, g: total((g * a).relu()), "can be negative themselves"),
            (lambda a, g: total(g * a.relu()).relu(), "not for the maps"),
            (lambda a, g: total(g.relu() * a), "The last ReLU"),
            (lambda a, g: (g.relu() * a).mean(dim=1, keepdim=True).relu(), "do not average"),
            (lambda a, g: g.relu() * a, "still apart"),
            (lambda a, g: (g.relu() * a).sum(dim=1).relu(), "N×1×h×w"),
            (lambda a, g: total(g.abs() * a).relu(), "not their absolute value"),
        ],
    ),
]


@pytest.mark.parametrize("repeat", range(5))
@pytest.mark.parametrize(
    ("check", "answer", "message"),
    [(check, *case) for check, cases in WRONG for case in cases],
)
def test_each_mistake_is_named(check, answer, message, repeat):
    with pytest.raises(Wrong, match=message):
        check(answer)


@pytest.mark.parametrize("check", [check for check, _ in RIGHT])
def test_an_open_stub_is_told(check):
    def stub(*arguments):
        raise NotImplementedError("write your code here")

    with pytest.raises(Wrong, match="stub is not written yet"):
        check(stub)


def test_every_check_rejects_at_least_three_mistakes():
    assert [one for one, _ in RIGHT] == [one for one, _ in WRONG]
    assert all(len(cases) >= 3 for _, cases in WRONG)
    own = {f for f in vars(check).values() if getattr(f, "__module__", "") == check.__name__}
    assert {f for f in own if f.__name__[0] != "_"} == {one for one, _ in RIGHT}


# ---------------------------------------------------------------------- widget


@pytest.fixture(scope="module")
def scene():
    """A net, a picture, two of its classes, and made-up masks for them."""
    model = nets.load("pocket_vgg")
    x = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    masks = {name: np.zeros((128, 128), dtype=bool) for name in ("cat", "dog")}
    masks["cat"][:64], masks["dog"][64:] = True, True
    return model, x, {name: model.classes.index(name) for name in masks}, masks


@pytest.mark.parametrize("category", [0, 1, 9])
@pytest.mark.parametrize("stage", [1, 2, 3, 4, 5, 9])
def test_look_over_the_range(scene, stage, category):
    model, x, targets, masks = scene
    layer, name, small, large, share = widgets.look(model, x, targets, masks, stage, category)
    assert layer == stages(model, x)[min(stage, 5) - 1]
    assert name == ["cat", "dog"][min(category, 1)]
    assert torch.equal(small, cam.grad_cam(model, x, targets[name], layer=layer)[0])
    assert large.shape == (1, 128, 128)
    assert share == pytest.approx(energy.energy(large, masks[name]).P, nan_ok=True)


def test_look_refuses_a_stage_below_one(scene):
    with pytest.raises(ValueError, match="stages count from 1, got 0"):
        widgets.look(*scene, 0, 0)


def test_the_widget_draws_other_pictures(scene, monkeypatch):
    drawn = []
    monkeypatch.setattr("vislib.show.panels", lambda pictures, **options: drawn.append(pictures))
    for stage in (1, 5):
        for category in (0, 1):
            widgets.draw_look(*scene, stage, category)
    assert len({tuple(pictures) for pictures in drawn}) == 4
    assert all(np.shape(next(iter(pictures.values()))) == (128, 128, 3) for pictures in drawn)
    box = widgets.any_layer(*scene)
    stage, category, _ = box.children
    assert (stage.min, stage.max, category.min, category.max) == (1, 5, 0, 1)
    plt.close("all")
