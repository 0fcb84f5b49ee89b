"""Runs in this process: what foreach, when and loop mean, repetition, time limits, and what a failure shows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from api.errors import InvalidArgument
from operators import foreach, loop, matrix, pipeline, task, when
from operators.authoring.local_run import run_here
from operators.errors import UserError
from operators.values import values_at
from tests.operators.authoring.small_tasks import add, double, numbers, states


@task
def say(word: str) -> str:
    return word


def test_ten_steps_hand_on_what_they_return() -> None:
    @pipeline
    def chain(start: int = 1) -> Any:
        found: Any = start
        for _ in range(10):
            found = double(found)
        return found

    assert chain.run() == 1024
    assert chain.run(start=3) == 3072


def test_a_task_outside_of_a_pipeline_is_its_function() -> None:
    assert double(21) == 42


def test_tables_and_arrays_pass_as_what_they_are() -> None:
    @task
    def table() -> pd.DataFrame:
        return pd.DataFrame({"a": [1, 2]})

    @task
    def array(rows: pd.DataFrame) -> np.ndarray:
        assert isinstance(rows, pd.DataFrame)
        return rows["a"].to_numpy() * 2

    @pipeline
    def flow() -> Any:
        return array(table())

    np.testing.assert_array_equal(flow.run(), [2, 4])


def test_a_step_cannot_change_what_another_is_given() -> None:
    @task
    def spoil(rows: list[int]) -> None:
        rows.clear()

    @pipeline
    def flow() -> Any:
        rows = numbers(3)
        spoil(rows)
        return add(rows)

    assert flow.run() == 3


def test_foreach_keeps_the_order_and_goes_over_anything_that_is_a_list() -> None:
    @pipeline
    def flow(given: list[int]) -> Any:
        return {
            "param": foreach(double, given),
            "output": foreach(double, numbers(3)),
            "const": foreach(double, [5, 6]),
            "range": foreach(double, range(2)),
            "nothing": foreach(double, numbers(0)),
        }

    assert flow.run(given=[3, 1, 2]) == {
        "param": [6, 2, 4],
        "output": [0, 2, 4],
        "const": [10, 12],
        "range": [0, 2],
        "nothing": [],
    }


def test_nested_foreach_gathers_lists_of_lists() -> None:
    @task
    def pair(outer: int, inner: int) -> list[int]:
        return [outer, inner]

    @pipeline
    def flow() -> Any:
        def row(size: Any) -> Any:
            cells = foreach(lambda cell: pair(size, cell), numbers(size))
            return {"cells": cells, "sum": add(numbers(size))}

        return foreach(row, numbers(3))

    assert flow.run() == [
        {"cells": [], "sum": 0},
        {"cells": [[1, 0]], "sum": 0},
        {"cells": [[2, 0], [2, 1]], "sum": 1},
    ]


def test_a_matrix_gives_every_combination_by_name() -> None:
    @task
    def join(a: int, b: str, c: str) -> str:
        return f"{a}{b}{c}"

    @pipeline
    def flow() -> Any:
        return foreach(join, matrix(a=numbers(2), b=["x", "y"]), c="!")

    assert flow.run() == ["0x!", "0y!", "1x!", "1y!"]


def test_only_the_chosen_branch_runs_and_its_value_counts() -> None:
    @pipeline
    def flow(n: int) -> Any:
        chosen = when(double(n) > 5, lambda: say("large"), lambda: say("small"))
        return {"chosen": double(chosen), "const": when(n == 1, lambda: "one", lambda: "many")}

    assert flow.run(n=3) == {"chosen": "largelarge", "const": "many"}
    report = run_here(flow, {"n": 1})
    assert report.result == {"chosen": "smallsmall", "const": "one"}
    assert (states(report)["say"], states(report)["say-2"]) == ("SKIPPED", "SUCCEEDED")


def test_what_needs_a_skipped_step_is_skipped_and_the_list_leaves_it_out() -> None:
    @pipeline
    def flow(n: int) -> Any:
        lonely = when(n > 5, lambda: say("large"))
        double(lonely)

        def odd_one(x: Any) -> Any:
            return when(x > 1, lambda: double(x))

        return {"kept": foreach(odd_one, numbers(4)), "mapped": when(n > 5, lambda: foreach(double, [1]), lambda: 0)}

    report = run_here(flow, {"n": 1})
    assert report.result == {"kept": [4, 6], "mapped": 0}
    found = states(report)
    assert (found["say"], found["double"]) == ("SKIPPED", "SKIPPED")
    assert [found[f"odd_one.double[{at}]"] for at in range(4)] == ["SKIPPED", "SKIPPED", "SUCCEEDED", "SUCCEEDED"]


def test_conditions_can_be_joined() -> None:
    @pipeline
    def flow(n: int) -> Any:
        both = (double(n) >= 4) & ~(double(n) == 6)
        return when(both | double(n).is_in([100]), lambda: say("yes"), lambda: say("no"))

    assert [flow.run(n=n) for n in (1, 2, 3, 4, 50)] == ["no", "yes", "no", "yes", "yes"]


def test_a_loop_ends_when_it_may_and_at_its_bound() -> None:
    @task
    def halve(state: dict[str, float]) -> dict[str, float]:
        return {"loss": state["loss"] / 2}

    @pipeline
    def flow(goal: float) -> Any:
        return loop(halve, {"loss": 1.0}, until=lambda state: state["loss"] <= goal, most=4)

    assert flow.run(goal=0.25) == {"loss": 0.25}
    assert flow.run(goal=0.0) == {"loss": 0.0625}
    found = states(run_here(flow, {"goal": 0.25}))
    assert [found[f"halve-{number}"] for number in (1, 2, 3, 4)] == ["SUCCEEDED", "SUCCEEDED", "SKIPPED", "SKIPPED"]


def test_a_loop_of_several_steps_and_a_task_that_decides() -> None:
    @task
    def enough(x: int) -> bool:
        return x > 10

    @pipeline
    def flow() -> Any:
        def grow(x: Any) -> Any:
            return add([double(x), 1])

        return loop(grow, 1, until=enough, most=6)

    assert flow.run() == 15
    assert states(run_here(flow, {}))["grow-4.add"] == "SKIPPED"


def test_a_pipeline_within_a_pipeline_is_a_group() -> None:
    @pipeline
    def inner(x: int, times: int = 1) -> Any:
        return double(x)

    @pipeline
    def outer() -> Any:
        return [inner(1), inner(2), foreach(inner, [3, 4], times=2)]

    report = run_here(outer, {})
    assert report.result == [2, 4, [6, 8]]
    assert [step.group for step in report.graph.steps] == ["inner", "inner-2", "inner-3"]


def test_parameters_are_judged_before_anything_runs() -> None:
    @pipeline
    def flow(n: int, rate: float = 1, word: str = "") -> Any:
        return [double(rate), say(word)]

    with pytest.raises(InvalidArgument) as refused:
        flow.run(n="many", words="x", rate=[1])
    assert {fault.field for fault in refused.value.violations} == {"params.n", "params.words", "params.rate"}
    for odd in ("{{ 7*7 }}", "$(id)", "%(x)s", "a\nb", "$ref"):
        assert flow.run(n=1, word=odd) == [2.0, odd]
    assert isinstance(flow.run(n=1)[0], float)


def test_two_runs_say_the_same_and_have_the_same_digests(tmp_path: Path) -> None:
    @pipeline
    def flow(n: int = 3) -> Any:
        return add(foreach(double, numbers(n)))

    one = run_here(flow, {})
    other = run_here(flow, {}, values=values_at(str(tmp_path)))
    assert one.events == other.events
    assert one.digests() == other.digests()
    assert run_here(flow, {"n": 4}).digests() != one.digests()


def test_kept_values_can_be_read_after_the_run(tmp_path: Path) -> None:
    @pipeline
    def flow() -> Any:
        return numbers(3)

    values = values_at(str(tmp_path))
    report = run_here(flow, {}, values=values)
    (digest,) = report.digests().values()
    assert any(digest.removeprefix("sha256:")[2:] in path.name for path in tmp_path.rglob("*"))


def test_an_output_without_the_wanted_name_says_what_it_has() -> None:
    @pipeline
    def flow() -> Any:
        return double(say("x")["auc"])

    with pytest.raises(UserError, match="there is no 'auc' in the output"):
        flow.run()


def test_going_over_too_much_is_refused_while_it_runs() -> None:
    @pipeline
    def flow() -> Any:
        return foreach(double, matrix(a=numbers(200), b=numbers(200)))

    with pytest.raises(UserError, match="comes to 40000 items, at most 10000"):
        flow.run()


def test_going_over_what_is_no_list_is_refused() -> None:
    @pipeline
    def flow() -> Any:
        return foreach(double, say("abc"))

    with pytest.raises(UserError, match="needs a list to go over, not str"):
        flow.run()
