"""Whatever a network does, a call ends in time with an answer or a refusal, and the next one works (guarantee G2)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.client import Client
from api.errors import DeadlineExceeded, Unavailable
from api.kinds import kinds
from tests.robustness.faults.proxy import GOOD, Fault, Proxy
from tests.robustness.killed_server import KilledServer
from tests.robustness.stores import PROJECT

WAITS_S = 1.5
# What a client needs to see that its connection is dead, and to make another.
AGAIN_S = 20.0
FAULTS = {
    "latency": Fault(latency_s=0.1),
    "cut at once": Fault(cut_after=0),
    "cut within the answer": Fault(cut_after=120),
    "reset": Fault(cut_after=60, reset=True),
    "black hole": Fault(blackhole=True),
    "half open": Fault(half_open=True),
    "garbage": Fault(garbage=True),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledServer]:
    with KilledServer(tmp_path_factory.mktemp("network")) as made:
        yield made


@pytest.mark.parametrize("name", FAULTS)
def test_a_call_ends_in_time_and_the_next_one_works(server: KilledServer, name: str, tmp_path: Path) -> None:
    faults = [FAULTS[name]]
    project = f"{PROJECT}-{list(FAULTS).index(name)}"
    with (
        Proxy(server.config.api_port, lambda: faults[0]) as proxy,
        Client(proxy.address, timeout_s=WAITS_S, token=server.config.token) as client,
    ):
        began, refused = time.monotonic(), ""
        try:
            client.create(kinds()["Project"].new(project, project))
        except (Unavailable, DeadlineExceeded) as error:
            refused = error.message
        assert time.monotonic() - began < 2 * WAITS_S + 1
        assert "Traceback" not in refused
        faults[0] = GOOD
        proxy.cut_all()
        deadline = time.monotonic() + AGAIN_S
        while True:
            try:
                found = client.find("Project", project, project)
                break
            except (Unavailable, DeadlineExceeded):
                assert time.monotonic() < deadline, "the client does not come back"
        assert refused or found is not None, "what was answered is there"
