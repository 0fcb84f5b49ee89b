"""The real platform comes up healthy, survives killed components and leaves nothing behind."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from api.cli.platform import probes, record, sessions
from api.config import Config
from tests.processes import environs, listening

Ma = Callable[..., Any]
COMPONENTS = ["api", "serving", "airflow-api", "scheduler", "dag-processor", "triggerer"]
GIVES_UP_S = 5.0
"""SQLite's patience with a writer that does not end."""
DAG_AT_ONCE = """
from airflow.sdk import DAG

with DAG("at_once", schedule=None, is_paused_upon_creation=True):
    pass
"""
MOST_BYTES = 2 * 2**30


def components(config: Config) -> dict[str, record.ComponentRecord]:
    known = record.read(config.run_path)
    assert known is not None
    return dict(known.components)


def wait_for(condition: Callable[[], bool], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_all_components_are_ready(platform: Config, ma: Ma) -> None:
    deadline = time.monotonic() + 120
    # A machine that does something else for a moment answers no question about health in time.
    while (ended := ma("status")).code != 0:
        assert time.monotonic() < deadline, ended.out
    assert [line.split()[:2] for line in ended.out.splitlines()[1:7]] == [[name, "ready"] for name in COMPONENTS]


def test_every_port_is_bound_to_loopback_alone(platform: Config) -> None:
    ports = {platform.api_port, platform.api_http_port, platform.airflow_port, platform.serving_port}
    own = [at for component in components(platform).values() for at in listening(component.pid)]
    assert {port for _, port in own} == ports
    assert {address.removeprefix("::ffff:") for address, _ in own} == {"127.0.0.1"}


def test_only_the_api_server_knows_where_the_store_is(platform: Config) -> None:
    for name, component in components(platform).items():
        for environ in environs(component.pid):
            assert "MA_STORE_URL" not in environ or name == "api", name
            assert "AIRFLOW__CORE__FERNET_KEY" not in environ or name not in ("api", "serving"), name
    assert "MA_STORE_URL" in psutil.Process(components(platform)["api"].pid).environ()
    assert "AIRFLOW__CORE__FERNET_KEY" in psutil.Process(components(platform)["scheduler"].pid).environ()


def test_memory_stays_below_two_gibibytes(platform: Config) -> None:
    assert sum(sessions.memory_bytes(component.pid) for component in components(platform).values()) < MOST_BYTES


def test_many_write_to_airflow_at_once_and_all_are_answered(platform: Config) -> None:
    assert platform.own_dags is not None
    (platform.own_dags / "at_once.py").write_text(DAG_AT_ONCE)
    with httpx.Client(base_url=platform.airflow_url, timeout=60) as airflow, ThreadPoolExecutor(8) as threads:
        airflow.headers["Authorization"] = f"Bearer {airflow.get('/auth/token').json()['access_token']}"
        wait_for(lambda: airflow.get("/api/v2/dags/at_once").status_code == 200, timeout_s=120)

        def run(number: int) -> tuple[int, float]:
            new = {"dag_run_id": f"run-{number}", "logical_date": None}
            answer = airflow.post("/api/v2/dags/at_once/dagRuns", json=new)
            return answer.status_code, answer.elapsed.total_seconds()

        statuses, seconds = zip(*threads.map(run, range(100)), strict=True)
    assert set(statuses) == {200}
    assert max(seconds) < GIVES_UP_S


def test_a_second_start_is_refused(platform: Config, ma: Ma) -> None:
    ended = ma("up")
    assert ended.code == 78
    assert "runs already" in ended.err


@pytest.mark.parametrize("name", ["serving", "api", "triggerer"])
def test_a_killed_component_comes_back(platform: Config, ma: Ma, name: str) -> None:
    before = components(platform)[name].pid
    psutil.Process(before).kill()
    wait_for(lambda: components(platform)[name].pid != before, timeout_s=90)
    wait_for(lambda: components(platform)[name].state == "ready", timeout_s=90)
    assert ma("get", "projects").code == 0


def test_the_api_answers_on_both_ports(platform: Config, ma: Ma) -> None:
    assert probes.fetch(platform.api_http_port, "/readyz")[0] == 200
    assert "# HELP" in probes.fetch(platform.api_http_port, "/metrics")[1]
    assert ma("get", "projects").code == 0


def test_a_killed_supervisor_leaves_nothing_that_down_does_not_stop(start_platform: Callable[[], Any]) -> None:
    made = start_platform()
    known = record.read(made.config.run_path)
    assert known is not None
    leaders = {component.pid for component in known.components.values()}
    psutil.Process(known.supervisor.pid).kill()
    assert len(sessions.members(leaders)) >= len(COMPONENTS)
    ended = made("down", timeout_s=180)
    assert ended.code == 0, ended.err
    assert sessions.members(leaders) == []
    assert sessions.marked(made.config.home) == []
    assert made("status").code == 1
