"""Why a run failed, written into its status: gathers the evidence where it lies and has it judged by `api.verdicts`.

Evidence is looked for in the task's XCom, then in its job's folder, then in what Airflow logged.  Decides nothing.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from api import evidence as left
from api.airflow import Airflow, DagRun, Task
from api.controllers.platform import Platform
from api.errors import NotFound
from api.gen.michelangelo.api import typed_struct_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.run_names import job_name
from api.store.base import Criterion, Group, Key, Operator, Query
from api.verdicts import differences as differing
from api.verdicts import judging as verdicts
from api.workflows import typed

SPEC = "spec.json"
MOST_FRAMES = 12
MOST_LINKS = 5
LONGEST_MESSAGE = 1000


def write(status: Any, verdict: verdicts.Verdict | None) -> None:
    """Put a verdict into `status.details` in place of an earlier one; None takes it away."""
    kept = [detail for detail in status.details if not is_verdict(detail)]
    del status.details[:]
    status.details.extend(kept)
    if verdict is not None:
        status.details.add().Pack(typed(verdicts.TYPE, verdict.plain()))


def is_verdict(detail: Any) -> bool:
    """Whether an Any of `status.details` is a verdict."""
    found = typed_struct_pb2.TypedStruct()
    return bool(detail.Is(found.DESCRIPTOR)) and detail.Unpack(found) and found.type_url == verdicts.TYPE


def without_task(run: Any, reason: str, message: str, *, asked: bool = False) -> verdicts.Verdict:
    """Return the verdict of an end that no task gave the reason for."""
    place = verdicts.Place(run.metadata.namespace, run.spec.pipeline.name, run.metadata.name)
    return verdicts.verdict({"reason": reason, "message": message, "asked": asked}, place)


class RunVerdict:
    """Judges runs that failed."""

    def __init__(self, platform: Platform) -> None:
        self._airflow = platform.airflow
        self._resources = platform.resources
        self._jobs = platform.config.jobs_path

    async def of(self, run: Any, observed: DagRun, step: Any, task: Task | None, *, asked: bool) -> verdicts.Verdict:
        """Return the verdict of the run whose `step` failed first; task: that step's task, None if it has none."""
        found = await self._evidence(observed, task) if task is not None else {}
        job = self._folder(observed, task)
        began = found.get("began") or {}
        green = await self._last_green(run)
        differences: Sequence[Mapping[str, Any]] = ()
        if green is not None:
            then = self._began(green, task)
            before, after = self._with_versions(then), self._with_versions(began)
            differences = differing.differences(run, green, after, before, step.name)
        place = verdicts.Place(
            namespace=run.metadata.namespace,
            pipeline=run.spec.pipeline.name,
            run=run.metadata.name,
            step=step.name,
            task=task.task_id if task is not None else step.activity_id or step.name,
            map_index=task.map_index if task is not None else -1,
            replayable=job is not None and (job / SPEC).is_file(),
        )
        evidence = {**found, "asked": asked, "message": found.get("message") or step.message}
        name = green.metadata.name if green is not None else ""
        return verdicts.verdict(shortened(evidence), place, differences, name)

    def _folder(self, observed: DagRun, task: Task | None) -> Path | None:
        if task is None:
            return None
        return self._jobs / job_name(observed.dag_id, observed.run_id, task.task_id, task.map_index)

    async def _evidence(self, observed: DagRun, task: Task) -> dict[str, Any]:
        pushed = await self._airflow.xcom(observed.dag_id, observed.run_id, task, "verdict")
        told = pushed if isinstance(pushed, dict) else {}
        given = told.get("evidence")
        found = dict(given) if isinstance(given, dict) else {}
        folder = self._folder(observed, task)
        if not found and folder is not None:
            found = left.read(folder)
        found.update({name: told[name] for name in ("kind", "message") if told.get(name)})
        if not found.get("exception") and not found.get("ended"):
            found.update(await from_airflow(self._airflow, observed, task, found))
        return found

    async def _last_green(self, run: Any) -> Any | None:
        """Return the run of the same pipeline that succeeded last, None if none has."""
        where = Group(
            (
                Criterion("pipeline.name", Operator.EQUAL, (run.spec.pipeline.name,)),
                Criterion("state", Operator.EQUAL, (wire.PIPELINE_RUN_STATE_SUCCEEDED,)),
            )
        )
        query = Query(namespace=run.metadata.namespace, where=where, order=(("end_time", True),), limit=1)
        items = (await self._resources.list("PipelineRun", query)).items
        if not items:
            return None
        return await self._resources.find(Key("PipelineRun", items[0].metadata.namespace, items[0].metadata.name))

    def _began(self, green: Any, task: Task | None) -> Mapping[str, Any]:
        """Return what the same task of a green run noted when it began, if its job's folder is here."""
        if task is None:
            return {}
        status = green.status
        folder = self._jobs / job_name(status.workflow_id, status.workflow_run_id, task.task_id, task.map_index)
        began: Mapping[str, Any] = left.read(folder).get("began") or {}
        return began

    def _with_versions(self, began: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a job noted with its packages by name, if their list is here."""
        environment = dict(began.get("environment") or {})
        digest = str(environment.get("packages") or "").removeprefix("sha256:")
        if digest.isalnum():
            try:
                listed = json.loads((self._jobs / left.ENVIRONMENTS / f"{digest}.json").read_text())
                environment["versions"] = dict(str(name).rsplit("-", 1) for name in listed if "-" in str(name))
            except (OSError, ValueError):
                pass
        return {**began, "environment": environment}


async def from_airflow(airflow: Airflow, observed: DagRun, task: Task, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Airflow knows of a task that left no word of its own: its log, the exception in it, its events."""
    found: dict[str, Any] = {}
    try:
        records = await airflow.log_records(observed.dag_id, observed.run_id, task)
    except NotFound:
        records = []
    lines = [str(record.get("event") or "") for record in records]
    if lines and not known.get("log"):
        found["log"] = left.last_lines("\n".join(lines))
    details = [record["error_detail"] for record in records if record.get("error_detail")]
    if details and (chain := _chain(details[-1])):
        places = [frame for link in reversed(chain) for frame in reversed(link["frames"])]
        own = next((frame for frame in places if left.is_users(frame["file"])), None)
        found["exception"] = {"chain": chain, **({"at": own} if own else {})}
    found["events"] = await airflow.events(observed.dag_id, observed.run_id, task)
    return found


def _chain(detail: Any) -> list[dict[str, Any]]:
    """Return Airflow's form of a chain of exceptions in ours: the raised one first."""
    links = [link for link in detail if isinstance(link, Mapping)] if isinstance(detail, list) else []
    return [_link(link) for link in links[:MOST_LINKS]]


def _link(link: Mapping[str, Any]) -> dict[str, Any]:
    frames = [frame for frame in link.get("frames") or () if isinstance(frame, Mapping)]
    name = str(link.get("exc_type") or "")
    made: dict[str, Any] = {
        "type": name,
        "message": str(link.get("exc_value") or "")[:LONGEST_MESSAGE],
        "frames": [
            {"file": str(frame.get("filename")), "line": frame.get("lineno"), "function": str(frame.get("name"))}
            for frame in frames[-MOST_FRAMES:]
        ],
    }
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, BaseException):
        made["bases"] = [base.__name__ for base in known.__mro__[1:-2]]
    return made


def shortened(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return evidence without what is only for comparing: the digest of every file."""
    found = {name: value for name, value in evidence.items() if value}
    began = found.get("began")
    if isinstance(began, dict) and isinstance(began.get("code"), dict):
        code = began["code"]
        names = sorted(code.get("files") or {})
        found["began"] = {**began, "code": {**code, "files": {name: code["files"][name] for name in names[:20]}}}
    return found
