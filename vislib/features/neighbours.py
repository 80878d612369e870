"""Which pictures are alike to a net: nearest neighbours among its features, and a map of them.

A net turns a picture into a vector of features ``f``, what its last hidden layer gives. Two
pictures are neighbours when their vectors are close (Krizhevsky et al. 2012, "ImageNet
classification with deep convolutional neural networks", figure 4):

    Euclidean   ‖f_i − f_j‖
    cosine      1 − f_i·f_j / (‖f_i‖ ‖f_j‖)

A map puts the vectors into the plane so that neighbours stay neighbours. t-SNE (van der Maaten &
Hinton 2008, "Visualizing data using t-SNE") turns distances into similarities, in the feature space
with a width σ_i of its own for each picture, in the plane with Student's t:

    p_j|i ∝ exp(−‖f_i − f_j‖² / 2σ_i²)        p_ij = (p_j|i + p_i|j) / 2N
    q_ij  ∝ 1 / (1 + ‖y_i − y_j‖²)

and moves the points y until ``KL(P ‖ Q)`` is small. Each σ_i is such that the perplexity
``2^H(p_·|i)``, the effective number of neighbours, is the wanted one. The map itself is
scikit-learn's (`sklearn.manifold.TSNE`); here are its parts, to look at, and what comes after it:
the pictures at their points, and on a grid without gaps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vislib.core import Layer, check_images, find_layer, frozen, record
from vislib.errors import nearest as did_you_mean
from vislib.layers import classifier_head

if TYPE_CHECKING:
    pass


METRICS = ("euclidean", "cosine")


# --- Pictures of one object ------------------------------------------------------------------


# --- Features --------------------------------------------------------------------------------


def features_of(
    model: nn.Module, images: Tensor, layer: Layer | None = None, *, batch: int = 64
) -> Tensor:
    """The features of each image: N×D.

    Args:
        model: the net, left as it was.
        images: N×3×H×W.
        layer: whose output to take. By default the last hidden layer's: what enters the layer that
            makes the logits (`classifier_head`).
        batch: how many images go through the net at a time.

    Returns:
        One row for each image. Maps N×D×h×w are averaged over their places.

    Raises:
        ValueError: images, layer or batch size are wrong, or the layer gives neither one vector nor
            maps for each image.
    """
    check_images(images)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    name, module = find_layer(model, classifier_head(model, images) if layer is None else layer)
    rows = []
    with frozen(model), torch.no_grad():
        for part in images.split(batch):
            entered: list[Tensor] = []
            handle = module.register_forward_pre_hook(
                lambda _, args, kept=entered: kept.append(args[0].clone())
            )
            try:
                with record(model, [] if layer is None else [layer]) as outputs:
                    model(part.clone())  # a net may overwrite its input
            finally:
                handle.remove()
            if not entered:
                raise ValueError(f"the forward pass never calls layer {name!r}")
            found = entered[-1] if layer is None else outputs[name]
            if found.ndim not in (2, 4) or len(found) != len(part):
                raise ValueError(
                    f"layer {name!r} gives shape {tuple(found.shape)} for {len(part)} images, "
                    "neither a vector (N×D) nor maps (N×D×h×w) for each"
                )
            rows.append(found if found.ndim == 2 else found.mean(dim=(2, 3)))
    return torch.cat(rows)


# --- Neighbours ------------------------------------------------------------------------------


def nearest(
    features: Tensor, k: int, *, queries: Tensor | None = None, metric: str = "euclidean"
) -> Tensor:
    """The `k` nearest rows of `features`, nearest first; of equally near ones the first.

    Args:
        features: N×D, one row for each picture.
        k: how many.
        queries: M×D. By default the features themselves, and then no row is its own neighbour.
        metric: "euclidean", or "cosine", which leaves the vectors' lengths out of account.

    Returns:
        Indices, M×k.

    Raises:
        ValueError: shapes, values, `k` or the metric are wrong.
    """
    if metric not in METRICS:
        raise ValueError(f"there is no metric {metric!r}: {did_you_mean(metric, METRICS)}")
    device = features.device
    itself = queries is None
    bank = _rows(features, "features")
    asked = bank if queries is None else _rows(queries, "queries")
    if asked.shape[1] != bank.shape[1]:
        raise ValueError(
            f"queries have {asked.shape[1]} features, the pictures have {bank.shape[1]}"
        )
    if not 1 <= k <= len(bank) - itself:
        raise ValueError(
            f"k must be between 1 and {len(bank) - itself}, the number of other pictures, got {k}"
        )
    if metric == "cosine":
        bank, asked = (nn.functional.normalize(rows, dim=1) for rows in (bank, asked))
    found = []
    for start in range(0, len(asked), 256):  # so that memory does not grow with M
        part = asked[start : start + 256]
        away = -part @ bank.T if metric == "cosine" else _distances(part, bank)
        if itself:
            i = torch.arange(len(part))
            away[i, start + i] = torch.inf
        found.append(away.argsort(dim=1, stable=True)[:, :k])
    return torch.cat(found).to(device)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances from differences: ‖a‖² − 2a·b + ‖b‖² would be faster, and round badly."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _rows(values: Tensor, what: str) -> Tensor:
    """Vectors in float64 on the CPU (not every accelerator has float64), or ``ValueError``."""
    if not isinstance(values, Tensor) or values.ndim != 2 or not values.numel():
        seen = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"{what} must be a tensor N×D, one row for each picture, got {seen}")
    if not values.isfinite().all():
        raise ValueError(f"{what} hold NaN or infinite values")
    return values.detach().to("cpu", torch.float64)


def precision_at(
    k: int, neighbours: Tensor, labels: Tensor, query_labels: Tensor | None = None
) -> Tensor:
    """The share of each query's first `k` neighbours that are of its own category: M values.

    Args:
        k: how many neighbours count.
        neighbours: M×K indices into `labels`, nearest first, K ≥ k, as `nearest` gives them.
        labels: the N pictures' categories.
        query_labels: the M queries' categories, where they are not the pictures themselves.
    """
    if neighbours.ndim != 2 or not 1 <= k <= neighbours.shape[1]:
        raise ValueError(
            f"k = {k} needs a table of at least {k} neighbours for each query, got shape "
            f"{tuple(neighbours.shape)}"
        )
    wanted = labels if query_labels is None else query_labels
    if len(wanted) != len(neighbours):
        raise ValueError(f"{len(neighbours)} queries need as many labels, got {len(wanted)}")
    return (labels[neighbours[:, :k]] == wanted[:, None]).double().mean(dim=1)


# --- The parts of t-SNE ----------------------------------------------------------------------


def similarities(features: Tensor, perplexity: float) -> Tensor:
    """t-SNE's similarities ``p_ij`` in the feature space: N×N, symmetric, with sum 1.

    The width σ_i of each row is found by bisection of ``β_i = 1 / 2σ_i²``: the larger β, the fewer
    neighbours count. ``ValueError`` for a perplexity that is not between 1 and N − 1.
    """
    p = _conditional(_rows(features, "features"), perplexity)
    return (p + p.T) / (2 * len(p))


def _conditional(rows: Tensor, perplexity: float) -> Tensor:
    """Each row's ``p_j|i``, with the wanted perplexity."""
    n = len(rows)
    if not 1 <= perplexity < n - 1:
        raise ValueError(
            f"perplexity is an effective number of neighbours: {n} pictures allow at least 1 and "
            f"less than {n - 1}, got {perplexity}"
        )
    squared = _distances(rows, rows) ** 2
    squared.fill_diagonal_(torch.inf)
    squared = squared - squared.min(dim=1, keepdim=True).values  # p stays as it is, exp is safe
    scale = squared[squared.isfinite()].mean().clamp(min=1e-300)
    low, high = (torch.full((n, 1), value, dtype=torch.float64) for value in (-60.0, 60.0))
    for _ in range(100):
        exponent = (low + high) / 2  # bisect log β, which may lie anywhere
        p = torch.softmax(-squared * exponent.exp() / scale, dim=1)
        too_many = torch.special.entr(p).sum(dim=1, keepdim=True).exp() > perplexity
        low, high = torch.where(too_many, exponent, low), torch.where(too_many, high, exponent)
    return p


def divergence(p: Tensor, points: np.ndarray) -> float:
    """t-SNE's loss of a map: ``KL(P ‖ Q)`` with ``q_ij ∝ 1 / (1 + ‖y_i − y_j‖²)``, i ≠ j.

    Args:
        p: N×N, as `similarities` gives them.
        points: N×2.
    """
    y = torch.as_tensor(np.asarray(points, dtype=np.float64))
    if len(y) != len(p):
        raise ValueError(f"similarities of {len(p)} pictures, but {len(y)} points")
    q = 1 / (1 + _distances(y, y) ** 2)
    q.fill_diagonal_(0)
    q = q / q.sum()
    return float(torch.where(p > 0, p * (p / q).log(), 0.0).sum())


def repulsion(points: np.ndarray, i: int, theta: float = 0.5) -> tuple[np.ndarray, int]:
    """How t-SNE pushes point `i` away from all others, by Barnes & Hut's tree.

        F_i = Σ_j (y_i − y_j) / (1 + ‖y_i − y_j‖²)²

    The plane is cut into four squares, each again, and so on. A square of width w whose points have
    their centre c at a distance with ``w / ‖y_i − c‖ < θ`` counts as n points at c (van der Maaten
    2014, "Accelerating t-SNE using tree-based algorithms"; Barnes & Hut 1986).

    Args:
        points: N×2.
        i: which point is pushed.
        theta: 0 is exact, scikit-learn's default is 0.5 (its `angle`).

    Returns:
        The force, 2 values, and how many terms were added up.
    """
    y = np.asarray(points, dtype=np.float64)
    corner = y.min(axis=0)
    others = np.delete(y, i, axis=0)
    return _push(y[i], others, corner, float(np.ptp(y, axis=0).max()), theta)


def _push(
    y: np.ndarray, points: np.ndarray, corner: np.ndarray, width: float, theta: float
) -> tuple[np.ndarray, int]:
    away = y - points.mean(axis=0)
    squared = away @ away
    together = len(points) == 1 or (points == points[0]).all()
    if together or width**2 < theta**2 * squared:
        return len(points) * away / (1 + squared) ** 2, 1
    force, terms = np.zeros(2), 0
    right, upper = (points >= corner + width / 2).T
    for x in (0, 1):
        for z in (0, 1):
            inside = points[(right == x) & (upper == z)]
            if len(inside):
                start = corner + width / 2 * np.array([x, z])
                part, count = _push(y, inside, start, width / 2, theta)
                force, terms = force + part, terms + count
    return force, terms


# --- The map as a picture --------------------------------------------------------------------


def unit_square(points: np.ndarray) -> np.ndarray:
    """Points N×2 moved and stretched, each axis for itself, to reach from 0 to 1."""
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"a map has points N×2, got shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("the map's points hold NaN or infinite values")
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    return np.where(span > 0, (points - low) / np.where(span > 0, span, 1), 0.5)


def cell_centres(side: int) -> np.ndarray:
    """The centres of side×side cells of the unit square, row by row from the top left: side²×2."""
    if side < 1:
        raise ValueError(f"a grid needs at least 1 cell to a side, got {side}")
    middle = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(middle, middle[::-1])
    return np.stack([x.ravel(), y.ravel()], axis=1)


def grid_by_nearest(points: np.ndarray, side: int) -> np.ndarray:
    """Which picture each cell of a grid shows: the one whose point is nearest to the cell's centre.

    No cell stays empty. A picture in a thin part of the map is shown several times, one in a crowd
    perhaps never (Karpathy 2014, "t-SNE visualization of CNN codes").

    Args:
        points: the map, N×2; x grows to the right, y upwards.
        side: cells to a side.

    Returns:
        Indices of pictures, side×side, the first row at the top.
    """
    places = unit_square(points)
    return _squared(cell_centres(side), places).argmin(axis=1).reshape(side, side)


def grid_by_assignment(points: np.ndarray, side: int) -> np.ndarray:
    """Which picture each cell of a grid shows, so that none is shown twice.

    Of all such arrangements this is the one with the least sum of squared distances between cells
    and points, found by an assignment solver (Jonker & Volgenant 1987, in SciPy).

    Args:
        points: the map, N×2; x grows to the right, y upwards.
        side: cells to a side. With side² < N some pictures are left out.

    Returns:
        Indices of pictures, side×side, the first row at the top; −1 where a cell stays empty, as
        there are not enough pictures.
    """
    from scipy.optimize import linear_sum_assignment

    places = unit_square(points)
    cells, pictures = linear_sum_assignment(_squared(cell_centres(side), places))
    grid = np.full(side * side, -1)
    grid[cells] = pictures
    return grid.reshape(side, side)


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return ((a[:, None] - b[None]) ** 2).sum(axis=2)


def placed(pictures: Tensor, points: np.ndarray, *, side: int = 1000) -> Tensor:
    """Small pictures at their points of a map: 3×side×side on white, later ones on top.

    Args:
        pictures: N×3×h×w in [0, 1], drawn as large as they are.
        points: the map, N×2; x grows to the right, y upwards.
        side: of the result, in pixels.
    """
    height, width = check_images(pictures).shape[2:]
    if max(height, width) > side:
        raise ValueError(f"pictures of {height}×{width} pixels do not fit on {side}×{side}")
    canvas = torch.ones(3, side, side)
    for one, (x, y) in zip(pictures.cpu(), unit_square(points), strict=True):
        top, left = round((1 - y) * (side - height)), round(x * (side - width))
        canvas[:, top : top + height, left : left + width] = one
    return canvas
