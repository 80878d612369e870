"""Pointing game, insertion, deletion and rank correlation, against the same written as loops."""

import math
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from vislib import nets
from vislib.measure import perturbation
from vislib.measure.energy import uniform
from vislib.measure.statistics import rank_correlation_table
from vislib.transforms import baseline_image


@pytest.fixture
def random():
    return np.random.default_rng(0)


# --- pointing game ---------------------------------------------------------------------------


def pointing_by_hand(maps, mask, tolerance):
    """The strongest places one by one, and the distance of each to every pixel of the object."""
    maps = maps.reshape(-1, *mask.shape).numpy().astype(float)
    strength = {
        (y, x): sum(float(v) ** 2 for v in maps[:, y, x])
        for y in range(mask.shape[0])
        for x in range(mask.shape[1])
    }
    best = max(strength.values())
    places = [p for p, s in strength.items() if s == best]
    hits = [
        any(math.hypot(y - a, x - b) <= tolerance for a, b in np.argwhere(mask)) for y, x in places
    ]
    return sum(hits) / len(hits)


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3])
def test_the_pointing_game_is_what_loops_give(random, tolerance):
    found = []
    for _ in range(40):
        maps = torch.from_numpy(random.integers(-3, 4, size=(3, 9, 7))).float()  # with ties
        mask = random.random((9, 7)) < 0.06
        mask[0, 0] = True
        found.append(perturbation.pointing_game(maps, mask, tolerance))
        assert found[-1] == pytest.approx(pointing_by_hand(maps, mask, tolerance))
    assert len(set(found)) > 1


def test_the_tolerance_is_a_circle_and_its_edge_belongs_to_it():
    mask = np.zeros((40, 40), bool)
    mask[5, 5] = True

    def points_at(y, x, **options):
        maps = torch.zeros(40, 40)
        maps[y, x] = -2.0  # the sign does not count
        return perturbation.pointing_game(maps, mask, **options)

    assert points_at(5, 20) == 1  # 15 pixels
    assert points_at(5, 21) == 0
    assert points_at(14, 17) == 1  # 9, 12: 15 pixels again
    assert points_at(16, 16) == 0  # 11, 11 is further away, though in the square
    assert points_at(5, 5, tolerance=0) == 1
    assert points_at(5, 6, tolerance=0) == 0


def test_a_uniform_map_gets_the_masks_share_and_a_dead_one_nothing(random):
    mask = random.random((9, 11)) < 0.3
    assert perturbation.pointing_game(uniform(9, 11), mask, 0) == pytest.approx(mask.mean())
    assert math.isnan(perturbation.pointing_game(torch.zeros(3, 9, 11), mask))


@pytest.mark.parametrize(
    ("maps", "mask", "tolerance", "message"),
    [
        (torch.ones(3, 4), np.ones((4, 4), bool), 1, "upsample the map"),
        (torch.ones(4, 4), np.zeros((4, 4), bool), 1, "the mask is empty"),
        (torch.ones(4, 4), np.ones((4, 4), bool), -1, "at least 0 pixels, got -1"),
        (torch.full((4, 4), math.nan), np.ones((4, 4), bool), 1, "NaN or infinite"),
        (torch.ones(1, 1, 4, 4), np.ones((4, 4), bool), 1, "C×H×W or H×W"),
    ],
)
def test_what_cannot_point(maps, mask, tolerance, message):
    with pytest.raises(ValueError, match=message):
        perturbation.pointing_game(maps, mask, tolerance)


# --- insertion and deletion ------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return nets.load("emoji_alexnet", weights=False)


@pytest.fixture(scope="module")
def x():
    return torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def curve_by_hand(model, start, end, target, maps, steps):
    """One image, pixel by pixel, with a whole forward pass for each step."""
    strength = (maps.double() ** 2).sum(0)
    places = [(float(strength[y, x]), y, x) for y in range(len(strength)) for x in range(48)]
    places.sort(key=lambda place: -place[0])
    scores, now, done = [], start.clone(), 0
    for step in range(steps + 1):
        until = round(step / steps * len(places))
        for _, y, x in places[done:until]:
            now[:, y, x] = end[:, y, x]
        done = until
        with torch.no_grad():
            scores.append(model(now[None]).double().softmax(1)[0, target].item())
    area = sum((a + b) / 2 / steps for a, b in pairwise(scores))
    return scores, area


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_insertion_and_deletion_are_what_loops_give(model, x, batch):
    maps = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    target, steps = [3, 7], 5
    blurred = baseline_image(x, "blur")
    grey = torch.full_like(x, 0.25)
    for found, start, end in (
        (
            perturbation.deletion(model, x, target, maps, steps=steps, baseline=0.25, batch=batch),
            x,
            grey,
        ),
        (perturbation.insertion(model, x, target, maps, steps=steps, batch=batch), blurred, x),
    ):
        assert found.fractions.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
        for n in range(2):
            scores, area = curve_by_hand(model, start[n], end[n], target[n], maps[n], steps)
            assert found.scores[n].tolist() == pytest.approx(scores, abs=1e-6)
            assert found.auc[n].item() == pytest.approx(area, abs=1e-6)


class Bright(nn.Module):
    """Two classes; the first's probability grows with the pixels that are left on the left."""

    def forward(self, x):
        left = x[..., : x.shape[-1] // 2].mean(dim=(1, 2, 3))
        return torch.stack([8 * left, torch.full_like(left, 4.0)], dim=1)


def test_a_map_that_knows_what_the_net_sees_wins_both_and_its_opposite_loses_both():
    x = torch.ones(1, 3, 20, 20)
    knows = torch.zeros(1, 1, 20, 20)
    knows[..., :10] = 1.0
    nothing = torch.full_like(knows, 0.5)
    areas = [
        [
            measure(Bright(), x, 0, maps, steps=10, baseline=0.0).auc.item()
            for maps in (knows, nothing, 1 - knows)
        ]
        for measure in (perturbation.insertion, perturbation.deletion)
    ]
    assert areas[0][0] > areas[0][1] + 0.05 > areas[0][2] + 0.1
    assert areas[1][0] < areas[1][1] - 0.05 < areas[1][2] - 0.1


def test_equal_pixels_change_in_a_fixed_order_without_a_pattern():
    places = perturbation._ranks(torch.zeros(1, 30, 30))
    assert torch.equal(places, perturbation._ranks(torch.ones(3, 30, 30)))
    assert sorted(places.tolist()) == list(range(900))
    first_half = (places.view(30, 30) < 450).double()
    for half in (first_half[:15], first_half[15:], first_half[:, :15], first_half[:, 15:]):
        assert 0.4 < half.mean() < 0.6
    # and it is the order of what is not equal that comes first
    maps = torch.zeros(1, 30, 30)
    maps[0, 7, 3], maps[0, 2, 9] = -2.0, 1.0
    order = perturbation._ranks(maps).view(30, 30)
    assert (order[7, 3], order[2, 9]) == (0, 1)


def test_the_model_stays_as_it_was(model, x):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    perturbation.deletion(model, x, 1, x, steps=2)
    assert model.training
    model.eval()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": torch.ones(2, 1, 9, 9)}, "use maps.upsample"),
        ({"maps": torch.ones(1, 1, 48, 48)}, "need maps N×C×H×W"),
        ({"maps": torch.full((2, 1, 48, 48), math.inf)}, "NaN or infinite"),
        ({"steps": 0}, "at least 1, got 0 and 64"),
        ({"baseline": "snow"}, "'grey', 'mean', 'blur' or 'noise', got 'snow'"),
        ({"target": 99}, "target 99 does not exist"),
        ({"target": [1, 2, 3]}, r"2 images need one target or 2, got shape \(3,\)"),
        ({"target": 1.0}, "must be a class index or 2 of them, got 1.0"),
        ({"target": "zebra"}, "must be a class index or 2 of them, got 'zebra'"),
        ({"x": torch.ones(3, 48, 48)}, "N×C×H×W"),
    ],
)
def test_what_has_no_curve(model, x, options, message):
    settings = {"x": x, "target": 1, "maps": torch.ones(2, 1, 48, 48)} | options
    with pytest.raises(ValueError, match=message):
        perturbation.deletion(model, **settings)


# --- do measures agree? ----------------------------------------------------------------------


def ranks_by_hand(values):
    return [sum(v < w for v in values) + (sum(v == w for v in values) + 1) / 2 for w in values]


def spearman_by_hand(a, b):
    return np.corrcoef(ranks_by_hand(a), ranks_by_hand(b))[0, 1]


def kendall_by_hand(a, b):
    sign = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in combinations(range(len(a)), 2)]
    both = sum(s * t for s, t in sign)
    return both / math.sqrt(sum(s != 0 for s, _ in sign) * sum(t != 0 for _, t in sign))


@pytest.mark.parametrize(
    ("kind", "by_hand"), [("spearman", spearman_by_hand), ("kendall", kendall_by_hand)]
)
def test_rank_correlations_with_ties_and_gaps(random, kind, by_hand):
    table = pd.DataFrame(random.integers(0, 5, size=(12, 3)).astype(float), columns=list("PQR"))
    table.loc[3, "P"] = table.loc[7, "R"] = np.nan
    found = rank_correlation_table(table, kind)
    assert list(found.index) == list(found.columns) == list("PQR")
    for a, b in combinations("PQR", 2):
        rows = table[[a, b]].dropna()
        assert found.loc[a, b] == pytest.approx(by_hand(list(rows[a]), list(rows[b])))
        assert found.loc[a, b] == found.loc[b, a]
        assert found.loc[a, a] == pytest.approx(1)


def test_orders_that_are_equal_turned_round_or_none():
    table = pd.DataFrame({"P": [0.1, 0.5, 0.9], "same": [1, 2, 30], "against": [3, 2, 1]})
    table["none"] = 1.0
    found = rank_correlation_table(table)
    assert found.loc["P", "same"] == pytest.approx(1)
    assert found.loc["P", "against"] == pytest.approx(-1)
    assert found["none"].isna().all()
    with pytest.raises(ValueError, match="'spearman' or 'kendall', got 'pearson'"):
        rank_correlation_table(table, "pearson")
