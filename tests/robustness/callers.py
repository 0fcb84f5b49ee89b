"""Clients that repeat each call under its own name until it is answered, and know what must have happened."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from api.kinds import kinds
from tests.robustness.clients import LOST
from tests.robustness.history.watch_rules import DELETED
from tests.robustness.killed_server import Connection
from tests.robustness.stores import KIND, PROJECT

NAMES = 6
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5
GIVE_UP_S = 60.0


@dataclass
class Caller:
    """Makes one call after the other and repeats each until it is answered.

    effects: the revision that each call was told, by its token; made: calls; again: repeats.
    """

    number: int
    address: str
    token: str
    effects: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    made: int = 0
    again: int = 0
    failed: BaseException | None = None

    def run(self, calls: int, enough: Callable[[], bool]) -> None:
        """Create, change and delete names of one's own: so many times, and until it is enough."""
        pick, connection = random.Random(self.number), Connection(self.address, self.token)
        try:
            while self.made < calls or not enough():
                connection = self._one(connection, pick, f"{self.number}-{self.made}")
                self.made += 1
        except BaseException as error:
            self.failed = error
        finally:
            connection.close()

    def _one(self, connection: Connection, pick: random.Random, token: str) -> Connection:
        name = f"n{self.number}-{pick.randrange(NAMES)}"
        if name in self.versions and pick.random() < 0.25:
            connection, _ = self._until_answered(connection, pick, "Delete", namespace=PROJECT, name=name)
            del self.versions[name]
            self.effects[f"{DELETED} {name}"] = self.effects.get(f"{DELETED} {name}", 0) + 1
            return connection
        item = kinds()[KIND].new(PROJECT, name)
        item.spec.name = token
        item.metadata.resourceVersion = self.versions.get(name, "")
        verb = "Update" if name in self.versions else "Create"
        connection, answer = self._until_answered(connection, pick, verb, model_family=item)
        assert answer.model_family.spec.name == token, "a repeated call has the answer of the first"
        self.versions[name] = answer.model_family.metadata.resourceVersion
        self.effects[token] = int(self.versions[name])
        return connection

    def _until_answered(
        self, connection: Connection, pick: random.Random, verb: str, **fields: Any
    ) -> tuple[Connection, Any]:
        named, pause_s, give_up = str(uuid.UUID(int=pick.getrandbits(128), version=4)), FIRST_PAUSE_S, time.monotonic()
        while True:
            try:
                return connection, connection.call(KIND, verb, request_id=named, **fields)
            except grpc.RpcError as error:
                lost: Any = error
                if lost.code() not in LOST or time.monotonic() - give_up > GIVE_UP_S:
                    raise
            connection.close()
            self.again += 1
            time.sleep(pick.uniform(0, pause_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            connection = Connection(self.address, self.token)


@contextmanager
def at_work(
    callers: Sequence[Caller], calls: int, enough: Callable[[], bool] = lambda: True
) -> Iterator[Sequence[threading.Thread]]:
    """Let each caller make so many calls, and more until it is enough; the block ends when all have.

    Raises what one of them raised.
    """
    over = threading.Event()
    threads = [threading.Thread(target=one.run, args=(calls, lambda: over.is_set() or enough())) for one in callers]
    for thread in threads:
        thread.start()
    try:
        yield threads
    except BaseException:
        # What would be enough does not come any more.
        over.set()
        raise
    finally:
        for thread in threads:
            thread.join()
    for caller in callers:
        if caller.failed is not None:
            raise caller.failed
