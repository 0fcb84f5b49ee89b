"""A Feast store, three artifacts and a server with a deployed model, made once."""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.serving import artifacts, store
from tests.serving.running import Server, running


@dataclass(frozen=True)
class Stage:
    """What every test may read and none may change.  home: with Feast's store in `features`."""

    repository: Any
    home: Path
    views: list[dict[str, Any]]
    first: str
    second: str


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    home = tmp_path_factory.mktemp("stage")
    repository = store.build(home / "features")
    views = repository.describe(store.SERVICE)
    first = artifacts.write(home / "first", artifacts.files(views))
    second = artifacts.write(home / "second", artifacts.files(views, seed=2))
    return Stage(repository, home, views, first, second)


def home_of(stage: Stage, folder: Path) -> Path:
    """Return a home of its own with a copy of the online store."""
    (folder / "features").mkdir(parents=True)
    with (
        contextlib.closing(sqlite3.connect(stage.home / "features" / "online.db")) as source,
        contextlib.closing(sqlite3.connect(folder / "features" / "online.db")) as target,
    ):
        source.backup(target)
    return folder


@pytest.fixture(scope="module")
def server(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one deployed model, shared by the tests of a file: leave it as it was."""
    with running(home_of(stage, tmp_path_factory.mktemp("serving"))) as found:
        assert found.deploy(stage.first, "one", 1)["state"] == "READY"
        yield found


@pytest.fixture
def own_server(stage: Stage, tmp_path: Path) -> Iterator[Server]:
    """A server without a model that the test may do anything with."""
    with running(home_of(stage, tmp_path / "own")) as found:
        yield found
