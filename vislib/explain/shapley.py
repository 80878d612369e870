"""Shapley values: the mean contribution of each player over all orders of arrival.

A game is a function v of coalitions, which are subsets of n players. Its Shapley values are

    φ_i = Σ_{S without i}  |S|! (n - |S| - 1)! / n!  ·  (v(S ∪ i) - v(S))

where the factor is the fraction of all n! orders in which exactly the players of S come before i.
Shapley values are the only division of v(all) - v(none) with these four properties (Shapley 1953):

    efficiency    Σ_i φ_i = v(all) - v(none)
    symmetry      players that add the same to every coalition get the same value
    dummy         a player that never adds anything gets 0
    additivity    φ(v + w) = φ(v) + φ(w)

Here a game is any function from a batch of coalitions, M×n bool, to M values (`Game`):

* `exact`, `permutations` and `kernel` compute its Shapley values: by enumeration of all 2ⁿ
  coalitions, by random orders, and as the solution of a weighted regression (Kernel SHAP).
* `conditional`, `marginal` and `mean_input` turn a model of tabular data into a game. The players
  are the features of one row. A model needs a value for each feature, and the three games differ in
  the values that replace the missing features.
* `image_game` turns a network into a game. The players are segments of the image, such as
  `superpixels`.
* `shapley` combines `image_game` and `permutations` into an attribution map, with the arguments of
  the other explanation methods.

References:
    Shapley 1953, "A Value for n-Person Games".
    Castro, Gómez & Tejada 2009, "Polynomial Calculation of the Shapley Value Based on Sampling".
    Mitchell, Cooper, Frank & Holmes 2022, "Sampling Permutations for Shapley Value Estimation".
    Lundberg & Lee 2017, "A Unified Approach to Interpreting Model Predictions".
    Covert & Lee 2021, "Improving KernelSHAP: Practical Shapley Value Estimation Using Linear
    Regression".
    Aas, Jullum & Løland 2021, "Explaining Individual Predictions when Features Are Dependent: More
    Accurate Approximations to Shapley Values".
    Achanta, Shaji, Smith, Lucchi, Fua & Süsstrunk 2012, "SLIC Superpixels Compared to
    State-of-the-Art Superpixel Methods".
    Štrumbelj & Kononenko 2010, "An Efficient Explanation of Individual Classifications using Game
    Theory".
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vislib.core import (
    Target,
    Weighted,
    check_images,
    constant_target,
    frozen,
    score,
    target_weights,
)
from vislib.transforms import as_baseline

# From M×n bool, True for the players of a coalition, to M values.
Game = Callable[[Tensor], Tensor]
# From M×d rows to M predictions.
Predict = Callable[[Tensor], Tensor]

# Largest number of rows of a table that are predicted at a time.
_ROWS = 2**15
# Largest number of values in the first feature maps of a batch of images.
_FLOATS = 2**22
# Assumed number of channels of the first feature maps. VGG has 64, at the size of the image.
_CHANNELS = 64


class Estimate(NamedTuple):
    """Shapley values estimated from samples.

    Attributes:
        values: φ, n float64 numbers.
        standard_errors: standard errors of the values, n float64 numbers; NaN for a single sample.
        evaluations: number of different coalitions for which the game was evaluated.
    """

    values: Tensor
    standard_errors: Tensor
    evaluations: int


# --- Shapley values of any game -------------------------------------------------------------------


def coalitions(n: int) -> Tensor:
    """All 2ⁿ coalitions of n players, 2ⁿ×n bool. Row r contains player i if bit i of r is set.

    Args:
        n: number of players, 1 to 20 (20 players have a million coalitions).

    Raises:
        ValueError: `n` is outside its range.
    """
    if not 1 <= n <= 20:
        raise ValueError(
            f"n must be between 1 and 20 to list all coalitions, got {n}: for more players use "
            "permutations()"
        )
    return (torch.arange(2**n)[:, None] >> torch.arange(n)) % 2 == 1


def weights(n: int) -> Tensor:
    """Fraction of the n! orders in which a given coalition comes before a given player.

        w(s) = s! (n - s - 1)! / n! = 1 / (n · C(n - 1, s))

    Args:
        n: number of players.

    Returns:
        n float64 numbers, for coalitions of size s = 0 … n - 1.

    >>> [round(w, 3) for w in weights(3).tolist()]
    [0.333, 0.167, 0.333]
    """
    return torch.tensor([1 / (n * comb(n - 1, s)) for s in range(n)], dtype=torch.float64)


def exact(value: Game, n: int) -> Tensor:
    """Shapley values by their definition, from all 2ⁿ coalitions: n float64 numbers.

    Args:
        value: the game.
        n: number of players, 1 to 20.

    Raises:
        ValueError: `n` is outside its range, or the game does not return one finite value for each
            coalition.

    >>> exact(lambda members: members[:, 0] * 6.0 + members[:, 1:].all(dim=1) * 4.0, 3)
    tensor([6., 2., 2.], dtype=torch.float64)
    """
    members = coalitions(n)
    v, weight = _evaluate(value, members), weights(n)
    phi = torch.empty(n, dtype=torch.float64)
    for i in range(n):
        (without,) = (~members[:, i]).nonzero(as_tuple=True)
        phi[i] = (weight[members[without].sum(1)] * (v[without + 2**i] - v[without])).sum()
    return phi


def permutations(
    value: Game, n: int, samples: int, *, antithetic: bool = False, seed: int = 0
) -> Estimate:
    """Estimate of the Shapley values: mean contribution of each player over random orders.

    Castro et al. 2009. The estimate is unbiased for any number of samples. The contributions in
    each order sum to ``v(all) - v(none)``, so efficiency holds exactly. The standard error
    decreases with 1/√samples.

    Args:
        value: the game.
        n: number of players.
        samples: number of orders. Each order needs n - 1 coalitions besides the empty and the full
            one; the game is evaluated once for each different coalition.
        antithetic: whether each order is followed by its reverse (Mitchell et al. 2022). The errors
            of early and late contributions often have opposite signs, so such a pair is usually
            more accurate than two independent orders.
        seed: seed of the random orders.

    Raises:
        ValueError: `samples` is less than 1, or odd with `antithetic`, or the game does not return
            one finite value for each coalition.

    >>> estimate = permutations(lambda members: members.sum(1) ** 2.0, 4, samples=10)
    >>> torch.isclose(estimate.values.sum(), torch.tensor(16.0, dtype=torch.float64)).item()
    True
    """
    if samples < 1 or (antithetic and samples % 2):
        raise ValueError(
            f"samples must be at least one order, and whole pairs if antithetic, got {samples}"
        )
    generator = torch.Generator().manual_seed(seed)
    orders = torch.rand(samples // (1 + antithetic), n, generator=generator).argsort(dim=1)
    if antithetic:
        orders = torch.stack([orders, orders.flip(1)], dim=1).flatten(0, 1)
    # The position of each player in each order. The coalitions are samples × (n + 1) × n.
    arrival = orders.argsort(dim=1)
    members = arrival[:, None, :] < torch.arange(n + 1)[:, None]
    v, evaluations = _evaluate_different(value, members.flatten(0, 1))
    added = v.view(samples, n + 1).diff(dim=1).gather(1, arrival)
    # The two orders of a pair depend on each other, so their mean is one independent sample.
    drawn = added.view(-1, 1 + antithetic, n).mean(dim=1)
    error = drawn.std(dim=0) / len(drawn) ** 0.5 if len(drawn) > 1 else drawn[0] * torch.nan
    return Estimate(drawn.mean(dim=0), error, evaluations)


def kernel_weights(n: int) -> Tensor:
    """Weight of one coalition in the regression of `kernel`, by the size s of the coalition.

        π(s) = (n - 1) / (C(n, s) · s · (n - s))

    Sizes 0 and n would have infinite weight. They are the constraints of the regression.

    Args:
        n: number of players.

    Returns:
        n - 1 float64 numbers, for coalitions of size s = 1 … n - 1.
    """
    sizes = range(1, n)
    return torch.tensor([(n - 1) / (comb(n, s) * s * (n - s)) for s in sizes], dtype=torch.float64)


def kernel(
    value: Game, n: int, samples: int | None = None, *, paired: bool = True, seed: int = 0
) -> Tensor:
    """Kernel SHAP: Shapley values as the solution of a weighted regression, n float64 numbers.

        min_φ  Σ_S π(|S|) (v(S) - v(none) - Σ_{i in S} φ_i)²    with  Σ_i φ_i = v(all) - v(none)

    Lundberg & Lee 2017, in the form of Covert & Lee 2021. The weights π are `kernel_weights`. With
    all coalitions, the solution is exactly the Shapley values.

    Args:
        value: the game.
        n: number of players.
        samples: number of coalitions to draw, with probability proportional to π. If None, all
            2ⁿ - 2 coalitions are used, each with its weight.
        paired: whether each coalition is drawn together with its complement, which strongly reduces
            the variance (Covert & Lee 2021).
        seed: seed of the random coalitions.

    Raises:
        ValueError: `samples` is less than 1, or odd with `paired`, the drawn coalitions do not
            determine all values, or the game does not return one finite value for each coalition.

    >>> game = lambda members: members[:, 0] * 6.0 + members[:, 1:].all(dim=1) * 4.0
    >>> torch.allclose(kernel(game, 3), exact(game, 3))
    True
    """
    none, everyone = _evaluate(value, torch.tensor([[False] * n, [True] * n]))
    if n == 1:
        return (everyone - none)[None]
    if samples is None:
        members = coalitions(n)[1:-1]
        pi = kernel_weights(n)[members.sum(1) - 1]
        v = _evaluate(value, members)
    else:
        members = _draw(n, samples, paired, seed)
        # The weights π are the probabilities of the draw, so all drawn coalitions count the same.
        pi = torch.ones(len(members), dtype=torch.float64)
        v, _ = _evaluate_different(value, members)
    z = members.double()
    # These are the normal equations with a Lagrange multiplier. The last row is the constraint.
    left = torch.ones(n + 1, n + 1, dtype=torch.float64)
    left[:n, :n], left[n, n] = z.T @ (pi[:, None] * z), 0
    right = torch.cat([z.T @ (pi * (v - none)), (everyone - none)[None]])
    if torch.linalg.matrix_rank(left) <= n:
        raise ValueError(
            f"{samples} coalitions do not determine the values of {n} players: increase samples"
        )
    return torch.linalg.solve(left, right)[:n]


def _draw(n: int, samples: int, paired: bool, seed: int) -> Tensor:
    """Random coalitions with probability proportional to their kernel weight, `samples`×n bool."""
    if samples < 1 or (paired and samples % 2):
        raise ValueError(
            f"samples must be at least one coalition, and whole pairs if paired, got {samples}"
        )
    generator = torch.Generator().manual_seed(seed)
    count = samples // (1 + paired)
    by_size = kernel_weights(n) * torch.tensor([comb(n, s) for s in range(1, n)])
    sizes = 1 + torch.multinomial(by_size, count, replacement=True, generator=generator)
    rank = torch.rand(count, n, generator=generator).argsort(dim=1).argsort(dim=1)
    members = rank < sizes[:, None]
    return torch.cat([members, ~members]) if paired else members


def _evaluate(value: Game, members: Tensor) -> Tensor:
    """Values of the game as float64 on the CPU; ``ValueError`` if they are not M finite numbers."""
    v = torch.as_tensor(value(members)).detach().to("cpu", torch.float64)
    if v.shape != (len(members),):
        raise ValueError(
            f"the game must return {len(members)} values, one for each coalition, got shape "
            f"{tuple(v.shape)}"
        )
    if not v.isfinite().all():
        raise ValueError("the game must return finite values, got NaN or infinite values")
    return v


def _evaluate_different(value: Game, members: Tensor) -> tuple[Tensor, int]:
    """Values as in `_evaluate`, with one evaluation of each different coalition; their number."""
    different, which = torch.unique(members, dim=0, return_inverse=True)
    return _evaluate(value, different)[which], len(different)


# --- Games of a model on a table ------------------------------------------------------------------


def mean_input(predict: Predict, x: Tensor, background: Tensor) -> Game:
    """Game ``v(S) = f(x_S, mean of the rest)``: missing features are replaced by their means.

    The game equals `marginal` if the model is linear in the features.

    Args:
        predict: model f, M×d rows to M predictions.
        x: row to explain, d numbers.
        background: rows of data, B×d.

    Returns:
        A game of d players. Each coalition needs one prediction.

    Raises:
        ValueError: the shapes do not match, or there are no rows.
    """
    mean = _check_table(x, background).mean(dim=0)
    return lambda members: predict(torch.where(members.to(x.device), x, mean))


def marginal(predict: Predict, x: Tensor, background: Tensor) -> Game:
    """Game ``v(S) = mean of f(x_S, b_rest)`` over the rows b of the background.

    Missing features come from the data, *independently of the features that are present*. This is
    correct if the features are independent. (In the literature this game is also called
    "interventional" SHAP.)

    Args:
        predict: model f, M×d rows to M predictions.
        x: row to explain, d numbers.
        background: rows of data, B×d.

    Returns:
        A game of d players. Each coalition needs B predictions.

    Raises:
        ValueError: the shapes do not match, or there are no rows.

    >>> background = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    >>> game = marginal(lambda rows: rows.sum(dim=1), torch.tensor([5.0, 7.0]), background)
    >>> exact(game, 2)
    tensor([4., 5.], dtype=torch.float64)
    """
    return conditional(predict, x, background, width=torch.inf)


def conditional(predict: Predict, x: Tensor, background: Tensor, *, width: float = 0.3) -> Game:
    """Game ``v(S) = E[f(x_S, X_rest) | X_S = x_S]``, estimated from rows that are similar to x.

        v(S) ≈ Σ_b w_b f(x_S, b_rest),   w_b ∝ exp(-D_b² / (2 width²)),   Σ_b w_b = 1
        D_b² = mean over i in S of ((x_i - b_i) / σ_i)²

    Aas et al. 2021, who use the Mahalanobis distance. Here σ_i is the standard deviation of feature
    i over the background. For a large `width` all rows have the same weight, and the game is
    `marginal`. For a small `width` only few rows have a large weight, and the estimate is noisy.

    Args:
        predict: model f, M×d rows to M predictions.
        x: row to explain, d numbers.
        background: rows of data, B×d.
        width: width of the Gaussian kernel in standard deviations, above 0.

    Returns:
        A game of d players. Each coalition needs B predictions.

    Raises:
        ValueError: the shapes do not match, there are no rows, or `width` is not positive.
    """
    _check_table(x, background)
    if not width > 0:
        raise ValueError(f"width must be above 0, got {width}")
    deviation = background.std(dim=0, correction=0)
    # The squared distance of each row and feature, B×d.
    squared = ((x - background) / deviation.where(deviation > 0, 1.0)) ** 2

    def value(members: Tensor) -> Tensor:
        results = []
        for part in members.to(x.device).split(max(1, _ROWS // len(background))):
            # The rows of all coalitions are m coalitions × B rows × d features.
            rows = torch.where(part[:, None], x, background)
            sizes = part.sum(dim=1, keepdim=True).clamp(min=1)
            distance = part.to(squared.dtype) @ squared.T / sizes
            weight = (-distance / (2 * width**2)).softmax(dim=1)
            results.append((weight * predict(rows.flatten(0, 1)).view(len(part), -1)).sum(dim=1))
        return torch.cat(results)

    return value


def _check_table(x: Tensor, background: Tensor) -> Tensor:
    """Return the background if its rows have the features of x, else raise ``ValueError``."""
    if x.ndim != 1 or background.shape != (len(background), len(x)) or not len(background):
        raise ValueError(
            "x must be one row of d features and background B×d with at least one row, got shapes "
            f"{tuple(x.shape)} and {tuple(background.shape)}"
        )
    return background


# --- Games of a network on an image ---------------------------------------------------------------


def superpixels(image: Tensor, count: int = 50, *, compactness: float = 10.0) -> Tensor:
    """Segments of an image that follow its edges, H×W segment numbers 0 … n-1.

    Achanta et al. 2012. The computation runs on the CPU.

    Args:
        image: 3×H×W in [0, 1].
        count: approximate number of segments, at least 1.
        compactness: weight of the distance in space relative to the distance in colour. With a
            large value the segments are squares, with a small value they follow the colours.

    Raises:
        ValueError: `count` is less than 1.
    """
    from skimage.segmentation import slic

    if count < 1:
        raise ValueError(f"count must be at least 1 segment, got {count}")
    pixels = image.detach().to("cpu", torch.float64).movedim(0, -1).numpy()
    labels = slic(pixels, n_segments=count, compactness=compactness, start_label=0, channel_axis=-1)
    _, numbers = torch.unique(torch.from_numpy(labels), return_inverse=True)
    return numbers


def image_game(
    model: nn.Module,
    x: Tensor,
    target: Target,
    segments: Tensor,
    *,
    baseline: str | float | Tensor = 0.5,
) -> Game:
    """Game ``v(S)``: class score if the baseline replaces all segments outside S.

    Args:
        model, target: as in `vislib.explain.gradients`.
        x: one image, 1×C×H×W.
        segments: segment of each pixel, H×W whole numbers 0 … n-1.
        baseline: pixel values of missing segments: a number, C×1×1, 1×C×H×W, or a kind of
            `vislib.transforms.baseline_image`.

    Returns:
        A game of n players. It runs the model on a few images at a time.

    Raises:
        ValueError: `x` has more than one image, or the segments have another size or gaps in their
            numbers. The game raises it if the target class does not exist.
    """
    image = check_images(x).detach()
    if len(image) != 1:
        raise ValueError(f"x must be one image, got {len(image)}: pass x[i : i + 1]")
    segments = _check_segments(segments, image).to(image.device)
    target = constant_target(model, image, target)
    hidden = as_baseline(baseline, image)
    batch = max(1, _FLOATS // (_CHANNELS * image[0, 0].numel()))

    def value(members: Tensor) -> Tensor:
        results = []
        with frozen(model), torch.no_grad():
            for part in members.to(image.device).split(batch):
                # For m coalitions, this is m×1×H×W: whether each pixel is present.
                present = part[:, segments][:, None]
                results.append(score(model(torch.where(present, image, hidden)), target))
        return torch.cat(results)

    return value


def _check_segments(segments: Tensor, x: Tensor) -> Tensor:
    """Return the segments if they are numbers 0 … n-1 without a gap, else raise ``ValueError``."""
    if segments.shape != x.shape[-2:]:
        raise ValueError(
            f"segments must have the size of the image, {tuple(x.shape[-2:])}, got shape "
            f"{tuple(segments.shape)}"
        )
    if segments.is_floating_point() or segments.dtype == torch.bool:
        raise ValueError(f"segments must be whole numbers, got {segments.dtype}")
    numbers = segments.unique()
    if not torch.equal(numbers.cpu().long(), torch.arange(len(numbers))):
        raise ValueError(
            "segments must be numbered 0, 1, 2, … without a gap, got the numbers "
            f"{numbers[0]} to {numbers[-1]} for {len(numbers)} segments"
        )
    return segments.long()


def shapley(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    segments: int | Tensor = 50,
    samples: int = 20,
    baseline: str | float | Tensor = 0.5,
    seed: int = 0,
) -> Tensor:
    """Shapley values of the segments of each image for the class score: N×1×H×W, signed.

    Štrumbelj & Kononenko 2010; Lundberg & Lee 2017. Each pixel has the value φ of its segment, in
    the unit of the logits. The values of all segments sum to ``y_c(x) - y_c(baseline)``. They are
    estimated from random orders in antithetic pairs (`permutations`).

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        segments: number of `superpixels` of each image, for images in [0, 1], or the segments
            themselves, H×W or N×H×W whole numbers (0 … n-1 in each image).
        samples: number of orders, even. An image needs about ``samples · (n - 1)`` forward passes.
        baseline: pixel values of missing segments: a number, C×1×1, N×C×H×W, or a kind of
            `vislib.transforms.baseline_image`.
        seed: seed of the random orders.

    Raises:
        ValueError: the images, the target, the segments or the number of samples are not valid.

    >>> model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> x, halves = torch.rand(1, 3, 8, 8), torch.arange(8).repeat(8, 1) // 4
    >>> phi = shapley(model, x, target=3, segments=halves, samples=2)
    >>> y = model(torch.cat([x, torch.full_like(x, 0.5)]))[:, 3]
    >>> torch.allclose(phi[..., 0, 0] + phi[..., 0, 7], y[0] - y[1], atol=1e-6)
    True
    """
    # One forward pass raises for a wrong target before the long run, and fixes its weights.
    with frozen(model), torch.no_grad():
        weights = target_weights(model(check_images(x).clone()), target)
    baselines = as_baseline(baseline, x)
    maps = []
    for image, image_baseline, image_weights, parts in zip(
        x[:, None],
        baselines[:, None],
        weights,
        _segments_of_each(segments, x),
        strict=True,
    ):
        one = Weighted(image_weights)
        game = image_game(model, image, one, parts, baseline=image_baseline)
        estimate = permutations(game, int(parts.max()) + 1, samples, antithetic=True, seed=seed)
        maps.append(estimate.values.to(x)[parts.to(x.device).long()])
    return torch.stack(maps)[:, None]


def _segments_of_each(segments: int | Tensor, x: Tensor) -> list[Tensor]:
    """Segments of each image, N tensors H×W."""
    if not isinstance(segments, Tensor):
        return [superpixels(image, segments) for image in x]
    if segments.ndim == 2:
        return [segments] * len(x)
    if len(segments) != len(x):
        raise ValueError(
            f"segments of {len(x)} images must be H×W (the same for all images) or N×H×W, got "
            f"shape {tuple(segments.shape)}"
        )
    return list(segments)
