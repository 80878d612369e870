"""All exercises: solutions pass, each mistake gets its advice, and no message tells the answer."""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from vislib import checks
from vislib.checks import Exercise, Wrong

EXERCISES = {
    f"{module.name}.{name}": value
    for module in pkgutil.iter_modules(checks.__path__)
    for name, value in vars(import_module(f"vislib.checks.{module.name}")).items()
    if isinstance(value, Exercise)
}
MISTAKES = {
    f"{name}-{number}": (exercise, advice)
    for name, exercise in EXERCISES.items()
    for number, advice in enumerate(exercise.mistakes, start=1)
}
REPEATS = range(5)

every_exercise = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)


def message_for(exercise: Exercise, function: Any) -> str:
    """The message with which an exercise rejects a function."""
    with pytest.raises(Wrong) as error:
        exercise(function)
    return str(error.value)


def test_all_modules_of_checks_are_searched() -> None:
    topics = {name.split(".")[0] for name in EXERCISES}
    assert {"perceptron", "convolution", "cam", "measures"} <= topics
    assert len(EXERCISES) == len({id(exercise) for exercise in EXERCISES.values()})


@pytest.mark.parametrize("seed", REPEATS)
@every_exercise
def test_the_solution_passes_with_one_line(
    exercise: Exercise, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(seed)
    exercise(exercise.solution)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("✓ ") and len(line) > 2


@pytest.mark.parametrize("seed", REPEATS)
@pytest.mark.parametrize(("exercise", "advice"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_its_own_advice(exercise: Exercise, advice: str, seed: int) -> None:
    torch.manual_seed(seed)
    assert message_for(exercise, exercise.mistakes[advice]).endswith(advice)


@every_exercise
def test_there_are_at_least_three_mistakes(exercise: Exercise) -> None:
    assert len(exercise.mistakes) >= 3


@every_exercise
def test_the_task_is_the_docstring(exercise: Exercise) -> None:
    assert exercise.__doc__ == exercise.task and "``" in exercise.task


@every_exercise
def test_a_function_that_is_not_written_yet(exercise: Exercise) -> None:
    def stub(*inputs: Any) -> None:
        raise NotImplementedError("write your code here")

    assert message_for(exercise, stub) == "stub is not written yet"


@every_exercise
def test_a_function_without_return(exercise: Exercise) -> None:
    def nothing(*inputs: Any) -> None:
        pass

    message = message_for(exercise, nothing)
    assert message.startswith("nothing returns None: does it end with return? It was called with")


@every_exercise
def test_a_value_instead_of_a_function(exercise: Exercise) -> None:
    assert message_for(exercise, 0.5).startswith("Give the check your function itself, not 0.5")


@every_exercise
def test_a_function_that_stops(exercise: Exercise) -> None:
    def divide(*inputs: Any) -> float:
        return 1 / 0

    message = message_for(exercise, divide)
    assert message.startswith("divide stopped with ZeroDivisionError: division by zero.")


@every_exercise
def test_a_function_that_changes_its_input(exercise: Exercise) -> None:
    changed = []

    def in_place(*inputs: Any) -> Any:
        result = exercise.solution(*inputs)
        changed.extend(change(value) for value in inputs)
        return result

    try:
        exercise(in_place)
    except Wrong as error:
        assert any(changed)
        assert str(error) == "in_place changes its input: work on a copy"
    else:
        assert not any(changed), "a changed input was not noticed"


def change(value: Any) -> bool:
    """Change an array, a tensor or a list in place, and return whether that was possible."""
    if isinstance(value, list):
        value.append(value[0])
    elif isinstance(value, np.ndarray | torch.Tensor):
        with torch.no_grad():
            value[...] = ~value if value.dtype in (bool, torch.bool) else value + 1
    return isinstance(value, list | np.ndarray | torch.Tensor)


@every_exercise
def test_a_result_of_another_shape(exercise: Exercise) -> None:
    def nested(*inputs: Any) -> Any:
        return [[exercise.solution(*inputs)]]

    message = message_for(exercise, nested)
    if exercise.parse is None:
        assert re.search("should (have shape|be one number)", message)
        assert re.search("yours (is|has shape)", message)
    else:
        assert "stopped with" not in message


@pytest.mark.parametrize("result", [..., "a", {}, object()], ids=["...", "text", "dict", "object"])
@every_exercise
def test_a_result_that_is_not_a_number(exercise: Exercise, result: Any) -> None:
    message = message_for(exercise, lambda *inputs: result)
    assert re.search("(?i)should|return", message) and "stopped with" not in message


@every_exercise
def test_the_message_does_not_tell_the_answer(exercise: Exercise) -> None:
    expected = []

    def large(*inputs: Any) -> Any:
        expected.append(checks.numbers(exercise._parsed(exercise.solution(*inputs), inputs)))
        return np.full(expected[-1].shape, 987654.0)

    message = message_for(exercise, large)
    numbers = [float(number) for number in re.findall(r"\d+\.\d+(?:e[+-]\d+)?", message)]
    answer = expected[-1][expected[-1] % 1 != 0]
    assert not any(np.isclose(number, abs(answer), rtol=1e-2).any() for number in numbers)
