"""What keys held when the head was last ours: good for the next transaction until somebody else has written.

Every write of an object replaces the head, so what was read under a head holds as long as that head stands.  Leases are
taken without it: they are never remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from api.store.etcd_keys import Head

MOST_BYTES = 32 * 1024 * 1024
# What a remembered key costs beside its bytes.
ENTRY_BYTES = 200


@dataclass
class Memory:
    """A head, the etcd revision that wrote it, and one at which it stands: all other reads are made there.

    stands: whether nobody is known to have written since.
    """

    head: Head
    version: int
    at: int
    known: dict[bytes, bytes | None] = field(default_factory=dict)
    stands: bool = True
    size: int = 0

    def learn(self, key: bytes, value: bytes | None) -> None:
        """Remember what a key holds, None for nothing.  Too much is forgotten, all at once."""
        if key in self.known:
            self.size -= _size(key, self.known[key])
        self.known[key] = value
        self.size += _size(key, value)
        if self.size > MOST_BYTES:
            self.known.clear()
            self.size = 0

    def committed(self, head: Head, at: int, writes: Mapping[bytes, bytes | None], objects: bytes) -> None:
        """Go on from a transaction of our own.  Of its keys those that begin with `objects` may be read again soon."""
        self.head, self.version, self.at = head, at, at
        for key, value in writes.items():
            if key in self.known or key.startswith(objects):
                self.learn(key, value)


def _size(key: bytes, value: bytes | None) -> int:
    return len(key) + len(value or b"") + ENTRY_BYTES
