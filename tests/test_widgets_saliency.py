"""The widget of notebook 11 over the range of its sliders."""

import itertools

import numpy as np
import pytest
import torch

from vislib import nets
from vislib.explain.averaging import smoothgrad
from vislib.maps import total_variation
from vislib.measure import energy
from vislib.widgets import saliency as widgets


def test_the_noise_over_the_range_of_its_sliders(monkeypatch):
    alts = []
    monkeypatch.setattr("vislib.show.panels", lambda shown, alt, **options: alts.append(alt))
    model = nets.load("emoji_alexnet")
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.5
    mask = np.zeros((64, 64), dtype=bool)
    mask[10:40, 20:50] = True
    level, n, _ = widgets.noise(model, x, 2, mask).children
    for sigma, copies in itertools.product((level.min, 0.25, level.max), (n.min, n.max)):
        result = widgets.smoothed(model, x, 2, mask, sigma, copies)
        expected = smoothgrad(model, x, 2, level=sigma, n=copies)
        assert torch.equal(result.map, expected)
        assert result.P == energy.energy(expected[0], mask).P
        assert result.variation == total_variation(expected).item()
        assert 0 <= result.probability <= 1
        span = float(x.max() - x.min())
        assert float((result.copy - x).std()) == pytest.approx(sigma * span, rel=0.03, abs=1e-6)
    alts.clear()
    for sigma, copies in [(0.0, 1), (0.5, 1), (0.5, 4)]:
        widgets.draw_smoothed(model, x, 2, mask, sigma, copies)
    assert len(set(alts)) == 3
