"""Opens the store that an address names.  Loads the adapter of that database and no other."""

from __future__ import annotations

import asyncio
from pathlib import Path

from api.errors import InvalidArgument
from api.store.base import Store
from api.store.sqlstore import WINDOW, WINDOW_S

FORMS = "sqlite:///path/of/a/file, postgresql://user:password@host:5432/database or etcd://host:2379"


async def open_store(url: str, *, window: int = WINDOW, window_s: float = WINDOW_S) -> Store:
    """Open the store at a URL; a path with a fourth slash is absolute.

    window, window_s: how many changes are kept for watchers at least, and for how long.  Raises InvalidArgument for
    another URL, FailedPrecondition for a database that cannot keep the promises of a store, Unavailable, DataLoss.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        from api.store.sqlite import SqliteStore

        return await asyncio.to_thread(SqliteStore, Path(rest[1:]), window=window, window_s=window_s)
    if scheme in ("postgresql", "postgres"):
        from api.store.postgres import PostgresStore

        return await asyncio.to_thread(PostgresStore, url, window=window, window_s=window_s)
    if scheme == "etcd":
        from api.store.etcd import open_etcd

        return await open_etcd(url, window=window, window_s=window_s)
    # The rest may hold a password.
    raise InvalidArgument(f"{scheme[:16]!r} is no kind of store: write {FORMS}", reason="BAD_STORE_URL")
