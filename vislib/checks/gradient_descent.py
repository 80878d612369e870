"""Checks for the exercises of notebook 02, gradient descent."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vislib import scratch
from vislib.checks import Exercise, Wrong, call, numbers, same

# --- Gradient descent -----------------------------------------------------------------------------

Gradient = Callable[[np.ndarray], np.ndarray]


def _valleys() -> Iterator[tuple[Gradient, np.ndarray, float, int]]:
    """Gradients of quadratic losses, a start, a rate that converges, and a number of steps."""
    rng = np.random.default_rng()
    for n, steps in ((2, 5), (3, 8)):
        matrix = rng.normal(size=(n, n))
        hessian, minimum = matrix @ matrix.T + np.eye(n), rng.normal(size=n)
        rate, start = float(0.5 / np.linalg.norm(hessian, 2)), rng.normal(size=n)

        def gradient(
            v: Any, hessian: np.ndarray = hessian, minimum: np.ndarray = minimum
        ) -> np.ndarray:
            return hessian @ (np.asarray(v) - minimum)

        yield gradient, start, rate, steps


def _in_place(gradient: Gradient, v: np.ndarray, rate: float, steps: int) -> list[np.ndarray]:
    """Path of a function with ``v -= …``, in which all points are one array."""
    v = v.copy()
    path = [v]
    for _ in range(steps):
        v -= rate * gradient(v)
        path.append(v)
    return path


_descent = scratch.gradient_descent

descend = Exercise(
    task="``descend(loss_gradient, start, rate, steps)``: the whole path, (steps + 1) × n.",
    inputs=_valleys,
    solution=_descent,
    what="the path",
    mistakes={
        "You return the last point only: return the whole path, start first": (
            lambda gradient, v, rate, steps: _descent(gradient, v, rate, steps)[-1]
        ),
        "The start is missing: the path has steps + 1 points, start first": (
            lambda gradient, v, rate, steps: _descent(gradient, v, rate, steps)[1:]
        ),
        "One step is missing: the path has steps + 1 points, start first": (
            lambda gradient, v, rate, steps: _descent(gradient, v, rate, steps)[:-1]
        ),
        "All points of your path are the same array: v = v − … makes a new one": _in_place,
        "The loss rises: the sign of the step is wrong": (
            lambda gradient, v, rate, steps: _descent(gradient, v, -rate, steps)
        ),
        "The rate is missing": lambda gradient, v, rate, steps: _descent(gradient, v, 1.0, steps),
        "The gradient must be computed again at each point, not only at the start": (
            lambda gradient, v, rate, steps: _descent(lambda _: gradient(v), v, rate, steps)
        ),
        "All your steps have one length: do not divide the gradient by its norm": (
            lambda gradient, v, rate, steps: _descent(
                lambda u: gradient(u) / np.linalg.norm(gradient(u)), v, rate, steps
            )
        ),
    },
    praise="goes downhill, and keeps the path",
)


# --- The largest rate -----------------------------------------------------------------------------


def _hessians() -> Iterator[tuple[np.ndarray]]:
    """Hessians of valleys that are not parallel to the axes."""
    rng = np.random.default_rng()
    for n in (3, 2, 4):
        rotation = np.linalg.qr(rng.normal(size=(n, n)))[0]
        curvatures = np.sort(rng.uniform(0.5, 1, n)) * np.arange(1, n + 1) ** 2
        yield (rotation @ np.diag(curvatures) @ rotation.T,)


def _eigenvalues(hessian: np.ndarray) -> np.ndarray:
    """Eigenvalues in ascending order."""
    return np.linalg.eigvalsh(hessian)


largest_rate = Exercise(
    task="``largest_rate(hessian)``: the rate below which descent in ``½ vᵀHv`` converges.",
    inputs=_hessians,
    solution=lambda hessian: 2 / _eigenvalues(hessian)[-1],
    what="the largest rate",
    mistakes={
        "1/λ_max reaches the floor of the valley in one step: larger rates still converge": (
            lambda hessian: 1 / _eigenvalues(hessian)[-1]
        ),
        "The steepest direction decides: take the largest eigenvalue": (
            lambda hessian: 2 / _eigenvalues(hessian)[0]
        ),
        "The trace is the sum of all eigenvalues: the largest decides": (
            lambda hessian: 2 / np.trace(hessian)
        ),
        "The entries on the diagonal are not the eigenvalues if the valley is rotated": (
            lambda hessian: 2 / np.diag(hessian).max()
        ),
        "2/(λ_min + λ_max) is the fastest rate: the question is where divergence starts": (
            lambda hessian: 2 / (_eigenvalues(hessian)[0] + _eigenvalues(hessian)[-1])
        ),
    },
    praise="2 divided by the steepest curvature",
)


# --- The gradient of softmax and cross-entropy ----------------------------------------------------


def _logits_and_labels() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng()
    for n, classes in ((6, 6), (5, 3), (1, 4)):
        z, labels = rng.normal(0, 2, (n, classes)), rng.integers(0, classes, n)
        # One prediction is far from its label, so that the gradient is not tiny.
        labels[0] = z[0].argmin()
        yield z, labels


def _one_hot(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.eye(z.shape[1])[labels]


def _error(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities minus one-hot labels."""
    return scratch.softmax(z) - _one_hot(z, labels)


def _large_logits(function: Callable[..., Any]) -> None:
    """Check that logits whose exponential overflows have a finite gradient."""
    with np.errstate(all="ignore"):
        gradient = call(function, np.array([[1000.0, 0.0, -1000.0]]), np.array([1]))
    if not np.isfinite(numbers(gradient)).all():
        raise Wrong(
            "With logits of 1000, your function overflows: subtract the largest logit first"
        )
    same(gradient, [[1, -1, 0]], what="the gradient for logits of 1000, 0 and -1000")


logit_gradient = Exercise(
    task="``logit_gradient(z, labels)``: ∂(mean cross-entropy)/∂z of N×K logits z.",
    inputs=_logits_and_labels,
    solution=lambda z, labels: _error(z, labels) / len(z),
    what="the gradient",
    mistakes={
        "Your softmax runs over the examples: it should run over the classes, axis 1": (
            lambda z, labels: (scratch.softmax(z.T).T - _one_hot(z, labels)) / len(z)
        ),
        "These are the probabilities divided by N: the labels are missing": (
            lambda z, labels: scratch.softmax(z) / len(z)
        ),
        "These are the probabilities: the labels and the mean over the examples are missing": (
            lambda z, labels: scratch.softmax(z)
        ),
        "Subtract the labels from the probabilities, not from the logits": (
            lambda z, labels: (z - _one_hot(z, labels)) / len(z)
        ),
        "The sign is reversed: this is the downhill direction, not the gradient": (
            lambda z, labels: -_error(z, labels) / len(z)
        ),
        "The loss is a mean over the examples, and so is its gradient": _error,
        "Divide by the number of examples, not by the number of all entries": (
            lambda z, labels: _error(z, labels) / z.size
        ),
    },
    praise="softmax minus one-hot, averaged",
    extra=_large_logits,
)


# --- Early stopping -------------------------------------------------------------------------------


def _losses() -> Iterator[tuple[np.ndarray, int]]:
    """Validation losses with a short rise, the best step, and a rise that ends the training.

    After the stop there are still lower losses, which a function must not use. The last two trials
    are a loss that falls to the end, and a plateau.
    """
    rng = np.random.default_rng()
    for patience in (3, 5, 8):
        ahead = int(rng.integers(6, 12))
        falling = np.linspace(1, 0.5, ahead) + rng.uniform(0, 0.001, ahead)
        short_rise = falling[-1] + rng.uniform(0.01, 0.1, patience - 1)
        better = falling[-1] - 0.1 + rng.uniform(-0.01, 0.01, 1)
        rise = better + rng.uniform(0.05, 0.3, patience)
        until_the_stop = [falling, short_rise, better, short_rise - 0.1, better - 0.05, rise]
        one_step_too_late = [better - 0.1, rise]
        much_too_late = [rise, better - 0.2, rise]
        yield np.concatenate([*until_the_stop, *one_step_too_late, *much_too_late]), patience
    yield np.array([3.0, 2.0, 1.0]), 2
    yield np.array([1.0, 0.5, 0.5, 0.5, 0.5, 0.1]), 3


def _early_stopping(
    losses: np.ndarray,
    patience: int,
    *,
    is_better: Callable[[Any, Any], bool] = operator.lt,
    in_a_row: bool = True,
    late: int = 0,
) -> tuple[int, int]:
    """Best step, and the step at which the training stops."""
    best = bad = step = 0
    for step in range(1, len(losses)):
        if is_better(losses[step], losses[best]):
            best, bad = step, (0 if in_a_row else bad)
        else:
            bad += 1
        if bad >= patience + late:
            break
    return best, step


def _first_rise(losses: np.ndarray, patience: int) -> int:
    rises = np.flatnonzero(np.diff(losses) > 0)
    return int(rises[0]) if len(rises) else len(losses) - 1


early_stopping = Exercise(
    task="``early_stopping(losses, patience)``: the best step before training stops.",
    inputs=_losses,
    solution=lambda losses, patience: _early_stopping(losses, patience)[0],
    what=lambda losses, patience: (
        f"the best step with patience {patience}"
        + f" for the losses {losses.tolist()}" * (len(losses) < 10)
    ),
    mistakes={
        "An equal loss is not a new best: compare with <": lambda losses, patience: _early_stopping(
            losses, patience, is_better=operator.le
        )[0],
        "You stop at the first rise: wait for `patience` steps in a row without a new best": (
            _first_rise
        ),
        "Only steps in a row without a new best count: a new best sets the count back to 0": (
            lambda losses, patience: _early_stopping(losses, patience, in_a_row=False)[0]
        ),
        "You stop one step too late: stop after `patience` steps without a new best": (
            lambda losses, patience: _early_stopping(losses, patience, late=1)[0]
        ),
        "This is the step at which you stop: return the best step before it": (
            lambda losses, patience: _early_stopping(losses, patience)[1]
        ),
        "This is one step after the best: return the best step itself": (
            lambda losses, patience: _early_stopping(losses, patience)[0] + 1
        ),
        "You used losses after the stop, but the training had ended": (
            lambda losses, patience: int(losses.argmin())
        ),
        "This is the lowest loss: return its step": lambda losses, patience: losses[
            _early_stopping(losses, patience)[0]
        ],
        "This is the last of all steps": lambda losses, patience: len(losses) - 1,
    },
    praise="stops in time, and remembers the best step",
)
