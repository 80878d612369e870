"""The checks of notebook 09: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import numpy as np
import torch
from answers import answer_tests
from scipy.ndimage import label

from vislib.checks import cam as check
from vislib.measure import localisation


def class_maps(features, weight):
    return (weight @ features.flatten(1)).view(len(weight), *features.shape[1:])


def box_of(cam_map, threshold, *, above=None, choose=np.argmax, connect=None):
    """The box of a map, with one step exchanged."""
    values = cam_map.numpy()
    if values.max() <= 0:
        return 0, 0, 0, 0
    mask = (above or (lambda v, t: v > t * v.max()))(values, threshold)
    parts, count = label(mask, structure=connect)
    areas = [(parts == number).sum() for number in range(1, count + 1)]
    chosen = mask if choose is None else parts == 1 + choose(areas)
    rows, columns = np.nonzero(chosen)
    x, y = columns.min(), rows.min()
    return x, y, columns.max() - x + 1, rows.max() - y + 1


def most_frequent_number(cam_map, threshold):
    values = cam_map.numpy()
    parts, _ = label(values > threshold * values.max())
    return localisation.bounding_box(parts == np.bincount(parts.ravel()).argmax())


def whole_image_if_empty(cam_map, threshold):
    box = localisation.box(cam_map, threshold)
    return box if box[2] else (0, 0, cam_map.shape[1], cam_map.shape[0])


def overlap(a, b, *, spare=0, union=None):
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]) + spare
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]) + spare
    both = max(across, 0) * max(down, 0)
    first, second = ((box[2] + spare) * (box[3] + spare) for box in (a, b))
    return both / (union(first, second) if union else first + second - both)


def corner_overlap(a, b):
    both = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


RIGHT = {
    "class maps": (check.class_maps, class_maps),
    "class maps by einsum": (check.class_maps, lambda f, w: torch.einsum("ck,kij->cij", w, f)),
    "scores": (check.scores, lambda maps, bias: maps.mean(dim=(1, 2)) + bias),
    "scores with the bias first": (
        check.scores,
        lambda maps, bias: (maps + bias[:, None, None]).flatten(1).mean(1).numpy(),
    ),
    "box by vislib": (check.box_of, localisation.box),
    "box": (check.box_of, box_of),
    "box with corners connected": (
        check.box_of,
        lambda m, t: box_of(m, t, connect=np.ones((3, 3))),
    ),
    "overlap by vislib": (check.overlap, localisation.iou),
    "overlap": (check.overlap, overlap),
}

WRONG = {
    "maps that are not weighted": (
        check.class_maps,
        lambda f, w: f.sum(0).expand(len(w), -1, -1),
        "not weighted yet",
    ),
    "class axis last": (
        check.class_maps,
        lambda f, w: torch.einsum("ck,kij->ijc", w, f),
        "class axis comes first",
    ),
    "class maps of the wrong sign": (
        check.class_maps,
        lambda f, w: class_maps(f, -w),
        "wrong sign",
    ),
    "transposed weights": (
        check.class_maps,
        lambda f, w: class_maps(f, w.T),
        "stopped with RuntimeError",
    ),
    "box of all parts": (
        check.box_of,
        lambda m, t: box_of(m, t, choose=None),
        "Only the largest connected part",
    ),
    "box of the first part": (
        check.box_of,
        lambda m, t: box_of(m, t, choose=lambda areas: 0, connect=np.ones((3, 3))),
        "not the first",
    ),
    "box of the most frequent number": (
        check.box_of,
        most_frequent_number,
        "Part 0 is the background",
    ),
    "threshold as a value": (
        check.box_of,
        lambda m, t: box_of(m, t, above=lambda v, s: v > s),
        "fraction of the maximum",
    ),
    "threshold as a fraction of the range": (
        check.box_of,
        lambda m, t: box_of(m, t, above=lambda v, s: v > v.min() + s * (v.max() - v.min())),
        "not of the range",
    ),
    "threshold of absolute values": (
        check.box_of,
        lambda m, t: box_of(m, t, above=lambda v, s: abs(v) > s * abs(v).max()),
        "do not take absolute values",
    ),
    "box of the absolute map": (
        check.box_of,
        lambda m, t: localisation.box(m.abs(), t),
        "do not take absolute values|has no box",
    ),
    "whole image for an empty map": (check.box_of, whole_image_if_empty, "no value above zero"),
    "a number instead of a box": (check.box_of, lambda m, t: 3.0, "shape"),
    "divided by the first box": (
        check.overlap,
        lambda a, b: overlap(a, b, union=lambda f, s: f),
        "not by the larger box",
    ),
    "divided by the second box": (
        check.overlap,
        lambda a, b: overlap(a, b, union=lambda f, s: s),
        "not by the smaller box",
    ),
    "divided by the mean area": (
        check.overlap,
        lambda a, b: overlap(a, b, union=lambda f, s: (f + s) / 2),
        "Dice",
    ),
    "one pixel added to each side": (
        check.overlap,
        lambda a, b: overlap(a, b, spare=1),
        "Do not add 1",
    ),
    "boxes as corners": (check.overlap, corner_overlap, "not the second corner"),
    "IoU of 0 or 1": (check.overlap, lambda a, b: float(overlap(a, b) >= 0.5), "off by"),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)
