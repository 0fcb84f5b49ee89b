"""What a resource costs: durable creates, reads, lists that do not grow with the store, and the server itself.

Ours: `python -m api.server` over SQLite (WAL, `synchronous=FULL`), authenticated, audited, by HTTP/JSON and by gRPC.
Peer: MLflow's server over SQLite, one worker, creating and reading registered models; beside etcd's own put (one
member, every put fsynced) and beside a bare grpcio echo of the same bytes where a line says so.
Command: `python -m benchmarks resources [--objects 1000000]`

Every server has one core, the client the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from benchmarks.measuring.figures import Figure, Goal, percentile
from benchmarks.measuring.results import Measured
from benchmarks.measuring.rounds import interleaved
from benchmarks.systems import control_planes, grpc_calls, sides, store_fill
from benchmarks.systems.control_planes import Keeping
from benchmarks.systems.processes import on_core, suspended
from benchmarks.systems.servers import CLIENT_CORE, TOKEN
from benchmarks.systems.sides import BUSY_S, CALLS, CONNECTIONS, PEER_CALLS, PROJECT
from benchmarks.workbench import Workbench

TITLE = "Resources: create, get, list"
PEER = "MLflow's server on SQLite; etcd and a bare grpcio echo where a line says so"
ROUNDS = 7
FEW = 10_000
Rounds = Sequence[Sequence[float]]
Latencies = Callable[[], list[float]]
T = TypeVar("T")


def measure(bench: Workbench) -> Measured:
    """Return the figures."""
    rounds = bench.rounds_or(ROUNDS)
    figures = [*_beside_mlflow(bench, rounds), *_beside_etcd(bench, rounds), *_by_grpc(bench, rounds)]
    figures.append(_lists(bench, rounds))
    notes = [
        f"A round is {CALLS} calls of ours, {PEER_CALLS} of MLflow's, then {BUSY_S:g} s at {CONNECTIONS} connections.",
        f"The list is a page of {store_fill.HITS} objects found by a label, in stores of {FEW:,} and "
        f"{bench.objects:,}.",
    ]
    return Measured(figures, notes)


def _beside_mlflow(bench: Workbench, rounds: int) -> Iterator[Figure]:
    with _prepared(bench) as us, control_planes.mlflow(bench.new_folder("mlflow")) as them, on_core(CLIENT_CORE):
        ours, peer = sides.ours(us), sides.mlflow(them)
        creates = interleaved(rounds, alone(ours.create, them), alone(peer.create, us))
        gets = interleaved(rounds, alone(ours.get, them), alone(peer.get, us))
        busy = interleaved(rounds, alone(ours.busy, them), alone(peer.busy, us))
        yield Figure("durable create, p50, HTTP", "ms", *_p50s(creates), goal=Goal("times", 60))
        yield Figure("get by name, p50, HTTP", "ms", *_p50s(gets))
        yield Figure("CPU time of a create", "ms", *_cpu(rounds, us, ours.create, them, peer.create))
        yield Figure("CPU time of a get", "ms", *_cpu(rounds, us, ours.get, them, peer.get))
        yield Figure(
            f"gets, {CONNECTIONS} connections",
            "/s",
            tuple(busy[0]),
            tuple(busy[1]),
            better="higher",
            goal=Goal("times", 150),
        )
        yield Figure("start to first answer", "s", (us.ready_s,), (them.ready_s,), goal=Goal("most", 1.5))
        yield Figure(
            "memory (PSS)", "MiB", (us.usage().memory_mib,), (them.usage().memory_mib,), goal=Goal("most", 150)
        )


def _beside_etcd(bench: Workbench, rounds: int) -> Iterator[Figure]:
    with _prepared(bench) as us, control_planes.etcd(bench.new_folder("etcd")) as them, on_core(CLIENT_CORE):
        found = interleaved(
            rounds,
            alone(sides.ours(us).create, them),
            alone(lambda: grpc_calls.etcd_puts(them.grpc, CALLS), us),
        )
        yield Figure("durable create beside etcd's put, p50", "ms", *_p50s(found), goal=Goal("times", 1 / 3))


def _by_grpc(bench: Workbench, rounds: int) -> Iterator[Figure]:
    with _prepared(bench) as us, grpc_calls.echo(bench.new_folder("echo")) as echo, on_core(CLIENT_CORE):
        name = sides.named(us)
        found = interleaved(
            rounds,
            lambda: grpc_calls.gets(us.grpc, PROJECT, name, TOKEN, CONNECTIONS, BUSY_S),
            lambda: grpc_calls.echoes(echo, CONNECTIONS, BUSY_S),
        )
        yield Figure(
            "gets by gRPC beside a bare echo",
            "/s",
            tuple(found[0]),
            tuple(found[1]),
            better="higher",
            goal=Goal("times", 0.8),
        )


def _lists(bench: Workbench, rounds: int) -> Figure:
    with contextlib.ExitStack() as stack:
        large_and_small = []
        for count in (bench.objects, FEW):
            home = bench.new_home()
            bench.say(f"filling a store with {count:,} objects")
            store_fill.fill(home, PROJECT, count)
            large_and_small.append(sides.lists(stack.enter_context(control_planes.ours(home))))
        stack.enter_context(on_core(CLIENT_CORE))
        found = interleaved(rounds, *large_and_small)
    return Figure(
        f"list of {store_fill.HITS} hits: large store beside small",
        "ms",
        *_p50s(found),
        goal=Goal("times", 1 / 1.2),
    )


@contextlib.contextmanager
def _prepared(bench: Workbench) -> Iterator[Keeping]:
    home = bench.new_home()
    store_fill.fill(home, PROJECT, 0)
    with control_planes.ours(home) as server:
        yield server


def alone(work: Callable[[], T], other: Keeping) -> Callable[[], T]:
    """Return what does the same while the other side stands still.

    MLflow's job workers, which are there by default, take 14 % of the servers' core while nothing is asked of it.
    """

    def done() -> T:
        with suspended(other.session):
            return work()

    return done


def _cpu(
    rounds: int, us: Keeping, ours: Latencies, them: Keeping, peer: Latencies
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the milliseconds of CPU that each server spends on a call, a round each."""

    def spent(server: Keeping, calls: Latencies) -> Callable[[], float]:
        def done() -> float:
            before = server.usage().cpu_s
            count = len(calls())
            return (server.usage().cpu_s - before) * 1000 / count

        return done

    mine, others = interleaved(rounds, alone(spent(us, ours), them), alone(spent(them, peer), us))
    return tuple(mine), tuple(others)


def _p50s(found: tuple[Rounds, Rounds]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return _p50(found[0]), _p50(found[1])


def _p50(rounds: Rounds) -> tuple[float, ...]:
    return tuple(percentile(one, 0.5) for one in rounds)
