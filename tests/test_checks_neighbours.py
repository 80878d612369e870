"""The checks of notebook 06: right answers, and wrong ones that are not usual mistakes."""

from __future__ import annotations

import numpy as np
import torch
from answers import answer_tests

from vislib.checks import neighbours as check


def find(features, k, *, length=lambda differences: (differences**2).sum(2)):
    distances = length(features[:, None] - features)
    distances.fill_diagonal_(torch.inf)
    return distances.argsort(dim=1)[:, :k]


def hits(k, table, labels):
    return (labels[table[:, :k]] == labels[:, None]).double()


def effective(squared, sigma, *, log=np.log2, base=2, normalised=True):
    p = np.exp(-squared / (2 * sigma**2))
    p = p / p.sum() if normalised else p
    return base ** -np.sum(p * log(p))


def nearest_points(points, centres):
    return ((centres[:, None] - points[None]) ** 2).sum(2).argmin(axis=1)


def nearest_points_by_loops(points, centres):
    return [min(range(len(points)), key=lambda i: np.hypot(*(c - points[i]))) for c in centres]


RIGHT = {
    "neighbours": (check.nearest, find),
    "neighbours as an array": (check.nearest, lambda features, k: find(features, k).numpy()),
    "neighbours by distances": (
        check.nearest,
        lambda features, k: find(features, k, length=lambda d: d.norm(dim=2)),
    ),
    "precision": (check.precision_at, lambda k, t, y: hits(k, t, y).mean()),
    "precision as a float": (check.precision_at, lambda k, t, y: float(hits(k, t, y).mean())),
    "perplexity": (check.perplexity, effective),
    "perplexity by e": (
        check.perplexity,
        lambda d, s: effective(d, s, log=np.log, base=np.e),
    ),
    "grid": (check.fill_grid, nearest_points),
    "grid by loops": (check.fill_grid, nearest_points_by_loops),
}


def by_cosine(features, k):
    return find(features / features.norm(dim=1, keepdim=True), k)


def farthest(features, k):
    distances = torch.cdist(features, features).fill_diagonal_(-torch.inf)
    return distances.argsort(dim=1, descending=True)[:, :k]


def recall(k, table, labels):
    others = torch.tensor([(labels == category).sum() - 1 for category in labels])
    return (hits(k, table, labels).sum(1) / others).mean()


WRONG = {
    "neighbours by cosine": (check.nearest, by_cosine, "nearest by cosine"),
    "the farthest": (check.nearest, farthest, "the farthest"),
    "one neighbour too many": (
        check.nearest,
        lambda features, k: find(features, k + 1),
        "should have shape",
    ),
    "a constant precision": (check.precision_at, lambda *inputs: 1 / 3, "not right yet"),
    "recall by loops": (check.precision_at, recall, "This is recall"),
    "precision of each query": (
        check.precision_at,
        lambda k, t, y: hits(k, t, y).mean(1),
        "one value for each query",
    ),
    "entropy": (check.perplexity, lambda d, s: np.log2(effective(d, s)), "entropy in bits"),
    "natural logarithm, power of 2": (
        check.perplexity,
        lambda d, s: effective(d, s, log=np.log),
        "with np.log take np.exp",
    ),
    "binary logarithm, power of e": (
        check.perplexity,
        lambda d, s: effective(d, s, base=np.e),
        r"with np.log2 take 2 \*\* H",
    ),
    "weights that do not sum to 1": (
        check.perplexity,
        lambda d, s: effective(d, s, normalised=False),
        "sum to 1",
    ),
    "sum of absolute differences": (
        check.fill_grid,
        lambda p, c: np.abs(c[:, None] - p).sum(2).argmin(1),
        "in a straight line",
    ),
    "larger difference": (
        check.fill_grid,
        lambda p, c: np.abs(c[:, None] - p).max(2).argmin(1),
        "the larger is not enough",
    ),
}

test_right_answers_pass, test_wrong_answers_get_advice, test_every_exercise_has_a_right_answer = (
    answer_tests(check, RIGHT, WRONG)
)
