"""The statements of the store, the same for every SQL database.  Values are bound, never pasted.

Never begins or ends a transaction.  What finds objects in lists is in `pages`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from api.audit import GENESIS, Record, link
from api.kinds import Resource
from api.store.base import REQUESTS_KEPT_S, ChangeType, Key, Scalar
from api.store.database import Bound, Database
from api.store.schema import TEXT_LENGTH
from api.store.values import DELETING, TEXTS

STEP = 1000


def revision(db: Database) -> int:
    """Return the newest revision."""
    return int(db.execute("SELECT revision FROM counter").fetchone()[0])


def count_to(db: Database, newest: int) -> None:
    """Set the newest revision, in the transaction of its change and behind its lock on the counter."""
    db.execute("UPDATE counter SET revision = ?", (newest,))


def body(db: Database, key: Key) -> bytes | None:
    """Return the stored bytes of an object, None if there is none."""
    row = db.execute(
        "SELECT body FROM object WHERE kind = ? AND namespace = ? AND name = ?", (key.kind, key.namespace, key.name)
    ).fetchone()
    return bytes(row[0]) if row else None


def stands(db: Database, key: Key) -> bool | None:
    """Whether the object at `key` is not being deleted; None if there is none."""
    row = db.execute(
        "SELECT (SELECT 1 FROM field AS f WHERE f.object = o.id AND f.key = ?) FROM object AS o"
        " WHERE o.kind = ? AND o.namespace = ? AND o.name = ?",
        (DELETING, key.kind, key.namespace, key.name),
    ).fetchone()
    return None if row is None else row[0] is None


def changed_since(db: Database, kinds: Collection[str], since: int) -> bool:
    """Whether an object of some kinds was written or removed after a revision, or nobody knows any more."""
    inside, bound = db.dialect.among("kind", "text", sorted(kinds))
    statement = f"SELECT 1 FROM change WHERE {inside} AND revision > ? LIMIT 1"  # noqa: S608
    changed = db.execute(statement, (*bound, since)).fetchone() is not None
    return changed or since < compacted(db)


def insert(db: Database, key: Key, resource: Resource, raw: bytes, fields: Mapping[str, Scalar]) -> None:
    """Write a new object with everything that finds it."""
    metadata = resource.metadata
    (row,) = db.execute(
        "INSERT INTO object (kind, namespace, name, uid, revision, body) VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
        (key.kind, key.namespace, key.name, metadata.uid, int(metadata.resourceVersion), raw),
    ).fetchone()
    _add_fields(db, row, key, fields)
    _add_labels(db, row, key, metadata.labels)
    _add_owners(db, row, {owner.uid for owner in metadata.ownerReferences})


def replace(
    db: Database, key: Key, resource: Resource, raw: bytes, fields: Mapping[str, Scalar], before: Found
) -> None:
    """Write an object over its last state; of what finds it, only what is other than `before`."""
    metadata = resource.metadata
    (row,) = db.execute(
        "UPDATE object SET uid = ?, revision = ?, body = ? WHERE kind = ? AND namespace = ? AND name = ? RETURNING id",
        (metadata.uid, int(metadata.resourceVersion), raw, key.kind, key.namespace, key.name),
    ).fetchone()
    old_fields, old_labels, old_owners = before
    labels, owners = dict(metadata.labels), {owner.uid for owner in metadata.ownerReferences}
    _drop(db, "field", row, _other(old_fields, fields))
    _add_fields(db, row, key, {name: fields[name] for name in _other(fields, old_fields)})
    _drop(db, "label", row, _other(old_labels, labels))
    _add_labels(db, row, key, {name: labels[name] for name in _other(labels, old_labels)})
    for uid in old_owners - owners:
        db.execute("DELETE FROM owner WHERE uid = ? AND object = ?", (uid, row))
    _add_owners(db, row, owners - old_owners)


Found = tuple[Mapping[str, Scalar], Mapping[str, str], set[str]]


def _other(mine: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    return [name for name, value in mine.items() if name not in others or others[name] != value]


def _drop(db: Database, table: str, row: int, keys: Sequence[str]) -> None:
    if keys:
        inside, bound = db.dialect.among("key", "text", keys)
        db.execute(f"DELETE FROM {table} WHERE object = ? AND {inside}", (row, *bound))  # noqa: S608


def _add_fields(db: Database, row: int, key: Key, fields: Mapping[str, Scalar]) -> None:
    # Namespace and name stand in every row.
    own = {name: value for name, value in fields.items() if name not in TEXTS}
    add_rows(db, "field", [(row, name, key.kind, key.namespace, key.name, *_cut(own[name])) for name in own])


def _cut(value: Scalar) -> tuple[Bound, Bound, Bound]:
    """Return an index value by column: text, whole, number."""
    if isinstance(value, str):
        return value[:TEXT_LENGTH], value if len(value) >= TEXT_LENGTH else None, None
    return None, None, int(value) if isinstance(value, bool) else value


def _add_labels(db: Database, row: int, key: Key, labels: Mapping[str, str]) -> None:
    add_rows(db, "label", [(row, name, key.kind, key.namespace, key.name, value) for name, value in labels.items()])


def _add_owners(db: Database, row: int, uids: Iterable[str]) -> None:
    add_rows(db, "owner", [(uid, row) for uid in sorted(uids)])


def reindex(db: Database, row: int, key: Key, fields: Mapping[str, Scalar]) -> None:
    """Write an object's index values anew."""
    db.execute("DELETE FROM field WHERE object = ?", (row,))
    _add_fields(db, row, key, fields)


def add_rows(db: Database, table: str, rows: Sequence[tuple[Bound, ...]]) -> None:
    """Insert rows, many with one statement."""
    for start in range(0, len(rows), 100):
        some = rows[start : start + 100]
        marks = ", ".join([f"({', '.join('?' * len(some[0]))})"] * len(some))
        db.execute(f"INSERT INTO {table} VALUES {marks}", [value for row in some for value in row])  # noqa: S608


def remove(db: Database, key: Key) -> None:
    """Delete an object; its fields, labels and owners go with it."""
    db.execute("DELETE FROM object WHERE kind = ? AND namespace = ? AND name = ?", (key.kind, key.namespace, key.name))


def log(db: Database, revision: int, change: ChangeType, key: Key, raw: bytes, previous: bytes | None = None) -> None:
    """Append to the change log.  `previous`: the object before it was modified."""
    db.execute(
        "INSERT INTO change VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (revision, key.kind, key.namespace, key.name, change.value, raw, time.time(), previous),
    )


def changes(db: Database, since: int, limit: int) -> tuple[int, list[Any]]:
    """Return the newest compacted revision and the changes after `since`, oldest first."""
    rows = logged(db, since, limit)
    # After the rows: what is compacted in between makes them expire, never miss some of them.
    return compacted(db), rows


def logged(db: Database, since: int, limit: int) -> list[Any]:
    """Return changes after a revision, oldest first, whatever is compacted."""
    return db.execute(
        "SELECT revision, kind, namespace, name, type, body, previous FROM change"
        " WHERE revision > ? ORDER BY revision LIMIT ?",
        (since, limit),
    ).fetchall()


def compacted(db: Database) -> int:
    """Return the newest revision whose change is no longer kept."""
    return int(db.execute("SELECT compacted FROM counter").fetchone()[0])


def compact(db: Database, window: int, before: float) -> bool:
    """Forget some of the oldest changes beyond the newest `window`, made before a time; whether there may be more."""
    newest, oldest = revision(db) - window, None
    rows = db.execute("SELECT revision, time FROM change ORDER BY revision LIMIT ?", (STEP,)).fetchall()
    for number, made in rows:
        if number > newest or made > before:
            break
        oldest = number
    if oldest is None:
        return False
    db.execute("DELETE FROM change WHERE revision <= ?", (oldest,))
    db.execute("UPDATE counter SET compacted = ? WHERE compacted < ?", (oldest, oldest))
    return len(rows) == STEP and oldest == rows[-1][0]


def forget_requests(db: Database, before: float) -> bool:
    """Drop some of the answers that were given before a time, in seconds since 1970; whether there may be more."""
    rows = db.execute("SELECT scope, id FROM request WHERE time < ? ORDER BY time LIMIT ?", (before, STEP)).fetchall()
    for scope, id_ in rows:
        db.execute("DELETE FROM request WHERE scope = ? AND id = ?", (scope, id_))
    return len(rows) == STEP


def tidy(db: Database, window: int, window_s: float) -> bool:
    """Forget some old changes and some answers that were kept long enough; whether there may be more."""
    now = time.time()
    changes = compact(db, window, now - window_s)
    return forget_requests(db, now - REQUESTS_KEPT_S) or changes


def dependents(db: Database, uid: str) -> list[Key]:
    """Return the objects that `uid` owns."""
    rows = db.execute(
        "SELECT kind, namespace, name FROM owner JOIN object ON object.id = owner.object WHERE owner.uid = ?"
        " ORDER BY object.id",
        (uid,),
    ).fetchall()
    return [Key(*row) for row in rows]


def take_lease(db: Database, name: str, holder: str, ttl_s: float) -> int | None:
    """Return the epoch of the lease now held, None while it is another's.  One statement: nothing comes in between.

    A stored expiry further ahead than its own term is from before the clock began anew.
    """
    clock = db.dialect.clock
    row = db.execute(
        f"INSERT INTO lease VALUES (?, ?, 1, {clock} + ?, ?) ON CONFLICT (name) DO UPDATE SET"  # noqa: S608
        " epoch = CASE WHEN lease.holder = excluded.holder THEN lease.epoch ELSE lease.epoch + 1 END,"
        f" holder = excluded.holder, expires = {clock} + excluded.ttl, ttl = excluded.ttl"
        f" WHERE lease.holder = excluded.holder OR lease.expires <= {clock} OR lease.expires > {clock} + lease.ttl"
        " RETURNING epoch",
        (name, holder, float(ttl_s), float(ttl_s)),
    ).fetchone()
    return int(row[0]) if row else None


def drop_lease(db: Database, name: str, holder: str, epoch: int) -> None:
    """Let a lease expire now, keeping its epoch."""
    db.execute(
        "UPDATE lease SET expires = 0, holder = '' WHERE name = ? AND holder = ? AND epoch = ?", (name, holder, epoch)
    )


def holds(db: Database, name: str, epoch: int) -> bool:
    """Whether nobody took the lease since `epoch`, nor will before the transaction ends."""
    row = db.execute(f"SELECT epoch FROM lease WHERE name = ?{db.dialect.hold}", (name,)).fetchone()  # noqa: S608
    return row is not None and row[0] == epoch


def request(db: Database, scope: str, id_: str) -> tuple[bytes, bytes] | None:
    """Return the digest and the answer of a request that was carried out."""
    row = db.execute("SELECT digest, answer FROM request WHERE scope = ? AND id = ?", (scope, id_)).fetchone()
    return (bytes(row[0]), bytes(row[1])) if row else None


def remember(db: Database, scope: str, id_: str, digest: bytes, answer: bytes) -> None:
    """Keep the answer of a request."""
    db.execute("INSERT INTO request VALUES (?, ?, ?, ?, ?)", (scope, id_, digest, answer, time.time()))


def append_audit(db: Database, body: bytes) -> None:
    """Chain one more record to the audit log."""
    row = db.execute("SELECT number, head FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    number, head = (row[0], bytes(row[1])) if row else (0, GENESIS)
    db.execute("INSERT INTO audit VALUES (?, ?, ?)", (number + 1, body, link(head, body)))


def audit(db: Database, after: int, limit: int) -> list[Record]:
    """Return audit records, oldest first."""
    rows = db.execute("SELECT number, body, head FROM audit WHERE number > ? ORDER BY number LIMIT ?", (after, limit))
    return [Record(number, bytes(body), bytes(head)) for number, body, head in rows.fetchall()]
