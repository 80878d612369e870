"""Shapley values: what each player brings to a team, on average over all orders of arrival.

A game is a function v of coalitions (teams) of n players. Its Shapley values are

    φ_i = Σ_{S without i}  |S|! (n - |S| - 1)! / n!  ·  (v(S ∪ i) - v(S))

where the factor is the share of all n! orders in which exactly the players of S come before i. No
other way of dividing has these four properties (Shapley 1953, "A Value for n-Person Games"):

    efficiency    Σ_i φ_i = v(all) - v(none)
    symmetry      players that add the same to every coalition get the same
    dummy         a player that never adds anything gets 0
    additivity    φ(v + w) = φ(v) + φ(w)

Here a game is any function from a batch of coalitions, M×n bool, to M values (`Game`):

* `exact`, `permutations` and `kernel` give its Shapley values: by enumeration of all 2ⁿ coalitions,
  by random orders, and as the solution of a weighted regression (Kernel SHAP).
* `conditional`, `marginal` and `mean_input` make a game of a table model: the players are the
  features of one row, and a model cannot be asked without a feature. Each says what to put there.
* `image_game` makes one of a net: the players are parts of the picture, such as `superpixels`.
* `shapley` puts the last two together, with the signature of the course's other methods.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vislib.core import Target, check_images, frozen, score

Game = Callable[[Tensor], Tensor]  # M×n bool, True for a player who is there -> M values
Predict = Callable[[Tensor], Tensor]  # M×d rows -> M predictions

_ROWS = 2**15  # of a table, predicted at a time
_FLOATS = 2**22  # in a net's first maps at a time,
_MAPS = 64  # of which we expect so many, of the image's size, as in VGG


class Estimate(NamedTuple):
    """Shapley values from samples.

    `values` and their `standard_errors` (NaN from a single sample), n each, and the number of
    different coalitions that the game was asked for.
    """

    values: Tensor
    standard_errors: Tensor
    evaluations: int


# ------------------------------------------------------------ the values of any game


def coalitions(n: int) -> Tensor:
    """All 2ⁿ coalitions of n players, 2ⁿ×n bool. Row r holds player i where bit i of r is set.

    ``ValueError`` for more than 20 players: a million coalitions is where enumeration ends.
    """
    if not 1 <= n <= 20:
        raise ValueError(
            f"all coalitions of {n} players cannot be listed: 1 to 20 can, above use permutations()"
        )
    return (torch.arange(2**n)[:, None] >> torch.arange(n)) % 2 == 1


def weights(n: int) -> Tensor:
    """The share of the n! orders in which a given coalition comes before a given player.

    n numbers, for coalitions of size 0 … n - 1: ``s! (n - s - 1)! / n! = 1 / (n · C(n - 1, s))``.
    For three players 1/3, 1/6 (for each of two coalitions), 1/3.
    """
    return torch.tensor([1 / (n * comb(n - 1, s)) for s in range(n)], dtype=torch.float64)


def exact(value: Game, n: int) -> Tensor:
    """Shapley values by their definition, n float64 numbers, from all 2ⁿ coalitions."""
    teams = coalitions(n)
    v, share = _ask(value, teams), weights(n)
    phi = torch.empty(n, dtype=torch.float64)
    for i in range(n):
        (without,) = (~teams[:, i]).nonzero(as_tuple=True)
        phi[i] = (share[teams[without].sum(1)] * (v[without + 2**i] - v[without])).sum()
    return phi


def permutations(
    value: Game, n: int, samples: int, *, antithetic: bool = False, seed: int = 0
) -> Estimate:
    """The mean of what each player adds, over random orders of arrival; unbiased for any number.

    Each order's contributions add up to ``v(all) - v(none)``, so efficiency holds exactly. The
    standard error falls like 1/√samples.

    Args:
        value: the game.
        n: players.
        samples: orders. Each asks for n - 1 coalitions; the same one is never asked for twice.
        antithetic: after each order take its reverse. What a player adds early and late often
            errs in opposite directions, so that a pair is worth more than two orders.
        seed: of the orders.

    Raises:
        ValueError: for less than one sample, or an odd number of antithetic ones.

    Castro, Gómez & Tejada 2009, "Polynomial Calculation of the Shapley Value Based on Sampling";
    Mitchell et al. 2022, "Sampling Permutations for Shapley Value Estimation" (the reverse orders).
    """
    if samples < 1 or (antithetic and samples % 2):
        raise ValueError(f"take at least one order, and whole pairs if antithetic: not {samples}")
    generator = torch.Generator().manual_seed(seed)
    orders = torch.rand(samples // (1 + antithetic), n, generator=generator).argsort(dim=1)
    if antithetic:
        orders = torch.stack([orders, orders.flip(1)], dim=1).flatten(0, 1)
    place = orders.argsort(dim=1)  # when each player arrives
    teams = place[:, None, :] < torch.arange(n + 1)[:, None]  # samples × (n + 1) × n
    v, evaluations = _ask_once(value, teams.flatten(0, 1))
    added = v.view(samples, n + 1).diff(dim=1).gather(1, place)
    drawn = added.view(-1, 1 + antithetic, n).mean(dim=1)  # the independent draws
    error = drawn.std(dim=0) / len(drawn) ** 0.5 if len(drawn) > 1 else drawn[0] * torch.nan
    return Estimate(drawn.mean(dim=0), error, evaluations)


def kernel_weights(n: int) -> Tensor:
    """Weight of one coalition in the regression, for sizes 1 … n - 1: ``(n-1) / (C(n,s) s (n-s))``.

    Sizes 0 and n would have infinite weight: they are the constraints.
    """
    sizes = range(1, n)
    return torch.tensor([(n - 1) / (comb(n, s) * s * (n - s)) for s in sizes], dtype=torch.float64)


def kernel(
    value: Game, n: int, samples: int | None = None, *, paired: bool = True, seed: int = 0
) -> Tensor:
    """Kernel SHAP: the additive game that is nearest to `value`, n float64 numbers.

        min_φ  Σ_S π(|S|) (v(S) - v(none) - Σ_{i in S} φ_i)²    with  Σ_i φ_i = v(all) - v(none)

    With all coalitions and π from `kernel_weights` the solution is the Shapley values themselves.

    Args:
        value: the game.
        n: players.
        samples: coalitions to draw, with probability proportional to π; all 2ⁿ - 2, each with its
            weight, if None.
        paired: draw each coalition together with its complement (much less noise).
        seed: of the draw.

    Raises:
        ValueError: where the drawn coalitions do not determine all values: draw more.

    Lundberg & Lee 2017, "A Unified Approach to Interpreting Model Predictions"; in this form, and
    the pairs: Covert & Lee 2021, "Improving KernelSHAP: Practical Shapley Value Estimation Using
    Linear Regression".
    """
    none, everyone = _ask(value, torch.tensor([[False] * n, [True] * n]))
    if n == 1:
        return (everyone - none)[None]
    if samples is None:
        teams = coalitions(n)[1:-1]
        pi = kernel_weights(n)[teams.sum(1) - 1]
        v = _ask(value, teams)
    else:
        teams = _draw(n, samples, paired, seed)
        pi = torch.ones(len(teams), dtype=torch.float64)  # the draw itself has the weights
        v, _ = _ask_once(value, teams)
    z = teams.double()
    left = torch.ones(n + 1, n + 1, dtype=torch.float64)  # Lagrange: the last row is the constraint
    left[:n, :n], left[n, n] = z.T @ (pi[:, None] * z), 0
    right = torch.cat([z.T @ (pi * (v - none)), (everyone - none)[None]])
    if torch.linalg.matrix_rank(left) <= n:
        raise ValueError(
            f"{samples} coalitions do not determine the values of {n} players: draw more"
        )
    return torch.linalg.solve(left, right)[:n]


def _draw(n: int, samples: int, paired: bool, seed: int) -> Tensor:
    """Coalitions with probability proportional to their kernel weight, about `samples`×n."""
    if samples < 1 or (paired and samples % 2):
        raise ValueError(f"draw at least one coalition, and whole pairs if paired: not {samples}")
    generator = torch.Generator().manual_seed(seed)
    count = samples // (1 + paired)
    by_size = kernel_weights(n) * torch.tensor([comb(n, s) for s in range(1, n)])
    sizes = 1 + torch.multinomial(by_size, count, replacement=True, generator=generator)
    place = torch.rand(count, n, generator=generator).argsort(dim=1).argsort(dim=1)
    teams = place < sizes[:, None]
    return torch.cat([teams, ~teams]) if paired else teams


def _ask(value: Game, teams: Tensor) -> Tensor:
    """The game's values as float64 on the CPU; ``ValueError`` unless there are M finite ones."""
    v = torch.as_tensor(value(teams)).detach().to("cpu", torch.float64)
    if v.shape != (len(teams),):
        raise ValueError(
            f"the game should give {len(teams)} values, one for each coalition, "
            f"not shape {tuple(v.shape)}"
        )
    if not v.isfinite().all():
        raise ValueError("the game gives NaN or infinite values: they cannot be divided")
    return v


def _ask_once(value: Game, teams: Tensor) -> tuple[Tensor, int]:
    """As `_ask`, but each different coalition is asked for once; and how many there are."""
    different, which = torch.unique(teams, dim=0, return_inverse=True)
    return _ask(value, different)[which], len(different)


# ------------------------------------------------------------ games on a table


def mean_input(predict: Predict, x: Tensor, background: Tensor) -> Game:
    """``v(S) = f(x_S, mean of the rest)``: what is missing has its mean. One prediction each.

    Equal to `marginal` where the model is linear in the features.
    """
    mean = _check_table(x, background).mean(dim=0)
    return lambda teams: predict(torch.where(teams.to(x.device), x, mean))


def marginal(predict: Predict, x: Tensor, background: Tensor) -> Game:
    """``v(S) = mean of f(x_S, b_rest)`` over the rows b of the background, B×d.

    What is missing is drawn from the data, but *without regard to what is there*. This is right
    where features are independent. ("Interventional" or "baseline" SHAP in other texts.)
    """
    return conditional(predict, x, background, width=torch.inf)


def conditional(predict: Predict, x: Tensor, background: Tensor, *, width: float = 0.3) -> Game:
    """``v(S) = E[f(x_S, X_rest) | X_S = x_S]``, from the rows of the background that are like x.

        v(S) ≈ Σ_b w_b f(x_S, b_rest),   w_b ∝ exp(-D²/(2 width²)),
        D² = mean over i in S of ((x_i - b_i) / σ_i)²

    with σ the standard deviation of each feature over the background. For a large `width` all rows
    weigh the same: `marginal`. For a small one, few rows are left and the estimate is noisy.

    Args:
        predict: M×d rows to M predictions.
        x: the row to explain, d.
        background: B×d.
        width: of the kernel, in standard deviations; above 0.

    Aas, Jullum & Løland 2021, "Explaining Individual Predictions when Features Are Dependent: More
    Accurate Approximations to Shapley Values" (there with the Mahalanobis distance).
    """
    _check_table(x, background)
    if not width > 0:
        raise ValueError(f"the kernel's width must be above 0, not {width}")
    deviation = background.std(dim=0, correction=0)
    apart = ((x - background) / deviation.where(deviation > 0, 1.0)) ** 2  # B×d

    def value(teams: Tensor) -> Tensor:
        results = []
        for part in teams.to(x.device).split(max(1, _ROWS // len(background))):
            rows = torch.where(part[:, None], x, background)  # m×B×d
            sizes = part.sum(dim=1, keepdim=True).clamp(min=1)
            distance = part.to(apart.dtype) @ apart.T / sizes
            weight = (-distance / (2 * width**2)).softmax(dim=1)
            results.append((weight * predict(rows.flatten(0, 1)).view(len(part), -1)).sum(dim=1))
        return torch.cat(results)

    return value


def _check_table(x: Tensor, background: Tensor) -> Tensor:
    """Return the background where it has rows like x; else ``ValueError``."""
    if x.ndim != 1 or background.shape != (len(background), len(x)) or not len(background):
        raise ValueError(
            "x must be one row of d features and background B×d with at least one row, got shapes "
            f"{tuple(x.shape)} and {tuple(background.shape)}"
        )
    return background


# ------------------------------------------------------------ games on an image


def superpixels(image: Tensor, count: int = 50, *, compactness: float = 10.0) -> Tensor:
    """About `count` parts of an image, 3×H×W in [0, 1], that follow its edges: H×W numbers 0 … K-1.

    A small `compactness` lets colour decide, a large one gives squares. On the CPU. Achanta et al.
    2012, "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods".
    """
    from skimage.segmentation import slic

    if count < 1:
        raise ValueError(f"an image has at least one part, not {count}")
    pixels = image.detach().to("cpu", torch.float64).movedim(0, -1).numpy()
    found = slic(pixels, n_segments=count, compactness=compactness, start_label=0, channel_axis=-1)
    _, numbers = torch.unique(torch.from_numpy(found), return_inverse=True)
    return numbers


def image_game(
    model: nn.Module, x: Tensor, target: int, segments: Tensor, *, baseline: float | Tensor = 0.5
) -> Game:
    """``v(S)`` = class score of the image in which all parts outside S are replaced by `baseline`.

    Args:
        model: N×C×H×W → N×K logits. It is left as it was; it runs on a few images at a time.
        x: one image, 1×C×H×W.
        target: the class.
        segments: H×W whole numbers 0 … n-1, the player that each pixel belongs to.
        baseline: a number, C×1×1, or an image 1×C×H×W (`transforms.baseline_image`).

    Raises:
        ValueError: for more than one image, or segments of another size or with gaps.
    """
    image = check_images(x).detach()
    if len(image) != 1:
        raise ValueError(f"a game is about one image, got {len(image)}")
    players = _check_segments(segments, image).to(image.device)
    blank = torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(image)
    batch = max(1, _FLOATS // (_MAPS * image[0, 0].numel()))

    def value(teams: Tensor) -> Tensor:
        results = []
        with frozen(model), torch.no_grad():
            for part in teams.to(image.device).split(batch):
                there = part[:, players][:, None]  # m×1×H×W
                results.append(score(model(torch.where(there, image, blank)), target))
        return torch.cat(results)

    return value


def _check_segments(segments: Tensor, x: Tensor) -> Tensor:
    """Return the segments where each pixel has one of the numbers 0 … n-1; else ``ValueError``."""
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
    """Shapley values of an image's parts for the class score, N×1×H×W, signed.

    Each pixel has the value φ of the part that it belongs to. Once for each part, they add up to
    ``y_c(x) - y_c(baseline)``. From random orders in antithetic pairs (`permutations`).

    Args:
        model: N×C×H×W → N×K logits.
        x: the images, N×C×H×W in [0, 1].
        target: one class or N.
        segments: how many `superpixels` an image should have, or the parts themselves, H×W or
            N×H×W whole numbers (for each image 0 … n-1).
        samples: orders, an even number. An image takes about samples × (parts - 1) forward passes.
        baseline: what stands in the missing parts, as in `occlusion.occlusion`: a number, C×1×1, or
            N×C×H×W.
        seed: of the orders.

    Raises:
        ValueError: for arguments outside these ranges.

    Štrumbelj & Kononenko 2010, "An Efficient Explanation of Individual Classifications using Game
    Theory"; Lundberg & Lee 2017, "A Unified Approach to Interpreting Model Predictions".
    """
    with frozen(model), torch.no_grad():
        score(model(check_images(x).clone()), target)  # says what is wrong with the target
    classes = torch.as_tensor(target).expand(len(x))
    baselines = torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(x)
    maps = []
    for image, blank, c, parts in zip(
        x[:, None], baselines[:, None], classes.tolist(), _parts(segments, x), strict=True
    ):
        game = image_game(model, image, c, parts, baseline=blank)
        found = permutations(game, int(parts.max()) + 1, samples, antithetic=True, seed=seed)
        maps.append(found.values.to(x)[parts.to(x.device).long()])
    return torch.stack(maps)[:, None]


def _parts(segments: int | Tensor, x: Tensor) -> list[Tensor]:
    """The segments of each image."""
    if not isinstance(segments, Tensor):
        return [superpixels(image, segments) for image in x]
    if segments.ndim == 2:
        return [segments] * len(x)
    if len(segments) != len(x):
        raise ValueError(
            f"{len(x)} images need segments of H×W, the same for all, or N×H×W, got shape "
            f"{tuple(segments.shape)}"
        )
    return list(segments)
