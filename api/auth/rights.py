"""Which role may do what: one table of verbs and kinds, and what a set of bindings gives to a principal.  Pure.

Rights only add up; nothing takes one away.  A verb or kind that the table does not know is for administrators alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from api.admission import SYSTEM_NAMESPACE
from api.auth.base import ADMINS
from api.calls import Principal
from api.gen.michelangelo.platform.v1 import role_binding_pb2 as wire

VIEWER, EDITOR, OPERATOR = wire.ROLE_VIEWER, wire.ROLE_EDITOR, wire.ROLE_OPERATOR
APPROVER, ADMIN = wire.ROLE_APPROVER, wire.ROLE_ADMIN

INCLUDED: Mapping[int, tuple[int, ...]] = {
    VIEWER: (VIEWER,),
    EDITOR: (VIEWER, EDITOR),
    OPERATOR: (VIEWER, EDITOR, OPERATOR),
    APPROVER: (VIEWER, APPROVER),
    ADMIN: (VIEWER, EDITOR, OPERATOR, APPROVER, ADMIN),
}

READS = frozenset({"Get", "List", "Watch", "Search"})
WRITES = frozenset({"Create", "Update", "Delete", "DeleteCollection"})
# Reads that go without a project: what is not the caller's to see is left out of the answer.
ACROSS = frozenset({"List", "Watch", "Search"})

WRITERS: Mapping[str, int] = {
    **dict.fromkeys(("CachedOutput", "EvaluationReport", "Model", "ModelFamily", "Revision"), EDITOR),
    **dict.fromkeys(("Pipeline", "PipelineRun", "TriggerRun"), EDITOR),
    **dict.fromkeys(("Draft", "Event", "Subscription"), EDITOR),
    **dict.fromkeys(("Cluster", "Deployment", "InferenceServer"), OPERATOR),
    **dict.fromkeys(("RayCluster", "RayJob", "SparkJob"), OPERATOR),
    **dict.fromkeys(("Hook", "Notice", "Project", "RoleBinding"), ADMIN),
}
# Kill: stop a run or end a trigger; Unmask: see `sensitive` fields; Finalize: take away another's finalizer.
OTHERS: Mapping[str, int] = {"Kill": OPERATOR, "Approve": APPROVER, "Unmask": ADMIN, "Finalize": ADMIN}
# What an object of another project is used for by one that refers to it, as the right that this takes over there.
USES: Mapping[str, tuple[str, str]] = {
    "Pipeline": ("Create", "PipelineRun"),
    "InferenceServer": ("Update", "InferenceServer"),
    "RayCluster": ("Update", "RayCluster"),
}


def digest(creators: Iterable[str]) -> str:
    """Return what stands for the rules in audit records: it changes with any of them.  `creators`: of projects."""
    tables = [INCLUDED, sorted(READS), sorted(WRITES), sorted(ACROSS), WRITERS, OTHERS, USES, sorted(creators)]
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()[:16]


@cache
def needed(verb: str, kind: str) -> int:
    """Return the least role that may do it."""
    if verb in READS:
        return VIEWER
    if verb in WRITES:
        return WRITERS.get(kind, ADMIN)
    return OTHERS.get(verb, ADMIN)


@cache
def mask(role: int) -> int:
    """Return a role with all that it includes, a bit each; 0 for a number that is no role."""
    return sum(1 << included for included in INCLUDED.get(role, ()))


def role_name(role: int) -> str:
    """Return a role as people write it."""
    return wire.Role.Name(role).removeprefix("ROLE_").lower()  # type: ignore[arg-type]


def names_of(principal: Principal) -> Iterable[str]:
    """Return what bindings may call a principal: itself and its groups, each with what it is."""
    yield principal.subject if principal.kind == "service" else f"user:{principal.subject}"
    for group in principal.groups:
        yield f"group:{group}"


def name_of(subject: wire.Subject) -> str:
    """Return a subject of a binding in the same form."""
    kinds = {wire.SUBJECT_KIND_USER: "user", wire.SUBJECT_KIND_GROUP: "group", wire.SUBJECT_KIND_SERVICE: "service"}
    return f"{kinds.get(subject.kind, '')}:{subject.name}"


@dataclass(frozen=True)
class Held:
    """What a principal holds: masks of roles, `everywhere` and by project; `visible`: projects with any role."""

    everywhere: int = 0
    projects: Mapping[str, int] = field(default_factory=dict)
    visible: frozenset[str] = frozenset()

    def has(self, verb: str, kind: str, namespace: str) -> bool:
        """Whether it may."""
        return bool(self.in_project(namespace) >> needed(verb, kind) & 1)

    def in_project(self, namespace: str) -> int:
        """Return the mask that holds in a project; without one, the mask that holds everywhere."""
        return self.everywhere | self.projects.get(namespace, 0)


def held(principal: Principal, grants: Iterable[tuple[str, int]]) -> Held:
    """Return what (project, role) pairs give to a principal.  Those of `ma-system` hold for all projects."""
    projects: dict[str, int] = {}
    for namespace, role in grants:
        projects[namespace] = projects.get(namespace, 0) | mask(role)
    everywhere = projects.get(SYSTEM_NAMESPACE, 0) | (mask(ADMIN) if ADMINS in principal.groups else 0)
    return Held(everywhere, projects, frozenset(projects))
