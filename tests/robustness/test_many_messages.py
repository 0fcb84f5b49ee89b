"""A hundred thousand messages, most of them broken: none is an internal error, and the connection stays usable."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.kinds import kinds
from api.operations import VERBS, Operation
from tests.api.running import Served, request_of
from tests.robustness.lanes import lanes
from tests.robustness.random_messages import Maker
from tests.robustness.results import told

BAD = {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "DATA_LOSS", "UNIMPLEMENTED"}
AT_ONCE = 32
PROJECT = "fuzzed"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "store.db")
    made.create(kinds()["Project"].new(PROJECT, PROJECT))
    logging.disable(logging.INFO)
    yield made
    logging.disable(logging.NOTSET)
    made.close()


def broken(raw: bytes, pick: random.Random) -> bytes:
    """Return bytes with some of them changed, cut off, doubled or made up."""
    content = bytearray(raw)
    for _ in range(pick.randrange(4)):
        way, place = pick.randrange(5), pick.randrange(len(content) + 1)
        if way == 0 and content:
            content[place % len(content)] ^= 1 << pick.randrange(8)
        elif way == 1:
            del content[place:]
        elif way == 2:
            content[place:place] = pick.randbytes(pick.randrange(1, 9))
        elif way == 3:
            content += content[place : place + 64]
        else:
            content[place:place] = b"\xff\xff\xff\xff\x0f"
    return bytes(content)


def messages(count: int, seed: int) -> Iterator[tuple[Operation, bytes]]:
    """Yield methods and what to send to them."""
    maker, pick = Maker(seed), random.Random(seed)
    asked = list(itertools.product(kinds().values(), VERBS))
    for number in range(count):
        kind, verb = pick.choice(asked)
        # A project that is deleted with all that is in it would leave little to try.
        if verb == "DeleteCollection" or (kind.name == "Project" and verb == "Delete"):
            verb = "List"
        request = maker.fill(request_of(kind.name, verb), pick.choice((0.05, 0.2, 0.5)))
        raw = request.SerializeToString() if number % 10 else pick.randbytes(pick.randrange(200))
        yield Operation(kind, verb), broken(raw, pick)


@pytest.mark.parametrize("count", lanes(p=5_000, c=100_000))
def test_no_message_is_an_internal_error(served: Served, count: int) -> None:
    began, outcomes, faults = time.monotonic(), Counter[str](), list[str]()
    waiting: list[tuple[Operation, bytes, Any]] = []
    methods: dict[str, Any] = {}

    def heard(operation: Operation, raw: bytes, answer: Any) -> None:
        try:
            answer.result()
            outcomes["OK"] += 1
        except grpc.RpcError as error:
            refused: Any = error
            code = refused.code().name
            outcomes[code] += 1
            if code in BAD:
                faults.append(f"{operation.path}: {code} {refused.details()} for {raw.hex()[:400]}")

    for operation, raw in messages(count, seed=count):
        path = operation.path
        if path not in methods:
            methods[path] = served.channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        waiting.append((operation, raw, methods[path].future(raw, timeout=20)))
        if len(waiting) >= AT_ONCE:
            heard(*waiting.pop(0))
    for one in waiting:
        heard(*one)
    assert served.get("Project", PROJECT, PROJECT).metadata.name == PROJECT
    told(
        "G18",
        "no message is an internal error, and the connection stays usable",
        trials=count,
        failed=len(faults),
        figures=f"{dict(outcomes.most_common())}, {time.monotonic() - began:.0f} s",
    )
    assert faults[:5] == []
    assert outcomes["OK"]
    assert outcomes["INVALID_ARGUMENT"]
