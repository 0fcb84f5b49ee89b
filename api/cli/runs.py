"""`ma pipeline run` and `pipeline-run`: start, follow, read and stop runs through the API."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format

from api.cli import output
from api.cli.context import client, configuration, say
from api.cli.exits import KILLED, OK, REFUSED, TIMED_OUT, USAGE, Failure
from api.client import Client
from api.errors import AlreadyExists, Conflict
from api.gen.michelangelo.api.conditions_pb2 import CONDITION_STATUS_TRUE as TRUE
from api.messages import enums, yaml_text

LOOK_S = 0.25
ENDED = {"SUCCEEDED", "FAILED", "KILLED", "SKIPPED"}
CODES = {"SUCCEEDED": OK, "SKIPPED": OK, "KILLED": KILLED}
Say = Callable[[str], None]


def parameters(settings: Sequence[str]) -> dict[str, Any]:
    """Return `key=value` settings as parameters.  A value is read as YAML: numbers, true, lists and {maps} are such."""
    found: dict[str, Any] = {}
    for setting in settings:
        key, given, text = setting.partition("=")
        if not given or not key:
            raise Failure(f"--set wants key=value, not {setting[:64]!r}", code=USAGE)
        if key in found:
            raise Failure(f"--set gives {key} twice", code=USAGE)
        try:
            nodes = yaml_text.documents(text)
        except yaml_text.YamlError as error:
            raise Failure(f"--set {key}: {error.fault.message}", code=USAGE) from None
        found[key] = yaml_text.plain(nodes[0]) if nodes else (None if text.strip() in ("null", "~") else "")
    return found


def start(api: Client, namespace: str, pipeline: str, given: Mapping[str, Any], *, name: str = "") -> str:
    """Create a PipelineRun and return its name.  A name that is given makes this repeatable."""
    from api.kinds import kinds

    wanted = name or f"{pipeline}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    run = kinds()["PipelineRun"].new(namespace, wanted)
    run.spec.pipeline.namespace, run.spec.pipeline.name = namespace, pipeline
    if given:
        json_format.ParseDict({"kw_args": dict(given)}, run.spec.input)
    try:
        return str(api.create(run).metadata.name)
    except AlreadyExists:
        if name:
            return name
        raise


def run_pipeline(
    name: str, *, namespace: str, settings: Sequence[str], run_name: str, wait: bool, timeout_s: float
) -> int:
    """Start a run; follow it if asked.  Returns the exit code."""
    with client() as api:
        started = start(api, namespace, name, parameters(settings), name=run_name)
        say(started)
        return follow(api, namespace, started, timeout_s=timeout_s, tell=say) if wait else OK


def wait_for(name: str, *, namespace: str, timeout_s: float) -> int:
    """Follow a run to its end.  Returns the exit code."""
    with client() as api:
        return follow(api, namespace, name, timeout_s=timeout_s, tell=say)


def follow(api: Client, namespace: str, name: str, *, timeout_s: float, tell: Say) -> int:
    """Tell each step as it begins and ends, then how the run ended.  timeout_s: 0 waits for ever."""
    begun, shown = time.monotonic(), Progress(tell)
    while True:
        run = api.get("PipelineRun", namespace, name)
        shown.update(run)
        state = state_of(run)
        if state in ENDED:
            seconds = _seconds(run.metadata.creationTimestamp, run.status.end_time)
            message = f": {run.status.error_message}" if run.status.error_message else ""
            tell(f"{name} {state} in {output.duration(seconds)}{message}")
            return CODES.get(state, REFUSED)
        if timeout_s and time.monotonic() - begun > timeout_s:
            raise Failure(f"{name} is still {state} after {output.duration(timeout_s)}", code=TIMED_OUT)
        time.sleep(LOOK_S)


def state_of(run: Any) -> str:
    """Return `RUNNING`, `SUCCEEDED` ..., `PENDING` before the first observation."""
    text = enums.of(run.status, "state")
    return "PENDING" if text == "-" else text


class Progress:
    """Tells what is new in a run since the last look: once per step and state."""

    def __init__(self, tell: Say) -> None:
        self._tell = tell
        self._known: dict[str, str] = {}
        self._waits = ""

    def update(self, run: Any) -> None:
        """Tell the news of a run."""
        if (waits := waits_for(run)) != self._waits:
            self._waits = waits
            if waits:
                self._tell(f"  waits: {waits}")
        for step in _flat(run.status.steps):
            state = enums.of(step, "state")
            if self._known.get(step.name) == state or state in ("-", "PENDING"):
                continue
            self._known[step.name] = state
            self._tell(_step_line(step, state))


def waits_for(run: Any) -> str:
    """Return what a run that has not begun waits for, empty if it is not told."""
    told = pending_of(run)
    return str(told.message) if told is not None else ""


def pending_of(run: Any) -> Any | None:
    """Return the condition that says what a run waits for, None if it does not wait."""
    found = (item for item in run.status.conditions if item.type == "Pending" and item.status == TRUE)
    return next(found, None) if state_of(run) == "PENDING" else None


def _step_line(step: Any, state: str) -> str:
    seconds = _seconds(step.start_time, step.end_time)
    took = f"  {output.duration(seconds)}" if step.HasField("end_time") and state != "SKIPPED" else ""
    tries = f"  try {len(step.attempt_ids)}" if len(step.attempt_ids) > 1 else ""
    message = f"  {step.message}" if step.message else ""
    return f"  {step.name:<24} {state:<10}{took}{tries}{message}".rstrip()


def _flat(steps: Any) -> Iterator[Any]:
    for step in steps:
        yield step
        yield from _flat(step.sub_steps)


def _seconds(start_time: Any, end_time: Any) -> float:
    first = start_time.ToNanoseconds() / 1e9
    last = end_time.ToNanoseconds() / 1e9
    return max(last - first, 0.0) if first and last else 0.0


def kill(name: str, *, namespace: str, wait: bool, timeout_s: float) -> int:
    """Ask for a run to be stopped; `wait` until it is."""
    with client() as api:
        edit(api, "PipelineRun", namespace, name, lambda run: setattr(run.spec, "kill", True))
        say(f"{name} will be killed")
        if not wait:
            return OK
        code = follow(api, namespace, name, timeout_s=timeout_s, tell=say)
        return OK if code == KILLED else code


def edit(api: Client, kind: str, namespace: str, name: str, change: Callable[[Any], None]) -> None:
    """Read, change and write an object; once more if somebody wrote it meanwhile."""
    for attempt in range(5):
        found = api.get(kind, namespace, name)
        change(found)
        try:
            api.update(found)
            return
        except Conflict:
            if attempt == 4:
                raise


def logs(name: str, *, namespace: str, step: str) -> None:
    """Print the log of every task of a run, or of one step, in the order in which they began."""
    with client() as api:
        run = api.get("PipelineRun", namespace, name)
    if not run.status.workflow_run_id:
        raise Failure(f"{name} is {state_of(run)}: it has no log yet")
    known = [item.activity_id or item.name for item in _flat(run.status.steps)]
    if step and step not in known:
        raise Failure(f"{name} has no step {step!r}: it has {', '.join(dict.fromkeys(known)) or 'none yet'}")
    asyncio.run(_print_logs(run.status.workflow_id, run.status.workflow_run_id, step))


async def _print_logs(dag_id: str, run_id: str, step: str) -> None:
    from api.airflow import Airflow
    from api.controllers.steps import in_order

    airflow = Airflow(configuration().airflow_url)
    try:
        for task in in_order(await airflow.tasks(dag_id, run_id)):
            if task.try_number < 1 or (step and task.task_id != step):
                continue
            mapped = f"[{task.map_index}]" if task.map_index >= 0 else ""
            say(f"==> {task.task_id}{mapped} try {task.try_number}: {task.state} <==")
            say(await airflow.task_log(dag_id, run_id, task))
    finally:
        await airflow.close()
