"""How long a prediction takes, over HTTP on a connection that stays open.

Ours: `python -m serving.server` with the flights model.  The caller sends six fields of a flight; the server joins the
features of six views from the online store, transforms, scores, answers and logs the prediction.
Peer: `mlflow models serve --env-manager local` of the same registered version.  It joins nothing: all features are in
its request.
Command: `python -m benchmarks serving [--home HOME]`; HOME is one on which `ma demo` has run.

Both servers have one core, the client the other.  Every request's two answers are compared (1e-5) before any is timed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measuring.figures import Figure, Goal, percentile
from benchmarks.measuring.results import Measured
from benchmarks.measuring.rounds import interleaved
from benchmarks.systems import flights, servers
from benchmarks.systems.keepalive import KeptAlive, latencies, post, throughput
from benchmarks.systems.processes import on_core
from benchmarks.workbench import Workbench

TITLE = "Online prediction, one row, JSON over HTTP"
PEER = "`mlflow models serve` of the same model, features in the request"
ROUNDS = 10
OUR_REQUESTS = 3000
PEER_REQUESTS = 500
WARM_UP = 200
CONNECTIONS = 8
BUSY_S = 2.0
TOLERANCE = 1e-5
GOAL = Goal("times", 20)


@dataclass(frozen=True)
class Side:
    """A server and the requests it is sent."""

    server: servers.Answering
    requests: Sequence[bytes]
    count: int


@dataclass(frozen=True)
class Round:
    """What one side showed in one round.

    p50_ms, p99_ms, cpu_ms: of an answer at one connection.  busy_per_s: answers a second at several connections.
    """

    p50_ms: float
    p99_ms: float
    cpu_ms: float
    busy_per_s: float
    memory_mib: float


def measure(bench: Workbench) -> Measured:
    """Return the figures."""
    home, folder = bench.flights_home(), bench.new_folder("serving")
    model = flights.registered(home)
    flights.copy_online_store(home, folder)
    with servers.ours(folder, model) as ours, servers.mlflow(folder, model) as mlflow:
        our_bodies, peer_bodies = _bodies(ours.port, model)
        our_requests = [post(f"/v2/models/{flights.MODEL}/infer", body) for body in our_bodies]
        us = Side(ours, our_requests, OUR_REQUESTS)
        peer = Side(mlflow, [post("/invocations", body) for body in peer_bodies], PEER_REQUESTS)
        with on_core(servers.CLIENT_CORE):
            difference = _compared(us, peer)
            found = interleaved(bench.rounds_or(ROUNDS), lambda: _round(us), lambda: _round(peer))
    notes = [
        f"Ours joins {flights.views(model)} views.  Largest difference of {len(our_bodies)} answers: {difference:.1e}.",
        f"A round is {OUR_REQUESTS:,} requests of ours and {PEER_REQUESTS:,} of the peer, then {BUSY_S:g} s of both.",
    ]
    return Measured(_figures(*found), notes)


def _bodies(port: int, model: flights.Registered) -> tuple[list[bytes], list[bytes]]:
    """Return the same flights for both servers; the peer's carry the features that ours joins."""
    known = flights.flights(model)
    peers = []
    with contextlib.closing(KeptAlive(port)) as connection:
        for flight in known:
            body = flights.infer_request(model, flight, explain=True)
            explained = json.loads(connection.ask(post(f"/v2/models/{flights.MODEL}/infer", body)))
            peers.append(flights.scoring_request(model, flight, explained))
    return [flights.infer_request(model, flight) for flight in known], peers


def _compared(us: Side, peer: Side) -> float:
    """Return the largest difference of the servers' answers.  Raises ValueError if it is over `TOLERANCE`."""
    with (
        contextlib.closing(KeptAlive(us.server.port)) as ours,
        contextlib.closing(KeptAlive(peer.server.port)) as theirs,
    ):
        pairs = [
            (_our_score(json.loads(ours.ask(mine))), _peer_score(json.loads(theirs.ask(other))))
            for mine, other in zip(us.requests, peer.requests, strict=True)
        ]
    largest = max(abs(mine - other) for mine, other in pairs)
    if largest > TOLERANCE:
        raise ValueError(f"the servers do not agree: they differ by {largest:g}, allowed is {TOLERANCE:g}")
    return largest


def _our_score(answer: Any) -> float:
    return float(answer["outputs"][0]["data"][0])


def _peer_score(answer: Any) -> float:
    (score,) = answer["predictions"]
    return float(next(iter(score.values())) if isinstance(score, dict) else score)


def _round(side: Side) -> Round:
    port = side.server.port
    with contextlib.closing(KeptAlive(port)) as connection:
        latencies(connection, side.requests, WARM_UP)
        before = side.server.usage()
        found = latencies(connection, side.requests, side.count)
        after = side.server.usage()
    busy = throughput(port, side.requests, connections=CONNECTIONS, seconds=BUSY_S)
    cpu_ms = (after.cpu_s - before.cpu_s) / side.count * 1000
    return Round(percentile(found, 0.5), percentile(found, 0.99), cpu_ms, busy, after.memory_mib)


def _figures(ours: Sequence[Round], peer: Sequence[Round]) -> list[Figure]:
    def both(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return tuple(getattr(one, name) for one in ours), tuple(getattr(one, name) for one in peer)

    return [
        Figure("p50, 1 connection", "ms", *both("p50_ms"), goal=GOAL),
        Figure("p99, 1 connection", "ms", *both("p99_ms")),
        Figure("CPU time of an answer", "ms", *both("cpu_ms")),
        Figure(f"answers, {CONNECTIONS} connections", "/s", *both("busy_per_s"), better="higher"),
        Figure("memory of the server (PSS)", "MiB", *both("memory_mib")),
    ]
