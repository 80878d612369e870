"""The widget of notebook 14 over the range of its sliders."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from vislib import nets
from vislib.explain.lrp import lrp
from vislib.widgets import relevance as widgets


@pytest.fixture(scope="module")
def scene() -> tuple[nets.Classifier, Tensor]:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return nets.load("emoji_vgg"), x


def test_the_composite_over_the_range_of_its_sliders(scene):
    model, x = scene
    count = widgets.convolutions(model, x)
    assert count == sum(isinstance(module, nn.Conv2d) for module in model.modules())
    mask = torch.zeros(64, 64, dtype=torch.bool).numpy()
    mask[20:40, 20:40] = True
    gamma, switch, _ = widgets.composites(model, x, 3, mask).children
    assert (switch.min, switch.max) == (0, count)
    for g, k in itertools.product((gamma.min, 0.25, gamma.max), (switch.min, 3, switch.max)):
        R, P, cancels = widgets.look(model, x, 3, mask, g, k)
        assert R.shape == (1, 64, 64) and R.isfinite().all()
        assert 0 < P < 1 and cancels >= 1
    everywhere = lrp(model, x, 3, rule="epsilon_gamma_box", gamma=0.5)[0].sum(0, keepdim=True)
    assert torch.allclose(widgets.look(model, x, 3, mask, 0.5, count)[0], everywhere)


def test_each_slider_changes_the_figure(scene, monkeypatch):
    alts = []
    monkeypatch.setattr("vislib.show.panels", lambda *a, alt, **k: alts.append(alt))
    model, x = scene
    mask = torch.ones(64, 64, dtype=torch.bool).numpy()
    mask[:32] = False
    for g, k in [(0.25, 3), (0.3, 3), (0.25, 4)]:
        widgets.draw_look(model, x, 3, mask, g, k)
    assert len(set(alts)) == 3
