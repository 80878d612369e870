"""Functions of attribution maps against Captum, plain loops and values computed by hand."""

from __future__ import annotations

import copy
import math

import captum.attr
import pytest
import torch

from vislib.explain.gradients import gradient
from vislib.maps import channel_maximum, positive_part, total_variation, upsample

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")

TARGETS = [3, 7]


def test_upsampling_takes_pixels_as_areas():
    """By hand, for a row of two pixels: the new centres are at −¼, ¼, ¾ and 1¼."""
    assert upsample(torch.tensor([[[[0.0, 4.0]]]]), (1, 4)).tolist() == [[[[0.0, 1.0, 3.0, 4.0]]]]


def test_reductions_of_a_gradient_equal_captum_and_loops(untrained):
    model = copy.deepcopy(untrained("squeezenet1_1")).double()
    x = torch.rand(2, 3, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    x = x * torch.tensor([0.3, 1.0]).view(2, 1, 1, 1)
    g = gradient(model, x, TARGETS)
    peer = captum.attr.Saliency(model).attribute(x.clone(), target=TARGETS)
    expected = peer.amax(dim=1, keepdim=True)
    assert channel_maximum(g).shape == expected.shape
    assert expected.abs().max() > 0
    assert (channel_maximum(g) - expected).abs().max() <= 1e-6 * expected.abs().max()
    for i, j in [(0, 0), (5, 40), (63, 63)]:
        assert positive_part(g)[1, 0, i, j] == max(0.0, *(float(g[1, c, i, j]) for c in range(3)))


def test_total_variation_of_known_maps():
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    checkerboard = (1.0 - 2 * ((rows + columns) % 2)).expand(3, 64, 64)
    noise = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    actual = total_variation(torch.stack([torch.ones(3, 64, 64), checkerboard, noise]))
    assert actual[:2].tolist() == [0, 2]
    assert float(actual[2]) == pytest.approx(math.sqrt(2), abs=0.02)
    assert torch.allclose(total_variation(-7 * noise[None]), actual[2:])
    assert total_variation(torch.zeros(1, 1, 4, 4)).isnan().all()


def test_total_variation_by_hand():
    """Differences 1 and 3, absolute values 1, 2 and 1."""
    actual = total_variation(torch.tensor([[[[1.0, 2.0, -1.0]]]]))
    assert float(actual) == pytest.approx(2 / (4 / 3))
