"""What a caller without the right does not see: fields with the option `sensitive`.  Knows no access and no store.

A masked object names the fields in an annotation, so that an update made from it keeps what it does not show.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from api.errors import ApiError
from api.kinds import Kind

ANNOTATION = "michelangelo.airflow/masked"


def masked(kind: Kind, resource: Any) -> Any:
    """Clear the sensitive fields of an object, in place, and return it."""
    hidden = [path for path in kind.sensitive if _clear(resource, path)]
    if hidden:
        resource.metadata.annotations[ANNOTATION] = ",".join(hidden)
    return resource


def restore(kind: Kind, old: Any | None, new: Any) -> None:
    """Give a masked object, in place, the stored values of what it does not show and does not set."""
    hidden = new.metadata.annotations.pop(ANNOTATION, "").split(",")
    for path in set(kind.sensitive) & set(hidden):
        if old is not None:
            copy_field(old, new, path)


def masked_error(kind: Kind, error: ApiError) -> ApiError:
    """Return a refusal that tells no value of a sensitive field."""
    hidden = [v for v in error.violations if any(f"{v.field}.".startswith(f"{path}.") for path in kind.sensitive)]
    if not hidden:
        return error
    error.violations = tuple(
        replace(v, value="", description="is refused") if v in hidden else v for v in error.violations
    )
    error.message = "; ".join(f"{violation.field} {violation.description}" for violation in error.violations)
    error.args = (error.message,)
    return error


def copy_field(source: Any, target: Any, path: str) -> None:
    """Copy the field at a dotted path, if `source` has it and `target` does not."""
    *parents, last = path.split(".")
    for part in parents:
        if not source.HasField(part):
            return
        source, target = getattr(source, part), getattr(target, part)
    set_there = {field.name for field, _ in target.ListFields()}
    if last in {field.name for field, _ in source.ListFields()} - set_there:
        target.MergeFrom(alone(source, last))


def alone(message: Any, field: str) -> Any:
    """Return a message of the same type that has one field only."""
    found = type(message)()
    value, described = getattr(message, field), message.DESCRIPTOR.fields_by_name[field]
    if described.is_repeated:
        getattr(found, field).MergeFrom(value)
    elif described.message_type is not None:
        getattr(found, field).CopyFrom(value)
    else:
        setattr(found, field, value)
    return found


def _clear(resource: Any, path: str) -> bool:
    """Clear a field; returns whether it had a value."""
    *parents, last = path.split(".")
    for part in parents:
        if not resource.HasField(part):
            return False
        resource = getattr(resource, part)
    if last not in {field.name for field, _ in resource.ListFields()}:
        return False
    resource.ClearField(last)
    return True
