"""The port of an engine: where a job runs.  A job's id is its name: submitting it again finds it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class JobState(enum.Enum):
    """LOST: it was submitted, but no process works on it and none has left a result."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    LOST = "LOST"


@dataclass(frozen=True)
class JobSpec:
    """What to run.  `program`: a module of `operators.jobs`; `args`: JSON values; limits: 0 for none.

    resources: what the engine is asked for, only what was said: cpu (cores), gpu (count), memory (MiB); environment:
    as `api.environments` has it, None for the platform's own.
    """

    job_id: str
    program: str
    args: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 0
    memory_mib: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class JobResult:
    """How a job stands.  `kind` and `message` say why it failed: `user` or `system`."""

    state: JobState
    outputs: Mapping[str, str] = field(default_factory=dict)
    kind: str = ""
    message: str = ""


class Engine(Protocol):
    """Every method may be called again after a crash, by another process."""

    def submit(self, spec: JobSpec) -> None:
        """Start the job unless it runs or has succeeded without anybody having taken its result."""
        ...

    def result(self, job_id: str) -> JobResult:
        """Return how the job stands."""
        ...

    def take(self, job_id: str) -> None:
        """Note that the result was used: submitting the job again runs it again."""
        ...

    def cancel(self, job_id: str) -> None:
        """Stop the job and all it started; no error if it does not run."""
        ...

    def log(self, job_id: str) -> str:
        """Return what the job printed so far."""
        ...

    def evidence(self, job_id: str) -> dict[str, Any]:
        """Return what was noted of the job while it lived, and how it ended (`api.evidence.read`)."""
        ...

    async def wait(self, job_id: str) -> JobResult:
        """Return when the job no longer runs.  Never blocks the event loop."""
        ...
