"""Jobs in the process that submits them, one after the other: for trying out.  Not an engine that a task may name.

A program runs when it is submitted; what it prints goes to standard error, and breakpoints stop in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from operators.engines.base import JobResult, JobSpec, JobState
from operators.engines.local import run_variable
from operators.jobs.run import execute, root_of


class HereEngine:
    """Keeps results for as long as the process lives."""

    def __init__(self) -> None:
        self._results: dict[str, JobResult] = {}

    def submit(self, spec: JobSpec) -> None:
        """Run the job, unless it has succeeded before."""
        if self.result(spec.job_id).state is JobState.SUCCEEDED:
            return
        # As a job's own process reads them.
        args = json.loads(json.dumps(dict(spec.args)))
        asked = {"job_id": spec.job_id, "program": spec.program, "args": args}
        if (root := root_of(asked)) and root not in sys.path:
            sys.path.insert(0, root)
        with _variables(run_variable(args.get("run"))), contextlib.redirect_stdout(sys.stderr):
            told = execute(asked)
        self._results[spec.job_id] = _result(told)

    def result(self, job_id: str) -> JobResult:
        """Return how the job ended."""
        return self._results.get(job_id, JobResult(JobState.LOST, message="it was never submitted"))

    def take(self, job_id: str) -> None:
        """Forget the result: it was used."""
        self._results.pop(job_id, None)

    def cancel(self, job_id: str) -> None:
        """Do nothing: whoever could ask for it waits for the job."""

    def log(self, job_id: str) -> str:
        """Return nothing: it was printed at once."""
        return ""

    def evidence(self, job_id: str) -> dict[str, Any]:
        """Return nothing: who runs it saw it."""
        return {}

    async def wait(self, job_id: str) -> JobResult:
        """Return how the job ended."""
        return self.result(job_id)


def _result(told: Mapping[str, Any]) -> JobResult:
    if told["state"] == JobState.SUCCEEDED.value:
        return JobResult(JobState.SUCCEEDED, told["outputs"])
    return JobResult(JobState.FAILED, kind=told["error"]["kind"], message=told["error"]["message"])


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for as long as a program runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
