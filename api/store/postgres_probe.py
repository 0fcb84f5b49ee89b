"""What a PostgreSQL server must be so that the store keeps its promises.  Asked at every connect; writes nothing.

Refusals name the setting.  A replica shows changes late and in another order; without synchronous_commit, fsync or
full_page_writes a crash takes answered writes away; a pooler in transaction mode loses LISTEN and the time limits.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable

import psycopg

from api.errors import FailedPrecondition

OLDEST = 150_000
SETTINGS = (
    "SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),"
    " current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes'),"
    " current_setting('server_encoding'), current_setting('default_transaction_read_only')"
)
# Beside which a pooler must give the first connection another server process.
BESIDE = 3

Connection = psycopg.Connection[tuple[object, ...]]


def check(connection: Connection) -> None:
    """Raise FailedPrecondition when the server is not fit for a store."""
    found = connection.execute(SETTINGS).fetchone()
    assert found is not None, "a SELECT without FROM has one row"
    # Texts of a database without an encoding come as bytes.
    told = [value.decode() if isinstance(value, bytes) else str(value) for value in found]
    number, version, replica, synchronous, fsync, full_pages, encoding, read_only = told
    if int(number) < OLDEST:
        raise _refusal("STORE_SERVER_TOO_OLD", f"server_version is {version}: PostgreSQL 15 or newer is needed")
    if replica != "False":
        why = "pg_is_in_recovery() is true: this is a read replica, name the primary (target_session_attrs=read-write)"
        raise _refusal("STORE_IS_REPLICA", why)
    if read_only != "off":
        raise _refusal("STORE_READ_ONLY", f"default_transaction_read_only is {read_only}: the store must be writable")
    for name, value in (("synchronous_commit", synchronous), ("fsync", fsync), ("full_page_writes", full_pages)):
        if value == "off":
            why = f"{name} is off, so that a crash takes answered writes away: set it to on"
            raise _refusal("STORE_NOT_DURABLE", why)
    if encoding != "UTF8":
        why = f"server_encoding is {encoding}: create the database with ENCODING 'UTF8' TEMPLATE template0"
        raise _refusal("STORE_ENCODING", why)


def check_session(connect: Callable[[], Connection]) -> None:
    """Raise FailedPrecondition when a pooler hands one session's server process to another.

    A value set in one session must be there, and in no other, while other sessions are inside transactions.
    """
    own = secrets.token_hex(8)
    with contextlib.ExitStack() as opened:
        first = opened.enter_context(contextlib.closing(connect()))
        first.execute("SELECT set_config('michelangelo.session', %s, false)", (own,))
        for _ in range(BESIDE):
            other = opened.enter_context(contextlib.closing(connect()))
            other.execute("BEGIN")
            if _session(other) == own:
                raise _pooled()
        if _session(first) != own:
            raise _pooled()


def _session(connection: Connection) -> str | None:
    row = connection.execute("SELECT current_setting('michelangelo.session', true)").fetchone()
    return None if row is None or row[0] is None else str(row[0])


def _pooled() -> FailedPrecondition:
    told = "a connection pooler in transaction mode stands before it: set pool_mode=session, or name PostgreSQL itself"
    return _refusal("STORE_POOLED", told)


def _refusal(reason: str, told: str) -> FailedPrecondition:
    return FailedPrecondition(f"PostgreSQL of the resource store cannot be used: {told}", reason=reason)
