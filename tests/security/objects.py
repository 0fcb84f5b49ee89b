"""The smallest object of each kind that is accepted, in a project that has what they refer to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.gen.michelangelo.platform.v1 import role_binding_pb2 as wire
from api.kinds import kinds

SYSTEM = "ma-system"
# What every object is called that others refer to.
NAME = "thing"
OF_THE_SYSTEM = frozenset({"Cluster", "Hook"})
# Referees first.
ORDER = ("Pipeline", "InferenceServer", "RayCluster", "ModelFamily", "PipelineRun", "EvaluationReport", "Revision")


def _run(spec: Any) -> None:
    spec.pipeline.name = NAME


def _trigger(spec: Any) -> None:
    spec.pipeline.name = NAME
    spec.trigger.cron_schedule.cron = "0 3 * * *"


def _binding(spec: Any) -> None:
    spec.role = wire.ROLE_VIEWER
    spec.subjects.add(kind=wire.SUBJECT_KIND_USER, name="nobody")


def _deployment(spec: Any) -> None:
    spec.inference_server.name = NAME


def _subscription(spec: Any) -> None:
    spec.events.add(name="orders.loaded")
    spec.pipeline.name = NAME


def _hook(spec: Any) -> None:
    spec.points.append("after_create")


FILLED: dict[str, Callable[[Any], object]] = {
    "CachedOutput": lambda spec: spec.variable_spec.SetInParent(),
    "Cluster": lambda spec: spec.kubernetes.SetInParent(),
    "Deployment": _deployment,
    "Draft": lambda spec: setattr(spec.content.manifest, "file_path", "train"),
    "Event": lambda spec: setattr(spec, "name", "orders.loaded"),
    "Hook": _hook,
    "Pipeline": lambda spec: setattr(spec.manifest, "file_path", "train"),
    "PipelineRun": _run,
    "Revision": lambda spec: setattr(spec, "source", "commit"),
    "RoleBinding": _binding,
    "Subscription": _subscription,
    "TriggerRun": _trigger,
}


def smallest(kind: str, project: str, name: str = NAME) -> Any:
    """Return an object that can be created."""
    if kind == "Project":
        return kinds()[kind].new(name if name != NAME else project, name if name != NAME else project)
    new = kinds()[kind].new(SYSTEM if kind in OF_THE_SYSTEM else project, name)
    FILLED.get(kind, lambda spec: None)(new.spec)
    return new


def in_order() -> list[str]:
    """Return all kinds but Project, what others refer to first."""
    rest = [kind for kind in kinds() if kind not in ORDER and kind != "Project"]
    return [*ORDER, *rest]
