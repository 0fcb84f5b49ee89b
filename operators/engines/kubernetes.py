"""Jobs as Jobs of a Kubernetes cluster.  A job outlives the task that submitted it, and the machine of that task.

What a job is given and what it leaves lie in the artifact store, `jobs/<job id>/<attempt>`; `attempt.json` beside the
attempts names the last.  A Job is named by its job and attempt: whoever submits it again finds it.  A failed or lost
attempt is followed by another number, and no attempt begins twice (`operators.jobs.run_in_pod`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from api import evidence as left
from api.artifact_urls import below
from api.code_store import files_at
from api.config import load
from operators.engines import kubernetes_jobs as objects
from operators.engines.base import JobResult, JobSpec, JobState
from operators.engines.kubernetes_cluster import Cluster, ClusterAway, ClusterRefused
from operators.engines.local import MOST_LOG_BYTES, TAKEN, THREADS, run_variable
from operators.engines.processes import MARK
from operators.jobs.run import RESULT, SPEC
from operators.jobs.run_in_pod import BEFORE_RESULT, CANCELLED, STARTED

JOBS = "jobs"
LAST = "attempt.json"
FIRST_LOOK_S, LONGEST_LOOK_S = 0.3, 2.0
CANCEL_S, CANCEL_LOOK_S = 10.0, 0.1
CANCEL_TRIES = 3
MOST_LOG_LINES = 20_000

# Looks may wait for a cluster that does not answer: they have threads of their own, so that nobody else waits.
_lookers = concurrent.futures.ThreadPoolExecutor(4, thread_name_prefix="kubernetes")


@dataclass(frozen=True)
class Attempt:
    """number: from 1; job: as the cluster has it, None if it has none."""

    number: int
    job: Mapping[str, Any] | None

    @property
    def goes_on(self) -> bool:
        """Whether the cluster still works on it, or will."""
        return self.job is not None and objects.ended(self.job) is None


class KubernetesEngine:
    """Runs jobs in the cluster of `MA_KUBERNETES`.  folder: gets a copy of what explains a job's end."""

    def __init__(self, folder: Path) -> None:
        config = load()
        self._folder = folder
        self._settings = config.kubernetes
        self._artifacts = config.artifacts_url
        self._url = below(self._artifacts, JOBS)
        self._files = files_at(self._url)
        self._made: Cluster | None = None

    @property
    def _cluster(self) -> Cluster:
        if not self._settings.on:
            raise ValueError("there is no Kubernetes cluster: MA_KUBERNETES names a kubeconfig, or is in-cluster")
        if self._made is None:
            self._made = Cluster(self._settings)
        return self._made

    def submit(self, spec: JobSpec) -> None:
        """Create the Job of the next attempt, once, whoever else submits it at the same moment.

        Raises ClusterAway, ClusterRefused, ValueError for an image that may not be run.
        """
        last = self._last(spec.job_id)
        if last is not None:
            state = self._result(spec.job_id, last).state
            if state is JobState.RUNNING or (state is JobState.SUCCEEDED and not self._has(spec.job_id, last, TAKEN)):
                return
        number = self._next(spec.job_id, last)
        content = json.dumps({**dataclasses.asdict(spec), "args": dict(spec.args)})
        place = f"{spec.job_id}/{number}"
        manifest = objects.manifest(
            spec,
            self._settings,
            self._template(),
            key=self._key(spec.job_id),
            attempt=number,
            url=below(self._url, place),
            variables=self._variables(spec),
        )
        self._files.write(f"{place}/{SPEC}", content.encode())
        self._files.write(f"{spec.job_id}/{LAST}", json.dumps({"attempt": number}).encode())
        self._keep(spec.job_id, SPEC, content.encode())
        self._cluster.create_job(manifest)

    def result(self, job_id: str) -> JobResult:
        """Return how the job stands; the result that a finished Job has left is final."""
        last = self._last(job_id)
        return (
            JobResult(JobState.LOST, message="it was never submitted") if last is None else self._result(job_id, last)
        )

    def take(self, job_id: str) -> None:
        """Note that the result was used, and keep here what a later run is compared with."""
        last = self._last(job_id)
        if last is not None:
            self._files.write(f"{job_id}/{last.number}/{TAKEN}", b"")
            self._copy(job_id, last, (left.BEGAN,))

    def cancel(self, job_id: str) -> None:
        """Delete the Job and its pods, and wait until no container of it works."""
        for number in range(CANCEL_TRIES):
            try:
                last = self._last(job_id)
                if last is not None and last.goes_on:
                    self._stop(job_id, last)
                return
            except ClusterAway:
                if number == CANCEL_TRIES - 1:
                    raise

    def _stop(self, job_id: str, attempt: Attempt) -> None:
        assert attempt.job is not None
        self._files.write(f"{job_id}/{attempt.number}/{CANCELLED}", b"")
        self._cluster.delete_job(attempt.job["metadata"]["name"])
        asked: set[str] = set()
        deadline = time.monotonic() + CANCEL_S
        while (pods := self._pods(attempt.job)) and time.monotonic() < deadline:
            for name in {pod["metadata"]["name"] for pod in pods} - asked:
                self._cluster.delete_pod(name, objects.GRACE_S)
                asked.add(name)
            # A pod is gone only when its machine has cleared up after it.  One that begins now finds the mark.
            if objects.at_rest(pods, begun=self._has(job_id, attempt, STARTED)):
                return
            time.sleep(CANCEL_LOOK_S)

    def log(self, job_id: str) -> str:
        """Return the end of what the job printed, at most 1 MiB."""
        last = self._last(job_id)
        if last is None:
            return ""
        with contextlib.suppress(ClusterAway):
            if last.goes_on and last.job is not None and (pods := self._pods(last.job)):
                shown = self._cluster.log(pods[-1]["metadata"]["name"], objects.CONTAINER, MOST_LOG_LINES)
                return shown.encode()[-MOST_LOG_BYTES:].decode(errors="replace")
        return (self._read(job_id, last, left.LOG) or b"")[-MOST_LOG_BYTES:].decode(errors="replace")

    def evidence(self, job_id: str) -> dict[str, Any]:
        """Return what the job noted while it lived, and what the cluster says of its end."""
        last = self._last(job_id)
        if last is None:
            return {}
        self._copy(job_id, last, (*BEFORE_RESULT, RESULT))
        found = left.read(self._folder / job_id)
        end = self._end(last)
        spec = json.loads(self._read(job_id, last, SPEC) or b"{}")
        ended = {**(found.get("ended") or {}), **objects.told(end, spec)}
        if self._has(job_id, last, CANCELLED):
            ended |= {"asked": True, "signal": ended.get("signal", "SIGTERM")}
        result: dict[str, Any] = {
            **found,
            **({"ended": ended} if ended else {}),
            **({"kubernetes": end} if end else {}),
        }
        return {**result, "job": job_id} if result else {}

    async def wait(self, job_id: str) -> JobResult:
        """Look until the job has ended; what it waits for meanwhile is told in the artifact store.

        A cluster or a store that is away is waited for.
        """
        loop, told, pause_s = asyncio.get_running_loop(), None, FIRST_LOOK_S
        while True:
            with contextlib.suppress(OSError):
                found, told = await loop.run_in_executor(_lookers, self._look, job_id, told)
                if found.state is not JobState.RUNNING:
                    return found
            await asyncio.sleep(pause_s)
            pause_s = min(1.2 * pause_s, LONGEST_LOOK_S)

    def _look(self, job_id: str, before: tuple[str, str] | None) -> tuple[JobResult, tuple[str, str]]:
        last = self._last(job_id)
        if last is None or not last.goes_on or last.job is None:
            return self.result(job_id), ("", "")
        pods = self._pods(last.job)
        events = () if pods else self._cluster.events(last.job["metadata"]["uid"])
        told = objects.pending(pods, events)
        if told != before:
            reason, message = told
            value = {"reason": reason, "message": message} if reason else {}
            self._files.write(f"{job_id}/{left.PENDING}", json.dumps(value).encode())
        return JobResult(JobState.RUNNING), told

    def _result(self, job_id: str, attempt: Attempt) -> JobResult:
        if attempt.goes_on:
            return JobResult(JobState.RUNNING)
        text = self._read(job_id, attempt, RESULT)
        if text is None:
            return JobResult(JobState.LOST, message=self._how_lost(job_id, attempt))
        found = json.loads(text)
        if found["state"] == "SUCCEEDED":
            return JobResult(JobState.SUCCEEDED, found["outputs"])
        return JobResult(JobState.FAILED, kind=found["error"]["kind"], message=found["error"]["message"])

    def _how_lost(self, job_id: str, attempt: Attempt) -> str:
        if self._has(job_id, attempt, CANCELLED):
            return "it was cancelled"
        end = self._end(attempt)
        spec = json.loads(self._read(job_id, attempt, SPEC) or b"{}")
        told = objects.told(end, spec)
        if told.get("message"):
            return str(told["message"])
        if told.get("signal"):
            return f"its container was killed by {told['signal']}"
        reason = " ".join(str(end[name]) for name in ("reason", "message") if end.get(name))
        return f"its pod left no result: {reason}" if reason else "its pod is gone"

    def _end(self, attempt: Attempt) -> dict[str, Any]:
        try:
            pods = self._pods(attempt.job) if attempt.job is not None else ()
        except ClusterRefused:
            pods = ()
        return objects.end_of(pods, attempt.job)

    def _last(self, job_id: str) -> Attempt | None:
        """Return the last attempt of a job, None if there is none."""
        jobs = {objects.attempt_of(job): job for job in self._cluster.jobs(f"{objects.JOB_LABEL}={self._key(job_id)}")}
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            jobs.setdefault(int(json.loads(self._files.read(f"{job_id}/{LAST}"))["attempt"]), None)  # type: ignore[arg-type]
        jobs.pop(0, None)
        return Attempt(max(jobs), jobs[max(jobs)]) if jobs else None

    def _next(self, job_id: str, last: Attempt | None) -> int:
        """Return the number of the attempt to make: that of one whose submitter died before there was a Job."""
        if last is None:
            return 1
        begun = last.job is not None or any(self._has(job_id, last, name) for name in (STARTED, CANCELLED))
        return last.number + 1 if begun else last.number

    def _pods(self, job: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return self._cluster.pods(f"job-name={job['metadata']['name']}")

    def _key(self, job_id: str) -> str:
        return objects.key_of(job_id, self._artifacts)

    def _template(self) -> Mapping[str, Any]:
        if self._settings.pod is None:
            return {}
        try:
            found = yaml.safe_load(self._settings.pod.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise ValueError(f"the pod template {self._settings.pod} cannot be read: {error}") from error
        if not isinstance(found, dict) or not isinstance(found.get("spec") or {}, dict):
            raise ValueError(f"the pod template {self._settings.pod} is no pod: it has metadata and spec")
        return found

    def _variables(self, spec: JobSpec) -> dict[str, str]:
        run = run_variable(spec.args.get("run"))
        return {**THREADS, **run, "MA_ARTIFACTS": self._artifacts, MARK: str(self._folder / spec.job_id)}

    def _has(self, job_id: str, attempt: Attempt, name: str) -> bool:
        return self._files.has(f"{job_id}/{attempt.number}/{name}")

    def _read(self, job_id: str, attempt: Attempt, name: str) -> bytes | None:
        try:
            return self._files.read(f"{job_id}/{attempt.number}/{name}")
        except FileNotFoundError:
            return None

    def _copy(self, job_id: str, attempt: Attempt, names: Sequence[str]) -> None:
        """Put what an attempt left into its folder here, and remove what an earlier one had left there."""
        for name in names:
            content = self._read(job_id, attempt, name)
            if content is not None:
                self._keep(job_id, name, content)
            else:
                (self._folder / job_id / name).unlink(missing_ok=True)

    def _keep(self, job_id: str, name: str, content: bytes) -> None:
        place = self._folder / job_id
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
