"""How long a run is kept after its end: the label `michelangelo.airflow/ttl` of it, its pipeline or its project."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from api.errors import FieldViolation
from api.validation import shown

TTL = "michelangelo.airflow/ttl"
FORM = re.compile(r"([1-9][0-9]{0,8})([smhd])\Z")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
LONGEST = timedelta(days=36_500)


def ttl_of(*objects: Any) -> timedelta | None:
    """Return how long a run is kept, the first of `objects` that says so decides; None: for good."""
    for each in objects:
        if (text := each.metadata.labels.get(TTL, "")) and (found := parsed(text)) is not None:
            return found
    return None


def parsed(text: str) -> timedelta | None:
    """Return the time of `90s`, `30m`, `12h` or `7d`; None for anything else."""
    match = FORM.match(text)
    if match is None:
        return None
    found = (
        timedelta(seconds=0)
        if int(match[1]) > LONGEST.total_seconds()
        else timedelta(**{UNITS[match[2]]: int(match[1])})
    )
    return found if timedelta(0) < found <= LONGEST else None


def ttl_fault(resource: Any) -> Sequence[FieldViolation]:
    """Return what is wrong with the label of an object."""
    text = resource.metadata.labels.get(TTL, "")
    if not text or parsed(text) is not None:
        return ()
    told = "must be a number with s, m, h or d, for example 7d, and at most 100 years"
    return [FieldViolation(f"metadata.labels[{TTL}]", told, shown(text), reason="BAD_TTL")]
