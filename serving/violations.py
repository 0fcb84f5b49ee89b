"""What a JSON decoder complains about, as a violation of a field.  Judges nothing itself."""

from __future__ import annotations

import re

from api.errors import FieldViolation

MISSING = re.compile(r"missing required field `([^`]+)`")


def violation(complaint: str, prefix: str = "", *, reason: str = "") -> FieldViolation:
    """Return msgspec's complaint, such as "Expected `str`, got `int` - at `$.id`", about a part at `prefix`."""
    described, _, path = complaint.partition(" - at `")
    field = prefix + re.sub(r"^\$", "", path.rstrip("`"))
    if missing := MISSING.search(described):
        field = f"{field}.{missing[1]}"
    return FieldViolation(field.lstrip("."), described, reason=reason)
