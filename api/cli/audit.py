"""Reads the audit log for `ma audit`: of a SQLite store by its file, of another through the store's own adapter."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from api import audit
from api.cli import audit_verifier, output
from api.cli.context import configuration, say
from api.cli.exits import OK, REFUSED, USAGE, Failure

BATCH = 1000
FORMS = ("table", "json", "jsonl")
COLUMNS = ("TIME", "SUBJECT", "VERB", "OBJECT", "OUTCOME", "REASON", "VERSIONS", "REQUEST")

Row = tuple[int, bytes, bytes]


def verify(file: Path | None, head: Path | None) -> int:
    """Check the chain and say what was found.  Returns the exit code."""
    with _readable():
        heads = audit_verifier.anchors(head) if head is not None else {}
        count, fault = audit_verifier.verify(_rows(file), heads)
    if fault:
        raise Failure(f"the audit log is broken: {count} records hold; {fault}", code=REFUSED)
    anchored = f"; anchored up to record {max(heads)}" if heads else "; give --head, or a cut tail would not show"
    say(f"{count} records hold{anchored}")
    return OK


def show(file: Path | None, wanted: Mapping[str, str], *, since: str, until: str, limit: int, form: str) -> None:
    """Print the newest records that match."""
    if form not in FORMS:
        raise Failure(f"unknown output {form!r}: use {', '.join(FORMS)}", code=USAGE)
    first, last = _time(since, "--since"), _time(until, "--until")
    kept: deque[tuple[Row, audit.Entry]] = deque(maxlen=limit or None)
    with _readable():
        for row in _rows(file):
            entry = audit.read(row[1])
            inside = (first is None or entry.time_us >= first) and (last is None or entry.time_us < last)
            if inside and all(getattr(entry, field) == value for field, value in wanted.items() if value):
                kept.append((row, entry))
    if form == "jsonl":
        for (number, body, head), _ in kept:
            say(json.dumps({"number": number, "body": body.decode(), "head": head.hex()}))
    elif form == "json":
        say(output.as_json([{"number": row[0], **json.loads(row[1])} for row, _ in kept]))
    else:
        output.table(COLUMNS, [_cells(entry) for _, entry in kept])


def _cells(entry: audit.Entry) -> list[str]:
    moment = datetime.fromtimestamp(entry.time_us / 1e6, UTC).isoformat(timespec="milliseconds")
    who = f"{entry.subject} by {entry.via}" if entry.via else entry.subject
    thing = "/".join(part for part in (entry.kind, entry.namespace, entry.name) if part)
    versions = f"{entry.before or '-'} > {entry.after or '-'}" if entry.before or entry.after else ""
    return [
        moment.replace("+00:00", "Z"),
        who,
        entry.verb,
        thing,
        entry.outcome,
        entry.reason,
        versions,
        entry.request_id,
    ]


def _time(text: str, option: str) -> int | None:
    if not text:
        return None
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise Failure(f"{option} {text!r} is no time: write 2026-11-21T10:00:00", code=USAGE) from None
    return int((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp() * 1e6)


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Failure(f"there is no {error.filename}: give a file, or start the platform once") from None
    except (ValueError, KeyError, TypeError, sqlite3.Error) as error:
        raise Failure(f"the audit log cannot be read: {error}") from None


def _rows(file: Path | None) -> Iterable[Row]:
    if file is not None:
        return audit_verifier.records(file)
    config = configuration()
    if config.store_address.startswith("sqlite:"):
        return audit_verifier.records(Path(config.store_address.removeprefix("sqlite:///")))
    return asyncio.run(_fetched(config.store_address))


async def _fetched(address: str) -> list[Row]:
    """Return every record of a store that is no file."""
    from api.store.open import open_store

    store = await open_store(address)
    found: list[Row] = []
    try:
        while records := await store.audit(len(found), BATCH):
            found += [(record.number, record.body, record.head) for record in records]
    finally:
        await store.close()
    return found
