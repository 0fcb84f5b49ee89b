"""Failpoints: every name stands in the code, nothing is armed by itself, and a bad variable says what is wrong."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api import failpoints
from api.errors import Unavailable

ROOT = Path(__file__).resolve().parents[2]
CALLS = 100_000


def passed_in_the_code() -> Iterator[str]:
    for path in (ROOT / "api").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoints.hit":
                assert isinstance(node.args[0], ast.Constant), f"{path}: a name is written out"
                yield str(node.args[0].value)


def test_the_known_names_are_those_in_the_code() -> None:
    assert set(passed_in_the_code()) == failpoints.KNOWN


def test_without_the_variable_a_pass_is_an_empty_call() -> None:
    assert os.environ.get(failpoints.VARIABLE) is None
    assert failpoints.hit is failpoints.off
    began = time.perf_counter()
    for _ in range(CALLS):
        failpoints.hit("store.after_commit")
    assert (time.perf_counter() - began) / CALLS < 2e-6


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nowhere=kill", "there is no 'nowhere'"),
        ("store.after_commit=explode", "'store.after_commit=explode' is not"),
        ("store.after_commit=kill@0", "'store.after_commit=kill@0' is not"),
    ],
)
def test_a_bad_variable_says_what_is_wrong(text: str, told: str) -> None:
    with pytest.raises(ValueError, match="MA_FAILPOINTS") as refused:
        failpoints.armed(text)
    assert told in str(refused.value)


def test_a_rule_acts_at_its_pass_alone() -> None:
    hit = failpoints.armed("trigger.before_post=fail@3; store.after_commit=sleep(0.05)")
    hit("trigger.before_post")
    hit("trigger.before_post")
    with pytest.raises(Unavailable, match=r"trigger\.before_post"):
        hit("trigger.before_post")
    hit("trigger.before_post")
    began = time.monotonic()
    hit("store.after_commit")
    assert time.monotonic() - began >= 0.05
    hit("store.before_commit")


def test_a_process_dies_at_the_pass_that_was_named() -> None:
    program = """
from api import failpoints
for n in range(9):
    print(n, flush=True)
    failpoints.hit('store.before_commit')
"""
    died = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, failpoints.VARIABLE: "store.before_commit=kill@4"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert died.returncode == -signal.SIGKILL
    assert died.stdout.split() == ["0", "1", "2", "3"]
