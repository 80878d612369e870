"""Checks for the exercises of notebook 06, the feature space."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vislib.checks import Exercise
from vislib.features import neighbours

# --- Nearest neighbours ---------------------------------------------------------------------------


def _features() -> tuple[Tensor, int]:
    return torch.randn(12, 6, dtype=torch.float64) * torch.rand(12, 1) * 3 + 1, 4


def _distances(features: Tensor) -> Tensor:
    """Distances between all rows; the distance of a row from itself is infinite."""
    return torch.cdist(features, features).fill_diagonal_(torch.inf)


def _smallest(values: Tensor, k: int) -> Tensor:
    """Indices of the k smallest values off the diagonal in each row of a square table."""
    return values.clone().fill_diagonal_(torch.inf).argsort(dim=1)[:, :k]


nearest = Exercise(
    task="``nearest(features, k)``: the k nearest other rows of each row, nearest first, N×k.",
    inputs=lambda: [_features],
    solution=neighbours.nearest_neighbours,
    what="the table of neighbours",
    mistakes={
        "Each image finds itself first: leave it out, for instance by setting its own distance to "
        "infinity": lambda features, k: torch.cdist(features, features).argsort(dim=1)[:, :k],
        "These are the farthest, not the nearest": (
            lambda features, k: _smallest(-torch.cdist(features, features), k)
        ),
        "The nearest should come first: your order is reversed": (
            lambda features, k: neighbours.nearest_neighbours(features, k).flip(1)
        ),
        "Square the differences before you sum them, or they cancel": (
            lambda features, k: _smallest((features[:, None] - features).sum(dim=2), k)
        ),
        "These are the nearest by cosine: use the Euclidean distance": (
            lambda features, k: neighbours.nearest_neighbours(features, k, metric="cosine")
        ),
        "A large product does not mean that two vectors are near: use the distance": (
            lambda features, k: _smallest(-features @ features.T, k)
        ),
        "These are distances: return the indices of the rows": (
            lambda features, k: _distances(features).sort(dim=1).values[:, :k]
        ),
        "The neighbours of each image belong in one row: N×k, not k×N": (
            lambda features, k: neighbours.nearest_neighbours(features, k).T
        ),
        "These are the neighbours of the first image only": (
            lambda features, k: neighbours.nearest_neighbours(features, k)[0]
        ),
    },
    praise="Each row finds its nearest others, in the right order.",
    distinct=True,
)


# --- Precision at k -------------------------------------------------------------------------------


def _queries(n: int, k: int) -> tuple[int, Tensor, Tensor]:
    """Number k, a table of eight neighbours, and labels; no image is alone in its category."""
    while True:
        labels = torch.randint(0, 3, (n,))
        table = torch.stack([torch.randperm(n)[:8] for _ in range(n)])
        if _others(labels).min() > 0:
            return k, table, labels


def _others(labels: Tensor) -> Tensor:
    """Number of other images of the same category, for each image."""
    return (labels[:, None] == labels).sum(dim=1) - 1


def _hits(table: Tensor, labels: Tensor) -> Tensor:
    """Hits: 1 where the neighbour has the category of the query, else 0."""
    return (labels[table] == labels[:, None]).double()


precision_at = Exercise(
    task="``precision_at(k, table, labels)``: the mean precision at k; `table` has N×K indices.",
    inputs=lambda: [partial(_queries, 15, 5), partial(_queries, 13, 4)],
    solution=lambda k, table, labels: _hits(table, labels)[:, :k].mean(),
    what="the precision",
    mistakes={
        "Only the first k columns count: table[:, :k]": (
            lambda k, table, labels: _hits(table, labels).mean()
        ),
        "This is the number of hits: divide by k": (
            lambda k, table, labels: _hits(table, labels)[:, :k].sum(1).mean()
        ),
        "This is the sum over all queries: take the mean": (
            lambda k, table, labels: _hits(table, labels)[:, :k].mean(1).sum()
        ),
        "This counts a query as right if any of its k neighbours is right: take their fraction": (
            lambda k, table, labels: _hits(table, labels)[:, :k].amax(1).mean()
        ),
        "This is recall: divide by k, not by the number of images of the category": (
            lambda k, table, labels: (_hits(table, labels)[:, :k].sum(1) / _others(labels)).mean()
        ),
        "This looks at the k-th neighbour only": (
            lambda k, table, labels: _hits(table, labels)[:, k - 1].mean()
        ),
        "This looks at the first neighbour only": (
            lambda k, table, labels: _hits(table, labels)[:, 0].mean()
        ),
        "The table contains numbers of images, not categories: look up their labels": (
            lambda k, table, labels: (table[:, :k] == labels[:, None]).double().mean()
        ),
        "These are the neighbours of other categories: count those of the same category": (
            lambda k, table, labels: 1 - _hits(table, labels)[:, :k].mean()
        ),
        "This is one value for each query: take their mean as well": (
            lambda k, table, labels: _hits(table, labels)[:, :k].mean(1)
        ),
    },
    praise="This is precision at k.",
    distinct=True,
)


# --- Perplexity -----------------------------------------------------------------------------------


def _rows() -> Iterator[tuple[np.ndarray, float]]:
    """Squared distances of one image from twelve others, and σ."""
    rng = np.random.default_rng()
    for sigma in rng.uniform(0.5, 2, 3):
        yield rng.uniform(0.1, 9, 12), float(sigma)


def _probabilities(exponents: np.ndarray) -> np.ndarray:
    weights = np.exp(exponents - exponents.max())
    return weights / weights.sum()


def _exponents(squared: np.ndarray, sigma: float) -> np.ndarray:
    return -squared / (2 * sigma**2)


def _bits(p: np.ndarray) -> float:
    """Entropy in bits."""
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def _effective(exponents: np.ndarray) -> float:
    """Perplexity of p ∝ exp(exponents)."""
    return 2.0 ** _bits(_probabilities(exponents))


def _entropy(squared: np.ndarray, sigma: float) -> float:
    return _bits(_probabilities(_exponents(squared, sigma)))


perplexity = Exercise(
    task="``perplexity(squared_distances, sigma)``: the perplexity of one row of t-SNE.",
    inputs=_rows,
    solution=lambda squared, sigma: _effective(_exponents(squared, sigma)),
    what="the perplexity",
    mistakes={
        "This is the entropy in bits: the perplexity is a power of 2": _entropy,
        "The logarithm and the power need the same base: with np.log take np.exp": (
            lambda squared, sigma: 2 ** (_entropy(squared, sigma) * np.log(2))
        ),
        "The logarithm and the power need the same base: with np.log2 take 2 ** H": (
            lambda squared, sigma: np.exp(_entropy(squared, sigma))
        ),
        "The probabilities p must sum to 1: divide by their sum": (
            lambda squared, sigma: 2 ** _bits(np.exp(_exponents(squared, sigma)))
        ),
        "The entropy has a minus sign": lambda squared, sigma: 2.0 ** -_entropy(squared, sigma),
        "The 2 is missing: divide by 2σ²": (lambda squared, sigma: _effective(-squared / sigma**2)),
        "Divide by 2σ², not by 2σ": lambda squared, sigma: _effective(-squared / (2 * sigma)),
        "The distances are squared already": (
            lambda squared, sigma: _effective(_exponents(squared**2, sigma))
        ),
        "The similarity must fall with the distance: a minus sign is missing in exp": (
            lambda squared, sigma: _effective(-_exponents(squared, sigma))
        ),
        "Return one number, not the probabilities p": (
            lambda squared, sigma: _probabilities(_exponents(squared, sigma))
        ),
    },
    praise="This is the effective number of neighbours.",
)


# --- The nearest image of each cell ---------------------------------------------------------------


def _points_and_cells() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng()
    return rng.uniform(size=(9, 2)), rng.uniform(size=(100, 2))


def _differences(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Differences in x and y between all cells and all points, cells × points × 2."""
    return centres[:, None] - points[None]


def _squared(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return (_differences(points, centres) ** 2).sum(axis=2)


fill_grid = Exercise(
    task="``fill_grid(points, centres)``: the index of the nearest point to each cell.",
    inputs=lambda: [_points_and_cells],
    solution=lambda points, centres: _squared(points, centres).argmin(axis=1),
    what="the image of each cell",
    mistakes={
        "This is the nearest cell of each image: find the nearest image of each cell": (
            lambda points, centres: _squared(points, centres).argmin(axis=0)
        ),
        "These are the farthest images": (
            lambda points, centres: _squared(points, centres).argmax(axis=1)
        ),
        "x and y are swapped, either in the points or in the centres": (
            lambda points, centres: _squared(points[:, ::-1], centres).argmin(axis=1)
        ),
        "Both coordinates count, not x alone": (
            lambda points, centres: _squared(points[:, :1], centres[:, :1]).argmin(axis=1)
        ),
        "Square the differences before you sum them, or they cancel": (
            lambda points, centres: _differences(points, centres).sum(axis=2).argmin(axis=1)
        ),
        "The distance is in a straight line: square the differences, without absolute values": (
            lambda points, centres: np.abs(_differences(points, centres)).sum(axis=2).argmin(axis=1)
        ),
        "The distance is in a straight line: sum both squares, because the larger is not enough": (
            lambda points, centres: np.abs(_differences(points, centres)).max(axis=2).argmin(axis=1)
        ),
        "These are distances: return the index of the image": (
            lambda points, centres: _squared(points, centres).min(axis=1)
        ),
    },
    praise="Every cell shows the image that is nearest to it.",
    distinct=True,
)
