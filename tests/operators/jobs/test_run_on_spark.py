"""Steps on Spark: the same values as without it, nothing left behind; a server of Spark Connect: `make robustness`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from api.engine_settings import unconfigured
from operators.authoring.graph import Step
from operators.engines.base import JobResult, JobSpec, JobState
from operators.engines.processes import marked
from operators.engines.spark import SparkEngine
from operators.hooks.spark import heap_mib
from operators.values.references import Reference
from operators.values.store import Values, values_at
from tests.free_ports import free_ports
from tests.patience import soon
from tests.processes import lives

PROJECT = Path(__file__).with_name("spark_project")
ROWS = {
    "carrier": ["AA", None, "UA", "DL"],
    "distance": [1, 2, 3, 4],
    "at": [datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in range(4)],
}
TYPES = pa.schema([("carrier", pa.string()), ("distance", pa.int64()), ("at", pa.timestamp("us", "UTC"))])

missing = unconfigured("spark")
needs_spark = pytest.mark.skipif(bool(missing), reason=f"Spark {missing}")


class Place:
    """A home with values and the engine."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.values: Values = values_at(str(home / "artifacts" / "values"))
        self.engine = SparkEngine(home / "jobs")
        self.rows = self.values.put(pa.table(ROWS, schema=TYPES))

    def submit(self, function: str, **more: Any) -> None:
        step = Step(name=function, task=f"on_spark:{function}", engine="spark")
        args = {
            "run": {"root_dir": str(PROJECT)},
            "step": asdict(step),
            "inputs": {"rows": {"$ref": self.rows.to_json()}, **more},
        }
        self.engine.submit(JobSpec(function, "python_task", args, resources={"cpu": 2}))

    def ended(self, job_id: str) -> JobResult:
        until(lambda: self.engine.result(job_id).state is not JobState.RUNNING, lambda: self.engine.log(job_id))
        return self.engine.result(job_id)

    def forever(self) -> psutil.Process:
        """Return a worker of Spark that is at work, and will be for long."""
        told = self.home / "told"
        self.submit("forever", told=str(told))
        until(lambda: told.exists() and told.read_text(), lambda: self.engine.log("forever"))
        return psutil.Process(int(told.read_text()))

    def java(self, job_id: str) -> list[psutil.Process]:
        """The JVMs of a job."""
        return [each for each in marked(str(self.home / "jobs" / job_id)) if each.name() == "java"]

    def digest(self, job_id: str) -> str:
        result = self.ended(job_id)
        assert result.state is JobState.SUCCEEDED, self.engine.log(job_id)
        return result.outputs["digest"]


def until(holds: Any, told: Any) -> None:
    deadline = time.monotonic() + soon(60)
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("MA_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    made = Place(tmp_path)
    yield made
    for job in (tmp_path / "jobs").glob("[!.]*"):
        made.engine.cancel(job.name)


@needs_spark
def test_a_table_of_spark_is_the_same_value_as_that_of_arrow(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.submit("with_fee")
    digest = place.digest("with_fee")
    monkeypatch.syspath_prepend(PROJECT)
    import on_spark  # type: ignore[import-not-found]

    here = on_spark.with_fee_here(pa.table(ROWS, schema=TYPES))
    assert place.values.put(here) == Reference(digest, "arrow")
    assert place.values.get(Reference(digest, "arrow"))["fee"].to_pylist() == [0.5, 1.5, 2.0]
    assert not list((place.home / "jobs" / "with_fee").glob("spark")), "what Spark spilled stays"
    assert not place.java("with_fee")


def test_a_steps_memory_holds_python_and_java() -> None:
    assert heap_mib(0) == 1024
    assert heap_mib(1280) == 512
    assert heap_mib(4096) == 3328


@needs_spark
@pytest.mark.robustness
def test_a_driver_that_is_killed_takes_its_java_along(place: Place) -> None:
    worker = place.forever()
    driver = {java.ppid() for java in place.java("forever")}.pop()
    began = time.monotonic()
    os.kill(driver, signal.SIGKILL)
    until(lambda: not marked(str(place.home / "jobs" / "forever")), lambda: "processes of Spark go on")
    assert time.monotonic() - began < soon(3)
    assert not worker.is_running()
    assert place.ended("forever").state is JobState.LOST
    assert place.engine.evidence("forever")["ended"]["signal"] == "SIGKILL"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A server of Spark Connect, in a process that no job started."""
    told, (port,) = tmp_path / "serves", free_ports(1)
    program = (
        "import sys\nfrom pathlib import Path\nfrom operators.hooks import spark\n"
        "found = spark.session('server')\n"
        "service = found._jvm.org.apache.spark.sql.connect.service.SparkConnectService\n"
        f"found._jsc.sc().conf().set('spark.connect.grpc.binding.port', '{port}')\n"
        "service.start(found._jsc.sc())\n"
        f"Path({str(told)!r}).write_text('yes')\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        until(lambda: told.exists() and told.read_text(), lambda: "no server of Spark Connect")
        monkeypatch.setenv("MA_SPARK_URL", f"sc://127.0.0.1:{port}")
        yield process
        process.communicate(b"", timeout=soon(30))


@needs_spark
@pytest.mark.robustness
def test_a_step_runs_on_spark_connect_and_is_interrupted_there(place: Place, server: subprocess.Popen[bytes]) -> None:
    place.submit("with_fee")
    digest = place.digest("with_fee")
    assert place.values.get(Reference(digest, "arrow"))["fee"].to_pylist() == [0.5, 1.5, 2.0]
    worker = place.forever()
    assert not place.java("forever"), "the driver has no Java of its own"
    began = time.monotonic()
    place.engine.cancel("forever")
    until(lambda: not lives(worker), lambda: "the server goes on")
    assert time.monotonic() - began < soon(3)
    assert place.engine.result("forever").state is JobState.LOST
