"""One server a test module: tests keep apart by projects of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.running import Served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gRPC server over an empty store."""
    made = Served(tmp_path_factory.mktemp("api") / "store.db")
    yield made
    made.close()


@pytest.fixture
def project(served: Served) -> str:
    """A project of this test alone."""
    return served.project()
