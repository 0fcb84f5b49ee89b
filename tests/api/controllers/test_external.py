"""What somebody does to a run in Airflow's UI: the status follows, says so, and the audit log has it."""

from typing import Any

from api.audit import read
from api.controllers.attempts import attempt_of, condition_of
from api.gen.michelangelo.api import conditions_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from tests.api.controllers.test_pipeline_run import FAILED, PENDING, SUCCEEDED, begun

TRUE = conditions_pb2.CONDITION_STATUS_TRUE


async def audited(world: Any) -> list[tuple[str, str, str]]:
    records = [read(record.body) for record in await world.store.audit(0, 1000)]
    return [(entry.subject, entry.verb, entry.name) for entry in records if entry.subject == "system:airflow"]


async def test_a_cleared_run_is_another_attempt_with_a_record(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.finish(dag_run, fail="first")
    await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    assert await audited(world) == []
    world.airflow.clear(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == PENDING)
    assert attempt_of(run) == 2
    assert condition_of(run, "ExternallyChanged").status == TRUE
    assert await audited(world) == [("system:airflow", "UpdateStatus", "one")]


async def test_a_task_that_is_marked_is_told_by_its_name(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.finish(dag_run)
    await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    dag_run.tasks["second", -1].state = "failed"
    world.airflow.mark(dag_run, "failed")
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    assert condition_of(run, "ExternallyChanged").message == "second was marked failed in Airflow"
    assert (await audited(world))[0] == ("system:airflow", "UpdateStatus", "one")


async def test_a_failed_task_that_is_marked_as_done_while_the_run_goes_on_is_followed(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    for _ in range(3):
        world.airflow.advance(dag_run, fail="first")
    step = wire.PIPELINE_RUN_STEP_STATE_FAILED
    await world.until("PipelineRun", "one", lambda found: found.status.steps and found.status.steps[0].state == step)
    dag_run.tasks["first", -1].state = "success"
    dag_run.tasks["second", -1].state = None
    world.airflow.advance(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: condition_of(found, "ExternallyChanged") is not None)
    assert condition_of(run, "ExternallyChanged").message == "first was marked success in Airflow"
    assert run.status.steps[0].state == wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED


async def test_a_run_that_goes_on_by_itself_has_no_such_record(world: Any) -> None:
    await world.ready()
    world.airflow.finish(await begun(world))
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    assert condition_of(run, "ExternallyChanged") is None
    assert await audited(world) == []


async def test_a_run_that_is_marked_or_deleted_while_it_waits_says_so(world: Any) -> None:
    await world.ready()
    world.airflow.mark(await begun(world, "marked"), "failed")
    world.airflow.lose(await begun(world, "deleted"))
    told = {}
    for name in ("marked", "deleted"):
        run = await world.until("PipelineRun", name, lambda found: found.status.state == FAILED)
        told[name] = condition_of(run, "ExternallyChanged").message
    assert told == {
        "marked": "the run was marked failed in Airflow",
        "deleted": "the DAG run was deleted in Airflow",
    }
    assert {name for _, _, name in await audited(world)} == {"marked", "deleted"}
