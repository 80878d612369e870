"""Checks of notebook 15: right answers, and wrong ones written differently from the mistakes."""

from math import comb, factorial

import pytest
import torch

from vislib.checks import Wrong
from vislib.checks import shapley as check


def weight(size, n):
    return factorial(size) * factorial(n - size - 1) / factorial(n)


def along(value, order):
    """One arrival after the other."""
    n, team = len(order), torch.zeros(1, len(order), dtype=torch.bool)
    added, before = torch.zeros(n, dtype=torch.float64), value(team)
    for player in order:
        team[0, player] = True
        after = value(team)
        added[player], before = (after - before)[0], after
    return added


def marginal(predict, x, background, team):
    rows = background.clone()
    rows[:, team] = x[team]
    return predict(rows).mean()


RIGHT = [
    ("weight", weight),
    ("weight", lambda size, n: 1 / (n * comb(n - 1, size))),
    ("along", along),
    ("along", lambda v, o: v(o.argsort() < torch.arange(len(o) + 1)[:, None]).diff()[o.argsort()]),
    ("marginal", marginal),
    ("marginal", lambda f, x, b, team: f(torch.where(team, x, b)).mean()),
]

WRONG = [
    ("weight", lambda s, n: weight(s, n) * (n - s), "n - size - 1 others"),
    ("weight", lambda s, n: weight(s, n) * factorial(n), "divide by all"),
    ("along", lambda v, o: along(v, o.flip(0)), "reverse order"),
    ("along", lambda v, o: along(v, o)[o], "belongs to player i"),
    ("along", lambda v, o: v(o), "takes M×4 bool"),
    (
        "marginal",
        lambda f, x, b, t: f(torch.where(t, x, b.mean(0))[None])[0],
        "average predictions, not features",
    ),
    ("marginal", lambda f, x, b, t: marginal(f, x, b, ~t), "wrong way round"),
    ("marginal", lambda f, x, b, t: 9 * marginal(f, x, b, t), "take the mean"),
    ("marginal", lambda f, x, b, t: marginal(f, x, b[:1], t), "is not enough"),
]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_right_answers_pass(name, answer, capsys):
    getattr(check, name)(answer)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(("name", "answer", "message"), WRONG)
def test_wrong_answers_get_advice(name, answer, message):
    with pytest.raises(Wrong, match=message):
        getattr(check, name)(answer)
