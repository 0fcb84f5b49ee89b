"""`ma pipeline-run explain` and `replay`: why a run failed, and its failed task once more on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from api import evidence as left
from api.cli import explain_text, output
from api.cli.context import client, configuration, say
from api.cli.exits import OK, REFUSED, USAGE, Failure
from api.cli.runs import state_of
from api.gen.michelangelo.api import typed_struct_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.run_names import job_name
from api.verdicts import judging as verdicts

SPEC = "spec.json"
FORMATS = ("text", "json")
REPLAY = "operators.jobs.replay"


def verdict_of(run: Any) -> dict[str, Any] | None:
    """Return the verdict in a run's status, None if it has none."""
    for detail in run.status.details:
        found = typed_struct_pb2.TypedStruct()
        if detail.Is(found.DESCRIPTOR) and detail.Unpack(found) and found.type_url == verdicts.TYPE:
            shown: dict[str, Any] = _whole(json_format.MessageToDict(found.value))
            return shown
    return None


def _whole(value: Any) -> Any:
    """Return JSON whose whole numbers are such: a Struct knows doubles alone."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def explain(name: str, *, namespace: str, form: str) -> int:
    """Print why a run failed, or what it does if it has not ended."""
    if form not in FORMATS:
        raise Failure(f"unknown output {form!r}: use {', '.join(FORMATS)}", code=USAGE)
    with client() as api:
        run = api.get("PipelineRun", namespace, name)
    found = verdict_of(run)
    if form == "json":
        say(output.as_json(found or {"class": "", "state": state_of(run), "working": _working(run)}))
        return OK
    lines = explain_text.failed(run, found) if found else explain_text.going(run, _working(run))
    for line in lines:
        say(line)
    return OK


def _working(run: Any) -> list[dict[str, Any]]:
    """Return what is known of the steps that work at this moment, if their jobs are on this machine."""
    found = []
    for step in explain_text.flat(run.status.steps):
        if step.state == wire.PIPELINE_RUN_STEP_STATE_RUNNING and not step.sub_steps:
            folder = _folder(run, step.activity_id or step.name, _map_index(step.name))
            found.append({"step": step.name, "evidence": left.read(folder)})
    return found


def _map_index(name: str) -> int:
    """Return 3 for the step `train[3]`, -1 for one that is not mapped."""
    digits = name.rpartition("[")[2].removesuffix("]")
    return int(digits) if name.endswith("]") and digits.isdigit() else -1


def _folder(run: Any, task: str, map_index: int) -> Path:
    return configuration().jobs_path / job_name(run.status.workflow_id, run.status.workflow_run_id, task, map_index)


def replay(name: str, *, namespace: str, task: str, map_index: int, debug: bool, keep: bool) -> int:
    """Run the job of a task once more, here.  Returns 0 when it succeeded, 1 when it raised."""
    with client() as api:
        run = api.get("PipelineRun", namespace, name)
    found = verdict_of(run) or {}
    step = task or str(found.get("task") or "")
    names = list(dict.fromkeys(one.activity_id or one.name for one in explain_text.flat(run.status.steps)))
    if not step:
        raise Failure(f"which task?  Give it with --task: {', '.join(names) or 'it has none yet'}", code=USAGE)
    if step not in names:
        raise Failure(f"{name} has no task {step!r}: it has {', '.join(names) or 'none yet'}")
    if not task and map_index < 0:
        map_index = _map_index(str(found.get("step") or ""))
    folder = _folder(run, step, map_index)
    if not (folder / SPEC).is_file():
        raise Failure(
            f"task {step!r} of {name} left no capsule on this machine ({folder})",
            "a task has one when it ran as a job of an engine of this machine, and its folder was not removed",
        )
    command = [sys.executable, "-m", REPLAY, str(folder), *(["--pdb"] if debug else []), *(["--keep"] if keep else [])]
    code = subprocess.run(command, check=False).returncode  # noqa: S603
    if code < 0:
        say(f"the replay was ended by signal {-code}")
    return code if code >= 0 else REFUSED
