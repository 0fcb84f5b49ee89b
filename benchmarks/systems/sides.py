"""What a benchmark asks of each server of resources: our model families, MLflow's registered models, 1 KB each."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.systems import store_fill
from benchmarks.systems.control_planes import Keeping
from benchmarks.systems.keepalive import KeptAlive, get, post, throughput
from benchmarks.systems.servers import TOKEN

CALLS = 300
PEER_CALLS = 60
CONNECTIONS = 32
BUSY_S = 2.0
PROJECT = "bench"
FAMILIES = f"/apis/michelangelo.api/v2/namespaces/{PROJECT}/modelfamilies"
MLFLOW = "/api/2.0/mlflow/registered-models"
AUTH = (("Authorization", f"Bearer {TOKEN}"),)


@dataclass(frozen=True)
class Side:
    """Calls on one server: each returns the milliseconds of every one of its calls, or calls a second."""

    create: Callable[[], list[float]]
    get: Callable[[], list[float]]
    busy: Callable[[], float]


def ours(server: Keeping) -> Side:
    """Return the calls on our server by HTTP."""
    first = named(server)
    return Side(
        create=lambda: _timed(server.http, _creates(CALLS)),
        get=lambda: _timed(server.http, itertools.repeat(get(f"{FAMILIES}/{first}", AUTH), CALLS)),
        busy=lambda: throughput(
            server.http, [get(f"{FAMILIES}/{first}", AUTH)], connections=CONNECTIONS, seconds=BUSY_S
        ),
    )


def named(server: Keeping) -> str:
    """Create one object and return its name."""
    name = f"known-{secrets.token_hex(4)}"
    with contextlib.closing(KeptAlive(server.http)) as connection:
        connection.ask(post(FAMILIES, _family(name), AUTH))
    return name


def _family(name: str) -> bytes:
    described = {"name": name[:40], "description": "x" * 900}
    return json.dumps({"metadata": {"name": name, "namespace": PROJECT}, "spec": described}).encode()


def _creates(count: int) -> Iterator[bytes]:
    run = secrets.token_hex(4)
    return (post(FAMILIES, _family(f"f-{run}-{number}"), AUTH) for number in range(count))


def mlflow(server: Keeping) -> Side:
    """Return the calls on MLflow's server."""

    def creates() -> Iterator[bytes]:
        run = secrets.token_hex(4)
        for number in range(PEER_CALLS):
            body = json.dumps({"name": f"m-{run}-{number}", "description": "x" * 900}).encode()
            yield post(f"{MLFLOW}/create", body)

    with contextlib.closing(KeptAlive(server.http)) as connection:
        connection.ask(post(f"{MLFLOW}/create", json.dumps({"name": "known", "description": "x" * 900}).encode()))
    read = get(f"{MLFLOW}/get?name=known")
    return Side(
        create=lambda: _timed(server.http, creates()),
        get=lambda: _timed(server.http, itertools.repeat(read, PEER_CALLS)),
        busy=lambda: throughput(server.http, [read], connections=CONNECTIONS, seconds=BUSY_S),
    )


def lists(server: Keeping) -> Callable[[], list[float]]:
    """Return what lists a page by label and gives the milliseconds of each list."""
    chance = itertools.cycle(range(store_fill.BUCKETS_ASKED))
    requests = (get(f"{FAMILIES}?labelSelector=bucket%3Db{next(chance)}&limit=50", AUTH) for _ in itertools.count())
    return lambda: _timed(server.http, itertools.islice(requests, CALLS))


def _timed(port: int, requests: Iterator[bytes]) -> list[float]:
    """Send requests one after another on a connection; return the milliseconds of each."""
    found = []
    with contextlib.closing(KeptAlive(port)) as connection:
        for request in requests:
            begun = time.perf_counter_ns()
            connection.ask(request)
            found.append((time.perf_counter_ns() - begun) / 1e6)
    return found
