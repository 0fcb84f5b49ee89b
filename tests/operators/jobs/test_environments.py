"""Environments of steps: built once by pip from a folder of wheels, used by jobs, never used half-built."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from operators.engines.base import JobResult, JobSpec, JobState
from operators.engines.local import LocalEngine
from operators.jobs.environments import READY
from tests.operators.wheels import wheel
from tests.patience import soon

PROGRAMS = Path(__file__).parents[2] / "ports" / "engine_programs"


class Place:
    """A home with an engine, and wheels that its environments are made of."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.wheels = home / "wheels"
        self.engine = LocalEngine(home / "jobs")

    def submit(self, job_id: str, *requirements: str, module: str = "tiny", **more: Any) -> None:
        environment = more or {"requirements": list(requirements)}
        self.engine.submit(JobSpec(job_id, "versions", {"module": module}, environment=environment))

    def ended(self, job_id: str) -> JobResult:
        return asyncio.run(asyncio.wait_for(self.engine.wait(job_id), soon(60)))

    def run(self, job_id: str, *requirements: str, **more: Any) -> JobResult:
        self.submit(job_id, *requirements, **more)
        return self.ended(job_id)

    def built(self) -> list[Path]:
        """The environments that are whole."""
        return [path.parent for path in (self.home / "environments").glob(f"*/{READY}")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(tmp_path)
    for name, value in {
        "MA_HOME": str(tmp_path),
        "PYTHONPATH": f"{PROGRAMS}{os.pathsep}{Path.cwd()}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(made.wheels),
        "PIP_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    made.wheels.mkdir()
    yield made
    for job in (tmp_path / "jobs").glob("[!.]*"):
        made.engine.cancel(job.name)


def test_two_jobs_at_once_build_one_environment_and_run_in_it(place: Place) -> None:
    wheel(place.wheels, "tiny", "1.0", needs="other")
    wheel(place.wheels, "other", "2.0")
    place.submit("a", "tiny==1.0")
    place.submit("b", "tiny==1.0")
    found = [place.ended("a"), place.ended("b")]
    assert [each.state for each in found] == [JobState.SUCCEEDED] * 2, place.engine.log("a") + place.engine.log("b")
    (built,) = place.built()
    assert [dict(each.outputs) for each in found] == [{"version": "1.0", "prefix": str(built)}] * 2
    logs = [place.engine.log(job) for job in "ab"]
    assert sorted("building environment of tiny==1.0" in log for log in logs) == [False, True]

    assert place.run("c", "tiny==1.0").outputs["prefix"] == str(built)
    assert "Successfully" not in place.engine.log("c")


def test_what_is_pinned_comes_before_what_the_platform_brings(place: Place) -> None:
    wheel(place.wheels, "cronsim", "0.1")
    found = place.run("a", "cronsim==0.1", module="cronsim")
    assert (found.state, found.outputs.get("version")) == (JobState.SUCCEEDED, "0.1"), place.engine.log("a")


def test_what_cannot_be_installed_is_told_with_pips_words(place: Place) -> None:
    found = place.run("a", "nowhere==3")
    assert (found.state, found.kind) == (JobState.FAILED, "user")
    assert found.message.startswith("the environment of nowhere==3 cannot be installed: ")
    assert "nowhere==3" in found.message.partition("installed: ")[2]
    told = place.engine.evidence("a")
    assert told["exception"]["chain"][0]["type"] == "operators.errors.NotProvided"
    assert any("ERROR: No matching distribution found for nowhere==3" in line for line in told["log"])
    assert not place.built()
    wheel(place.wheels, "nowhere", "3")
    assert place.run("a", "nowhere==3", module="nowhere").state is JobState.SUCCEEDED, "it is built when it can be"


def test_an_environment_of_a_name_is_one_that_somebody_made(place: Place) -> None:
    found = place.run("a", named="mine")
    named = place.home / "environments" / "named" / "mine"
    assert (found.state, found.kind) == (JobState.FAILED, "user")
    assert f"python -m venv {named}" in found.message


@pytest.mark.robustness
def test_one_in_which_the_platform_cannot_run_is_refused_and_not_kept(place: Place) -> None:
    wheel(place.wheels, "psutil", "9", code="raise RuntimeError('not this one')\n")
    found = place.run("a", "psutil==9")
    assert (found.state, found.kind) == (JobState.FAILED, "user")
    assert "the platform cannot run in the environment of psutil==9: RuntimeError: not this one" in found.message
    assert not place.built()


@pytest.mark.robustness
def test_a_named_environment_runs_a_step_with_what_it_has(place: Place) -> None:
    import venv

    named = place.home / "environments" / "named" / "mine"
    venv.EnvBuilder(symlinks=True).create(named)
    (packages,) = named.glob("lib/python3.*/site-packages")
    (packages / "tiny.py").write_text("VERSION = 'hand-made'\n")
    found = place.run("a", named="mine")
    assert dict(found.outputs) == {"version": "hand-made", "prefix": str(named)}, place.engine.log("a")


@pytest.mark.robustness
@pytest.mark.parametrize("end", ["killed", "cancelled"])
def test_a_build_that_was_ended_half_way_is_never_used(place: Place, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip waits for a server that says nothing: the job is ended then, and pip may live on behind it."""
    wheel(place.wheels, "tiny", "1.0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(soon(60))
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setenv("PIP_FIND_LINKS", f"{place.wheels} {address}")
        place.submit("a", "tiny==1.0")
        asked, _ = server.accept()
        with asked:
            if end == "killed":
                process = place.engine._process(place.home / "jobs" / "a")
                assert process is not None
                os.kill(process.pid, signal.SIGKILL)
            else:
                began = time.monotonic()
                place.engine.cancel("a")
                assert time.monotonic() - began < soon(3)
            assert place.ended("a").state is JobState.LOST
            assert not place.built()
            asked.shutdown(socket.SHUT_RDWR)
    monkeypatch.setenv("PIP_FIND_LINKS", str(place.wheels))
    found = place.run("a", "tiny==1.0")
    assert (found.state, found.outputs.get("version")) == (JobState.SUCCEEDED, "1.0"), place.engine.log("a")
    assert len(place.built()) == 1
