"""What to tell a writer whose version is not the stored one.  Reads the change log; writes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

from api.differences import changed_fields
from api.errors import ApiError, Conflict, Expired, FieldViolation, InvalidArgument
from api.kinds import Resource, kinds
from api.store.base import Change, Key
from api.validation import shown

FIELD = "metadata.resourceVersion"


class Changes(Protocol):
    """A change log."""

    def watch(self, kinds: tuple[str, ...], since: int) -> AsyncIterator[Change]:
        """Yield the changes after a revision."""
        ...


def version_required() -> InvalidArgument:
    """Return the refusal of an update that does not say which version it changes."""
    told = "is required: give the version that was read, or force the write with x-force: true"
    return InvalidArgument(f"{FIELD} {told}", reason="ETAG_REQUIRED", violations=[FieldViolation(FIELD, told)])


async def refusal(changes: Changes, key: Key, given: str, stored: Resource) -> ApiError:
    """Return why a write of version `given` is refused: the object has another one by now, or never had this one."""
    now = stored.metadata.resourceVersion
    then = await _at(changes, int(given)) if int(given) < int(now) else None
    if int(given) > int(now) or (then is not None and then.key != key):
        told = f"{shown(given)} was never a version of {key}, which is at {now}: send the version that was read"
        return InvalidArgument(told, reason="BAD_RESOURCE_VERSION", violations=[FieldViolation(FIELD, told, given)])
    message = f"{key} is at resourceVersion {now}, not {given}: read it again and retry"
    paths = changed_fields(then.resource, stored) if then is not None else []
    if paths:
        message += f"; changed since: {', '.join(paths)}"
    return Conflict(message, violations=[FieldViolation(path, f"changed since version {given}") for path in paths])


async def _at(changes: Changes, revision: int) -> Change | None:
    """Return the change of a revision, None where the log does not say."""
    log: Any = changes.watch(tuple(kinds()), revision - 1)
    with contextlib.suppress(Expired):
        async with contextlib.aclosing(log):
            async for change in log:
                return change if change.revision == revision else None
    return None
