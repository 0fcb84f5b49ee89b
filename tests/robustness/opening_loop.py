"""Opens a PostgreSQL store, cut off at its n-th statement, for every n-th until it is open.  One process that forks.

python -m tests.robustness.opening_loop BEGINNING SERVER EVERY  prints what was found as JSON.  BEGINNING: `empty`, a
database without tables, or `old`, a store that has to be migrated and indexed anew; SERVER: the URL of its server.
There are no stores of an older release in PostgreSQL yet: the migration is one such as there will be, run as all are.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import psycopg
from alembic import op

from api.store import migrations, opening, schema
from api.store.base import Write
from api.store.open import open_store
from tests.robustness.crash_loop import in_child
from tests.robustness.stores import family

OBJECTS = 8
FOLLOWING = (
    "ALTER TABLE label RENAME TO label_2",
    """CREATE TABLE label (object BIGINT NOT NULL REFERENCES object(id) ON DELETE CASCADE, key TEXT NOT NULL,
  kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, length BIGINT NOT NULL)""",
    "INSERT INTO label SELECT object, key, kind, namespace, name, value, length(value) FROM label_2",
    "DROP TABLE label_2",
    "CREATE INDEX label_length ON label (length)",
    "ALTER TABLE change ADD COLUMN weight BIGINT NOT NULL DEFAULT 0",
    "UPDATE change SET weight = length(body)",
)
ROWS = ("schema_version", "object", "field", "label", "owner", "change", "request", "indexed", "audit")


def main() -> int:
    """Run as a program."""
    beginning, server, every = sys.argv[1], sys.argv[2], int(sys.argv[3])
    template = f"begin_{secrets.token_hex(4)}"
    ask(server, f"CREATE DATABASE {template} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
    if beginning == "old":
        in_child(lambda: asyncio.run(fill(at(server, template))))
        # As a store that was indexed by other declarations.
        ask(at(server, template), "UPDATE indexed SET digest = 'old' WHERE kind = 'ModelFamily'; DELETE FROM field")
        plant()
    whole = fresh(server, template)
    open_and_die(whole, 0, backend=False)
    due, faults, cuts, n, lived = content(whole), [], 0, 1 - every, False
    if due["schema_version"] != [repr((schema.VERSION,))] or not due["counter"]:
        faults.append("an opening that nobody cut off made no store")
    while not lived:
        n, cuts = n + every, cuts + 1
        url = fresh(server, template)
        # In turns: PostgreSQL loses its process of this connection, or the program is killed.
        backend = cuts % 2 == 0
        ended = open_and_die(url, n, backend=backend)
        lived = ended and not backend
        open_and_die(url, 0, backend=False)
        found = content(url)
        faults += [f"cut off at statement {n}: {name} is another" for name in due if found[name] != due[name]]
        ask(server, f"DROP DATABASE {url.partition('@/')[2].partition('?')[0]} WITH (FORCE)")
    print(json.dumps({"cuts": cuts - 1, "statements": n, "faults": faults}))
    return 1 if faults else 0


def plant(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Make this program one of the next release, with a migration of its own."""

    def upgrade() -> None:
        for statement in FOLLOWING:
            op.execute(statement)

    following: Any = SimpleNamespace(revision=str(schema.VERSION + 1), module=SimpleNamespace(upgrade=upgrade))
    replace(migrations, "scripts", lambda _: iter([following]))
    for module in (opening, schema):
        replace(module, "VERSION", int(following.revision))


def at(server: str, database: str) -> str:
    """Return the URL of a database."""
    before, _, after = server.partition("@/")
    return f"{before}@/{database}?{after.partition('?')[2]}"


def fresh(server: str, template: str) -> str:
    """Return the URL of a new database like another."""
    name = f"t{secrets.token_hex(6)}"
    ask(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    return at(server, name)


def ask(url: str, statement: Any) -> list[Any]:
    """Run a statement beside the tested code."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


async def fill(url: str) -> None:
    """Make a store with some objects."""
    store = await open_store(url)
    for number in range(OBJECTS):
        await store.create(Write(family(f"n{number}", "x", labels={"colour": "red" * number})))
    await store.close()


def open_and_die(url: str, n: int, *, backend: bool) -> bool:
    """Open the store in a child that is cut off before its `n`-th statement, 0 for never; return whether it lived."""
    child = os.fork()
    if child == 0:
        _count(url, n, backend=backend)
        try:
            asyncio.run(_open(url))
        except BaseException as error:
            if not backend:
                print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0 and not (n and backend):
        raise RuntimeError(f"opening failed, though nobody cut it off at statement {n}")
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


async def _open(url: str) -> None:
    await (await open_store(url)).close()


def _count(url: str, n: int, *, backend: bool) -> None:
    """Cut this process, or PostgreSQL's that serves it, off before its `n`-th statement."""
    count, real = 0, psycopg.Cursor.execute

    def execute(cursor: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == n and not backend:
            os.kill(os.getpid(), signal.SIGKILL)
        if count == n:
            psycopg.Cursor.execute = real  # type: ignore[method-assign]
            ask(url, f"SELECT pg_terminate_backend({cursor.connection.info.backend_pid}, 5000)")
        return real(cursor, *args, **kwargs)

    psycopg.Cursor.execute = execute  # type: ignore[method-assign, assignment]


def content(url: str) -> dict[str, list[str]]:
    """Return tables, indexes and rows."""
    found = {
        "columns": ask(url, "SELECT table_name, column_name, data_type, collation_name FROM information_schema.columns"
                            " WHERE table_schema = 'public'"),
        "indexes": ask(url, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"),
        "constraints": ask(url, "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
                                " WHERE connamespace = 'public'::regnamespace"),
        "counter": ask(url, "SELECT revision, compacted, length(page_key) FROM counter"),
    }  # fmt: skip
    found |= {table: ask(url, f"SELECT * FROM {table}") for table in ROWS}
    return {name: sorted(map(repr, rows)) for name, rows in found.items()}


if __name__ == "__main__":
    sys.exit(main())
