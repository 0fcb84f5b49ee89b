"""How often a run is begun in all if Airflow loses it: the label `michelangelo.airflow/attempts-if-lost`, from 1 to 10.

The label of the run decides, without one that of its pipeline, without that the project's; without any it is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.errors import FieldViolation
from api.validation import shown

ATTEMPTS = "michelangelo.airflow/attempts-if-lost"
MOST_ATTEMPTS = 10


def attempts_of(*objects: Any) -> int:
    """Return how often a run may be begun, the first of `objects` that says so decides."""
    found = (parsed(each.metadata.labels.get(ATTEMPTS, "")) for each in objects)
    return next((number for number in found if number), 1)


def parsed(text: str) -> int:
    """Return the number of a label, 0 for anything else."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MOST_ATTEMPTS)) else 0
    return number if number <= MOST_ATTEMPTS else 0


def attempts_fault(resource: Any) -> Sequence[FieldViolation]:
    """Return what is wrong with the label of an object."""
    labels = resource.metadata.labels
    if ATTEMPTS not in labels or parsed(labels[ATTEMPTS]):
        return ()
    told = f"must be a number from 1 (never again) to {MOST_ATTEMPTS}: how often a run is begun in all"
    return [FieldViolation(f"metadata.labels[{ATTEMPTS}]", told, shown(labels[ATTEMPTS]), reason="BAD_ATTEMPTS")]
