"""The widget of notebook 07, and the colours of its reconstructions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vislib import nets, show
from vislib.features import deconvnet, top_patches
from vislib.widgets import deconvnet as widgets


@pytest.fixture(scope="module")
def searched():
    model = nets.load("emoji_vgg")
    scenes = torch.rand(10, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    layers = ("net.features.4", "net.features.12", "net.features.17")
    return model, scenes, {layer: top_patches(model, layer, scenes, 9) for layer in layers}


def test_the_sliders_over_their_whole_range(searched):
    for stage, top in enumerate(searched[2].values(), 1):
        for unit in range(0, 97, 24):
            patches, views = widgets.patches_and_reconstructions(*searched, stage, unit)
            assert patches.shape == views.shape and patches.shape[2] == 3
            assert np.isfinite(views).all() and 0 <= views.min() <= views.max() <= 1
            assert widgets.top_unit(*searched, stage, unit)[2] == min(unit, len(top.units) - 1)
    box = widgets.units(*searched)
    assert [(c.min, c.max) for c in box.children[:2]] == [(1, 3), (0, 95)]


def test_windows_are_cut_where_the_patches_are(searched):
    """Cutting the scenes themselves gives the patches; pixels outside the image are 0."""
    _, scenes, tops = searched
    for top in tops.values():
        cut = widgets.windows(scenes[top.images[3]], top.boxes[3])
        assert torch.equal(cut, top.crops(3, fill=0))


def test_a_reconstruction_is_zero_outside_its_window(searched):
    model, scenes, tops = searched
    top = tops["net.features.4"]
    views = deconvnet.reconstruct(model, scenes[top.images[5]], "net.features.4", 5)
    inside = widgets.windows(views, top.boxes[5])
    assert inside.any()
    assert torch.allclose(inside.abs().sum(), views.abs().sum())


def test_tinted_maps_are_grey_at_zero():
    maps = torch.zeros(3, 20, 20)
    assert (show.tinted(maps) == 0.5).all()
    maps[0, 4, 7], maps[2, 9, 9] = 2, -1
    tinted = show.tinted(maps, percentile=100)
    assert tinted.shape == (20, 20, 3)
    assert (tinted[4, 7] == [1, 0.5, 0.5]).all() and (tinted[9, 9] == [0.5, 0.5, 0.25]).all()
    # Few values are not 0, so that the scale ends at the maximum.
    assert show.tinted(maps, percentile=99)[9, 9, 2] == 0.25
    blurred = show.tinted(maps, percentile=100, blur=1)
    assert blurred[4, 7, 0] == 1 > blurred[4, 8, 0] > 0.5 == blurred[4, 7, 1]
