"""Pipelines, runs and triggers to send to a server, and a pipeline as its controller leaves it."""

from __future__ import annotations

from typing import Any

from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.kinds import kinds
from api.workflows import STEPS_TYPE, WORKFLOW_TYPE, spec_hash, typed
from tests.api.running import Refusal, Served

SCHEMAS = {
    "rows": {"type": "integer", "minimum": 1, "maximum": 10},
    "rate": {"type": "number", "exclusiveMinimum": 0},
    "algorithm": {"type": "string", "enum": ["lightgbm", "xgboost"], "default": "lightgbm"},
    "label": {"type": "string", "minLength": 1},
    "note": {"type": "string", "default": ""},
}
READY, ERROR = pipeline_pb2.PIPELINE_STATE_READY, pipeline_pb2.PIPELINE_STATE_ERROR


def graph(project: str, steps: Any) -> Any:
    new = kinds()["Pipeline"].new(project, "graph")
    new.spec.manifest.content.Pack(typed(STEPS_TYPE, {"steps": steps}))
    return new


def step(name: Any, *needs: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "operator": "train", "needs": list(needs), **more}


def pipeline(project: str, name: str = "train") -> Any:
    new = kinds()["Pipeline"].new(project, name)
    new.spec.manifest.file_path = "train"
    return new


def run(project: str, **given: Any) -> Any:
    new = kinds()["PipelineRun"].new(project, "run")
    new.spec.pipeline.name = "train"
    new.spec.input.update(given)
    return new


def trigger(project: str, cron: str = "0 3 * * *") -> Any:
    new = kinds()["TriggerRun"].new(project, "nightly")
    new.spec.pipeline.name = "train"
    new.spec.trigger.cron_schedule.cron = cron
    return new


def built(served: Served, project: str, state: Any = READY) -> Any:
    """Create a pipeline as its controller leaves it."""
    made = served.create(pipeline(project))
    made.status.state, made.status.build_id, made.status.error_message = state, spec_hash(made.spec), "no template"
    made.status.registered_workflow.Pack(typed(WORKFLOW_TYPE, {"params_schema": SCHEMAS, "params": {}}))
    return served.run(served.resources.update_status(made))


def refused(served: Served, new: Any, code: str = "INVALID_ARGUMENT") -> Refusal:
    refusal = served.refused(lambda: served.create(new))
    assert refusal.code == code, refusal
    return refusal
