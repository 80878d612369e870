"""Checks for notebook 15."""

from __future__ import annotations

from collections.abc import Callable
from math import comb, factorial
from typing import Any

import torch
from torch import Tensor

from vislib.checks import call, right, same
from vislib.explain import shapley


def weight(function: Callable[..., Any]) -> None:
    """Share of the orders in which a given coalition of `size` comes before a given player:
    ``function(size, n)``."""
    # where all mistakes differ comes first
    for size, n in [(2, 6), (0, 3), (1, 3), (2, 3), (1, 4), (3, 4)]:
        mistakes = {
            "n! orders in all, but more than one has these players in front: "
            "they may stand in any order among themselves, and so may those behind": (
                1 / factorial(n)
            ),
            "Behind the player stand n - size - 1 others: the player is not one of them": (
                factorial(size) * factorial(n - size) / factorial(n)
            ),
            "This is for all coalitions of that size together: take one of them": 1 / n,
            "This is one divided by the number of coalitions of that size: count orders": (
                1 / comb(n - 1, size)
            ),
            "This is the number of such orders: divide by all n!": (
                factorial(size) * factorial(n - size - 1)
            ),
        }
        expected = float(shapley.weights(n)[size])
        what = f"the weight for size {size} and {n} players"
        same(call(function, size, n), expected, what=what, mistakes=mistakes)
    right("The weights of three players are 1/3, 1/6 and 1/3.")


def along(function: Callable[..., Any]) -> None:
    """What each player adds when all arrive in one order: ``function(value, order)``."""
    for seed, n in ((0, 4), (1, 6)):
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(2**n, generator=generator, dtype=torch.float64)

        def value(teams: Tensor, table: Tensor = table, n: int = n) -> Tensor:
            if teams.ndim != 2 or teams.shape[1] != n or teams.dtype != torch.bool:
                raise ValueError(
                    f"the game takes M×{n} bool, not {teams.dtype} of shape {tuple(teams.shape)}"
                )
            return table[(teams.long() * 2 ** torch.arange(n)).sum(1)]

        order = torch.randperm(n, generator=generator)
        if seed == 0:
            order = torch.tensor([1, 2, 3, 0])  # differs from its places, also in reverse
        place = order.argsort()
        v = value(place < torch.arange(n + 1)[:, None])
        added = v.diff()
        one = value(torch.eye(n, dtype=torch.bool))
        without = value(~torch.eye(n, dtype=torch.bool))
        back = value((n - 1 - place) < torch.arange(n + 1)[:, None]).diff()
        mistakes = {
            "The numbers stand in order of arrival: result[i] belongs to player i": added,
            "This is what each player is worth alone: the earlier ones are there already": (
                one - v[0]
            ),
            "This is what the full team loses without each player: the later ones are not there": (
                v[-1] - without
            ),
            "Subtract the value before the player came": v[1:][place],
            "This is the reverse order: the first of `order` arrives first": back[n - 1 - place],
            "This is the mean over all orders: take this one only": shapley.exact(value, n),
        }
        found = call(function, value, order)
        same(found, added[place], what="what each player adds", mistakes=mistakes)
    right("All that the players add makes v(all) - v(none).")


def marginal(function: Callable[..., Any]) -> None:
    """Mean prediction with the missing features from the background:
    ``function(predict, x, background, team)``."""
    generator = torch.Generator().manual_seed(int(torch.randint(1000, ())))
    x = torch.randn(4, generator=generator, dtype=torch.float64)
    background = torch.randn(9, 4, generator=generator, dtype=torch.float64)

    def predict(rows: Tensor) -> Tensor:
        if rows.ndim != 2 or rows.shape[1] != 4:
            raise ValueError(f"the model takes M×4 rows, not {tuple(rows.shape)}")
        return rows[:, 0] * rows[:, 1] + rows[:, 2] ** 3 + (2 * rows[:, 3]).sin() + 1

    for team in ([True, False, False, True], [False, True, True, False], [False] * 4):
        there = torch.tensor(team)
        rows = torch.where(there, x, background)
        mistakes = {
            "This is the prediction for the mean row: average predictions, not features": predict(
                rows.mean(0, keepdim=True)
            )[0],
            "The wrong way round: team is True for features that keep x's own number": predict(
                torch.where(there, background, x)
            ).mean(),
            "What is missing is not 0: it comes from the rows of the background": predict(
                torch.where(there, x, torch.zeros_like(x))[None]
            )[0],
            "This is the sum over the background: take the mean": predict(rows).sum(),
            "The features of the team must come from x": predict(background).mean(),
            "One row of the background is not enough: take the mean over all": predict(rows[:1])[0],
        }
        expected = predict(rows).mean()
        found = call(function, predict, x, background, there)
        same(found, expected, what="the value of this coalition", mistakes=mistakes)
    right("Missing features are drawn from the background.")
