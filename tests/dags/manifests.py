"""Manifests as the API server writes them, whole; a test says only what is its own."""

from typing import Any


def pipeline(name: str = "late", **more: Any) -> dict[str, Any]:
    return {
        "kind": "Pipeline",
        "project": "flights",
        "name": name,
        "uid": f"uid-{name}",
        "revision": f"pipeline-{name}-1",
        "template": "train",
        "params": {},
        "steps": [],
        "description": "",
        "owner": "",
        "type": "TRAIN",
        "tags": ["spec:0123456789ab"],
        "root_dir": "/srv/flights",
        "max_active_runs": 16,
        **more,
    }


def trigger(name: str = "nightly", **more: Any) -> dict[str, Any]:
    return {
        "kind": "TriggerRun",
        "project": "flights",
        "name": name,
        "uid": f"uid-{name}",
        "pipeline": "late",
        "cron": "0 3 * * *",
        "interval_s": None,
        "parameters": {"default": {}},
        "max_concurrency": 0,
        "start": "2026-03-10T12:00:30Z",
        "tags": ["spec:0123456789ab"],
        **more,
    }


def step(name: str, operator: str = "register_model", *needs: str, **arguments: Any) -> dict[str, Any]:
    wanted = {
        "register_model": ("dataset_uri", "model_uri", "report", "model_name"),
        "materialize_features": ("module", "feature_service"),
    }
    given = {name: f"given {name}" for name in wanted.get(operator, ())}
    return {"name": name, "operator": operator, "needs": list(needs), "with": {**given, **arguments}}
