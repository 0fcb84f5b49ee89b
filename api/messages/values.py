"""What a field of a message wants, whichever text it is read from."""

from __future__ import annotations

import base64
import binascii

from google.protobuf.descriptor import FieldDescriptor

UNSIGNED = {FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64}
INTEGERS = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, *UNSIGNED}
FLOATS = {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}


class WrongValueError(Exception):
    """A value that its field cannot hold.  `reason`: stable UPPER_SNAKE where the fault has a name of its own.

    below: where in free JSON the value stands, such as `.a[1]`.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.below = ""


def wanted(field: FieldDescriptor) -> str:
    """Return what a scalar field takes, in words."""
    if field.enum_type is not None:
        return "the name of a value"
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return "true or false"
    if field.cpp_type in INTEGERS:
        return "a whole number" if field.cpp_type not in UNSIGNED else "a whole number from 0"
    return "a number" if field.cpp_type in FLOATS else "text"


def decoded(text: str) -> bytes:
    """Return the bytes of a base64 text.  Raises WrongValueError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise WrongValueError("wants base64") from None
