"""The widget of notebook 09, and the frames that it draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vislib import nets, show
from vislib.measure import localisation
from vislib.widgets import cam as widgets


@pytest.mark.parametrize("pooling", widgets.NETS)
def test_boxes_over_the_sliders_range(pooling: str) -> None:
    _, truths = widgets.scene()
    assert set(truths) == {"dog", "zebra", "banana"}
    for category, name in enumerate(nets.EMOJI_CLASSES):
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
    model = nets.load("emoji_gmp")
    with torch.no_grad():
        maps = model.net.features(model.normalize(image[None]))[0]
    expected = sum(w * one for w, one in zip(model.net.fc.weight[10], maps, strict=True))
    shown = widgets.class_map("GMP", 10)
    assert torch.allclose(shown.amax(), expected.amax(), rtol=0.3)
    assert shown.shape == (1, 128, 128)


def test_each_step_draws_another_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Any, str]] = []
    monkeypatch.setattr(show, "panels", lambda p, *, alt, **o: drawn.append((list(p), alt)))
    for category, threshold in [(10, 0.2), (11, 0.2), (10, 0.25), (8, 0.9), (0, 0.05)]:
        widgets.draw_boxes(category, threshold)
    assert len({alt for _, alt in drawn}) == len({str(titles) for titles, _ in drawn}) == 5
    assert drawn[0][0][0].startswith("GAP, zebra, 20%") and "not in the scene" in drawn[-1][1]


def test_the_sliders_are_those_of_the_function() -> None:
    assert len(widgets.boxes().children) == 3


# --- show.frame -----------------------------------------------------------------------------------


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
