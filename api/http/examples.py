"""Examples of specs for the OpenAPI document: the least that says something; other kinds show an empty spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPECS: Mapping[str, Mapping[str, Any]] = {
    "Project": {"description": "What to show to whom", "tier": 2},
    "Pipeline": {"type": "PIPELINE_TYPE_TRAIN", "manifest": {"filePath": "train_and_deploy"}},
    "PipelineRun": {"pipeline": {"name": "train"}, "input": {"kw_args": {"rows": 1000}}},
    "TriggerRun": {"pipeline": {"name": "train"}, "trigger": {"cronSchedule": {"cron": "0 6 * * *"}}},
    "Deployment": {"desiredRevision": {"name": "churn-1"}, "inferenceServer": {"name": "local"}},
    "Event": {"name": "orders.loaded", "source": "warehouse", "data": {"day": "2026-11-21"}},
    "Subscription": {
        "pipeline": {"name": "train"},
        "events": [{"name": "orders.loaded"}],
        "parameters": {"rows": {"path": "data.rows"}},
    },
    "RoleBinding": {"role": "ROLE_EDITOR", "subjects": [{"kind": "SUBJECT_KIND_GROUP", "name": "growth"}]},
}


def example(kind: str, group_version: str) -> dict[str, Any]:
    """Return an object of a kind."""
    return {
        "apiVersion": group_version,
        "kind": kind,
        "metadata": {"name": "example", "labels": {"team": "growth"}},
        "spec": dict(SPECS.get(kind, {})),
    }
