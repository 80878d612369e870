"""Intervals and rank correlations of measured values."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def bootstrap_interval(
    values: np.ndarray, clusters: np.ndarray, *, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values`, resampling whole clusters (images).

    The records of one image are no independent witnesses, so images are drawn with replacement,
    each with all of its records. Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".
    """
    _, cluster = np.unique(clusters, return_inverse=True)
    sums = np.bincount(cluster, weights=values)
    counts = np.bincount(cluster)
    draws = np.random.default_rng(seed).multinomial(
        len(sums), np.full(len(sums), 1 / len(sums)), size=samples
    )
    means = (draws @ sums) / (draws @ counts)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def rank_correlation_table(
    table: pd.DataFrame, kind: Literal["spearman", "kendall"] = "spearman"
) -> pd.DataFrame:
    """How far measures agree on the order of what they measure, for each two columns: −1 to 1.

    `table` has a row for each method (or map) and a column for each measure, turned so that high is
    good in all (``-deletion``). ``"spearman"`` is the correlation of the ranks, ``"kendall"`` (τ-b)
    the share of pairs in the same order less that in the opposite one. Equal values share their
    mean rank. Rows in which either value is missing are left out for that pair; NaN where fewer
    than two are left, or a measure finds all equal. ``ValueError`` for another kind.
    """
    import pandas as pd
    from scipy import stats

    if kind not in ("spearman", "kendall"):
        raise ValueError(f"there is no rank correlation {kind!r}: use spearman or kendall")
    compare = stats.spearmanr if kind == "spearman" else stats.kendalltau
    result = pd.DataFrame(np.nan, index=table.columns, columns=table.columns)
    for a, b in combinations_with_replacement(table.columns, 2):
        values = table[[a, b]].set_axis([0, 1], axis=1).dropna()
        if len(values) > 1 and (values.nunique() > 1).all():
            result.loc[a, b] = result.loc[b, a] = compare(values[0], values[1]).statistic
    return result
