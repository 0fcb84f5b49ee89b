"""A project of a user that is imported from a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operators.cache.project import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project that was never run."""
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Project(tmp_path / "code")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("flow", "shop")]:
        del sys.modules[name]
