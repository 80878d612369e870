"""Checks for the exercises of notebook 24, the measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_cdt, distance_transform_edt

from vislib.checks import Exercise
from vislib.checks.energy import WRONG_ENERGIES, one_truth, peaks, strongest

# --- The pointing game with a tolerance -----------------------------------------------------------


def _maps_near_an_object() -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Maps, a mask of two parts, and tolerances; each trial reveals one more mistake."""
    nearest, far = (12, 6), (17, 1)
    mask = np.zeros((20, 24), bool)
    mask[nearest] = mask[0, 20:] = True
    rng = np.random.default_rng()
    for position, tolerance, expected in [
        # The whole image is within the tolerance.
        ((8, 8), 30, True),
        # The centre and the first pixel of the mask are far from this position.
        ((8, 8), 6, True),
        ((12, 8), 5, True),
        # On the circle around the object pixel, at the pixel itself, and near it.
        ((12, 11), 5, True),
        ((12, 6), 0, True),
        ((12, 8), 0, False),
        # Outside the circle, between the circle and the square around it, on the circle.
        ((12, 12), 5, False),
        ((16, 10), 5, False),
        ((15, 10), 5, True),
        ((6, 12), 1, False),
    ]:
        for maps in peaks(rng, mask.shape, position, far if expected else nearest):
            yield maps, mask, tolerance


def _near(
    maps: np.ndarray,
    mask: np.ndarray,
    tolerance: float,
    *,
    position: Callable[[np.ndarray], tuple[int, int]] = strongest,
    distance: Callable[[np.ndarray], np.ndarray] = distance_transform_edt,
) -> Any:
    return distance(~mask)[position(maps)] <= tolerance


def _closer(maps: np.ndarray, mask: np.ndarray, tolerance: float) -> Any:
    return distance_transform_edt(~mask)[strongest(maps)] < tolerance


def _near_the_centre(maps: np.ndarray, mask: np.ndarray, tolerance: float) -> Any:
    centre = np.argwhere(mask).mean(axis=0)
    return np.hypot(*(centre - strongest(maps))) <= tolerance


def _transposed(maps: np.ndarray, mask: np.ndarray, tolerance: float) -> Any:
    row, column = strongest(maps)
    return _near(maps, mask, tolerance, position=lambda _: (column % 20, row % 24))


def _positions_and_distance(maps: np.ndarray, mask: np.ndarray, tolerance: float) -> str:
    position = strongest(maps)
    pixels = np.argwhere(mask)
    nearest = pixels[np.hypot(*(pixels - position).T).argmin()]
    return (
        f"the result for the strongest position {position}, the nearest object pixel "
        f"{tuple(map(int, nearest))} and the tolerance {tolerance}"
    )


def _expected(result: Any, maps: np.ndarray, mask: np.ndarray, tolerance: float) -> str:
    expected = bool(_near(maps, mask, tolerance))
    return f"{_positions_and_distance(maps, mask, tolerance)} should be {expected}"


hits_near = Exercise(
    task=(
        "``hits_near(map, mask, tolerance)``: whether the strongest position of a C×H×W map is on "
        "the mask or at most `tolerance` pixels away."
    ),
    inputs=_maps_near_an_object,
    solution=_near,
    what=_positions_and_distance,
    mistakes={
        **{
            advice: partial(_near, position=partial(strongest, energy=energy))
            for advice, energy in WRONG_ENERGIES.items()
        },
        "The tolerance is not used: positions near the object count as well": (
            lambda maps, mask, tolerance: _near(maps, mask, 0)
        ),
        "Rows come first: the position is (y, x)": _transposed,
        "The nearest pixel of the object decides, not its centre or its first pixel": (
            _near_the_centre
        ),
        "The distance is Euclidean, √(4² + 4²): use a circle, not a square": partial(
            _near, distance=partial(distance_transform_cdt, metric="chessboard")
        ),
        "The distance is Euclidean, √(3² + 4²) = 5, not 3 + 4": partial(
            _near, distance=partial(distance_transform_cdt, metric="taxicab")
        ),
        "A distance equal to the tolerance still counts": _closer,
        "The position is farther from the object than the tolerance": (
            lambda maps, mask, tolerance: True
        ),
    },
    parse=one_truth,
    explain=_expected,
    praise="a circle around the strongest position decides",
)


# --- Deletion -------------------------------------------------------------------------------------


def _images_to_delete_from() -> Iterator[tuple[np.ndarray, np.ndarray, float, float]]:
    rng = np.random.default_rng()
    for fraction in (0.25, 0.5):
        image = rng.uniform(0.2, 1, size=(3, 6, 8))
        yield image, rng.permutation(48).reshape(6, 8) ** 2.0, fraction, 0.1


def _strongest_pixels(strength: np.ndarray, fraction: float) -> np.ndarray:
    """Mask of the strongest `fraction` of all pixels, H×W."""
    count = round(fraction * strength.size)
    return strength >= np.sort(strength, axis=None)[-count]


def _put(image: np.ndarray, where: np.ndarray, fill: float, channels: int = 3) -> np.ndarray:
    """Copy of the image with another value at these pixels."""
    new = image.copy()
    new[:channels, where] = fill
    return new


without_strongest = Exercise(
    task=(
        "``without_strongest(image, strength, share, fill)``: a C×H×W image with its strongest "
        "pixels replaced."
    ),
    inputs=_images_to_delete_from,
    solution=lambda image, strength, fraction, fill: _put(
        image, _strongest_pixels(strength, fraction), fill
    ),
    what="The image",
    mistakes={
        "These are the weakest pixels: sort the other way round": (
            lambda image, strength, fraction, fill: _put(
                image, _strongest_pixels(-strength, fraction), fill
            )
        ),
        "`share` is a fraction of the pixels, not of the largest strength": (
            lambda image, strength, fraction, fill: _put(
                image, strength >= (1 - fraction) * strength.max(), fill
            )
        ),
        "This keeps the strongest pixels, as in insertion: replace them": (
            lambda image, strength, fraction, fill: _put(
                image, ~_strongest_pixels(strength, fraction), fill
            )
        ),
        "Replace all channels of a pixel": lambda image, strength, fraction, fill: _put(
            image, _strongest_pixels(strength, fraction), fill, channels=1
        ),
        "Nothing is replaced": lambda image, strength, fraction, fill: image,
    },
    praise="the strongest pixels are gone, all others as they were",
)


# --- Rank correlation -----------------------------------------------------------------------------


def _pair(sign: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng()
    a = rng.permutation(9) ** 3 + rng.uniform(0, 0.5, 9)
    return a, sign * np.exp(a / 200) + rng.normal(0, 1, 9)


def _ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort().argsort()


def _agreement(a: np.ndarray, b: np.ndarray) -> float:
    return np.corrcoef(_ranks(a), _ranks(b))[0, 1]


rank_agreement = Exercise(
    task="``rank_agreement(a, b)``: Spearman's correlation of two lists of numbers without ties.",
    inputs=lambda: [partial(_pair, sign) for sign in (1, -1, 1)],
    solution=_agreement,
    what="The rank correlation",
    mistakes={
        "This is the correlation of the values: replace them by their ranks first": lambda a, b: (
            np.corrcoef(a, b)[0, 1]
        ),
        "argsort gives the positions of the sorted values, not the rank of each value": (
            lambda a, b: np.corrcoef(a.argsort(), b.argsort())[0, 1]
        ),
        "np.corrcoef gives a 2×2 matrix: take the entry [0, 1]": lambda a, b: np.corrcoef(
            _ranks(a), _ranks(b)
        ),
        "The sign is reversed: are both ranked in the same direction?": lambda a, b: (
            -_agreement(a, b)
        ),
    },
    praise="the ranks are compared, not the values",
    distinct=True,
)
