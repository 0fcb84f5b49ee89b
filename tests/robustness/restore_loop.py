"""Restores a copy over another store and dies at its n-th step, for every n-th until it lives, and then at any time.

python -m tests.robustness.restore_loop URL FOLDER EVERY  prints what was found as JSON.  One process that forks.
A step is a file that is opened, renamed or removed, a statement to PostgreSQL, and each row that goes there.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from api.audit import Entry, first_break
from api.errors import FailedPrecondition
from api.store.backup import backup, restore
from api.store.base import Query, Store, Trail, Write
from api.store.open import open_store
from tests.robustness.crash_loop import in_child
from tests.robustness.stores import KIND, family

BY = Entry(time_us=1, subject="somebody", verb="Restore", kind="Store", namespace="", name="store.db", request_id="r")
OBJECTS = 6
TIMES = 100
STEPS = ("open", "os.rename", "os.link", "os.remove", "sqlite3.connect")
# The server forgets a killed restore a moment later.
GONE_S = 20.0
AGAIN_S = 0.05


def main() -> int:
    """Run as a program."""
    url, folder, every = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    copies = {name: folder / f"{name}.db" for name in ("former", "new")}
    places = {"former": url, "new": f"sqlite:///{folder}/other.db"}
    for name, copy in copies.items():
        in_child(lambda name=name: asyncio.run(fill(places[name], name)))  # type: ignore[misc]
        backup(places[name], copy)
    due = {name: in_child(lambda name=name: asyncio.run(seen(places[name])))["list"] for name in copies}  # type: ignore
    faults, kills, at = [], {"former": 0, "new": 0}, 1 - every
    lived, stands, took_s = False, list[str](), 0.0

    def look(when: str) -> list[str]:
        """Return which store stands there now, and make it the former one again."""
        found: Any = in_child(lambda: asyncio.run(seen(url)))
        stands = [name for name in due if due[name] == found["list"]]
        faults.extend([] if stands else [f"killed {when}: neither store is there"])
        faults.extend([f"killed {when}: {found['fault']}"] if found["fault"] else [])
        if stands != ["former"]:
            in_child(lambda: restore(copies["former"], url, BY, replace=True).objects)
        return stands

    while not lived:
        at, began = at + every, time.monotonic()
        lived = restore_and_die(copies["new"], url, functools.partial(_count, at))
        took_s = time.monotonic() - began
        stands = look(f"at step {at}")
        if stands and not lived:
            kills[stands[0]] += 1
    faults += [] if stands == ["new"] else ["a restore that nobody killed restored nothing"]
    pick = random.Random(at)
    for _ in range(TIMES // every):
        after_s = pick.uniform(0.0, took_s)
        # The signal ends the program as it is.
        if not restore_and_die(copies["new"], url, functools.partial(signal.setitimer, signal.ITIMER_REAL, after_s)):
            for name in look(f"after {after_s:.4f} s")[:1]:
                kills[name] += 1
        else:
            look("never")
    print(json.dumps({"kills": kills, "steps": at, "faults": faults}))
    return 1 if faults else 0


async def fill(url: str, name: str) -> None:
    """Make a store with objects of its own."""
    store = await open_store(url)
    for number in range(OBJECTS):
        await store.create(Write(family(f"{name}-{number}", name)), Trail(audit=BY))
    await store.close()


async def seen(url: str) -> dict[str, str]:
    """Return what stands for a list, and what is wrong with the store that shows it."""
    store = await _opened(url)
    items = (await store.list(KIND, Query())).items
    shown = hashlib.sha256(b"".join(item.SerializeToString(deterministic=True) for item in items)).hexdigest()
    fault = ""
    if first_break(await store.audit(0, 1000)) is not None:
        fault = "the audit chain is broken"
    # Writes something that no list shows.
    if await store.acquire("probe", "me", 1.0) is None:
        fault = "the store cannot be written to"
    await store.close()
    return {"list": shown, "fault": fault}


async def _opened(url: str) -> Store:
    deadline = time.monotonic() + GONE_S
    while True:
        try:
            return await open_store(url)
        except FailedPrecondition as error:
            if error.reason != "STORE_IS_RESTORED" or time.monotonic() > deadline:
                raise
        await asyncio.sleep(AGAIN_S)


def restore_and_die(copy: Path, url: str, prepare: Callable[[], object]) -> bool:
    """Restore in a child that `prepare` lets die at some moment; return whether it lived."""
    child = os.fork()
    if child == 0:
        try:
            prepare()
            restore(copy, url, BY, replace=True)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise RuntimeError("a restore failed that nobody killed")
    return not os.WIFSIGNALED(status)


def _count(at: int) -> None:
    """Kill this process before its `at`-th step."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            step()
            return real(*args, **kwargs)

        return call

    sys.addaudithook(lambda event, _: step() if event in STEPS else None)
    psycopg.Connection.execute = counted(psycopg.Connection.execute)  # type: ignore[method-assign]
    psycopg.Cursor.copy = counted(psycopg.Cursor.copy)  # type: ignore[method-assign]
    psycopg.Copy.write_row = counted(psycopg.Copy.write_row)  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
