"""Jobs as processes of this machine, each in a session of its own.  A job outlives the task that submitted it.

A job's folder holds `spec.json`, `process.json` (pid and its start time, so that a recycled pid is no job of ours),
`log`, the evidence of its supervisor (`operators.jobs.supervise`) and, at the end, `result.json`.  The job's process
inherits the submitter's lock until it has noted itself: a submitter that is killed half-way leaves one job, not two.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import psutil

from api import evidence
from api.evidence import ENDED
from operators.engines.base import JobResult, JobSpec, JobState
from operators.engines.processes import MARK, living, marked, session, stop
from operators.events import RUN
from operators.jobs.run import LOCK, LOG, PROCESS, RESULT, SPEC, note_process

TAKEN = "taken"
IN_ENVIRONMENT = "operators.jobs.run_in_environment"
THREADS = {"OMP_WAIT_POLICY": "passive"}
"""Threads of a job sleep while they wait for each other: spinning, OpenMP's default, made a training of 12 s last 74 s
on two cores of which another process used one."""
GRACE_S = 1.0
POLL_S = 0.2
MOST_LOG_BYTES = 1024 * 1024

# Processes started here: dropping one that runs is a ResourceWarning, and nobody would reap it.
_started: list[subprocess.Popen[bytes]] = []


class LocalEngine:
    """Runs jobs below `folder`."""

    module = "operators.jobs.run"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def submit(self, spec: JobSpec) -> None:
        """Start the job's process, once, whoever else submits it at the same moment."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked(spec.job_id) as lock:
            folder = self._folder / spec.job_id
            state = self.result(spec.job_id).state
            if state is JobState.RUNNING or (state is JobState.SUCCEEDED and not (folder / TAKEN).exists()):
                return
            if folder.exists():
                self.cancel(spec.job_id)
                shutil.move(folder, self._archive(spec.job_id))
            folder.mkdir()
            (folder / SPEC).write_text(json.dumps({**dataclasses.asdict(spec), "args": dict(spec.args)}))
            self._start(folder, lock, run_variable(spec.args.get("run")), spec.environment is not None)

    def _archive(self, job_id: str) -> Path:
        number = 1
        while (self._folder / f"{job_id}.{number}").exists():
            number += 1
        return self._folder / f"{job_id}.{number}"

    @contextlib.contextmanager
    def _locked(self, job_id: str) -> Iterator[IO[str]]:
        with (self._folder / f".{job_id}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _start(self, folder: Path, lock: IO[str], told: Mapping[str, str], elsewhere: bool) -> None:
        modules = (IN_ENVIRONMENT, self.module) if elsewhere else (self.module,)
        with (folder / LOG).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", *modules, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
                env={**_environment(), **THREADS, **told, MARK: str(folder), LOCK: str(lock.fileno())},
            )
        _reap()
        _started.append(process)
        note_process(folder, process.pid)

    def result(self, job_id: str) -> JobResult:
        """Return how the job stands; what is in `result.json` is final."""
        folder = self._folder / job_id
        alive = self._process(folder) is not None
        if not alive:
            _reap()
        found = _read(folder / RESULT)
        if found is None:
            return JobResult(JobState.RUNNING) if alive else JobResult(JobState.LOST, message=self._how_lost(folder))
        if found["state"] == "SUCCEEDED":
            return JobResult(JobState.SUCCEEDED, found["outputs"])
        return JobResult(JobState.FAILED, kind=found["error"]["kind"], message=found["error"]["message"])

    def _how_lost(self, folder: Path) -> str:
        number = (_read(folder / ENDED) or {}).get("signal")
        return f"its process was killed by {number}" if number else "its process is gone"

    def evidence(self, job_id: str) -> dict[str, Any]:
        """Return what is known of the job's life and end."""
        return evidence.read(self._folder / job_id)

    def _process(self, folder: Path) -> psutil.Process | None:
        noted = _read(folder / PROCESS)
        return living(noted["pid"], noted["started"]) if noted else None

    def take(self, job_id: str) -> None:
        """Note that the result was used."""
        (self._folder / job_id / TAKEN).touch()

    def cancel(self, job_id: str) -> None:
        """Stop the job, and what it started in whatever session."""
        folder = self._folder / job_id

        def members() -> list[psutil.Process]:
            # Its supervisor first: it tells that it was asked, if it hears of it before its child is gone.
            leader = self._process(folder)
            own = [leader, *session(leader.pid)] if leader else []
            return [*own, *(process for process in marked(str(folder)) if process not in own)]

        stop(members, GRACE_S)
        _reap()

    def log(self, job_id: str) -> str:
        """Return the end of what the job printed, at most 1 MiB."""
        try:
            with (self._folder / job_id / LOG).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - MOST_LOG_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    async def wait(self, job_id: str) -> JobResult:
        """Return when the process has ended: told by the kernel where it can, else by looking."""
        while (found := self.result(job_id)).state is JobState.RUNNING:
            process = self._process(self._folder / job_id)
            if process is not None and hasattr(os, "pidfd_open"):
                await _ended(process.pid)
            else:
                await asyncio.sleep(POLL_S)
        return found


async def _ended(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _reap() -> None:
    """Forget those that were started here and have ended, which the kernel keeps until then."""
    for process in [*_started]:
        if process.poll() is not None:
            with contextlib.suppress(ValueError):
                _started.remove(process)


def run_variable(run: Any) -> dict[str, str]:
    """Return the variable by which `publish` knows the run that it is called in, if there is one."""
    named = isinstance(run, dict) and run.get("project") and run.get("pipeline_run")
    return {RUN: f"{run['project']}/{run['pipeline_run']}"} if named else {}


def _environment() -> dict[str, str]:
    """Return what a program sees: it runs a user's code, and Airflow's keys and our token are not for that."""
    kept = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name and name != "MA_TOKEN"}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def _read(path: Path) -> Any | None:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # Files are replaced by rename: one that cannot be read is what a power cut left.
        return None
