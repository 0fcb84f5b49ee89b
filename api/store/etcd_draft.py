"""One transaction in the making: what it read at one etcd revision, and what it wants to write.  Commits nothing.

Its own writes are seen by its reads, so that several effects follow from each other within one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from api.audit import link
from api.gen.etcd import rpc_pb2 as rpc
from api.store.base import ChangeType, Key
from api.store.etcd_client import EtcdClient, below
from api.store.etcd_keys import Head, Keys, change_value, owned_key, read_head

# etcd takes 128 operations a transaction and requests of 1.5 MiB unless it is told otherwise.  Two operations are the
# head and the compaction.
MOST_OPERATIONS = 126
MOST_BYTES = 1_000_000
AT_ONCE = 100


class FullError(Exception):
    """What was to be written does not fit beside the rest: it wants a transaction of its own."""


@dataclass(frozen=True)
class Mark:
    """A place to return to."""

    head: Head
    writes: dict[bytes, bytes | None]
    kept: frozenset[bytes]
    compared: dict[bytes, int]
    witness: bytes
    size: int


class Draft:
    """Reads at etcd revision `at`; `nonce` tells its changes from those of any other writer."""

    def __init__(self, client: EtcdClient, keys: Keys, nonce: str) -> None:
        self.keys = keys
        # The etcd revision of all reads, and our own revision then.
        self.at = 0
        self.begun_at = 0
        self._client = client
        self._nonce = nonce
        self._found: dict[bytes, bytes | None] = {}
        self._versions: dict[bytes, int] = {}
        self._owned: dict[str, frozenset[bytes]] = {}
        self.head = Head()
        self.writes: dict[bytes, bytes | None] = {}
        # Keys that go with the lease of answered requests, and those that must not change until the commit.
        self.kept: frozenset[bytes] = frozenset()
        self.compared: dict[bytes, int] = {}
        # A key that nobody else would write so: it tells whether a commit without an answer was carried out.
        self.witness = b""
        self.size = 0

    async def begin(self, keys: Iterable[bytes]) -> None:
        """Read the head and `keys`, and fix the revision of all later reads."""
        await self.load([self.keys.head, *keys])
        self.compare(self.keys.head)
        self.head = read_head(self._found[self.keys.head])
        self.begun_at = self.head.revision

    async def load(self, keys: Sequence[bytes]) -> None:
        """Read several keys at once, those that are not known yet."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._found]
        for start in range(0, len(missing), AT_ONCE):
            some = missing[start : start + AT_ONCE]
            at, answers = await self._client.read([rpc.RangeRequest(key=key, revision=self.at) for key in some])
            self.at = self.at or at
            for key, answer in zip(some, answers, strict=True):
                self._found[key] = answer.kvs[0].value if answer.kvs else None
                self._versions[key] = answer.kvs[0].mod_revision if answer.kvs else 0

    async def read(self, key: bytes) -> bytes | None:
        """Return a value, None if there is none."""
        if key in self.writes:
            return self.writes[key]
        if key not in self._found:
            await self.load([key])
        return self._found[key]

    async def load_owned(self, uids: Sequence[str]) -> None:
        """Read what several objects own at once."""
        missing = [uid for uid in dict.fromkeys(uids) if uid not in self._owned]
        for start in range(0, len(missing), AT_ONCE):
            some = missing[start : start + AT_ONCE]
            ranges = [below(self.keys.owned_by(uid), revision=self.at, keys_only=True) for uid in some]
            _, answers = await self._client.read(ranges)
            for uid, answer in zip(some, answers, strict=True):
                self._owned[uid] = frozenset(item.key for item in answer.kvs)

    async def owned_by(self, uid: str) -> list[Key]:
        """Return the objects that `uid` owns, in order."""
        await self.load_owned([uid])
        prefix, found = self.keys.owned_by(uid), set(self._owned[uid])
        for key, value in self.writes.items():
            if key.startswith(prefix):
                (found.discard if value is None else found.add)(key)
        return [owned_key(key) for key in sorted(found)]

    def compare(self, key: bytes) -> None:
        """Refuse the commit if a key that was read changes before it."""
        self.compared[key] = self._versions[key]

    def put(self, key: bytes, value: bytes) -> None:
        """Write a key."""
        self.writes[key] = value
        self.size += len(key) + len(value)

    def drop(self, key: bytes) -> None:
        """Delete a key."""
        self.writes[key] = None
        self.size += len(key)

    def keep(self, key: bytes, value: bytes) -> None:
        """Write a key that goes when answered requests are forgotten."""
        self.put(key, value)
        self.kept |= {key}

    def following(self) -> int:
        """Count one change and return its revision."""
        self.head = replace(self.head, revision=self.head.revision + 1)
        return self.head.revision

    def log(self, revision: int, change: ChangeType, key: Key, body: bytes, previous: bytes = b"") -> None:
        """Append to the change log.  `previous`: the object before it was modified."""
        self.witness = self.keys.change(revision)
        self.put(self.witness, change_value(change, key, self._nonce, body, previous))

    def append_audit(self, body: bytes) -> None:
        """Chain one more record to the audit log."""
        number, chain = self.head.audited + 1, link(self.head.chain, body)
        self.head = replace(self.head, audited=number, chain=chain)
        key = self.keys.audit(number)
        self.witness = self.witness or key
        self.put(key, chain + body)

    def room(self, operations: int = 0) -> bool:
        """Whether it still fits into one transaction, with some more operations."""
        return len(self.writes) + operations <= MOST_OPERATIONS and self.size <= MOST_BYTES

    def mark(self) -> Mark:
        """Return what it wants to write so far."""
        return Mark(self.head, dict(self.writes), self.kept, dict(self.compared), self.witness, self.size)

    def back(self, mark: Mark) -> None:
        """Want no more than at `mark`."""
        self.head, self.writes, self.kept = mark.head, dict(mark.writes), mark.kept
        self.compared, self.witness, self.size = dict(mark.compared), mark.witness, mark.size
