"""The checks of notebook 10: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import torch.nn.functional as F
from answers import answer_tests

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


RIGHT = {
    "counterfactual map": (check.against, lambda a, g: total(-mean(g) * a).relu()),
    "IoU of a seed": (
        check.seed_iou,
        lambda small, mask, threshold: iou(seed(small, mask, threshold), mask),
    ),
    "LayerCAM": (check.layer_cam, lambda a, g: total(g.relu() * a).relu()),
}

WRONG = {
    "Grad-CAM itself": (
        check.against,
        lambda a, g: total(mean(g) * a).relu(),
        "This is Grad-CAM itself",
    ),
    "weights after a ReLU": (
        check.against,
        lambda a, g: total((-mean(g)).relu() * a),
        "or its weight",
    ),
    "the maps alone": (check.against, lambda a, g: a, "should have shape"),
    "cut before upsampling": (check.seed_iou, cut_first, "Upsample first"),
    "fraction of pixels that differ": (
        check.seed_iou,
        lambda s, m, t: (seed(s, m, t) ^ m).float().mean(),
        "off by|which both agree",
    ),
    "Grad-CAM instead of LayerCAM": (
        check.layer_cam,
        lambda a, g: total(mean(g) * a).relu(),
        "This is Grad-CAM",
    ),
    "negative gradients": (
        check.layer_cam,
        lambda a, g: total(g.clamp(max=0) * a).relu(),
        "off by",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)
