"""Checks an audit log on its own: run it with any Python, away from the platform.  It imports nothing of it.

    python audit_verifier.py store.db [--head anchor.jsonl]
    python audit_verifier.py records.jsonl [--head anchor.jsonl]

The log is the SQLite file of the resource store, opened read-only, or lines of JSON as `ma audit list -o jsonl` writes
them: {"number", "body", "head"}, body as text, head in hex.  head_i is SHA-256 of head_{i-1} and body_i; head_0 is 32
zero bytes.  The anchor has lines {"number", "head"}: heads that were written elsewhere while the log grew.
Exit status: 0 whole, 1 broken, 2 not readable.
"""

import argparse
import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

Row = tuple[int, bytes, bytes]


def records(path: Path) -> Iterator[Row]:
    """Yield number, body and head of every record, oldest first.  Raises OSError, ValueError, sqlite3.Error."""
    with path.open("rb") as file:
        is_sqlite = file.read(16) == b"SQLite format 3\0"
    if not is_sqlite:
        with path.open(encoding="utf-8") as lines:
            for line in filter(str.strip, lines):
                found = json.loads(line)
                yield int(found["number"]), str(found["body"]).encode(), bytes.fromhex(found["head"])
        return
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        yield from database.execute("SELECT number, CAST(body AS BLOB), CAST(head AS BLOB) FROM audit ORDER BY number")
    finally:
        database.close()


def anchors(path: Path) -> dict[int, bytes]:
    """Return the anchored heads by number; a line that was cut by a crash is no anchor.  Raises OSError, ValueError."""
    found = {}
    for line in filter(str.strip, path.read_text("utf-8").splitlines()):
        try:
            one = json.loads(line)
        except ValueError:
            continue
        found[int(one["number"])] = bytes.fromhex(one["head"])
    if not found:
        raise ValueError("no head is anchored in it")
    return found


def verify(rows: Iterable[Row], heads: dict[int, bytes]) -> tuple[int, str]:
    """Return how many records hold and what is wrong with the next one, empty if nothing is."""
    number, head = 0, bytes(32)
    for found, body, told in rows:
        if found != number + 1:
            return number, f"record {number + 1} is missing: {found} follows {number}"
        expected = hashlib.sha256(head + body).digest()
        if bytes(told) != expected:
            return number, f"record {found} was changed, or does not follow the one before it"
        number, head = found, expected
        if heads.get(number, head) != head:
            return number - 1, f"record {number} has another head than was anchored: the log was written anew"
    missing = max(heads, default=0)
    if missing > number:
        return number, f"the log ends at record {number}, and record {missing} was anchored: its tail was cut off"
    return number, ""


def main(arguments: list[str] | None = None) -> int:
    """Verify a log and say what was found; returns the exit status."""
    parser = argparse.ArgumentParser(description="Check the chain of an audit log.")
    parser.add_argument("log", type=Path)
    parser.add_argument("--head", type=Path, help="file of anchored heads")
    given = parser.parse_args(arguments)
    try:
        heads = anchors(given.head) if given.head else {}
        count, fault = verify(records(given.log), heads)
    except (OSError, ValueError, KeyError, TypeError, sqlite3.Error) as error:
        print(f"cannot be read: {error}", file=sys.stderr)
        return 2
    if fault:
        print(f"BROKEN: {count} records hold; {fault}")
        return 1
    anchored = f"; anchored up to record {max(heads)}" if heads else "; without an anchor a cut tail would not show"
    print(f"{count} records hold{anchored}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
