"""The widget of notebook 08: the cascading randomisation of layers."""

from __future__ import annotations

import pytest
import torch

from vislib import nets
from vislib.explain.cam import grad_cam
from vislib.explain.gradients import guided_backprop
from vislib.layers import layers_with_weights
from vislib.measure import sanity
from vislib.widgets import guided_backprop as widgets


@pytest.fixture(scope="module")
def scene():
    return torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def test_the_slider_goes_through_the_whole_cascade(scene):
    model = nets.load("emoji_vgg")
    steps = ["none", *layers_with_weights(model, scene)]
    expected = [model, *(other for _, other in sanity.randomised(model, scene))]
    for depth, other in enumerate(expected):
        layer, guided, heat = widgets.step(model, scene, 3, depth)
        assert layer == steps[depth]
        assert torch.equal(guided, guided_backprop(other, scene, 3))
        assert torch.equal(heat, grad_cam(other, scene, 3))
    assert widgets.step(model, scene, 3, 99)[0] == steps[-1]
    with pytest.raises(ValueError, match="at least 0"):
        widgets.step(model, scene, 3, -1)


def test_each_step_is_drawn_with_its_own_text(scene, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "vislib.show.panels", lambda pictures, alt, **_: drawn.append((list(pictures), alt))
    )
    model = nets.load("emoji_vgg")
    for depth in (0, 1, 9):
        widgets.draw_step(model, scene, 3, depth)
    assert len({alt for _, alt in drawn}) == 3
    assert all(len(titles) == 3 for titles, _ in drawn)


def test_the_slider_ends_at_the_last_layer(scene):
    box = widgets.random_layers(nets.load("emoji_allconv"), scene, 3)
    assert (box.children[0].min, box.children[0].max) == (0, 9)
