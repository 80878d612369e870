"""Answers that a check could easily take for right, and a right one in another form."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from answers import right_answers_pass, wrong_answers_get_advice
from scipy.ndimage import label

from vislib.checks import attacks, cam, dream, fullgrad, occlusion, shapley, style
from vislib.maps import upsample
from vislib.measure import localisation


def drop(model, x, target, row, column, size):
    """The drop of the probability, from one pass of both images."""
    covered = x.clone()
    covered[..., row : row + size, column : column + size] = 0.5
    before, after = model(torch.cat([x, covered])).double().softmax(1)[:, target]
    return before - after


def no_box_below_zero(cam_map, threshold):
    values = cam_map.numpy()
    if values.max() < 0:
        return 0, 0, 0, 0
    parts, _ = label(values > threshold * values.max())
    return localisation.bounding_box(parts == 1 + np.bincount(parts.ravel())[1:].argmax())


def box_or(otherwise):
    def answer(cam_map, threshold):
        return localisation.box(cam_map, threshold) if cam_map.max() > 0 else otherwise

    return answer


def without_clamp(part, size):
    part = part.abs() - part.abs().amin((2, 3), keepdim=True)
    return upsample(part / part.amax((2, 3), keepdim=True), size).sum(1, keepdim=True)


def factor_of_one_axis(axis):
    def answer(part, size):
        large = upsample(part, size).sum(1, keepdim=True)
        return large / (size[axis] // part.shape[axis + 2]) ** 2

    return answer


def along_the_inverse_order(value, order):
    order = order.argsort()
    place = order.argsort()
    return value(place < torch.arange(len(order) + 1)[:, None]).diff()[place]


def sizes(height, width, octaves, ratio, whole=round):
    powers = [ratio**k for k in reversed(range(octaves))]
    return [(whole(height / p), whole(width / p)) for p in powers]


def fgsm_of_the_prediction(model, x, target, epsilon):
    x.requires_grad_()
    predicted = int(model(x)[0].argmax())
    loss = F.cross_entropy(model(x), torch.full((len(x),), predicted))
    return (x + epsilon * torch.autograd.grad(loss, x)[0].sign()).clamp(0, 1)


RIGHT = {"a drop from one pass": (occlusion.drop, drop)}

WRONG = {
    "a box for a map of zeros": (cam.box_of, no_box_below_zero, "no value above zero"),
    "None for an empty map": (cam.box_of, box_or(None), "no value above zero.* returns None"),
    "a text for an empty map": (cam.box_of, box_or("none"), "no value above zero"),
    "x and y swapped in one box": (
        cam.overlap,
        lambda a, b: localisation.iou((a[1], a[0], *a[2:]), b),
        "IoU",
    ),
    "ψ without clamp": (fullgrad.psi, without_clamp, "constant maps contains NaN"),
    "the factor of the rows": (fullgrad.spread, factor_of_one_axis(0), "different factors"),
    "the factor of the columns": (fullgrad.spread, factor_of_one_axis(1), "different factors"),
    "a drop without its sign": (
        occlusion.drop,
        lambda *inputs: drop(*inputs).abs(),
        "not right yet",
    ),
    "the drop of class 0": (
        occlusion.drop,
        lambda model, x, target, *square: drop(model, x, 0, *square),
        "not right yet",
    ),
    "the inverse order": (shapley.along, along_the_inverse_order, "off by"),
    "sizes that are cut off": (dream.sizes, lambda *inputs: sizes(*inputs, int), "cut off"),
    "sizes with fractions": (
        dream.sizes,
        lambda *inputs: sizes(*inputs, float),
        "Sizes are whole numbers",
    ),
    "always four sizes": (
        dream.sizes,
        lambda height, width, octaves, ratio: sizes(height, width, 4, ratio),
        "too many",
    ),
    "FGSM for the predicted class": (attacks.fgsm, fgsm_of_the_prediction, "not right yet"),
    "a Gram matrix without signs": (
        style.gram,
        lambda maps: (maps.flatten(1) @ maps.flatten(1).T).abs(),
        "off by",
    ),
}

test_a_right_answer_in_another_form_passes = right_answers_pass(RIGHT, repeats=30)
test_a_near_miss_is_rejected = wrong_answers_get_advice(WRONG, repeats=10)
