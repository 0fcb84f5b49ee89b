"""A server of an older commit and the present one work on one store, for the time of a rollout (guarantee G21).

The older one is the oldest commit of this repository whose tables are the present ones: stores of releases are
`golden/`, and there is no second release yet.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.robustness.clients import Client, shop
from tests.robustness.faults.killer import Killer
from tests.robustness.history.recorder import Recorder
from tests.robustness.history.watch_rules import Logged, expected, judged, missing
from tests.robustness.killed_server import KilledServer
from tests.robustness.results import told
from tests.robustness.stores import Place
from tests.robustness.test_linearizable import faults_of, stored
from tests.robustness.test_watch_with_kills import Public, watch_all
from tests.robustness.watchers import Watcher

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("api/store/schema.py", "api/store/migrations/versions")
LOAD_S = 60.0
CLIENTS = 4
NAMES = 40
WATCHERS = 6
AT_ONCE = 50
BETWEEN_KILLS_S = (4.0, 8.0)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The older commit and its code in a folder."""
    found = _git("log", "-1", "--format=%H", "--", *TABLES).decode().strip()
    if not found or found == _git("rev-parse", "HEAD").decode().strip():
        pytest.skip("the history of this checkout has no older commit with the present tables")
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=io.BytesIO(_git("archive", found, "api"))) as archive:
        archive.extractall(folder, filter="data")
    return found[:7], folder


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no checkout of the repository")


def load(servers: list[KilledServer], until: float) -> Recorder:
    """Let clients work through both servers until a time; what a client could not do is raised."""
    recorder, pick = Recorder(), random.Random(21)
    clients = [
        Client(number, lambda: pick.choice(servers).connect(), recorder, NAMES, seed=21) for number in range(CLIENTS)
    ]

    def work(client: Client) -> None:
        while time.monotonic() < until and client.failed is None:
            client.run(AT_ONCE)

    threads = [threading.Thread(target=work, args=(one,)) for one in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in clients:
        if client.failed is not None:
            raise client.failed
    return recorder


@pytest.mark.robustness
def test_an_older_server_and_the_present_one_share_a_store(
    place: Place, older: tuple[str, Path], tmp_path: Path
) -> None:
    commit, code = older
    watchers = [Watcher(number, leaves_s=0.5 if number % 3 == 0 else 0.0) for number in range(WATCHERS)]
    final, failed, known = list[int](), list[BaseException](), {"MA_STORE_URL": place.url}
    with ExitStack() as stack:
        # The older one made the store, the present one joins it; both come back from kills while the other writes.
        before = {**known, "PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
        assert runs_from(before) == code
        assert runs_from(known) == ROOT
        servers = [stack.enter_context(KilledServer(tmp_path, called="older", environ=before))]
        connection = servers[0].connect()
        shop(connection)
        servers.append(stack.enter_context(KilledServer(tmp_path, called="present", environ=known)))

        def watch() -> None:
            try:
                asyncio.run(watch_all(watchers, Public(servers), final))
            except BaseException as error:
                failed.append(error)

        def strike(pick: random.Random) -> None:
            server = pick.choice(servers)
            server.kill()
            server.start()

        watching = threading.Thread(target=watch)
        watching.start()
        killer = Killer(strike, between_s=BETWEEN_KILLS_S, seed=21)
        try:
            with killer.about():
                recorder = load(servers, time.monotonic() + LOAD_S)
        finally:
            changes, found = asyncio.run(stored(place.url))
            final.append(changes[-1].revision if changes else 0)
            watching.join()
        connection.close()
    if failed:
        raise failed[0]
    faults = faults_of(recorder, changes, found)
    due = expected([Logged(event) for event in changes])
    faults += [f"watcher {one.number}: {fault}" for one in watchers for fault in judged(due, one.sessions)]
    faults += [
        f"watcher {one.number} never saw {e}" for one in watchers for e in missing(due, one.sessions, 0, final[0])
    ]
    told(
        "G21",
        "an older server and the present one keep G3 and G5 together",
        store=place.name,
        trials=len(recorder.operations) + sum(len(session.events) for one in watchers for session in one.sessions),
        failed=len(faults),
        figures=f"commit {commit}, {LOAD_S:.0f} s, {len(recorder.operations):,} operations, {len(changes):,} changes, "
        f"{WATCHERS} watchers, {killer.strikes} server kills",
    )
    assert faults[:10] == []
    assert killer.strikes


def runs_from(environ: Mapping[str, str]) -> Path:
    """Return where a server with these variables has its code."""
    asked = [sys.executable, "-c", "import api; print(api.__file__)"]
    found = subprocess.run(asked, env={**os.environ, **environ}, cwd=ROOT, capture_output=True, text=True, check=True)
    return Path(found.stdout.strip()).parents[1]
