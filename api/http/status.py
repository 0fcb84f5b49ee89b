"""From the error tree to JSON: one body that is our contract and a Kubernetes `Status` at once, for kubectl.

`reason`, `field_violations` and `request_id` are the same as in gRPC's details; `code` is the HTTP status.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from api.errors import ApiError, FieldViolation, ResourceExhausted, Unauthenticated, Unavailable
from api.http.exchange import Answer, as_json
from api.http.refusals import MethodNotAllowed
from api.kinds import Kind

LONGEST_MESSAGE = 4096
MOST_VIOLATIONS = 100
RETRY_S = 1
# A refusal that is not about how often: too much at once, or no room left.
SIZES = {"TOO_LARGE": 413, "DISK_FULL": 507}
DOCUMENTATION = "docs/http.md#errors"


def code_of(error: ApiError) -> int:
    """Return the HTTP status of a refusal."""
    return SIZES.get(error.reason, error.http) if isinstance(error, ResourceExhausted) else error.http


def failure(error: ApiError, request_id: str, kind: Kind | None = None, name: str = "") -> dict[str, Any]:
    """Return the body of a refusal."""
    violations = error.violations[:MOST_VIOLATIONS]
    details: dict[str, Any] = {"causes": [_cause(violation) for violation in violations]}
    if kind is not None:
        details |= {"group": kind.group_version.split("/")[0], "kind": kind.plural.replace("_", "")}
    if name:
        details["name"] = name
    if _again(error):
        details["retryAfterSeconds"] = _after_s(error)
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": _cut(error.message, LONGEST_MESSAGE),
        "reason": error.reason,
        "code": code_of(error),
        "details": details,
        "grpc_code": error.code,
        "field_violations": _violations(violations, len(error.violations)),
        "request_id": request_id,
        "doc": DOCUMENTATION,
    }


def success(kind: Kind, name: str) -> dict[str, Any]:
    """Return the body of what has no other."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "message": f"{kind.plural.replace('_', '')} {name} deleted".replace("  ", " "),
        "code": 200,
    }


def refusal(error: ApiError, request_id: str, kind: Kind | None = None, name: str = "") -> Answer:
    """Return the answer of a refusal."""
    made = Answer(code_of(error), as_json(failure(error, request_id, kind, name)))
    if isinstance(error, MethodNotAllowed):
        made.headers.append((b"allow", error.allowed.encode()))
    if isinstance(error, Unauthenticated):
        made.headers.append((b"www-authenticate", b'Bearer realm="michelangelo"'))
    if _again(error):
        made.headers.append((b"retry-after", str(_after_s(error)).encode()))
    if made.status == 413:
        # What was not read yet is not waited for.
        made.headers.append((b"connection", b"close"))
    return made


def _again(error: ApiError) -> bool:
    """Whether time helps."""
    return code_of(error) in (429, 503) and isinstance(error, ResourceExhausted | Unavailable)


def _after_s(error: ApiError) -> int:
    """Return the whole seconds after which it may be worth to ask again."""
    return math.ceil(error.retry_s) or RETRY_S


def _cause(violation: FieldViolation) -> dict[str, str]:
    return {
        "reason": violation.reason or "FieldValueInvalid",
        "message": violation.description,
        "field": violation.field,
    }


def _violations(violations: Sequence[FieldViolation], count: int) -> list[dict[str, str]]:
    found = [
        {
            "field": violation.field,
            "description": violation.description,
            **({"value": violation.value} if violation.value else {}),
            **({"reason": violation.reason} if violation.reason else {}),
        }
        for violation in violations
    ]
    if count > len(violations):
        found.append({"field": "*", "description": f"and {count - len(violations)} more"})
    return found


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
