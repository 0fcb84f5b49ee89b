"""Writes the head of the audit log to a file elsewhere, so that a cut tail shows (`guarantees.md` G16).

It follows the log from the head that it wrote last: a chain that is broken is told and never anchored.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from api.audit import GENESIS, Record, first_break
from api.errors import ApiError

EVERY_S = 60.0
BATCH = 1000

log = logging.getLogger(__name__)


class Log(Protocol):
    """An audit log."""

    async def audit(self, after: int, limit: int) -> Sequence[Record]:
        """Return audit records that follow number `after`, oldest first."""
        ...


class Anchor:
    """Appends a line a minute to `path`: {"number", "head", "time"}; none while nothing was recorded."""

    def __init__(self, log_: Log, path: Path) -> None:
        self._log = log_
        self._path = path
        self._number, self._head = 0, GENESIS

    async def run(self) -> None:
        """Anchor for ever."""
        while True:
            try:
                await self.write()
            except (ApiError, OSError) as error:
                log.error("the audit log's head is not anchored: %s", error)
            await asyncio.sleep(EVERY_S)

    async def write(self) -> bool:
        """Append the newest head; returns whether there was one to append and the chain up to it holds."""
        if not self._number:
            self._number, self._head = await asyncio.to_thread(_last, self._path)
        number, head = self._number, self._head
        while records := await self._log.audit(number, BATCH):
            broken = first_break(records, head, number)
            if broken is not None:
                log.error("the audit log is broken at record %d: run `ma audit verify`; no head is anchored", broken)
                return False
            number, head = records[-1].number, records[-1].head
        if number == self._number:
            return False
        await asyncio.to_thread(_append, self._path, number, head)
        self._number, self._head = number, head
        return True


def fault(path: Path) -> str | None:
    """Return why a file cannot be an anchor, None if it can."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            return None
    except OSError as error:
        return f"MA_AUDIT_ANCHOR {path} cannot be written: {error.strerror}"


def _last(path: Path) -> tuple[int, bytes]:
    """Return the number and the head that were anchored last; the beginning when nothing was."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return 0, GENESIS
    for line in reversed(lines):
        try:
            found = json.loads(line)
            return int(found["number"]), bytes.fromhex(found["head"])
        except (ValueError, KeyError, TypeError):
            # The end of a line that was cut when the machine stopped.
            continue
    return 0, GENESIS


def _append(path: Path, number: int, head: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = json.dumps({"number": number, "head": head.hex(), "time": now})
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        # The line break comes first: it ends whatever line a crash left half written.
        os.write(descriptor, f"\n{line}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
