"""Far more callers than can be served: memory is bounded, health answers, others are served, the refused are told so.

Guarantee G18.  Every kind of client is a process of its own, so that none keeps another from calling.  The server has
one core and all clients the other; the flood's have a lower priority there, and how long an accepted call takes is said
by a few of its callers that have a process to themselves: five hundred in one wait for each other, not for the server.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from api.config import AuthConfig
from api.gen.michelangelo.platform.v1 import role_binding_pb2 as wire
from api.kinds import kinds
from tests.robustness.flood import Load, Seen, ended, go, started
from tests.robustness.killed_server import OPTIONS, Connection, KilledServer
from tests.robustness.results import told
from tests.security.secured import known, token_of

CALLERS, CHANNELS, WATCHERS, SLOW = 500, 20, 20, 200
WITNESSES = 40
IDLE = 10_000
# Files that this test, the server and the process of idle connections need beside those.
OTHER_FILES = 1_000
ROUNDS = 3
FLOOD_S = 20.0
CALM_S = 10.0
SETTLES_S = 3.0
MOST_MIB = 700
ACCEPTED_S = HEALTH_S = 1.0
MOST_SLOWER = 2.0
TAKEN = ("OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE")
OWNER = "secret-of-the-owner"
HOST = "127.0.0.1"
TENANTS = {"flood": "alice", "calm": "bob"}


@dataclass
class Looked:
    """What was seen of the server from outside.  health: seconds of health checks.

    starved: the part of the time in which it could have worked that it had no core: others had them.
    """

    health: list[float] = field(default_factory=list)
    most_mib: float = 0.0
    starved: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)

    def look(self, server: KilledServer) -> None:
        """Ask for health, and look at the memory, until it is over."""
        process = psutil.Process(server.pid)
        with grpc.insecure_channel(server.config.api_address, options=OPTIONS) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            while not self.over.is_set():
                began = time.monotonic()
                health.Check(health_pb2.HealthCheckRequest(), timeout=30)
                self.health.append(time.monotonic() - began)
                self.most_mib = max(self.most_mib, process.memory_info().rss / 2**20)
                self.starved = starved(server.pid)
                time.sleep(0.1)


def starved(pid: int) -> float:
    """Return the part of the time in which the threads of a process wanted a core that they had none (Linux)."""
    ran = waited = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            took, without, _ = path.read_text().split()
            ran, waited = ran + int(took), waited + int(without)
    return waited / max(1, ran + waited)


@contextlib.contextmanager
def on_core(number: int) -> Iterator[None]:
    """Let what is started here have one core, if there are two."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > number:
        os.sched_setaffinity(0, {cores[number]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def looked_at(server: KilledServer) -> Iterator[Looked]:
    looked = Looked()
    thread = threading.Thread(target=looked.look, args=(server,))
    thread.start()
    try:
        yield looked
    finally:
        looked.over.set()
        thread.join()


def with_tenants(home: Path) -> KilledServer:
    """Return a server that knows two users."""
    tokens = home / "tokens.json"
    tokens.write_text(json.dumps({"tokens": [known(user) for user in TENANTS.values()], "revoked": []}))
    tokens.chmod(0o600)
    server = KilledServer(home)
    server.config = replace(server.config, token=OWNER, auth=AuthConfig(tokens_file=tokens))
    return server


def give_rights(connection: Connection) -> None:
    """Give each user a project of its own."""
    for project, user in TENANTS.items():
        connection.call("Project", "Create", project=kinds()["Project"].new(project, project))
        binding = kinds()["RoleBinding"].new(project, "editor")
        binding.spec.role = wire.Role.Value("ROLE_EDITOR")
        binding.spec.subjects.add(kind=wire.SUBJECT_KIND_USER, name=user)
        connection.call("RoleBinding", "Create", role_binding=binding)


def idle_connections() -> int:
    """Return how many connections can be held: each needs a file in two processes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return IDLE if most == resource.RLIM_INFINITY else max(0, min(IDLE, most - 2 * OTHER_FILES))


def p99_s(took: list[float]) -> float:
    return sorted(took)[len(took) * 99 // 100]


def called(load: Load) -> Seen:
    """Return what one load sees when it begins now."""
    time.sleep(SETTLES_S)
    process = started(load)
    go(process)
    return ended(process)


def flooded(flood: Load, witness: Load, calm: Load) -> tuple[Seen, Seen, Seen]:
    """Return what a flood, those that tell how long its calls take, and another caller in the midst of it see."""
    loads = [started(load) for load in (flood, witness, calm)]
    for process in loads[:2]:
        go(process)
    time.sleep(SETTLES_S)
    go(loads[2])
    other = ended(loads[2])
    return ended(loads[0]), ended(loads[1]), other


def together(parts: list[Seen]) -> Seen:
    """Return what was seen in all parts."""
    seen = Seen()
    for part in parts:
        seen.outcomes += part.outcomes
        seen.took += part.took
        seen.untold += part.untold
    return seen


@pytest.mark.robustness
@pytest.mark.alone
def test_a_flood_is_answered_or_refused_and_harms_nobody_else(tmp_path: Path) -> None:
    server = with_tenants(tmp_path)
    with contextlib.ExitStack() as stack:
        with on_core(0):
            stack.enter_context(server)
        stack.enter_context(on_core(1))
        connection = server.connect()
        stack.callback(connection.close)
        give_rights(connection)
        port, http_port = server.config.api_port, server.config.api_http_port
        alice, bob = (token_of(user) for user in TENANTS.values())
        flood = Load("callers", HOST, port, "flood", alice, CALLERS - WITNESSES, CHANNELS, FLOOD_S, large=True, nice=5)
        witness = replace(flood, count=WITNESSES, channels=4, large=False, nice=0)
        calm = Load("callers", HOST, port, "calm", bob, 5, 2, CALM_S, pause_s=0.1)
        beside = [
            Load("idle", HOST, port, count=idle_connections(), ports=(port, http_port), nice=5),
            Load("watchers", HOST, port, "flood", alice, WATCHERS, nice=5),
            Load("slow", HOST, http_port, "flood", alice, SLOW, nice=5),
        ]
        looked = stack.enter_context(looked_at(server))
        quiet = [started(load) for load in beside]
        rounds, alone = [], [called(calm)]
        for _ in range(ROUNDS):
            rounds.append(flooded(flood, witness, replace(calm, lasts_s=FLOOD_S - 2 * SETTLES_S)))
            alone.append(called(calm))
        for process in quiet:
            go(process)
        idle, watchers, slow = (ended(process) for process in quiet)
        assert connection.call("Project", "Get", namespace="calm", name="calm").project.metadata.name == "calm"
    seen, witnessed, other = (together(list(part)) for part in zip(*rounds, strict=True))
    told_of(seen, witnessed, looked, idle, watchers, slow)
    # A machine is slow and fast by turns: each part of the flood is compared with the calm before and after it.
    calms = [before.took + after.took for before, after in itertools.pairwise(alone)]
    ratios = [p99_s(one.took) / p99_s(quietly) for (_, _, one), quietly in zip(rounds, calms, strict=True)]
    ratio = statistics.median(ratios)
    told(
        "G18",
        "one tenant's flood does not slow another down",
        store="SQLite",
        trials=sum(other.outcomes.values()),
        failed=sum(other.outcomes.values()) - other.outcomes["OK"],
        figures=f"the other's p99 {1000 * p99_s(together(alone).took):.0f} ms in between, "
        f"{1000 * p99_s(other.took):.0f} ms in the flood "
        f"({ratio:.1f}×, {min(ratios):.1f}-{max(ratios):.1f}); {dict(other.outcomes)}",
    )
    assert {code.split()[0] for code in seen.outcomes + witnessed.outcomes} <= {*TAKEN}
    assert not seen.untold + witnessed.untold + other.untold, "refused without a time to come again"
    assert looked.most_mib < MOST_MIB
    assert p99_s(looked.health) < HEALTH_S
    assert p99_s(witnessed.took) < ACCEPTED_S
    assert ratio < MOST_SLOWER
    assert set(other.outcomes) == {"OK"}
    assert slow.closed > 0, "slow requests were not ended"
    assert watchers.events > 0


def told_of(seen: Seen, witnessed: Seen, looked: Looked, idle: Seen, watchers: Seen, slow: Seen) -> None:
    """Record what the flood saw."""
    outcomes = seen.outcomes + witnessed.outcomes
    refused = Counter({reason: count for reason, count in outcomes.items() if reason != "OK"})
    offered, held = outcomes.total(), idle.most
    told(
        "G18",
        "a flood is answered or refused, memory is bounded, health answers",
        store="SQLite",
        trials=offered,
        failed=sum(count for code, count in outcomes.items() if code.split()[0] not in TAKEN)
        + seen.untold
        + witnessed.untold,
        figures=f"{CALLERS} callers, {WATCHERS} watchers ({watchers.events:,} events), {held:,} idle "
        f"connections, {SLOW} slow ones ({slow.closed:,} ended), {ROUNDS * FLOOD_S:.0f} s: "
        f"{outcomes['OK']:,} accepted of {offered:,}, refused {dict(refused)}; "
        f"accepted p99 {p99_s(witnessed.took):.2f} s, health p99 {p99_s(looked.health):.2f} s, "
        f"at most {looked.most_mib:.0f} MiB; the server waited for a core "
        f"{100 * looked.starved:.0f} % of the time that it could have used one",
    )
