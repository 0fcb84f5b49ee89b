"""Each refusal has its HTTP status, its headers and one body, whatever raised it."""

from __future__ import annotations

import json

import pytest

from api import errors
from api.errors import ApiError, FieldViolation
from api.http.refusals import HeadersTooLarge, MethodNotAllowed, NoRoute, TooLarge, Unsupported
from api.http.status import MOST_VIOLATIONS, refusal
from api.kinds import kinds


@pytest.mark.parametrize(
    ("error", "code", "grpc", "again"),
    [
        (errors.InvalidArgument("m"), 400, "INVALID_ARGUMENT", False),
        (errors.Unauthenticated("m"), 401, "UNAUTHENTICATED", False),
        (errors.PermissionDenied("m"), 403, "PERMISSION_DENIED", False),
        (errors.NotFound("m"), 404, "NOT_FOUND", False),
        (errors.AlreadyExists("m"), 409, "ALREADY_EXISTS", False),
        (errors.Conflict("m"), 409, "ABORTED", False),
        (errors.FailedPrecondition("m"), 412, "FAILED_PRECONDITION", False),
        (errors.Expired("m"), 410, "OUT_OF_RANGE", False),
        (errors.ResourceExhausted("m"), 429, "RESOURCE_EXHAUSTED", True),
        (errors.ResourceExhausted("m", reason="TOO_MANY_WATCHES"), 429, "RESOURCE_EXHAUSTED", True),
        (errors.ResourceExhausted("m", reason="TOO_LARGE"), 413, "RESOURCE_EXHAUSTED", False),
        (errors.ResourceExhausted("m", reason="DISK_FULL"), 507, "RESOURCE_EXHAUSTED", False),
        (errors.Unimplemented("m"), 501, "UNIMPLEMENTED", False),
        (errors.Unavailable("m"), 503, "UNAVAILABLE", True),
        (errors.DeadlineExceeded("m"), 504, "DEADLINE_EXCEEDED", False),
        (errors.DataLoss("m"), 500, "DATA_LOSS", False),
        (ApiError("m"), 500, "INTERNAL", False),
        (NoRoute("m"), 404, "NOT_FOUND", False),
        (MethodNotAllowed("GET", ["POST"]), 405, "INVALID_ARGUMENT", False),
        (Unsupported("m"), 415, "INVALID_ARGUMENT", False),
        (TooLarge("m"), 413, "RESOURCE_EXHAUSTED", False),
        (HeadersTooLarge("m"), 431, "RESOURCE_EXHAUSTED", False),
    ],
)
def test_a_refusal_has_its_status(error: ApiError, code: int, grpc: str, again: bool) -> None:
    answer = refusal(error, "request-1")
    body, headers = json.loads(answer.body), dict(answer.headers)
    assert (answer.status, body["code"], body["grpc_code"]) == (code, code, grpc)
    assert (b"retry-after" in headers) == again == ("retryAfterSeconds" in body["details"])
    assert (b"www-authenticate" in headers) == (code == 401)
    assert (b"allow" in headers) == (code == 405)
    assert (body["reason"], body["request_id"]) == (error.reason, "request-1")


def test_every_error_of_the_tree_is_above() -> None:
    marks = next(mark for mark in test_a_refusal_has_its_status.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    tried = {type(case[0]) for case in marks.args[1]}
    declared = {found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, ApiError)}
    assert declared <= tried


def test_it_is_a_status_that_kubernetes_clients_read() -> None:
    violation = FieldViolation("spec.tier", "must be at most 4", "9", "OUT_OF_BOUNDS")
    error = errors.InvalidArgument("spec.tier must be at most 4", reason="OUT_OF_BOUNDS", violations=[violation])
    body = json.loads(refusal(error, "r", kinds()["PipelineRun"], "one").body)
    assert body["details"] == {
        "causes": [{"reason": "OUT_OF_BOUNDS", "message": "must be at most 4", "field": "spec.tier"}],
        "group": "michelangelo.api",
        "kind": "pipelineruns",
        "name": "one",
    }
    assert body["field_violations"] == [
        {"field": "spec.tier", "description": "must be at most 4", "value": "9", "reason": "OUT_OF_BOUNDS"}
    ]


def test_a_refusal_stays_small() -> None:
    many = [FieldViolation(f"f{number}", "x") for number in range(10_000)]
    body = json.loads(refusal(errors.InvalidArgument("m" * 100_000, violations=many), "r").body)
    assert len(body["message"]) < 5000
    assert len(body["field_violations"]) == MOST_VIOLATIONS + 1
    assert body["field_violations"][-1] == {"field": "*", "description": f"and {10_000 - MOST_VIOLATIONS} more"}
