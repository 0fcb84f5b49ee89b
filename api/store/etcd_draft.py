"""One transaction in the making: what it read at one etcd revision, and what it wants to write.  Commits nothing.

Its own writes are seen by its reads, so that several effects follow from each other within one transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from api.audit import link
from api.gen.etcd import rpc_pb2 as rpc
from api.store.base import ChangeType, Key
from api.store.etcd_client import EtcdClient, below, one
from api.store.etcd_keys import Head, Keys, change_value, owned_key, read_change
from api.store.etcd_memory import Memory

# etcd takes 128 operations a transaction and requests of 1.5 MiB unless it is told otherwise.  Three operations are the
# head, the turn and the compaction.
MOST_OPERATIONS = 125
MOST_BYTES = 1_000_000
# So many changes are looked through for those of some kinds.
FAR_BACK = 500


class FullError(Exception):
    """What was to be written does not fit beside the rest: it wants a transaction of its own."""


@dataclass(frozen=True)
class Reads:
    """What an effect reads for certain.

    now: keys that change without the head; absent: keys that are there only when the effect is refused or repeated.
    """

    keys: tuple[bytes, ...] = ()
    now: tuple[bytes, ...] = ()
    absent: tuple[bytes, ...] = ()


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
    """Reads under the head of `memory`; `nonce` tells its changes from those of any other writer."""

    def __init__(self, client: EtcdClient, keys: Keys, memory: Memory, nonce: str) -> None:
        self.keys = keys
        self.memory = memory
        self.head = memory.head
        self._client = client
        self._nonce = nonce
        # What was read now, at which revision it was written, and what is only taken to be absent.
        self._now: dict[bytes, bytes | None] = {}
        self._versions: dict[bytes, int] = {}
        self._guessed: set[bytes] = set()
        self._owned: dict[str, frozenset[bytes]] = {}
        self.writes: dict[bytes, bytes | None] = {}
        # Keys that go with the lease of answered requests, and those that must not change until the commit.
        self.kept: frozenset[bytes] = frozenset()
        self.compared = {keys.head: memory.version}
        # A key that nobody else would write so: it tells whether a commit without an answer was carried out.
        self.witness = b""
        self.size = 0

    async def begin(self, reads: Collection[Reads], *, guess: bool) -> None:
        """Read what effects need.  `guess`: what is probably absent is not looked for, but compared at the commit."""
        await self.load_now(dict.fromkeys(key for one in reads for key in one.now))
        absent = dict.fromkeys(key for one in reads for key in one.absent if key not in self.memory.known)
        if guess:
            self._guessed.update(absent)
        await self.load([*(key for one in reads for key in one.keys), *([] if guess else absent)])

    async def load(self, keys: Collection[bytes]) -> None:
        """Read several keys at once, those that are not known yet."""
        missing = [key for key in dict.fromkeys(keys) if key not in self.memory.known]
        answers = await self._client.read_at(self.memory.at, [one(key) for key in missing])
        for key, answer in zip(missing, answers, strict=True):
            self.memory.learn(key, answer.kvs[0].value if answer.kvs else None)
            # Even if the memory is full, this draft has it.
            self._now[key] = answer.kvs[0].value if answer.kvs else None

    async def load_now(self, keys: Collection[bytes]) -> None:
        """Read keys as they are now, whatever the head says, and compare them at the commit."""
        for key in keys:
            found = (await self._client.range(one(key))).kvs
            self._now[key] = found[0].value if found else None
            self._versions[key] = found[0].mod_revision if found else 0

    async def read(self, key: bytes) -> bytes | None:
        """Return a value, None if there is none."""
        for known in (self.writes, self._now, self.memory.known):
            if key in known:
                return known[key]
        if key in self._guessed:
            self.compared[key] = 0
            return None
        await self.load([key])
        return self._now[key]

    async def load_owned(self, uids: Sequence[str]) -> None:
        """Read what several objects own at once."""
        missing = [uid for uid in dict.fromkeys(uids) if uid not in self._owned]
        ranges = [below(self.keys.owned_by(uid), keys_only=True) for uid in missing]
        for uid, answer in zip(missing, await self._client.read_at(self.memory.at, ranges), strict=True):
            self._owned[uid] = frozenset(item.key for item in answer.kvs)

    async def owned_by(self, uid: str) -> list[Key]:
        """Return the objects that `uid` owns, in order."""
        await self.load_owned([uid])
        prefix, found = self.keys.owned_by(uid), set(self._owned[uid])
        for key, value in self.writes.items():
            if key.startswith(prefix):
                (found.discard if value is None else found.add)(key)
        return [owned_key(key) for key in sorted(found)]

    async def changed_since(self, kinds: Collection[str], since: int) -> bool:
        """Whether an object of some kinds was written or removed after a revision, or nobody looks so far back."""
        before = self.memory.head
        if since < max(before.compacted, before.revision - FAR_BACK):
            return True
        logged = {key: value for key, value in self.writes.items() if key.startswith(self.keys.changes)}
        if since < before.revision:
            first, last = self.keys.change(since + 1), self.keys.change(before.revision + 1)
            wanted = rpc.RangeRequest(key=first, range_end=last)
            (answer,) = await self._client.read_at(self.memory.at, [wanted])
            logged |= {item.key: item.value for item in answer.kvs}
        changes = (read_change(key, value) for key, value in logged.items() if value is not None)
        return any(change.key.kind in kinds and change.revision > since for change in changes)

    def compare(self, key: bytes, version: int | None = None) -> None:
        """Refuse the commit if a key that was read now changes before it, or is not at a version."""
        self.compared[key] = self._versions[key] if version is None else version

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
        most = max(len(self.writes) + operations, len(self.compared))
        return most <= MOST_OPERATIONS and self.size <= MOST_BYTES

    def mark(self) -> Mark:
        """Return what it wants to write so far."""
        return Mark(self.head, dict(self.writes), self.kept, dict(self.compared), self.witness, self.size)

    def back(self, mark: Mark) -> None:
        """Want no more than at `mark`."""
        self.head, self.writes, self.kept = mark.head, dict(mark.writes), mark.kept
        self.compared, self.witness, self.size = dict(mark.compared), mark.witness, mark.size
