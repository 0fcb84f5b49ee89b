"""Writes to a store on a small volume until it is full, again and again; a program for a namespace of mounts.

    python -m tests.robustness.full_disk_loop <folder> <times> <seed>

Prints what went wrong, a line each.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from api.errors import ResourceExhausted
from api.store.base import Key, Preconditions, Write
from api.store.sqlite import BALLAST_BYTES, SqliteStore, ballast_path
from tests.robustness.faults.fulldisk import Filler, mount
from tests.robustness.model.store_model import Held, replayed
from tests.robustness.stores import KIND, PROJECT, family, held, log

VOLUME_KIB = (BALLAST_BYTES >> 10) + 8_192
MOST_LEFT = 400_000
OBJECT_BYTES = 20_000
WRITES = 60


async def fill(folder: Path, number: int, leave: int) -> list[str]:
    """Write until the disk is full, then do what must still work, then free it; returns what went wrong."""
    faults: list[str] = []
    path, filler = folder / f"store-{number}.db", Filler(folder)
    store = SqliteStore(path)
    acknowledged: dict[str, Held] = {}
    refusals = 0
    try:
        filler.fill(leave)
        for count in range(WRITES):
            try:
                made = await store.create(Write(family(f"n{count}", f"t{count}", size=OBJECT_BYTES)))
                acknowledged[f"n{count}"] = Held(f"t{count}", int(made.metadata.resourceVersion))
            except ResourceExhausted as error:
                refusals += 1
                if error.reason != "DISK_FULL" or "volume" not in error.message:
                    faults.append(f"the refusal says {error.reason}: {error.message}")
                # The ballast was given back: take that too, so that the disk stays full.
                if refusals == 1:
                    name = next(iter(acknowledged), "")
                    if name:
                        await store.delete(Key(KIND, PROJECT, name), Preconditions())
                        del acknowledged[name]
                    if await store.acquire("lease", "me", 1.0) is None:
                        faults.append("the lease cannot be taken")
                    filler.fill()
        if not refusals:
            faults.append("the disk was never full")
        if await held(store) != acknowledged:
            faults.append("what can be read is not what was acknowledged")
        filler.free()
        made = await store.create(Write(family("afterwards", "x", size=OBJECT_BYTES)))
        acknowledged["afterwards"] = Held("x", int(made.metadata.resourceVersion))
        await store.close()
        store = SqliteStore(path)
        if await held(store) != acknowledged or replayed(await log(store)) != acknowledged:
            faults.append("after a restart it is not what was acknowledged")
    finally:
        await store.close()
        filler.free()
        for left in path, ballast_path(path), path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm"):
            left.unlink(missing_ok=True)
    return [f"{leave} bytes left: {fault}" for fault in faults]


def main(folder: Path, points: int, seed: int) -> None:
    """Fill the volume so often, each time with another rest of it left."""
    pick = random.Random(seed)
    mount(folder, VOLUME_KIB)
    for number in range(points):
        for fault in asyncio.run(fill(folder, number, pick.randrange(4_096, MOST_LEFT))):
            print(fault, flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
