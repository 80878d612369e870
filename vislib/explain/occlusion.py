"""Occlusion: cover a part of the image and measure how the logits change.

A square slides over the image, and the network runs with the square at each position. Zeiler &
Fergus 2014 show three maps from one such run (`slide`): the probability of the true class, the most
likely class, and the total activation of one feature map. `occlusion` returns an attribution map.
The value of a pixel p is the mean decrease of the class score over the squares Q that cover it:

    R_p = mean over squares Q with p in Q of  y_c(x) - y_c(x with Q replaced by the baseline)

Occlusion and gradient measure different things. The gradient is the change of the score under an
infinitely small change of a pixel. Occlusion is the change of the score under a large change of
many pixels. A covered image may be unlike all training images, so the result depends on the size of
the square and on the baseline.

References:
    Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vislib.core import (
    Layer,
    Target,
    Weighted,
    check_images,
    check_logits,
    frozen,
    record,
    score,
    split_target,
    target_weights,
)
from vislib.explain._crops import PartialForward
from vislib.transforms import as_baseline

# The largest feature map of a batch may have this many numbers (64 MB). A few such maps exist at
# the same time.
_FLOATS = 2**24


@dataclass(frozen=True)
class Slide:
    """Result of `slide`: outputs of a network for N images, each with a square at r×c positions.

    Attributes:
        logits: logits with the square at each position, N×r×c×K.
        clean: logits without a square, N×K.
        totals: total activation of each feature map of the chosen layer, which is the sum over its
            positions, N×r×c×C; None if no layer was chosen.
        rows: first row of the square at each of the r positions, in pixels.
        columns: first column of the square at each of the c positions, in pixels.
        size: side of the square, in pixels.
    """

    logits: Tensor
    clean: Tensor
    totals: Tensor | None
    rows: list[int]
    columns: list[int]
    size: int


def slide(
    model: nn.Module,
    x: Tensor,
    *,
    size: int = 32,
    stride: int = 8,
    baseline: str | float | Tensor = 0.5,
    layer: Layer | None = None,
    target: Target | None = None,
    progress: bool = False,
) -> Slide:
    """Run the network on images with a covered square, for each position of the square.

    Zeiler & Fergus 2014. Only the part of each feature map that the square can change is computed
    again (`vislib.explain._crops`). The squares of the last row and column reach the border and may
    be cut off there.

    Args:
        model, x: as in `vislib.explain.gradients`.
        size: side of the square in pixels, 1 to the shorter side of the image.
        stride: distance between neighbouring positions in pixels, at least 1.
        baseline: pixel values inside the square: a number, C×1×1, N×C×H×W, or a kind of
            `vislib.transforms.baseline_image`.
        layer: module of the model or its dotted name, whose feature maps are summed into
            `Slide.totals`.
        target: target that will be read from the logits, if known. A class that does not exist then
            raises after the first forward pass and not after the long run.
        progress: whether to show a progress bar.

    Returns:
        The outputs for each position of the square.

    Raises:
        ValueError: the square is larger than the image, `stride` is less than 1, `x` is not a batch
            of finite images, or the layer or the target class does not exist.

    >>> model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> slide(model, torch.rand(2, 3, 32, 32), size=8, stride=8).logits.shape
    torch.Size([2, 4, 4, 5])
    """
    from tqdm.auto import tqdm

    _check_square(check_images(x).shape[-2:], size, stride)
    rows, columns = (_positions(length, size, stride) for length in x.shape[-2:])
    squares = [(row, column) for row in rows for column in columns]
    baselines = as_baseline(baseline, x)
    layers = [] if layer is None else [layer]
    logits, clean, totals = [], [], []
    bar = tqdm(total=len(x) * len(squares), unit="square", desc="occlusion", disable=not progress)
    with bar, frozen(model), torch.no_grad(), record(model, layers) as outputs:
        for image, image_baseline in zip(x[:, None], baselines[:, None], strict=True):
            forward = PartialForward()
            with forward:
                clean.append(check_logits(forward.keep(model, image)))
            if target is not None:
                # Only the first logits give the number of classes. A class that does not exist
                # raises here.
                target_weights(clean[-1].expand(len(x), -1), target)
            for crops, tops, lefts in _batches(image, image_baseline, squares, size, forward):
                with forward:
                    logits.append(model(forward.start(crops, tops, lefts)))
                totals += [forward.full(maps).flatten(2).sum(2) for maps in outputs.values()]
                bar.update(len(crops))
    shape = (len(x), len(rows), len(columns), -1)
    return Slide(
        logits=torch.cat(logits).view(shape),
        clean=torch.cat(clean),
        totals=torch.cat(totals).view(shape) if totals else None,
        rows=rows,
        columns=columns,
        size=size,
    )


def _check_square(shape: Sequence[int], size: int, stride: int) -> None:
    """Check that the square fits into the image and that its stride is at least 1."""
    if not 1 <= size <= min(shape):
        raise ValueError(
            f"size must be between 1 and {min(shape)}, the shorter side of the images, got {size}"
        )
    if stride < 1:
        raise ValueError(f"stride must be at least 1 pixel, got {stride}")


def _positions(length: int, size: int, stride: int) -> list[int]:
    """First pixel of each square along one side; the last square reaches the border."""
    steps = -(-(length - size) // stride)
    return [stride * step for step in range(steps + 1) if stride * step < length]


def _batches(
    image: Tensor,
    baseline: Tensor,
    squares: Sequence[tuple[int, int]],
    size: int,
    forward: PartialForward,
) -> Iterator[tuple[Tensor, list[int], list[int]]]:
    """Yield crops by `_cover`, for as many squares at a time as the memory allows."""
    done = 0
    while done < len(squares):
        # The first four squares show how much memory a square needs.
        count = min(128, max(1, _FLOATS // forward.largest)) if done else 4
        yield _cover(image, baseline, squares[done : done + count], size)
        done += count


def _cover(
    image: Tensor, baseline: Tensor, squares: Sequence[tuple[int, int]], size: int
) -> tuple[Tensor, list[int], list[int]]:
    """Crops of the image that contain the covered square, and the first row and column of each.

    A square that exceeds the border is cut off there. Its crop is moved into the image, so that all
    crops have the same size.
    """
    height, width = image.shape[-2:]
    tops = [min(row, height - size) for row, _ in squares]
    lefts = [min(column, width - size) for _, column in squares]
    crops = []
    for (row, column), top, left in zip(squares, tops, lefts, strict=True):
        crop = image[..., top : top + size, left : left + size].clone()
        covered = baseline[..., row : top + size, column : left + size]
        crop[..., row - top :, column - left :] = covered
        crops.append(crop)
    return torch.cat(crops), tops, lefts


def occlusion(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    size: int = 32,
    stride: int = 8,
    baseline: str | float | Tensor = 0.5,
) -> Tensor:
    """Mean decrease of the class score over the squares that cover each pixel: N×1×H×W, signed.

    The decrease ``y_c(x) - y_c(x with a square)`` is positive if covering the square lowers the
    score. It has the unit of the logits. The map is 0 at pixels that no square covers.

    Args:
        model, x, target: as in `vislib.explain.gradients`.
        size, stride, baseline: as in `slide`.

    Raises:
        ValueError: as in `slide`.

    >>> model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> x = torch.rand(2, 3, 32, 32)
    >>> occlusion(model, x, target=3, size=8).shape
    torch.Size([2, 1, 32, 32])
    >>> float(occlusion(model, x, target=3, size=8, baseline=x).abs().max()) < 1e-5
    True
    """
    # A target for another number of images raises here, before the first forward pass.
    split_target(target, len(check_images(x)))
    result = slide(model, x, size=size, stride=stride, baseline=baseline, target=target)
    n, r, c, classes = result.logits.shape
    weights = target_weights(result.clean, target)
    of_each_square = Weighted(weights.repeat_interleave(r * c, dim=0))
    covered = score(result.logits.reshape(-1, classes), of_each_square).view(n, 1, r, c)
    decrease = score(result.clean, Weighted(weights)).view(n, 1, 1, 1) - covered
    return mean_over_squares(decrease, result, x.shape[-2:])


def mean_over_squares(values: Tensor, squares: Slide, shape: Sequence[int]) -> Tensor:
    """Mean of a value over the squares that cover each pixel: N×1×H×W, 0 where there is none.

    Args:
        values: one value for each position of the square, N×1×r×c.
        squares: result of `slide`, which has the positions and the size of the squares.
        shape: (H, W), height and width of the image in pixels.

    >>> positions = Slide(torch.empty(0), torch.empty(0), None, rows=[0], columns=[0, 1], size=2)
    >>> mean_over_squares(torch.tensor([[[[2.0, 4.0]]]]), positions, (2, 4))[0, 0, 0]
    tensor([2., 3., 4., 0.])
    """
    total = values.new_zeros(len(values), 1, *shape)
    count = torch.zeros_like(total[:1])
    for i, row in enumerate(squares.rows):
        for j, column in enumerate(squares.columns):
            square = (..., slice(row, row + squares.size), slice(column, column + squares.size))
            total[square] += values[..., i : i + 1, j : j + 1]
            count[square] += 1
    return total / count.clamp(min=1)
