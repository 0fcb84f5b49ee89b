"""Who may take a finalizer away: the one who set it, and the platform.  Source: `metadata.finalizers` of Kubernetes.

Who set which stands in an annotation that the server alone writes.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from api.calls import Call
from api.errors import FieldViolation, PermissionDenied
from api.validation import shown

ANNOTATION = "michelangelo.airflow/finalizers"


def is_platforms(finalizer: str) -> bool:
    """Whether a finalizer is one of the platform's, such as `michelangelo.airflow/dag-run`."""
    return "michelangelo" in finalizer.partition("/")[0]


async def settle(call: Call, old: Any | None, new: Any, may_remove: Callable[[], Awaitable[bool]]) -> None:
    """Check the finalizers of an object that is written and note, in place, who set the new ones.

    may_remove: whether the caller may take away those of others.  Raises PermissionDenied.
    """
    setters = _setters(old)
    before = set(old.metadata.finalizers) if old is not None else set()
    if call.principal.kind != "system":
        _drop_platforms(call, before, new)
        removed = sorted(before - set(new.metadata.finalizers))
        foreign = [name for name in removed if setters.get(name, call.principal.subject) != call.principal.subject]
        kept = [name for name in removed if is_platforms(name)]
        if kept or (foreign and not await may_remove()):
            raise _denied([*kept, *foreign])
        setters |= dict.fromkeys(set(new.metadata.finalizers) - before, call.principal.subject)
    left = {name: subject for name, subject in setters.items() if name in new.metadata.finalizers}
    new.metadata.annotations.pop(ANNOTATION, None)
    if left:
        new.metadata.annotations[ANNOTATION] = json.dumps(left, sort_keys=True)


def _setters(old: Any | None) -> dict[str, str]:
    return dict(json.loads(old.metadata.annotations.get(ANNOTATION, "{}"))) if old is not None else {}


def _drop_platforms(call: Call, before: set[str], new: Any) -> None:
    """Leave out platform finalizers that a client adds: it could not take them away again."""
    for name in [name for name in new.metadata.finalizers if is_platforms(name) and name not in before]:
        new.metadata.finalizers.remove(name)
        call.warn(f"metadata.finalizers: {shown(name)} was left out: the platform sets it where it is needed")


def _denied(names: list[str]) -> PermissionDenied:
    told = ", ".join(shown(name) for name in dict.fromkeys(names))
    return PermissionDenied(
        f"metadata.finalizers: only who set {told} may remove it: leave it there, its owner removes it when done",
        reason="FINALIZER_NOT_YOURS",
        violations=[FieldViolation("metadata.finalizers", f"{shown(name)} was set by another") for name in names],
    )
