"""Checks for the exercises: they say what is wrong, name the likely mistake, and never give the
answer.

A check calls the learner's function on fresh random input and compares with the reference. What a
usual mistake would give is computed too: if the learner's result equals it, the message names that
mistake. One module for each notebook; a check raises `Wrong` or prints one short line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


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
        raise Wrong(f"Give the check your function itself, not {function!r}: leave out the (…)")
    copies = [_copy(value) for value in inputs]
    name = getattr(function, "__name__", "your function")
    try:
        result = function(*copies)
    except NotImplementedError:
        raise Wrong(f"{name} is not written yet") from None
    except Exception as error:
        raise Wrong(
            f"{name} stopped with {type(error).__name__}: {error}. "
            f"It was called with {', '.join(describe(value) for value in inputs)}"
        ) from error
    if result is None:
        raise Wrong(f"{name} returns None: does it end with return?")
    for before, after in zip(inputs, copies, strict=True):
        if hasattr(before, "shape") and not np.array_equal(
            _array(before), _array(after), equal_nan=True
        ):
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
    want = _array(expected)
    try:
        have = _array(found)
    except (TypeError, ValueError):
        raise Wrong(f"{what} should be {describe(expected)}, yours is {describe(found)}") from None
    for advice, value in (mistakes or {}).items():
        wrong = _array(value)
        if (
            have.shape == wrong.shape
            and _close(have, wrong, tolerance)
            and not (wrong.shape == want.shape and _close(wrong, want, tolerance))
        ):
            raise Wrong(f"{what} is not right yet. {advice}")
    if have.shape != want.shape:
        raise Wrong(f"{what} should have shape {want.shape}, yours has {have.shape}")
    if not np.isfinite(have).all():
        raise Wrong(f"{what} holds NaN or infinite values: is there a division by zero?")
    if not _close(have, want, tolerance):
        if have.shape and _close(have, -want, tolerance):
            raise Wrong(f"{what} has the wrong sign")
        ratio = np.abs(have).sum() / max(np.abs(want).sum(), 1e-30)
        if want.size > 1 and ratio > 0 and _close(have, want * ratio, tolerance):
            raise Wrong(f"{what} is {ratio:.4g} times what it should be: a factor is missing")
        apart = np.abs(have - want)
        where = f" at {tuple(map(int, np.unravel_index(apart.argmax(), apart.shape)))}" * bool(
            want.shape
        )
        raise Wrong(f"{what} is not right yet: it is off by up to {apart.max():.3g}{where}")


def describe(value: Any) -> str:
    """A value in a few words, for messages: ``an array of shape (3, 4)``, ``0.5``."""
    shape = getattr(value, "shape", None)
    if shape:
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    text = repr(value)
    return text if len(text) < 60 else f"a {type(value).__name__}"


def _array(value: Any) -> np.ndarray:
    value = value.detach().cpu() if hasattr(value, "detach") else value
    return np.asarray(value, dtype=np.float64)


def _copy(value: Any) -> Any:
    if hasattr(value, "clone"):
        return value.clone()
    return value.copy() if isinstance(value, np.ndarray) else value


def _close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    top = np.abs(b[np.isfinite(b)]).max(initial=1e-12)
    return bool(np.allclose(a, b, rtol=0, atol=tolerance * top, equal_nan=True))
