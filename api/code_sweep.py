"""Removes packed code that no pipeline, revision, draft or run of its project names any more.

A file that is found unused is noted; it is removed when it is still so after the grace period, and nobody has asked for
it in that time (`api.uploads`).  What somebody asks for while it goes is put back: he notes it before he looks.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Any

from api.code_store import UNUSED, WANTED, CodeStore
from api.errors import Unavailable
from api.resources import Resources
from api.sweeps import for_ever

GRACE_DAYS = 3
FIRST_S = 900.0
# Files that are held in memory while they go.
MOST_AT_ONCE = 8
KINDS = ("Pipeline", "Revision", "Draft", "PipelineRun")
FILE = re.compile(r"(?P<project>[^/A-Z]+)/(?P<digest>[0-9a-f]{64})\.(?:tar|diff)\Z")
NOTE = re.compile(rf"(?P<mark>{WANTED}|{UNUSED})/(?P<day>[0-9]{{1,9}})/(?P<name>.+)\Z")
NAMED = re.compile(rb"/code/(?P<name>[^/]+/[0-9a-f]{64}\.(?:tar|diff))")


class CodeSweeper:
    """Looks four times a day; the leader runs it.  `grace_days`: how long code stays after it was last needed."""

    def __init__(self, resources: Resources, store: CodeStore, *, grace_days: int = GRACE_DAYS) -> None:
        self._resources = resources
        self._store = store
        self._grace_days = grace_days

    async def run(self) -> None:
        """Sweep for ever."""
        await for_ever(self.sweep, "files of code", FIRST_S)

    async def sweep(self) -> int:
        """Note what is unused, remove what was noted long enough ago; return how many files were removed."""
        names = await self._do(self._store.names)
        before = self._store.today() - self._grace_days
        noted, wanted = _notes(names, UNUSED), _notes(names, WANTED)
        old = {name for name in names if FILE.match(name) and wanted.get(name, before - 1) < before}
        unused = old - await self._used(old)
        for name in unused - noted.keys():
            await self._do(self._store.note, UNUSED, name)
        due = sorted(name for name in unused & noted.keys() if noted[name] < before)
        removed = 0
        for first in range(0, len(due), MOST_AT_ONCE):
            removed += await self._remove(due[first : first + MOST_AT_ONCE])
        still = unused - set(due)
        for name in names:
            note = NOTE.match(name)
            if note and (int(note["day"]) < before if note["mark"] == WANTED else note["name"] not in still):
                await self._do(self._store.remove, name)
        return removed

    async def _remove(self, names: Iterable[str]) -> int:
        """Remove files, and put back what somebody has come to want or use meanwhile; return how many are gone."""
        held: dict[str, bytes] = {}
        for name in names:
            held[name] = await self._do(self._store.read, name)
            await self._do(self._store.remove, name)
        wanted = _notes(await self._do(self._store.names, WANTED), WANTED)
        back = held.keys() & (wanted.keys() | await self._used(held))
        for name in back:
            await self._do(self._store.write, name, held[name])
        return len(held) - len(back)

    async def _used(self, names: Iterable[str]) -> set[str]:
        """Return the files that objects of their projects name."""
        used: set[str] = set()
        for project in {name.partition("/")[0] for name in names}:
            for kind in KINDS:
                async for item in self._resources.each(kind, project):
                    used |= {found["name"].decode() for found in NAMED.finditer(item.SerializeToString())}
        return used

    @staticmethod
    async def _do(work: Any, *given: Any) -> Any:
        try:
            return await asyncio.to_thread(work, *given)
        except OSError as error:
            raise Unavailable(f"the artifact store does not answer: {type(error).__name__}") from error


def _notes(names: Iterable[str], mark: str) -> Mapping[str, int]:
    """Return the last day of each file's notes of one mark."""
    found: dict[str, int] = {}
    for name in names:
        if (note := NOTE.match(name)) and note["mark"] == mark:
            found[note["name"]] = max(int(note["day"]), found.get(note["name"], 0))
    return found
