"""Notifications that cannot be carried out are refused alike through gRPC, HTTP and `ma`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bad_inputs.objects import everywhere
from tests.bad_inputs.surfaces import Case, Surfaces

FAILED = "EVENT_TYPE_PIPELINE_RUN_STATE_FAILED"
EMAIL = {"notificationType": "NOTIFICATION_TYPE_EMAIL", "eventTypes": [FAILED], "emails": ["ada@example.org"]}
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "address": ({"emails": ["ada@example.org\r\nBcc: all@example.org"]}, "BAD_ADDRESS", "emails[0]"),
    "type": ({"notificationType": "NOTIFICATION_TYPE_INVALID"}, "UNKNOWN_DESTINATION_TYPE", "notification_type"),
    "event": ({"resourceType": "RESOURCE_TYPE_TRIGGER_RUN"}, "BAD_EVENT_TYPE", "event_types[0]"),
}


def pipeline(here: Surfaces, notification: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "michelangelo.api/v2",
        "kind": "Pipeline",
        "metadata": {"name": "bad", "namespace": here.project},
        "spec": {
            "manifest": {"type": "PIPELINE_MANIFEST_TYPE_YAML", "filePath": "train"},
            "notifications": [notification],
        },
    }


def cases() -> Iterator[Case]:
    for name, (wrong, reason, field) in BAD.items():
        make = functools.partial(pipeline, notification=EMAIL | wrong)
        yield from everywhere(0, name, make, reason, f"spec.notifications[0].{field}")


@pytest.mark.parametrize("case", [*cases()], ids=str)
def test_a_bad_notification_is_refused_with_reason_and_field(here: Surfaces, case: Case) -> None:
    answer = case.send(here)

    assert case.reason in answer.reasons, answer
    assert case.field in answer.fields or case.field in answer.text, answer
