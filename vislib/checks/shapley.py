"""Checks for the exercises of notebook 15, Shapley values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import comb, factorial
from typing import Any

import torch
from torch import Tensor

from vislib.checks import Exercise
from vislib.explain import shapley

weight = Exercise(
    task=(
        "``weight(size, n)``: the fraction of the orders of n players in which a given coalition "
        "of `size` players comes before a given player."
    ),
    # The mistakes all differ in the first trial.
    inputs=lambda: [(2, 6), (0, 3), (1, 3), (2, 3), (1, 4), (3, 4)],
    solution=lambda size, n: float(shapley.weights(n)[size]),
    what=lambda size, n: f"the weight for size {size} and {n} players",
    mistakes={
        "More than one of the n! orders has these players in front: they may be in any order among "
        "themselves, and so may the players behind": lambda size, n: 1 / factorial(n),
        "There are n - size - 1 others behind the player: the player is not one of them": (
            lambda size, n: factorial(size) * factorial(n - size) / factorial(n)
        ),
        "This is for all coalitions of this size together: take only one of them": lambda size, n: (
            1 / n
        ),
        "This is one divided by the number of coalitions of this size: count orders instead": (
            lambda size, n: 1 / comb(n - 1, size)
        ),
        "This is the number of such orders: divide by all n!": (
            lambda size, n: factorial(size) * factorial(n - size - 1)
        ),
    },
    praise="The weights of three players are 1/3, 1/6 and 1/3.",
)


# --- What each player adds in one order -----------------------------------------------------------

Game = Callable[[Tensor], Tensor]


def _game(table: Tensor, n: int) -> Game:
    """Game whose coalitions have the values of a table with 2ⁿ numbers."""

    def value(teams: Tensor) -> Tensor:
        if teams.ndim != 2 or teams.shape[1] != n or teams.dtype != torch.bool:
            raise ValueError(
                f"the game takes M×{n} bool, not {teams.dtype} of shape {tuple(teams.shape)}"
            )
        return table[(teams.long() * 2 ** torch.arange(n)).sum(1)]

    return value


def _games() -> Iterator[tuple[Game, Tensor]]:
    for seed, n in ((0, 4), (1, 6)):
        generator = torch.Generator().manual_seed(seed)
        value = _game(torch.randn(2**n, generator=generator, dtype=torch.float64), n)
        order = torch.randperm(n, generator=generator)
        if seed == 0:
            # This order differs from the positions of its players, also in reverse.
            order = torch.tensor([1, 2, 3, 0])
        yield value, order


def _teams(order: Tensor) -> Tensor:
    """Coalitions after 0, 1, … n arrivals, (n + 1)×n."""
    return order.argsort() < torch.arange(len(order) + 1)[:, None]


def _along(value: Game, order: Tensor) -> Tensor:
    return value(_teams(order)).diff()[order.argsort()]


def _alone(value: Game, order: Tensor) -> Tensor:
    one = torch.eye(len(order), dtype=torch.bool)
    return value(one) - value(torch.zeros_like(one[:1]))


def _missing(value: Game, order: Tensor) -> Tensor:
    one = torch.eye(len(order), dtype=torch.bool)
    return value(torch.ones_like(one[:1])) - value(~one)


along = Exercise(
    task=(
        "``along(value, order)``: what each player adds when all arrive in one order; `value` "
        "takes M×n bool, the order holds n players, the result is n numbers."
    ),
    inputs=_games,
    solution=_along,
    what="what each player adds",
    mistakes={
        "The numbers are in order of arrival: result[i] belongs to player i": (
            lambda value, order: value(_teams(order)).diff()
        ),
        "This is the value of each player alone: earlier players are already in the team": _alone,
        "This is the loss of the full team without the player: later players are not in it yet": (
            _missing
        ),
        "Subtract the value before the player came": (
            lambda value, order: value(_teams(order))[1:][order.argsort()]
        ),
        "This is the reverse order: the first of `order` arrives first": (
            lambda value, order: _along(value, order.flip(0))
        ),
        "This is the mean over all orders: use only the given order": (
            lambda value, order: shapley.exact(value, len(order))
        ),
    },
    praise="All that the players add makes v(all) - v(none).",
)


# --- The marginal game of a table model -----------------------------------------------------------


def _predict(rows: Tensor) -> Tensor:
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise ValueError(f"the model takes M×4 rows, not {tuple(rows.shape)}")
    return rows[:, 0] * rows[:, 1] + rows[:, 2] ** 3 + (2 * rows[:, 3]).sin() + 1


def _tables() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(int(torch.randint(1000, ())))
    x = torch.randn(4, generator=generator, dtype=torch.float64)
    background = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    for team in ([True, False, False, True], [False, True, True, False], [False] * 4):
        yield _predict, x, background, torch.tensor(team)


marginal = Exercise(
    task=(
        "``value_of(predict, x, background, team)``: the mean prediction with the missing features "
        "from the background; x holds d numbers, background B×d, team d times True or False."
    ),
    inputs=_tables,
    solution=lambda predict, x, background, team: predict(torch.where(team, x, background)).mean(),
    what="the value of this coalition",
    mistakes={
        "This is the prediction for the mean row: average predictions, not features": (
            lambda predict, x, background, team: predict(
                torch.where(team, x, background).mean(0, keepdim=True)
            )[0]
        ),
        "This is the wrong way round: team is True for the features that keep the value of x": (
            lambda predict, x, background, team: predict(torch.where(team, background, x)).mean()
        ),
        "A missing feature is not 0: it comes from the rows of the background": (
            lambda predict, x, background, team: predict((team * x)[None])[0]
        ),
        "This is the sum over the background: take the mean": (
            lambda predict, x, background, team: predict(torch.where(team, x, background)).sum()
        ),
        "The features of the team must come from x": (
            lambda predict, x, background, team: predict(background).mean()
        ),
        "One row of the background is not enough: take the mean over all rows": (
            lambda predict, x, background, team: predict(torch.where(team, x, background[:1]))[0]
        ),
    },
    praise="Missing features are drawn from the background.",
)
