"""What the README shows is true: its commands are the Makefile's and the command's own, its Python makes a DAG."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT, blocks

README = (ROOT / "README.md").read_text()
BLOCKS = blocks("README.md")
SHELL = [line.split("#")[0].split() for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
DAG = """
import json
from airflow.sdk import DAG
exec(open("README.py").read())
print(json.dumps({task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}))
"""


def test_the_two_commands_are_targets_that_ci_runs_too() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = {words[1] for words in SHELL if words and words[0] == "make"}
    assert made == {"demo", "test"}
    assert made <= targets
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make lint test")


@pytest.mark.parametrize("words", [words for words in SHELL if words and words[0] == "ma"], ids=" ".join)
def test_every_command_is_understood(words: list[str]) -> None:
    """Without a platform: a wrong option or file would end with 2; nothing that answers ends with 3 or 1."""
    environ = {"PATH": "", "MA_HOME": "/nonexistent", "MA_API_PORT": "1", "MA_SERVING_PORT": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "api.cli.main", *words[1:], *(["--timeout", "1"] if "--wait" in words else [])],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode in (1, 3), ended.stderr
    assert "does not answer" in ended.stderr or words[1] == "status"


def test_the_python_is_a_dag(tmp_path: Path) -> None:
    (tmp_path / "README.py").write_text("\n".join(text for kind, text in BLOCKS if kind == "python"))
    environ = {"PYTHONPATH": str(ROOT), "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DAG],
        cwd=tmp_path,
        env={**environ, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == {"prepare_dataset": ["train"], "train": []}


PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md"))
LINK = re.compile(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)")


def links(page: Path) -> set[Path]:
    return {(page.parent / found).resolve() for found in LINK.findall(page.read_text())}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert not [path for path in links(page) if not path.exists()]


def test_every_page_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    pending = {ROOT / "README.md"}
    while pending:
        page = pending.pop()
        reached.add(page)
        pending |= {path for path in links(page) if path.suffix == ".md" and path.exists()} - reached
    assert not [page.name for page in PAGES if page not in reached]


def test_the_figures_of_the_example_are_those_that_its_test_holds() -> None:
    assert "336,776" in README
    assert "327,346" in README
    assert "AUC 0.74" in README
