"""What a list of a kind shows at a glance: columns chosen from the kind's descriptor, and values as cells."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from api.kinds import Kind, kinds, value_at
from api.messages import enums
from api.messages.well_known import TIME, TIMESTAMP, time_text

SPEC = ("pipeline", "desired_revision", "inference_server", "type", "tier", "algorithm", "kind", "role")
STATUS = ("state", "stage", "current_revision", "latest_revision")
NOTHING = "-"


@dataclass(frozen=True)
class Column:
    """One column.  `path`: dotted fields from the object; `wide`: shown only where there is room."""

    name: str
    path: str
    wide: bool = False


@cache
def columns(kind: str) -> Sequence[Column]:
    """Return the columns of a kind between its name and its age: what it is for and how it stands, then its indexes."""
    return tuple(_columns(kinds()[kind]))


def _columns(kind: Kind) -> Iterator[Column]:
    fields = kind.message.DESCRIPTOR.fields_by_name
    taken = set()
    for part, wanted in (("spec", SPEC), ("status", STATUS)):
        for name in wanted:
            if name in fields[part].message_type.fields_by_name:
                taken.add(f"{part}.{name}")
                yield Column(_title(name), f"{part}.{name}")
    for index in kind.indexes:
        if index.path not in taken and not index.path.startswith("metadata."):
            yield Column(_title(index.key), index.path, wide=True)


def _title(name: str) -> str:
    return name.replace("_", " ").title()


def cell(resource: Any, path: str) -> str:
    """Return a field as a cell: an enum without its prefix, an identifier by its name, nothing as `-`."""
    value = value_at(resource, path)
    if value is None:
        return NOTHING
    return text(field_of(resource, path), value)


def field_of(resource: Any, path: str) -> FieldDescriptor:
    """Return the descriptor of a field."""
    *parents, last = path.split(".")
    here = resource.DESCRIPTOR
    for part in parents:
        here = here.fields_by_name[part].message_type
    found: FieldDescriptor = here.fields_by_name[last]
    return found


def text(field: FieldDescriptor, value: Any) -> str:
    """Return a value of a field as a cell."""
    if field.is_repeated:
        return str(len(value)) if value else NOTHING
    if field.enum_type is not None:
        return enums.text(field.enum_type, value)
    if field.message_type is not None:
        if field.message_type.full_name in (TIMESTAMP, TIME):
            return time_text(value) if value.seconds else NOTHING
        return str(getattr(value, "name", "")) or NOTHING
    return str(value) or NOTHING


def age_s(resource: Any) -> float | None:
    """Return how long ago an object was created, in seconds; None if it does not say."""
    created = resource.metadata.creationTimestamp
    return time.time() - created.seconds if created.seconds else None
