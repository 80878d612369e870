"""Checks for notebook 06."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from vislib.checks import Wrong, call, right, same
from vislib.features import neighbours


def nearest(function: Callable[..., Any]) -> None:
    """The k nearest other rows of each row, nearest first: ``function(features, k)`` → N×k."""
    k = 4
    while True:
        features = torch.randn(12, 6, dtype=torch.float64) * torch.rand(12, 1) * 3 + 1
        expected = neighbours.nearest(features, k)
        apart = features[:, None] - features
        cosine = neighbours.nearest(features, k, metric="cosine")
        products = (features @ features.T).fill_diagonal_(-torch.inf)
        mistakes = {
            "Each picture finds itself first: leave it out, for instance by setting its own "
            "distance to infinity": torch.cdist(features, features).argsort(dim=1)[:, :k],
            "These are the farthest, not the nearest": _order(-(apart**2).sum(2), k),
            "The nearest should come first; yours are in the reverse order": expected.flip(1),
            "Square the differences before they are added up, or they cancel": _order(
                apart.sum(2), k
            ),
            "These are the cosine's neighbours: use the Euclidean distance": cosine,
            "A large product does not mean near; take the distance": _order(-products, k),
            "These are distances; return the indices of the rows": _distances(features, k),
            "The neighbours of each row lie along its row: N×k, not k×N": expected.T,
            "These are the neighbours of the first picture only": expected[0],
        }
        values = [expected, *mistakes.values()]
        if len({_key(value) for value in values}) == len(values):
            break  # two mistakes would give the same table: take other features
    found = call(function, features, k)
    same(found, expected, what="the table of neighbours", mistakes=mistakes)
    right("Each row finds its nearest others, in the right order.")


def _order(away: torch.Tensor, k: int) -> torch.Tensor:
    away = away.clone().fill_diagonal_(torch.inf)
    return away.argsort(dim=1)[:, :k]


def _distances(features: torch.Tensor, k: int) -> torch.Tensor:
    away = torch.cdist(features, features).fill_diagonal_(torch.inf)
    return away.sort(dim=1).values[:, :k]


def _key(value: Any) -> str:
    return str(np.asarray(value).round(9).tolist())


def precision_at(function: Callable[..., Any]) -> None:
    """The mean precision at k: ``function(k, table, labels)``, `table` N×K indices."""
    for n, k in [(15, 5), (13, 4)]:
        _precision(function, n, k)
    right("This is precision at k.")


def _precision(function: Callable[..., Any], n: int, k: int) -> None:
    while True:
        labels = torch.randint(0, 3, (n,))
        table = torch.stack([torch.randperm(n)[:8] for _ in range(n)])
        hits = labels[table] == labels[:, None]
        expected = hits[:, :k].double().mean()
        # how many pictures of its own category each query could find at most
        there = (labels[:, None] == labels).sum(dim=1) - 1
        mistakes = {
            "Only the first k columns count: table[:, :k]": hits.double().mean(),
            "This is the number of hits; divide by k": hits[:, :k].double().sum(1).mean(),
            "This is the sum over all queries; take the mean": hits[:, :k].double().mean(1).sum(),
            "This counts a query as right when any of its k neighbours is: take their share": (
                hits[:, :k].any(dim=1).double().mean()
            ),
            "This is recall: divide by k, not by the number of pictures of the category": (
                (hits[:, :k].sum(1) / there.clamp(min=1)).double().mean()
            ),
            "This looks at the k-th neighbour only": hits[:, k - 1].double().mean(),
            "This looks at the first neighbour only": hits[:, 0].double().mean(),
            "table holds the numbers of pictures, not of categories: labels[table]": (
                (table[:, :k] == labels[:, None]).double().mean()
            ),
            "These are the wrong neighbours: count those of the same category": 1 - expected,
        }
        values = [float(expected), *map(float, mistakes.values())]
        if np.diff(np.sort(values)).min() > 1e-3 and there.min() > 0:
            break
    found = call(function, k, table, labels)
    if getattr(found, "shape", ()) == (n,):
        raise Wrong("the precision is one value for each query: take the mean of them as well")
    same(found, expected, what="the precision", mistakes=mistakes)


def perplexity(function: Callable[..., Any]) -> None:
    """Perplexity of one row of t-SNE: ``function(squared_distances, sigma)``."""
    rng = np.random.default_rng()
    for sigma in rng.uniform(0.5, 2, 3):
        squared = rng.uniform(0.1, 9, 12)
        p = _softmax(-squared / (2 * sigma**2))
        bits = -(p * np.log2(p)).sum()
        weights = np.exp(-squared / (2 * sigma**2))
        mistakes = {
            "This is the entropy in bits; the perplexity is 2 to the power of it": bits,
            "The logarithm and the power need the same base: with np.log take np.exp": (
                2 ** (bits * np.log(2))
            ),
            "The logarithm and the power need the same base: with np.log2 take 2 ** H": (
                np.exp(bits)
            ),
            "The p have to add up to 1: divide by their sum": (
                2 ** -(weights * np.log2(weights)).sum()
            ),
            "The entropy has a minus sign": 2.0**-bits,
            "The 2 is missing: divide by 2σ²": _effective(-squared / sigma**2),
            "Divide by 2σ², not by 2σ": _effective(-squared / (2 * sigma)),
            "The distances are squared already": _effective(-(squared**2) / (2 * sigma**2)),
            "The similarity falls with the distance: exp(−d² / 2σ²)": _effective(
                squared / (2 * sigma**2)
            ),
            "Return one number, not the p": p,
        }
        found = call(function, squared, float(sigma))
        same(found, 2**bits, what="the perplexity", mistakes=mistakes)
    right("This is the effective number of neighbours.")


def _softmax(exponents: np.ndarray) -> np.ndarray:
    weights = np.exp(exponents - exponents.max())
    return weights / weights.sum()


def _effective(exponents: np.ndarray) -> float:
    p = _softmax(exponents)
    p = p[p > 0]
    return float(2 ** -(p * np.log2(p)).sum())


def fill_grid(function: Callable[..., Any]) -> None:
    """The nearest point to each cell: ``function(points, centres)`` → one index for each cell."""
    rng = np.random.default_rng()
    while True:
        points, centres = rng.uniform(size=(9, 2)), rng.uniform(size=(100, 2))
        squared = ((centres[:, None] - points[None]) ** 2).sum(axis=2)
        expected = squared.argmin(axis=1)
        mistakes = {
            "This is the nearest cell of each picture; ask for the nearest picture of each cell": (
                squared.argmin(axis=0)
            ),
            "These are the farthest pictures": squared.argmax(axis=1),
            "x and y are swapped in one of the two": (
                ((centres[:, None] - points[None, :, ::-1]) ** 2).sum(axis=2).argmin(axis=1)
            ),
            "Both coordinates count, not x alone": (
                np.abs(centres[:, None, 0] - points[None, :, 0]).argmin(axis=1)
            ),
            "Square the differences before they are added up, or they cancel": (
                (centres[:, None] - points[None]).sum(axis=2).argmin(axis=1)
            ),
            "The distance is in a straight line: square the differences, no absolute values": (
                np.abs(centres[:, None] - points[None]).sum(axis=2).argmin(axis=1)
            ),
            "The distance is in a straight line: add both squares up, the larger is not enough": (
                np.abs(centres[:, None] - points[None]).max(axis=2).argmin(axis=1)
            ),
            "These are distances; return which picture it is": squared.min(axis=1),
        }
        values = [expected, *mistakes.values()]
        if len({_key(value) for value in values}) == len(values):
            break
    found = call(function, points, centres)
    same(found, expected, what="the picture of each cell", mistakes=mistakes)
    right("Every cell shows the picture that is nearest to it.")
