"""Shapley values: the mean contribution of each player over all orders of arrival.

A game is a function v of coalitions, which are subsets of n players. Its Shapley values are

    φ_i = Σ_{S without i}  |S|! (n - |S| - 1)! / n!  ·  (v(S ∪ i) - v(S))

where the factor is the fraction of all n! orders in which exactly the players of S come before i.
Shapley values are the only division of v(all) - v(none) with these four properties (Shapley 1953,
"A Value for n-Person Games"):

    efficiency    Σ_i φ_i = v(all) - v(none)
    symmetry      players that add the same to every coalition get the same value
    dummy         a player that never adds anything gets 0
    additivity    φ(v + w) = φ(v) + φ(w)

Here a game is any function from a batch of coalitions, M×n bool, to M values (`Game`):

* `exact`, `permutations` and `kernel` compute its Shapley values: by enumeration of all 2ⁿ
  coalitions, by random orders, and as the solution of a weighted regression (Kernel SHAP).
* `conditional`, `marginal` and `mean_input` make a game of a model on a table. The players are the
  features of one row. A model needs a value for each feature, so each game replaces the missing
  features in its way.
* `image_game` makes a game of a network. The players are segments of the image, such as
  `superpixels`.
* `shapley` combines `image_game` and `permutations` into an attribution map, with the arguments of
  the other explanation methods.
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

# From M×n bool, True for the players of a coalition, to M values.
Game = Callable[[Tensor], Tensor]
# From M×d rows to M predictions.
Predict = Callable[[Tensor], Tensor]

# How many rows of a table are predicted at a time.
_ROWS = 2**15
# How many numbers the first feature maps of a network may have at a time.
_FLOATS = 2**22
# How many channels of image size the first feature maps are assumed to have, as in VGG.
_CHANNELS = 64


class Estimate(NamedTuple):
    """Shapley values estimated from samples.

    Attributes:
        values: φ, n float64 numbers.
        standard_errors: of the values, n numbers; NaN for a single sample.
        evaluations: the number of different coalitions that the game was evaluated for.
    """

    values: Tensor
    standard_errors: Tensor
    evaluations: int


# --- Shapley values of any game -------------------------------------------------------------------


def coalitions(n: int) -> Tensor:
    """All 2ⁿ coalitions of n players, 2ⁿ×n bool. Player i is in row r if bit i of r is set.

    Raises:
        ValueError: `n` is not between 1 and 20 (20 players have a million coalitions).
    """
    if not 1 <= n <= 20:
        raise ValueError(
            f"n must be between 1 and 20 to list all coalitions, got {n}: for more players use "
            "permutations()"
        )
    return (torch.arange(2**n)[:, None] >> torch.arange(n)) % 2 == 1


def weights(n: int) -> Tensor:
    """The fraction of the n! orders in which a given coalition comes before a given player.

    For three players the weights are 1/3, 1/6 (for each of two coalitions) and 1/3.

    Returns:
        n float64 numbers, for coalitions of size 0 … n - 1:
        ``s! (n - s - 1)! / n! = 1 / (n · C(n - 1, s))``.
    """
    return torch.tensor([1 / (n * comb(n - 1, s)) for s in range(n)], dtype=torch.float64)


def exact(value: Game, n: int) -> Tensor:
    """Shapley values by their definition, from all 2ⁿ coalitions.

    >>> exact(lambda members: members[:, 0] * 6.0 + members[:, 1:].all(dim=1) * 4.0, 3)
    tensor([6., 2., 2.], dtype=torch.float64)

    Args:
        value: the game.
        n: the number of players, 1 to 20.

    Returns:
        φ, n float64 numbers.

    Raises:
        ValueError: `n` is out of range, or the game does not return one finite value for each
            coalition.
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
    """Shapley values as the mean contribution of each player over random orders of arrival.

    The estimate is unbiased for any number of samples. The contributions in each order sum to
    ``v(all) - v(none)``, so efficiency holds exactly. The standard error decreases with 1/√samples.

    >>> estimate = permutations(lambda members: members.sum(1) ** 2.0, 4, samples=10)
    >>> torch.isclose(estimate.values.sum(), torch.tensor(16.0, dtype=torch.float64)).item()
    True

    Args:
        value: the game.
        n: the number of players.
        samples: the number of orders. Each order needs n - 1 coalitions; the game is evaluated once
            for each different coalition.
        antithetic: whether each order is followed by its reverse. The errors of early and late
            contributions often have opposite signs, so such a pair is more accurate than two
            independent orders.
        seed: of the random orders.

    Raises:
        ValueError: `samples` is less than 1, or odd with `antithetic`, or the game does not return
            one finite value for each coalition.

    Castro, Gómez & Tejada 2009, "Polynomial Calculation of the Shapley Value Based on Sampling";
    Mitchell et al. 2022, "Sampling Permutations for Shapley Value Estimation" (the reverse orders).
    """
    if samples < 1 or (antithetic and samples % 2):
        raise ValueError(
            f"samples must be at least one order, and whole pairs if antithetic, got {samples}"
        )
    generator = torch.Generator().manual_seed(seed)
    orders = torch.rand(samples // (1 + antithetic), n, generator=generator).argsort(dim=1)
    if antithetic:
        orders = torch.stack([orders, orders.flip(1)], dim=1).flatten(0, 1)
    # When each player arrives. The coalitions of one order are samples × (n + 1) × n.
    arrival = orders.argsort(dim=1)
    members = arrival[:, None, :] < torch.arange(n + 1)[:, None]
    v, evaluations = _evaluate_different(value, members.flatten(0, 1))
    added = v.view(samples, n + 1).diff(dim=1).gather(1, arrival)
    # The two orders of a pair depend on each other, so their mean is one independent sample.
    drawn = added.view(-1, 1 + antithetic, n).mean(dim=1)
    error = drawn.std(dim=0) / len(drawn) ** 0.5 if len(drawn) > 1 else drawn[0] * torch.nan
    return Estimate(drawn.mean(dim=0), error, evaluations)


def kernel_weights(n: int) -> Tensor:
    """The weight of one coalition in the regression of `kernel`, by the size of the coalition.

    Sizes 0 and n would have infinite weight. They are the constraints of the regression.

    Returns:
        n - 1 float64 numbers, for sizes 1 … n - 1: ``π(s) = (n-1) / (C(n,s) s (n-s))``.
    """
    sizes = range(1, n)
    return torch.tensor([(n - 1) / (comb(n, s) * s * (n - s)) for s in sizes], dtype=torch.float64)


def kernel(
    value: Game, n: int, samples: int | None = None, *, paired: bool = True, seed: int = 0
) -> Tensor:
    """Kernel SHAP: the additive game that is closest to `value` in weighted least squares.

        min_φ  Σ_S π(|S|) (v(S) - v(none) - Σ_{i in S} φ_i)²    with  Σ_i φ_i = v(all) - v(none)

    With all coalitions and π from `kernel_weights` the solution is exactly the Shapley values.

    >>> game = lambda members: members[:, 0] * 6.0 + members[:, 1:].all(dim=1) * 4.0
    >>> torch.allclose(kernel(game, 3), exact(game, 3))
    True

    Args:
        value: the game.
        n: the number of players.
        samples: the number of coalitions to draw, with probability proportional to π. If None, all
            2ⁿ - 2 are used, each with its weight.
        paired: whether each coalition is drawn together with its complement, which reduces the
            noise much.
        seed: of the draw.

    Returns:
        φ, n float64 numbers.

    Raises:
        ValueError: `samples` is less than 1, or odd with `paired`, the drawn coalitions do not
            determine all values, or the game does not return one finite value for each coalition.

    Lundberg & Lee 2017, "A Unified Approach to Interpreting Model Predictions". This form and the
    pairs: Covert & Lee 2021, "Improving KernelSHAP: Practical Shapley Value Estimation Using Linear
    Regression".
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
        # The coalitions are drawn with their weights, so all count the same in the regression.
        pi = torch.ones(len(members), dtype=torch.float64)
        v, _ = _evaluate_different(value, members)
    z = members.double()
    # The normal equations with a Lagrange multiplier: the last row is the constraint.
    left = torch.ones(n + 1, n + 1, dtype=torch.float64)
    left[:n, :n], left[n, n] = z.T @ (pi[:, None] * z), 0
    right = torch.cat([z.T @ (pi * (v - none)), (everyone - none)[None]])
    if torch.linalg.matrix_rank(left) <= n:
        raise ValueError(
            f"{samples} coalitions do not determine the values of {n} players: increase samples"
        )
    return torch.linalg.solve(left, right)[:n]


def _draw(n: int, samples: int, paired: bool, seed: int) -> Tensor:
    """Coalitions with probability proportional to their kernel weight, `samples`×n."""
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
    """The game's values as float64 on the CPU; ``ValueError`` unless they are M finite numbers."""
    v = torch.as_tensor(value(members)).detach().to("cpu", torch.float64)
    if v.shape != (len(members),):
        raise ValueError(
            f"the value function must return {len(members)} values, one for each coalition, got "
            f"shape {tuple(v.shape)}"
        )
    if not v.isfinite().all():
        raise ValueError("the value function returned NaN or infinity")
    return v


def _evaluate_different(value: Game, members: Tensor) -> tuple[Tensor, int]:
    """The same values from one evaluation of each different coalition, and the number of these."""
    different, which = torch.unique(members, dim=0, return_inverse=True)
    return _evaluate(value, different)[which], len(different)


# --- Games on a table -----------------------------------------------------------------------------


def mean_input(predict: Predict, x: Tensor, background: Tensor) -> Game:
    """The game ``v(S) = f(x_S, mean of the rest)``: missing features have their mean.

    It needs one prediction for each coalition. It equals `marginal` if the model is linear in the
    features.

    Args:
        predict: the model f, M×d rows to M predictions.
        x: the row to explain, d numbers.
        background: rows of data, B×d.

    Returns:
        A game of d players.

    Raises:
        ValueError: the shapes do not match, or there are no rows.
    """
    mean = _check_table(x, background).mean(dim=0)
    return lambda members: predict(torch.where(members.to(x.device), x, mean))


def marginal(predict: Predict, x: Tensor, background: Tensor) -> Game:
    """The game ``v(S) = mean of f(x_S, b_rest)`` over the rows b of the background.

    Missing features are drawn from the data, *independently of the features that are present*. This
    is correct if the features are independent. (Other texts call it "interventional" or "baseline"
    SHAP.)

    >>> background = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    >>> game = marginal(lambda rows: rows.sum(dim=1), torch.tensor([5.0, 7.0]), background)
    >>> exact(game, 2)
    tensor([4., 5.], dtype=torch.float64)

    Args:
        predict: the model f, M×d rows to M predictions.
        x: the row to explain, d numbers.
        background: rows of data, B×d.

    Returns:
        A game of d players. Each coalition needs B predictions.

    Raises:
        ValueError: the shapes do not match, or there are no rows.
    """
    return conditional(predict, x, background, width=torch.inf)


def conditional(predict: Predict, x: Tensor, background: Tensor, *, width: float = 0.3) -> Game:
    """The game ``v(S) = E[f(x_S, X_rest) | X_S = x_S]``, estimated from background rows similar to
    x.

        v(S) ≈ Σ_b w_b f(x_S, b_rest),   w_b ∝ exp(-D²/(2 width²)),
        D² = mean over i in S of ((x_i - b_i) / σ_i)²

    with σ the standard deviation of each feature over the background. For a large `width` all rows
    have the same weight, which is `marginal`. For a small one only few rows have a large weight,
    and the estimate is noisy.

    Args:
        predict: the model f, M×d rows to M predictions.
        x: the row to explain, d numbers.
        background: rows of data, B×d.
        width: of the Gaussian kernel, in standard deviations; above 0.

    Returns:
        A game of d players. Each coalition needs B predictions.

    Raises:
        ValueError: the shapes do not match, there are no rows, or `width` is not positive.

    Aas, Jullum & Løland 2021, "Explaining Individual Predictions when Features Are Dependent: More
    Accurate Approximations to Shapley Values" (there with the Mahalanobis distance).
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
            # m coalitions × B rows × d features
            rows = torch.where(part[:, None], x, background)
            sizes = part.sum(dim=1, keepdim=True).clamp(min=1)
            distance = part.to(squared.dtype) @ squared.T / sizes
            weight = (-distance / (2 * width**2)).softmax(dim=1)
            results.append((weight * predict(rows.flatten(0, 1)).view(len(part), -1)).sum(dim=1))
        return torch.cat(results)

    return value


def _check_table(x: Tensor, background: Tensor) -> Tensor:
    """Return the background if its rows have the features of x; else ``ValueError``."""
    if x.ndim != 1 or background.shape != (len(background), len(x)) or not len(background):
        raise ValueError(
            "x must be one row of d features and background B×d with at least one row, got shapes "
            f"{tuple(x.shape)} and {tuple(background.shape)}"
        )
    return background


# --- Games on an image ----------------------------------------------------------------------------


def superpixels(image: Tensor, count: int = 50, *, compactness: float = 10.0) -> Tensor:
    """Segments of an image that follow its edges.

    The computation runs on the CPU.

    Args:
        image: 3×H×W in [0, 1].
        count: about how many segments there should be, at least 1.
        compactness: the weight of the distance in space against that in colour. A large value gives
            squares, with a small one the segments follow the colours.

    Returns:
        The number of each pixel's segment, H×W whole numbers 0 … K-1.

    Raises:
        ValueError: `count` is less than 1.

    Achanta et al. 2012, "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods".
    """
    from skimage.segmentation import slic

    if count < 1:
        raise ValueError(f"count must be at least 1 segment, got {count}")
    pixels = image.detach().to("cpu", torch.float64).movedim(0, -1).numpy()
    labels = slic(pixels, n_segments=count, compactness=compactness, start_label=0, channel_axis=-1)
    _, numbers = torch.unique(torch.from_numpy(labels), return_inverse=True)
    return numbers


def image_game(
    model: nn.Module, x: Tensor, target: Target, segments: Tensor, *, baseline: float | Tensor = 0.5
) -> Game:
    """The game ``v(S)``: the class score if all segments outside S are replaced by the baseline.

    Args:
        model: N×C×H×W images to N×K logits. It is left as it was, and it runs on a few images at a
            time.
        x: one image, 1×C×H×W.
        target: what is explained: a class index or another target of `vislib.core.score`.
        segments: H×W whole numbers 0 … n-1, the player that each pixel belongs to.
        baseline: the pixel values of missing segments: a number, C×1×1, or an image 1×C×H×W (see
            `vislib.transforms.baseline_image`).

    Returns:
        A game of n players.

    Raises:
        ValueError: `x` has more than one image, or the segments have another size or gaps in their
            numbers. The game itself raises it if the class does not exist.
    """
    image = check_images(x).detach()
    if len(image) != 1:
        raise ValueError(f"x must be one image, got {len(image)}")
    segments = _check_segments(segments, image).to(image.device)
    target = constant_target(model, image, target)
    baseline = torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(image)
    batch = max(1, _FLOATS // (_CHANNELS * image[0, 0].numel()))

    def value(members: Tensor) -> Tensor:
        results = []
        with frozen(model), torch.no_grad():
            for part in members.to(image.device).split(batch):
                # Whether each pixel is present, for m coalitions: m×1×H×W.
                present = part[:, segments][:, None]
                results.append(score(model(torch.where(present, image, baseline)), target))
        return torch.cat(results)

    return value


def _check_segments(segments: Tensor, x: Tensor) -> Tensor:
    """Return the segments if each pixel has one of the numbers 0 … n-1; else ``ValueError``."""
    if segments.shape != x.shape[-2:]:
        raise ValueError(
            f"segments must be {x.shape[-2]}×{x.shape[-1]} like the image, got shape "
            f"{tuple(segments.shape)}"
        )
    if segments.is_floating_point() or segments.dtype == torch.bool:
        raise ValueError(f"segments must be whole numbers, got {segments.dtype}")
    numbers = segments.unique()
    if not torch.equal(numbers.cpu().long(), torch.arange(len(numbers))):
        raise ValueError("segments must be numbered 0, 1, 2, … without a gap")
    return segments.long()


def shapley(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    segments: int | Tensor = 50,
    samples: int = 20,
    baseline: float | Tensor = 0.5,
    seed: int = 0,
) -> Tensor:
    """Shapley values of an image's segments for the class score, N×1×H×W, signed.

    Each pixel has the value φ of its segment. The values of the segments sum to
    ``y_c(x) - y_c(baseline)``. They are estimated from random orders in antithetic pairs
    (`permutations`).

    >>> model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> x, halves = torch.rand(1, 3, 8, 8), torch.arange(8).repeat(8, 1) // 4
    >>> phi = shapley(model, x, 3, segments=halves, samples=2)
    >>> y = model(torch.cat([x, torch.full_like(x, 0.5)]))[:, 3]
    >>> torch.allclose(phi[..., 0, 0] + phi[..., 0, 7], y[0] - y[1], atol=1e-6)
    True

    Args:
        model: N×C×H×W images to N×K logits. It is left as it was.
        x: the images, N×C×H×W in [0, 1].
        target: a class index, N of them, or another target of `vislib.core.score`.
        segments: the number of `superpixels` of each image, or the segments themselves, H×W or
            N×H×W whole numbers (0 … n-1 in each image).
        samples: the number of orders, even. An image needs about samples × (segments - 1) forward
            passes.
        baseline: the pixel values of missing segments: a number, C×1×1, or N×C×H×W.
        seed: of the random orders.

    Returns:
        The attribution map, in the unit of the logits.

    Raises:
        ValueError: the images, the target, the segments or the number of samples are not valid.

    Štrumbelj & Kononenko 2010, "An Efficient Explanation of Individual Classifications using Game
    Theory"; Lundberg & Lee 2017, "A Unified Approach to Interpreting Model Predictions".
    """
    # One forward pass refuses a wrong target before the long run, and fixes the target's weights.
    with frozen(model), torch.no_grad():
        weights = target_weights(model(check_images(x).clone()), target)
    baselines = torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(x)
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
    """The segments of each image, H×W."""
    if not isinstance(segments, Tensor):
        return [superpixels(image, segments) for image in x]
    if segments.ndim == 2:
        return [segments] * len(x)
    if len(segments) != len(x):
        raise ValueError(
            f"segments of {len(x)} images must be H×W, the same for all, or N×H×W, got shape "
            f"{tuple(segments.shape)}"
        )
    return list(segments)
