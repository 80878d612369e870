"""The widget of notebook 12: its parts sum to FullGrad, and each position of the slider differs."""

from itertools import pairwise

import pytest
import torch

from vislib import nets
from vislib.explain.fullgrad import fullgrad, fullgrad_parts
from vislib.widgets import fullgrad as widgets


@pytest.mark.parametrize("name", ["emoji_vgg", "emoji_resnet"])
def test_all_parts_of_the_widget_together_are_fullgrad(name):
    model = nets.load(name)
    x = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    parts = fullgrad_parts(model, x, [3, 7])
    most = len(widgets.spatial_parts(parts))
    whole = widgets.partial_map(parts, most, (64, 48))
    assert torch.allclose(whole, fullgrad(model, x, [3, 7]), rtol=1e-4, atol=1e-4)
    maps = [widgets.partial_map(parts, count, (64, 48)) for count in range(1, most + 1)]
    assert all((b - a).min() > -1e-4 and (b > a).any() for a, b in pairwise(maps))


def test_the_widget_over_the_range_of_its_slider(monkeypatch):
    alts = []
    monkeypatch.setattr("vislib.show.panels", lambda shown, alt, **options: alts.append(alt))
    model = nets.load("emoji_gap")
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(64, 64, dtype=torch.bool).numpy()
    mask[10:30, 10:30] = True
    _, count, _ = widgets.growing(model, x, {"dog": 3}, {"dog": mask}).children
    alts.clear()
    for value in range(count.min, count.max + 1):
        widgets.draw_growing(model, x, {"dog": 3}, {"dog": mask}, "dog", value)
    assert len(set(alts)) == count.max
