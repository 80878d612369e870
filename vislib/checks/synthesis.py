"""Checks for notebook 16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vislib.checks import Wrong, call, right, same

STEPS = 12  # in so many, a pixel that has left the range comes back again


def climb(function: Callable[..., Any]) -> None:
    """The loop of ascent: ``function(score, x, steps, lr, momentum)``."""
    lr, momentum = 0.06, 0.85  # not those of the text: they have to be used
    generator = torch.Generator().manual_seed(int(np.random.default_rng().integers(2**31)))
    w = torch.randn(1, 3, 5, 4, generator=generator)
    # Pixels as large as this leave the range, and the curvature makes each step's gradient new.
    x = torch.rand(1, 3, 5, 4, generator=generator)

    def score(image: Tensor) -> Tensor:
        return (w * image).sum() - 2 * image.square().sum()

    def path(
        steps: int,
        *,
        lr: float = lr,
        keep: float = momentum,
        fresh: float = 1,
        clip: bool = True,
        end: bool = False,
    ) -> Tensor:
        v, now = torch.zeros_like(x), x.clone()
        for _ in range(steps):
            v = keep * v + fresh * (w - 4 * now)
            now = now + lr * v
            now = now.clamp(0, 1) if clip else now
        return now.clamp(0, 1) if end else now

    mistakes = {
        "The score falls: this is descent, add the gradient": path(STEPS, fresh=-1),
        "Each step uses the gradient alone: v = momentum · v + gradient": path(STEPS, keep=0),
        "v is never made smaller: multiply the old v by momentum": path(STEPS, keep=1.0),
        "The new gradient goes into v whole, without the factor 1 − momentum": path(
            STEPS, fresh=1 - momentum
        ),
        "Use the momentum that is given, not always 0.9": path(STEPS, keep=0.9),
        "Use the lr that is given, not always 0.05": path(STEPS, lr=0.05),
        "Use the lr and the momentum that are given, not the numbers of the text": path(
            STEPS, lr=0.05, keep=0.9
        ),
        "Pixels leave [0, 1]: clip after each step": path(STEPS, clip=False),
        "Clip after each step, not only at the end": path(STEPS, clip=False, end=True),
        "That is one step too few": path(STEPS - 1),
        "That is one step too many": path(STEPS + 1),
    }
    found, what = call(function, score, x, STEPS, lr, momentum), f"the image after {STEPS} steps"
    same(found, path(STEPS), what=what, mistakes=mistakes, tolerance=1e-4)
    right("It climbs, with momentum, and stays in the range of pixels.")


def total_variation(function: Callable[..., Any]) -> None:
    """Total variation of one image, C×H×W."""
    rng = np.random.default_rng()
    x = torch.from_numpy(rng.random((3, 6, 9)))
    down, across = x.diff(dim=1), x.diff(dim=2)
    mistakes = {
        "Only neighbours below are compared: those to the right count too": down.abs().sum(),
        "Only neighbours to the right are compared: those below count too": across.abs().sum(),
        "Take absolute values, or ups and downs cancel": down.sum() + across.sum(),
        "These are squares: take absolute values": down.square().sum() + across.square().sum(),
        "This is a mean: add up": down.abs().mean() + across.abs().mean(),
        "These are differences between channels too: only rows and columns count": (
            down.abs().sum() + across.abs().sum() + x.diff(dim=0).abs().sum()
        ),
        "The image does not go round: leave out the pair of last and first": (
            (x - x.roll(1, 1)).abs().sum() + (x - x.roll(1, 2)).abs().sum()
        ),
    }
    expected = down.abs().sum() + across.abs().sum()
    same(call(function, x), expected, what="the total variation", mistakes=mistakes)
    right("Every pair of neighbours is in it once.")


def posterior(function: Callable[..., Any]) -> None:
    """``log p(c|g(z)) − λ‖z − z̄‖²``: ``function(reader, writer, z, target, weight, mean)``."""
    seed = int(np.random.default_rng().integers(1000))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).eval()
        writer = nn.Sequential(nn.Linear(5, 12), nn.Sigmoid(), nn.Unflatten(1, (1, 3, 4))).eval()
        z, mean = 2 * torch.randn(3, 5), torch.randn(5)
    target, weight = 2, 0.3
    with torch.no_grad():
        logits = reader(writer(z))
        log_p = logits.log_softmax(dim=1)[:, target]
        far = (z - mean).square().sum(dim=1)
        expected = log_p - weight * far
        found = call(function, reader, writer, z, target, weight, mean)
        mistakes = {
            "The prior is subtracted: far from z̄ is bad": log_p + weight * far,
            "The distance is from z̄, not from 0": log_p - weight * z.square().sum(dim=1),
            "Take the square of the distance, not the distance": log_p - weight * far.sqrt(),
            "Multiply the squared distance by the weight λ": log_p - far,
            "Add up the squares over the code, not their mean": log_p - weight * far / 5,
            "This has the logit: use log_softmax": logits[:, target] - weight * far,
            "This has the probability: use its logarithm": log_p.exp() - weight * far,
            "Softmax goes over the classes: dim=1": (
                logits.log_softmax(dim=0)[:, target] - weight * far
            ),
            "This is the classifier's part alone: subtract λ‖z − z̄‖²": log_p,
        }
    if getattr(found, "ndim", 1) == 0:
        raise Wrong("Each of the N codes has its own number: do not add them up over the batch")
    same(found, expected, what="log p + prior", mistakes=mistakes)
    right("That is the logarithm of p(c|x) · p(x), up to a constant.")


def agreement(value: Any, logits: Tensor, targets: list[int]) -> None:
    """Share of pictures that another net gives to the wanted class, from its N×K logits."""
    hits = logits.argmax(dim=1) == torch.tensor(targets)
    wanted = logits.softmax(dim=1)[range(len(targets)), targets]
    mistakes = {
        "This is a number of pictures: divide by how many there are": int(hits.sum()),
        "This is the share that it gives to another class": 1 - hits.float().mean(),
        "This is the mean probability: count how often the class is the most likely": wanted.mean(),
    }
    same(value, hits.float().mean(), what="the share", mistakes=mistakes, tolerance=1e-4)
    right("That is how often the other net agrees.")
