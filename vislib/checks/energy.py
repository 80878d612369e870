"""Checks for the exercises of notebook 23, the energy benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vislib.checks import Wrong, call, right, same, truth


def energy_share(function: Callable[..., Any]) -> None:
    """``energy_share(map, mask)``: P of a C×H×W map on a boolean H×W mask."""
    rng = np.random.default_rng()
    for _ in range(3):
        maps = rng.normal(size=(3, 7, 9))
        mask = rng.random((7, 9)) < 0.3
        mask[0, 0], mask[0, 1] = True, False
        power = maps**2
        inside = power[:, mask].sum()
        signed = maps.sum(axis=0) ** 2
        same(
            call(function, maps, mask),
            inside / power.sum(),
            what="P",
            mistakes={
                "Energy is the square of the map, not its absolute value": np.abs(maps)[
                    :, mask
                ].sum()
                / np.abs(maps).sum(),
                "Square first, then add the channels up: +1 and −1 must not cancel": signed[
                    mask
                ].sum()
                / signed.sum(),
                "Divide by the whole energy, not by the energy outside the mask": inside
                / power[:, ~mask].sum(),
                "This is the share outside the object": 1 - inside / power.sum(),
                "This is the energy itself: divide it by the whole energy": inside,
                "This is the mask's share of the image: where is the map?": mask.mean(),
            },
        )
    right("P is the share of the squared map on the object")


def pointing_hit(function: Callable[..., Any]) -> None:
    """``pointing_hit(map, mask)``: does the strongest place of a C×H×W map lie on the mask?"""
    rng = np.random.default_rng()
    for place, hint in {(4, 2): "", (1, 5): "Rows come first: the place is (y, x)"}.items():
        for maps, advice in peaks(rng, (6, 8), place, (3, 6)):
            for on_object in (True, False):
                mask = np.full((6, 8), not on_object)
                mask[place] = on_object
                found = call(function, maps, mask)
                if truth(found, "for the one strongest place of the map") is not on_object:
                    lies = "lies on the object" if on_object else "does not lie on the object"
                    raise Wrong(
                        f"The strongest place {lies}, you say otherwise. {advice or hint}".strip()
                    )
    right("the strongest place decides")


PEAKS = {
    "": (3, 3, 3, 1, 1, 1),
    "Both signs matter: take the square": (-3, -3, -3, 1, 1, 1),
    "Add the energy up over all channels": (3, 3, 3, 4.5, 0, 0),
    "Square each channel, and add up after that": (5, 0, 0, 2.6, 2.6, 2.6),
}
"""Three channels at the place with the largest energy, and at a rival that a mistake prefers."""


def peaks(
    rng: np.random.Generator, shape: tuple[int, int], place: tuple[int, int], rival: tuple[int, int]
) -> Iterator[tuple[np.ndarray, str]]:
    """Maps with the largest energy at `place`, each with the advice for who takes the rival."""
    for advice, values in PEAKS.items():
        maps = rng.uniform(0, 1, size=(3, *shape))
        maps[:, *place], maps[:, *rival] = values[:3], values[3:]
        yield maps, advice


def mean_of_defined(function: Callable[..., Any]) -> None:
    """``mean_of_defined(P)``: the mean of the values that are not NaN, and how many are NaN."""
    rng = np.random.default_rng()
    values = rng.uniform(0.2, 0.9, size=20)
    values[[3, 8, 13]] = np.nan
    result = call(function, values)
    try:
        mean, undefined = result
    except (TypeError, ValueError):
        raise Wrong("Return two numbers: the mean, and how many values are undefined") from None
    filled = np.nan_to_num(values)
    same(
        mean,
        np.nanmean(values),
        what="The mean",
        mistakes={
            "An undefined P is not 0: a map without energy says nothing, so leave it out": (
                filled.mean()
            ),
            "NaN spreads through every sum: leave those values out first": np.nan,
        },
    )
    same(
        undefined,
        3,
        what="The number of undefined values",
        mistakes={"This is how many are defined": 17, "This is how many there are in all": 20},
    )
    same(
        call(function, values[:3])[1], 0, what="The number of undefined values, where there is none"
    )
    right("undefined values are left out, and counted")
