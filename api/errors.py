"""The one error tree of the control plane.  Raise by meaning; codes are given here and nowhere else.

A message says what is wrong, which object or field, and what to do.  Never a path of the server, SQL or a stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldViolation:
    """One refused field.  `field`: path such as `spec.tier`; `value`: at most 64 characters, masked when sensitive.

    reason: stable UPPER_SNAKE where the fault has a name of its own, such as BAD_CRON.
    """

    field: str
    description: str
    value: str = ""
    reason: str = ""


class ApiError(Exception):
    """Base of all refusals.  `reason` is stable UPPER_SNAKE; `code` a gRPC status name; `http` an HTTP status.

    retry_s: seconds after which it may be worth to ask again, 0 if nothing is known of that.
    """

    code = "INTERNAL"
    http = 500
    reason = "INTERNAL"
    retry_s = 0.0

    def __init__(self, message: str, *, reason: str = "", violations: Sequence[FieldViolation] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.violations = tuple(violations)


class InvalidArgument(ApiError):
    """Shape, range or grammar.  Carries every violation at once."""

    code, http, reason = "INVALID_ARGUMENT", 400, "INVALID_ARGUMENT"


class NotFound(ApiError):
    """No such object, or not yours to know."""

    code, http, reason = "NOT_FOUND", 404, "NOT_FOUND"


class AlreadyExists(ApiError):
    """The name is taken."""

    code, http, reason = "ALREADY_EXISTS", 409, "ALREADY_EXISTS"


class Conflict(ApiError):
    """The object changed since it was read: read it again and retry."""

    code, http, reason = "ABORTED", 409, "CONFLICT"


class FailedPrecondition(ApiError):
    """The state of something does not allow it."""

    code, http, reason = "FAILED_PRECONDITION", 412, "FAILED_PRECONDITION"


class PermissionDenied(ApiError):
    """The caller may not do this."""

    code, http, reason = "PERMISSION_DENIED", 403, "PERMISSION_DENIED"


class Unauthenticated(ApiError):
    """The caller did not say who it is, or not believably."""

    code, http, reason = "UNAUTHENTICATED", 401, "UNAUTHENTICATED"


class Expired(ApiError):
    """A watch position or page token is older than what is kept."""

    code, http, reason = "OUT_OF_RANGE", 410, "EXPIRED"


class ResourceExhausted(ApiError):
    """Too large, too many, or the disk is full."""

    code, http, reason = "RESOURCE_EXHAUSTED", 429, "RESOURCE_EXHAUSTED"


class Unimplemented(ApiError):
    """A part of the contract that this release does not carry out."""

    code, http, reason = "UNIMPLEMENTED", 501, "UNIMPLEMENTED"


class Unavailable(ApiError):
    """A dependency does not answer; trying again may help."""

    code, http, reason = "UNAVAILABLE", 503, "UNAVAILABLE"


class DeadlineExceeded(ApiError):
    """The caller's deadline passed."""

    code, http, reason = "DEADLINE_EXCEEDED", 504, "DEADLINE_EXCEEDED"


class DataLoss(ApiError):
    """Stored bytes are not what was written."""

    code, http, reason = "DATA_LOSS", 500, "DATA_LOSS"
