"""From the error tree to gRPC: `google.rpc.Status` with reason, field violations and request id."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2

from api.errors import ApiError

DOMAIN = "michelangelo.airflow"


def _packed(message: object) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)  # type: ignore[arg-type]
    return packed


def status_of(error: ApiError, request_id: str) -> status_pb2.Status:
    """Return the wire form of a refusal."""
    details = [_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))]
    if error.violations:
        details.append(
            _packed(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
                        for v in error.violations
                    ]
                )
            )
        )
    details.append(_packed(error_details_pb2.RequestInfo(request_id=request_id)))
    return status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.message, details=details)
