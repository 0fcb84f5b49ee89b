"""Rows 49, 59 and 60 for events: payloads that are too large, pipelines that cannot run, circles; on every surface."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.workloads import pipeline
from tests.bad_inputs.objects import everywhere
from tests.bad_inputs.surfaces import Case, Surfaces
from tests.bad_inputs.test_triggers import Change, deleted, failed, nothing, paused

API = "michelangelo.platform/v1"


def event(here: Surfaces, data: Any) -> dict[str, Any]:
    """Return the document of an event."""
    metadata = {"name": f"e-{uuid.uuid4().hex[:8]}", "namespace": here.project}
    return {"apiVersion": API, "kind": "Event", "metadata": metadata, "spec": {"name": "loaded", "data": data}}


def nested(levels: int) -> Any:
    return {"in": nested(levels - 1)} if levels else 1


def subscription(here: Surfaces, name: str, source: str = "", change: Change = nothing) -> dict[str, Any]:
    """Return the document of a subscription, to a pipeline that is made for it."""
    change(here, here.served.create(pipeline(here.project)))
    return {
        "apiVersion": API,
        "kind": "Subscription",
        "metadata": {"name": f"s-{uuid.uuid4().hex[:8]}", "namespace": here.project},
        "spec": {"pipeline": {"name": "train"}, "events": [{"name": name, "source": source}]},
    }


def refused() -> Iterator[Case]:
    yield from everywhere(49, "large", lambda here: event(here, "x" * 50_000), "TOO_LARGE", "spec.data")
    yield from everywhere(49, "deep", lambda here: event(here, nested(20)), "TOO_DEEP", "spec.data")
    for change, reason in ((paused, "PIPELINE_PAUSED"), (failed, "PIPELINE_ERROR")):
        yield from everywhere(
            59,
            change.__name__,
            lambda here, c=change: subscription(here, "loaded", change=c),  # type: ignore[misc]
            reason,
        )
    yield from everywhere(
        59, "deleted", lambda here: subscription(here, "loaded", change=deleted), "UNKNOWN_REFERENCE", "spec.pipeline"
    )
    own = "pipelines/train"
    for name, source in (("ma.run.succeeded", own), ("ma.run.*", ""), ("ma.dataset.updated", "pipelines/*")):
        yield from everywhere(
            60,
            f"{name} of {source or 'any'}",
            lambda here, n=name, s=source: subscription(here, n, s),  # type: ignore[misc]
            "TRIGGER_CYCLE",
            "spec.events",
        )


@pytest.mark.parametrize("case", list(refused()), ids=str)
def test_what_cannot_be_is_refused_alike(here: Surfaces, case: Case) -> None:
    answer = case.send(here)
    assert case.reason in answer.reasons, answer
    assert case.field in ("", *answer.fields) or case.field in answer.text, answer
