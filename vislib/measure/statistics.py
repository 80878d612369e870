"""Intervals of means over images, and rank correlations between measures.

References:
    Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def bootstrap_interval(
    values: np.ndarray, clusters: np.ndarray, *, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the mean of `values`: the ends of the 95 % percentile interval.

    Efron 1979. The records of one image are not independent observations. Therefore whole images
    are drawn with replacement, each with all its records.

    Args:
        values: one number for each record.
        clusters: image of each record.
        samples: number of draws, each of as many images as there are.
        seed: seed of the draws.

    Returns:
        The lower and the upper end.

    >>> low, high = bootstrap_interval(np.array([0.2, 0.4, 0.6, 0.8]), np.array([1, 1, 2, 2]))
    >>> round(low, 3), round(high, 3)
    (0.3, 0.7)
    """
    means = bootstrap_means(values[:, None], clusters, samples=samples, seed=seed)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_means(
    values: np.ndarray, clusters: np.ndarray, *, samples: int = 2000, seed: int = 0
) -> np.ndarray:
    """Means of each column of `values` in every draw of the bootstrap, samples×M.

    One draw serves all columns, so that the columns can be compared within a draw.

    Args:
        values: N×M, a row for each record; NaN for a missing value, which its mean leaves out.
        clusters: image of each record, N.
        samples, seed: as in `bootstrap_interval`.

    Returns:
        The means; NaN where a draw has no value of a column.
    """
    _, cluster = np.unique(clusters, return_inverse=True)
    present = ~np.isnan(values)
    sums = _sums(np.where(present, values, 0), cluster)
    counts = _sums(present.astype(float), cluster)
    draws = np.random.default_rng(seed).multinomial(
        len(sums), np.full(len(sums), 1 / len(sums)), size=samples
    )
    with np.errstate(invalid="ignore"):
        return (draws @ sums) / (draws @ counts)


def _sums(values: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Sum of each column over the rows of each cluster, clusters×M."""
    return np.stack([np.bincount(cluster, weights=column) for column in values.T], axis=1)


def rank_correlation_table(
    table: pd.DataFrame, kind: Literal["spearman", "kendall"] = "spearman"
) -> pd.DataFrame:
    """Rank correlation of each two columns of a table, −1 to 1, as a square table.

    Equal values get their mean rank. For each pair of columns, rows in which a value is missing are
    left out. The correlation is NaN if fewer than two rows are left, or if a column is constant.

    Args:
        table: a row for each method (or map), a column for each measure, with signs such that high
            is good in all of them (``-deletion``).
        kind: ``"spearman"``, the correlation of the ranks, or ``"kendall"`` (τ-b), the fraction of
            pairs in the same order minus the fraction of pairs in opposite orders, corrected for
            ties.

    Raises:
        ValueError: `kind` is neither of the two.
    """
    import pandas as pd
    from scipy import stats

    if kind not in ("spearman", "kendall"):
        raise ValueError(f"kind must be 'spearman' or 'kendall', got {kind!r}")
    compare = stats.spearmanr if kind == "spearman" else stats.kendalltau
    result = pd.DataFrame(np.nan, index=table.columns, columns=table.columns)
    for a, b in combinations_with_replacement(table.columns, 2):
        values = table[[a, b]].set_axis([0, 1], axis=1).dropna()
        if len(values) > 1 and (values.nunique() > 1).all():
            result.loc[a, b] = result.loc[b, a] = compare(values[0], values[1]).statistic
    return result
