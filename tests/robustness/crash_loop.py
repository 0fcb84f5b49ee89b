"""Writers that are killed in the middle of everything, and what is left.  One process that forks; loads no gRPC.

python -m tests.robustness.crash_loop URL KILLS SEED  prints what was found as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from api.store.base import Key, Preconditions, Store, Write
from api.store.open import open_store
from api.store.values import indexed
from tests.robustness.model.store_model import Held, replayed
from tests.robustness.stores import KIND, PROJECT, family, held, log

WRITERS = 4
NAMES = 8
MOST_WORDS = 30
LONGEST_S = 0.01
FRESH_EVERY = 25
GONE = ""


@dataclass
class Known:
    """What a writer told of one name: the last acknowledged token, and the one that it was about to write."""

    token: str = GONE
    revision: int = 0
    pending: str | None = None


@dataclass
class Report:
    """What a run found.  open: writes without an answer that had their effect."""

    kills: int = 0
    acknowledged: int = 0
    open: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


async def write(store: Store, number: int, seed: str, tell: Callable[[str], None]) -> None:
    """Create, replace and delete names of one's own for ever; tell what is about to happen, and what was answered."""
    pick = random.Random(f"{seed}-{number}")
    known = {name: found for name, found in (await held(store)).items() if name.startswith(f"n{number}-")}
    while True:
        name = f"n{number}-{pick.randrange(NAMES)}"
        token = f"{seed}.{number}.{pick.getrandbits(48):x}"
        if name in known and pick.random() < 0.15:
            tell(f"? {name} {GONE}")
            gone = await store.delete(Key(KIND, PROJECT, name), Preconditions())
            tell(f"= {name} {GONE} {gone.metadata.resourceVersion}")
            del known[name]
            continue
        tell(f"? {name} {token}")
        item = family(name, token, size=pick.randrange(1_000))
        if name in known:
            made = await store.update(Write(item, str(known[name].revision)))
        else:
            made = await store.create(Write(item))
        known[name] = Held(token, int(made.metadata.resourceVersion))
        tell(f"= {name} {token} {known[name].revision}")


async def writers(url: str, seed: str, tell: Callable[[str], None]) -> None:
    """Let some writers share a store until the process dies."""
    store = await open_store(url)
    await asyncio.gather(*(write(store, number, seed, tell) for number in range(WRITERS)))


def life(url: str, seed: str, words: int, last_s: float) -> list[str]:
    """Run writers in a child, kill it `last_s` after it told so many things, and return what it told."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            asyncio.run(writers(url, seed, lambda line: _tell(writer, line)))
        except BaseException as error:
            _tell(writer, f"! {type(error).__name__} {error}")
        os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as told:
        # Counted in words: a busy machine makes a life longer, not emptier.
        lines = [told.readline() for _ in range(words)]
        time.sleep(last_s)
        os.kill(child, signal.SIGKILL)
        lines += told.readlines()
    os.waitpid(child, 0)
    # The last line may have been cut.
    return [line.rstrip("\n") for line in lines if line.endswith("\n")]


def _tell(descriptor: int, line: str) -> None:
    os.write(descriptor, (line + "\n").encode())


def hear(lines: list[str], known: dict[str, Known]) -> int:
    """Take in what a child told; returns how many writes were acknowledged."""
    count = 0
    for line in lines:
        what, _, rest = line.partition(" ")
        if what == "!":
            raise RuntimeError(f"a writer failed: {rest}")
        name, _, rest = rest.partition(" ")
        token, _, revision = rest.partition(" ")
        one = known.setdefault(name, Known())
        if what == "?":
            one.pending = token
        else:
            one.token, one.pending, one.revision = token, None, int(revision)
            count += 1
    return count


async def left(url: str) -> tuple[dict[str, Held], list[str]]:
    """Return what a store holds after a crash, and how it contradicts its own log."""
    store = await open_store(url)
    try:
        found, faults = await held(store), []
        changes = await log(store)
        if [event.revision for event in changes] != list(range(1, await store.revision() + 1)):
            faults.append("a revision is missing in the change log")
        if replayed(changes) != found:
            faults.append("the change log does not lead to what is stored")
        return found, faults
    finally:
        await store.close()


def compare(known: dict[str, Known], found: dict[str, Held]) -> tuple[list[str], int]:
    """Return what was lost or came from nowhere, and how many open writes had their effect; they are known from now."""
    faults, effects = [], 0
    for name in sorted(known.keys() | found.keys()):
        one, stored = known.setdefault(name, Known()), found.get(name, Held(GONE, 0))
        if one.pending is not None and stored.token == one.pending and stored.token != one.token:
            effects += 1
        elif stored.token != one.token or (stored.token and stored.revision != one.revision):
            faults.append(f"{name}: {one} was told, {stored} is stored")
        one.token, one.revision, one.pending = stored.token, stored.revision, None
    return faults, effects


def in_child(work: Callable[[], object]) -> object:
    """Return what `work` returns, run in a child: this process stays without threads, so that it can fork."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as told:
            try:
                json.dump({"result": work()}, told)
            except BaseException as error:
                json.dump({"error": f"{type(error).__name__}: {error}"}, told)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        answer = json.load(told)
    os.waitpid(child, 0)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["result"]


def looked(url: str) -> tuple[dict[str, Held], list[str]]:
    """Return what `left` returns, from a child."""

    def work() -> object:
        found, faults = asyncio.run(left(url))
        return [{name: [one.token, one.revision] for name, one in found.items()}, faults]

    answer: object = in_child(work)
    assert isinstance(answer, list)
    return {name: Held(*one) for name, one in answer[0].items()}, answer[1]


def run(urls: Callable[[int], str], kills: int, seed: int) -> Report:
    """Kill writers `kills` times; `urls` gives the store of each life."""
    pick, report, began = random.Random(seed), Report(), time.monotonic()
    known: dict[str, Known] = {}
    last = ""
    # What is loaded at first use is loaded here, not in every child.
    indexed(family("warm", "up"))
    for number in range(kills):
        url = urls(number)
        if url != last:
            known, last = {}, url
        report.acknowledged += hear(
            life(url, f"{seed}.{number}", pick.randint(1, MOST_WORDS), pick.uniform(0, LONGEST_S)), known
        )
        found, faults = looked(url)
        lost, effects = compare(known, found)
        report.faults += [f"kill {number}: {fault}" for fault in faults + lost]
        report.open += effects
        report.kills += 1
    report.seconds = time.monotonic() - began
    return report


def main() -> int:
    """Run as a program."""
    url, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    several = "{}" in url
    report = run(lambda number: url.format(number // FRESH_EVERY) if several else url, kills, seed)
    print(json.dumps(asdict(report)))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
