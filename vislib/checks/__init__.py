"""Framework for the checks of the exercises.

A check calls the learner's function on new random inputs and compares the results with those of the
reference. It also computes the results of functions with common mistakes. If the learner's result
equals one of these results, the message gives advice about this mistake. A message never contains
the correct result.

There is one module for each notebook. Most checks are an `Exercise`, in which inputs, solution and
mistakes are data; the few others are functions. A check prints one line or raises `Wrong`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch


class Wrong(AssertionError):
    """Error for a result that is not right yet; the message gives advice."""


# --- Exercises as data ----------------------------------------------------------------------------


# The arguments of one trial, the expected value, and the value that each mistake gives.
Trial = tuple[tuple[Any, ...], np.ndarray, dict[str, np.ndarray]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Exercise:
    """Exercise as data: the notebook calls it as its check, and the tests read its fields.

    Attributes:
        task: function that the learner writes, with its arguments and their shapes. The text is
            also the docstring of the exercise.
        inputs: function that gives the arguments of each trial as a tuple, new at each call.
        solution: reference, called with the same arguments as the learner's function.
        what: name of the result in messages, or a function from the arguments to this name.
        mistakes: functions with common mistakes, by the advice for the mistake. If such a function
            stops with an exception in a trial, it is left out there. If several mistakes give the
            learner's result, those that passed all earlier trials, as the learner did, come first.
        praise: line that is printed if all trials are right.
        tolerance: largest difference, relative to the largest expected value.
        distinct: whether `inputs` gives functions without arguments instead of tuples. Each of
            these functions draws the arguments of one trial, and is called again until the solution
            and all mistakes give different values.
        parse: function ``parse(result, *arguments)`` that turns a result into the numbers that are
            compared. It raises `Wrong` for a result of another form.
        explain: function ``explain(result, *arguments)`` that gives the message for a wrong result
            that no mistake gives; by default the message gives the largest difference.
        extra: further checks of the learner's function, such as edge cases, after all trials. If
            this function returns a string, the string is printed instead of `praise`.

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
    """

    task: str
    inputs: Callable[[], Iterable[Any]]
    solution: Callable[..., Any]
    what: str | Callable[..., str]
    mistakes: Mapping[str, Callable[..., Any]]
    praise: str
    tolerance: float = 1e-5
    distinct: bool = False
    parse: Callable[..., Any] | None = None
    explain: Callable[..., str] | None = None
    extra: Callable[[Callable[..., Any]], str | None] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.task)

    def __call__(self, function: Callable[..., Any]) -> None:
        """Raise `Wrong` with advice, or print one line."""
        failed_before: set[str] = set()
        for inputs, expected, mistakes in self._trials():
            result = call(function, *inputs)
            # The learner passed all earlier trials, so mistakes that failed one are named last.
            in_order = sorted(mistakes, key=failed_before.__contains__)
            _compare(
                self._parsed(result, inputs),
                expected,
                what=self.what if isinstance(self.what, str) else self.what(*inputs),
                mistakes={advice: mistakes[advice] for advice in in_order},
                tolerance=self.tolerance,
                explain=self.explain and partial(self.explain, result, *inputs),
            )
            failed_before.update(
                advice
                for advice, value in mistakes.items()
                if not _equal(value, expected, self.tolerance)
            )
        praise = None if self.extra is None else self.extra(function)
        right(praise or self.praise)

    def _trials(self) -> Iterator[Trial]:
        for trial in self.inputs():
            yield self._distinct(trial) if self.distinct else self._trial(trial)

    def _distinct(self, draw: Callable[[], tuple[Any, ...]]) -> Trial:
        """Trial in which the solution and all mistakes give different values."""
        for _ in range(1000):
            inputs, expected, mistakes = self._trial(draw())
            pairs = itertools.combinations([expected, *mistakes.values()], 2)
            if not any(_equal(a, b, self.tolerance) for a, b in pairs):
                return inputs, expected, mistakes
        raise RuntimeError(f"1000 random inputs do not tell the mistakes apart: {self.task}")

    def _trial(self, inputs: tuple[Any, ...]) -> Trial:
        """Trial with the values of all mistakes that are possible on these inputs."""
        expected = numbers(self._parsed(self.solution(*inputs), inputs))
        mistakes = {}
        for advice, mistaken in self.mistakes.items():
            try:
                with np.errstate(all="ignore"):
                    value = self._parsed(mistaken(*map(_copy, inputs)), inputs)
                mistakes[advice] = numbers(value)
            except Exception:
                # The learner's function would stop as well, so it cannot return such a value.
                continue
        return inputs, expected, mistakes

    def _parsed(self, result: Any, inputs: tuple[Any, ...]) -> Any:
        return result if self.parse is None else self.parse(result, *inputs)


def right(praise: str) -> None:
    """Print the one line of a check that passed."""
    print(f"✓ {praise}")


# --- Parts of a check -----------------------------------------------------------------------------


def call(function: Callable[..., Any], *inputs: Any) -> Any:
    """Result of the learner's function, which gets copies of arrays and tensors.

    Args:
        function: learner's function.
        *inputs: arguments of the function.

    Raises:
        Wrong: `function` is not callable, stops with an exception, returns None, or changes one
            of its arguments.
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
    result: Any,
    expected: Any,
    *,
    what: str,
    mistakes: Mapping[str, Any] | None = None,
    tolerance: float = 1e-5,
) -> None:
    """Compare a result with the expected value: arrays, tensors, numbers, or lists of them.

    Args:
        result: learner's result.
        expected: result of the reference.
        what: name of the result in messages.
        mistakes: results of common mistakes, by the advice for the mistake.
        tolerance: largest difference, relative to the largest expected value.

    Raises:
        Wrong: the shapes differ, or if the values differ by more than the tolerance.
    """
    _compare(result, expected, what=what, mistakes=mistakes or {}, tolerance=tolerance)


def _compare(
    result: Any,
    expected: Any,
    *,
    what: str,
    mistakes: Mapping[str, Any],
    tolerance: float,
    explain: Callable[[], str] | None = None,
) -> None:
    """Compare as `same`; `explain` gives the message for a result that no mistake gives."""
    target = numbers(expected)
    try:
        actual = numbers(result)
    except (TypeError, ValueError):
        raise Wrong(f"{what} should {_shape(target)}, yours is {describe(result)}") from None
    if _equal(actual, target, tolerance):
        return
    for advice, value in mistakes.items():
        if _equal(actual, numbers(value), tolerance):
            raise Wrong(f"{what} is not right yet. {advice}")
    raise Wrong(explain() if explain else _difference(actual, target, what, tolerance))


def _difference(actual: np.ndarray, expected: np.ndarray, what: str, tolerance: float) -> str:
    """Message on the difference: in shape, by NaN, in sign, by a factor, or at one position."""
    if actual.shape != expected.shape:
        yours = f"has shape {actual.shape}" if actual.shape else "is one number"
        return f"{what} should {_shape(expected)}, yours {yours}"
    if not np.isfinite(actual).all():
        return f"{what} contains NaN or infinite values: is there a division by zero?"
    if actual.shape and _equal(actual, -expected, tolerance):
        return f"{what} has the wrong sign"
    ratio = np.abs(actual).sum() / max(np.abs(expected).sum(), 1e-30)
    is_factor = ratio > 0 and not 0.99 < ratio < 1.01 and expected.size > 1
    if is_factor and _equal(actual, expected * ratio, tolerance):
        return f"{what} is {ratio:.4g} times what it should be: check the factors"
    apart = np.abs(actual - expected)
    where = ""
    if apart.shape:
        where = f" at {tuple(map(int, np.unravel_index(apart.argmax(), apart.shape)))}"
    return f"{what} is not right yet: it is off by up to {apart.max():.3g}{where}"


def _shape(expected: np.ndarray) -> str:
    """Expected shape for messages, without the values, which would be the answer."""
    return f"have shape {expected.shape}" if expected.shape else "be one number"


def truth(result: Any, about: str) -> bool:
    """Result of a function that returns True or False.

    Args:
        result: learner's result.
        about: end of the message, such as "for this map".

    Raises:
        Wrong: the result is not one truth value.
    """
    try:
        value = numbers(result)
    except (TypeError, ValueError):
        value = np.array(np.nan)
    if value.shape or value not in (0, 1):
        raise Wrong(f"Return True or False, {about}, not {describe(result)}")
    return bool(value)


# --- Values ---------------------------------------------------------------------------------------


def describe(value: Any) -> str:
    """Short description of a value for messages: ``a ndarray of shape (3, 4)``, ``0.5``."""
    shape = getattr(value, "shape", None)
    if shape:
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    text = repr(value)
    # An address in memory does not help the learner.
    short = len(text) < 60 and " at 0x" not in text
    return text if short else f"a {type(value).__name__}"


def numbers(value: Any) -> np.ndarray:
    """Array of float64 from numbers, arrays, tensors (also with a gradient), or lists of them.

    Raises:
        TypeError, ValueError: the value does not consist of numbers.
    """
    if isinstance(value, list | tuple):
        value = [numbers(one) for one in value]
    elif isinstance(value, torch.Tensor):
        # NumPy does not support bfloat16.
        value = value.detach().cpu().double()
    elif value is None or isinstance(value, str):
        # NumPy would take None as NaN, and "0.5" as 0.5.
        raise TypeError("not a number")
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


def _equal(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Whether two arrays have one shape and equal values, up to the tolerance."""
    if a.shape != b.shape:
        return False
    top = np.abs(b[np.isfinite(b)]).max(initial=1e-12)
    return bool(np.allclose(a, b, rtol=0, atol=tolerance * top, equal_nan=True))
