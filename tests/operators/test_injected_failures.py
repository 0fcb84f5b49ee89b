"""Failures of real jobs get the right class with the evidence of it, and come again in a replay.

Each is a process that really fails so.  What needs Airflow is in `tests/e2e/test_failed_runs.py`.
"""

import asyncio
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from api.verdicts import judging as verdicts
from api.verdicts.rules import Class
from operators.engines import ENGINES
from operators.engines.base import JobSpec, JobState
from operators.engines.local import LocalEngine

FAILURES = Path(__file__).with_name("failures")
LONGEST_S = 120.0
GROUPS = Path("/sys/fs/cgroup/memory")


@dataclass
class Injected:
    """One failure.  `replays`: whether a replay shows the same; `act`: what is done to the job while it works."""

    name: str
    expected: Class
    function: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    program: str = "call_project"
    act: Callable[["Place"], None] | None = None
    replays: bool = False
    limits: dict[str, Any] = field(default_factory=dict)
    engine: str = "local"
    rule: str = ""


@dataclass
class Place:
    """Where one failure happens."""

    folder: Path
    job: str

    @property
    def job_folder(self) -> Path:
        return self.folder / "jobs" / self.job

    def appears(self, name: str) -> Path:
        deadline = time.monotonic() + LONGEST_S
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, (self.job_folder / "log").read_text()
            time.sleep(0.01)
        return self.folder / name


def kill_the_job(number: int) -> Callable[[Place], None]:
    return lambda place: os.kill(int(place.appears("pid").read_text()), number)


def kill_the_supervisor(place: Place) -> None:
    job = int(place.appears("pid").read_text())
    deadline = time.monotonic() + LONGEST_S
    while not (place.job_folder / "curve.json").exists() or not (place.job_folder / "began.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(os.getsid(job), signal.SIGKILL)


def kill_when_full(place: Place) -> None:
    place.appears("ready")
    time.sleep(0.5)
    (child,) = LocalEngine(place.folder / "jobs")._process(place.job_folder).children()  # type: ignore[union-attr]
    child.kill()


def cancel(place: Place) -> None:
    place.appears("pid")
    LocalEngine(place.folder / "jobs").cancel(place.job)


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


WAITS = {"pid": "{folder}/pid", "until": "{folder}/never"}
USER, DATA, ENVIRONMENT = Class.USER_CODE, Class.DATA, Class.ENVIRONMENT
INJECTED = [
    Injected("an exception", USER, "wrong_value", replays=True),
    Injected("a chain of exceptions", USER, "wrapped", replays=True),
    Injected("an exception while another is handled", USER, "while_handling", replays=True),
    Injected("None has no attribute", USER, "nothing_there", replays=True),
    Injected("an assertion", USER, "wrong_assertion", replays=True),
    Injected("endless recursion", USER, "for_ever", replays=True),
    Injected("a name that an own module lacks", USER, "own_name_missing", replays=True, rule="own-import"),
    Injected("a file that is no Python", USER, "syntax", replays=True),
    Injected("sys.exit(3)", USER, "leaves", replays=True),
    Injected("os._exit(7)", USER, "leaves_at_once", rule="own-exit"),
    Injected("a crash of native code", USER, "native_crash", rule="native-crash"),
    Injected("an algorithm that is not known", USER, args={"what": "unknown algorithm"}, program="stages"),
    Injected("a package that is not installed", ENVIRONMENT, "package_missing", rule="import"),
    Injected("a secret that is not set", ENVIRONMENT, "secret_missing", rule="variable-not-set"),
    Injected("a full disk", ENVIRONMENT, "disk_full", rule="disk-full"),
    Injected("a service that refuses", ENVIRONMENT, "refused", {"port": closed_port()}, rule="network"),
    Injected("memory over ulimit", Class.OUT_OF_MEMORY, "ulimit", rule="memory-error"),
    Injected(
        "memory over the job's limit",
        Class.OUT_OF_MEMORY,
        "grows",
        {"mib": 400, "until": "{folder}/never"},
        limits={"memory_mib": 200},
        rule="memory-limit-kept",
    ),
    Injected(
        "SIGKILL with its memory nearly used up",
        Class.OUT_OF_MEMORY,
        "grows",
        {"mib": 296, "until": "{folder}/never", "ready": "{folder}/ready"},
        limits={"memory_mib": 330},
        act=kill_when_full,
        rule="near-its-limit",
    ),
    Injected("kill -9", Class.LOST_WORKER, "notes_pid", WAITS, act=kill_the_job(signal.SIGKILL), rule="killed"),
    Injected("SIGTERM", Class.LOST_WORKER, "notes_pid", WAITS, act=kill_the_job(signal.SIGTERM), rule="asked-to-end"),
    Injected("all of it killed", Class.LOST_WORKER, "notes_pid", WAITS, act=kill_the_supervisor, rule="vanished"),
    Injected("stopped through its engine", Class.KILLED, "notes_pid", WAITS, act=cancel, rule="stopped"),
    Injected("longer than its timeout", Class.TIMEOUT, "notes_pid", WAITS, limits={"timeout_s": 1}),
    Injected("a call that does not return", Class.TIMEOUT, "slow_service", rule="call-timeout"),
    Injected("JSON that is none", DATA, "bad_json", {"path": "{folder}/rows.csv"}),
    Injected("text that is none", DATA, "bad_text", {"path": "{folder}/bytes"}),
    Injected("a file that is missing", DATA, "missing_file", {"path": "{folder}/absent.csv"}),
    Injected("a row with too many cells", DATA, "bad_csv"),
    Injected("a column that is missing", DATA, "missing_column", rule="data-library"),
    Injected("text where numbers are wanted", DATA, "bad_number", rule="data-library"),
    Injected("a broken Parquet file", DATA, "bad_parquet", {"path": "{folder}/rows.csv"}),
    Injected("labels that are none", DATA, args={"what": "wrong labels"}, program="stages"),
    Injected(
        "an input that is gone", Class.UPSTREAM, args={"what": "input gone", "uri": "/absent/model"}, program="stages"
    ),
    Injected("the API server is gone", Class.PLATFORM, args={"what": "API server gone"}, program="stages"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the project and its inputs; no job outlives the tests."""
    made = tmp_path_factory.mktemp("injected")
    shutil.copytree(FAILURES / "project", made / "project", ignore=shutil.ignore_patterns("__pycache__"))
    (made / "project" / "unfinished.py").write_text("def half(:\n    pass\n")
    (made / "project" / "labels.py").write_text("from failing import wrong_labels as examples\n")
    (made / "rows.csv").write_text("a,b\n1,2\n")
    (made / "bytes").write_bytes(b"\xff\xfe\xfa")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(FAILURES))
        patch.setenv("MA_HOME", str(made / "home"))
        patch.setenv("MA_API_PORT", str(closed_port()))
        patch.setenv("MA_API_HTTP_PORT", str(closed_port()))
        patch.delenv("WAREHOUSE_PASSWORD_OF_TESTS", raising=False)
        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
        yield made
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    for place in made.glob("*/jobs/job"):
        LocalEngine(place.parent).cancel("job")


def inject(home: Path, failure: Injected) -> tuple[Place, dict[str, Any]]:
    """Let a failure happen; return where, and the evidence that it left."""
    place = Place(home / failure.name.replace("/", "-"), "job")
    place.folder.mkdir()
    for name in ("rows.csv", "bytes"):
        shutil.copy(home / name, place.folder / name)
    given = {
        name: value.format(folder=place.folder) if isinstance(value, str) else value
        for name, value in failure.args.items()
    }
    call = {"module": "failing", "function": failure.function, "with": given} if failure.function else given
    args = {"run": {"root_dir": str(home / "project")}, **call}
    engine = ENGINES[failure.engine](place.folder / "jobs")
    engine.submit(JobSpec("job", failure.program, args, **failure.limits))
    if failure.act is not None:
        failure.act(place)
    ended = asyncio.run(asyncio.wait_for(engine.wait("job"), LONGEST_S))
    assert ended.state in (JobState.FAILED, JobState.LOST), engine.log("job")
    return place, engine.evidence("job")


def judged(evidence: dict[str, Any]) -> verdicts.Verdict:
    return verdicts.verdict(evidence, verdicts.Place("flights", "train", "run", "train", "train", replayable=True))


@pytest.mark.parametrize("failure", INJECTED, ids=lambda failure: failure.name)
def test_a_failure_gets_its_class_and_its_evidence(home: Path, failure: Injected) -> None:
    place, evidence = inject(home, failure)
    found = judged(evidence)
    assert found.found is failure.expected, (found.rule, found.grounds, evidence)
    assert not failure.rule or found.rule == failure.rule
    assert evidence["began"]["environment"]["python"]
    assert evidence["began"]["code"]["digest"].startswith("sha256:")
    assert "failing.py" in evidence["began"]["code"]["files"]
    assert evidence["began"]["memory"]["mib"] > 0
    assert evidence["curve"], "how much memory and CPU it used"
    assert evidence["log"], "its last lines"
    told = evidence.get("exception") or evidence.get("ended", {}).get("signal") or evidence.get("ended", {}).get("code")
    assert told or found.rule == "vanished"
    if failure.expected is USER and failure.function and evidence.get("exception"):
        at = evidence["exception"]["at"]
        assert Path(at["file"]).parent.name == "project"
        assert any(line.split(maxsplit=1)[0] == str(at["line"]) for line in at["source"])
    if failure.replays:
        again = replayed(place)
        assert again.returncode == 1, again.stdout + again.stderr
        assert again.stdout.splitlines()[-1].startswith("reproduced: "), again.stdout


def replayed(place: Place, *more: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "operators.jobs.replay", str(place.job_folder), *more],
        capture_output=True,
        text=True,
        input=given,
        timeout=LONGEST_S,
        check=False,
    )


def test_a_job_that_hangs_says_where_it_stood(home: Path) -> None:
    failure = Injected("hangs", Class.TIMEOUT, "notes_pid", WAITS, limits={"timeout_s": 1})
    _, evidence = inject(home, failure)
    found = judged(evidence)
    assert (found.rule, found.certainty) == ("timeout-kept", "CERTAIN")
    assert [frame["function"] for frame in evidence["stack"] if frame["users"]] == ["waits", "notes_pid"]
    assert found.summary == "it ran longer than its timeout of 1 s"


def test_a_replay_uses_the_code_of_the_run_and_changes_nothing(home: Path) -> None:
    failure = Injected("edited since", USER, "wrong_value")
    place, _ = inject(home, failure)
    source = home / "project" / "failing.py"
    before = source.read_text()
    left = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    try:
        source.write_text(before.replace('raise ValueError("the threshold must be below 1")', "return None"))
        again = replayed(place)
    finally:
        source.write_text(before)
    lines = again.stdout.splitlines()
    assert "has changed since (failing.py)" in lines[0]
    line = before[: before.index("raise ValueError")].count("\n") + 1
    assert lines[-1] == f"reproduced: ValueError at failing.py:{line}, as in the run"
    now = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    assert {path: now[path] for path in left} == left


def test_a_replay_stops_in_the_debugger_at_the_line_that_raised(home: Path) -> None:
    place, _ = inject(home, Injected("debugged", USER, "nothing_there"))
    again = replayed(place, "--pdb", given="p found is None\nq\n")
    assert "return found.rows" in again.stdout
    assert "(Pdb) True" in again.stdout


def test_a_replay_that_succeeds_says_so(home: Path) -> None:
    place, _ = inject(home, Injected("heals", DATA, "missing_file", {"path": "{folder}/absent.csv"}))
    (place.folder / "absent.csv").write_text("now it is here")
    again = replayed(place)
    assert again.returncode == 0
    assert again.stdout.splitlines()[-1].startswith("it succeeded here: the run's FileNotFoundError")


def test_no_secret_reaches_the_evidence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_PASSWORD", "hunter2-and-more")
    place, evidence = inject(home, Injected("leaks", DATA, "missing_file", {"path": "/hunter2-and-more/x"}))
    assert "***" in evidence["message"]
    assert "hunter2" not in (place.job_folder / "result.json").read_text()


def test_a_worker_of_ray_that_is_lost(home: Path) -> None:
    _, evidence = inject(home, Injected("Ray", Class.LOST_WORKER, "kills_itself", engine="ray"))
    found = judged(evidence)
    assert (found.found, found.rule) == (Class.LOST_WORKER, "ray-worker-lost"), evidence


@pytest.mark.skipif(os.geteuid() != 0 or not (GROUPS / "memory.limit_in_bytes").exists(), reason="cgroup of memory")
def test_a_job_that_the_kernel_killed_for_memory(home: Path) -> None:
    group = GROUPS / f"ma-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(160 * 2**20))
        place = Place(home / "kernel", "job")
        args = {"mib": 400, "until": str(home / "never")}
        spec = {"module": "failing", "function": "grows", "with": args, "run": {"root_dir": str(home / "project")}}
        submit = (
            "import os\nfrom pathlib import Path\nfrom operators.engines.local import LocalEngine\n"
            "from operators.engines.base import JobSpec\n"
            f"Path({str(group / 'cgroup.procs')!r}).write_text(str(os.getpid()))\n"
            f"LocalEngine(Path({str(place.folder / 'jobs')!r})).submit(JobSpec('job', 'call_project', {spec!r}))\n"
        )
        subprocess.run([sys.executable, "-W", "ignore", "-c", submit], check=True, timeout=LONGEST_S)
        engine = LocalEngine(place.folder / "jobs")
        asyncio.run(asyncio.wait_for(engine.wait("job"), LONGEST_S))
        evidence = engine.evidence("job")
        found = judged(evidence)
        assert (found.rule, found.certainty) == ("kernel-killed-it", "CERTAIN"), evidence
        assert evidence["began"]["memory"] == {"mib": 160.0, "set_by": "cgroup memory.limit_in_bytes"}
    finally:
        deadline = time.monotonic() + LONGEST_S
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        group.rmdir()


def test_a_step_written_in_python_is_replayed_with_its_values(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import asdict

    from operators.authoring.graph import Step
    from operators.values.store import referring, values_at

    place = Place(home / "authored", "job")
    monkeypatch.setenv("MA_HOME", str(place.folder))
    (home / "project" / "flow.py").write_text(
        "from operators import task\n\n\n@task\ndef ratio(rows):\n    late, all_of_them = rows\n"
        "    return late / all_of_them\n"
    )
    rows = values_at(str(place.folder / "artifacts" / "values")).put([3, 0])
    step = asdict(Step(name="ratio", task="flow:ratio"))
    args = {"run": {"root_dir": str(home / "project")}, "step": step, "inputs": {"rows": referring(rows)}}
    engine = LocalEngine(place.folder / "jobs")
    engine.submit(JobSpec("job", "python_task", args))
    asyncio.run(asyncio.wait_for(engine.wait("job"), LONGEST_S))
    evidence = engine.evidence("job")
    assert judged(evidence).found is USER, evidence
    assert evidence["exception"]["at"]["text"] == "return late / all_of_them"
    stored = sorted((place.folder / "artifacts").rglob("*"))
    again = replayed(place)
    assert again.stdout.splitlines()[-1] == "reproduced: ZeroDivisionError at flow.py:7, as in the run", again.stdout
    assert sorted((place.folder / "artifacts").rglob("*")) == stored
