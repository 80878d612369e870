"""The widget of notebook 13 over the range of its sliders."""

import itertools

import pytest
import torch
from matplotlib import pyplot as plt

from vislib import nets
from vislib.transforms import baseline_image
from vislib.widgets import occlusion as widgets


def test_the_square_over_the_range_of_its_sliders(monkeypatch):
    alts = []
    monkeypatch.setattr(
        "vislib.show.figure", lambda drawn, alt: (plt.close(drawn), alts.append(alt))
    )
    model = nets.load("emoji_vgg")
    x = torch.rand(1, 3, 128, 96, generator=torch.Generator().manual_seed(1))
    row, column, size, kind, _ = widgets.square(model, x, [0, 3]).children
    for r, c, s, k in itertools.product(
        (row.min, row.max), (column.min, column.max), (size.min, size.max), kind.options
    ):
        covered = widgets.cover(x, r, c, s, k)
        changed = (covered != x).any(dim=1)[0]
        inside = torch.zeros(128, 96, dtype=torch.bool)
        inside[r * 8 : r * 8 + s, c * 8 : c * 8 + s] = True
        assert changed.any() and not (changed & ~inside).any()
        assert torch.equal(covered[..., inside], baseline_image(x, k)[..., inside])
    assert widgets.probabilities(model, x, [0, 3]) == pytest.approx(
        model(x).softmax(1)[0, [0, 3]].tolist()
    )
    alts.clear()
    for at in (row.min, row.max):
        widgets.draw_square(model, x, [0, 3], at, 4, 32)
    assert len(set(alts)) == 2
