"""`ma backup` and `ma restore`: the resource store as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(backup)
    app.command()(restore)


def backup(file: Annotated[Path, typer.Argument(help="Where to write the copy; must not exist.")]) -> None:
    """Copy the resource store while it is in use."""
    from api.cli.context import configuration, say
    from api.store import backup as copies

    revision = copies.backup(_store(configuration().store_address), file)
    say(f"{file}: the store at revision {revision}")


def restore(
    file: Annotated[Path, typer.Argument(help="What `ma backup` wrote.")],
    revision: Annotated[int | None, typer.Option(help="As it was then; default: when it was copied.")] = None,
) -> None:
    """Put the resource store back from a copy.  The platform must be stopped."""
    import getpass
    import time
    import uuid

    from api.audit import Entry
    from api.cli.context import configuration, say
    from api.cli.exits import Failure
    from api.cli.platform import record
    from api.store import backup as copies

    config = configuration()
    store = _store(config.store_address)
    config.run_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    entry = Entry(
        time_us=time.time_ns() // 1000,
        subject=f"user:{getpass.getuser()}",
        source="cli",
        verb="Restore",
        kind="Store",
        namespace="",
        name=file.name,
        request_id=str(uuid.uuid4()),
    )
    try:
        with record.lock(config.run_path):
            restored = copies.restore(file, store, entry, revision)
    except BlockingIOError:
        raise Failure("the platform runs: stop it with `ma down`, then restore") from None
    say(f"{restored.objects} objects as of revision {restored.revision}; the next revision is {restored.newest + 1}")


def _store(address: str) -> Path:
    """Return the file of a SQLite store.  Raises Failure for another, which has tools of its own."""
    from api.cli.exits import Failure

    scheme, _, path = address.partition(":///")
    if scheme != "sqlite":
        kind = address.partition(":")[0]
        told = f"the store is in {kind}: back it up with the tools of {kind} (pg_dump, etcdctl snapshot)"
        raise Failure(told)
    return Path(path)
