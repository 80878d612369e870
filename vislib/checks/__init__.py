"""Checks for the exercises: they say what is wrong, name the likely mistake, and never give the
answer.

A check calls the learner's function on fresh random input and compares with the reference. What a
usual mistake would give is computed too: if the learner's result equals it, the message names that
mistake. One module for each notebook; a check raises `Wrong` or prints one short line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


class Wrong(AssertionError):
    """The answer is not right yet; the message says what to look at."""


def right(praise: str) -> None:
    """Print the one line of a check that passed."""
    print(f"✓ {praise}")


def call(function: Callable[..., Any], *inputs: Any) -> Any:
    """Call the learner's function; what goes wrong inside becomes a `Wrong` that says where it was.

    The function gets copies of arrays and tensors, and must leave them as they are.
    """
    if not callable(function):
        raise Wrong(
            f"Give the check your function itself, not {describe(function)}: leave out the (…)"
        )
    copies = [_copy(value) for value in inputs]
    name = getattr(function, "__name__", "your function")
    given = ", ".join(describe(value) for value in inputs) or "nothing"
    try:
        result = function(*copies)
    except NotImplementedError:
        raise Wrong(f"{name} is not written yet") from None
    except Exception as error:
        raise Wrong(
            f"{name} stopped with {type(error).__name__}: {error}. It was called with {given}"
        ) from error
    if result is None:
        raise Wrong(f"{name} returns None: does it end with return? It was called with {given}")
    if not _unchanged(inputs, copies):
        raise Wrong(f"{name} changes its input: work on a copy")
    return result


def same(
    found: Any,
    expected: Any,
    *,
    what: str,
    mistakes: Mapping[str, Any] | None = None,
    tolerance: float = 1e-5,
) -> None:
    """Raise `Wrong` unless `found` equals `expected` (arrays, tensors, numbers) up to the
    tolerance.

    `what` names the quantity in messages. `mistakes` maps the advice for a usual mistake to the
    value that this mistake gives. The tolerance is relative to the largest expected value.
    """
    want = numbers(expected)
    # the shape alone, not the value: that would be the answer
    asked = f"have shape {want.shape}" if want.shape else "be one number"
    try:
        have = numbers(found)
    except (TypeError, ValueError):
        raise Wrong(f"{what} should {asked}, yours is {describe(found)}") from None
    if have.shape == want.shape and _close(have, want, tolerance):
        return
    for advice, value in (mistakes or {}).items():
        wrong = numbers(value)
        if have.shape == wrong.shape and _close(have, wrong, tolerance):
            raise Wrong(f"{what} is not right yet. {advice}")
    if have.shape != want.shape:
        yours = f"has shape {have.shape}" if have.shape else "is one number"
        raise Wrong(f"{what} should {asked}, yours {yours}")
    if not np.isfinite(have).all():
        raise Wrong(f"{what} holds NaN or infinite values: is there a division by zero?")
    if have.shape and _close(have, -want, tolerance):
        raise Wrong(f"{what} has the wrong sign")
    ratio = np.abs(have).sum() / max(np.abs(want).sum(), 1e-30)
    is_factor = ratio > 0 and not 0.99 < ratio < 1.01 and want.size > 1
    if is_factor and _close(have, want * ratio, tolerance):
        raise Wrong(f"{what} is {ratio:.4g} times what it should be: check the factors")
    apart = np.abs(have - want)
    where = f" at {tuple(map(int, np.unravel_index(apart.argmax(), apart.shape)))}" * bool(
        want.shape
    )
    raise Wrong(f"{what} is not right yet: it is off by up to {apart.max():.3g}{where}")


def truth(found: Any, which: str) -> bool:
    """The answer of a function that says yes or no; `which` names what it is about."""
    try:
        value = numbers(found)
    except (TypeError, ValueError):
        value = np.array(np.nan)
    if value.shape or value not in (0, 1):
        raise Wrong(f"Return True or False, {which}, not {describe(found)}")
    return bool(value)


def describe(value: Any) -> str:
    """A value in a few words, for messages: ``a ndarray of shape (3, 4)``, ``0.5``."""
    shape = getattr(value, "shape", None)
    if shape:
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    text = repr(value)
    short = len(text) < 60 and " at 0x" not in text  # an address says nothing
    return text if short else f"a {type(value).__name__}"


def numbers(value: Any) -> np.ndarray:
    """Numbers as an array, also lists of tensors and tensors with a gradient.

    Raises TypeError or ValueError for what is not numbers.
    """
    if isinstance(value, list | tuple):
        value = [numbers(one) for one in value]
    elif isinstance(value, torch.Tensor):
        value = value.detach().cpu().double()  # NumPy has no bfloat16
    elif value is None or isinstance(value, str):
        raise TypeError("not a number")  # NumPy would take None as NaN, and "0.5" as 0.5
    return np.asarray(value, dtype=np.float64)


def _copy(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_copy, value))
    if hasattr(value, "clone"):
        return value.clone()
    return value.copy() if isinstance(value, np.ndarray) else value


def _unchanged(before: Any, after: Any) -> bool:
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(_unchanged, before, after))
    if not isinstance(before, np.ndarray | torch.Tensor | int | float):
        return True
    return np.array_equal(numbers(before), numbers(after), equal_nan=True)


def _close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    top = np.abs(b[np.isfinite(b)]).max(initial=1e-12)
    return bool(np.allclose(a, b, rtol=0, atol=tolerance * top, equal_nan=True))


@dataclass(frozen=True)
class Exercise:
    """An exercise as data: the notebook calls it as its check, and the tests read its fields.

    >>> double = Exercise(
    ...     task="``double(a)``: twice an array.",
    ...     inputs=lambda: [(np.arange(3.0),), (np.ones((2, 2)),)],
    ...     solution=lambda a: 2 * a,
    ...     what="the result",
    ...     mistakes={"This is the square: multiply by 2": lambda a: a**2},
    ...     praise="Twice as much.",
    ... )
    >>> double(lambda a: a + a)
    ✓ Twice as much.
    >>> double(lambda a: a * a)
    Traceback (most recent call last):
    vislib.checks.Wrong: the result is not right yet. This is the square: multiply by 2

    Attributes:
        task: what the learner writes, with its arguments and their shapes.
        inputs: gives the arguments of each trial, fresh random ones at each call.
        solution: the reference, called with the same arguments as the learner's function.
        what: the name of the result in messages, or a function of the arguments that gives it.
        mistakes: by the advice that a common mistake gets, the function of a learner who makes it.
        praise: the line that is printed when all trials are right.
        tolerance: relative to the largest expected value.
        extra: further checks of the learner's function, such as edge cases.
    """

    task: str
    inputs: Callable[[], Iterable[tuple[Any, ...]]]
    solution: Callable[..., Any]
    what: str | Callable[..., str]
    mistakes: Mapping[str, Callable[..., Any]]
    praise: str
    tolerance: float = 1e-5
    extra: Callable[[Callable[..., Any]], None] | None = None

    def __call__(self, function: Callable[..., Any]) -> None:
        """Raise `Wrong` with advice, or print one line."""
        for inputs in self.inputs():
            same(
                call(function, *inputs),
                self.solution(*inputs),
                what=self.what if isinstance(self.what, str) else self.what(*inputs),
                mistakes={advice: wrong(*inputs) for advice, wrong in self.mistakes.items()},
                tolerance=self.tolerance,
            )
        if self.extra is not None:
            self.extra(function)
        right(self.praise)
