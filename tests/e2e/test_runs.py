"""What happens to runs on a real Airflow: killed, retried, gone on from, and changed by somebody in Airflow's UI."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

import psutil
import pytest

from api.airflow import Airflow
from api.controllers.attempts import attempt_of, condition_of
from api.gen.michelangelo.api import conditions_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from operators.engines.processes import MARK
from tests.e2e.flights_platform import PROJECT, SUCCEEDED, Flights, eventually
from tests.patience import soon

TRUE = conditions_pb2.CONDITION_STATUS_TRUE
KILL_S = 3.0


def jobs_of(flights: Flights) -> list[int]:
    """Return the processes of all jobs on this platform, in whatever session they are."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mark = process.environ().get(MARK, "")
            if mark.startswith(str(flights.config.home)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def in_airflow(flights: Flights, work: Callable[[Airflow], Coroutine[Any, Any, Any]]) -> Any:
    """Do something as a person does in Airflow's UI."""

    async def whole() -> Any:
        airflow = Airflow(flights.config.airflow_url)
        try:
            return await work(airflow)
        finally:
            await airflow.close()

    return asyncio.run(whole())


def started(flights: Flights, name: str, *settings: str) -> Any:
    """Start a run and wait until a job of it works."""
    given = [part for setting in settings for part in ("--set", setting)]
    ended = flights.ma("pipeline", "run", "train", "-n", PROJECT, "--name", name, *given)
    assert ended.code == 0, ended.err
    eventually(lambda: jobs_of(flights), "a job", timeout_s=soon(30))
    return eventually(
        lambda: run if (run := flights.run(name)).status.state == wire.PIPELINE_RUN_STATE_RUNNING else None, "the run"
    )


@pytest.mark.robustness
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_killed_run_leaves_no_process_behind(flights: Flights, engine: str) -> None:
    name = f"killed-{engine}"
    started(flights, name, f"engine={engine}")
    time.sleep(1.0 if engine == "local" else 6.0)
    assert jobs_of(flights)
    run = flights.run(name)
    run.spec.kill = True
    began = time.monotonic()
    flights.api.update(run)
    while jobs_of(flights):
        assert time.monotonic() - began < soon(KILL_S), "its job works on"
        time.sleep(0.01)
    print(f"\n{engine}: the last process of the job was gone {time.monotonic() - began:.2f} s after the call")
    assert flights.until_ended(name).status.state == wire.PIPELINE_RUN_STATE_KILLED
    assert flights.ma("pipeline-run", "kill", name, "-n", PROJECT).code == 0, "once more is no error"


@pytest.mark.robustness
def test_a_step_of_a_finished_run_is_done_again_with_what_follows(flights: Flights) -> None:
    name = flights.first_run
    before = {step.name: step for step in flights.run(name).status.steps}
    ended = flights.ma("pipeline-run", "retry", name, "-n", PROJECT, "--step", "evaluate", "--wait", timeout_s=300)
    assert ended.code == 0, f"{ended.out}{ended.err}"
    run = flights.run(name)
    assert (run.status.state, attempt_of(run)) == (SUCCEEDED, 2)
    tries = {step.name: list(step.attempt_ids) for step in run.status.steps}
    again = {step: len(found) for step, found in tries.items() if len(found) > 1}
    assert again == {"evaluate": 2, "register_model": 2, "deploy_model": 2}
    step = next(step for step in run.status.steps if step.name == "evaluate")
    (detail,) = step.attempt_details
    assert detail.step_info.state == wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED
    assert detail.step_info.end_time == before["evaluate"].end_time
    assert step.start_time.ToNanoseconds() > before["evaluate"].end_time.ToNanoseconds()
    refused = flights.ma("pipeline-run", "retry", name, "-n", PROJECT, "--step", "nobody")
    assert refused.code == 1
    assert "the run's steps: deploy_model, evaluate" in refused.err


@pytest.mark.robustness
def test_a_run_goes_on_from_an_earlier_one(flights: Flights) -> None:
    source = flights.first_run
    resume = ("pipeline-run", "resume", source, "-n", PROJECT)
    ended = flights.ma(
        *resume, "--from", "evaluate", "--up-to", "evaluate", "--name", "goes-on", "--wait", timeout_s=300
    )
    assert ended.code == 0, f"{ended.out}{ended.err}"
    run, first = flights.run("goes-on"), flights.run(source)
    states = {step.name: (step.state, step.message) for step in run.status.steps}
    assert states["evaluate"][0] == wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED
    for name in ("materialize_features", "prepare_dataset", "train"):
        assert states[name][0] == wire.PIPELINE_RUN_STEP_STATE_SKIPPED
        assert states[name][1].startswith(f"taken over from {source}")
    assert states["register_model"] == (
        wire.PIPELINE_RUN_STEP_STATE_SKIPPED,
        "not asked for: the run stops before it",
    )
    outputs = [{step.name: step for step in each.status.steps}["train"].output["model_uri"] for each in (first, run)]
    assert outputs[0] == outputs[1]
    refused = flights.ma(*resume, "--from", "evalaute")
    assert refused.code == 1
    assert "did you mean 'evaluate'?" in refused.err


@pytest.mark.robustness
def test_what_a_person_does_in_airflow_is_followed_and_said(flights: Flights) -> None:
    name = "touched"
    run = started(flights, name)
    dag_id, run_id = run.status.workflow_id, run.status.workflow_run_id
    in_airflow(flights, lambda airflow: airflow.fail_run(dag_id, run_id))
    run = flights.until_ended(name)
    assert run.status.state == wire.PIPELINE_RUN_STATE_FAILED
    in_airflow(flights, lambda airflow: airflow.clear(dag_id, run_id, "materialize_features"))
    run = eventually(lambda: found if attempt_of(found := flights.run(name)) == 2 else None, "the next attempt")
    assert condition_of(run, "ExternallyChanged").status == TRUE
    log = flights.ma("audit", "list", "-n", PROJECT, "--name", name, "--subject", "system:airflow")
    assert "UpdateStatus" in log.out, f"{log.out}{log.err}"
    in_airflow(flights, lambda airflow: airflow.fail_run(dag_id, run_id))
    in_airflow(flights, lambda airflow: airflow.delete_run(dag_id, run_id))
    run = flights.until_ended(name)
    assert run.status.state == wire.PIPELINE_RUN_STATE_FAILED
