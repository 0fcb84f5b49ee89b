"""The house rules that keep flat import names and the one-way import direction safe."""

import ast
import configparser
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"api", "operators", "serving"}
LONGEST_FILE = 400


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def written_by_hand() -> list[Path]:
    return [path for path in tracked("*.py") if not path.is_relative_to(ROOT / "api" / "gen")]


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_only_the_three_packages_are_packages() -> None:
    roots = {path.relative_to(ROOT).parts[0] for path in tracked("*__init__.py")}
    assert roots == PACKAGES


def test_plugin_files_have_unique_stems() -> None:
    stems = [path.stem for path in tracked("plugins/*.py")]
    assert stems, "there is at least one plugin"
    assert len(stems) == len(set(stems))
    assert not set(stems) & (PACKAGES | {path.stem for path in tracked("dags/*.py")})


def test_proto_is_no_package_and_its_paths_are_branded() -> None:
    assert not tracked("proto/*__init__.py")
    branches = {path.relative_to(ROOT / "proto").parts[0] for path in tracked("proto/*.proto")}
    assert branches <= {"etcd", "michelangelo", "k8s.io"}


def test_pytest_imports_tests_without_packages() -> None:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    assert "--import-mode=importlib" in config["tool:pytest"]["addopts"]


@pytest.mark.parametrize("folder", ["dags", "plugins"])
def test_nobody_imports_files_that_airflow_parses(folder: str) -> None:
    stems = {path.stem for path in tracked(f"{folder}/*.py")}
    offenders = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in written_by_hand()
        for name in imports_of(path)
        if name.split(".")[0] in {folder} | stems
    ]
    assert not offenders


@pytest.mark.parametrize("folder", ["dags", "plugins"])
def test_files_that_airflow_parses_import_only_operators_and_airflow(folder: str) -> None:
    forbidden = {"grpc", "ray", "feast", "mlflow", "pandas", "serving", "httpx"}
    offenders = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in tracked(f"{folder}/*.py")
        for name in imports_of(path)
        if name.split(".")[0] in forbidden or (name.startswith("api") and name not in {"api.config", "api.client"})
    ]
    assert not offenders


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in written_by_hand()
        if (lines := len(path.read_text().splitlines())) > LONGEST_FILE
    }
    assert not long


def test_every_module_opens_with_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in written_by_hand()
        if not path.is_relative_to(ROOT / "tests") and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent
