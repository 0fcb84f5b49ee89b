"""A store with many objects, written before a server opens it: each label value finds the same few of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import uvloop

from api import server_fields
from api.auth import static
from api.auth.static import Known, TokensFile
from api.gen.michelangelo.platform.v1 import role_binding_pb2
from api.kinds import kinds
from api.resources import Resources
from api.store import sql
from api.store.sqlite import SqliteDatabase, SqliteStore
from api.store.values import indexed, key_of

HITS = 50
BUCKETS_ASKED = 100
AT_ONCE = 10_000


def fill(home: Path, project: str, count: int) -> None:
    """Write a project, as the API does, and `count` model families; each of `bucket=b0`, `b1` ... finds `HITS`.

    The families are written as rows, many in a transaction: through the API a million would take a quarter of an hour.
    They stand in the store as the API leaves them, but for audit records and for changes that are still kept.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    uvloop.run(_prepare(home / "store.db", project))
    db = SqliteDatabase(home / "store.db")
    # Nothing of it need survive a loss of power.
    db.execute("PRAGMA synchronous=OFF")
    for first in range(0, count, AT_ONCE):
        _fill(db, project, range(first, min(first + AT_ONCE, count)), max(1, count // HITS))
    db.close()


async def _prepare(path: Path, project: str) -> None:
    store = SqliteStore(path)
    await Resources(store).create(kinds()["Project"].new(project, project))
    await store.close()


def _fill(db: SqliteDatabase, project: str, numbers: range, buckets: int) -> None:
    kind = kinds()["ModelFamily"]
    db.begin()
    revision = sql.revision(db)
    for number in numbers:
        family = kind.new(project, f"family-{number:07}")
        family.metadata.labels["bucket"] = f"b{number % buckets}"
        family.spec.description = "x" * 200
        server_fields.prepare(kind, family)
        server_fields.begin(family)
        revision += 1
        family.metadata.resourceVersion = str(revision)
        raw = family.SerializeToString(deterministic=True)
        sql.insert(db, key_of(family), family, raw, indexed(family))
    # Their changes are forgotten, as those of a store that has grown over weeks.
    db.execute("UPDATE counter SET revision = ?, compacted = ?", (revision, revision))
    db.execute("DELETE FROM change")
    db.commit()


def let_in(home: Path, project: str, tokens: Sequence[str]) -> None:
    """Let a user of each token read and write a project; the tokens file is `tokens.json` of the home."""
    users = {f"watcher-{number}": token for number, token in enumerate(tokens)}
    static.write(
        home / "tokens.json", TokensFile(tuple(Known(name, static.digest(token)) for name, token in users.items()))
    )
    uvloop.run(_bind(home / "store.db", project, list(users)))


async def _bind(path: Path, project: str, users: Sequence[str]) -> None:
    store = SqliteStore(path)
    binding = kinds()["RoleBinding"].new(project, "watchers")
    binding.spec.role = role_binding_pb2.ROLE_EDITOR
    for user in users:
        binding.spec.subjects.add(kind=role_binding_pb2.SUBJECT_KIND_USER, name=user)
    await Resources(store).create(binding)
    await store.close()
