"""What the server owns in every object, whatever a client sends: type, uid, times, status.  Changes one object."""

from __future__ import annotations

import secrets
import time
import uuid
from typing import Any

from api.admission import RULE, is_name, refuse, suggestion
from api.errors import FieldViolation
from api.kinds import Kind, stamp
from api.store.values import SPEC_UPDATED_LABEL, UPDATED_LABEL
from api.validation import shown


def prepare(kind: Kind, new: Any) -> None:
    """Give a new object its type, and its name where it only has the beginning of one.  Raises InvalidArgument."""
    stamp(new)
    # No spec and an empty one are the same object: both are found by the defaults of their fields.
    new.spec.SetInParent()
    metadata = new.metadata
    if not metadata.name and metadata.generateName:
        beginning = metadata.generateName
        if not is_name(beginning.rstrip("-.") or "-"):
            told = f"{RULE}; for example {suggestion(beginning) + '-'!r}"
            refuse([FieldViolation("metadata.generateName", told, shown(beginning), "BAD_NAME")])
        metadata.name = metadata.generateName + secrets.token_hex(4)
    if kind.name == "Project" and not metadata.namespace:
        metadata.namespace = metadata.name


def begin(new: Any) -> None:
    """Set what a new object begins with."""
    metadata = new.metadata
    metadata.uid = str(uuid.uuid4())
    metadata.generation = 1
    metadata.creationTimestamp.GetCurrentTime()
    metadata.ClearField("deletionTimestamp")
    metadata.ClearField("resourceVersion")
    new.status.Clear()
    touch(new, spec=True)


def is_new(resource: Any) -> bool:
    """Whether an object is as it was created: nothing was written since."""
    labels = resource.metadata.labels
    return bool(resource.metadata.generation == 1 and labels.get(UPDATED_LABEL) == labels.get(SPEC_UPDATED_LABEL))


def carry_over(old: Any, new: Any) -> None:
    """Keep what the server owns of the stored object."""
    new.status.CopyFrom(old.status)
    metadata = new.metadata
    metadata.uid = old.metadata.uid
    metadata.generation = old.metadata.generation
    metadata.creationTimestamp.CopyFrom(old.metadata.creationTimestamp)
    metadata.resourceVersion = old.metadata.resourceVersion
    metadata.ClearField("deletionTimestamp")
    if old.metadata.HasField("deletionTimestamp"):
        metadata.deletionTimestamp.CopyFrom(old.metadata.deletionTimestamp)
    for label in (UPDATED_LABEL, SPEC_UPDATED_LABEL):
        if label in old.metadata.labels:
            metadata.labels[label] = old.metadata.labels[label]


def same(old: Any, new: Any) -> bool:
    """Whether an update changes nothing."""
    return bool(old.spec == new.spec and old.metadata == new.metadata)


def touch(resource: Any, *, spec: bool) -> None:
    """Note when an object was changed.  `spec`: by a change of its spec."""
    now = str(time.time_ns() // 1000)
    resource.metadata.labels[UPDATED_LABEL] = now
    if spec:
        resource.metadata.labels[SPEC_UPDATED_LABEL] = now
