"""Checks for the exercises of notebook 23, the energy benchmark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vislib.checks import Wrong, call, right, same


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
    cases = {"": _spike(rng, 3.0), "Both signs matter: take the square": _spike(rng, -3.0)}
    cases["Rows come first: the place is (y, x)"] = _spike(rng, 3.0, y=1, x=5)
    for hint, (maps, (y, x)) in cases.items():
        for on_object in (True, False):
            mask = np.full(maps.shape[1:], not on_object)
            mask[y, x] = on_object
            answer = np.asarray(call(function, maps, mask))
            if answer.shape != () or answer not in (True, False):
                raise Wrong("Return True or False, for the one strongest place of the map")
            if bool(answer) is not on_object:
                truth = "lies on the object" if on_object else "does not lie on the object"
                raise Wrong(f"The strongest place {truth}, you say otherwise. {hint}".strip())
    right("the strongest place decides")


def _spike(
    rng: np.random.Generator, height: float, y: int = 4, x: int = 2
) -> tuple[np.ndarray, tuple[int, int]]:
    maps = rng.uniform(0, 1, size=(3, 6, 8))
    maps[:, y, x] = height
    return maps, (y, x)


def mean_of_defined(function: Callable[..., Any]) -> None:
    """``mean_of_defined(P)``: the mean of the values that are not NaN, and how many are NaN."""
    rng = np.random.default_rng()
    values = rng.uniform(0.2, 0.9, size=20)
    values[[3, 8, 13]] = np.nan
    result = call(function, values)
    if not isinstance(result, tuple) or len(result) != 2:
        raise Wrong("Return two numbers: the mean, and how many values are undefined")
    mean, undefined = result
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
