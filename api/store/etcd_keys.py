"""Where things stand in etcd and how they are written there.  Pure functions; calls nothing.

Below the root: `o/` objects, `w/` what an owner owns, `c/` changes, `r/` answered requests, `a/` audit records, `l/`
and `h/` leases and their holders, `turn`, and `head`, the one key that every writing transaction compares and replaces.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from urllib.parse import quote, unquote

from api.audit import GENESIS, Record
from api.store.base import Change, ChangeType, Key
from api.store.records import parse

DIGITS = 20


@dataclass(frozen=True)
class Head:
    """What each transaction continues: newest revision, newest compacted one, audit records and their chain."""

    revision: int = 0
    compacted: int = 0
    audited: int = 0
    chain: bytes = GENESIS

    def encoded(self) -> bytes:
        """Return it as JSON."""
        return json.dumps([self.revision, self.compacted, self.audited, self.chain.hex()]).encode()


def read_head(value: bytes | None) -> Head:
    """Return a head from its bytes; of an empty store if there are none."""
    if value is None:
        return Head()
    revision, compacted, audited, chain = json.loads(value)
    return Head(revision, compacted, audited, bytes.fromhex(chain))


@dataclass(frozen=True)
class Keys:
    """Names of keys below `root`, which ends without a slash.  Parts of a name are quoted as in a URL."""

    root: str = "/michelangelo"

    def _key(self, *parts: str) -> bytes:
        return "/".join((self.root, *(quote(part, safe="") for part in parts))).encode()

    @property
    def head(self) -> bytes:
        """The counter of changes and of audit records."""
        return self._key("head")

    @property
    def turn(self) -> bytes:
        """Who writes next, when others were faster again and again."""
        return self._key("turn")

    @property
    def version(self) -> bytes:
        """The layout of this store, a number."""
        return self._key("version")

    @property
    def page_key(self) -> bytes:
        """The secret that signs page tokens."""
        return self._key("page-key")

    def object(self, key: Key) -> bytes:
        """One object."""
        return self._key("o", key.kind, key.namespace, key.name)

    @property
    def all_objects(self) -> bytes:
        """The beginning of all objects."""
        return self._key("o") + b"/"

    def objects(self, kind: str, namespace: str = "") -> bytes:
        """The beginning of all objects of a kind, or of those in one namespace."""
        return self._key("o", kind, *([namespace] if namespace else [])) + b"/"

    def owned(self, uid: str, key: Key) -> bytes:
        """That `uid` owns an object."""
        return self._key("w", uid, key.kind, key.namespace, key.name)

    def owned_by(self, uid: str) -> bytes:
        """The beginning of all that `uid` owns."""
        return self._key("w", uid) + b"/"

    @property
    def changes(self) -> bytes:
        """The beginning of all changes."""
        return self._key("c") + b"/"

    def change(self, revision: int) -> bytes:
        """The change of a revision; keys are ordered as revisions are."""
        return self._key("c", f"{revision:0{DIGITS}d}")

    def request(self, scope: str, name: str) -> bytes:
        """The answer to a request.  Hashed: a scope has names that callers chose."""
        return self._key("r", hashlib.sha256(f"{scope}\0{name}".encode()).hexdigest())

    def audit(self, number: int) -> bytes:
        """An audit record; keys are ordered as numbers are."""
        return self._key("a", f"{number:0{DIGITS}d}")

    def lease(self, name: str) -> bytes:
        """The epoch of a lease; changes only with its holder."""
        return self._key("l", name)

    def holder(self, name: str) -> bytes:
        """The holder of a lease, as long as it renews it."""
        return self._key("h", name)


def after(prefix: bytes) -> bytes:
    """Return the end of the keys that begin with `prefix`, not included.  `prefix` ends with a slash."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def owned_key(key: bytes) -> Key:
    """Return which object a key of the owners' index speaks of."""
    kind, namespace, name = (unquote(part) for part in key.decode().rsplit("/", 3)[1:])
    return Key(kind, namespace, name)


def change_value(change: ChangeType, key: Key, nonce: str, body: bytes, previous: bytes) -> bytes:
    """Return a change as it is stored.  `nonce` tells whose write it is when an answer was lost."""
    described = json.dumps([change.value, key.kind, key.namespace, key.name, len(previous), nonce]).encode()
    return b"\n".join((described, previous + body))


@dataclass(frozen=True)
class Logged:
    """A stored change whose object has not been read yet."""

    revision: int
    type: ChangeType
    key: Key
    body: bytes
    previous: bytes

    def change(self) -> Change:
        """Return it with its object."""
        previous = parse(self.key.kind, self.previous) if self.previous else None
        return Change(self.revision, self.type, self.key, parse(self.key.kind, self.body), previous)


def read_change(key: bytes, value: bytes) -> Logged:
    """Return a change from its key and value."""
    described, objects = value.split(b"\n", 1)
    change, kind, namespace, name, previous, _ = json.loads(described)
    where = Key(kind, namespace, name)
    return Logged(int(key[-DIGITS:]), ChangeType(change), where, objects[previous:], objects[:previous])


def read_audit(key: bytes, value: bytes) -> Record:
    """Return an audit record from its key and value: the chain's head, then the record."""
    return Record(int(key[-DIGITS:]), value[len(GENESIS) :], value[: len(GENESIS)])
