"""Images that are similar to a network: nearest neighbours in feature space, and t-SNE maps.

A network turns an image into a feature vector ``f``, the output of its last hidden layer. Two
images are neighbours if their vectors are close (Krizhevsky, Sutskever & Hinton 2012, "ImageNet
Classification with Deep Convolutional Neural Networks", figure 4):

    Euclidean   ‖f_i − f_j‖
    cosine      1 − f_i·f_j / (‖f_i‖ ‖f_j‖)

A map places the vectors in the plane so that neighbours remain neighbours. t-SNE (van der Maaten &
Hinton 2008, "Visualizing Data using t-SNE") turns distances into similarities: in the feature space
by Gaussians with a separate width σ_i for each image, in the plane by Student's t-distribution:

    p_j|i ∝ exp(−‖f_i − f_j‖² / 2σ_i²)        p_ij = (p_j|i + p_i|j) / 2N
    q_ij  ∝ 1 / (1 + ‖y_i − y_j‖²)

and moves the points y until ``KL(P ‖ Q)`` is small. Each σ_i is chosen so that the perplexity
``2^H(p_·|i)``, the effective number of neighbours, has a given value. scikit-learn computes the map
(`sklearn.manifold.TSNE`). This module contains the parts of t-SNE, and functions that arrange the
images at their points or on a grid without gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from vislib.core import Layer, check_images, find_layer, frozen, record
from vislib.errors import nearest
from vislib.layers import classifier_head

METRICS = ("euclidean", "cosine")


# --- Features -------------------------------------------------------------------------------------


def features_of(
    model: nn.Module, images: Tensor, layer: Layer | None = None, *, batch: int = 64
) -> Tensor:
    """Feature vectors of images, N×D.

    Args:
        model: any network. Its state is restored afterwards.
        images: N×3×H×W.
        layer: dotted name of the layer whose output is taken, or the module itself; by default the
            last hidden layer, whose output is the input of the layer that computes the logits
            (`vislib.layers.classifier_head`).
        batch: number of images that are processed together.

    Returns:
        One row for each image. Feature maps N×D×h×w are averaged over their positions.

    Raises:
        ValueError: `images` is not a batch of finite images, `batch` is below 1, or the layer gives
            neither one vector nor feature maps for each image.

    >>> model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ...                       nn.Linear(6, 4))
    >>> features_of(model, torch.rand(5, 3, 8, 8)).shape
    torch.Size([5, 6])
    """
    check_images(images)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    name, module = find_layer(model, classifier_head(model, images) if layer is None else layer)
    rows = []
    with frozen(model), torch.no_grad():
        for part in images.split(batch):
            recording = _record_input(name, module) if layer is None else record(model, [layer])
            with recording as recorded:
                # A clone, because a network may overwrite its input.
                model(part.clone())
            if name not in recorded:
                raise ValueError(
                    f"the forward pass never calls layer {name!r}: choose one that runs"
                )
            values = recorded[name]
            if values.ndim not in (2, 4) or len(values) != len(part):
                raise ValueError(
                    f"layer {name!r} must give a vector (N×D) or feature maps (N×D×h×w) for each "
                    f"image, got shape {tuple(values.shape)} for {len(part)} images"
                )
            rows.append(values if values.ndim == 2 else values.mean(dim=(2, 3)))
    return torch.cat(rows)


@contextmanager
def _record_input(name: str, module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record the first argument of a module, as `vislib.core.record` records outputs."""
    inputs: dict[str, Tensor] = {}

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs[name] = args[0].clone()

    handle = module.register_forward_pre_hook(hook)
    try:
        yield inputs
    finally:
        handle.remove()


# --- Neighbours -----------------------------------------------------------------------------------


def nearest_neighbours(
    features: Tensor, k: int, *, queries: Tensor | None = None, metric: str = "euclidean"
) -> Tensor:
    """Indices of the `k` nearest rows of `features`, nearest first, M×k.

    Args:
        features: N×D, one row for each image.
        k: number of neighbours, 1 to N (N − 1 without `queries`).
        queries: M×D; by default the features themselves, so that M = N. In this case no row is its
            own neighbour.
        metric: "euclidean", or "cosine", which ignores the lengths of the vectors.

    Returns:
        Indices, M×k, on the device of `features`. On ties, rows with smaller indices come first.

    Raises:
        ValueError: a shape, `k` or the metric is not valid, or values are NaN or infinite.

    >>> nearest_neighbours(torch.tensor([[0.0], [1.0], [3.0]]), 1).tolist()
    [[1], [0], [1]]
    """
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r} does not exist: {nearest(metric, METRICS)}")
    bank = _checked_rows(features, "features")
    query_rows = bank if queries is None else _checked_rows(queries, "queries")
    if query_rows.shape[1] != bank.shape[1]:
        raise ValueError(
            f"queries must have as many columns as features, {bank.shape[1]}, "
            f"got {query_rows.shape[1]}"
        )
    largest = len(bank) - (queries is None)
    if not 1 <= k <= largest:
        raise ValueError(
            f"k must be between 1 and {largest}, the number of possible neighbours, got {k}"
        )
    if metric == "cosine":
        bank, query_rows = (nn.functional.normalize(rows, dim=1) for rows in (bank, query_rows))
    indices = []
    # Parts of 256 queries limit the memory.
    for start in range(0, len(query_rows), 256):
        part = query_rows[start : start + 256]
        distances = -part @ bank.T if metric == "cosine" else _distances(part, bank)
        if queries is None:
            i = torch.arange(len(part))
            distances[i, start + i] = torch.inf
        indices.append(distances.argsort(dim=1, stable=True)[:, :k])
    return torch.cat(indices).to(features.device)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances, without the larger rounding errors of ‖a‖² − 2a·b + ‖b‖²."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _checked_rows(values: Tensor, name: str) -> Tensor:
    """Vectors in float64 on the CPU, because not every accelerator has float64; else an error."""
    if not isinstance(values, Tensor) or values.ndim != 2 or not values.numel():
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"{name} must be a tensor N×D, one row for each image, got {got}")
    if not values.isfinite().all():
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    return values.detach().to("cpu", torch.float64)


def precision_at(
    k: int, neighbours: Tensor, labels: Tensor, query_labels: Tensor | None = None
) -> Tensor:
    """Fraction of each query's first `k` neighbours that have its category, M values in [0, 1].

    Args:
        k: number of neighbours that count.
        neighbours: M×K indices into `labels`, nearest first, with K ≥ k, as from
            `nearest_neighbours`.
        labels: categories of the N images.
        query_labels: categories of the M queries, if these are not the N images themselves.

    Raises:
        ValueError: there are fewer than k neighbours, or not as many labels as queries.

    >>> table = torch.tensor([[1, 2], [0, 2], [1, 0]])
    >>> precision_at(2, table, labels=torch.tensor([7, 7, 8])).tolist()
    [0.5, 0.5, 0.0]
    """
    if neighbours.ndim != 2 or not 1 <= k <= neighbours.shape[1]:
        raise ValueError(
            f"k = {k} needs a table of at least {k} neighbours for each query, got shape "
            f"{tuple(neighbours.shape)}"
        )
    expected = labels if query_labels is None else query_labels
    if len(expected) != len(neighbours):
        raise ValueError(f"{len(neighbours)} queries need as many labels, got {len(expected)}")
    return (labels[neighbours[:, :k]] == expected[:, None]).double().mean(dim=1)


# --- The parts of t-SNE ---------------------------------------------------------------------------


def similarities(features: Tensor, perplexity: float) -> Tensor:
    """t-SNE's similarities ``p_ij`` in the feature space, N×N, symmetric, with sum 1.

    The width σ_i of each row is found by bisection of ``β_i = 1 / 2σ_i²``: with a larger β, fewer
    neighbours count.

    Args:
        features: N×D, one row for each image.
        perplexity: effective number of neighbours, at least 1 and less than N − 1.

    Raises:
        ValueError: `features` is not a finite tensor N×D, or `perplexity` is out of range.

    >>> p = similarities(torch.rand(10, 3), perplexity=3)
    >>> p.shape, round(float(p.sum()), 6)
    (torch.Size([10, 10]), 1.0)
    """
    p = _conditional(_checked_rows(features, "features"), perplexity)
    return (p + p.T) / (2 * len(p))


def _conditional(rows: Tensor, perplexity: float) -> Tensor:
    """Similarities ``p_j|i`` of each row i, all with the given perplexity."""
    n = len(rows)
    if not 1 <= perplexity < n - 1:
        raise ValueError(
            f"perplexity, an effective number of neighbours, must be at least 1 and less than "
            f"{n - 1} for {n} images, got {perplexity}"
        )
    squared = _distances(rows, rows) ** 2
    squared.fill_diagonal_(torch.inf)
    # Subtracting the smallest distance does not change p and prevents an underflow of exp.
    squared = squared - squared.min(dim=1, keepdim=True).values
    scale = squared[squared.isfinite()].mean().clamp(min=1e-300)
    low, high = (torch.full((n, 1), value, dtype=torch.float64) for value in (-60.0, 60.0))
    # The bisection is over log β, because β may have any order of magnitude.
    for _ in range(100):
        exponent = (low + high) / 2
        p = torch.softmax(-squared * exponent.exp() / scale, dim=1)
        too_many = torch.special.entr(p).sum(dim=1, keepdim=True).exp() > perplexity
        low, high = torch.where(too_many, exponent, low), torch.where(too_many, high, exponent)
    return p


def divergence(p: Tensor, points: np.ndarray) -> float:
    """t-SNE's loss of a map: ``KL(P ‖ Q)`` with ``q_ij ∝ 1 / (1 + ‖y_i − y_j‖²)``, i ≠ j.

    Args:
        p: N×N, as from `similarities`.
        points: points of the map, N×2.

    Returns:
        The loss in nats, at least 0.

    Raises:
        ValueError: there are not as many points as rows of `p`.
    """
    y = torch.as_tensor(np.asarray(points, dtype=np.float64))
    if len(y) != len(p):
        raise ValueError(f"points must have a row for each of the {len(p)} images, got {len(y)}")
    q = 1 / (1 + _distances(y, y) ** 2)
    q.fill_diagonal_(0)
    q = q / q.sum()
    return float(torch.where(p > 0, p * (p / q).log(), 0.0).sum())


def repulsion(points: np.ndarray, i: int, theta: float = 0.5) -> tuple[np.ndarray, int]:
    """Force with which t-SNE repels point `i` from all others, by the Barnes-Hut tree.

        F_i = Σ_j (y_i − y_j) / (1 + ‖y_i − y_j‖²)²

    The plane is divided into four squares, each of these into four smaller squares, and so on. If n
    points are in a square of width w and their mean c satisfies ``w / ‖y_i − c‖ < θ``, the square
    counts as n points at c (Barnes & Hut 1986, "A hierarchical O(N log N) force-calculation
    algorithm"; van der Maaten 2014, "Accelerating t-SNE using Tree-Based Algorithms").

    Args:
        points: points of the map, N×2.
        i: index of the point.
        theta: accuracy θ; 0 gives the exact force. In scikit-learn this is `angle`, by default 0.5.

    Returns:
        The force, 2 values, and the number of terms in the sum.

    >>> force, terms = repulsion(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]), 0, theta=0)
    >>> force.round(2).tolist(), terms
    ([-0.25, -0.03], 2)
    """
    y = np.asarray(points, dtype=np.float64)
    corner = y.min(axis=0)
    others = np.delete(y, i, axis=0)
    return _repulsion_from(others, y[i], corner, float(np.ptp(y, axis=0).max()), theta)


def _repulsion_from(
    points: np.ndarray, y: np.ndarray, corner: np.ndarray, width: float, theta: float
) -> tuple[np.ndarray, int]:
    """Force on `y` from the points in one square of the tree, and its number of terms."""
    difference = y - points.mean(axis=0)
    squared = difference @ difference
    one_position = len(points) == 1 or (points == points[0]).all()
    if one_position or width**2 < theta**2 * squared:
        return len(points) * difference / (1 + squared) ** 2, 1
    force, terms = np.zeros(2), 0
    right, upper = (points >= corner + width / 2).T
    for x in (0, 1):
        for z in (0, 1):
            inside = points[(right == x) & (upper == z)]
            if len(inside):
                start = corner + width / 2 * np.array([x, z])
                part, count = _repulsion_from(inside, y, start, width / 2, theta)
                force, terms = force + part, terms + count
    return force, terms


# --- Drawings of a map ----------------------------------------------------------------------------


def unit_square(points: np.ndarray) -> np.ndarray:
    """Points N×2, shifted and scaled separately for each axis to the range from 0 to 1.

    An axis on which all points are equal gives 0.5.

    Args:
        points: N×2.

    Raises:
        ValueError: `points` is not N×2, or has NaN or infinite values.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"points must be an array N×2, got shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("points must be finite, got NaN or infinite values")
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    return np.where(span > 0, (points - low) / np.where(span > 0, span, 1), 0.5)


def cell_centres(side: int) -> np.ndarray:
    """Centres of side×side cells of the unit square, row by row from the top left, side²×2.

    Args:
        side: number of cells on each side.

    Raises:
        ValueError: `side` is below 1.
    """
    if side < 1:
        raise ValueError(f"side must be at least 1 cell, got {side}")
    middle = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(middle, middle[::-1])
    return np.stack([x.ravel(), y.ravel()], axis=1)


def grid_by_nearest(points: np.ndarray, side: int) -> np.ndarray:
    """Index of the image whose point is nearest to the centre of each cell of a grid, side×side.

    All cells show an image. An image in a sparse part of the map may be shown several times, and an
    image in a dense part may not be shown (Karpathy 2014, "t-SNE visualization of CNN codes").

    Args:
        points: points of the map, N×2; x grows to the right, y upwards.
        side: number of cells on each side.

    Returns:
        Indices, side×side, with the first row at the top.

    Raises:
        ValueError: `points` is not a finite N×2 array, or `side` is below 1.

    >>> grid_by_nearest(np.array([[0.0, 0.0], [1.0, 1.0], [0.8, 0.0]]), 2).tolist()
    [[0, 1], [0, 2]]
    """
    positions = unit_square(points)
    return _squared(cell_centres(side), positions).argmin(axis=1).reshape(side, side)


def grid_by_assignment(points: np.ndarray, side: int) -> np.ndarray:
    """Index of an image for each cell of a grid, so that no image is shown twice, side×side.

    Among all such arrangements, the result has the smallest sum of squared distances between cells
    and points. SciPy's assignment solver finds it (Jonker & Volgenant 1987, "A shortest augmenting
    path algorithm for dense and sparse linear assignment problems").

    Args:
        points: points of the map, N×2; x grows to the right, y upwards.
        side: number of cells on each side. If side² < N, some images are left out.

    Returns:
        Indices, side×side, with the first row at the top. Cells stay empty (−1) if side² > N.

    Raises:
        ValueError: `points` is not a finite N×2 array, or `side` is below 1.

    >>> grid_by_assignment(np.array([[0.0, 0.0], [1.0, 1.0], [0.9, 0.1]]), 2).tolist()
    [[-1, 1], [0, 2]]
    """
    from scipy.optimize import linear_sum_assignment

    positions = unit_square(points)
    cells, images = linear_sum_assignment(_squared(cell_centres(side), positions))
    grid = np.full(side * side, -1)
    grid[cells] = images
    return grid.reshape(side, side)


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances between the rows of a (N×2) and those of b (M×2), N×M."""
    return ((a[:, None] - b[None]) ** 2).sum(axis=2)


def scatter_images(images: Tensor, points: np.ndarray, *, side: int = 1000) -> Tensor:
    """Image with small images at their points of a map, 3×side×side, on white.

    Later images cover earlier ones.

    Args:
        images: N×3×h×w in [0, 1]. They are not resized.
        points: points of the map, N×2; x grows to the right, y upwards.
        side: height and width of the result, in pixels.

    Raises:
        ValueError: the images are larger than the result, or an argument is not valid.
    """
    height, width = check_images(images).shape[2:]
    if max(height, width) > side:
        raise ValueError(
            f"side must be at least the size of the images, {height}×{width} pixels, got {side}"
        )
    canvas = torch.ones(3, side, side)
    for image, (x, y) in zip(images.cpu(), unit_square(points), strict=True):
        top, left = round((1 - y) * (side - height)), round(x * (side - width))
        canvas[:, top : top + height, left : left + width] = image
    return canvas
