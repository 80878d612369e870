"""Tests that the topics of `vislib.checks` share, made from right and wrong answers.

The answers are dictionaries from an id for pytest to a tuple. The tuple is
``(check, answer)`` for a right answer and ``(check, answer, message)`` for a wrong answer,
where `message` is a regular expression for the advice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from vislib.checks import Exercise, Wrong

Check = Callable[[Callable[..., Any]], None]
RightAnswers = Mapping[str, tuple[Check, Callable[..., Any]]]
WrongAnswers = Mapping[str, tuple[Check, Callable[..., Any], str]]
Test = Callable[..., None]


def right_answers_pass(right: RightAnswers, *, repeats: int) -> Test:
    """Test that each right answer passes with one line, for each of several seeds."""

    @pytest.mark.parametrize("seed", range(repeats))
    @pytest.mark.parametrize(("check", "answer"), right.values(), ids=right)
    def test(
        check: Check, answer: Callable[..., Any], seed: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        torch.manual_seed(seed)
        check(answer)
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith("✓ ")

    return test


def wrong_answers_get_advice(wrong: WrongAnswers, *, repeats: int) -> Test:
    """Test that each wrong answer is rejected with its message, for each of several seeds."""

    @pytest.mark.parametrize("seed", range(repeats))
    @pytest.mark.parametrize(("check", "answer", "message"), wrong.values(), ids=wrong)
    def test(check: Check, answer: Callable[..., Any], message: str, seed: int) -> None:
        torch.manual_seed(seed)
        # A wrong answer may overflow or divide by zero. NumPy's warnings would say nothing new.
        with pytest.raises(Wrong, match=message), np.errstate(all="ignore"):
            check(answer)

    return test


def every_exercise_has_a_right_answer(topic: ModuleType, right: RightAnswers) -> Test:
    """Test that the right answers cover all exercises of the topic, and no others."""

    def test() -> None:
        exercises = {check for check in vars(topic).values() if isinstance(check, Exercise)}
        assert exercises
        assert exercises == {check for check, _ in right.values() if isinstance(check, Exercise)}

    return test


def answer_tests(
    topic: ModuleType,
    right: RightAnswers,
    wrong: WrongAnswers,
    *,
    repeats: tuple[int, int] = (10, 5),
) -> tuple[Test, Test, Test]:
    """The three tests of a topic.

    Args:
        topic: module of `vislib.checks`.
        right: right answers, written in another way than the solution of the exercise.
        wrong: wrong answers, written in another way than the mistakes of the exercise.
        repeats: numbers of seeds for each right and for each wrong answer.

    Returns:
        The tests that right answers pass, that wrong answers get advice, and that every exercise of
        the topic has a right answer.
    """
    return (
        right_answers_pass(right, repeats=repeats[0]),
        wrong_answers_get_advice(wrong, repeats=repeats[1]),
        every_exercise_has_a_right_answer(topic, right),
    )
