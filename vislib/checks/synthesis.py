"""Checks for the exercises of notebook 16, activation maximisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vislib.checks import Exercise, right, same

# --- The loop of gradient ascent ------------------------------------------------------------------


def _climb(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    steps: int,
    lr: float,
    momentum: float,
    *,
    factor: float = 1,
    clip: bool = True,
) -> Tensor:
    """Gradient ascent with momentum; the options reproduce mistakes of learners."""
    v = torch.zeros_like(x)
    for _ in range(steps):
        x = x.detach().requires_grad_()
        v = momentum * v + factor * torch.autograd.grad(score(x), x)[0]
        x = x + lr * v
        x = x.clamp(0, 1) if clip else x
    return x.detach()


def _image_to_climb() -> list[tuple[Any, ...]]:
    """One trial, in which a pixel that has left the range has enough steps to return."""
    generator = torch.Generator().manual_seed(int(np.random.default_rng().integers(2**31)))
    w = torch.randn(1, 3, 5, 4, generator=generator)
    # Pixels as large as these leave the range, and the curvature changes the gradient in each step.
    x = torch.rand(1, 3, 5, 4, generator=generator)
    # The rate and the momentum are not those of the text, so that a learner has to use them.
    return [(lambda image: (w * image).sum() - 2 * image.square().sum(), x, 12, 0.06, 0.85)]


climb = Exercise(
    task=(
        "``climb(score, x, steps, lr, momentum)``: the image after steps of gradient ascent with "
        "momentum, clipped to [0, 1] after each step; `score` maps an image to a number."
    ),
    inputs=_image_to_climb,
    solution=_climb,
    what=lambda score, x, steps, lr, momentum: f"the image after {steps} steps",
    mistakes={
        "The score falls, because this is descent: add the gradient": (
            lambda *inputs: _climb(*inputs, factor=-1)
        ),
        "Each step uses the gradient alone: v = momentum · v + gradient": (
            lambda score, x, steps, lr, momentum: _climb(score, x, steps, lr, 0)
        ),
        "The old v keeps its full size: multiply it by momentum": (
            lambda score, x, steps, lr, momentum: _climb(score, x, steps, lr, 1)
        ),
        "Add the whole new gradient to v, without the factor 1 − momentum": (
            lambda score, x, steps, lr, momentum: _climb(
                score, x, steps, lr, momentum, factor=1 - momentum
            )
        ),
        "Use the argument momentum, not always 0.9": (
            lambda score, x, steps, lr, momentum: _climb(score, x, steps, lr, 0.9)
        ),
        "Use the argument lr, not always 0.05": (
            lambda score, x, steps, lr, momentum: _climb(score, x, steps, 0.05, momentum)
        ),
        "Use the arguments lr and momentum, not the numbers of the text": (
            lambda score, x, steps, lr, momentum: _climb(score, x, steps, 0.05, 0.9)
        ),
        "Pixels leave [0, 1]: clip after each step": lambda *inputs: _climb(*inputs, clip=False),
        "Clip after each step, not only at the end": (
            lambda *inputs: _climb(*inputs, clip=False).clamp(0, 1)
        ),
        "That is one step too few": (
            lambda score, x, steps, lr, momentum: _climb(score, x, steps - 1, lr, momentum)
        ),
        "That is one step too many": (
            lambda score, x, steps, lr, momentum: _climb(score, x, steps + 1, lr, momentum)
        ),
    },
    praise="It climbs, with momentum, and stays in the range of pixels.",
    tolerance=1e-4,
)


# --- Total variation ------------------------------------------------------------------------------

total_variation = Exercise(
    task="``total_variation(x)``: the sum of absolute differences of neighbours in C×H×W.",
    inputs=lambda: [(torch.from_numpy(np.random.default_rng().random((3, 6, 9))),)],
    solution=lambda x: x.diff(dim=1).abs().sum() + x.diff(dim=2).abs().sum(),
    what="the total variation",
    mistakes={
        "You compare only with the neighbours below: those to the right count too": (
            lambda x: x.diff(dim=1).abs().sum()
        ),
        "You compare only with the neighbours to the right: those below count too": (
            lambda x: x.diff(dim=2).abs().sum()
        ),
        "Take absolute values, or increases and decreases cancel": (
            lambda x: x.diff(dim=1).sum() + x.diff(dim=2).sum()
        ),
        "These are squares: take absolute values": (
            lambda x: x.diff(dim=1).square().sum() + x.diff(dim=2).square().sum()
        ),
        "This is a mean: take the sum": (
            lambda x: x.diff(dim=1).abs().mean() + x.diff(dim=2).abs().mean()
        ),
        "These are differences between channels too: only rows and columns count": (
            lambda x: sum(x.diff(dim=dim).abs().sum() for dim in range(3))
        ),
        "The image does not wrap around: leave out the pair of the last and the first": (
            lambda x: (x - x.roll(1, 1)).abs().sum() + (x - x.roll(1, 2)).abs().sum()
        ),
    },
    praise="Every pair of neighbours is in it once.",
)


# --- A prior for the code of a generator ----------------------------------------------------------


def _logits(reader: nn.Module, writer: nn.Module, z: Tensor, target: int) -> Tensor:
    return reader(writer(z))[:, target]


def _log_p(reader: nn.Module, writer: nn.Module, z: Tensor, target: int, dim: int = 1) -> Tensor:
    return reader(writer(z)).log_softmax(dim)[:, target]


def _distance(z: Tensor, mean: Tensor) -> Tensor:
    """``‖z − z̄‖²`` of each code."""
    return (z - mean).square().sum(dim=1)


def _posterior(
    reader: nn.Module, writer: nn.Module, z: Tensor, target: int, weight: float, mean: Tensor
) -> Tensor:
    return _log_p(reader, writer, z, target) - weight * _distance(z, mean)


def _codes() -> list[tuple[Any, ...]]:
    seed = int(np.random.default_rng().integers(1000))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).eval()
        writer = nn.Sequential(nn.Linear(5, 12), nn.Sigmoid(), nn.Unflatten(1, (1, 3, 4))).eval()
        z, mean = 2 * torch.randn(3, 5), torch.randn(5)
    return [(reader, writer, z, 2, 0.3, mean)]


posterior = Exercise(
    task=(
        "``objective(reader, writer, z, target, weight, mean)``: ``log p(c|g(z)) − λ‖z − z̄‖²`` of "
        "each code, N×d to N numbers."
    ),
    inputs=_codes,
    solution=_posterior,
    what="log p + prior",
    mistakes={
        "Subtract the prior's term: a code far from z̄ is less likely": (
            lambda reader, writer, z, target, weight, mean: _posterior(
                reader, writer, z, target, -weight, mean
            )
        ),
        "The distance is from z̄, not from 0": (
            lambda reader, writer, z, target, weight, mean: _posterior(
                reader, writer, z, target, weight, torch.zeros_like(mean)
            )
        ),
        "Take the square of the distance, not the distance": (
            lambda reader, writer, z, target, weight, mean: (
                _log_p(reader, writer, z, target) - weight * _distance(z, mean).sqrt()
            )
        ),
        "Multiply the squared distance by the weight λ": (
            lambda reader, writer, z, target, weight, mean: _posterior(
                reader, writer, z, target, 1, mean
            )
        ),
        "Sum the squares over the code; do not average them": (
            lambda reader, writer, z, target, weight, mean: _posterior(
                reader, writer, z, target, weight / len(mean), mean
            )
        ),
        "You use the logit: use log_softmax": (
            lambda reader, writer, z, target, weight, mean: (
                _logits(reader, writer, z, target) - weight * _distance(z, mean)
            )
        ),
        "You use the probability: take its logarithm": (
            lambda reader, writer, z, target, weight, mean: (
                _log_p(reader, writer, z, target).exp() - weight * _distance(z, mean)
            )
        ),
        "The softmax should run over the classes: dim=1": (
            lambda reader, writer, z, target, weight, mean: (
                _log_p(reader, writer, z, target, dim=0) - weight * _distance(z, mean)
            )
        ),
        "This is the classifier's part alone: subtract λ‖z − z̄‖²": (
            lambda reader, writer, z, target, weight, mean: _log_p(reader, writer, z, target)
        ),
        "Return one number for each of the N codes: do not sum over the batch": (
            lambda *inputs: _posterior(*inputs).sum()
        ),
        "Return one number for each of the N codes: do not average over the batch": (
            lambda *inputs: _posterior(*inputs).mean()
        ),
    },
    praise="That is the logarithm of p(c|x) · p(x), up to a constant.",
)


# --- The agreement with another network -----------------------------------------------------------


def agreement(value: Any, logits: Tensor, targets: list[int]) -> None:
    """Check the fraction of images that another network gives to their target class.

    Args:
        value: learner's number.
        logits: logits of the other network, N×K.
        targets: target class of each image, N.
    """
    hits = logits.argmax(dim=1) == torch.tensor(targets)
    p = logits.softmax(dim=1)[range(len(targets)), targets]
    mistakes = {
        "This is a number of images: divide by the number of all images": int(hits.sum()),
        "This is the fraction of images that the network gives to another class": 1
        - hits.float().mean(),
        "This is the mean probability: count how often the target class is predicted": p.mean(),
    }
    same(value, hits.float().mean(), what="the fraction", mistakes=mistakes, tolerance=1e-4)
    right("That is how often the other network agrees.")
