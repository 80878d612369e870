"""The checks of notebook 06: the right answer passes, and each usual mistake is named."""

import numpy as np
import pytest
import torch

from vislib.checks import Wrong
from vislib.checks import neighbours as check


def find(features, k, *, away=None, itself=False, largest=False):
    apart = features[:, None] - features
    away = (apart**2).sum(2) if away is None else away(apart)
    if not itself:
        away.fill_diagonal_(-torch.inf if largest else torch.inf)
    return away.argsort(dim=1, descending=largest)[:, :k]


def cosine(features, k):
    unit = features / features.norm(dim=1, keepdim=True)
    return find(unit, k)


def product(features, k):
    return (features @ features.T).fill_diagonal_(-torch.inf).argsort(1, descending=True)[:, :k]


def hits(k, table, labels):
    return (labels[table[:, :k]] == labels[:, None]).double()


def effective(squared, sigma, *, log=np.log2, base=2, scale=None, normal=True, sign=-1):
    exponent = -squared / (2 * sigma**2 if scale is None else scale(sigma))
    p = np.exp(exponent)
    p = p / p.sum() if normal else p
    return base ** (sign * np.sum(p * log(p)))


def fill(points, centres, axis=1, best=np.argmin):
    return best(((centres[:, None] - points[None]) ** 2).sum(2), axis=axis)


def by_loops(points, centres):
    return [min(range(len(points)), key=lambda i: np.hypot(*(c - points[i]))) for c in centres]


RIGHT = [
    (check.nearest, find),
    (check.precision_at, lambda k, t, y: hits(k, t, y).mean()),
    (check.perplexity, effective),
    (check.fill_grid, fill),
]


@pytest.mark.parametrize("repeat", range(10))
@pytest.mark.parametrize(
    ("check", "answer"),
    [
        *RIGHT,
        (check.nearest, lambda f, k: find(f, k).numpy()),
        (check.nearest, lambda f, k: find(f, k, away=lambda a: a.norm(dim=2))),
        (check.precision_at, lambda k, t, y: float(hits(k, t, y).mean())),
        (check.perplexity, lambda d, s: effective(d, s, log=np.log, base=np.e)),
        (check.fill_grid, by_loops),
    ],
)
def test_right_answers_pass_on_any_random_input(check, answer, repeat, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith("✓ ")


WRONG = [
    (
        check.nearest,
        [
            (lambda f, k: find(f, k, itself=True), "finds itself first"),
            (lambda f, k: find(f, k, largest=True), "the farthest"),
            (lambda f, k: find(f, k).flip(1), "reverse order"),
            (lambda f, k: find(f, k, away=lambda a: a.sum(2)), "or they cancel"),
            (cosine, "the cosine's neighbours"),
            (product, "large product does not mean near"),
            (
                lambda f, k: torch.cdist(f, f).fill_diagonal_(torch.inf).sort(dim=1)[0][:, :k],
                "return the indices",
            ),
            (lambda f, k: find(f, k).T, "N×k, not k×N"),
            (lambda f, k: find(f, k)[0], "the first picture only"),
            (lambda f, k: find(f, k + 1), "should have shape"),
            (lambda f, k: None, "does it end with return"),
        ],
    ),
    (
        check.precision_at,
        [
            (lambda k, t, y: hits(t.shape[1], t, y).mean(), "Only the first k"),
            (lambda k, t, y: hits(k, t, y).sum(1).mean(), "divide by k"),
            (lambda k, t, y: hits(k, t, y).mean(1).sum(), "sum over all queries"),
            (lambda k, t, y: hits(k, t, y).any(1).double().mean(), "any of its k"),
            (
                lambda k, t, y: (
                    hits(k, t, y).sum(1) / torch.tensor([(y == c).sum() - 1 for c in y])
                ).mean(),
                "This is recall",
            ),
            (lambda k, t, y: hits(k, t, y)[:, -1].mean(), "the k-th neighbour only"),
            (lambda k, t, y: hits(1, t, y).mean(), "the first neighbour only"),
            (lambda k, t, y: (t[:, :k] == y[:, None]).double().mean(), "not of categories"),
            (lambda k, t, y: 1 - hits(k, t, y).mean(), "wrong neighbours"),
            (lambda k, t, y: hits(k, t, y).mean(1), "one value for each query"),
        ],
    ),
    (
        check.perplexity,
        [
            (lambda d, s: np.log2(effective(d, s)), "entropy in bits"),
            (lambda d, s: effective(d, s, log=np.log), "with np.log take np.exp"),
            (lambda d, s: effective(d, s, base=np.e), r"with np.log2 take 2 \*\* H"),
            (lambda d, s: effective(d, s, normal=False), "add up to 1"),
            (lambda d, s: effective(d, s, sign=1), "minus sign"),
            (lambda d, s: effective(d, s, scale=lambda s: s**2), "The 2 is missing"),
            (lambda d, s: effective(d, s, scale=lambda s: 2 * s), "not by 2σ"),
            (lambda d, s: effective(d**2, s), "squared already"),
            (lambda d, s: effective(-d, s), "falls with the distance"),
            (lambda d, s: np.exp(-d / 2 / s**2) / np.exp(-d / 2 / s**2).sum(), "one number"),
        ],
    ),
    (
        check.fill_grid,
        [
            (lambda p, c: fill(p, c, axis=0), "nearest cell of each picture"),
            (lambda p, c: fill(p, c, best=np.argmax), "farthest"),
            (lambda p, c: fill(p[:, ::-1], c), "swapped"),
            (lambda p, c: fill(p[:, :1], c[:, :1]), "not x alone"),
            (lambda p, c: (c[:, None] - p[None]).sum(2).argmin(1), "or they cancel"),
            (lambda p, c: ((c[:, None] - p[None]) ** 2).sum(2).min(1), "which picture"),
        ],
    ),
]


@pytest.mark.parametrize("repeat", range(5))
@pytest.mark.parametrize(
    ("check", "answer", "message"),
    [(check, *case) for check, cases in WRONG for case in cases],
)
def test_each_mistake_is_named(check, answer, message, repeat):
    with pytest.raises(Wrong, match=message):
        check(answer)


@pytest.mark.parametrize("check", [check for check, _ in RIGHT])
def test_an_open_stub_and_a_value_are_told_apart(check):
    def stub(*arguments):
        raise NotImplementedError("write your code here")

    with pytest.raises(Wrong, match="stub is not written yet"):
        check(stub)
    with pytest.raises(Wrong, match="Give the check your function itself"):
        check(3)


def test_every_check_rejects_at_least_three_mistakes():
    assert [one for one, _ in RIGHT] == [one for one, _ in WRONG]
    assert all(len(cases) >= 3 for _, cases in WRONG)
    own = {f for f in vars(check).values() if getattr(f, "__module__", "") == check.__name__}
    assert {f for f in own if f.__name__[0] != "_"} == {one for one, _ in RIGHT}
