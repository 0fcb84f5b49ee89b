"""The record of who did what, each chained to the one before it.  Pure functions; the store appends them.

h_i = SHA-256(h_{i-1} || record_i): a changed, removed, added or moved record breaks the chain at its place.  A cut tail
does not show without a head that was kept elsewhere (`guarantees.md` G16).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

GENESIS = bytes(32)


@dataclass(frozen=True)
class Entry:
    """One call and what became of it.

    time_us: microseconds since 1970; before, after: resourceVersions, empty where there is none; digest: SHA-256 of the
    object before and after, in hex; outcome: a gRPC status name; also: objects that changed with it; policy: the rights
    by which it was allowed or denied (`docs/access.md`), empty where none were asked.
    """

    time_us: int
    subject: str
    verb: str
    kind: str
    namespace: str
    name: str
    request_id: str
    groups: tuple[str, ...] = ()
    via: str = ""
    source: str = ""
    uid: str = ""
    before: str = ""
    after: str = ""
    digest: str = ""
    also: int = 0
    outcome: str = "OK"
    reason: str = ""
    policy: str = ""


@dataclass(frozen=True)
class Record:
    """An entry as it stands in the log.  `number` counts from 1; `head`: the chain up to it."""

    number: int
    body: bytes
    head: bytes


def canonical(entry: Entry) -> bytes:
    """Return the bytes of an entry: JSON, sorted keys, no spaces, UTF-8."""
    return json.dumps(vars(entry), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read(body: bytes) -> Entry:
    """Return the entry of canonical bytes; fields of a newer release are left out."""
    given: dict[str, Any] = json.loads(body)
    known = {field.name for field in fields(Entry)}
    given["groups"] = tuple(given.get("groups", ()))
    return Entry(**{name: value for name, value in given.items() if name in known})


def link(head: bytes, body: bytes) -> bytes:
    """Return the head after one more record."""
    return hashlib.sha256(head + body).digest()


def done(entry: Entry, uid: str, before: tuple[str, bytes], after: tuple[str, bytes], also: int = 0) -> Entry:
    """Return an entry with what the transaction did: (resourceVersion, bytes) before and after, empty for none."""
    digest = hashlib.sha256(b"%d:" % len(before[1]) + before[1] + after[1]).hexdigest()
    return replace(entry, uid=uid, before=before[0], after=after[0], digest=digest, also=also)


def first_break(records: Iterable[Record], head: bytes = GENESIS, number: int = 0) -> int | None:
    """Return the number of the first record that does not follow from the one before it, None if all do."""
    for record in records:
        number, head = number + 1, link(head, record.body)
        if record.number != number or record.head != head:
            return number
    return None
