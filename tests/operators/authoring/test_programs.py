"""The programs beside the library: `ma pipeline test`, the tracer, and the digest of a task's code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FLOW = '''
"""A pipeline."""
from operators import pipeline, task
import parts

FACTOR = 2

def helper(x):
    return x * FACTOR

@task
def double(x: int) -> int:
    """Twice."""
    print("doubling")
    return helper(x)

@task
def divide(x: int, by: int) -> float:
    return parts.divide(x, by)

@pipeline
def flow(x: int = 1, by: int = 1, word: str = ""):
    return {"half": divide(double(x), by), "word": word}
'''
PARTS = "def divide(x, by):\n    return x / by\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flow.py").write_text(FLOW)
    (tmp_path / "parts.py").write_text(PARTS)
    return tmp_path


def ma(folder: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.cli.main", "pipeline", "test", *words],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def traced(folder: Path, module: str = "flow", function: str = "flow") -> tuple[int, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "operators.authoring.trace", module, function],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, json.loads(ended.stdout.splitlines()[-1])


def test_a_run_tells_of_its_steps_and_prints_what_it_returned(folder: Path) -> None:
    ended = ma(folder, "flow.py", "-p", "x=3", "-p", "word=7")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["doubling", '{"half": 6.0, "word": "7"}']
    assert [line.split()[:2] for line in ended.stderr.splitlines()] == [["ok", "double"], ["ok", "divide"]]


def test_modules_and_functions_are_named_as_well(folder: Path) -> None:
    for target in ("flow", "flow:flow", "flow.py:flow", str(folder / "flow.py")):
        assert ma(folder, target).returncode == 0


def test_a_failure_shows_the_users_own_traceback_and_nothing_else(folder: Path) -> None:
    ended = ma(folder, "flow.py", "-p", "by=0")
    assert ended.returncode == 1
    files = [line.split('"')[1] for line in ended.stderr.splitlines() if line.startswith("  File ")]
    assert [Path(file).name for file in files] == ["flow.py", "parts.py"]
    assert ended.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert "During handling" not in ended.stderr


def test_wrong_use_ends_with_two_and_no_traceback(folder: Path) -> None:
    (folder / "two.py").write_text("from flow import *\n@pipeline\ndef a(): double(1)\n@pipeline\ndef b(): double(1)\n")
    for words, told in [
        (("nothing.py",), "there is no file 'nothing.py'"),
        (("nothing",), "there is no module 'nothing'"),
        (("flow.py:other",), "it has flow"),
        (("two.py",), "say two:a"),
        (("parts.py",), "put @pipeline over a function"),
        (("flow.py", "-p", "x=many"), "params.x"),
        (("flow.py", "-p", "y=1"), "params.y: is no parameter"),
        (("flow.py", "-p", "x"), "write NAME=VALUE"),
    ]:
        ended = ma(folder, *words)
        assert (ended.returncode, "Traceback" in ended.stderr) == (2, False), ended.stderr
        assert told in ended.stderr


def test_breakpoints_work(folder: Path) -> None:
    (folder / "flow.py").write_text(FLOW.replace('print("doubling")', "breakpoint()"))
    ended = ma(folder, "flow.py", "-p", "x=20", stdin="p x + 1\nc\n")
    assert ended.returncode == 0, ended.stderr
    assert "21" in ended.stdout
    assert '"half": 40.0' in ended.stdout


def test_users_code_does_not_see_the_platforms_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MA_TOKEN", "secret-token")
    (folder / "flow.py").write_text(FLOW.replace('print("doubling")', "import os; print(os.environ.get('MA_TOKEN'))"))
    assert ma(folder, "flow.py").stdout.splitlines()[0] == "None"


def test_outputs_are_kept_where_it_is_said(folder: Path) -> None:
    assert ma(folder, "flow.py", "--values", str(folder / "kept")).returncode == 0
    assert len(list((folder / "kept").rglob("*.json"))) == 2


def test_the_tracer_prints_the_graph_as_one_line(folder: Path) -> None:
    (folder / "flow.py").write_text("print('hello')\n" + FLOW)
    code, graph = traced(folder)
    assert code == 0
    assert [(step["name"], step["task"]) for step in graph["steps"]] == [
        ("double", "flow:double"),
        ("divide", "flow:divide"),
    ]
    assert list(graph["params"]["properties"]) == ["x", "by", "word"]


FAULTS = [
    (FLOW.replace("@task\ndef double", "@task(memory='4gb')\ndef double"), "memory", "BAD_RESOURCES"),
    (FLOW.replace("double(x), by", "double(x) + 1, by"), "", "BAD_PIPELINE"),
    (FLOW.replace("import parts", "import partz"), "", "BAD_CODE"),
    (FLOW + "\ndef f(:", "", "BAD_CODE"),
    (FLOW.replace("def flow(x: int", "def flow(x: set"), "params.x", "BAD_PARAM_TYPE"),
    (FLOW.replace("def flow(", "def other("), "pipeline", "NO_PIPELINE"),
    (FLOW.replace("    return {", "    @task\n    def inner(): ...\n    inner()\n    return {"), "steps", "BAD_TASK"),
]


@pytest.mark.parametrize(("code", "path", "reason"), FAULTS, ids=range(len(FAULTS)))
def test_the_tracer_tells_a_fault_with_its_place(folder: Path, code: str, path: str, reason: str) -> None:
    (folder / "flow.py").write_text(code)
    ended, printed = traced(folder)
    assert ended == 2
    (fault,) = printed["faults"]
    assert (fault["path"], fault["reason"], fault["file"]) == (path, reason, "flow.py")
    assert fault["line"] > 0
    assert fault["message"]


SAME = [
    FLOW.replace('    """Twice."""', '    """Two times."""'),
    FLOW.replace("    return helper(x)", "    # a comment\n\n    return helper(x)"),
    FLOW.replace("@task\ndef double", "@task(retries=3)\ndef double"),
    FLOW + "\n\ndef unrelated():\n    return 1\n",
]
OTHER = [
    FLOW.replace("return helper(x)", "return helper(x) + 0"),
    FLOW.replace("x * FACTOR", "FACTOR * x"),
    FLOW.replace("FACTOR = 2", "FACTOR = 3"),
]


def codes(folder: Path) -> dict[str, str]:
    _, graph = traced(folder)
    return {step["name"]: step["code"] for step in graph["steps"]}


def test_the_digest_of_code_is_that_of_what_it_does(folder: Path) -> None:
    before = codes(folder)
    for edited in SAME:
        (folder / "flow.py").write_text(edited)
        assert codes(folder) == before
    for edited in OTHER:
        (folder / "flow.py").write_text(edited)
        found = codes(folder)
        assert (found["double"] != before["double"], found["divide"]) == (True, before["divide"]), edited
    (folder / "flow.py").write_text(FLOW)
    (folder / "parts.py").write_text(PARTS.replace("x / by", "x // by"))
    assert (codes(folder)["double"], codes(folder)["divide"] != before["divide"]) == (before["double"], True)


def test_the_public_names_import_nothing_heavy() -> None:
    code = "import sys; from operators import Cache, foreach, loop, matrix, pipeline, task, when; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"airflow", "pandas", "numpy", "pyarrow", "ray", "google", "jsonschema", "fsspec", "yaml", "asyncio"}
    assert not heavy & {name.split(".")[0] for name in ended.stdout.split()}
