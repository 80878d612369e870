"""The widget of notebook 17 over the range of its controls."""

import pytest
import torch

from vislib import nets
from vislib.widgets import dream as widget


@pytest.mark.parametrize("octaves", [1, 4])
@pytest.mark.parametrize("layer", ["net.features.1", "net.features.17"])
def test_the_widgets_dream_over_the_range_of_its_controls(layer, octaves):
    model = nets.load("emoji_vgg")
    photo = torch.rand(1, 3, 96, 100, generator=torch.Generator().manual_seed(0))
    still, little, much = (widget.image(model, photo, layer, octaves, lr) for lr in (0, 0.01, 0.03))
    assert torch.allclose(still, photo, atol=1e-5)
    for dreamt in (little, much):
        assert dreamt.shape == photo.shape and dreamt.min() >= 0 and dreamt.max() <= 1
    assert 0 < (little - photo).abs().mean() < (much - photo).abs().mean()


def test_the_widget_draws_and_moves(monkeypatch):
    drawn = []
    monkeypatch.setattr(widget, "draw_dream", lambda *arguments: drawn.append(arguments[2:]))
    photo = torch.rand(1, 3, 48, 64)
    box = widget.dreams(nets.load("emoji_vgg"), photo, ["net.features.1", "net.features.4"])
    layer, octaves, strength, _ = box.children
    layer.value, octaves.value, strength.value = 1, 4, 0.0
    assert drawn[-1] == ("net.features.1", 4, 0.0)
