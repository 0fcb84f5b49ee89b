"""Conditions of a resource's status: the time of one changes only when its status flips.  Source: apimachinery."""

from __future__ import annotations

import time
from typing import Any

from api.gen.michelangelo.api import conditions_pb2

STATUSES = {
    True: conditions_pb2.CONDITION_STATUS_TRUE,
    False: conditions_pb2.CONDITION_STATUS_FALSE,
    None: conditions_pb2.CONDITION_STATUS_UNKNOWN,
}


def set_condition(resource: Any, name: str, status: bool | None, reason: str, message: str = "") -> None:
    """Set the condition `name` as of the object's generation.  `reason` is for maintainers, `message` for users."""
    conditions = resource.status.conditions
    condition = next((item for item in conditions if item.type == name), None)
    if condition is None:
        condition = conditions.add(type=name, last_updated_timestamp=now_ms(), status=STATUSES[status])
    if condition.status != STATUSES[status]:
        condition.status = STATUSES[status]
        condition.last_updated_timestamp = now_ms()
    condition.reason = reason
    condition.message = message
    condition.observed_generation = resource.metadata.generation


def now_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000
