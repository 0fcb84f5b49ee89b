"""What a step asks Ray for; and a step on a cluster that was there before it: `make robustness`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from operators.engines.base import JobSpec, JobState
from operators.engines.ray import RayEngine
from operators.jobs.run_on_ray import asked, lacking
from tests.patience import soon

PROGRAMS = Path(__file__).parents[2] / "ports" / "engine_programs"
THERE = {"CPU": 2.0, "memory": 4.0 * 2**30, "node:127.0.0.1": 1.0}


def test_what_a_step_asks_for_is_said_as_ray_says_it() -> None:
    assert asked({}) == {"max_retries": 0}
    said = asked({"cpu": 0.5, "gpu": 1, "memory": 512})
    assert said == {"max_retries": 0, "num_cpus": 0.5, "num_gpus": 1, "memory": 512 * 2**20}


def test_what_ray_has_too_little_of_is_named() -> None:
    assert lacking({"cpu": 2, "memory": 4096}, THERE) == ""
    assert lacking({"cpu": 3, "memory": 5000, "gpu": 1}, THERE) == (
        "3 cores, there are 2; 5000 MiB of memory, there are 4096; 1 GPUs, there are 0"
    )


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray of one node with 3 cores, started as people start it; its processes end with the test."""
    head = (
        "import ray, sys\n"
        "found = ray.init(address='local', num_cpus=3, include_dashboard=False)\n"
        "print(found.address_info['gcs_address'], flush=True)\n"
        "sys.stdin.read()\n"
    )
    for name, value in {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-of-this-test" * 3}.items():
        monkeypatch.setenv(name, value)
    environ = {**os.environ, "PYTHONPATH": f"{PROGRAMS}{os.pathsep}{Path.cwd()}"}
    with subprocess.Popen(
        [sys.executable, "-c", head], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        monkeypatch.setenv("MA_RAY_ADDRESS", address)
        monkeypatch.setenv("PYTHONPATH", environ["PYTHONPATH"])
        yield address
        process.communicate("", timeout=soon(30))


def run(engine: RayEngine, spec: JobSpec, seconds: float) -> None:
    engine.submit(spec)
    deadline = time.monotonic() + soon(seconds)
    while engine.result(spec.job_id).state is JobState.RUNNING:
        assert time.monotonic() < deadline, engine.log(spec.job_id)
        time.sleep(0.1)


@pytest.mark.robustness
def test_a_step_runs_on_a_cluster_with_what_it_asks_for_and_is_killed_with_its_worker(
    tmp_path: Path, cluster: str
) -> None:
    engine = RayEngine(tmp_path / "jobs")
    args = {name: str(tmp_path / name) for name in ("ran", "pids", "until")}
    run(engine, JobSpec("echo", "echo", args, resources={"cpu": 3}), 60)
    found = engine.result("echo")
    assert found.state is JobState.SUCCEEDED, engine.log("echo")
    assert json.loads(found.outputs["resources"]) == {"CPU": 3.0}
    assert "hello" in engine.log("echo")

    engine.submit(JobSpec("family", "family", args, resources={"cpu": 1}))
    deadline = time.monotonic() + soon(60)
    while not Path(args["pids"]).exists():
        assert time.monotonic() < deadline, engine.log("family")
        time.sleep(0.1)
    worker = int(Path(args["pids"]).read_text())
    assert psutil.pid_exists(worker)
    began = time.monotonic()
    engine.cancel("family")
    while psutil.pid_exists(worker):
        assert time.monotonic() - began < soon(3), "the cluster's worker goes on"
        time.sleep(0.02)


@pytest.mark.robustness
@pytest.mark.parametrize(
    ("without", "address", "said"),
    [
        ("RAY_AUTH_MODE", "", "wants a token: start the platform with RAY_AUTH_MODE=token"),
        ("", "127.0.0.1:1", "the cluster of Ray at 127.0.0.1:1 cannot be reached: "),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_named_with_what_to_do(
    tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch, without: str, address: str, said: str
) -> None:
    if without:
        monkeypatch.delenv(without)
    monkeypatch.setenv("MA_RAY_ADDRESS", address or cluster)
    engine = RayEngine(tmp_path / "jobs")
    run(engine, JobSpec("job", "echo", {}), 120)
    found = engine.result("job")
    assert (found.state, found.kind) == (JobState.FAILED, "system"), engine.log("job")
    assert said in found.message


@pytest.mark.robustness
def test_more_than_this_machine_has_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    engine = RayEngine(tmp_path / "jobs")
    run(engine, JobSpec("job", "echo", {}, resources={"cpu": 1000}), 60)
    found = engine.result("job")
    assert (found.state, found.kind) == (JobState.FAILED, "user")
    assert found.message.startswith("it asks Ray for 1000 cores, there are ")
    assert "MA_RAY_ADDRESS" in found.message
    assert engine.evidence("job")["exception"]["chain"][0]["type"] == "operators.errors.NotProvided"
