"""No acknowledged write is lost and nothing is half-written when the API server is killed at random (guarantee G1)."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.kinds import kinds
from tests.robustness.killed_server import Connection, KilledServer
from tests.robustness.lanes import lanes
from tests.robustness.results import told

WRITERS = 4
PROJECT = "shop"
KIND = "ModelFamily"
GONE = None


@dataclass(frozen=True)
class State:
    """What an object is: its version and its text."""

    version: int
    text: str


@dataclass
class Name:
    """What is known of one name.  `acknowledged`: the last answer; `open_to`: the text of a write without an answer."""

    acknowledged: State | None = GONE
    pending: bool = False
    open_to: str | None = GONE

    def allows(self, found: State | None) -> bool:
        """Whether the store may hold `found`."""
        if found == self.acknowledged:
            return True
        return self.pending and (found.text if found else None) == self.open_to


@dataclass
class Writer:
    """Creates, changes and deletes names of its own, one call after the other, until the server is gone."""

    number: int
    names: dict[str, Name] = field(default_factory=dict)
    acknowledged: int = 0
    newest: int = 0

    def write(self, connection: Connection, seed: int) -> None:
        pick = random.Random(f"{self.number}-{seed}")
        try:
            while True:
                self._one(connection, f"w{self.number}-{pick.randrange(12)}", pick)
        except grpc.RpcError as error:
            # The server was killed: whether the last call had an effect is open.
            ended: Any = error
            if ended.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise
        finally:
            connection.close()

    def _one(self, connection: Connection, called: str, pick: random.Random) -> None:
        name = self.names.setdefault(called, Name())
        known, text = name.acknowledged, f"{pick.random():.9f} " + "x" * pick.randrange(2_000)
        remove = known is not None and pick.random() < 0.2
        name.pending, name.open_to = True, None if remove else text
        if known is not None and remove:
            connection.call(KIND, "Delete", namespace=PROJECT, name=called)
            name.acknowledged = GONE
        else:
            made = kinds()[KIND].new(PROJECT, called)
            made.spec.description = text
            made.metadata.labels["text"] = text[:11]
            made.metadata.resourceVersion = str(known.version) if known else ""
            answer = connection.call(KIND, "Update" if known else "Create", model_family=made).model_family
            name.acknowledged = State(int(answer.metadata.resourceVersion), answer.spec.description)
            assert name.acknowledged.version > self.newest, "revisions only grow"
            self.newest = name.acknowledged.version
        name.pending = False
        self.acknowledged += 1


def stored(path: Path) -> dict[str, Any]:
    """Return the objects, after the store has been compared with its own record of changes."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        db.execute("BEGIN")
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        (counter,) = db.execute("SELECT revision FROM counter").fetchone()
        changes = db.execute(
            "SELECT revision, name, type, body FROM change WHERE kind = ? ORDER BY 1", (KIND,)
        ).fetchall()
        revisions = [row[0] for row in db.execute("SELECT revision FROM change ORDER BY revision")]
        rows = db.execute("SELECT id, name, revision, uid, body FROM object WHERE kind = ?", (KIND,)).fetchall()
        labels = db.execute("SELECT object, key, value FROM label WHERE kind = ?", (KIND,)).fetchall()
    assert revisions == list(range(1, counter + 1)), "each revision is one change"
    replayed: dict[str, bytes] = {}
    written: dict[str, int] = {}
    for _, name, change, body in changes:
        written[name] = 1 if change == "ADDED" else written.get(name, 0) + 1
        if change == "DELETED":
            del replayed[name]
        else:
            replayed[name] = body
    assert {name: body for _, name, _, _, body in rows} == replayed, "the changes lead to what is stored"
    found: dict[str, Any] = {}
    for row, name, revision, uid, body in rows:
        item = kinds()[KIND].message.FromString(body)
        assert (item.metadata.name, item.metadata.uid, item.metadata.resourceVersion) == (name, uid, str(revision))
        assert item.metadata.generation == written[name]
        assert item.metadata.labels["text"] == item.spec.description[:11]
        assert dict(item.metadata.labels) == {key: value for of, key, value in labels if of == row}
        found[name] = item
    return found


def compare(writers: list[Writer], found: dict[str, Any]) -> None:
    """Hold what is stored against what was acknowledged; what was open is known from now on."""
    for writer in writers:
        for called, name in writer.names.items():
            item = found.pop(called, None)
            state = State(int(item.metadata.resourceVersion), item.spec.description) if item is not None else GONE
            assert name.allows(state), f"{called}: {name} but {state}"
            name.acknowledged, name.pending = state, False
    assert not found, "nobody wrote these"


@pytest.mark.parametrize("kills", lanes(p=10, c=300))
def test_every_acknowledged_write_survives_kill_9(tmp_path: Path, kills: int) -> None:
    pick, writers = random.Random(20261121), [Writer(number) for number in range(WRITERS)]
    with KilledServer(tmp_path) as server:
        connection = server.connect()
        connection.call("Project", "Create", project=kinds()["Project"].new(PROJECT, PROJECT))
        connection.close()
        for life in range(kills):
            threads = [threading.Thread(target=one.write, args=(server.connect(), life)) for one in writers]
            for thread in threads:
                thread.start()
            time.sleep(pick.uniform(0.02, 0.4))
            server.kill()
            for thread in threads:
                thread.join()
            server.start()
            found = stored(server.config.store_path)
            listed = server.connect()
            page = listed.call(KIND, "List", namespace=PROJECT).model_family_list
            assert {item.metadata.name: item for item in page.items} == found
            listed.close()
            compare(writers, found)
    acknowledged = sum(writer.acknowledged for writer in writers)
    told(
        "G1",
        "acknowledged writes survive kill -9 of the API server",
        store="SQLite",
        trials=kills,
        figures=f"{acknowledged:,} acknowledged",
    )
    assert acknowledged > kills * WRITERS


def test_a_kill_leaves_an_owner_with_all_it_owns_or_nothing(tmp_path: Path) -> None:
    pick = random.Random(8)
    with KilledServer(tmp_path) as server:
        connection = server.connect()
        connection.call("Project", "Create", project=kinds()["Project"].new(PROJECT, PROJECT))
        for life in range(5):
            owners = [family(connection, life, number) for number in range(6)]
            deleting = threading.Thread(target=delete_all, args=(connection, owners))
            deleting.start()
            time.sleep(pick.uniform(0.0, 0.01))
            server.kill()
            deleting.join()
            connection.close()
            server.start()
            left = {name.rsplit("-child", 1)[0]: 0 for name in stored_names(server)}
            for name in stored_names(server):
                left[name.rsplit("-child", 1)[0]] += 1
            assert set(left.values()) <= {21}
            connection = server.connect()
        connection.close()


def family(connection: Connection, life: int, number: int) -> str:
    """Create an owner with twenty that it owns and return its name."""
    name = f"owner-{life}-{number}"
    owner = connection.call(KIND, "Create", model_family=kinds()[KIND].new(PROJECT, name)).model_family
    for position in range(20):
        made = kinds()[KIND].new(PROJECT, f"{name}-child-{position}")
        made.metadata.ownerReferences.add(kind=KIND, name=name, uid=owner.metadata.uid)
        connection.call(KIND, "Create", model_family=made)
    return name


def delete_all(connection: Connection, names: list[str]) -> None:
    try:
        for name in names:
            connection.call(KIND, "Delete", namespace=PROJECT, name=name)
    except grpc.RpcError:
        return


def stored_names(server: KilledServer) -> set[str]:
    connection = server.connect()
    page = connection.call(KIND, "List", namespace=PROJECT).model_family_list
    connection.close()
    return {item.metadata.name for item in page.items}
