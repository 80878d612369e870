"""Notebook 09: the checks name each usual mistake; the widget's numbers hold over its range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import label

from vislib import nets, show
from vislib.checks import Wrong
from vislib.checks import cam as check
from vislib.measure import localisation
from vislib.widgets import cam as widgets

# ------------------------------------------------------------ answers, right and wrong


def class_maps(features, weight):
    return torch.einsum("ck,kij->cij", weight, features)


def found(cam_map, threshold, *, above=None, choose=np.argmax, connect=None, shape=None):
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
    box = x, y, columns.max() - x + 1, rows.max() - y + 1
    return shape(*box) if shape else box


def peak_part(cam_map, threshold):
    values = cam_map.numpy()
    parts, _ = label(values > threshold * values.max(), structure=np.ones((3, 3)))
    return localisation.bounding_box(
        parts == parts[np.unravel_index(values.argmax(), values.shape)]
    )


def with_background(cam_map, threshold):
    values = cam_map.numpy()
    parts, _ = label(values > threshold * values.max())
    return localisation.bounding_box(parts == np.bincount(parts.ravel()).argmax())


def overlap(a, b, *, cut=True, spare=0, union=None):
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]) + spare
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]) + spare
    both = max(across, 0) * max(down, 0) if cut else across * down
    first, second = ((box[2] + spare) * (box[3] + spare) for box in (a, b))
    return both / (union(first, second, both) if union else first + second - both)


def corner_overlap(a, b):
    both = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


RIGHT = [
    (check.class_maps, class_maps),
    (check.class_maps, lambda f, w: (w @ f.flatten(1)).view(len(w), *f.shape[1:])),
    (check.scores, lambda maps, bias: maps.mean(dim=(1, 2)) + bias),
    (check.scores, lambda maps, bias: (maps + bias[:, None, None]).flatten(1).mean(1).numpy()),
    (check.box_of, localisation.box),
    (check.box_of, found),
    (check.box_of, lambda m, t: found(m, t, connect=np.ones((3, 3)))),
    (check.overlap, localisation.iou),
    (check.overlap, overlap),
]

WRONG = [
    (check.class_maps, lambda f, w: class_maps(f, w) / len(f), "do not average"),
    (check.class_maps, lambda f, w: class_maps(f, w).relu(), "Keep both signs"),
    (check.class_maps, lambda f, w: f.sum(0).expand(len(w), -1, -1), "not weighted"),
    (check.class_maps, lambda f, w: w @ f.sum(dim=(1, 2)), "not over the places"),
    (check.class_maps, lambda f, w: class_maps(f, w).sum(0), "one map for all classes"),
    (check.class_maps, lambda f, w: w[:, :, None, None] * f, "still apart"),
    (check.class_maps, lambda f, w: torch.einsum("ck,kij->ijc", w, f), "class comes first"),
    (check.class_maps, lambda f, w: class_maps(f, -w), "wrong sign"),
    (check.class_maps, lambda f, w: class_maps(f, w.T), "stopped with RuntimeError"),
    (check.scores, lambda maps, bias: maps.sum(dim=(1, 2)) + bias, "not their sum"),
    (check.scores, lambda maps, bias: maps.mean(dim=(1, 2)), "bias is missing"),
    (check.scores, lambda maps, bias: maps.amax(dim=(1, 2)) + bias, "This is GMP"),
    (check.scores, lambda maps, bias: maps.relu().mean(dim=(1, 2)) + bias, "no ReLU"),
    (check.scores, lambda maps, bias: (maps.mean(dim=(1, 2)) + bias).softmax(0), "probabil"),
    (check.scores, lambda maps, bias: maps.mean(dim=0), "not over the classes"),
    (check.box_of, lambda m, t: found(m, t, choose=None), "Only the largest connected part"),
    (check.box_of, lambda m, t: found(m, t, choose=lambda areas: 0), "not the first"),
    (check.box_of, peak_part, "most places, not the one with the highest"),
    (check.box_of, with_background, "Part 0 is the background"),
    (
        check.box_of,
        lambda m, t: found(m, t, shape=lambda x, y, w, h: (x, y, w - 1, h - 1)),
        "One is missing",
    ),
    (
        check.box_of,
        lambda m, t: found(m, t, shape=lambda x, y, w, h: (x, y, x + w, y + h)),
        "These are the corners",
    ),
    (
        check.box_of,
        lambda m, t: found(m, t, shape=lambda x, y, w, h: (x, y, x + w - 1, y + h - 1)),
        "and one more",
    ),
    (
        check.box_of,
        lambda m, t: found(m, t, shape=lambda x, y, w, h: (y, x, h, w)),
        "x comes first",
    ),
    (check.box_of, lambda m, t: found(m, t, above=lambda v, s: v > s), "share of the maximum"),
    (
        check.box_of,
        lambda m, t: found(m, t, above=lambda v, s: v > v.min() + s * (v.max() - v.min())),
        "not of the range",
    ),
    (
        check.box_of,
        lambda m, t: found(m, t, above=lambda v, s: abs(v) > s * abs(v).max()),
        "no absolute value",
    ),
    (check.box_of, lambda m, t: localisation.box(m.abs(), t), "no absolute value|has no box"),
    (check.box_of, lambda m, t: 3.0, "shape"),
    (check.overlap, lambda a, b: overlap(a, b, cut=False), "cut each side at 0"),
    (check.overlap, lambda a, b: overlap(a, b, union=lambda f, s, i: f + s), "once"),
    (check.overlap, lambda a, b: overlap(a, b, union=lambda f, s, i: min(f, s)), "smaller"),
    (check.overlap, lambda a, b: overlap(a, b, union=lambda f, s, i: max(f, s)), "larger"),
    (check.overlap, lambda a, b: overlap(a, b, union=lambda f, s, i: (f + s) / 2), "Dice"),
    (check.overlap, lambda a, b: overlap(a, b, union=lambda f, s, i: 1), "intersection itself"),
    (check.overlap, lambda a, b: overlap(a, b, spare=1), "No . 1 here"),
    (check.overlap, corner_overlap, "not the second corner"),
    (check.overlap, lambda a, b: float(overlap(a, b) >= 0.5), "off by"),
]


@pytest.mark.parametrize(("checked", "answer"), RIGHT)
def test_right_answers_pass(checked: Any, answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        checked(answer)
        assert capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize(("checked", "answer", "message"), WRONG)
def test_mistakes_are_named(checked: Any, answer: Any, message: str) -> None:
    for _ in range(3):
        with pytest.raises(Wrong, match=message):
            checked(answer)


@pytest.mark.parametrize("checked", [check.class_maps, check.scores, check.box_of, check.overlap])
def test_what_is_not_written_yet(checked: Any) -> None:
    def stub(a, b):
        raise NotImplementedError

    with pytest.raises(Wrong, match="not written yet"):
        checked(stub)
    with pytest.raises(Wrong, match="returns None"):
        checked(lambda a, b: None)


def test_an_empty_map_needs_the_empty_box() -> None:
    def whole_image(cam_map, threshold):
        box = localisation.box(cam_map, threshold)
        return box if box[2] else (0, 0, cam_map.shape[1], cam_map.shape[0])

    with pytest.raises(Wrong, match="no value above zero"):
        check.box_of(whole_image)


# ------------------------------------------------------------ the widget


@pytest.mark.parametrize("pooling", widgets.NETS)
def test_boxes_over_the_sliders_range(pooling: str) -> None:
    _, truths = widgets.scene()
    assert set(truths) == {"dog", "zebra", "banana"}
    for category, name in enumerate(nets.POCKET_CLASSES):
        areas = []
        for threshold in np.arange(0.05, 0.95, 0.05):
            (x, y, width, height), overlap = widgets.found_box(pooling, category, threshold)
            assert 0 <= x <= x + width <= 128 and 0 <= y <= y + height <= 128
            assert np.isnan(overlap) == (name not in truths)
            assert name not in truths or 0 <= overlap <= 1
            areas.append(width * height)
        assert areas[-1] < areas[0], "a higher threshold leaves less"


def test_the_map_under_the_widget_is_cam() -> None:
    image, _ = widgets.scene()
    model = nets.load("pocket_gmp")
    with torch.no_grad():
        maps = model.net.features(model.normalize(image[None]))[0]
    expected = sum(w * one for w, one in zip(model.net.fc.weight[10], maps, strict=True))
    shown = widgets.class_map("GMP", 10)
    assert torch.allclose(shown.amax(), expected.amax(), rtol=0.3)
    assert shown.shape == (1, 128, 128)


def test_every_step_draws_another_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Any, str]] = []
    monkeypatch.setattr(show, "panels", lambda p, *, alt, **o: drawn.append((list(p), alt)))
    for category, threshold in [(10, 0.2), (11, 0.2), (10, 0.25), (8, 0.9), (0, 0.05)]:
        widgets.draw_boxes(category, threshold)
    assert len({alt for _, alt in drawn}) == len({str(titles) for titles, _ in drawn}) == 5
    assert drawn[0][0][0].startswith("GAP, zebra, 20%") and "not in the scene" in drawn[-1][1]


def test_the_sliders_are_those_of_the_function() -> None:
    assert len(widgets.boxes().children) == 3


# ------------------------------------------------------------ show.frame


def test_a_frame_lies_inside_its_box() -> None:
    image = np.zeros((20, 30, 3))
    framed = show.frame(image, (4, 5, 10, 8), colour="white", width=2)
    expected = np.zeros((20, 30))
    expected[5:13, 4:14] = 1
    expected[7:11, 6:12] = 0
    assert np.array_equal(framed[..., 0], expected) and not image.any()
    assert localisation.bounding_box(framed[..., 0] > 0) == (4, 5, 10, 8)


def test_frames_at_the_edge_dashed_and_empty() -> None:
    image = torch.zeros(3, 40, 48)
    whole = show.frame(image, (-3, -3, 99, 99), colour="white", width=1)
    assert whole[0].all() and whole[:, -1].all() and not whole[1:-1, 1:-1].any()
    dashed = show.frame(image, (0, 0, 48, 40), colour="white", width=1, dashed=True)
    assert 0.3 < dashed.sum() / whole.sum() < 0.7
    assert not show.frame(image, (0, 0, 0, 0)).any()
