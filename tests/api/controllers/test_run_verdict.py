"""A run that failed or was killed says why in its status: evidence from its task, its job's folder or Airflow."""

import json
from pathlib import Path
from typing import Any

from api.cli.explain import verdict_of
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.run_names import job_name
from tests.api.controllers.test_pipeline_run import FAILED, KILLED, RUNNING, SUCCEEDED, begun

USER, SYSTEM = wire.PIPELINE_RUN_EXCEPTION_TYPE_USER, wire.PIPELINE_RUN_EXCEPTION_TYPE_SYSTEM
AT = {"file": "/code/flights.py", "line": 31, "function": "examples", "text": "frame['delay']", "source": ["  31 x"]}
EXCEPTION = {"chain": [{"type": "ZeroDivisionError", "bases": [], "message": "by zero", "frames": [AT]}], "at": AT}


def began(code: str, packages: str = "sha256:1") -> dict[str, Any]:
    return {
        "environment": {"python": "3.11.7", "machine": "Linux", "packages": packages},
        "code": {"root": "/code", "digest": f"sha256:{code}", "files": {"flights.py": code}},
        "memory": {"mib": 1000, "set_by": "the machine"},
    }


def note(world: Any, dag_run: Any, task: str, **files: Any) -> Path:
    """Leave files in the folder of a task's job."""
    folder: Path = world.config.jobs_path / job_name(dag_run.dag_id, dag_run.run_id, task)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


async def ended(world: Any, state: int = FAILED, name: str = "one") -> tuple[Any, dict[str, Any]]:
    run = await world.until("PipelineRun", name, lambda found: found.status.state == state)
    found = verdict_of(run)
    assert found is not None
    return run, found


async def test_what_a_task_pushed_is_judged(world: Any) -> None:
    await world.ready()
    evidence = {"exception": EXCEPTION, "began": began("a"), "log": ["reading"], "ended": {"code": 1}}
    told: Any = {"kind": "system", "message": "ZeroDivisionError: by zero", "evidence": evidence}
    world.airflow.finish(await begun(world), fail="first", verdict=told)
    run, found = await ended(world)
    assert (found["class"], found["certainty"], found["step"]) == ("USER_CODE", "CERTAIN", "first")
    assert run.status.exception_type == USER
    assert run.status.error_message == "first: ZeroDivisionError: by zero"
    assert found["evidence"]["exception"]["at"]["line"] == 31
    assert found["evidence"]["log"] == ["reading"]
    assert found["lastGreenRun"] == ""
    assert found["next"] == "ma pipeline-run logs one -n flights --step first"


async def test_a_job_that_could_not_speak_is_judged_by_what_it_left(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    killed = {"signal": "SIGKILL", "oom_kills": {"cgroup": 1}}
    note(world, dag_run, "first", began=began("a"), ended=killed, spec={}, curve={"points": [[1, 9, 5]]})
    world.airflow.finish(dag_run, fail="first")
    run, found = await ended(world)
    assert (found["class"], found["rule"]) == ("OUT_OF_MEMORY", "kernel-killed-it")
    assert found["evidence"]["curve"] == [[1, 9, 5]]
    assert run.status.exception_type == SYSTEM
    assert run.status.error_message.startswith("first: SIGKILL")


async def test_a_task_that_left_nothing_is_judged_by_what_airflow_knows(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    detail = [
        {"exc_type": "RuntimeError", "exc_value": "cannot", "frames": [], "is_cause": False},
        {"exc_type": "ModuleNotFoundError", "exc_value": "No module named 'x'", "frames": [{"filename": "a.py"}]},
    ]
    dag_run.tasks["first", -1].log = [{"event": "begins"}, {"event": "Task failed", "error_detail": detail}]
    world.airflow.finish(dag_run, fail="first")
    run, found = await ended(world)
    assert (found["class"], found["evidence"]["log"]) == ("ENVIRONMENT", ["begins", "Task failed"])
    assert run.status.error_message == "first: ModuleNotFoundError: No module named 'x'"


async def test_a_line_of_the_user_in_airflows_log_is_found(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    inside = "/venv/lib/python3.11/site-packages/pandas/core/frame.py"
    frames = [{"filename": "/code/mine.py", "lineno": 4, "name": "load"}, {"filename": inside, "lineno": 9}]
    detail = [{"exc_type": "TypeError", "exc_value": "no", "frames": frames, "is_cause": False}]
    dag_run.tasks["first", -1].log = [{"event": "Task failed", "error_detail": detail}]
    world.airflow.finish(dag_run, fail="first")
    _, found = await ended(world)
    assert (found["class"], found["grounds"][0]) == (
        "USER_CODE",
        "TypeError at /code/mine.py:4, in the project's own code",
    )


async def test_a_worker_that_airflow_no_longer_hears_is_the_platforms_trouble(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    lost = {"event": "heartbeat timeout", "extra": "Task did not emit heartbeat within time limit (30 seconds)"}
    dag_run.tasks["first", -1].events = [{"event": "running", "extra": None}, lost]
    world.airflow.finish(dag_run, fail="first")
    run, found = await ended(world)
    assert (found["class"], found["certainty"]) == ("PLATFORM", "CERTAIN")
    assert found["next"] == "ma status"
    assert run.status.exception_type == SYSTEM


async def test_a_verdict_names_what_differs_from_the_last_green_run(world: Any) -> None:
    await world.ready()
    for name, rows in (("older", 5), ("green", 10)):
        dag_run = await begun(world, name, rows=rows)
        dag_run.tasks["first", -1].xcoms["inputs"] = {"dataset_uri": f"file:///data/{dag_run.run_id}/v1"}
        note(world, dag_run, "first", began=began("a"))
        world.airflow.finish(dag_run)
        await world.until("PipelineRun", name, lambda found: found.status.state == SUCCEEDED)
    environments = world.config.jobs_path / ".environments"
    environments.mkdir()
    (environments / "1.json").write_text('["pandas-2.3.2", "ray-2.60.0"]')
    (environments / "2.json").write_text('["pandas-2.3.3", "ray-2.60.0"]')
    dag_run = await begun(world, rows=20)
    dag_run.tasks["first", -1].xcoms["inputs"] = {"dataset_uri": f"file:///data/{dag_run.run_id}/v2"}
    note(world, dag_run, "first", began=began("b", "sha256:2"), ended={"signal": "SIGKILL"})
    world.airflow.finish(dag_run, fail="first")
    _, found = await ended(world)
    assert found["lastGreenRun"] == "green"
    assert [tuple(one.values()) for one in map(ordered, found["differences"])] == [
        ("code", "flights.py", "a", "b"),
        ("params", "rows", "10", "20"),
        ("data", "first.dataset_uri", "file:///data/RUN/v1", "file:///data/RUN/v2"),
        ("environment", "pandas", "2.3.2", "2.3.3"),
    ]


def ordered(one: dict[str, str]) -> dict[str, str]:
    return {name: one[name] for name in ("part", "name", "was", "is")}


async def test_a_killed_run_says_who_asked_and_where_it_was(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.advance(dag_run)
    world.airflow.advance(dag_run)
    await world.until("PipelineRun", "one", lambda found: found.status.state == RUNNING)
    note(world, dag_run, "first", began=began("a"), curve={"points": [[1, 9, 5]]})
    await world.change("PipelineRun", "one", lambda run: setattr(run.spec, "kill", True))
    _, found = await ended(world, KILLED)
    assert (found["class"], found["step"]) == ("KILLED", "first")
    assert found["evidence"]["curve"] == [[1, 9, 5]]


async def test_an_end_without_a_task_has_a_verdict_by_its_reason(world: Any) -> None:
    await world.ready()
    world.airflow.lose(await begun(world, "lost"))
    world.airflow.mark(await begun(world, "marked"), "failed")
    found = {name: (await ended(world, FAILED, name))[1] for name in ("lost", "marked")}
    assert {name: one["class"] for name, one in found.items()} == {"lost": "PLATFORM", "marked": "KILLED"}


async def test_a_run_that_begins_again_has_no_verdict(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.finish(dag_run, fail="first", verdict={"kind": "user", "message": "no rows"})
    await ended(world)
    world.airflow.clear(dag_run)
    world.airflow.advance(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == RUNNING)
    assert verdict_of(run) is None
    world.airflow.finish(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    assert verdict_of(run) is None
