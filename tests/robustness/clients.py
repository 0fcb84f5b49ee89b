"""Clients that create, read, swap, delete and list names while servers die, and record what they saw."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from api.kinds import kinds
from tests.robustness.history.recorder import Recorder, Verb, answered, refused
from tests.robustness.killed_server import Connection
from tests.robustness.stores import KIND, PROJECT, token_of

REFUSED = {grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ABORTED}
LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
PAUSE_S = 0.05


@dataclass
class Client:
    """One client.  `connect`: gives a connection to any server; `known`: token and version by name, as last seen."""

    number: int
    connect: Callable[[], Connection]
    recorder: Recorder
    names: int
    seed: int = 0
    known: dict[str, tuple[str, int]] = field(default_factory=dict)
    written: int = 0
    failed: BaseException | None = None

    def run(self, operations: int) -> None:
        """Do some operations; on a broken connection go on with another one.  What else fails stands in `failed`."""
        try:
            self._run(operations)
        except BaseException as error:
            self.failed = error

    def _run(self, operations: int) -> None:
        pick = random.Random(f"{self.seed}-{self.number}")
        connection = self.connect()
        for _ in range(operations):
            try:
                self._one(connection, pick)
            except grpc.RpcError as error:
                lost: Any = error
                if lost.code() not in LOST:
                    raise
                connection.close()
                time.sleep(PAUSE_S * pick.random())
                connection = self.connect()
        connection.close()

    def _one(self, connection: Connection, pick: random.Random) -> None:
        name, roll = f"n{pick.randrange(self.names)}", pick.random()
        if roll < 0.03:
            self._list(connection)
        elif roll < 0.4:
            self._read(connection, name)
        elif name not in self.known:
            self._write(connection, name, Verb.CREATE)
        elif roll < 0.9:
            self._write(connection, name, Verb.SWAP)
        else:
            self._delete(connection, name)

    def _read(self, connection: Connection, name: str) -> None:
        with self.recorder.operation(self.number, Verb.READ, name) as one:
            try:
                found = connection.call(KIND, "Get", namespace=PROJECT, name=name).model_family
            except grpc.RpcError as error:
                missing: Any = error
                if missing.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                answered(one)
                self.known.pop(name, None)
                return
            self.known[name] = token_of(found), int(found.metadata.resourceVersion)
            answered(one, read=token_of(found), revision=self.known[name][1])

    def _write(self, connection: Connection, name: str, verb: Verb) -> None:
        self.written += 1
        token = f"{self.seed}-{self.number}-{self.written}"
        expected, version = self.known.get(name, ("", 0)) if verb is Verb.SWAP else ("", 0)
        item = kinds()[KIND].new(PROJECT, name)
        item.spec.name = token
        item.metadata.resourceVersion = str(version) if verb is Verb.SWAP else ""
        with self.recorder.operation(self.number, verb, name, wrote=token, expected=expected or None) as one:
            try:
                method = "Update" if verb is Verb.SWAP else "Create"
                made = connection.call(KIND, method, model_family=item).model_family
            except grpc.RpcError as error:
                met: Any = error
                if met.code() not in REFUSED:
                    self.known.pop(name, None)
                    raise
                refused(one)
                self.known.pop(name, None)
                return
            self.known[name] = token, int(made.metadata.resourceVersion)
            answered(one, revision=self.known[name][1])

    def _delete(self, connection: Connection, name: str) -> None:
        self.known.pop(name, None)
        with self.recorder.operation(self.number, Verb.DELETE, name) as one:
            try:
                connection.call(KIND, "Delete", namespace=PROJECT, name=name)
            except grpc.RpcError as error:
                met: Any = error
                if met.code() not in REFUSED:
                    raise
                refused(one)
                return
            answered(one)

    def _list(self, connection: Connection) -> None:
        sent_ns = time.monotonic_ns()
        page = connection.call(KIND, "List", namespace=PROJECT).model_family_list
        seen = {item.metadata.name: (token_of(item), int(item.metadata.resourceVersion)) for item in page.items}
        self.recorder.listing(self.number, sent_ns, int(page.metadata.resourceVersion), seen)


def shop(connection: Connection) -> None:
    """Create the project of all this."""
    connection.call("Project", "Create", project=kinds()["Project"].new(PROJECT, PROJECT))
