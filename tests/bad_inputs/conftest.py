"""A server for the rows of a file, and a caller of it on every surface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.config import Config
from tests.api.http_running import HttpServed
from tests.bad_inputs.surfaces import TOKEN, Surfaces
from tests.cli.conftest import use


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServed]:
    made = HttpServed(tmp_path_factory.mktemp("bad_inputs") / "store.db", token=TOKEN)
    yield made
    made.close()


@pytest.fixture
def here(
    served: HttpServed, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Surfaces:
    grpc_port = int(served.address.rpartition(":")[2])
    use(
        Config(home=tmp_path, projects_root=tmp_path, api_port=grpc_port, api_http_port=served.port, token=TOKEN),
        monkeypatch,
    )
    return Surfaces(served, tmp_path, capsys)
