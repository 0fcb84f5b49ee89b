"""Row 58: what is wished of a run too late, too early or of nothing, alike on every surface; rows 61 and 62.

What Airflow answers (61) and what somebody does in its UI (62) is no input of a surface: see
`tests/api/controllers/test_pipeline_run.py`, `test_retry.py` and `test_external.py`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from api.cli.present import plain
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from tests.api.workloads import pipeline, run
from tests.bad_inputs.objects import everywhere
from tests.bad_inputs.surfaces import Answer, Case, Surfaces

FAILED, RUNNING = wire.PIPELINE_RUN_STATE_FAILED, wire.PIPELINE_RUN_STATE_RUNNING


def made(here: Surfaces, state: Any) -> Any:
    """Return a run in a state, with a step that failed."""
    here.served.create(pipeline(here.project))
    found = here.served.create(run(here.project))
    found.status.state = state
    found.status.workflow_id, found.status.workflow_run_id = f"{here.project}.train", "ma__x__1"
    found.status.steps.add(name="first", activity_id="first", state=wire.PIPELINE_RUN_STEP_STATE_FAILED)
    if state == FAILED:
        found.status.end_time.GetCurrentTime()
    return here.served.run(here.served.resources.update_status(found))


def wished(here: Surfaces, state: Any, **spec: Any) -> dict[str, Any]:
    """Return the document of a run in a state, with what is wished of it."""
    found = plain(made(here, state))
    found.pop("status", None)
    found["spec"] |= spec
    return found


def update(row: int, name: str, state: Any, spec: dict[str, Any], reason: str) -> Iterator[Case]:
    """Yield the cases of a wish on each surface."""

    def by_grpc(here: Surfaces) -> Answer:
        return here.grpc("PipelineRun", "Update", pipeline_run=here.message(wished(here, state, **spec)))

    def by_http(here: Surfaces) -> Answer:
        document = wished(here, state, **spec)
        return here.http("PUT", here.path("PipelineRun", "", document["metadata"]["name"]), document)

    yield Case(row, "grpc", name, by_grpc, reason)
    yield Case(row, "http", name, by_http, reason)
    yield Case(row, "ma", name, lambda here: here.apply(wished(here, state, **spec)), reason)


def resumed(here: Surfaces, source: str, **resume: Any) -> dict[str, Any]:
    """Return the document of a run that goes on from another."""
    name = made(here, FAILED).metadata.name if source == "failed" else made(here, RUNNING).metadata.name
    return {
        "apiVersion": "michelangelo.api/v2",
        "kind": "PipelineRun",
        "metadata": {"name": f"r-{uuid.uuid4().hex[:8]}", "namespace": here.project},
        "spec": {
            "pipeline": {"name": "train"},
            "resume": {"pipelineRun": {"name": name if source != "nobody" else "nobody"}, **resume},
        },
    }


def refused() -> Iterator[Case]:
    yield from update(58, "kill of a finished run", FAILED, {"kill": True}, "ALREADY_FINISHED")
    yield from update(58, "retry of a running run", RUNNING, {"retryInfo": {"activityId": "first"}}, "STILL_RUNNING")
    for name, source, resume, reason in (
        ("resume from nothing", "nobody", {}, "UNKNOWN_RUN"),
        ("resume from an unknown step", "failed", {"resumeFrom": ["frist"]}, "UNKNOWN_STEP"),
        ("resume up to an unknown step", "failed", {"resumeUpTo": ["last"]}, "UNKNOWN_STEP"),
        ("resume from a running run", "running", {}, "STILL_RUNNING"),
    ):
        yield from everywhere(
            58,
            name,
            lambda here, s=source, r=resume: resumed(here, s, **r),  # type: ignore[misc]
            reason,
        )


@pytest.mark.parametrize("case", list(refused()), ids=str)
def test_what_is_wished_too_late_or_too_early_is_refused_alike(here: Surfaces, case: Case) -> None:
    answer = case.send(here)
    assert case.reason in answer.reasons, answer
    assert json.dumps(answer.text)


def test_a_kill_that_is_asked_for_twice_is_one(here: Surfaces) -> None:
    document = wished(here, RUNNING, kill=True)
    for _ in range(2):
        assert not here.apply(document).reasons
