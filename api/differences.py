"""Which fields of two messages of one type differ.  Gives paths, never values."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from google.protobuf.message import Message

from api.external import ANNOTATION, refs_of
from api.kinds import Resource
from api.validation import is_map, shown

MOST = 20
# What the server writes with every change says nothing of the change.
OWN = frozenset({"metadata.resourceVersion", "metadata.generation", "metadata.managedFields"})
OWN_LABELS = ("metadata.labels[michelangelo/", f"metadata.annotations[{ANNOTATION}]")


def changed_fields(before: Resource, after: Resource) -> list[str]:
    """Return the paths in which two versions of an object differ, at most 20, without what the server counts.

    Both may be light: a large field differs when it lies elsewhere.
    """
    found: Iterator[str] = (
        path
        for part in ("metadata", "spec", "status")
        for path in _message(getattr(before, part), getattr(after, part), part)
        if path not in OWN and not path.startswith(OWN_LABELS)
    )
    one, two = refs_of(before), refs_of(after)
    elsewhere = (path for path in sorted({*one, *two}) if one.get(path) != two.get(path))
    return list(islice(dict.fromkeys(chain(elsewhere, found)), MOST))


def _message(before: Message, after: Message, path: str) -> Iterator[str]:
    fields: Any = before.DESCRIPTOR.fields
    for field in fields:
        one, two, here = getattr(before, field.name), getattr(after, field.name), f"{path}.{field.name}"
        if is_map(field):
            yield from _map(one, two, here)
        elif field.message_type is None or field.is_repeated:
            if one != two:
                yield here
        elif field.message_type.full_name.startswith("google.protobuf."):
            if one != two or before.HasField(field.name) != after.HasField(field.name):
                yield here
        elif before.HasField(field.name) or after.HasField(field.name):
            yield from _message(one, two, here)


def _map(before: Any, after: Any, path: str) -> Iterator[str]:
    for key in sorted({*before, *after}, key=str):
        if key not in before or key not in after or before[key] != after[key]:
            yield f"{path}[{shown(key)}]"
