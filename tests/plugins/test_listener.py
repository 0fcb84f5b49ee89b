"""The listener: it says what happened, and Airflow never waits for whoever should hear it."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from airflow.listeners.listener import get_listener_manager
from pluggy import PluginManager
from starlette.applications import Starlette

from api.controllers.reports import routes
from tests.plugins.conftest import PLUGIN, Ear, until

RUN = SimpleNamespace(dag_id="flights.late", run_id="ma__u__1")
TASK = SimpleNamespace(dag_id="flights.late", run_id="ma__u__1", task_id="train", map_index=-1, try_number=2)


def events(ear: Ear) -> list[Any]:
    return [event for _, _, body in list(ear.said) for event in json.loads(body)["events"]]


@pytest.fixture
def hooks(plugin: Any) -> Any:
    """Airflow's own hooks, with its specifications, calling the plugin's listener."""
    manager: PluginManager = type(get_listener_manager().pm)("airflow")
    from airflow._shared.listeners.spec import lifecycle, taskinstance
    from airflow.listeners.spec import asset, dagrun, importerrors

    for spec in (lifecycle, taskinstance, asset, dagrun, importerrors):
        manager.add_hookspecs(spec)
    (listener,) = plugin.MichelangeloPlugin.listeners
    manager.register(listener)
    manager.check_pending()
    return manager.hook


def test_the_plugin_shows_its_listener_and_its_timetable(plugin: Any) -> None:
    from airflow.plugins_manager import AirflowPlugin

    from operators.timetable import TriggerTimetable

    assert issubclass(plugin.MichelangeloPlugin, AirflowPlugin)
    assert plugin.MichelangeloPlugin.name == "michelangelo"
    assert plugin.MichelangeloPlugin.timetables == [TriggerTimetable]
    plugin.MichelangeloPlugin.validate()


def test_every_state_of_a_run_and_of_a_task_is_told(hooks: Any, ear: Ear) -> None:
    hooks.on_dag_run_running(dag_run=RUN, msg="")
    hooks.on_task_instance_running(previous_state=None, task_instance=TASK)
    hooks.on_task_instance_success(previous_state=None, task_instance=TASK)
    hooks.on_task_instance_failed(previous_state=None, task_instance=TASK, error=ValueError("x"))
    hooks.on_task_instance_skipped(previous_state=None, task_instance=TASK)
    hooks.on_dag_run_success(dag_run=RUN, msg="")
    hooks.on_dag_run_failed(dag_run=RUN, msg="")
    until(lambda: len(events(ear)) == 7)
    told = events(ear)
    assert all(
        abs(datetime.now(UTC) - datetime.fromisoformat(event.pop("at"))) < timedelta(seconds=10) for event in told
    )
    run = {"dag_id": "flights.late", "run_id": "ma__u__1"}
    task = {**run, "task_id": "train", "map_index": -1, "try_number": 2}
    assert told == [
        {"type": "dag_run", **run, "state": "running"},
        {"type": "task", **task, "state": "running"},
        {"type": "task", **task, "state": "success"},
        {"type": "task", **task, "state": "failed"},
        {"type": "task", **task, "state": "skipped"},
        {"type": "dag_run", **run, "state": "success"},
        {"type": "dag_run", **run, "state": "failed"},
    ]


def test_reports_go_to_the_api_server_with_its_token(hooks: Any, ear: Ear) -> None:
    hooks.on_dag_run_running(dag_run=RUN, msg="")
    until(lambda: ear.said)
    path, headers, _ = ear.said[0]
    assert path == "/internal/airflow/events"
    assert headers["authorization"] == "Bearer token of the test"
    assert headers["content-type"] == "application/json"


def test_reports_take_no_detour_over_a_proxy(hooks: Any, ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Ear()
    try:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{elsewhere.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        # Python's opener reads the variables once.
        monkeypatch.setattr(urllib.request, "_opener", None)
        hooks.on_dag_run_running(dag_run=RUN, msg="")
        until(lambda: ear.said)
        assert elsewhere.said == [], "the token went to somebody else"
    finally:
        elsewhere.close()


async def test_the_api_server_takes_what_the_listener_sends(hooks: Any, ear: Ear) -> None:
    hooks.on_task_instance_success(previous_state=None, task_instance=TASK)
    until(lambda: ear.said)
    path, headers, body = ear.said[0]
    seen: list[tuple[str, str]] = []

    async def run_seen(dag_id: str, run_id: str, ended: bool) -> None:
        seen.append((dag_id, run_id))

    async def started() -> None:
        return

    app = Starlette(routes=routes("token of the test", run_seen, started))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as client:
        answer = await client.post(path, content=body, headers={"authorization": headers["authorization"]})
    await asyncio.sleep(0)
    assert answer.status_code == 202
    assert seen == [("flights.late", "ma__u__1")]


def timed(hooks: Any, times: int) -> float:
    began = time.monotonic()
    for _ in range(times):
        hooks.on_dag_run_running(dag_run=RUN, msg="")
    return time.monotonic() - began


def test_nobody_listening_holds_nothing_up(
    hooks: Any, plugin: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MA_HOME", str(tmp_path))
        monkeypatch.setenv("MA_API_HTTP_PORT", str(taken.getsockname()[1]))
        assert timed(hooks, 100) < 0.5
        began = time.monotonic()
        hooks.on_task_instance_success(previous_state=None, task_instance=TASK)
        assert time.monotonic() - began < 2 * plugin.FLUSH_S + 0.5


def test_a_server_that_never_answers_holds_nothing_up_and_the_queue_stays_bounded(
    hooks: Any, plugin: Any, ear: Ear
) -> None:
    hang = threading.Event()

    def hangs(_: BaseHTTPRequestHandler) -> None:
        hang.wait(30)

    ear.behave = hangs
    try:
        assert timed(hooks, 5 * plugin.MOST_WAITING) < 2
        began = time.monotonic()
        hooks.on_task_instance_success(previous_state=None, task_instance=TASK)
        assert time.monotonic() - began < plugin.FLUSH_S + 0.5
        assert plugin.reporter._waiting.qsize() <= plugin.MOST_WAITING
    finally:
        # What waits would be told to the port of the next test.
        ear.behave = None
        hang.set()
        until(lambda: not plugin.reporter._waiting.unfinished_tasks)


def answers_garbage(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")


def closes(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def refuses(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(401)
    handler.end_headers()


def breaks_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(202)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"zzz\r\n")


@pytest.mark.parametrize("behave", [answers_garbage, closes, refuses, breaks_off])
def test_the_listener_goes_on_after_a_bad_answer(hooks: Any, ear: Ear, behave: Any) -> None:
    ear.behave = behave
    hooks.on_dag_run_running(dag_run=RUN, msg="")
    until(lambda: len(ear.said) == 1)
    time.sleep(0.1)
    ear.behave = None
    hooks.on_dag_run_success(dag_run=RUN, msg="")
    until(lambda: [event["state"] for event in events(ear)][-1] == "success")


def test_a_value_that_is_no_json_does_not_stop_the_reports(hooks: Any, ear: Ear) -> None:
    odd = SimpleNamespace(dag_id="flights.late", run_id=object())
    hooks.on_dag_run_running(dag_run=odd, msg="")
    hooks.on_dag_run_success(dag_run=RUN, msg="")
    until(lambda: [event for event in events(ear) if event["state"] == "success"])


def test_a_run_without_the_expected_fields_raises_nothing(hooks: Any, ear: Ear) -> None:
    hooks.on_dag_run_running(dag_run=None, msg="")
    hooks.on_task_instance_failed(previous_state=None, task_instance=SimpleNamespace(dag_id="x"), error=None)
    hooks.on_dag_run_success(dag_run=RUN, msg="")
    until(lambda: events(ear))


def test_a_bad_configuration_raises_nothing(hooks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MA_API_HTTP_PORT", "many")
    hooks.on_dag_run_running(dag_run=RUN, msg="")
    hooks.on_task_instance_success(previous_state=None, task_instance=TASK)


FORKED = """
import importlib.util, os, sys, types
spec = importlib.util.spec_from_file_location("michelangelo_plugin", {plugin!r})
module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
run = types.SimpleNamespace(dag_id="parent", run_id="r")
task = types.SimpleNamespace(dag_id="child", run_id="r", task_id="t", map_index=-1, try_number=1)
module.Listener().on_dag_run_running(run, "")
if not (pid := os.fork()):
    module.Listener().on_task_instance_success(None, task)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_forked_worker_reports_too_though_it_ends_at_once(ear: Ear, tmp_path: Path) -> None:
    """LocalExecutor forks its workers out of the scheduler: threads do not come along."""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED.format(plugin=str(PLUGIN))],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        check=True,
        capture_output=True,
        timeout=60,
    )
    until(lambda: {event["dag_id"] for event in events(ear)} == {"parent", "child"})


def test_many_reports_go_together(hooks: Any, plugin: Any, ear: Ear) -> None:
    slow = threading.Event()

    def answers_late(handler: BaseHTTPRequestHandler) -> None:
        slow.wait(5)
        handler.send_response(202)
        handler.end_headers()

    ear.behave = answers_late
    timed(hooks, 150)
    until(lambda: ear.said)
    slow.set()
    until(lambda: len(events(ear)) == 150)
    assert len(ear.said) <= 4
    assert max(len(json.loads(body)["events"]) for _, _, body in ear.said) <= plugin.MOST_TOGETHER
