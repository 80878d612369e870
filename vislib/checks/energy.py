"""Checks for the exercises of notebook 23, the energy benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vislib.checks import Exercise, Wrong, call, same, truth

# --- The energy fraction --------------------------------------------------------------------------


def _maps_and_masks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Maps and masks; each mask has pixels inside and outside the object."""
    rng = np.random.default_rng()
    for _ in range(3):
        maps = rng.normal(size=(3, 7, 9))
        mask = rng.random((7, 9)) < 0.3
        mask[0, 0], mask[0, 1] = True, False
        yield maps, mask


def _fraction(energy: np.ndarray, mask: np.ndarray) -> Any:
    """Fraction of the energy inside the mask."""
    return energy[..., mask].sum() / energy.sum()


energy_fraction = Exercise(
    task="``energy_fraction(map, mask)``: P of a C×H×W map on a boolean H×W mask.",
    inputs=_maps_and_masks,
    solution=lambda maps, mask: _fraction(maps**2, mask),
    what="P",
    mistakes={
        "Energy is the square of the map, not its absolute value": lambda maps, mask: _fraction(
            np.abs(maps), mask
        ),
        "Square first, then sum over the channels: +1 and −1 must not cancel": lambda maps, mask: (
            _fraction(maps.sum(axis=0) ** 2, mask)
        ),
        "Divide by the total energy, not by the energy outside the mask": lambda maps, mask: (
            (maps**2)[:, mask].sum() / (maps**2)[:, ~mask].sum()
        ),
        "This is the fraction outside the object": lambda maps, mask: _fraction(maps**2, ~mask),
        "This is the energy itself: divide it by the total energy": lambda maps, mask: (maps**2)[
            :, mask
        ].sum(),
        "This is the fraction of the image that the mask covers: the map is not used": (
            lambda maps, mask: mask.mean()
        ),
    },
    praise="P is the fraction of the squared map on the object",
)


# --- The pointing game ----------------------------------------------------------------------------

Energy = Callable[[np.ndarray], np.ndarray]
Position = tuple[int, int]

WRONG_ENERGIES: dict[str, Energy] = {
    "Both signs matter: take the square": lambda maps: maps.sum(axis=0),
    "Sum the energy over all channels": lambda maps: maps[0] ** 2,
    "Square each channel, and sum after that": lambda maps: maps.sum(axis=0) ** 2,
}
"""Functions to the H×W values that a common mistake maximises, by the advice for the mistake."""


def strongest(maps: np.ndarray, energy: Energy = lambda maps: (maps**2).sum(axis=0)) -> Position:
    """Position of the largest energy of a C×H×W map, as (row, column)."""
    values = energy(maps)
    row, column = np.unravel_index(values.argmax(), values.shape)
    return int(row), int(column)


def peaks(
    rng: np.random.Generator, shape: tuple[int, int], position: Position, rival: Position
) -> Iterator[np.ndarray]:
    """3×H×W maps with the largest energy at `position`.

    In the first map, all energies are largest at `position`. In the other maps, each of
    `WRONG_ENERGIES` is largest at `rival` once.
    """
    for here, there in [
        ((3, 3, 3), (1, 1, 1)),
        ((-3, -3, -3), (1, 1, 1)),
        ((3, 3, 3), (4.5, 0, 0)),
        ((5, 0, 0), (2.6, 2.6, 2.6)),
    ]:
        maps = rng.uniform(0, 1, size=(3, *shape))
        maps[:, *position], maps[:, *rival] = here, there
        yield maps


def one_truth(result: Any, *_: Any) -> bool:
    """Result of a function that returns True or False for a map."""
    return truth(result, "for the one strongest position of the map")


def _peaks_on_and_off_the_object() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng()
    for position in [(4, 2), (1, 5)]:
        for maps in peaks(rng, (6, 8), position, (3, 6)):
            for on_object in (True, False):
                mask = np.full((6, 8), not on_object)
                mask[position] = on_object
                yield maps, mask


def _where(maps: np.ndarray, mask: np.ndarray) -> str:
    return (
        f"the result for a strongest position {'on' if mask[strongest(maps)] else 'off'} the object"
    )


def _transposed(maps: np.ndarray, mask: np.ndarray) -> Any:
    row, column = strongest(maps)
    return mask[column % mask.shape[0], row % mask.shape[1]]


pointing_hit = Exercise(
    task="``pointing_hit(map, mask)``: whether the strongest position of a map is on the mask.",
    inputs=_peaks_on_and_off_the_object,
    solution=lambda maps, mask: mask[strongest(maps)],
    what=_where,
    mistakes={
        **{
            advice: lambda maps, mask, energy=energy: mask[strongest(maps, energy)]
            for advice, energy in WRONG_ENERGIES.items()
        },
        "The mask contains object pixels, but is the strongest position one of them?": (
            lambda maps, mask: mask.any()
        ),
        "Rows come first: the position is (y, x)": _transposed,
    },
    parse=one_truth,
    praise="the strongest position decides",
)


# --- The mean of the defined values ---------------------------------------------------------------


def _fractions() -> Iterator[tuple[np.ndarray]]:
    values = np.random.default_rng().uniform(0.2, 0.9, size=20)
    values[[3, 8, 13]] = np.nan
    yield (values,)


def _mean_and_count(result: Any) -> tuple[Any, Any]:
    try:
        mean, undefined = result
    except (TypeError, ValueError):
        raise Wrong("Return two numbers: the mean, and how many values are undefined") from None
    return mean, undefined


_COUNT_MISTAKES: dict[str, Callable[[np.ndarray], Any]] = {
    "This is the number of defined values": lambda P: np.isfinite(P).sum(),
    "This is the number of all values": len,
}


def _counts(function: Callable[..., Any]) -> None:
    """Check the second number, also where all values are defined."""
    ((values,),) = _fractions()
    same(
        _mean_and_count(call(function, values))[1],
        3,
        what="The number of undefined values",
        mistakes={advice: mistaken(values) for advice, mistaken in _COUNT_MISTAKES.items()},
    )
    same(
        _mean_and_count(call(function, values[:3]))[1],
        0,
        what="The number of undefined values, where there is none",
    )


mean_of_defined = Exercise(
    task="``mean_of_defined(P)``: the mean of the values that are not NaN, and how many are NaN.",
    inputs=_fractions,
    solution=lambda P: (np.nanmean(P), np.isnan(P).sum()),
    what="The mean",
    mistakes={
        "An undefined P is not 0: a map without energy gives no evidence, so leave it out": (
            lambda P: (np.nan_to_num(P).mean(), np.isnan(P).sum())
        ),
        "The sum of NaN and any number is NaN: leave out these values first": lambda P: (
            (P.mean(), np.isnan(P).sum())
        ),
        **{
            advice: lambda P, count=count: (np.nanmean(P), count(P))
            for advice, count in _COUNT_MISTAKES.items()
        },
    },
    parse=lambda result, P: _mean_and_count(result)[0],
    praise="undefined values are left out, and counted",
    extra=_counts,
)
