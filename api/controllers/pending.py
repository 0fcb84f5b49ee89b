"""The condition `Pending`: what a run waits for while it has not begun.  Decides nothing."""

from __future__ import annotations

from typing import Any

from api.controllers.conditions import STATUSES, set_condition

PENDING = "Pending"
NOT_BUILT = "PipelineNotReady"
DEPENDENCY = "Dependency"
CONCURRENCY = "Concurrency"
POOL = "Pool"
RESOURCES = "Resources"
PAUSED = "Paused"


def waits(run: Any, reason: str, message: str) -> None:
    """Say what a run waits for."""
    set_condition(run, PENDING, True, reason, message)


def waits_no_more(run: Any) -> None:
    """Take back what it was said to wait for, if that was said."""
    for item in run.status.conditions:
        if item.type == PENDING and item.status == STATUSES[True]:
            set_condition(run, PENDING, False, "Over")


def waits_for(run: Any) -> str:
    """Return the reason for which a run waits, empty if none is told."""
    found = (item for item in run.status.conditions if item.type == PENDING and item.status == STATUSES[True])
    return str(next((item.reason for item in found), ""))
