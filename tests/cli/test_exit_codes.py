"""How `ma` ends: codes for scripts, one line for people, never a stack."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.cli import exits, failures
from api.config import Config
from api.errors import FieldViolation, InvalidArgument, Unavailable

Ma = Callable[..., Any]
HEAVY = (
    "grpc",
    "google.protobuf",
    "pandas",
    "numpy",
    "sqlalchemy",
    "airflow",
    "rich",
    "yaml",
    "psutil",
    "pydantic",
    "httpx",
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["aply"], "Did you mean 'apply'?"),
        (["get"], "KIND"),
        (["get", "pods"], "kinds:"),
        (["get", "pipelins"], "did you mean pipelines?"),
        (["get", "projects", "-o", "xml"], "use table, json, yaml, name"),
        (["get", "projects", "--selektor", "a=b"], "--selektor"),
        (["apply"], "--filename"),
        (["describe", "pipeline", "train"], "which project?"),
        (["pipeline", "run", "train"], "which project?"),
        (["pipeline", "run", "train", "-n", "p", "--set", "seed"], "key=value"),
        (["pipeline", "run", "train", "-n", "p", "--set", "a=1", "--set", "a=2"], "twice"),
        (["predict", "shop.model"], "-f or --set"),
        (["delete", "pipeline"], "NAME"),
    ],
)
def test_wrong_use_ends_with_2_and_says_what_is_right(config: Config, ma: Ma, arguments: list[str], said: str) -> None:
    ended = ma(*arguments)
    assert ended.code == exits.USAGE
    assert said in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_missing_file_ends_with_1(config: Config, ma: Ma, tmp_path: Path, name: str) -> None:
    ended = ma("apply", "-f", str(tmp_path / "none" / name))
    assert ended.code == exits.REFUSED
    assert "No such file" in ended.err


def test_no_server_ends_with_3_in_one_line(config: Config, ma: Ma, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.cli.context.ANSWER_S", 0.2)
    ended = ma("get", "projects")
    assert ended.code == exits.UNREACHABLE
    assert ended.err.count("\n") == 1
    assert "ma status" in ended.err


@pytest.fixture
def stranger() -> Iterator[int]:
    """Something else that listens, and answers with a page."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(502)
            self.end_headers()
            self.wfile.write(b"<html>proxy error</html>")

        def log_message(self, *_: object) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_stranger_on_the_port_ends_with_3(
    config: Config, ma: Ma, stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MA_API_PORT", str(stranger))
    monkeypatch.setattr("api.cli.context.ANSWER_S", 0.2)
    assert ma("get", "projects").code == exits.UNREACHABLE
    monkeypatch.setenv("MA_SERVING_PORT", str(stranger))
    ended = ma("predict", "shop.model", "--set", "a=1")
    assert ended.code == exits.UNREACHABLE
    assert ended.err.count("\n") == 1


def test_a_prediction_without_a_server_ends_with_3(config: Config, ma: Ma) -> None:
    ended = ma("predict", "shop.model", "--set", "a=1")
    assert ended.code == exits.UNREACHABLE
    assert "does not answer" in ended.err


@pytest.mark.parametrize(
    ("token", "kept", "said"),
    [
        ("", "", "there is no token in"),
        ("", "the-token-of-another-platform", "the token is that of"),
        ("the-token-of-another-platform", "", "the token is that of MA_TOKEN"),
    ],
)
def test_a_refused_token_says_where_it_came_from(
    api: Config, ma: Ma, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token: str, kept: str, said: str
) -> None:
    other = replace(api, home=tmp_path)
    monkeypatch.setenv("MA_HOME", str(other.home))
    monkeypatch.setenv("MA_TOKEN", token)
    if kept:
        other.run_path.mkdir()
        other.token_path.write_text(kept)
    ended = ma("get", "projects")
    assert ended.code == exits.REFUSED
    assert said in ended.err
    assert token or f"{other.token_path}: set MA_HOME" in ended.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InvalidArgument("refused", violations=[FieldViolation("spec.tier", "too high")]), 1, "spec.tier: too high"),
        (Unavailable("gone"), 3, "gone"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(), 141, ""),
        (RuntimeError("odd\nthing"), 1, "RuntimeError: odd thing"),
        (FileNotFoundError(2, "No such file", "x.yaml"), 1, "x.yaml: No such file"),
    ],
)
def test_every_error_has_a_code_and_a_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MA_DEBUG", raising=False)
    monkeypatch.setattr(failures, "_drop_output", lambda: None)
    assert failures.report(error) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


def test_debug_shows_the_stack(config: Config, ma: Ma, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MA_DEBUG", "")
    ended = ma("--debug", "get", "pods")
    assert "Traceback" in ended.err


def test_a_closed_pipe_ends_with_141_in_silence(config: Config) -> None:
    script = f"{sys.executable} -m api.cli.main --help | true; exit ${{PIPESTATUS[0]}}"
    slow = script.replace("--help | true", "--help | (exec 0<&-; sleep 0.5)")
    ended = subprocess.run(["bash", "-c", slow], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (exits.CLOSED_PIPE, "")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import json, sys\nfrom api.cli.main import main\n"
        f"main({arguments!r})\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout.splitlines()[-1]) == []


def test_help_needs_no_utf8_and_no_colour() -> None:
    environ = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "NO_COLOR": "1", "TERM": "dumb"}
    ended = subprocess.run(
        [sys.executable, "-m", "api.cli.main", "--help"], env=environ, capture_output=True, check=True
    )
    ended.stdout.decode("ascii")
    assert b"\x1b" not in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80


def test_a_closed_standard_input_is_said(config: Config) -> None:
    home = replace(config)
    ended = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m api.cli.main apply -f - <&-"],
        env={**os.environ, **home.environ()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == exits.REFUSED
    assert "standard input" in ended.stderr
    assert "Traceback" not in ended.stderr
