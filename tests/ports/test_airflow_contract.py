"""What controllers rely on in Airflow's REST API, over the fake that other tests use and over a real Airflow."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.airflow import Airflow, DagRun
from api.errors import AlreadyExists, InvalidArgument, NotFound
from tests.free_ports import free_ports
from tests.robustness.fakes.airflow import FakeAirflow, FakeDag

DAGS = Path(__file__).with_name("airflow_dags.py")
COMPONENTS = ("scheduler", "dag-processor", "api-server")


@dataclass
class Subject:
    """An Airflow and the way to let a run of it go on."""

    airflow: Airflow
    fake: FakeAirflow | None

    async def until(self, run: DagRun, state: str) -> DagRun:
        deadline = time.monotonic() + 90
        while (now := await self.airflow.run(run.dag_id, run.run_id)).state != state:
            assert time.monotonic() < deadline, f"{run.run_id} is {now.state}, not {state}"
            if self.fake:
                self.fake.advance(self.fake.runs[run.dag_id, run.run_id])
            else:
                await asyncio.sleep(0.2)
        return now

    async def until_task_runs(self, run: DagRun) -> None:
        deadline = time.monotonic() + 90
        while not any(task.state == "running" for task in await self.airflow.tasks(run.dag_id, run.run_id)):
            assert time.monotonic() < deadline
            if self.fake:
                self.fake.advance(self.fake.runs[run.dag_id, run.run_id])
            else:
                await asyncio.sleep(0.2)


def fake() -> FakeAirflow:
    made = FakeAirflow()
    quick: dict[str, Mapping[str, Any]] = {
        "count": {"type": "integer", "minimum": 1, "default": 1},
        "ma": {"type": "object", "default": {}},
    }
    made.dags["contract.quick"] = FakeDag("contract.quick", "airflow_dags.py", ("contract", "spec:1"), quick, ("give",))
    made.dags["contract.slow"] = FakeDag(
        "contract.slow", "airflow_dags.py", ("contract",), {"ma": {"type": "object"}}, ("sleep", "after")
    )
    return made


# As on the platform: two that write at once to a stock Airflow on SQLite now and then end with 500 (ADR 8).
TURNS = """
from airflow.plugins_manager import AirflowPlugin
from operators.one_writer import OneWriterMiddleware

class Turns(AirflowPlugin):
    name = "turns"
    fastapi_root_middlewares = [{"name": "one-writer", "middleware": OneWriterMiddleware}]
"""


def settings(home: Path, port: int) -> dict[str, str]:
    url = f"http://127.0.0.1:{port}"
    wanted = {
        "core__simple_auth_manager_all_admins": "True",
        "core__load_examples": "False",
        "core__dags_folder": str(home / "dags"),
        "core__plugins_folder": str(home / "plugins"),
        "core__dags_are_paused_at_creation": "False",
        "core__execution_api_server_url": f"{url}/execution/",
        "core__parallelism": "2",
        "api__host": "127.0.0.1",
        "api__port": str(port),
        "api__base_url": url,
        "api__workers": "1",
        "api_auth__jwt_secret": "s" * 80,
        "api__secret_key": "s" * 40,
        "scheduler__scheduler_idle_sleep_time": "0.2",
        "workers__min_heartbeat_interval": "1",
        "logging__base_log_folder": str(home / "logs"),
    }
    outside = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    return outside | {"AIRFLOW_HOME": str(home)} | {f"AIRFLOW__{key.upper()}": value for key, value in wanted.items()}


@pytest.fixture(scope="module")
def real_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home, port = tmp_path_factory.mktemp("airflow"), free_ports(1)[0]
    environ = settings(home, port)
    (home / "dags").mkdir()
    shutil.copy(DAGS, home / "dags" / "contract.py")
    (home / "plugins").mkdir()
    (home / "plugins" / "turns.py").write_text(TURNS)
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], env=environ, check=True, capture_output=True, timeout=180)
    started = []
    for name in COMPONENTS:
        with (home / f"{name}.log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [*airflow, name], env=environ, stdout=log, stderr=log, start_new_session=True, cwd=home
                )
            )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


@pytest.fixture(params=["fake", "real"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "fake":
        made = fake()
        airflow = Airflow("http://airflow", transport=httpx.ASGITransport(app=made.app))
        yield Subject(airflow, made)
    else:
        airflow = Airflow(request.getfixturevalue("real_url"))
        deadline = time.monotonic() + 120
        while not await airflow.healthy() or len(await airflow.dags(tags=["contract"])) < 2:
            assert time.monotonic() < deadline, "Airflow did not show the DAGs"
            await asyncio.sleep(0.5)
        yield Subject(airflow, None)
    await airflow.close()


def unique(name: str) -> str:
    return f"ma__{name}-{time.time_ns()}__1"


async def test_a_dag_shows_its_tags_and_the_schemas_of_its_params(subject: Subject) -> None:
    dag = await subject.airflow.dag("contract.quick")
    assert {"contract", "spec:1"} <= set(dag.tags)
    assert dag.file_token
    assert not dag.is_stale
    assert dag.params["count"]["schema"]["minimum"] == 1
    with pytest.raises(NotFound):
        await subject.airflow.dag("contract.none")


async def test_dags_are_found_by_all_of_their_tags(subject: Subject) -> None:
    assert {dag.dag_id for dag in await subject.airflow.dags(tags=["contract"])} == {"contract.quick", "contract.slow"}
    assert [dag.dag_id for dag in await subject.airflow.dags(tags=["contract", "spec:1"])] == ["contract.quick"]


async def test_dags_are_found_by_the_beginning_of_a_tag(subject: Subject) -> None:
    """A plain DAG is found by its tag, and known by its version, its file and when that was read."""
    airflow = subject.airflow
    assert [tag for tag in await airflow.tags("spec:") if tag.startswith("spec:")] == ["spec:1"]
    assert await airflow.tags("no-such-tag") == []
    found = await airflow.dags(["spec:1", "no-such-tag"], match="any")
    assert [dag.dag_id for dag in found] == ["contract.quick"]
    assert found[0].file.endswith(".py")
    assert found[0].parsed is not None
    assert not found[0].unreadable
    version = await airflow.version("contract.quick")
    assert version.number >= 1
    assert version.bundle
    with pytest.raises(NotFound):
        await airflow.version("contract.none")


async def test_asking_twice_to_parse_a_file_is_no_error(subject: Subject) -> None:
    token = (await subject.airflow.dag("contract.quick")).file_token
    await subject.airflow.reparse(token)
    await subject.airflow.reparse(token)


async def test_a_run_goes_under_the_given_id_and_gives_its_states_and_values(subject: Subject) -> None:
    airflow, began = subject.airflow, datetime.now(UTC) - timedelta(seconds=5)
    conf = {"count": 2, "ma": {"owner_uid": "u"}}
    run = await airflow.trigger("contract.quick", unique("values"), conf, "a note")
    assert (run.state, run.conf) == ("queued", conf)
    ended = await subject.until(run, "success")
    assert ended.start is not None
    assert ended.end is not None
    assert ended.due.utcoffset() == timedelta(0)
    (task,) = await airflow.tasks(run.dag_id, run.run_id)
    assert (task.task_id, task.state, task.try_number, task.map_index) == ("give", "success", 1, -1)
    if subject.fake:
        subject.fake.runs[run.dag_id, run.run_id].tasks["give", -1].xcoms.update(
            {"return_value": {"dataset_uri": "file:///d"}, "inputs": {"count": "1"}}
        )
    assert await airflow.xcom(run.dag_id, run.run_id, task, "return_value") == {"dataset_uri": "file:///d"}
    assert await airflow.xcom(run.dag_id, run.run_id, task, "inputs") == {"count": "1"}
    assert await airflow.xcom(run.dag_id, run.run_id, task, "verdict") is None
    assert run.run_id in {recent.run_id for recent in await airflow.recent_runs(began)}
    assert run.run_id not in {recent.run_id for recent in await airflow.recent_runs(datetime.now(UTC))}


async def test_an_id_is_taken_once(subject: Subject) -> None:
    run = await subject.airflow.trigger("contract.quick", unique("once"), {"ma": {"owner_uid": "u"}})
    with pytest.raises(AlreadyExists):
        await subject.airflow.trigger("contract.quick", run.run_id, {"ma": {"owner_uid": "other"}})
    assert (await subject.airflow.run(run.dag_id, run.run_id)).conf == {"ma": {"owner_uid": "u"}}


async def test_a_value_outside_its_schema_is_refused_with_a_reason(subject: Subject) -> None:
    with pytest.raises(InvalidArgument, match="count"):
        await subject.airflow.trigger("contract.quick", unique("bad"), {"count": 0})


async def test_what_is_not_there_is_not_found(subject: Subject) -> None:
    with pytest.raises(NotFound):
        await subject.airflow.trigger("contract.none", unique("none"), {})
    with pytest.raises(NotFound):
        await subject.airflow.run("contract.quick", "ma__none__1")
    with pytest.raises(NotFound):
        await subject.airflow.tasks("contract.quick", "ma__none__1")


async def test_a_running_run_can_be_failed_twice_and_its_tasks_end(subject: Subject) -> None:
    airflow = subject.airflow
    run = await airflow.trigger("contract.slow", unique("kill"), {})
    await subject.until_task_runs(run)
    await airflow.fail_run(run.dag_id, run.run_id)
    await airflow.fail_run(run.dag_id, run.run_id)
    assert (await airflow.run(run.dag_id, run.run_id)).state == "failed"
    states = {task.task_id: task.state for task in await airflow.tasks(run.dag_id, run.run_id)}
    assert states == {"sleep": "failed", "after": "skipped"}


async def test_the_pause_switch_keeps_its_position(subject: Subject) -> None:
    await subject.airflow.pause("contract.slow", True)
    assert (await subject.airflow.dag("contract.slow")).is_paused
    await subject.airflow.pause("contract.slow", False)
    assert not (await subject.airflow.dag("contract.slow")).is_paused


async def test_a_deleted_run_is_not_found(subject: Subject) -> None:
    run = await subject.airflow.trigger("contract.quick", unique("delete"), {})
    await subject.until(run, "success")
    await subject.airflow.delete_run(run.dag_id, run.run_id)
    with pytest.raises(NotFound):
        await subject.airflow.run(run.dag_id, run.run_id)


async def test_a_task_that_is_cleared_is_done_again_with_what_follows_it_and_its_tries_are_kept(
    subject: Subject,
) -> None:
    airflow = subject.airflow
    run = await airflow.trigger("contract.slow", unique("again"), {})
    await subject.until_task_runs(run)
    with pytest.raises(AlreadyExists):
        await airflow.clear(run.dag_id, run.run_id, "sleep")
    await airflow.fail_run(run.dag_id, run.run_id)
    await airflow.clear(run.dag_id, run.run_id, "sleep")
    again = await airflow.run(run.dag_id, run.run_id)
    assert again.state in ("queued", "running")
    assert again.end is None
    await subject.until_task_runs(run)
    tasks = {task.task_id: task for task in await airflow.tasks(run.dag_id, run.run_id)}
    assert (tasks["sleep"].try_number, tasks["after"].state) == (2, None)
    tries = await airflow.tries(run.dag_id, run.run_id, tasks["sleep"])
    assert [(each.try_number, each.state) for each in tries] == [(1, "failed"), (2, "running")]
    assert tries[0].start is not None
    assert tries[0].end is not None
    assert [each.run_id for each in await airflow.active_runs("contract.slow")] == [run.run_id]
    await airflow.fail_run(run.dag_id, run.run_id)
    assert run.run_id not in {each.run_id for each in await airflow.active_runs("contract.slow")}
    with pytest.raises(NotFound):
        await airflow.clear(run.dag_id, "ma__none__1", "sleep")


async def test_a_dag_says_which_task_follows_which_and_how_many_runs_it_has_at_a_time(subject: Subject) -> None:
    assert await subject.airflow.follows("contract.slow") == {"sleep": ("after",), "after": ()}
    assert (await subject.airflow.dag("contract.slow")).max_active_runs == 16


async def test_a_pool_says_how_many_places_it_has(subject: Subject) -> None:
    pool = await subject.airflow.pool("default_pool")
    assert (pool.slots, 0 <= pool.taken <= pool.slots) == (128, True)
    assert await subject.airflow.waiting("no-such-pool") == []
    with pytest.raises(NotFound):
        await subject.airflow.pool("no-such-pool")


async def test_what_airflow_knows_of_a_task_is_its_log_and_its_events(subject: Subject) -> None:
    run = await subject.airflow.trigger("contract.quick", "ma__log__1", {})
    if subject.fake:
        task = subject.fake.runs[run.dag_id, run.run_id].tasks["give", -1]
        task.log = [{"event": "first"}, {"event": "failed", "error_detail": [{"exc_type": "ValueError"}]}]
        task.events = [{"event": "failed", "extra": "why"}]
    await subject.until(run, "success")
    (task_of_run,) = await subject.airflow.tasks(run.dag_id, run.run_id)
    records = await subject.airflow.log_records(run.dag_id, run.run_id, task_of_run)
    assert all(isinstance(record["event"], str) for record in records)
    assert records[0]["event"] in await subject.airflow.task_log(run.dag_id, run.run_id, task_of_run)
    for event in await subject.airflow.events(run.dag_id, run.run_id, task_of_run):
        assert event.keys() == {"event", "extra"}
