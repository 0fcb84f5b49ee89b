"""The threads of gRPC wait for a loop that has no rest, and for nobody else."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.patience import PATIENCE_S
from tests.robustness.killed_server import KilledServer

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux alone schedules threads so")

# A server of its own, so that there are threads; says how they and Python's are scheduled after each share.
PROGRAM = """
import asyncio, grpc, json, os, sys, threading
from api import unhurried
from api.unhurried import POLLER, THREADS, Unhurried

def policies():
    python = {one.native_id: POLLER in one.name for one in threading.enumerate()}
    found = {True: set(), False: set()}
    for thread in map(int, os.listdir(THREADS)):
        found[python.get(thread, True)].add(os.sched_getscheduler(thread))
    return [sorted(found[True]), sorted(found[False])]

async def main():
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    resting = threading.Event()
    threading.Thread(target=resting.wait).start()
    said, found = [], Unhurried()
    if sys.argv[1] == "shares":
        for share in (0.1, 0.6, 0.4, 0.2, 0.6):
            found.follow(share)
            said.append(policies())
    else:
        if sys.argv[1] == "batch":
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        unhurried.BUSY = unhurried.CALM = -1.0
        async with unhurried.unhurried():
            await asyncio.sleep(4 * unhurried.LOOK_S)
        said.append(policies())
    print(json.dumps(said))
    resting.set()
    await server.stop(0)

asyncio.run(main())
"""


def said(what: str) -> list[list[list[int]]]:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, what], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found: list[list[list[int]]] = json.loads(ended.stdout)
    return found


def test_they_are_batch_work_while_the_loop_is_busy_and_ordinary_before_and_after() -> None:
    ordinary, batch = [os.SCHED_OTHER], [os.SCHED_BATCH]
    assert said("shares") == [[theirs, ordinary] for theirs in (ordinary, batch, batch, ordinary, batch)]


def test_a_loop_is_followed_unless_its_process_was_given_another_policy() -> None:
    assert said("followed") == [[[os.SCHED_BATCH], [os.SCHED_OTHER]]]
    assert said("batch") == [[[os.SCHED_OTHER], [os.SCHED_OTHER, os.SCHED_BATCH]]]


@pytest.mark.robustness
@pytest.mark.alone
def test_a_flooded_server_holds_them_back_until_it_is_calm(tmp_path: Path) -> None:
    with KilledServer(tmp_path) as server:

        def policies() -> set[int]:
            return {os.sched_getscheduler(int(thread)) for thread in os.listdir(f"/proc/{server.pid}/task")}

        async def flood() -> bool:
            deadline = time.monotonic() + PATIENCE_S
            async with grpc.aio.insecure_channel(server.config.api_address) as channel:
                call: Any = channel.unary_unary("/michelangelo.api.v2.ModelFamilyService/GetModelFamily")

                async def ask() -> None:
                    while time.monotonic() < deadline and os.SCHED_BATCH not in policies():
                        for _ in range(50):
                            with pytest.raises(grpc.RpcError):
                                await call(b"")

                await asyncio.gather(*(ask() for _ in range(32)))
            return os.SCHED_BATCH in policies()

        assert policies() == {os.SCHED_OTHER}
        assert asyncio.run(flood())
        deadline = time.monotonic() + PATIENCE_S
        while policies() != {os.SCHED_OTHER}:
            assert time.monotonic() < deadline
            time.sleep(0.1)
