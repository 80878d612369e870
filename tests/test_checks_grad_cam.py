"""Checks of notebook 10: right answers, and wrong ones written differently from the mistakes."""

import pytest
import torch.nn.functional as F

from vislib.checks import Exercise, Wrong
from vislib.checks import grad_cam as check
from vislib.measure.localisation import mask_iou


def mean(gradients):
    return gradients.mean(dim=(2, 3), keepdim=True)


def total(maps):
    return maps.sum(dim=1, keepdim=True)


def seed(small, mask, threshold):
    large = F.interpolate(small, tuple(mask.shape), mode="bilinear")[0, 0]
    return large > large.max() * threshold


def iou(seed, mask):
    return mask_iou(seed.numpy(), mask.numpy())


def cut_first(small, mask, threshold):
    above = (small > threshold * small.max()).float()
    return iou(F.interpolate(above, tuple(mask.shape), mode="bilinear")[0, 0] > 0.5, mask)


RIGHT = [
    ("against", lambda a, g: total(-mean(g) * a).relu()),
    ("seed_iou", lambda small, mask, threshold: iou(seed(small, mask, threshold), mask)),
    ("layer_cam", lambda a, g: total(g.relu() * a).relu()),
]

WRONG = [
    ("against", lambda a, g: total(mean(g) * a).relu(), "This is Grad-CAM itself"),
    ("against", lambda a, g: total((-mean(g)).relu() * a), "or its weight"),
    ("against", lambda a, g: a, "should have shape"),
    ("seed_iou", cut_first, "Upsample first"),
    ("seed_iou", lambda s, m, t: (seed(s, m, t) ^ m).float().mean(), "off by|which both agree"),
    ("layer_cam", lambda a, g: total(mean(g) * a).relu(), "This is Grad-CAM"),
    ("layer_cam", lambda a, g: total(g.clamp(max=0) * a).relu(), "off by"),
]


@pytest.mark.parametrize("repeat", range(10))
@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_right_answers_pass_on_any_random_input(name, answer, repeat, capsys):
    getattr(check, name)(answer)
    assert capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize("repeat", range(5))
@pytest.mark.parametrize(("name", "answer", "message"), WRONG)
def test_wrong_answers_get_advice(name, answer, message, repeat):
    with pytest.raises(Wrong, match=message):
        getattr(check, name)(answer)


def test_each_exercise_has_a_right_answer():
    exercises = [name for name, value in vars(check).items() if isinstance(value, Exercise)]
    assert exercises == [name for name, _ in RIGHT]
