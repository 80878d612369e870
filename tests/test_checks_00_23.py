"""The checks of notebooks 00 and 23 accept the right answer and name the usual mistakes."""

import numpy as np
import pytest
import torch
from torch import nn

from vislib.checks import Wrong, start
from vislib.checks import energy as check
from vislib.explain import cam


def share(maps, mask):
    return (maps**2)[:, mask].sum() / (maps**2).sum()


WRONG_SHARES = {
    "square of the map": lambda m, k: np.abs(m)[:, k].sum() / np.abs(m).sum(),
    "Square first": lambda m, k: (m.sum(0) ** 2)[k].sum() / (m.sum(0) ** 2).sum(),
    "outside the mask": lambda m, k: (m**2)[:, k].sum() / (m**2)[:, ~k].sum(),
    "share outside": lambda m, k: (m**2)[:, ~k].sum() / (m**2).sum(),
    "energy itself": lambda m, k: (m**2)[:, k].sum(),
    "where is the map": lambda m, k: k.mean(),
    "returns None": lambda m, k: None,
    "shape": lambda m, k: (m**2).sum(axis=0),
    "stopped with": lambda m, k: m[:, k, k],
    "off by": lambda m, k: share(m, k) ** 2 + 0.01,
}


def test_energy_share_accepts_the_solution(capsys):
    check.energy_share(share)
    assert "✓" in capsys.readouterr().out


@pytest.mark.parametrize(("advice", "answer"), WRONG_SHARES.items())
def test_energy_share_names_the_mistake(advice, answer):
    with pytest.raises(Wrong, match=advice):
        check.energy_share(answer)


def test_input_must_stay_as_it_is():
    def in_place(maps, mask):
        maps *= maps
        return maps[:, mask].sum() / maps.sum()

    with pytest.raises(Wrong, match="changes its input"):
        check.energy_share(in_place)


def hit(maps, mask):
    power = (maps**2).sum(axis=0)
    return mask[np.unravel_index(power.argmax(), power.shape)]


def swapped(maps, mask):
    power = (maps**2).sum(axis=0)
    y, x = np.unravel_index(power.argmax(), power.shape)
    return mask[x % mask.shape[0], y % mask.shape[1]]


WRONG_HITS = {
    "Both signs": lambda m, k: k[np.unravel_index(m.sum(0).argmax(), k.shape)],
    "you say otherwise": swapped,
    "does not lie": lambda m, k: True,
    "True or False": lambda m, k: k,
}


def test_pointing_hit_accepts_the_solution():
    check.pointing_hit(hit)


@pytest.mark.parametrize(("advice", "answer"), WRONG_HITS.items())
def test_pointing_hit_names_the_mistake(advice, answer):
    with pytest.raises(Wrong, match=advice):
        check.pointing_hit(answer)


WRONG_MEANS = {
    "not 0": lambda p: (np.nan_to_num(p).mean(), np.isnan(p).sum()),
    "NaN spreads": lambda p: (p.mean(), np.isnan(p).sum()),
    "how many are defined": lambda p: (np.nanmean(p), (~np.isnan(p)).sum()),
    "in all": lambda p: (np.nanmean(p), len(p)),
    "two numbers": lambda p: np.nanmean(p),
    "there is none": lambda p: (np.nanmean(p), 3),
}


def test_mean_of_defined_accepts_the_solution():
    check.mean_of_defined(lambda p: (np.nanmean(p), np.isnan(p).sum()))


@pytest.mark.parametrize(("advice", "answer"), WRONG_MEANS.items())
def test_mean_of_defined_names_the_mistake(advice, answer):
    with pytest.raises(Wrong, match=advice):
        check.mean_of_defined(answer)


def test_explains():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    model.classes = ["bird", "cat", "dog", "zebra"]
    x = torch.rand(1, 3, 16, 16)
    start.explains(cam.grad_cam(model, x, 2), model, x, 2, before=1)
    wrong = {
        "class before": cam.grad_cam(model, x, 1),
        "negative values": cam.grad_cam(model, x, 2, relu=False),
        "shape": cam.guided_grad_cam(model, x, 2),
        "yours is 'a map'": "a map",
    }
    for advice, answer in wrong.items():
        with pytest.raises(Wrong, match=advice):
            start.explains(answer, model, x, 2, before=1)
