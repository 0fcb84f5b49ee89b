"""`ma event publish` and `operators.events.publish` against a real server."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from api.config import Config
from api.errors import InvalidArgument
from api.kinds import kinds
from operators.engines.local import run_variable
from operators.events import NAMESPACE, RUN, publish

Ma = Callable[..., Any]
PROJECT = "events"


@pytest.fixture
def project(api: Config) -> str:
    with Client.of(api) as client:
        if client.find("Project", PROJECT, PROJECT) is None:
            client.create(kinds()["Project"].new(PROJECT, PROJECT))
    return PROJECT


@pytest.fixture
def stored(api: Config, project: str) -> Callable[[str], Any]:
    def stored(name: str) -> Any:
        with Client.of(api) as client:
            return client.get("Event", project, name.strip())

    return stored


def test_publish_prints_the_name_and_says_what_was_there(ma: Ma, stored: Callable[[str], Any]) -> None:
    arguments = (
        "event",
        "publish",
        "orders.loaded",
        "-n",
        PROJECT,
        "--key",
        "one",
        "--set",
        "rows=3",
        "--subject",
        "s",
    )
    first = ma(*arguments)
    assert first.code == 0, first.err
    event = stored(first.out)
    assert (event.spec.name, event.spec.key, event.spec.subject) == ("orders.loaded", "one", "s")
    assert event.spec.data.struct_value["rows"] == 3
    assert ma(*arguments).out == f"{first.out.strip()} was there already\n"
    other = ma(*arguments[:-4], "--set", "rows=4")
    assert other.code == 1
    assert "KEY_REUSED" in other.err


def test_data_comes_from_a_file_and_from_standard_input(ma: Ma, stored: Callable[[str], Any], tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"rows": [1, 2], "day": null}')
    named = ma("event", "publish", "orders.loaded", "-n", PROJECT, "-d", f"@{tmp_path}/data.json", "--keep", "2d")
    event = stored(named.out)
    assert list(event.spec.data.struct_value["rows"]) == [1, 2]
    assert 47 * 3600 < event.spec.expire_time.seconds - event.metadata.creationTimestamp.seconds < 49 * 3600


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("-d", "{"), 2, "--data"),
        (("-d", "[1]", "--set", "a=1"), 2, "--set changes fields, and --data is no JSON object"),
        (("-d", "@/no/such/file"), 1, "/no/such/file"),
        (("--keep", "soon"), 2, "--keep wants a time"),
        (("--keep", "31d"), 1, "ttl: is more than nothing"),
        (("-d", '"' + "x" * 50_000 + '"'), 1, "data: has 50002 bytes as JSON, at most 49152 are kept"),
    ],
)
def test_what_cannot_be_published_is_told(
    ma: Ma, project: str, arguments: tuple[str, ...], code: int, told: str
) -> None:
    ended = ma("event", "publish", "orders.loaded", "-n", project, *arguments)
    assert ended.code == code, ended.err
    assert told in ended.err
    assert "Traceback" not in ended.err


def test_python_publishes_with_its_project_and_run(
    api: Config, project: str, stored: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**api.environ(), NAMESPACE: project}.items():
        monkeypatch.setenv(name, value)
    with Client.of(api) as client:
        pipeline = kinds()["Pipeline"].new(project, "train")
        pipeline.spec.manifest.file_path = "train"
        client.create(pipeline)
        run = kinds()["PipelineRun"].new(project, "first")
        run.spec.pipeline.name = "train"
        client.create(run)
    for name, value in run_variable({"project": project, "pipeline_run": "first", "uid": "1"}).items():
        monkeypatch.setenv(name, value)
    event = stored(publish("orders.loaded", {"rows": 3}, key="python"))
    assert event.spec.cause.name == "first"
    assert publish("orders.loaded", {"rows": 3}, key="python") == event.metadata.name


def test_python_raises_unless_it_is_told_otherwise(
    api: Config, project: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in api.environ().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(NAMESPACE, raising=False)
    monkeypatch.delenv(RUN, raising=False)
    with pytest.raises(ValueError, match="which project"):
        publish("orders.loaded")
    with pytest.raises(InvalidArgument):
        publish("orders loaded", project=project)
    with pytest.raises(ValueError, match="is no JSON"):
        publish("orders.loaded", {"rows": {1, 2}}, project=project)
    with caplog.at_level(logging.WARNING):
        assert publish("orders loaded", project=project, raises=False) == ""
    assert "was not published" in caplog.text


def test_importing_publish_loads_neither_grpc_nor_airflow() -> None:
    program = (
        "import sys; import operators.events; "
        "print(sorted({'grpc', 'airflow', 'pandas', 'google.protobuf'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize("run", [None, {}, {"project": "p", "pipeline_run": ""}, "p/r"])
def test_what_works_for_no_run_has_no_cause(run: Any) -> None:
    assert run_variable(run) == {}
