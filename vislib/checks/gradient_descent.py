"""Checks of notebook 02: descent, the largest safe rate, the softmax gradient, early stopping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vislib import scratch
from vislib.checks import Wrong, call, numbers, right, same


def descend(function: Callable[..., Any]) -> None:
    """``function(loss_gradient, start, rate, steps)``: the whole path, (steps + 1) × n."""
    rng = np.random.default_rng()
    for n, steps in ((2, 5), (3, 8)):
        matrix = rng.normal(size=(n, n))
        hessian, shift = matrix @ matrix.T + np.eye(n), rng.normal(size=n)
        rate, start = float(0.5 / np.linalg.norm(hessian, 2)), rng.normal(size=n)

        def gradient(v: Any, hessian: Any = hessian, shift: Any = shift) -> np.ndarray:
            return hessian @ (np.asarray(v) - shift)

        want = scratch.gradient_descent(gradient, start, rate, steps)
        found = call(function, gradient, start, rate, steps)
        try:
            path = numbers(found)
        except (TypeError, ValueError):
            raise Wrong("the path should be a list of points of the same length") from None
        if path.shape == want[-1].shape and np.allclose(path, want[-1]):
            raise Wrong("you return the last point only: return the whole path, start first")
        if path.shape == want[1:].shape and np.allclose(path, want[1:]):
            raise Wrong("the start is missing: the path has steps + 1 points, start first")
        if path.shape == want[:-1].shape and np.allclose(path, want[:-1]):
            raise Wrong("one step is missing: the path has steps + 1 points, start first")
        if path.shape == want.shape and np.allclose(path, path[-1]):
            raise Wrong("all points of your path are the same array: v = v − … makes a new one")
        same(
            path,
            want,
            what="the path",
            mistakes={
                "It climbs: the step is minus the rate times the gradient.": (
                    scratch.gradient_descent(gradient, start, -rate, steps)
                ),
                "The rate is missing.": scratch.gradient_descent(gradient, start, 1.0, steps),
                "The gradient must be taken anew at each point, not only at the start.": (
                    start - rate * np.arange(steps + 1)[:, None] * gradient(start)
                ),
                "Steps of a fixed length: do not divide the gradient by its norm.": (
                    scratch.gradient_descent(
                        lambda v: gradient(v) / np.linalg.norm(gradient(v)), start, rate, steps
                    )
                ),
            },
        )
    right("goes downhill, and keeps the path")


def largest_rate(function: Callable[..., Any]) -> None:
    """``function(hessian)``: the rate below which descent in ``½ vᵀHv`` converges, 2/λ_max."""
    rng = np.random.default_rng()
    for n in (3, 2, 4):
        turn = np.linalg.qr(rng.normal(size=(n, n)))[0]
        curvatures = np.sort(rng.uniform(0.5, 1, n)) * np.arange(1, n + 1) ** 2
        hessian = turn @ np.diag(curvatures) @ turn.T
        same(
            call(function, hessian),
            2 / curvatures[-1],
            what="the largest rate",
            mistakes={
                "1/λ_max is the rate with one perfect step; divergence starts at twice that.": (
                    1 / curvatures[-1]
                ),
                "The steepest direction decides: take the largest eigenvalue.": 2 / curvatures[0],
                "The trace is the sum of all eigenvalues; the largest decides.": (
                    2 / curvatures.sum()
                ),
                "The entries on the diagonal are no eigenvalues when the valley is turned.": (
                    2 / np.diag(hessian).max()
                ),
                "That is the fastest rate, 2/(λ_min + λ_max); asked is where divergence starts.": (
                    2 / (curvatures[0] + curvatures[-1])
                ),
            },
        )
    right("2 divided by the steepest curvature")


def logit_gradient(function: Callable[..., Any]) -> None:
    """``function(z, labels)``: ∂(mean cross-entropy of softmax)/∂z, N×K."""
    rng = np.random.default_rng()
    for n, classes in ((6, 6), (5, 3), (1, 4)):
        z, labels = rng.normal(0, 2, (n, classes)), rng.integers(0, classes, n)
        labels[0] = z[0].argmin()  # one far from right, so that the gradient is not tiny
        p, one_hot = scratch.softmax(z), np.eye(classes)[labels]
        across = scratch.softmax(z.T).T
        mistakes = {
            "The softmax runs over the examples in yours: it runs over the classes, axis 1.": (
                (across - one_hot) / n
            ),
            "These are the probabilities over N: take away 1 at the right class.": p / n,
            "These are the probabilities: take away 1 at the right class, and divide by N.": p,
            "Take away 1 from the probabilities, not from the logits: where is the softmax?": (
                (z - one_hot) / n
            ),
            "It is −(p − y)/N, uphill turned to downhill: the gradient itself is p − y over N.": (
                (one_hot - p) / n
            ),
        }
        if n > 1:
            mistakes["The loss is a mean over the N examples: divide by N."] = p - one_hot
            mistakes["Divide by the number of examples, not of classes × examples."] = (
                p - one_hot
            ) / (n * classes)
        found = call(function, z, labels)
        same(found, (p - one_hot) / n, what="the gradient", mistakes=mistakes)
    steep = np.array([[1000.0, 0.0, -1000.0]])
    with np.errstate(all="ignore"):
        found = call(function, steep, np.array([1]))
    if not np.isfinite(numbers(found)).all():
        raise Wrong("with logits of 1000 yours overflows: take away the largest logit first")
    same(found, [[1, -1, 0]], what="the gradient for logits of 1000, 0 and -1000")
    right("softmax minus one-hot, averaged")


def early_stopping(function: Callable[..., Any]) -> None:
    """``function(losses, patience)``: the best step when one stops after `patience` bad steps."""
    rng = np.random.default_rng()
    for patience in (3, 5, 8):
        ahead = int(rng.integers(6, 12))
        falling = np.linspace(1, 0.5, ahead) + rng.uniform(0, 0.001, ahead)
        bump = falling[-1] + rng.uniform(0.01, 0.1, patience - 1)  # no reason to stop yet
        better = falling[-1] - 0.1 + rng.uniform(-0.01, 0.01, 1)
        rise = better + rng.uniform(0.05, 0.3, patience)
        parts = [falling, bump, better, bump - 0.1, better - 0.05, rise]
        # what comes after the stop, one step too late and much too late
        parts += [better - 0.1, rise, rise, better - 0.2, rise]
        losses = np.concatenate(parts)
        best = ahead + 2 * patience - 1
        found = call(function, losses, patience)
        if isinstance(found, tuple | list) or np.ndim(found):
            raise Wrong("return one number: the step with the lowest validation loss so far")
        same(
            found,
            best,
            what=f"the best step with patience {patience}",
            mistakes={
                "You stop too early, as at the first rise: wait for `patience` steps in a row "
                "without a new best.": ahead - 1,
                "Only bad steps in a row count: a new best sets the count back to 0.": (
                    ahead + patience - 1
                ),
                "You stop one step too late: after `patience` bad steps, not after one more.": (
                    best + patience + 1
                ),
                "That is where you stop; return the best step before it.": best + patience,
                "That is one step after the best; return the best step itself.": best + 1,
                "You looked at all losses, also those after the stop: training had ended.": int(
                    losses.argmin()
                ),
                "That is the lowest loss; return its step.": losses[best],
                "That is the last step of all.": len(losses) - 1,
            },
        )
    same(
        call(function, np.array([3.0, 2.0, 1.0]), 2),
        2,
        what="the best step of a loss that still falls at the end",
    )
    flat = call(function, np.array([1.0, 0.5, 0.5, 0.5, 0.5, 0.1]), 3)
    same(
        flat,
        1,
        what="the best step on a plateau",
        mistakes={"An equal loss is not a new best: compare with <.": 5},
    )
    right("stops in time, and remembers the best step")
