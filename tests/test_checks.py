"""The tools that all checks share: comparing, calling, describing, and exercises as data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vislib import checks
from vislib.checks import Exercise, Wrong

# --- Comparing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        pytest.param(
            [torch.tensor(1.0, requires_grad=True), 2.0], np.array([1.0, 2.0]), id="mixed list"
        ),
        pytest.param(((1, 2), (3, 4)), torch.tensor([[1, 2], [3, 4]]), id="nested tuples"),
        pytest.param(torch.tensor([0.5], dtype=torch.bfloat16), [0.5], id="bfloat16"),
        pytest.param(torch.tensor(0.25, requires_grad=True), 0.25, id="tensor with a gradient"),
        pytest.param(np.float32(0.1), 0.1, id="float32"),
    ],
)
def test_numbers_of_any_kind_are_the_same(result, expected):
    checks.same(result, expected, what="it")


@pytest.mark.parametrize(
    ("result", "expected", "message"),
    [
        pytest.param(None, 0.123, "it should be one number, yours is None", id="None"),
        pytest.param(..., 0.123, "it should be one number, yours is Ellipsis", id="Ellipsis"),
        pytest.param("0.123", 0.123, "it should be one number, yours is '0.123'", id="text"),
        pytest.param(
            [0.123], 0.123, r"it should be one number, yours has shape \(1,\)", id="list of one"
        ),
        pytest.param(
            0.5, [0.1, 0.2], r"it should have shape \(2,\), yours is one number", id="one number"
        ),
        pytest.param(
            [[1], [1, 2]],
            [0.1, 0.2],
            r"it should have shape \(2,\), yours is \[\[1\]",
            id="ragged list",
        ),
        pytest.param((x for x in "ab"), [1, 2], "yours is a generator", id="generator"),
        pytest.param(
            np.array([2.0, 4]), np.array([1.0, 2]), "2 times what it should be", id="factor"
        ),
        pytest.param(np.array([1.001, 2.0]), np.array([1.0, 2]), "off by", id="small difference"),
        pytest.param(np.array([-1.0, 2]), np.array([1.0, -2]), "wrong sign", id="sign"),
        pytest.param(np.array([np.nan, 2]), np.array([1.0, 2]), "NaN or infinite", id="NaN"),
    ],
)
def test_a_message_says_what_is_wrong_without_the_answer(result, expected, message):
    with pytest.raises(Wrong, match=message) as error:
        checks.same(result, expected, what="it")
    assert "0.123" not in str(error.value).replace("'0.123'", "")


def test_a_right_answer_is_never_taken_for_a_mistake():
    checks.same(1.0, 1.0, what="it", mistakes={"no": 1.000015}, tolerance=1e-5)
    checks.same(1.000008, 1.0, what="it", mistakes={"no": 1.000015}, tolerance=1e-5)


# --- Calling --------------------------------------------------------------------------------------


def test_a_message_gives_the_arguments_of_the_call():
    with pytest.raises(Wrong, match="It was called with 'guided', a Tensor of shape"):
        checks.call(lambda method, z: None, "guided", torch.ones(2, 3))
    with pytest.raises(Wrong, match="It was called with nothing"):
        checks.call(lambda: None)


def test_lists_must_stay_as_they_are():
    def shorter(pairs):
        return pairs.pop()

    def other(weights):
        weights[0] *= 2
        return weights

    for function, given in [(shorter, [(1, 2), (3, 4)]), (other, [np.ones(3)])]:
        with pytest.raises(Wrong, match="changes its input"):
            checks.call(function, given)


@pytest.mark.parametrize("result", ["yes", None, [True], 0.5, np.nan, {}, [[1], [1, 2]]], ids=repr)
def test_only_a_truth_is_a_truth(result):
    with pytest.raises(Wrong, match="Return True or False, for this map, not"):
        checks.truth(result, "for this map")
    assert checks.truth(torch.tensor(True), "") is True
    assert checks.truth(np.False_, "") is False


# --- Exercises ------------------------------------------------------------------------------------


def exercise(**fields):
    """An exercise about twice a number, with some fields exchanged."""
    usual = {
        "task": "``double(a)``: twice a number.",
        "inputs": lambda: [(1.0,), (2.0,), (3.0,)],
        "solution": lambda a: 2 * a,
        "what": "the result",
        "mistakes": {"This is the square": lambda a: a**2, "Always 2": lambda a: 2.0},
        "praise": "Twice as much.",
    }
    return Exercise(**usual | fields)


def message_for(function, **fields):
    with pytest.raises(Wrong) as error:
        exercise(**fields)(function)
    return str(error.value)


def test_all_trials_must_pass(capsys):
    exercise()(lambda a: a + a)
    assert capsys.readouterr().out == "✓ Twice as much.\n"
    message = message_for(lambda a: min(2 * a, 5))
    assert message == "the result is not right yet: it is off by up to 1"


def test_the_name_of_the_result_may_depend_on_the_arguments():
    message = message_for(lambda a: 3.0, what=lambda a: f"twice {a:g}")
    assert message == "twice 1 is not right yet: it is off by up to 1"


def test_a_mistake_that_stops_on_these_inputs_is_left_out():
    mistakes = {"Never": lambda a: 1 / (a - 1), "This is the square": lambda a: a**2}
    assert message_for(lambda a: a**2, mistakes=mistakes).endswith("This is the square")


def test_a_mistake_that_failed_an_earlier_trial_is_named_last():
    # For 2, both mistakes give the learner's result, but only one of them is right for 1.
    mistakes = {"Always 4.5": lambda a: 4.5, "Above 3": lambda a: 2 * a + 0.5 * (a > 1)}
    assert message_for(lambda a: 2 * a + 0.5 * (a > 1), mistakes=mistakes).endswith("Above 3")


def test_a_mistake_in_one_trial_alone_is_named_too():
    assert message_for(lambda a: 9.0 if a == 3 else 2 * a).endswith("This is the square")


def test_inputs_are_drawn_again_until_all_values_are_distinct(capsys):
    numbers = iter([2.0, 1.0, 3.0, 5.0])
    drawn = []

    def draw():
        drawn.append(next(numbers))
        return (drawn[-1],)

    exercise(inputs=lambda: [draw, draw], distinct=True)(lambda a: 2 * a)
    assert drawn == [2.0, 1.0, 3.0, 5.0]


def test_mistakes_that_are_never_distinct_are_an_error():
    twice = {"One": lambda a: a + 1, "Other": lambda a: 1 + a}
    endless = exercise(inputs=lambda: [lambda: (1.0,)], distinct=True, mistakes=twice)
    with pytest.raises(RuntimeError, match=r"do not tell the mistakes apart: ``double\(a\)``"):
        endless(lambda a: 2 * a)


def test_results_are_parsed_before_they_are_compared(capsys):
    def parse(result, a):
        if not isinstance(result, str):
            raise Wrong(f"Return a text for {a:g}")
        return float(result)

    fields = {"parse": parse, "solution": lambda a: f"{2 * a}", "mistakes": {}}
    exercise(**fields)(lambda a: str(a + a))
    assert message_for(lambda a: 2 * a, **fields) == "Return a text for 1"


def test_an_explanation_replaces_the_largest_difference():
    def explain(result, a):
        return f"For {a:g} yours is {result}"

    assert message_for(lambda a: 7.0, explain=explain) == "For 1 yours is 7.0"
    assert message_for(lambda a: a**2, explain=explain).endswith("This is the square")


def test_further_checks_come_last_and_may_change_the_praise(capsys):
    def of_zero(function):
        if function(0.0) != 0:
            raise Wrong("Twice 0 is 0")
        return "Twice as much, also of 0."

    exercise(extra=of_zero)(lambda a: 2 * a)
    assert capsys.readouterr().out == "✓ Twice as much, also of 0.\n"
    assert message_for(lambda a: 2 * a if a else 1, extra=of_zero) == "Twice 0 is 0"
    assert message_for(lambda a: a**2, extra=of_zero).endswith("This is the square")


def test_a_solution_does_not_see_changes_of_the_learner():
    def changes(a):
        a += 1
        return a

    array = {"inputs": lambda: [(np.ones(3),)], "mistakes": {"In place": changes}}
    assert message_for(changes, **array) == "changes changes its input: work on a copy"
    exercise(**array)(lambda a: 2 * a)
