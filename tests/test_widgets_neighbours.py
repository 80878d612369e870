"""The widget of notebook 06."""

from __future__ import annotations

import html
import re

import numpy as np
import pytest

from vislib.data.coco import Coco
from vislib.data.objects import object_crops
from vislib.features import neighbours
from vislib.paths import DATA
from vislib.widgets import neighbours as widgets


@pytest.fixture(scope="module")
def gallery() -> Coco:
    return Coco(DATA / "emoji_coco", "gallery")


def test_neighbours_over_the_range_of_the_sliders(gallery: Coco) -> None:
    crops = object_crops(gallery, 32)
    spaces = {"pixels": crops.images.flatten(1), "colour": crops.images.mean((2, 3))}
    for depth, name in enumerate(spaces):
        table = neighbours.nearest_neighbours(spaces[name], 5)
        for query in range(len(crops.images)):
            assert widgets.neighbours_at(spaces, query, depth) == table[query].tolist()


def _alt(shown: dict[str, str]) -> str:
    (text,) = re.findall(r'alt="([^"]*)"', shown["text/html"])
    return html.unescape(text)


def test_the_figures_and_the_controls(gallery: Coco, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    crops = object_crops(gallery, 16, per_category=2)
    spaces = {"pixels": crops.images.flatten(1), "colour": crops.images.mean((2, 3))}
    widgets.draw_neighbours(crops, spaces, 3, 1)
    names = [crops.names[crops.labels[i]] for i in widgets.neighbours_at(spaces, 3, 1)]
    assert f"colour (image 3, {crops.names[crops.labels[3]]}): {', '.join(names)}" in _alt(shown[0])
    points = np.random.default_rng(0).normal(size=(len(crops.images), 2))
    widgets.draw_maps(crops, {"a": points, "b": points}, alt="two maps", shown=("dog", "zebra"))
    assert _alt(shown[1]) == "two maps"
    box = widgets.neighbour_browser(crops, spaces, query=2)
    query, depth, _ = box.children
    assert (query.value, query.max, depth.min, depth.max) == (2, len(crops.images) - 1, 1, 1)
