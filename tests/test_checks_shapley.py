"""The checks of notebook 15: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

from math import comb, factorial

import torch
from answers import answer_tests

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


RIGHT = {
    "weight": (check.weight, weight),
    "weight by a binomial": (check.weight, lambda size, n: 1 / (n * comb(n - 1, size))),
    "along an order": (check.along, along),
    "along an order at once": (
        check.along,
        lambda v, o: v(o.argsort() < torch.arange(len(o) + 1)[:, None]).diff()[o.argsort()],
    ),
    "marginal": (check.marginal, marginal),
    "marginal by where": (check.marginal, lambda f, x, b, team: f(torch.where(team, x, b)).mean()),
}

WRONG = {
    "weight with one player too many": (
        check.weight,
        lambda s, n: weight(s, n) * (n - s),
        "n - size - 1 others",
    ),
    "weight not divided by all orders": (
        check.weight,
        lambda s, n: weight(s, n) * factorial(n),
        "divide by all",
    ),
    "reverse order": (check.along, lambda v, o: along(v, o.flip(0)), "reverse order"),
    "contributions in the order of arrival": (
        check.along,
        lambda v, o: along(v, o)[o],
        "belongs to player i",
    ),
    "values instead of contributions": (check.along, lambda v, o: v(o), "takes M×4 bool"),
    "prediction of the mean background": (
        check.marginal,
        lambda f, x, b, t: f(torch.where(t, x, b.mean(0))[None])[0],
        "average predictions, not features",
    ),
    "players and background exchanged": (
        check.marginal,
        lambda f, x, b, t: marginal(f, x, b, ~t),
        "wrong way round",
    ),
    "9 times the mean": (
        check.marginal,
        lambda f, x, b, t: 9 * marginal(f, x, b, t),
        "take the mean",
    ),
    "one row of the background": (
        check.marginal,
        lambda f, x, b, t: marginal(f, x, b[:1], t),
        "is not enough",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)
