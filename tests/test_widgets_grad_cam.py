"""The widget of notebook 10 draws over the range of its sliders."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vislib import nets
from vislib.explain import cam
from vislib.layers import stages
from vislib.measure import energy
from vislib.widgets import grad_cam as widgets


@pytest.fixture(scope="module")
def scene():
    """A model, an image, two of its classes, and made-up masks for them."""
    model = nets.load("emoji_vgg")
    x = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    masks = {name: np.zeros((128, 128), dtype=bool) for name in ("cat", "dog")}
    masks["cat"][:64], masks["dog"][64:] = True, True
    return model, x, {name: model.classes.index(name) for name in masks}, masks


@pytest.mark.parametrize("category", [0, 1, 9])
@pytest.mark.parametrize("stage", [1, 2, 3, 4, 5, 9])
def test_look_over_the_range(scene, stage, category):
    model, x, targets, masks = scene
    layer, name, small, large, energy_in_mask = widgets.look(
        model, x, targets, masks, stage, category
    )
    assert layer == stages(model, x)[min(stage, 5) - 1]
    assert name == ["cat", "dog"][min(category, 1)]
    assert torch.equal(small, cam.grad_cam(model, x, targets[name], layer=layer)[0])
    assert large.shape == (1, 128, 128)
    assert energy_in_mask == pytest.approx(energy.energy(large, masks[name]).P, nan_ok=True)


def test_look_refuses_a_stage_below_one(scene):
    with pytest.raises(ValueError, match="stage must be at least 1, got 0"):
        widgets.look(*scene, 0, 0)


def test_each_slider_changes_the_figure(scene, monkeypatch):
    drawn = []
    monkeypatch.setattr("vislib.show.panels", lambda panels, **options: drawn.append(panels))
    for stage in (1, 5):
        for category in (0, 1):
            widgets.draw_look(*scene, stage, category)
    assert len({tuple(panels) for panels in drawn}) == 4
    assert all(np.shape(next(iter(panels.values()))) == (128, 128, 3) for panels in drawn)
    box = widgets.any_layer(*scene)
    stage, category, _ = box.children
    assert (stage.min, stage.max, category.min, category.max) == (1, 5, 0, 1)
    plt.close("all")
