"""What operators rely on in an engine, over every engine.  Ray and Spark start slowly: they show what is their own."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.engine_settings import unconfigured
from operators.engines import ENGINES
from operators.engines.base import Engine, JobResult, JobSpec, JobState
from operators.engines.local import MOST_LOG_BYTES, LocalEngine
from tests.patience import PATIENCE_S
from tests.processes import lives

PROGRAMS = Path(__file__).with_name("engine_programs")
LONGEST_S = 120.0
ASKED = {"cpu": 0.5, "memory": 100}


def until(holds: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + LONGEST_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@dataclass
class Place:
    """An engine in a folder of its own, and what jobs left there."""

    name: str
    folder: Path
    submitted: list[str] = field(default_factory=list)

    @property
    def engine(self) -> Engine:
        """A new engine each time: nothing may live in its memory."""
        return ENGINES[self.name](self.folder / "jobs")

    def spec(self, program: str = "echo", job_id: str = "job", **args: Any) -> JobSpec:
        self.submitted.append(job_id)
        standard = {name: str(self.folder / f"{job_id}.{name}") for name in ("ran", "pids", "until")}
        return JobSpec(job_id, program, {**standard, **args}, resources=ASKED)

    def submit(self, program: str = "echo", job_id: str = "job", **args: Any) -> None:
        self.engine.submit(self.spec(program, job_id, **args))

    def ended(self, job_id: str = "job") -> JobResult:
        return asyncio.run(asyncio.wait_for(self.engine.wait(job_id), LONGEST_S))

    def runs(self, job_id: str = "job") -> int:
        """How often the job's program was run."""
        path = self.folder / f"{job_id}.ran"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def pids(self, job_id: str = "job") -> list[int]:
        """The processes of a family, once all of them have started."""
        path = self.folder / f"{job_id}.pids"
        until(path.exists, f"no pids: {self.engine.log(job_id)}")
        return [int(pid) for pid in path.read_text().split()]

    def processes(self) -> set[int]:
        """Every living process that a job of this place started, Ray's own ones too: they inherit its environment."""
        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if str(self.folder) in process.environ().get("MA_JOB", "") and lives(process.pid):
                    found.add(process.pid)
        return found

    def finish(self, job_id: str = "job") -> None:
        (self.folder / f"{job_id}.until").touch()

    def elsewhere(self, spec: JobSpec, before: str = "", after: str = "") -> subprocess.Popen[bytes]:
        """Submit in another process."""
        code = (
            f"import os, sys, signal\nfrom pathlib import Path\nfrom operators.engines import ENGINES\n"
            f"from operators.engines.base import JobSpec\n"
            f"engine = ENGINES[{self.name!r}](Path({str(self.folder)!r}) / 'jobs')\n"
            f"{before}\nengine.submit(JobSpec({spec.job_id!r}, {spec.program!r}, {dict(spec.args)!r}))\n{after}\n"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )


@pytest.fixture(params=["local"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("PYTHONPATH", str(PROGRAMS))
    made = Place(request.param, tmp_path)
    yield made
    for job_id in set(made.submitted):
        made.engine.cancel(job_id)
        with contextlib.suppress(FileNotFoundError):
            for pid in (tmp_path / f"{job_id}.pids").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


missing = unconfigured("spark")
spark = pytest.param("spark", marks=pytest.mark.skipif(bool(missing), reason=f"Spark {missing}"))
every = pytest.mark.parametrize("place", ["local", "ray", spark], indirect=True)


@every
def test_a_job_gives_its_outputs_and_shows_what_it_printed(place: Place) -> None:
    given: dict[str, Any] = {
        "text": "{{ 7*7 }} $(id)\n\u2028\x00é",
        "number": 0.1,
        "list": [1, None, True],
        "run": {"root_dir": ""},
    }
    place.submit(**given)
    assert place.engine.result("job").state is JobState.RUNNING
    result = place.ended()
    assert result.state is JobState.SUCCEEDED, place.engine.log("job")
    got = json.loads(result.outputs["args"])
    assert {name: got[name] for name in given} == given
    assert "hello" in place.engine.log("job")
    assert place.engine.result("job") == result
    if place.name == "ray":
        assert json.loads(result.outputs["resources"]) == {"CPU": 0.5, "memory": 100 * 2**20}
    if place.name == "spark":
        assert json.loads(result.outputs["resources"]) == {"spark.master": "local[1]", "heap_mib": 512}


@every
def test_a_cancelled_job_leaves_no_process(place: Place) -> None:
    place.submit("family", children=3)
    pids = place.pids()
    assert {*pids} <= place.processes()
    if place.name == "spark":
        assert any(psutil.Process(pid).name() == "java" for pid in place.processes())
    place.engine.cancel("job")
    assert [pid for pid in pids if lives(pid)] == []
    assert place.processes() == set()
    assert place.engine.result("job").state is JobState.LOST


def test_a_program_sees_no_secret_of_the_platform(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY", "_AIRFLOW_PROCESS_CONTEXT", "MA_TOKEN"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("MA_HOME", str(place.folder))
    place.submit("environment")
    seen = json.loads(place.ended().outputs["environment"])
    assert "canary" not in seen.values()
    assert seen["MA_HOME"] == str(place.folder)
    assert "MA_JOB_LOCK" not in seen


def test_a_job_that_ignores_being_asked_is_killed(place: Place) -> None:
    place.submit("family", children=3, stubborn=True)
    pids = place.pids()
    place.engine.cancel("job")
    assert [pid for pid in pids if lives(pid)] == []


def test_cancelling_what_does_not_run_is_no_error(place: Place) -> None:
    place.engine.cancel("never")
    place.submit()
    result = place.ended()
    place.engine.cancel("job")
    place.engine.cancel("job")
    assert place.engine.result("job") == result


def test_a_wrong_input_and_a_fault_of_the_system_are_told_apart(place: Place) -> None:
    place.submit(job_id="wrong", error="user")
    place.submit(job_id="fault", error="system")
    place.submit("nothing", job_id="nothing")
    place.submit("not_there", job_id="missing")
    wrong, fault, nothing, missing = (place.ended(name) for name in ("wrong", "fault", "nothing", "missing"))
    assert (wrong.state, wrong.kind, wrong.message) == (JobState.FAILED, "user", "column 'x' is not there")
    assert (fault.state, fault.kind, fault.message) == (JobState.FAILED, "system", "OSError: the disk is full")
    assert (nothing.state, nothing.kind) == (JobState.FAILED, "system")
    assert (missing.state, missing.kind) == (JobState.FAILED, "system")
    assert "not_there" in missing.message
    assert "Traceback" in place.engine.log("fault")
    assert "Traceback" not in place.engine.log("wrong")


def test_a_job_that_was_never_submitted_is_lost(place: Place) -> None:
    assert place.engine.result("never").state is JobState.LOST
    assert place.ended("never").state is JobState.LOST
    assert place.engine.log("never") == ""


def test_submitting_again_finds_the_job_that_runs(place: Place) -> None:
    place.submit("family")
    (pid,) = place.pids()
    place.submit("family")
    place.finish()
    assert place.ended().outputs == {"pid": str(pid)}
    place.submit("family")
    assert place.engine.result("job").outputs == {"pid": str(pid)}
    assert place.runs() == 1


def test_processes_that_submit_at_the_same_moment_start_one_job(place: Place) -> None:
    spec = place.spec("family")
    rush = [
        place.elsewhere(spec, before="print(flush=True); sys.stdin.readline()", after=after)
        for after in ("print(engine.result('job').state.value)",) * 4
    ]
    for process in rush:
        assert process.stdout is not None
        process.stdout.readline()
    for process in rush:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    said = [process.communicate(timeout=LONGEST_S)[0].decode().strip() for process in rush]
    assert said == ["RUNNING"] * 4
    place.pids()
    place.finish()
    assert place.ended().state is JobState.SUCCEEDED
    assert place.runs() == 1


def test_a_job_outlives_the_processes_that_submitted_it(place: Place) -> None:
    process = place.elsewhere(place.spec("family"), after="os.killpg(0, signal.SIGKILL)")
    process.communicate(timeout=LONGEST_S)
    (pid,) = place.pids()
    place.submit("family")
    assert place.engine.result("job").state is JobState.RUNNING
    place.finish()
    assert place.ended().outputs == {"pid": str(pid)}
    assert place.runs() == 1


def test_a_submitter_that_dies_before_it_notes_the_process_leaves_one_job(place: Place) -> None:
    dies = "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    process = place.elsewhere(place.spec("family"), before=dies)
    process.communicate(timeout=LONGEST_S)
    assert process.returncode == -signal.SIGKILL
    place.submit("family")
    place.pids()
    place.finish()
    assert place.ended().state is JobState.SUCCEEDED
    assert place.runs() == 1


def test_a_killed_job_is_lost_and_runs_again(place: Place) -> None:
    place.submit("family", children=1)
    leader, child = place.pids()
    os.kill(leader, signal.SIGKILL)
    lost = place.ended()
    assert (lost.state, lost.outputs) == (JobState.LOST, {})
    assert lost.message
    (place.folder / "job.pids").unlink()
    place.submit("family")
    again = place.pids()
    assert again != [leader]
    assert not lives(child), "what the lost job had started must not work beside the new one"
    place.finish()
    assert place.ended().state is JobState.SUCCEEDED
    assert place.runs() == 2


def test_a_failed_job_runs_again_with_its_new_arguments(place: Place) -> None:
    for error in ("user", "system"):
        place.submit(error=error)
        assert place.ended().kind == error
    place.submit(error="none")
    assert place.ended().state is JobState.SUCCEEDED
    assert place.runs() == 3


def test_a_result_is_kept_until_it_was_taken(place: Place) -> None:
    place.submit(print="first")
    first = place.ended()
    place.submit(print="second")
    assert place.engine.result("job") == first
    place.engine.take("job")
    assert place.engine.result("job") == first, "taking does not forget"
    place.submit(print="second")
    assert json.loads(place.ended().outputs["args"])["print"] == "second"
    assert place.runs() == 2


def test_the_end_of_a_long_log_is_shown(place: Place) -> None:
    place.submit(print="0123456789é", times=200_000)
    place.ended()
    shown = place.engine.log("job")
    assert len(shown.encode()) <= MOST_LOG_BYTES + 2
    assert shown.endswith("0123456789é\n")


async def test_waiting_does_not_hold_up_the_loop(place: Place) -> None:
    place.submit("family", job_id="one")
    place.submit("family", job_id="two")
    waiting = [asyncio.ensure_future(place.engine.wait(name)) for name in ("one", "two")]
    longest, last = 0.0, time.monotonic()
    for _ in range(40):
        await asyncio.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert longest < 0.15
    assert not any(task.done() for task in waiting)
    place.finish("two")
    assert (await asyncio.wait_for(waiting[1], PATIENCE_S)).state is JobState.SUCCEEDED
    assert not waiting[0].done()
    os.kill(place.pids("one")[0], signal.SIGKILL)
    assert (await asyncio.wait_for(waiting[0], PATIENCE_S)).state is JobState.LOST


async def test_a_wait_that_is_given_up_leaves_the_job_alone(place: Place) -> None:
    place.submit("family")
    (pid,) = place.pids()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(place.engine.wait("job"), 0.1)
    assert lives(pid)


def test_waiting_works_where_the_kernel_does_not_tell(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    place.submit()
    assert place.ended().state is JobState.SUCCEEDED


def test_a_recycled_pid_is_no_job_of_ours(place: Place) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        folder = place.folder / "jobs" / "job"
        folder.mkdir(parents=True)
        started = psutil.Process(stranger.pid).create_time() - 60
        (folder / "process.json").write_text(json.dumps({"pid": stranger.pid, "started": started}))
        assert place.engine.result("job").state is JobState.LOST
        place.engine.cancel("job")
        assert stranger.poll() is None
        place.submit()
        assert place.ended().state is JobState.SUCCEEDED
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("name", ["result.json", "process.json"])
def test_a_file_that_a_power_cut_left_empty_is_as_none(place: Place, name: str) -> None:
    folder = place.folder / "jobs" / "job"
    folder.mkdir(parents=True)
    (folder / name).touch()
    assert place.engine.result("job").state is JobState.LOST
    place.submit()
    assert place.ended().state is JobState.SUCCEEDED


def test_no_engine_of_a_wrong_name_is_given() -> None:
    from operators.engines import engine

    with pytest.raises(ValueError, match=r"'flink': use .*local, ray, spark"):
        engine("flink")


def test_one_engine_object_does_not_keep_its_jobs(tmp_path: Path) -> None:
    """A job is known by its folder alone: the submitter's memory is gone when a task is retried."""
    assert not [name for name in vars(LocalEngine(tmp_path)) if name != "_folder"]
