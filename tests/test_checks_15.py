"""The checks of notebook 15: right answers pass, each usual mistake is named."""

from math import comb, factorial

import pytest
import torch

from vislib.checks import Wrong, shapley
from vislib.explain.shapley import exact


def weight(size, n):
    return factorial(size) * factorial(n - size - 1) / factorial(n)


def teams_of(order):
    place = order.argsort()
    return place, place < torch.arange(len(order) + 1)[:, None]


def along(value, order):
    place, teams = teams_of(order)
    return value(teams).diff()[place]


def alone(value, order):
    n = len(order)
    return value(torch.eye(n, dtype=torch.bool)) - value(torch.zeros(1, n, dtype=torch.bool))


def last(value, order):
    n = len(order)
    return value(torch.ones(1, n, dtype=torch.bool)) - value(~torch.eye(n, dtype=torch.bool))


def marginal(predict, x, background, team):
    return predict(torch.where(team, x, background)).mean()


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (shapley.weight, weight),
        (shapley.along, along),
        (shapley.marginal, marginal),
    ],
)
def test_right_answers_pass(check, answer, capsys):
    check(answer)
    assert capsys.readouterr().out.startswith("✓")


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (shapley.weight, lambda s, n: 1 / factorial(n), "in any order among themselves"),
        (shapley.weight, lambda s, n: weight(s, n) * (n - s), "n - size - 1 others"),
        (shapley.weight, lambda s, n: 1 / n, "take one of them"),
        (shapley.weight, lambda s, n: 1 / comb(n - 1, s), "count orders"),
        (shapley.weight, lambda s, n: weight(s, n) * factorial(n), "divide by all"),
        (shapley.along, lambda v, o: v(teams_of(o)[1]).diff(), "belongs to player i"),
        (shapley.along, alone, "alone"),
        (shapley.along, last, "the full team loses"),
        (shapley.along, lambda v, o: v(teams_of(o)[1])[1:][o.argsort()], "Subtract the value"),
        (shapley.along, lambda v, o: along(v, o.flip(0)), "reverse order"),
        (shapley.along, lambda v, o: exact(v, len(o)), "this one only"),
        (shapley.along, lambda v, o: v(o), "takes M×4 bool"),
        (
            shapley.marginal,
            lambda f, x, b, t: f(torch.where(t, x, b.mean(0))[None])[0],
            "average predictions, not features",
        ),
        (shapley.marginal, lambda f, x, b, t: marginal(f, x, b, ~t), "wrong way round"),
        (shapley.marginal, lambda f, x, b, t: f((t * x)[None])[0], "is not 0"),
        (shapley.marginal, lambda f, x, b, t: 9 * marginal(f, x, b, t), "take the mean"),
        (shapley.marginal, lambda f, x, b, t: f(b).mean(), "must come from x"),
        (shapley.marginal, lambda f, x, b, t: marginal(f, x, b[:1], t), "is not enough"),
    ],
)
def test_each_mistake_is_named(check, answer, told):
    with pytest.raises(Wrong, match=told):
        check(answer)
