"""What a call leaves behind: its audit record, and what it has done so far.  Values; writes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass

from api.admission import LONGEST_NAME
from api.audit import Entry
from api.calls import Call
from api.kinds import Resource
from api.store.base import Key


@dataclass
class Outcome:
    """What a call has done so far.  `effects`: each has its audit record; `answer`: what was there already instead.

    replayed: it was carried out before.
    """

    effects: int = 0
    answer: Resource | None = None
    replayed: bool = False


def entry_of(call: Call, verb: str, key: Key, policy: str) -> Entry:
    """Return the audit record of a call on one object, before its outcome is known.

    policy: what access decided by (`Access.policy`).
    """
    principal = call.principal
    return Entry(
        time_us=time.time_ns() // 1000,
        subject=principal.subject,
        groups=tuple(sorted(principal.groups)),
        via=principal.via,
        source=call.source,
        verb=verb,
        kind=key.kind,
        namespace=_text(key.namespace),
        name=_text(key.name),
        request_id=call.request_id,
        policy=policy,
    )


def _text(given: str | bytes) -> str:
    """Return what a caller named as a record can hold it: short, and text."""
    text = given.decode(errors="replace") if isinstance(given, bytes) else given
    return text[:LONGEST_NAME].encode(errors="replace").decode()
