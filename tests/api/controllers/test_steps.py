"""Tasks of Airflow as steps: groups and mapped tasks are steps of steps."""

from datetime import UTC, datetime
from typing import Any

from api.airflow import Task
from api.controllers.steps import earlier, earlier_tries, nested, settle, step_of
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire

SUCCEEDED, FAILED, RUNNING, PENDING, SKIPPED, KILLED = (
    wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED,
    wire.PIPELINE_RUN_STEP_STATE_FAILED,
    wire.PIPELINE_RUN_STEP_STATE_RUNNING,
    wire.PIPELINE_RUN_STEP_STATE_PENDING,
    wire.PIPELINE_RUN_STEP_STATE_SKIPPED,
    wire.PIPELINE_RUN_STEP_STATE_KILLED,
)


def task(
    task_id: str, state: str | None = "success", *, map_index: int = -1, began: int = 1, try_number: int = 1
) -> Task:
    start = datetime(2026, 1, 1, 0, 0, began, tzinfo=UTC) if state else None
    end = datetime(2026, 1, 1, 0, 1, began, tzinfo=UTC) if state == "success" else None
    return Task(task_id, task_id, map_index, try_number, state, start, end, "Operator")


def tree(*tasks: Task, groups: bool = True) -> list[Any]:
    return nested([(each, step_of(each, "")) for each in tasks], groups=groups)


def shape(steps: Any) -> Any:
    return {step.name: shape(step.sub_steps) for step in steps}


def test_groups_in_groups_and_mapped_tasks_in_them_are_steps_of_steps() -> None:
    steps = tree(
        task("load"),
        task("fit.fold", map_index=0),
        task("fit.fold", map_index=1),
        task("fit.report.draw"),
        task("fit.report.send"),
    )
    assert shape(steps) == {
        "load": {},
        "fit": {
            "fit.fold": {"fit.fold[0]": {}, "fit.fold[1]": {}},
            "fit.report": {"fit.report.draw": {}, "fit.report.send": {}},
        },
    }
    fit = steps[1]
    assert [step.display_name for step in (fit, *fit.sub_steps)] == ["fit", "fold", "report"]
    assert fit.sub_steps[1].sub_steps[0].display_name == "draw"
    assert fit.sub_steps[0].activity_id == "fit.fold"


def test_a_dot_in_the_name_of_an_explicit_step_is_no_group() -> None:
    assert shape(tree(task("load.v1"), task("fit.v1"), groups=False)) == {"load.v1": {}, "fit.v1": {}}


def test_a_step_of_steps_has_their_state_and_their_time() -> None:
    cases: list[tuple[list[str | None], Any]] = [
        (["success", "success"], SUCCEEDED),
        (["success", "failed"], FAILED),
        (["success", None], RUNNING),
        ([None, None], PENDING),
        (["success", "skipped"], SUCCEEDED),
        (["skipped", "skipped"], SKIPPED),
        (["running", None], RUNNING),
    ]
    for states, wanted in cases:
        (group,) = tree(*(task(f"g.{n}", state, began=n) for n, state in enumerate(states, 1)))
        assert group.state == wanted, states
    (group,) = tree(task("g.a", began=3), task("g.b", began=9))
    assert (group.start_time.ToDatetime().second, group.end_time.ToDatetime().second) == (3, 9)
    (group,) = tree(task("g.a", began=3), task("g.b", "running", began=9))
    assert not group.HasField("end_time")


def test_what_a_killed_run_stopped_is_killed_at_every_depth() -> None:
    (group,) = steps = tree(task("g.a"), task("g.b", "running", map_index=0), task("g.b", None, map_index=1))
    settle(steps, wire.PIPELINE_RUN_STATE_KILLED)
    assert group.state == KILLED
    assert [step.state for step in group.sub_steps[1].sub_steps] == [KILLED, SKIPPED]


def test_a_try_that_is_over_is_told_beside_the_present_one() -> None:
    one, two = task("a", "failed"), task("a", "running", try_number=2)
    assert earlier(two, [one, two]) == [one]
    assert earlier_tries(two) == 1
    waits = task("a", "up_for_retry", try_number=2)
    failed = task("a", "failed", try_number=2)
    assert earlier(waits, [one, failed]) == [one, failed]
    assert earlier_tries(waits) == 2
    cleared = task("a", None, try_number=1)
    assert earlier(cleared, [one, cleared]) == [one]
    assert earlier_tries(task("a", None, try_number=0)) == 0
    assert earlier_tries(one) == 0
