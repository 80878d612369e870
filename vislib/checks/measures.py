"""Checks for the exercises of notebook 24, the measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vislib.checks import Wrong, call, right, same, truth
from vislib.checks.energy import peaks


def hits_near(function: Callable[..., Any]) -> None:
    """``hits_near(map, mask, tolerance)``: is the strongest place of a C×H×W map near the mask?"""
    nearest, far = (12, 6), (17, 1)
    mask = np.zeros((20, 24), bool)
    mask[nearest] = mask[0, 20:] = True  # of two parts: the first and the mean pixel are far away
    cases = [
        ((12, 6), 0, True, "The place itself is at distance 0"),
        ((12, 8), 0, False, "With a tolerance of 0 the place must be on the object"),
        ((12, 11), 5, True, "A distance equal to the tolerance still counts: ≤"),
        ((12, 12), 5, False, "It is further away than the tolerance"),
        ((16, 10), 5, False, "The distance is √(4² + 4²): a circle, not a square"),
        ((15, 10), 5, True, "The distance is √(3² + 4²) = 5"),
        ((6, 12), 1, False, "Rows come first: the place is (y, x)"),
    ]
    rng = np.random.default_rng()
    for place, tolerance, expected, reason in cases:
        for maps, advice in peaks(rng, mask.shape, place, far if expected else nearest):
            found = call(function, maps, mask, tolerance)
            if truth(found, "for the one strongest place of the map") is not expected:
                raise Wrong(
                    f"The strongest place is {place}, the nearest of the object {nearest}, the "
                    f"tolerance {tolerance}: this should be {expected}. {advice or reason}"
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
    for sign in (1, -1, 1):
        a = rng.permutation(9) ** 3 + rng.uniform(0, 0.5, 9)
        b = sign * np.exp(a / 200) + rng.normal(0, 1, 9)
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
