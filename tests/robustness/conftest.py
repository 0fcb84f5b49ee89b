"""Stores to be tried: the same test on each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness.stores import Place


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store of one test."""
    return made(request, tmp_path)


@pytest.fixture(params=["SQLite", "PostgreSQL", "etcd"])
def any_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store of one test, of any kind."""
    return made(request, tmp_path)


@pytest.fixture(params=["SQLite", "PostgreSQL", pytest.param("etcd", marks=pytest.mark.robustness)])
def busy_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store of one test that takes its time; on etcd in the long lane alone."""
    return made(request, tmp_path)


def made(request: pytest.FixtureRequest, folder: Path) -> Place:
    """Return the store that a parameter names."""
    if request.param == "SQLite":
        return Place("SQLite", f"sqlite:///{folder}/store.db")
    fixture = {"PostgreSQL": "postgres_url", "etcd": "etcd_url"}[request.param]
    return Place(request.param, request.getfixturevalue(fixture))
