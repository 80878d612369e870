"""Checks of notebook 09: right answers, and wrong ones written differently from the mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import label

from vislib.checks import Wrong
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


RIGHT = [
    ("class_maps", class_maps),
    ("class_maps", lambda f, w: torch.einsum("ck,kij->cij", w, f)),
    ("scores", lambda maps, bias: maps.mean(dim=(1, 2)) + bias),
    ("scores", lambda maps, bias: (maps + bias[:, None, None]).flatten(1).mean(1).numpy()),
    ("box_of", localisation.box),
    ("box_of", box_of),
    ("box_of", lambda m, t: box_of(m, t, connect=np.ones((3, 3)))),
    ("overlap", localisation.iou),
    ("overlap", overlap),
]

WRONG = [
    ("class_maps", lambda f, w: f.sum(0).expand(len(w), -1, -1), "not weighted yet"),
    ("class_maps", lambda f, w: torch.einsum("ck,kij->ijc", w, f), "class axis comes first"),
    ("class_maps", lambda f, w: class_maps(f, -w), "wrong sign"),
    ("class_maps", lambda f, w: class_maps(f, w.T), "stopped with RuntimeError"),
    ("box_of", lambda m, t: box_of(m, t, choose=None), "Only the largest connected part"),
    (
        "box_of",
        lambda m, t: box_of(m, t, choose=lambda areas: 0, connect=np.ones((3, 3))),
        "not the first",
    ),
    ("box_of", most_frequent_number, "Part 0 is the background"),
    ("box_of", lambda m, t: box_of(m, t, above=lambda v, s: v > s), "fraction of the maximum"),
    (
        "box_of",
        lambda m, t: box_of(m, t, above=lambda v, s: v > v.min() + s * (v.max() - v.min())),
        "not of the range",
    ),
    (
        "box_of",
        lambda m, t: box_of(m, t, above=lambda v, s: abs(v) > s * abs(v).max()),
        "do not take absolute values",
    ),
    (
        "box_of",
        lambda m, t: localisation.box(m.abs(), t),
        "do not take absolute values|has no box",
    ),
    ("box_of", whole_image_if_empty, "no value above zero"),
    ("box_of", lambda m, t: 3.0, "shape"),
    ("overlap", lambda a, b: overlap(a, b, union=lambda f, s: f), "not by the larger box"),
    ("overlap", lambda a, b: overlap(a, b, union=lambda f, s: s), "not by the smaller box"),
    ("overlap", lambda a, b: overlap(a, b, union=lambda f, s: (f + s) / 2), "Dice"),
    ("overlap", lambda a, b: overlap(a, b, spare=1), "Do not add 1"),
    ("overlap", corner_overlap, "not the second corner"),
    ("overlap", lambda a, b: float(overlap(a, b) >= 0.5), "off by"),
]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_right_answers_pass(name: str, answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        getattr(check, name)(answer)
        assert capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize(("name", "answer", "message"), WRONG)
def test_wrong_answers_get_advice(name: str, answer: Any, message: str) -> None:
    for _ in range(3):
        with pytest.raises(Wrong, match=message):
            getattr(check, name)(answer)
