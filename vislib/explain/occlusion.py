"""Occlusion: cover a part of the image, and see what the net says then.

A square slides over the image; at each place the net answers anew. Zeiler & Fergus 2013 draw three
maps from one such run (`slide`): the probability of the true class, the most likely class, and the
total activation of one feature map. `occlusion` is the form in which the result can stand beside a
gradient: for each pixel, the mean loss of class score over the squares that cover it.

What is asked here is not what the gradient answers. The gradient says how the score would react to
an infinitely small change, occlusion what a large one does; and the square itself is something that
the net may never have seen. Its size and its filling are part of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vislib.core import (
    Layer,
    Target,
    check_images,
    check_logits,
    check_target,
    frozen,
    record,
    score,
)
from vislib.explain._crops import Regions

_FLOATS = 2**24  # in the largest map of a batch: 64 MB, of which a few are alive at a time


@dataclass(frozen=True)
class Slide:
    """What the net answered while a square slid over N images, at r×c places each.

    Attributes:
        logits: N×r×c×K, with the square at each place.
        clean: N×K, without it.
        totals: N×r×c×C, the sum over places of each map of the chosen layer (None without one).
        rows: the first row of the square at each of the r places; `columns` likewise.
        size: the side of the square, in pixels.
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
    baseline: float | Tensor = 0.5,
    layer: Layer | None = None,
    target: Target | None = None,
    progress: bool = False,
) -> Slide:
    """Cover a square of ``size`` pixels, in steps of `stride`, and run the net at each place.

    Only what a square can reach is computed anew (`vislib.explain._crops`). The last row and column of
    squares end at the border and may be narrower in effect.

    Args:
        model: N×C×H×W → N×K logits.
        x: the images, N×C×H×W.
        size: side of the square, at most that of the image.
        stride: pixels from one place to the next.
        baseline: what stands in the square: a number, one value for each channel (C×1×1), or whole
            images (N×C×H×W, see `filling`).
        layer: a layer whose maps are added up as well.
        target: the classes to be looked at, if known: one that does not exist is said after the
            first pass, not after the long run.
        progress: show a progress bar.

    Raises:
        ValueError: for a square that is larger than the image, steps of less than a pixel, or a
            class that does not exist.

    Zeiler & Fergus 2013, "Visualizing and Understanding Convolutional Networks".
    """
    from tqdm.auto import tqdm

    check_images(x)
    if not 1 <= size <= min(x.shape[-2:]):
        raise ValueError(f"a square of {size} pixels does not fit into {tuple(x.shape[-2:])}")
    if stride < 1:
        raise ValueError(f"the square must move by at least 1 pixel, not by {stride}")
    rows, columns = (_starts(length, size, stride) for length in x.shape[-2:])
    places = [(row, column) for row in rows for column in columns]
    baselines = torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(x)
    layers = [] if layer is None else [layer]
    logits, clean, totals = [], [], []
    bar = tqdm(total=len(x) * len(places), unit="square", desc="occlusion", disable=not progress)
    with bar, frozen(model), torch.no_grad(), record(model, layers) as outputs:
        for image, image_fill in zip(x[:, None], baselines[:, None], strict=True):
            regions = Regions()
            with regions:
                clean.append(check_logits(regions.keep(model, image)))
            if target is not None:
                score(clean[-1].expand(len(x), -1), target)
            done = 0
            while done < len(places):
                # the first few squares show how much memory one of them takes
                batch = min(128, max(1, _FLOATS // regions.largest)) if done else 4
                chosen = places[done : done + batch]
                crops = _cover(image, image_fill, chosen, size)
                with regions:
                    logits.append(model(regions.start(*crops)))
                totals += [regions.full(maps).flatten(2).sum(2) for maps in outputs.values()]
                done += len(chosen)
                bar.update(len(chosen))
    shape = (len(x), len(rows), len(columns), -1)
    return Slide(
        torch.cat(logits).view(shape),
        torch.cat(clean),
        torch.cat(totals).view(shape) if totals else None,
        rows,
        columns,
        size,
    )


def _starts(length: int, size: int, stride: int) -> list[int]:
    """The first pixel of each square: the last one reaches the border."""
    steps = -(-(length - size) // stride)
    return [stride * step for step in range(steps + 1) if stride * step < length]


def _cover(
    image: Tensor, baseline: Tensor, places: Sequence[tuple[int, int]], size: int
) -> tuple[Tensor, list[int], list[int]]:
    """Crops of the image with the square in them, and where they begin.

    A square over the border is cut there; its crop is moved inside, so that all have one size.
    """
    height, width = image.shape[-2:]
    tops = [min(row, height - size) for row, _ in places]
    lefts = [min(column, width - size) for _, column in places]
    crops = []
    for (row, column), top, left in zip(places, tops, lefts, strict=True):
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
    baseline: float | Tensor = 0.5,
) -> Tensor:
    """Mean loss of class score ``y_c(x) − y_c(x with a square)`` over the squares that cover each
    pixel: N×1×H×W, signed. Positive where covering hurts the class.

    See `slide` for the arguments.
    """
    chosen = check_target(target, len(check_images(x)))
    found = slide(model, x, size=size, stride=stride, baseline=baseline, target=chosen)
    n, r, c, classes = found.logits.shape
    each = chosen.repeat_interleave(r * c)
    covered = score(found.logits.reshape(-1, classes), each).view(n, 1, r, c)
    return spread(score(found.clean, target).view(n, 1, 1, 1) - covered, found, x.shape[-2:])


def spread(values: Tensor, found: Slide, shape: Sequence[int]) -> Tensor:
    """One value for each place of the square, N×1×r×c, as the mean over the squares that cover each
    pixel, N×1×H×W (0 where none does)."""
    total = values.new_zeros(len(values), 1, *shape)
    count = torch.zeros_like(total[:1])
    for i, row in enumerate(found.rows):
        for j, column in enumerate(found.columns):
            square = (..., slice(row, row + found.size), slice(column, column + found.size))
            total[square] += values[..., i : i + 1, j : j + 1]
            count[square] += 1
    return total / count.clamp(min=1)
