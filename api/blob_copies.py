"""The large values that go with a copy of the resource store: those of a folder in the copy, those of S3 by name.

Nothing is copied whose bytes are not those of its name, and nothing of that is put back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from api.blob_files import Files, LocalFiles, RemoteFiles
from api.blobs import NAME
from api.errors import DataLoss, FailedPrecondition, Unavailable
from api.external import ANNOTATION, refs_of
from api.kinds import kinds
from api.store.backup_file import is_copy
from api.store.database import Database
from api.store.records import parse
from api.store.sqlite import SqliteDatabase

SECRET = ("access_key", "secret_key", "session_token")
SHOWN = 3
WAY_OUT = "`--without-blobs` leaves all large values out"


def keep(db: SqliteDatabase, url: str) -> None:
    """Put the values that a copy refers to into it, or the name of the store that has them.

    url: as in MA_BLOBS.  Raises DataLoss when one that an object refers to is gone or damaged.
    """
    needed, known = _by_objects(db), _by_changes(db)
    files, remote = _files(url), "://" in url
    if remote:
        lost = needed - _listed(files, needed)
        db.execute("UPDATE copied SET blobs = ?", (without_secrets(url),))
    else:
        lost = needed - {name for name in sorted(needed | known) if _copied(db, files, name)}
    if lost:
        told = f"values that objects refer to are gone from the blob store, or damaged: {_shown(sorted(lost))}"
        raise DataLoss(f"{told}; write those objects anew, or copy without values: {WAY_OUT}", reason="BLOB_MISSING")


def give_back(db: SqliteDatabase, url: str) -> None:
    """Write the values that the objects of a copy refer to, before the objects are there.

    Raises FailedPrecondition when one is neither in the copy nor in the blob store at `url`.
    """
    needed, files = _by_objects(db), _files(url)
    copied = is_copy(db)
    lacking = set(needed)
    for name in sorted(needed) if copied else ():
        row = db.execute("SELECT value FROM blob WHERE name = ?", (name,)).fetchone()
        if row is not None:
            if not _is_whole(name, row[0]):
                raise DataLoss(f"{name} in the copy is damaged: take another copy", reason="COPY_DAMAGED")
            _write(files, name, row[0])
            lacking.remove(name)
    lacking -= _listed(files, lacking)
    if lacking:
        (where,) = db.execute("SELECT blobs FROM copied").fetchone() if copied else ("",)
        told = f"the copy does not hold {_shown(sorted(lacking))}, and they are not in the blob store of MA_BLOBS"
        hint = f"set MA_BLOBS to {where}" if where else "set MA_BLOBS to the blob store they are in"
        raise FailedPrecondition(f"{told}: {hint}; {WAY_OUT}", reason="BLOB_MISSING")


def without_secrets(url: str) -> str:
    """Return a URL that may be shown and kept."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in SECRET]
    return parts._replace(netloc=host, query=urlencode(query)).geturl()


def _by_objects(db: Database) -> set[str]:
    """Return the names of what objects refer to."""
    return set(_names(db, "object", ("body",)))


def _by_changes(db: Database) -> set[str]:
    """Return the names of what the change log refers to: an object may be put back to any of its states."""
    columns = {name for (name,) in db.execute("SELECT name FROM pragma_table_info('change')").fetchall()}
    # The first release kept no state before a change.
    return set(_names(db, "change", [name for name in ("body", "previous") if name in columns]))


def _names(db: Database, table: str, columns: Sequence[str]) -> Iterator[str]:
    for kind in kinds().values():
        for column in columns if kind.external else ():
            found = db.execute(
                f"SELECT namespace, {column} FROM {table} WHERE kind = ? AND instr({column}, ?) > 0",  # noqa: S608
                (kind.name, ANNOTATION.encode()),
            )
            for namespace, body in found.fetchall():
                yield from (ref.name(namespace) for ref in refs_of(parse(kind.name, body)).values())


def _files(url: str) -> Files:
    return RemoteFiles(url) if "://" in url else LocalFiles(Path(url))


def _listed(files: Files, names: set[str]) -> set[str]:
    """Return those of `names` that are there."""
    try:
        return {found for folder in {name.partition("/")[0] for name in names} for found in files.names(folder)} & names
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise _away(error) from error


def _copied(db: Database, files: Files, name: str) -> bool:
    """Copy a value; False when it is gone or is not what was written."""
    try:
        value = files.read(name)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _away(error) from error
    if whole := _is_whole(name, value):
        db.execute("INSERT INTO blob VALUES (?, ?)", (name, value))
    return whole


def _write(files: Files, name: str, value: bytes) -> None:
    try:
        files.write(name, value)
    except OSError as error:
        raise _away(error) from error


def _is_whole(name: str, value: bytes) -> bool:
    match = NAME.match(name)
    return match is not None and hashlib.sha256(value).hexdigest() == match["digest"]


def _away(error: OSError) -> Unavailable:
    return Unavailable(f"the blob store does not answer: {type(error).__name__}; try again", reason="BLOBS_UNAVAILABLE")


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
