"""Configurations and stores with which the server does not start: code 78 and every fault, never a stack."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from api.errors import ApiError
from api.kinds import kinds
from api.resources import Resources
from api.store.base import Key
from api.store.sqlite import SqliteStore
from tests.free_ports import free_ports

BAD_CONFIGURATION = 78


def start(home: Path, **changes: str) -> tuple[int, list[str]]:
    """Start the server with variables of its own and return its status and what it said, line by line."""
    api, http = free_ports(2)
    variables = {"MA_HOME": str(home), "MA_API_PORT": str(api), "MA_API_HTTP_PORT": str(http), "MA_TOKEN": ""}
    ended = subprocess.run(
        [sys.executable, "-m", "api.server"],
        env={**os.environ, **variables, **changes},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return ended.returncode, ended.stderr.splitlines()


def refused(home: Path, **changes: str) -> list[str]:
    code, lines = start(home, **changes)
    assert code == BAD_CONFIGURATION, lines
    assert lines
    assert all(line.startswith("api.server: ") for line in lines), lines
    return lines


@pytest.mark.parametrize("port", ["x", "0", "-1", "65536", "80.0", "１５", "9" * 5_000, "8080; rm -rf"])
def test_what_is_no_port_is_named(tmp_path: Path, port: str) -> None:
    lines = refused(tmp_path, MA_API_PORT=port, MA_API_HTTP_PORT=port, MA_AIRFLOW_PORT=port, MA_SERVING_PORT=port)
    assert [line.split()[1] for line in lines] == [
        "MA_API_PORT",
        "MA_API_HTTP_PORT",
        "MA_AIRFLOW_PORT",
        "MA_SERVING_PORT",
    ]
    assert all(len(line) < 200 for line in lines)


def test_taken_ports_and_an_unwritable_home_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket.socket() as one, socket.socket() as other:
        for held in (one, other):
            held.bind(("127.0.0.1", 0))
            held.listen()
        ports = [str(held.getsockname()[1]) for held in (one, other)]
        lines = refused(tmp_path / "file" / "home", MA_API_PORT=ports[0], MA_API_HTTP_PORT=ports[1])
    assert len(lines) == 3
    assert "set MA_API_PORT" in lines[0]
    assert "set MA_API_HTTP_PORT" in lines[1]
    assert "MA_HOME" in lines[2]


def test_two_services_cannot_share_a_port(tmp_path: Path) -> None:
    (port,) = map(str, free_ports(1))
    (line,) = refused(tmp_path, MA_API_PORT=port, MA_API_HTTP_PORT=port)
    assert "MA_API_PORT and MA_API_HTTP_PORT are both" in line


@pytest.mark.parametrize("home", ["file", "file/below", "/proc/self/nowhere"])
def test_a_home_that_cannot_be_written_is_named(tmp_path: Path, home: str) -> None:
    (tmp_path / "file").write_text("")
    (line,) = refused(tmp_path / home)
    assert "MA_HOME" in line
    assert "cannot be written" in line


def test_a_token_that_is_no_text_is_named_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "token").write_bytes(b"\xff\xfesecret")
    (line,) = refused(tmp_path)
    assert "token" in line
    assert "secret" not in line


def a_folder(path: Path) -> None:
    path.mkdir()


def noise(path: Path) -> None:
    path.write_bytes(os.urandom(100_000))
    path.chmod(0o600)


def open_to_all(path: Path) -> None:
    path.touch()
    path.chmod(0o666)


def of_a_later_release(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
        db.execute("INSERT INTO schema_version VALUES (99)")
        db.commit()
    path.chmod(0o600)


STORES: Mapping[Callable[[Path], None], str] = {
    a_folder: "cannot be opened",
    noise: "cannot be read",
    open_to_all: "chmod 600",
    of_a_later_release: "newer release",
}


@pytest.mark.parametrize("spoil", STORES)
def test_a_store_that_cannot_be_used_keeps_the_server_from_starting(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(tmp_path / "store.db")
    (line,) = refused(tmp_path)
    assert STORES[spoil] in line


async def test_a_damaged_page_is_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    resources = Resources(store)
    await resources.create(kinds()["Project"].new("shop", "shop"))
    for number in range(200):
        await resources.create(kinds()["ModelFamily"].new("shop", f"m-{number}"))
    await store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(8, size // 4096, 4):
            file.seek(page * 4096)
            file.write(b"\0" * 4096)
    with pytest.raises(ApiError) as refused_store:
        SqliteStore(path)
    assert (refused_store.value.code, refused_store.value.reason) == ("DATA_LOSS", "STORE_CORRUPT")


async def test_a_store_whose_log_is_cut_opens_with_what_was_checkpointed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await Resources(store).create(kinds()["Project"].new("shop", "shop"))
    copied = path.read_bytes(), log_of(path).read_bytes()
    await store.close()
    for cut in (0, 32, 5_000, len(copied[1]) - 1):
        other = tmp_path / f"cut-{cut}.db"
        other.write_bytes(copied[0])
        other.chmod(0o600)
        log_of(other).write_bytes(copied[1][:cut])
        again = SqliteStore(other)
        found = await Resources(again).find(Key("Project", "shop", "shop"))
        assert (found is None) == (await again.revision() == 0), "an object and its revision come and go together"
        await again.close()


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


@pytest.mark.parametrize("seconds", ["soon", "0", "1.4", "301", "-15", "nan", "inf", "1e999"])
def test_a_lease_that_is_too_short_or_too_long_is_named(tmp_path: Path, seconds: str) -> None:
    (line,) = refused(tmp_path, MA_LEASE_TTL_S=seconds)
    assert "MA_LEASE_TTL_S must be from 1.5 to 300 seconds" in line
