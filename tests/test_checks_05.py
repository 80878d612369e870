"""The checks of notebook 05: the right answer passes, and each usual mistake is named."""

import pytest
import torch
import torch.nn.functional as F

from vislib.checks import Wrong, filters

# ---------------------------------------------------------------------- right answers


def tiles(w, axes=(1, 2, 3), half=0.5, zero=0.5):
    return zero + half * w / w.abs().amax(dim=axes, keepdim=True).clamp(min=1e-12)


def stretched(w):
    low, high = w.amin((1, 2, 3), True), w.amax((1, 2, 3), True)
    return (w - low) / (high - low)


def dead(maps):
    return maps.amax(dim=(0, 2, 3)) <= 0


def places(maps, k, descending=True, turned=False, side=2, one_each=True):
    if not one_each:
        best = maps.flatten().argsort(descending=True)[:k].tolist()
        size = maps[0].numel()
        return [(i // size, *divmod(i % size, maps.shape[2])) for i in best]
    value, index = maps.flatten(1).max(dim=1)
    best = value.argsort(descending=descending)[:k].tolist()
    found = [(n, *divmod(int(index[n]), maps.shape[side])) for n in best]
    return [(n, j, i) for n, i, j in found] if turned else found


def crop(image, row, column, size, jump, start, fill=0.5):
    padded = F.pad(image, (30, 30, 30, 30), value=fill)
    top, left = start + row * jump + 30, start + column * jump + 30
    return padded[:, top : top + size, left : left + size]


RIGHT = [
    (filters.filter_tiles, tiles),
    (filters.dead_units, dead),
    (filters.best_places, places),
    (filters.crop, crop),
]

# ---------------------------------------------------------------------- usual mistakes


def clipped(image, row, column, size, jump, start):
    top, left = start + row * jump, start + column * jump
    return image[:, max(top, 0) : top + size, max(left, 0) : left + size]


def late(image, row, column, size, jump, start):
    inside = clipped(image, row, column, size, jump, start)
    window = torch.full((3, size, size), 0.5)
    window[:, : inside.shape[1], : inside.shape[2]] = inside
    return window


def changes_its_input(weights):
    weights /= weights.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return 0.5 + 0.5 * weights


MISTAKES = [
    (
        filters.filter_tiles,
        [
            (stretched, "zero gets another grey"),
            (lambda w: 0.5 + 0.5 * w / w.abs().max(), "largest of all filters"),
            (lambda w: tiles(w, (2, 3)), "one scale for a whole filter"),
            (lambda w: 0.5 + 0.5 * w / w.amax((1, 2, 3), True), "negative ones may be larger"),
            (lambda w: tiles(w, half=1, zero=0).abs(), "hides the sign"),
            (lambda w: tiles(w, half=1, zero=0), "from -1 to 1"),
            (lambda w: tiles(w, half=1), "halve the weights"),
            (lambda w: 0.5 + 0.5 * w / w.abs().amax((1, 2, 3), True), "a filter of zeros"),
            (changes_its_input, "changes its input"),
        ],
    ),
    (
        filters.dead_units,
        [
            (lambda m: m.mean((0, 2, 3)) <= 0, "mean below 0 is not yet dead"),
            (lambda m: m.amax((0, 2, 3)) > 0, "the living ones"),
            (lambda m: (m.amax((2, 3)) <= 0).any(0), "look at all pictures"),
            (lambda m: (m <= 0).any(3).any(2).any(0), "look at all places"),
            (lambda m: m.mean((2, 3)).amax(0) <= 0, "not at its mean"),
            (lambda m: m.amax((0, 2, 3)) < 0, "exactly 0 is dead too"),
            (lambda m: m.amax((2, 3)) <= 0, "for each picture still"),
            (lambda m: m.amax((0, 2)) <= 0, "should have shape"),
        ],
    ),
    (
        filters.best_places,
        [
            (lambda m, k: places(m, k, one_each=False), "One picture fills the list"),
            (lambda m, k: places(m, k, descending=False), "weakest pictures"),
            (lambda m, k: places(m, k)[::-1], "strongest comes first"),
            (lambda m, k: sorted(places(m, len(m)))[:k], "order of the stream"),
            (lambda m, k: places(m, k, turned=True), "swapped"),
            (lambda m, k: places(m, k, side=1), "divide by the width"),
            (lambda m, k: places(m, len(m)), "not all pictures"),
            (lambda m, k: [n for n, _, _ in places(m, k)], "list of triples"),
            (lambda m, k: [(n, i) for n, i, _ in places(m, k)], "Return triples"),
            (lambda m, k: [], "Return triples"),
        ],
    ),
    (
        filters.crop,
        [
            (lambda x, i, j, r, s, t: crop(x, i, j, r, s, 0), "add start"),
            (lambda x, i, j, r, s, t: crop(x, i, j, r, 1, t), "jump pixels apart"),
            (lambda x, i, j, r, s, t: crop(x, i, j, r, s, t - r // 2), "not centred"),
            (lambda x, i, j, r, s, t: crop(x, j, i, r, s, t), "swapped"),
            (lambda *v: crop(*v, fill=0.0), "0.5, not with 0"),
            (clipped, "keep its size at the border"),
            (late, "filled there"),
        ],
    ),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT, ids=lambda f: f.__name__)
def test_the_right_answer_passes(check, answer, capsys):
    for _ in range(10):
        check(answer)
    assert capsys.readouterr().out.count("✓") == 10


@pytest.mark.parametrize(
    ("check", "answer", "advice"),
    [(check, answer, advice) for check, wrong in MISTAKES for answer, advice in wrong],
)
def test_a_mistake_is_named(check, answer, advice):
    for _ in range(10):
        with pytest.raises(Wrong, match=advice):
            check(answer)
