"""What a store indexes of an object: keys, labels, owners and index values.  Pure functions; no storage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from api.gen.k8s.io.apimachinery.pkg.apis.meta.v1 import generated_pb2 as meta
from api.kinds import Index, Kind, Resource, kind_of, value_at
from api.store.base import Key, Query, Scalar

UPDATED_LABEL = "michelangelo/UpdateTimestamp"
SPEC_UPDATED_LABEL = "michelangelo/SpecUpdateTimestamp"
# What controllers find their work by; no list option names it.
DELETING = "metadata.deletion_timestamp"
PENDING = "metadata.pending"
# Of these kinds it is asked who was not looked at since its spec changed.
LOOKED_AT = frozenset({"Model", "PipelineRun", "Revision"})
TEXTS = ("metadata.namespace", "metadata.name")
TIMES = ("metadata.creation_timestamp", "metadata.update_timestamp")
BASE_FIELDS = (*TEXTS, *TIMES)


def key_of(resource: Resource) -> Key:
    """Return where an object stands."""
    return Key(resource.DESCRIPTOR.name, resource.metadata.namespace, resource.metadata.name)


def is_going(resource: Resource) -> bool:
    """Whether it is being removed, with all that it owns: deleted, and nothing is left to do before."""
    return resource.metadata.HasField("deletionTimestamp") and not resource.metadata.finalizers


def scalar(value: Any) -> Scalar | None:
    """Return an index value as SQL and JSON know it.  Times become microseconds since 1970."""
    if isinstance(value, Timestamp | meta.Time):
        return value.seconds * 1_000_000 + value.nanos // 1_000
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str | int | float):
        return value
    return None


def _index_values(index: Index, resource: Resource) -> Iterator[tuple[str, Scalar]]:
    value = value_at(resource, index.path)  # type: ignore[arg-type]
    if value is None:
        return
    if index.is_identifier:
        yield f"{index.key}.namespace", value.namespace or resource.metadata.namespace
        yield f"{index.key}.name", value.name
    elif (plain := scalar(value)) is not None:
        yield index.key, plain


def indexed(resource: Resource) -> dict[str, Scalar]:
    """Return every indexed value of an object by column.  A column without a value is absent (NULL)."""
    values: dict[str, Scalar] = {
        "metadata.namespace": resource.metadata.namespace,
        "metadata.name": resource.metadata.name,
        "metadata.creation_timestamp": scalar(resource.metadata.creationTimestamp) or 0,
        "metadata.update_timestamp": int(resource.metadata.labels.get(UPDATED_LABEL, "0")),
    }
    values.update(_work_values(resource))
    for index in kind_of(resource).indexes:
        values.update(_index_values(index, resource))
    # A number that is none has no place in an order.
    return {name: value for name, value in values.items() if value == value}


def owner_column(uid: str) -> str:
    """Return the column that the objects which `uid` owns have."""
    return f"owner:{uid}"


def _work_values(resource: Resource) -> Iterator[tuple[str, Scalar]]:
    """Yield when an object was deleted, whether nothing was written since its spec changed, and who owns it."""
    metadata = resource.metadata
    if metadata.HasField("deletionTimestamp"):
        yield DELETING, scalar(metadata.deletionTimestamp) or 0
    labels = metadata.labels
    if resource.DESCRIPTOR.name in LOOKED_AT and labels.get(UPDATED_LABEL) == labels.get(SPEC_UPDATED_LABEL):
        yield PENDING, 1
    for owner in metadata.ownerReferences:
        yield owner_column(owner.uid), 1


def column(kind: Kind, field: str) -> str | None:
    """Return the column that a list option's field means, None if it is not indexed.

    An identifier without a part means its name, as Michelangelo's clients filter by `spec.pipeline`.
    """
    if field in BASE_FIELDS:
        return field
    index = kind.index(field)
    if index is None:
        return None
    if not index.is_identifier:
        return index.key
    return f"{index.key}.namespace" if field.endswith(".namespace") else f"{index.key}.name"


def is_text(kind: Kind, column: str) -> bool:
    """Whether a column holds texts; all others hold numbers."""
    if column in BASE_FIELDS:
        return column in TEXTS
    index = kind.index(column)
    return index is not None and (index.is_identifier or index.field.type == FieldDescriptor.TYPE_STRING)


def fingerprint(kind: str, query: Query) -> str:
    """Return a digest of what a page token belongs to: the kind and the query without its position."""
    described = asdict(query) | {"start": "", "limit": 0, "count": False, "kind": kind}
    described["namespaces"] = None if query.namespaces is None else sorted(query.namespaces)
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:24]
