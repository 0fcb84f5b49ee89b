"""Every benchmark says what it measures, beside what, and how to run it; the document has a place for each."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import demo
from benchmarks.measuring import document
from benchmarks.measuring.results import Result
from benchmarks.systems import keepalive

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"
NOT_A_BENCHMARK = {"__main__", "workbench"}
LONGEST = 200


def modules() -> Iterator[Path]:
    return (path for path in FOLDER.glob("*.py") if path.stem not in NOT_A_BENCHMARK)


def test_every_benchmark_can_be_named() -> None:
    assert {path.stem for path in modules()} == set(command.NAMES)


@pytest.mark.parametrize("name", command.NAMES)
def test_a_benchmark_tells_what_it_measures_its_peer_and_its_command(name: str) -> None:
    module: Any = importlib.import_module(f"benchmarks.{name}")
    said = module.__doc__
    assert re.search(r"^Peer: \S", said, re.MULTILINE)
    assert re.search(rf"^Command: `python -m benchmarks {name}\b", said, re.MULTILINE)
    assert module.TITLE
    assert module.PEER
    assert callable(module.measure)


def test_every_module_is_short_and_says_what_it_is() -> None:
    for path in FOLDER.rglob("*.py"):
        lines = path.read_text().splitlines()
        assert len(lines) <= LONGEST, path
        assert lines[0].startswith('"""'), path


def test_no_benchmark_asserts_a_time() -> None:
    for path in modules():
        assert not re.search(r"^\s*assert\b", path.read_text(), re.MULTILINE), path


def test_the_document_has_a_place_for_each_benchmark_and_no_other() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    assert sorted(document.places(text)) == sorted(command.NAMES)


def test_results_are_written_into_a_document_without_running_anything(result: Result, tmp_path: Path) -> None:
    result.write(tmp_path / "results")
    path = tmp_path / "performance.md"
    path.write_text((ROOT / "docs" / "performance.md").read_text())
    arguments = ["--markdown", str(path), "--out", str(tmp_path / "results")]
    assert command.main(arguments) == 0
    assert "| p50, 1 connection | 0.0900 ms |" in path.read_text()


def test_a_benchmark_that_fails_is_told_and_leaves_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = tmp_path / "no-home"
    assert command.main(["serving", "--home", str(nothing), "--out", str(tmp_path / "results")]) == 1
    assert "no-home has no registered model" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["nothing"])
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


def test_a_demo_is_read_by_its_phases() -> None:
    printed = "start ...\n  ready\n[   16s] start the platform\n[  0.1s] apply\n[ 1m54s] done\n[  4.9s] stopped\n"
    assert demo.phases(printed) == {"start the platform": 16, "apply": 0.1, "stopped": 4.9}
    assert demo.seconds("2h10m") == 7800


def test_an_answer_is_whole_when_its_body_is() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert keepalive.whole(head[:20]) is None
    assert keepalive.whole(head) == len(head) + 5
    with pytest.raises(keepalive.BadAnswer, match="no Content-Length"):
        keepalive.whole(b"HTTP/1.1 200 OK\r\n\r\n")


def test_a_result_holds_every_round(result: Result, tmp_path: Path) -> None:
    found = json.loads(result.write(tmp_path).read_text())
    assert found["figures"][0]["ours"] == [0.08, 0.09, 0.1, 0.09, 0.08]
    assert found["machine"]["cores"] == 2
