"""Checks for the exercises of notebook 24, the measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vislib.checks import Wrong, call, right, same


def hits_near(function: Callable[..., Any]) -> None:
    """``hits_near(map, mask, tolerance)``: is the strongest place of a C×H×W map near the mask?"""
    object_at = (4, 6)
    mask = np.zeros((20, 24), bool)
    mask[object_at] = True
    cases = [
        ((4, 6), 0, True, "the place itself is at distance 0"),
        ((4, 8), 0, False, "with a tolerance of 0 the place must be on the object"),
        ((4, 11), 5, True, "a distance equal to the tolerance still counts: ≤"),
        ((4, 12), 5, False, "it is further away than the tolerance"),
        ((8, 10), 5, False, "the distance is √(4² + 4²): a circle, not a square"),
        ((7, 10), 5, True, "the distance is √(3² + 4²) = 5"),
        ((6, 4), 1, False, "rows come first: the place is (y, x)"),
    ]
    rng = np.random.default_rng()
    for place, tolerance, expected, reason in cases:
        for sign in (1.0, -1.0):
            maps = rng.uniform(0, 1, size=(3, 20, 24))
            maps[:, place[0], place[1]] = 3 * sign
            answer = np.asarray(call(function, maps, mask, tolerance))
            if answer.shape != () or answer not in (True, False):
                raise Wrong("Return True or False, for the one strongest place of the map")
            if bool(answer) is not expected:
                told = "Both signs matter: take the energy" if sign < 0 else reason.capitalize()
                raise Wrong(
                    f"The strongest place is {place}, the object {object_at}, the tolerance "
                    f"{tolerance}: this should be {expected}. {told}"
                )
    right("a circle around the strongest place decides")


def without_strongest(function: Callable[..., Any]) -> None:
    """``without_strongest(image, strength, share, fill)``: a C×H×W image, its strongest pixels
    replaced."""
    rng = np.random.default_rng()
    for share in (0.25, 0.5):
        image = rng.uniform(0.2, 1, size=(3, 6, 8))
        strength = rng.permutation(48).reshape(6, 8) ** 2.0
        fill = 0.1
        count = round(share * strength.size)
        strongest = strength >= np.sort(strength, axis=None)[-count]

        same(
            call(function, image, strength, share, fill),
            _put(image, strongest, fill),
            what="The image",
            mistakes={
                "These are the weakest pixels: sort the other way round": _put(
                    image, strength <= np.sort(strength, axis=None)[count - 1], fill
                ),
                "The share is one of the pixels, not of the largest strength": _put(
                    image, strength >= (1 - share) * strength.max(), fill
                ),
                "This keeps the strongest pixels: that is insertion": _put(image, ~strongest, fill),
                "Replace all channels of a pixel": _put(image, strongest, fill, channels=1),
                "Nothing is replaced": image,
            },
        )
    right("the strongest pixels are gone, all others as they were")


def _put(image: np.ndarray, where: np.ndarray, fill: float, channels: int = 3) -> np.ndarray:
    new = image.copy()
    new[:channels, where] = fill
    return new


def rank_agreement(function: Callable[..., Any]) -> None:
    """``rank_agreement(a, b)``: Spearman's correlation of two lists of numbers without ties."""
    rng = np.random.default_rng()
    for _ in range(3):
        a = rng.permutation(9) ** 3 + rng.uniform(0, 0.5, 9)
        b = np.exp(a / 200) + rng.normal(0, 2, 9)
        rank_a, rank_b = a.argsort().argsort(), b.argsort().argsort()
        rho = np.corrcoef(rank_a, rank_b)[0, 1]
        same(
            call(function, a, b),
            rho,
            what="The rank correlation",
            mistakes={
                "This is the correlation of the values: replace them by their ranks first": (
                    np.corrcoef(a, b)[0, 1]
                ),
                "argsort says which comes first, not which rank it has: apply it twice": (
                    np.corrcoef(a.argsort(), b.argsort())[0, 1]
                ),
                "np.corrcoef gives a 2×2 matrix: take the entry [0, 1]": np.corrcoef(
                    rank_a, rank_b
                ),
                "The sign is turned round: are both ranked in the same direction?": -rho,
            },
        )
    right("the ranks are compared, not the values")
