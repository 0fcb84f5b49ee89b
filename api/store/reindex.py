"""Index values follow the declarations of the kinds: when those change, what is stored is read again.

A kind's digest is written after its last object; interrupted, the kind begins anew.
"""

from __future__ import annotations

import hashlib
import json

from api.kinds import Kind, kinds
from api.store import sql
from api.store.base import Key
from api.store.database import Database
from api.store.records import parse
from api.store.values import indexed

STEP = 500
# Goes up when `indexed` gives other values than the kinds declare.
GENERIC = 1


def digest(kind: Kind) -> str:
    """Return what says which values of a kind are indexed, and how."""
    described: list[object] = [GENERIC]
    described += [[index.key, index.path, index.field.type, index.is_identifier] for index in kind.indexes]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:24]


def changed(db: Database) -> list[Kind]:
    """Return the kinds whose objects are not indexed as they are declared now."""
    known = dict(db.execute("SELECT kind, digest FROM indexed").fetchall())
    return [kind for kind in kinds().values() if known.get(kind.name) != digest(kind)]


def step(db: Database, kind: Kind, after: int) -> int | None:
    """Index some objects with ids beyond `after`, in the caller's transaction; return the last id, None at the end."""
    rows = db.execute(
        "SELECT id, namespace, name, body FROM object WHERE kind = ? AND id > ? ORDER BY id LIMIT ?",
        (kind.name, after, STEP),
    ).fetchall()
    for id_, namespace, name, body in rows:
        fields = indexed(parse(kind.name, bytes(body)))
        sql.reindex(db, id_, Key(kind.name, namespace, name), fields)
    if rows:
        return int(rows[-1][0])
    db.execute("DELETE FROM indexed WHERE kind = ?", (kind.name,))
    db.execute("INSERT INTO indexed VALUES (?, ?)", (kind.name, digest(kind)))
    return None


def mark(db: Database) -> None:
    """Tell of an empty store that all kinds are indexed as declared."""
    sql.add_rows(db, "indexed", [(kind.name, digest(kind)) for kind in kinds().values()])
