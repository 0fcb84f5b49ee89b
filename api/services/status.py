"""From the error tree to gRPC: `google.rpc.Status` with reason, violations, request id, retry delay.

Never larger than what every client reads: gRPC drops a response whose metadata exceed 8 KiB, and the reason with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2

from api.errors import ApiError, FieldViolation

DOMAIN = "michelangelo.airflow"
# Together with base64 and the message, which is sent twice, they stay below 8 KiB.
LONGEST_MESSAGE = 1200
LONGEST_FIELD = 256
LONGEST_DESCRIPTION = 400
MOST_VIOLATION_BYTES = 3000


def _packed(message: object) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)  # type: ignore[arg-type]
    return packed


def status_of(error: ApiError, request_id: str) -> status_pb2.Status:
    """Return the wire form of a refusal.  Violations that do not fit are counted in a last one of field `*`."""
    message = shortened(error.message, LONGEST_MESSAGE)
    details = [_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))]
    if error.violations:
        details.append(_packed(_violations(error.violations)))
    details.append(_packed(error_details_pb2.RequestInfo(request_id=request_id)))
    if error.retry_s:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_s * 1e9))
        details.append(_packed(retry))
    return status_pb2.Status(code=code_pb2.Code.Value(error.code), message=message, details=details)


def shortened(text: str, most: int) -> str:
    """Cut a text to `most` bytes as gRPC writes it: what is not printable ASCII takes three for one."""
    left = most - len("%E2%80%A6")
    for position, char in enumerate(text[: most + 1]):
        left -= 1 if " " <= char <= "~" and char != "%" else 3 * len(char.encode("utf-8", "replace"))
        if left < 0:
            return text[:position] + "…"
    return text


def _violations(violations: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    bad, left = error_details_pb2.BadRequest(), MOST_VIOLATION_BYTES
    for position, violation in enumerate(violations):
        added = error_details_pb2.BadRequest.FieldViolation(
            field=shortened(violation.field, LONGEST_FIELD),
            description=shortened(violation.description, LONGEST_DESCRIPTION),
            reason=violation.reason,
        )
        left -= added.ByteSize() + 3
        if left < 0:
            bad.field_violations.add(field="*", description=f"and {len(violations) - position} more")
            break
        bad.field_violations.append(added)
    return bad
