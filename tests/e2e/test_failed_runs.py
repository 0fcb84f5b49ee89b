"""Runs that fail on a real Airflow say why, are replayed, and the guide to that holds line by line."""

import json
import os
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.cli.explain import verdict_of
from api.client import Client
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kinds import kinds
from api.workflows import STEPS_TYPE, typed
from tests.e2e.conftest import Ma
from tests.e2e.flights_platform import ENDED, Flights, eventually
from tests.pages import blocks_in

GUIDE = "docs/debugging.md"
PROJECT = "failing"
READY = pipeline_pb2.PIPELINE_STATE_READY
USER, SYSTEM = wire.PIPELINE_RUN_EXCEPTION_TYPE_USER, wire.PIPELINE_RUN_EXCEPTION_TYPE_SYSTEM
WIDTH = 80


class Failing:
    """A project whose pipelines fail."""

    def __init__(self, ma: Ma, api: Client) -> None:
        self.ma = ma
        self.api = api

    def apply(self, *steps: dict[str, Any], name: str) -> None:
        new = kinds()["Pipeline"].new(PROJECT, name)
        new.spec.manifest.type = pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_YAML
        new.spec.manifest.content.Pack(typed(STEPS_TYPE, {"steps": list(steps)}))
        before = self.api.find("Pipeline", PROJECT, name)
        old = before.status.latest_revision.name if before else ""
        self.api.apply(new)

        def ready() -> bool:
            status = self.api.get("Pipeline", PROJECT, name).status
            return bool(status.state == READY and status.latest_revision.name != old)

        eventually(ready, f"pipeline {name}", timeout_s=120)

    def start(self, pipeline: str, run: str) -> None:
        ended = self.ma("pipeline", "run", pipeline, "-n", PROJECT, "--name", run)
        assert ended.code == 0, ended.err

    def ended(self, run: str) -> tuple[Any, dict[str, Any]]:
        def look() -> Any:
            found = self.api.get("PipelineRun", PROJECT, run)
            return found if found.status.state in ENDED else None

        found = eventually(look, f"the end of {run}", timeout_s=180)
        verdict = verdict_of(found)
        assert verdict is not None, found
        return found, verdict


def prepare(module: str) -> dict[str, Any]:
    days = {"train_until": "2013-09-30", "validate_until": "2013-10-31"}
    given = {"module": module, "feature_service": "none", "label_column": "late", "sample_fraction": 1, **days}
    return {"name": "prepare", "operator": "prepare_dataset", "retries": 0, "with": given}


@pytest.fixture(scope="module")
def failing(ma: Ma) -> Iterator[Failing]:
    with Client.of(ma.config) as api:
        project = kinds()["Project"].new(PROJECT, PROJECT)
        project.spec.root_dir = "tests/e2e/failing_project"
        api.apply(project)
        made = Failing(ma, api)
        for name in ("raises", "wants", "hangs"):
            made.apply(prepare(name), name=name)
        yield made


def explained(failing: Failing, run: str) -> list[str]:
    told = failing.ma("pipeline-run", "explain", run, "-n", PROJECT)
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    assert all(len(line) <= WIDTH for line in lines), told.out
    return lines


def test_an_exception_of_the_user_is_shown_and_comes_again_at_the_same_line(failing: Failing) -> None:
    failing.start("raises", "raises-1")
    run, verdict = failing.ended("raises-1")
    assert (verdict["class"], run.status.exception_type) == ("USER_CODE", USER)
    assert run.status.error_message == "prepare: ZeroDivisionError: division by zero"
    at = verdict["evidence"]["exception"]["at"]
    assert (Path(at["file"]).name, at["text"]) == ("raises.py", "return of / len(ROWS)")
    assert "reads no rows" in verdict["evidence"]["log"]
    assert verdict["evidence"]["curve"]
    lines = explained(failing, "raises-1")
    assert lines[0] == "raises-1 FAILED in prepare: user code"
    assert any("return of / len(ROWS)" in line for line in lines)
    shown = failing.ma("pipeline-run", "explain", "raises-1", "-n", PROJECT, "-o", "json")
    assert json.loads(shown.out)["rule"] == verdict["rule"]
    words = shlex.split(verdict["next"])
    assert words[:3] == ["ma", "pipeline-run", "replay"]
    again = failing.ma(*words[1:], given="p ROWS\nq\n")
    assert again.code == 1, again.err
    assert "(Pdb) []" in again.out
    assert again.out.splitlines()[-1] == f"reproduced: ZeroDivisionError at raises.py:{at['line']}, as in the run"

    assert failing.ma("pipeline-run", "explain", "none", "-n", PROJECT).code == 1
    assert failing.ma("pipeline-run", "explain", "raises-1", "-n", PROJECT, "-o", "xml").code == 2
    wrong = failing.ma("pipeline-run", "replay", "raises-1", "-n", PROJECT, "--task", "trains")
    assert (wrong.code, wrong.err) == (1, "ma: raises-1 has no task 'trains': it has prepare\n")


def test_a_secret_that_is_missing_is_the_environments(failing: Failing) -> None:
    failing.start("wants", "wants-1")
    run, verdict = failing.ended("wants-1")
    assert (verdict["class"], verdict["next"]) == ("ENVIRONMENT", "printenv WAREHOUSE_PASSWORD_OF_TESTS")
    assert run.status.exception_type == USER


def test_a_job_that_is_killed_is_a_lost_worker_and_a_killed_run_is_none(failing: Failing) -> None:
    place = failing.ma.config.home / "hangs.pid"
    failing.start("hangs", "hangs-1")
    pid = int(eventually(lambda: place.read_text() if place.exists() else "", "the job", timeout_s=120))
    going = explained(failing, "hangs-1")
    assert "RUNNING" in going[0]
    os.kill(pid, signal.SIGKILL)
    run, verdict = failing.ended("hangs-1")
    assert (verdict["class"], verdict["evidence"]["ended"]["signal"]) == ("LOST_WORKER", "SIGKILL")
    assert run.status.exception_type == SYSTEM
    place.unlink()
    failing.start("hangs", "hangs-2")
    eventually(place.exists, "the job", timeout_s=120)
    killed = failing.ma("pipeline-run", "kill", "hangs-2", "-n", PROJECT, "--wait", "--timeout", "120")
    assert killed.code == 0, killed.err
    _, verdict = failing.ended("hangs-2")
    assert (verdict["class"], verdict["step"]) == ("KILLED", "prepare")
    assert verdict["evidence"]["began"]["memory"]["mib"] > 0


def test_what_an_earlier_step_should_have_left_and_what_changed_since_the_green_run(failing: Failing) -> None:
    nothing = {"name": "check", "operator": "deploy_model", "with": {"deployment": "", "model": "none"}}
    failing.apply(nothing, name="changes")
    failing.start("changes", "changes-1")
    eventually(
        lambda: failing.api.get("PipelineRun", PROJECT, "changes-1").status.state in ENDED, "changes-1", timeout_s=120
    )
    given = {"dataset_uri": "/absent/dataset", "label_column": "late", "algorithm": "lightgbm", "seed": 1}
    train = {"name": "check", "operator": "train", "retries": 0, "with": {**given, "hyperparameters": {}}}
    failing.apply(train, name="changes")
    failing.start("changes", "changes-2")
    _, verdict = failing.ended("changes-2")
    assert (verdict["class"], verdict["lastGreenRun"]) == ("UPSTREAM", "changes-1")
    assert "code" in {one["part"] for one in verdict["differences"]}
    lines = explained(failing, "changes-2")
    assert "Different from the last green run, changes-1" in lines


FLOW = """\
import os
import time
from pathlib import Path

from operators import pipeline, task


@task
def rows() -> list[int]:
    return [3, 0]


@task
def ratio(counts: list[int]) -> float:
    late, everything = counts
    return late / everything


@task
def sleeps(folder: str) -> None:
    Path(folder, "slept.new").write_text(str(os.getpid()))
    Path(folder, "slept.new").rename(Path(folder, "slept"))
    time.sleep(600)


@pipeline(name="authored")
def authored(folder: str = "") -> None:
    ratio(rows())


@pipeline(name="asleep")
def asleep(folder: str = "") -> None:
    sleeps(folder)
"""


def pack(failing: Failing, folder: Path, name: str) -> None:
    (folder / "flow.py").write_text(FLOW)
    (folder / "pipeline.yaml").write_text(
        "apiVersion: michelangelo.api/v2\nkind: Pipeline\n"
        f"metadata: {{name: {name}, namespace: {PROJECT}}}\n"
        "spec:\n  manifest:\n    type: PIPELINE_MANIFEST_TYPE_UNIFLOW\n"
        f"    filePath: flow\n    uniflowFunction: {name}\n"
    )
    applied = failing.ma("pipeline", "apply", "-f", str(folder / "pipeline.yaml"))
    assert applied.code == 0, applied.err
    eventually(lambda: failing.api.get("Pipeline", PROJECT, name).status.state == READY, name, timeout_s=120)


def test_a_step_in_python_is_explained_and_replayed(failing: Failing, tmp_path: Path) -> None:
    pack(failing, tmp_path, "authored")
    failing.start("authored", "authored-1")
    run, verdict = failing.ended("authored-1")
    assert (verdict["class"], verdict["step"], run.status.exception_type) == ("USER_CODE", "ratio", USER), verdict
    at = verdict["evidence"]["exception"]["at"]
    assert (Path(at["file"]).name, at["text"]) == ("flow.py", "return late / everything")
    (tmp_path / "flow.py").write_text("edited = True\n")
    again = failing.ma("pipeline-run", "replay", "authored-1", "-n", PROJECT)
    assert again.out.splitlines()[-1] == f"reproduced: ZeroDivisionError at flow.py:{at['line']}, as in the run"


@pytest.mark.robustness
def test_a_component_of_airflow_that_is_lost_is_the_platforms_trouble(failing: Failing, tmp_path: Path) -> None:
    """The task and the worker that looks after it are killed: Airflow hears of neither any more."""
    pack(failing, tmp_path, "asleep")
    ended = failing.ma("pipeline", "run", "asleep", "-n", PROJECT, "--name", "asleep-1", "--set", f"folder={tmp_path}")
    assert ended.code == 0, ended.err
    place = tmp_path / "slept"
    task = psutil.Process(int(eventually(lambda: place.read_text() if place.exists() else "", "it", timeout_s=120)))
    worker = task.parent()
    assert worker is not None
    worker.suspend()
    task.kill()
    worker.kill()
    _, verdict = failing.ended("asleep-1")
    assert verdict["class"] == "PLATFORM", verdict
    assert verdict["evidence"]["curve"]


def test_the_guide_holds(flights: Flights) -> None:
    """Every command of docs/debugging.md in order; `# exit N` says how one ends that does not succeed."""
    commands = [line for block in blocks_in("sh", GUIDE) for line in block.splitlines() if line.strip()]
    assert len(commands) >= 5
    said = ""
    for line in commands:
        command, _, comment = line.partition("#")
        words = shlex.split(command)
        assert words[0] == "ma", line
        ended = flights.ma(*words[1:], timeout_s=300, given="q\n")
        wanted = re.search(r"exit (\d+)", comment)
        assert ended.code == (int(wanted[1]) if wanted else 0), f"{line}\n{ended.out}\n{ended.err}"
        said += ended.out
    for line in (
        line for block in blocks_in("text", GUIDE) for line in block.splitlines() if line.strip() and "…" not in line
    ):
        assert line.rstrip() in said, f"{line!r} was not said:\n{said}"
