"""Some writes that tell what is about to happen and what was answered; refusals are told and taken.

python -m tests.robustness.faults.some_writes URL
"""

from __future__ import annotations

import asyncio
import sys

from api.errors import ApiError
from api.store.base import Store, Write
from api.store.open import open_store
from tests.robustness.stores import family

WRITES = 30
NAMES = 6


def tell(line: str) -> None:
    """Write a line at once."""
    print(line, flush=True)


async def write(store: Store) -> None:
    """Create and replace a few names.  A refused write leaves its name alone afterwards: its outcome is open."""
    revisions: dict[str, int] = {}
    open_ones: set[str] = set()
    for number in range(WRITES):
        name, token = f"n{number % NAMES}", f"t{number}"
        if name in open_ones:
            continue
        tell(f"? {name} {token}")
        try:
            item = family(name, token, size=2_000)
            expect = str(revisions[name]) if name in revisions else ""
            made = await (store.update(Write(item, expect)) if expect else store.create(Write(item)))
        except ApiError as error:
            tell(f"! {error.reason}")
            open_ones.add(name)
            continue
        revisions[name] = int(made.metadata.resourceVersion)
        tell(f"= {name} {token} {revisions[name]}")


async def main(url: str) -> None:
    """Open, write, close."""
    try:
        store = await open_store(url)
    except ApiError as error:
        tell(f"! {error.reason}")
        return
    await write(store)
    await store.close()
    tell(".")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
