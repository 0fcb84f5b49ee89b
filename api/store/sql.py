"""The SQL of the store: tables, statements and the translation of a query.  Values are bound, never pasted."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from api.audit import GENESIS, Record, link
from api.errors import Expired, FailedPrecondition, InvalidArgument
from api.kinds import Resource
from api.store.base import ChangeType, Criterion, Group, Key, LabelRequirement, Operator, Page, Query, Scalar
from api.store.values import fingerprint

VERSION = 1
# A gRPC client receives 4 MiB unless it was told otherwise; each object costs some bytes of the list around it.
PAGE_BYTES = 3_500_000
ROW_BYTES = 16

# In a table without rowid the columns of the key come first and in its order: quick_check of SQLite 3.40 reports NULL
# values that are not there otherwise.
SCHEMA = """
CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS counter (revision INTEGER NOT NULL, compacted INTEGER NOT NULL, page_key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS object (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  uid TEXT NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (kind, namespace, name));
CREATE TABLE IF NOT EXISTS field (
  object INTEGER NOT NULL REFERENCES object(id) ON DELETE CASCADE, kind TEXT NOT NULL, key TEXT NOT NULL, value,
  PRIMARY KEY (object, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS field_value ON field (kind, key, value, object);
CREATE TABLE IF NOT EXISTS label (
  object INTEGER NOT NULL REFERENCES object(id) ON DELETE CASCADE, kind TEXT NOT NULL, key TEXT NOT NULL,
  value TEXT NOT NULL, PRIMARY KEY (object, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS label_value ON label (kind, key, value, object);
CREATE TABLE IF NOT EXISTS owner (
  uid TEXT NOT NULL, object INTEGER NOT NULL REFERENCES object(id) ON DELETE CASCADE, PRIMARY KEY (uid, object)
  ) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS change (
  revision INTEGER PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  type TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS lease (
  name TEXT PRIMARY KEY, holder TEXT NOT NULL, epoch INTEGER NOT NULL, expires REAL NOT NULL);
CREATE TABLE IF NOT EXISTS request (
  scope TEXT NOT NULL, id TEXT NOT NULL, digest BLOB NOT NULL, answer BLOB NOT NULL, time REAL NOT NULL,
  PRIMARY KEY (scope, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (number INTEGER PRIMARY KEY, body BLOB NOT NULL, head BLOB NOT NULL);
"""

COMPARISONS = {
    Operator.EQUAL: "=",
    Operator.GREATER_THAN: ">",
    Operator.GREATER_THAN_OR_EQUAL_TO: ">=",
    Operator.LESS_THAN: "<",
    Operator.LESS_THAN_OR_EQUAL_TO: "<=",
    Operator.LIKE: "LIKE",
}


def migrate(db: sqlite3.Connection) -> None:
    """Create the tables.  Raises FailedPrecondition when a newer release wrote this store."""
    db.execute("PRAGMA foreign_keys=ON")
    db.execute("PRAGMA case_sensitive_like=ON")
    db.executescript(SCHEMA)
    found = db.execute("SELECT version FROM schema_version").fetchone()
    if found is None:
        db.execute("INSERT INTO schema_version VALUES (?)", (VERSION,))
        db.execute("INSERT INTO counter VALUES (0, 0, ?)", (secrets.token_bytes(32),))
    elif found[0] > VERSION:
        raise FailedPrecondition(
            f"the store has schema {found[0]} of a newer release, this one knows {VERSION}: upgrade the program",
            reason="STORE_TOO_NEW",
        )


def next_revision(db: sqlite3.Connection) -> int:
    """Count one change and return its revision."""
    (revision,) = db.execute("UPDATE counter SET revision = revision + 1 RETURNING revision").fetchone()
    return int(revision)


def body(db: sqlite3.Connection, key: Key) -> bytes | None:
    """Return the stored bytes of an object, None if there is none."""
    row = db.execute(
        "SELECT body FROM object WHERE kind = ? AND namespace = ? AND name = ?", (key.kind, key.namespace, key.name)
    ).fetchone()
    return row[0] if row else None


def insert(db: sqlite3.Connection, key: Key, resource: Resource, raw: bytes, fields: Mapping[str, Scalar]) -> None:
    """Write an object with everything that finds it."""
    metadata = resource.metadata
    cursor = db.execute(
        "INSERT INTO object (kind, namespace, name, uid, revision, body) VALUES (?, ?, ?, ?, ?, ?)",
        (key.kind, key.namespace, key.name, metadata.uid, int(metadata.resourceVersion), raw),
    )
    row = cursor.lastrowid
    db.executemany("INSERT INTO field VALUES (?, ?, ?, ?)", [(row, key.kind, k, v) for k, v in fields.items()])
    db.executemany("INSERT INTO label VALUES (?, ?, ?, ?)", [(row, key.kind, k, v) for k, v in metadata.labels.items()])
    owners = {(row, owner.uid) for owner in metadata.ownerReferences}
    db.executemany("INSERT INTO owner (object, uid) VALUES (?, ?)", owners)


def remove(db: sqlite3.Connection, key: Key) -> None:
    """Delete an object; its fields, labels and owners go with it."""
    db.execute("DELETE FROM object WHERE kind = ? AND namespace = ? AND name = ?", (key.kind, key.namespace, key.name))


def log(db: sqlite3.Connection, revision: int, change: ChangeType, key: Key, raw: bytes) -> None:
    """Append to the change log."""
    db.execute(
        "INSERT INTO change VALUES (?, ?, ?, ?, ?, ?)",
        (revision, key.kind, key.namespace, key.name, change.value, raw),
    )


def changes(db: sqlite3.Connection, since: int, limit: int) -> tuple[int, list[Any]]:
    """Return the newest compacted revision and the changes after `since`, oldest first."""
    (compacted,) = db.execute("SELECT compacted FROM counter").fetchone()
    rows = db.execute(
        "SELECT revision, kind, namespace, name, type, body FROM change WHERE revision > ? ORDER BY revision LIMIT ?",
        (since, limit),
    ).fetchall()
    return compacted, rows


def compact(db: sqlite3.Connection, revision: int) -> None:
    """Forget the changes up to and including `revision`."""
    if revision > 0:
        db.execute("DELETE FROM change WHERE revision <= ?", (revision,))
        db.execute("UPDATE counter SET compacted = max(compacted, ?)", (revision,))


def dependents(db: sqlite3.Connection, uid: str) -> list[Key]:
    """Return the objects that `uid` owns."""
    rows = db.execute(
        "SELECT kind, namespace, name FROM owner JOIN object ON object.id = owner.object WHERE owner.uid = ?", (uid,)
    )
    return [Key(*row) for row in rows]


def take_lease(db: sqlite3.Connection, name: str, holder: str, now: float, ttl_s: float) -> int | None:
    """Return the epoch of the lease now held, None while it is another's.

    A stored expiry further ahead than any term can be is from before a restart of the machine's clock.
    """
    row = db.execute("SELECT holder, epoch, expires FROM lease WHERE name = ?", (name,)).fetchone()
    if row and row[0] != holder and now < row[2] <= now + ttl_s:
        return None
    epoch = row[1] if row and row[0] == holder else (row[1] + 1 if row else 1)
    db.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?)", (name, holder, epoch, now + ttl_s))
    return int(epoch)


def drop_lease(db: sqlite3.Connection, name: str, holder: str, epoch: int) -> None:
    """Let a lease expire now, keeping its epoch."""
    db.execute(
        "UPDATE lease SET expires = 0, holder = '' WHERE name = ? AND holder = ? AND epoch = ?", (name, holder, epoch)
    )


def holds(db: sqlite3.Connection, name: str, epoch: int) -> bool:
    """Whether nobody took the lease since `epoch`."""
    row = db.execute("SELECT epoch FROM lease WHERE name = ?", (name,)).fetchone()
    return row is not None and row[0] == epoch


def request(db: sqlite3.Connection, scope: str, id_: str) -> tuple[bytes, bytes] | None:
    """Return the digest and the answer of a request that was carried out."""
    row = db.execute("SELECT digest, answer FROM request WHERE scope = ? AND id = ?", (scope, id_)).fetchone()
    return (row[0], row[1]) if row else None


def remember(db: sqlite3.Connection, scope: str, id_: str, digest: bytes, answer: bytes, now: float) -> None:
    """Keep the answer of a request."""
    db.execute("INSERT INTO request VALUES (?, ?, ?, ?, ?)", (scope, id_, digest, answer, now))


def forget_requests(db: sqlite3.Connection, before: float) -> None:
    """Drop the answers that were given before a time, in seconds since 1970."""
    db.execute("DELETE FROM request WHERE time < ?", (before,))


def append_audit(db: sqlite3.Connection, body: bytes) -> None:
    """Chain one more record to the audit log."""
    row = db.execute("SELECT number, head FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    number, head = row or (0, GENESIS)
    db.execute("INSERT INTO audit VALUES (?, ?, ?)", (number + 1, body, link(head, body)))


def audit(db: sqlite3.Connection, after: int, limit: int) -> list[Record]:
    """Return audit records, oldest first."""
    rows = db.execute("SELECT number, body, head FROM audit WHERE number > ? ORDER BY number LIMIT ?", (after, limit))
    return [Record(*row) for row in rows]


def select(db: sqlite3.Connection, kind: str, query: Query, parse: Callable[[str, bytes], Resource]) -> Page:
    """Run a list: all pages of one list show the revision of its first page, or the token has expired.

    A page with a limit also ends where its objects would be more than a client receives.
    """
    revision, page_key, compacted = db.execute("SELECT revision, page_key, compacted FROM counter").fetchone()
    offset = query.offset
    if query.start:
        first, offset = _read_token(page_key, query.start, fingerprint(kind, query))
        touched = db.execute("SELECT 1 FROM change WHERE kind = ? AND revision > ? LIMIT 1", (kind, first)).fetchone()
        # What was compacted may have been a change of this kind.
        if touched or first < compacted:
            raise Expired(f"{kind} objects changed since the first page was read: list again")
        revision = first
    where, bound = _where(kind, query)
    total = db.execute(f"SELECT count(*) FROM object AS o WHERE {where}", bound).fetchone()[0]  # noqa: S608
    order, order_bound = _order(kind, query)
    rows = db.execute(
        f"SELECT o.body FROM object AS o WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?",  # noqa: S608
        (*bound, *order_bound, query.limit or -1, offset),
    )
    bodies = [body for (body,) in (_until_full(rows) if query.limit else rows)]
    left = max(0, total - offset - len(bodies))
    token = _token(page_key, revision, offset + len(bodies), fingerprint(kind, query)) if left and query.limit else ""
    return Page([parse(kind, body) for body in bodies], revision, token, left)


def _until_full(rows: Iterable[tuple[bytes]]) -> Iterator[tuple[bytes]]:
    """Yield rows while they fit into one page, at least one."""
    left, first = PAGE_BYTES, True
    for row in rows:
        left -= len(row[0]) + ROW_BYTES
        if left < 0 and not first:
            return
        yield row
        first = False


def _where(kind: str, query: Query) -> tuple[str, list[Scalar]]:
    parts, bound = ["o.kind = ?"], [kind]
    values: list[Scalar] = list(bound)
    if query.namespace:
        parts.append("o.namespace = ?")
        values.append(query.namespace)
    for requirement in query.labels:
        part, more = _label(kind, requirement)
        parts.append(part)
        values += more
    if query.where is not None:
        part, more = _condition(kind, query.where)
        parts.append(part)
        values += more
    return " AND ".join(parts), values


def _label(kind: str, term: LabelRequirement) -> tuple[str, list[Scalar]]:
    inside = "o.id IN (SELECT object FROM label WHERE kind = ? AND key = ?"
    if term.operator in ("exists", "absent"):
        return ("NOT " if term.operator == "absent" else "") + inside + ")", [kind, term.key]
    marks = ", ".join("?" * len(term.values))
    negate = "NOT " if term.operator == "notin" else ""
    return f"{negate}{inside} AND value IN ({marks}))", [kind, term.key, *term.values]


def _condition(kind: str, node: Criterion | Group) -> tuple[str, list[Scalar]]:
    if isinstance(node, Criterion):
        return _criterion(kind, node)
    if not node.terms:
        return "1", []
    parts = [_condition(kind, term) for term in node.terms]
    glue = " OR " if node.any else " AND "
    return "(" + glue.join(part for part, _ in parts) + ")", [value for _, bound in parts for value in bound]


def _criterion(kind: str, node: Criterion) -> tuple[str, list[Scalar]]:
    inside = "o.id IN (SELECT object FROM field WHERE kind = ? AND key = ?"
    bound: list[Scalar] = [kind, node.field]
    if node.operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):
        return ("NOT " if node.operator is Operator.IS_NULL else "") + inside + ")", bound
    if node.operator in (Operator.IN, Operator.NOT_IN, Operator.NOT_EQUAL):
        marks = ", ".join("?" * len(node.values))
        negate = "" if node.operator is Operator.IN else "NOT "
        return f"{negate}{inside} AND value IN ({marks}))", [*bound, *node.values]
    return f"{inside} AND value {COMPARISONS[node.operator]} ?)", [*bound, node.values[0]]


ORDER_VALUE = "(SELECT value FROM field WHERE object = o.id AND kind = ? AND key = ?)"


def _order(kind: str, query: Query) -> tuple[str, list[Scalar]]:
    parts, bound = [], []
    for field, descending in query.order:
        parts.append(f"{ORDER_VALUE}{' DESC' if descending else ''}")
        bound += [kind, field]
    return ", ".join([*parts, "o.namespace", "o.name"]), list(bound)


def _token(page_key: bytes, revision: int, offset: int, digest: str) -> str:
    payload = json.dumps([revision, offset, digest]).encode()
    return base64.urlsafe_b64encode(hmac.digest(page_key, payload, "sha256")[:16] + payload).decode()


def _read_token(page_key: bytes, token: str, digest: str) -> tuple[int, int]:
    try:
        raw = base64.urlsafe_b64decode(token.encode())
        # The decoder skips what is not of its alphabet: one token has one spelling.
        if base64.urlsafe_b64encode(raw).decode() != token:
            raise ValueError
        if not hmac.compare_digest(raw[:16], hmac.digest(page_key, raw[16:], "sha256")[:16]):
            raise ValueError
        revision, offset, belongs = json.loads(raw[16:])
    except ValueError as error:
        raise InvalidArgument("the continue token is not one of this server: list again", reason="BAD_TOKEN") from error
    if belongs != digest:
        raise InvalidArgument("the continue token belongs to another list: list again", reason="BAD_TOKEN")
    return revision, offset
