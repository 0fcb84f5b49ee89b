"""`ma backup` and `ma restore`: the resource store as one file."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from api.audit import Entry


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(backup)
    app.command()(restore)


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write the copy; must not exist.")],
    without_blobs: Annotated[bool, typer.Option("--without-blobs", help="Leave large fields out.")] = False,
) -> None:
    """Copy the resource store, and the large fields in its folder, while they are in use."""
    from api import blob_copies
    from api.cli.context import configuration, say
    from api.store import backup as copies

    config = configuration()
    also = None if without_blobs else functools.partial(blob_copies.keep, url=config.blobs_url)
    revision = copies.backup(config.store_address, file, also)
    say(f"{file}: the store at revision {revision}")
    if without_blobs:
        say("large fields are not in it: copy the blob store after it")
    elif "://" in config.blobs_url:
        say(f"large fields are not in it: it depends on {blob_copies.without_secrets(config.blobs_url)}")


def restore(
    file: Annotated[Path, typer.Argument(help="What `ma backup` wrote.")],
    revision: Annotated[int | None, typer.Option(help="As it was then; default: when it was copied.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Replace what a database holds.")] = False,
    without_blobs: Annotated[bool, typer.Option("--without-blobs", help="Leave large fields as they are.")] = False,
) -> None:
    """Put the resource store back from a copy, of whatever kind of store.  The platform must be stopped."""
    from api import blob_copies
    from api.cli.context import configuration, say
    from api.cli.exits import USAGE, Failure
    from api.cli.platform import record
    from api.errors import FailedPrecondition
    from api.store import backup as copies

    config = configuration()
    config.run_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    also = None if without_blobs else functools.partial(blob_copies.give_back, url=config.blobs_url)
    try:
        with record.lock(config.run_path):
            restored = copies.restore(file, config.store_address, _by_user(file), revision, replace=yes, also=also)
    except BlockingIOError:
        raise Failure("the platform runs: stop it with `ma down`, then restore") from None
    except FailedPrecondition as error:
        if error.reason == "STORE_NOT_EMPTY":
            told = f"{error.message}: `ma backup` it, then add --yes to replace it"
            raise Failure(told, code=USAGE) from None
        raise
    say(f"{restored.objects} objects as of revision {restored.revision}; the next revision is {restored.newest + 1}")


def _by_user(file: Path) -> Entry:
    """Return the audit record of a restore."""
    import getpass
    import time
    import uuid

    from api.audit import Entry

    return Entry(
        time_us=time.time_ns() // 1000,
        subject=f"user:{getpass.getuser()}",
        source="cli",
        verb="Restore",
        kind="Store",
        namespace="",
        name=file.name,
        request_id=str(uuid.uuid4()),
    )
