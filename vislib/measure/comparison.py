"""Methods compared for each network at each size, from the records of the benchmark.

A mean over networks and sizes can have another order of methods than each of its parts. These
functions therefore split the records by network and size first, and compare afterwards:

study        mean P of the study's methods, with the order and its rank correlation to the study's
predicted    the records whose explained class is the prediction of the network
difference   how much larger the P of one method is than that of another, on the same images
differences  the same for the pairs of methods in `PAIRS`
reversals    pairs of methods whose order at a size is not the order of their means over all sizes

All take a data frame with a column for each field of `vislib.measure.benchmark.Record`. Intervals
are 95 % bootstrap intervals over images (`vislib.measure.statistics`).

References:
    Simpson 1951, "The Interpretation of Interaction in Contingency Tables".
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from vislib.errors import InputError, nearest
from vislib.measure.benchmark import NO_NET
from vislib.measure.methods import CONTROLS, RANDOM, STUDY, STUDY_MEANS
from vislib.measure.statistics import bootstrap_interval, bootstrap_means

if TYPE_CHECKING:
    import pandas as pd

UNIT = ["image_id", "category"]
PAIRS = (
    # The steps in the order of the study's means.
    ("gradient", "deconvnet"),
    ("grad_cam", "gradient"),
    ("guided_backprop", "grad_cam"),
    ("guided_grad_cam", "guided_backprop"),
    # Is there more in a map than in one of an untrained network, or in the edges of the image?
    ("deconvnet", "deconvnet" + RANDOM),
    ("gradient", "sobel_edges"),
    # Does the product of two maps find the object better, or is it only sharper?
    ("guided_grad_cam", "guided_backprop_squared"),
    ("guided_grad_cam", "grad_cam_x_sobel"),
)
"""Pairs of methods or controls, of which the study expects the first to have the larger P."""


def sizes_in_order(sizes: Iterable[str]) -> list[str]:
    """Each size once: numbers of pixels from small to large, then "original".

    >>> sizes_in_order(["original", "224", "96", "224"])
    ['96', '224', 'original']
    """
    return sorted(set(sizes), key=lambda size: (not size.isdecimal(), len(size), size))


def _trained(records: pd.DataFrame) -> pd.DataFrame:
    """Records of networks with trained weights."""
    return records[(records.net != NO_NET) & ~records.method.str.endswith(RANDOM)]


def _nets_and_sizes(records: pd.DataFrame) -> list[tuple[str, str]]:
    """Each network with each of its sizes, in the order of tables and charts."""
    present = records[records.net != NO_NET].groupby("net")["size"].unique()
    return [(str(net), size) for net in present.index for size in sizes_in_order(present[net])]


def study(records: pd.DataFrame) -> pd.DataFrame:
    """Mean P of the five methods of the study, for each network at each size.

    The rank correlation ρ (Spearman) compares the order of these means with the order of the
    study's own means, `methods.STUDY_MEANS`. Its interval comes from the same draws of images for
    all methods.

    Args:
        records: records of the benchmark.

    Returns:
        A data frame with an index of `net` and `size`; a column for each method of `methods.STUDY`
        that the records have; `order`, these methods from the highest mean to the lowest, as a
        tuple; `rho`, `rho_low` and `rho_high`; `units`, the number of pairs of an image and a
        category; `predicted`, the fraction of the units whose explained class is the prediction.
    """
    import pandas as pd

    methods = [name for name in STUDY if name in set(records.method)]
    trained = _trained(records)
    rows = []
    for net, size in _nets_and_sizes(trained):
        part = trained[(trained.net == net) & (trained["size"] == size)]
        ranks = part.drop_duplicates(UNIT).score_rank
        cube = part.pivot(index=UNIT, columns="method", values="P").reindex(columns=methods)
        means = cube.mean()
        order = tuple(means.sort_values(ascending=False, kind="stable").index)
        found = (order, *_rank_correlation(cube), len(ranks), (ranks == 1).mean())
        rows.append((net, size, *means, *found))
    columns = [*methods, "order", "rho", "rho_low", "rho_high", "units", "predicted"]
    return pd.DataFrame(rows, columns=["net", "size", *columns]).set_index(["net", "size"])


def _rank_correlation(cube: pd.DataFrame) -> tuple[float, float, float]:
    """Rank correlation of the columns' means with the study's, and the ends of its interval."""
    from scipy.stats import rankdata

    if cube.shape[1] < 2:
        return np.nan, np.nan, np.nan
    values = cube.to_numpy()
    known = rankdata([STUDY_MEANS[name] for name in cube.columns])
    draws = bootstrap_means(values, cube.index.get_level_values("image_id").to_numpy())
    means = np.concatenate([cube.mean().to_numpy()[None], draws])
    # Where a mean or all ranks of a draw are undefined, so is its correlation, and the interval.
    ranks = rankdata(means, axis=1, nan_policy="propagate")
    known, ranks = known - known.mean(), ranks - ranks.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        found = (ranks @ known) / np.sqrt((ranks**2).sum(axis=1) * (known**2).sum())
    low, high = np.percentile(found[1:], [2.5, 97.5])
    return float(found[0]), float(low), float(high)


def predicted(records: pd.DataFrame) -> pd.DataFrame:
    """The records of the units whose explained class is the prediction of the trained network.

    A record of random weights stays if the trained network predicts the class, and a record of a
    control stays if at least one network does.

    Args:
        records: records of the benchmark.
    """
    trained = _trained(records)
    right = trained.loc[trained.score_rank == 1, [*UNIT, "net", "size"]].drop_duplicates()
    explained = records[records.net != NO_NET].reset_index().merge(right, how="inner")
    units = right[[*UNIT, "size"]].drop_duplicates()
    controls = records[records.net == NO_NET].reset_index().merge(units, how="inner")
    kept = [*explained["index"], *controls["index"]]
    return records[records.index.isin(kept)]


def difference(records: pd.DataFrame, method: str, other: str) -> pd.DataFrame:
    """Mean of P(method) − P(other) over the same units, for each network at each size.

    Args:
        records: records of the benchmark.
        method, other: names of methods or controls, also on random weights ("deconvnet_random").

    Returns:
        A data frame with an index of `net` and `size` and the columns `difference`, `low`, `high`
        (the ends of the interval), `units` (pairs of an image and a category that both methods
        have), and `undefined` (those of them in which at least one P is undefined, which are not
        part of the mean).

    Raises:
        InputError: the records do not have one of the methods.
    """
    import pandas as pd

    known = sorted(set(records.method))
    for name in (method, other):
        if name not in known:
            raise InputError(f"the records have no method {name!r}: {nearest(name, known)}")
    rows = []
    for net, size in _nets_and_sizes(records):
        part = records[records["size"] == size]
        a, b = (
            part[(part.method == name) & (part.net == (NO_NET if name in CONTROLS else net))]
            .set_index(UNIT)
            .P
            for name in (method, other)
        )
        both = pd.concat([a, b], axis=1, join="inner", keys=["a", "b"])
        gap = (both.a - both.b).dropna()
        images = gap.index.get_level_values("image_id").to_numpy()
        low, high = bootstrap_interval(gap.to_numpy(), images) if len(gap) else (np.nan, np.nan)
        rows.append((net, size, gap.mean(), low, high, len(both), len(both) - len(gap)))
    columns = ["net", "size", "difference", "low", "high", "units", "undefined"]
    return pd.DataFrame(rows, columns=columns).set_index(["net", "size"])


def differences(records: pd.DataFrame) -> pd.DataFrame:
    """Result of `difference` for each of `PAIRS`.

    Args:
        records: records of the benchmark.

    Returns:
        A data frame with an index of `method`, `other`, `net` and `size` and the columns of
        `difference`, for the pairs that the records have.
    """
    import pandas as pd

    known = set(records.method)
    pairs = [pair for pair in PAIRS if known.issuperset(pair)]
    if not pairs:
        return pd.DataFrame()
    parts = [difference(records, *pair) for pair in pairs]
    return pd.concat(parts, keys=pairs, names=["method", "other"])


def reversals(records: pd.DataFrame) -> pd.DataFrame:
    """Pairs of the study's methods whose order at a size is not that of the means over all sizes.

    A mean over sizes that hides opposite orders is a case of Simpson's paradox (Simpson 1951).

    Args:
        records: records of the benchmark.

    Returns:
        A data frame with the columns `net`; `higher` and `lower`, the methods in the order of their
        means over all sizes; `all sizes`, the difference of these means; and for each size, the
        difference at that size: negative where the order is the opposite. It has no rows if the
        means hide nothing.
    """
    import pandas as pd

    trained = _trained(records[records.method.isin(STUDY)])
    sizes = sizes_in_order(trained["size"])
    rows = []
    for net, part in trained.groupby("net"):
        overall = part.groupby("method").P.mean().dropna()
        at_size = part.pivot_table("P", "method", "size").reindex(columns=sizes)
        for pair in combinations([name for name in STUDY if name in overall.index], 2):
            lower, higher = sorted(pair, key=lambda name: overall[name])
            gaps = {
                "all sizes": overall[higher] - overall[lower],
                **dict(zip(sizes, at_size.loc[higher] - at_size.loc[lower], strict=True)),
            }
            if min(gaps.values()) < 0:
                rows.append({"net": net, "higher": higher, "lower": lower, **gaps})
    return pd.DataFrame(rows, columns=["net", "higher", "lower", "all sizes", *sizes])
