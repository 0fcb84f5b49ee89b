"""Who may do what, written down a second time and by hand, in another form than the server's own table.

The server asks for a role of a kind; this lists what each role adds.  Where the two differ one of them is wrong.
"""

from __future__ import annotations

READ = ("Get", "List")
WRITE = ("Create", "Update", "Delete", "DeleteCollection")
VERBS = (*READ, *WRITE)

EDITED = [
    "CachedOutput",
    "Draft",
    "EvaluationReport",
    "Event",
    "Model",
    "ModelFamily",
    "Pipeline",
    "PipelineRun",
    "Revision",
    "Subscription",
    "TriggerRun",
]
OPERATED = ["Deployment", "InferenceServer", "RayCluster", "RayJob", "SparkJob"]
ADMINISTERED = ["Notice", "Project", "RoleBinding"]
# Deleting what has not ended stops it.
STOPPED_BY_DELETION = ["PipelineRun", "TriggerRun"]

ADDS: dict[str, set[tuple[str, str]]] = {
    "viewer": {(verb, kind) for verb in READ for kind in (*EDITED, *OPERATED, *ADMINISTERED)},
    "editor": {
        (verb, kind)
        for verb in WRITE
        for kind in EDITED
        if not (verb.startswith("Delete") and kind in STOPPED_BY_DELETION)
    },
    "operator": {
        *((verb, kind) for verb in WRITE for kind in OPERATED),
        *((verb, kind) for verb in ("Delete", "DeleteCollection") for kind in STOPPED_BY_DELETION),
    },
    "admin": {(verb, kind) for verb in WRITE for kind in ADMINISTERED},
    "approver": set(),
}
STANDS_ON = {
    "viewer": ("viewer",),
    "editor": ("viewer", "editor"),
    "operator": ("viewer", "editor", "operator"),
    "approver": ("viewer", "approver"),
    "admin": ("viewer", "editor", "operator", "approver", "admin"),
}
MEMBERS = tuple(STANDS_ON)
OUTSIDERS = ("stranger",)
UNKNOWN = ("nobody", "late")
EVERYBODY = (*UNKNOWN, *OUTSIDERS, *MEMBERS)


def verdict(who: str, verb: str, kind: str, *, own: bool) -> str:
    """Return the gRPC status of a call on what exists.  `own`: it is in the project in which members have roles."""
    if who in UNKNOWN:
        return "UNAUTHENTICATED"
    if kind == "Project" and verb == "Create":
        return "OK"
    if who in OUTSIDERS or not own:
        return "NOT_FOUND"
    may = any((verb, kind) in ADDS[role] for role in STANDS_ON[who])
    return "OK" if may else "PERMISSION_DENIED"
