"""Every effect has one audit record, every record one effect, though the server dies; tampers show (guarantee G16)."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from api.audit import Entry, Record, canonical, first_break, link, read
from api.store.open import open_store
from tests.robustness.callers import Caller, at_work
from tests.robustness.clients import shop
from tests.robustness.history.watch_rules import DELETED, Event
from tests.robustness.killed_server import KilledServer
from tests.robustness.lanes import lanes
from tests.robustness.results import told
from tests.robustness.stores import KIND, Place, log

CLIENTS = 8
PAGE = 1_000
RECORDS = 500
TAMPERS = 1_000
PASSES = (12, 40)
MUTATING = {"Create", "Update", "Delete"}


async def stored(url: str) -> tuple[list[Event], list[Record]]:
    """Return the change log and the audit log."""
    store = await open_store(url)
    try:
        records: list[Record] = []
        while more := await store.audit(len(records), PAGE):
            records += more
        return await log(store), records
    finally:
        await store.close()


def faults_of(changes: Sequence[Event], records: Sequence[Record]) -> list[str]:
    """Return the effects without their record, and the records without their effect."""
    faults = [] if first_break(records) is None else [f"the chain breaks at {first_break(records)}"]
    entries = [entry for record in records if (entry := read(record.body)).kind == KIND and entry.verb in MUTATING]
    told_of = Counter((entry.verb, entry.name, entry.after) for entry in entries if entry.outcome == "OK")
    happened = Counter(
        ("Delete", one.key, "")
        if one.type == DELETED
        else ("Create" if one.type == "ADDED" else "Update", one.key, str(one.revision))
        for one in changes
    )
    faults += [f"{effect} has {told_of[effect]} records" for effect in happened if told_of[effect] != happened[effect]]
    return faults + [f"{entry} is recorded, but did not happen" for entry in told_of if entry not in happened]


@pytest.mark.parametrize(("calls", "killed"), lanes(p=(400, 2), c=(10_000, 200)))
def test_every_effect_has_its_record_though_the_server_dies(
    place: Place, tmp_path: Path, calls: int, killed: int
) -> None:
    began, deaths, pick = time.monotonic(), 0, random.Random(calls)
    with KilledServer(tmp_path, environ={"MA_STORE_URL": place.url}) as server:
        connection = server.connect()
        shop(connection)
        connection.close()
        callers = [Caller(number, server.config.api_address, server.config.token) for number in range(CLIENTS)]
        with at_work(callers, calls // CLIENTS, lambda: deaths >= killed) as threads:
            while any(thread.is_alive() for thread in threads):
                # Between a commit and its answer: what is written after the commit is not written.
                if deaths == 0 or server.wait_for_death(0.05) is not None:
                    server.kill()
                    server.start(f"store.after_commit=kill@{pick.randint(*PASSES)}")
                    deaths += 1
    changes, records = asyncio.run(stored(place.url))
    faults = faults_of(changes, records)
    told(
        "G16",
        "every effect has one audit record, every record one effect",
        store=place.name,
        trials=len(changes),
        failed=len(faults),
        figures=f"{deaths} server deaths, {len(records):,} records, {time.monotonic() - began:.0f} s",
    )
    assert faults == []
    assert len(changes) > calls // 2
    assert deaths >= killed


def chained(count: int) -> list[Record]:
    """Return a log of some records."""
    head, found = bytes(32), []
    for number in range(1, count + 1):
        body = canonical(Entry(number, "me", "Create", KIND, "shop", f"n{number}", f"r{number}"))
        head = link(head, body)
        found.append(Record(number, body, head))
    return found


def tampered(records: Sequence[Record], pick: random.Random) -> list[Record]:
    """Return a log in which one bit, one record or the order of two is another."""
    found, place = list(records), pick.randrange(len(records) - 1)
    way = pick.choice(("bit", "cut", "double", "swap", "forge"))
    if way == "bit":
        body = bytearray(found[place].body)
        body[pick.randrange(len(body))] ^= 1 << pick.randrange(8)
        found[place] = replace(found[place], body=bytes(body))
    elif way == "cut":
        del found[place]
    elif way == "double":
        found.insert(place, found[place])
    elif way == "swap":
        found[place], found[place + 1] = found[place + 1], found[place]
    else:
        # With its own head and number right, as one would who knows the rule but cannot write all that follows.
        before = found[place - 1].head if place else bytes(32)
        forged = canonical(replace(read(found[place].body), subject="another"))
        found[place] = Record(found[place].number, forged, link(before, forged))
    return found


@pytest.mark.both
def test_every_tamper_of_the_log_shows() -> None:
    pick, records = random.Random(16), chained(RECORDS)
    assert first_break(records) is None
    unseen = sum(first_break(tampered(records, pick)) is None for _ in range(TAMPERS))
    told("G16", "a changed, cut, doubled, moved or forged record shows", trials=TAMPERS, failed=unseen)
    assert unseen == 0


def test_a_cut_tail_does_not_show_without_a_head_from_elsewhere() -> None:
    records = chained(RECORDS)
    assert first_break(records[:-1]) is None
    assert records[-2].head != records[-1].head
