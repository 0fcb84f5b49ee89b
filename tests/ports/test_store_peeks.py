"""What a store says of an object at once is what stands there now, whoever wrote it last; or it says nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from api.store.base import Preconditions, Store, Write
from api.store.sqlite import SqliteStore
from api.store.wal_index import LARGEST_KEPT, MOST_KEPT, NOTED, VERSION, Kept, WalIndex
from tests.patience import PATIENCE_S
from tests.ports.stores import Place, create, key, resource

ROUNDS = 200
# Another process: writes the object again for each line that it reads, and says what it wrote.
WRITER = """
import asyncio, pathlib, sys
from api.store.base import Write
from api.store.sqlite import SqliteStore
from tests.ports.stores import key

async def write():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    for line in sys.stdin:
        stored = await store.get(key("a"))
        stored.spec.description = line.strip()
        written = await store.update(Write(stored, stored.metadata.resourceVersion))
        print(written.metadata.resourceVersion, flush=True)
    await store.close()

asyncio.run(write())
"""


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "store.db")
    yield made
    await made.close()


def text_of(raw: bytes | None) -> str | None:
    if raw is None:
        return None
    found: Any = type(resource("a")).FromString(raw)
    return str(found.spec.description)


async def written(store: Store, made: Any, text: str) -> Any:
    made.spec.description = text
    return await store.update(Write(made, made.metadata.resourceVersion))


async def test_what_is_said_at_once_is_what_a_read_finds(place: Place) -> None:
    stores = [await place.open(), await place.open()]
    made = await create(stores[0], resource("a", text="0"))
    for number in range(10):
        for store in stores * 2:
            assert text_of(store.peek(key("a"))) in (None, str(number))
            assert store.peek(key("nobody")) is None
        made = await written(stores[number % 2], made, str(number + 1))
    await stores[0].delete(key("a"), Preconditions())
    assert [store.peek(key("a")) for store in stores] == [None, None]


async def test_an_unchanged_file_is_not_read_again(sqlite: SqliteStore) -> None:
    made = await create(sqlite, resource("a", text="0"))
    first = sqlite.peek(key("a"))
    assert text_of(first) == "0"
    assert sqlite.peek(key("a")) is first
    await create(sqlite, resource("b"))
    assert sqlite.peek(key("a")) is not first, "any commit could have been its own"
    await written(sqlite, made, "1")
    assert text_of(sqlite.peek(key("a"))) == "1"
    large = "x" * LARGEST_KEPT
    await create(sqlite, resource("large", text=large))
    assert text_of(sqlite.peek(key("large"))) == large
    assert sqlite.peek(key("large")) is not sqlite.peek(key("large"))


async def test_what_another_process_wrote_is_told_at_once(sqlite: SqliteStore, tmp_path: Path) -> None:
    await create(sqlite, resource("a", text="0"))
    command = [sys.executable, "-c", WRITER, str(tmp_path / "store.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:  # noqa: ASYNC220 - it is waited for on purpose
        assert writer.stdin is not None
        assert writer.stdout is not None
        for number in range(ROUNDS):
            before = sqlite.peek(key("a"))
            assert sqlite.peek(key("a")) is before
            writer.stdin.write(f"{number}\n")
            writer.stdin.flush()
            assert writer.stdout.readline().strip().isdigit()
            assert text_of(sqlite.peek(key("a"))) == str(number)
        writer.stdin.close()
        assert writer.wait(PATIENCE_S) == 0
    # The other's last act copied the log into the file, and nothing of this changed for anybody.
    assert text_of(sqlite.peek(key("a"))) == str(ROUNDS - 1)


async def test_nothing_older_than_what_was_acknowledged_is_said_while_others_write(sqlite: SqliteStore) -> None:
    made, acknowledged, over = await create(sqlite, resource("a", text="0")), [0], threading.Event()
    wrong: list[tuple[int, str | None]] = []
    looked = [0]

    def look() -> None:
        last = 0
        while not over.is_set():
            at_least, found = acknowledged[0], text_of(sqlite.peek(key("a")))
            looked[0] += 1
            if found is None or int(found) < max(at_least, last):
                wrong.append((at_least, found))
            last = int(found or 0)
            time.sleep(0)

    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(1, ROUNDS):
        made = await written(sqlite, made, str(number))
        acknowledged[0] = number
    over.set()
    await asyncio.to_thread(watcher.join, PATIENCE_S)
    assert wrong == []
    assert looked[0] > ROUNDS // 10


def locks_on(path: Path) -> int:
    """Return how many locks this process has on a file, as Linux tells it."""
    inode = os.stat(path).st_ino
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return sum(1 for _, _, _, _, pid, place, *_ in lines if int(pid) == os.getpid() and place.endswith(f":{inode}"))


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="Linux alone tells locks")
async def test_a_store_that_is_closed_takes_no_lock_of_another_on_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    first, second = SqliteStore(path), SqliteStore(path)
    shared = tmp_path / "store.db-shm"
    held = locks_on(shared)
    assert held > 0
    await second.close()
    assert locks_on(shared) == held
    third = SqliteStore(path)
    await first.close()
    assert locks_on(shared) == held
    await third.close()
    assert not shared.exists()
    last = SqliteStore(path)
    made = await create(last, resource("a", text="new"))
    assert text_of(last.peek(key("a"))) == "new"
    await written(last, made, "newer")
    assert text_of(last.peek(key("a"))) == "newer"
    await last.close()
    assert last.peek(key("a")) is None


class Noted(WalIndex):
    """What is noted, by heart: each look takes the next."""

    def __init__(self, *looks: bytes) -> None:
        self._looks = list(looks)

    def noted(self) -> bytes:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


def header(number: int, version: int = VERSION, initialized: int = 1) -> bytes:
    first = version.to_bytes(4, "little") + bytes(4) + number.to_bytes(4, "little") + bytes([initialized])
    return first.ljust(NOTED, b"\0")


def whole(number: int) -> bytes:
    return 2 * header(number)


@pytest.mark.parametrize(
    ("looks", "why"),
    [
        ([header(1) + header(2)], "a commit is being noted"),
        ([2 * header(1, version=VERSION + 1)], "the format is another"),
        ([2 * header(1, initialized=0)], "nothing is noted yet"),
        ([whole(1), whole(2)], "there was a commit while it was read"),
        ([whole(1), whole(1), whole(2)], "there was a commit since"),
    ],
)
def test_what_may_have_changed_is_not_kept(looks: Sequence[bytes], why: str) -> None:
    kept = Kept(Noted(*looks))
    kept.begin()
    kept.keep(key("a"), b"bytes")
    assert kept.find(key("a")) is None, why


def test_no_more_than_some_are_kept() -> None:
    kept = Kept(Noted(whole(1)))
    for number in range(3 * MOST_KEPT):
        kept.begin()
        kept.keep(key(f"f-{number}"), b"bytes")
        assert kept.find(key(f"f-{number}")) == b"bytes"
    assert len(kept._found) <= MOST_KEPT
