"""`ma pipeline-run retry` and `resume`: what has ended goes on.  Asks the API; decides nothing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from api.cli.context import client, say
from api.cli.exits import OK, Failure
from api.cli.runs import edit, follow
from api.client import Client
from api.gen.michelangelo.api import conditions_pb2
from api.messages import enums

ACCEPTED_S = 30.0
LOOK_S = 0.2


def retry(name: str, *, namespace: str, step: str, reason: str, wait: bool, timeout_s: float) -> int:
    """Do a step of an ended run again, with all that follows it; `wait` until the run has ended again."""
    with client() as api:
        wanted = step or _failed_step(api.get("PipelineRun", namespace, name))

        def wish(run: Any) -> None:
            info = run.spec.retry_info
            info.Clear()
            info.activity_id, info.reason = wanted, reason
            info.workflow_id, info.workflow_run_id = run.status.workflow_id, run.status.workflow_run_id

        edit(api, "PipelineRun", namespace, name, wish)
        if (void := _why_void(api, namespace, name)) is None:
            say(f"{name}: the retry of {wanted} is asked for, and was not begun yet")
        elif void:
            raise Failure(f"{name} is not retried: {void}")
        else:
            say(f"{name}: {wanted} and what follows it is done again")
        return follow(api, namespace, name, timeout_s=timeout_s, tell=say) if wait else OK


def _failed_step(run: Any) -> str:
    """Return the first step that failed or was killed, innermost.  Raises Failure."""
    steps = list(run.status.steps)
    while steps:
        step = steps.pop(0)
        if enums.of(step, "state") in ("FAILED", "KILLED"):
            if not step.sub_steps:
                return str(step.name)
            steps = list(step.sub_steps)
    raise Failure(f"no step of {run.metadata.name} failed: say with --step which one is to be done again")


def _why_void(api: Client, namespace: str, name: str) -> str | None:
    """Return why a retry is void, empty if it is begun; None if nobody has looked at it yet."""
    deadline = time.monotonic() + ACCEPTED_S
    while time.monotonic() < deadline:
        run = api.get("PipelineRun", namespace, name)
        if not run.spec.HasField("retry_info"):
            told = next((item for item in run.status.conditions if item.type == "Retried"), None)
            void = told is not None and told.status == conditions_pb2.CONDITION_STATUS_FALSE
            return str(told.message) if told is not None and void else ""
        time.sleep(LOOK_S)
    return None


def resume(
    name: str,
    *,
    namespace: str,
    start: Sequence[str],
    up_to: Sequence[str],
    force: bool,
    run_name: str,
    wait: bool,
    timeout_s: float,
) -> int:
    """Start a run that takes over what an earlier one did; follow it if asked.  Returns the exit code."""
    from api.kinds import kinds

    with client() as api:
        earlier = api.get("PipelineRun", namespace, name)
        pipeline = earlier.spec.pipeline.name
        wanted = run_name or f"{pipeline}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        run = kinds()["PipelineRun"].new(namespace, wanted)
        for field in ("pipeline", "revision", "input"):
            if earlier.spec.HasField(field):
                getattr(run.spec, field).CopyFrom(getattr(earlier.spec, field))
        resumed = run.spec.resume
        resumed.pipeline_run.namespace, resumed.pipeline_run.name = namespace, name
        resumed.resume_from.extend(start)
        resumed.resume_up_to.extend(up_to)
        resumed.force_resume = force
        made = str(api.create(run).metadata.name)
        say(made)
        return follow(api, namespace, made, timeout_s=timeout_s, tell=say) if wait else OK
