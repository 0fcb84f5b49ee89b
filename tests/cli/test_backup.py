"""`ma backup` and `ma restore`: one file out, one file in, and no restore under a running platform."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.cli.platform import record
from api.config import Config
from api.kinds import kinds
from api.resources import Resources
from api.store.backup import backup
from api.store.open import open_store
from api.store.sqlite import SqliteStore
from tests.free_ports import free_ports

Ma = Callable[..., Any]


async def test_what_was_deleted_comes_back(ma: Ma, config: Config, tmp_path: Path) -> None:
    store = SqliteStore(config.store_path)
    await Resources(store).create(kinds()["Project"].new("shop", "shop"))
    stood = await store.revision()
    await Resources(store).delete("Project", "shop", "shop")
    copied = ma("backup", str(tmp_path / "copy.db"))
    assert (copied.code, copied.out.strip()) == (0, f"{tmp_path / 'copy.db'}: the store at revision {stood + 1}")
    await store.close()
    restored = ma("restore", str(tmp_path / "copy.db"), "--revision", str(stood))
    assert restored.code == 0, restored.err
    assert restored.out.startswith(f"1 objects as of revision {stood};")
    store = SqliteStore(config.store_path)
    assert (await Resources(store).get("Project", "shop", "shop")).metadata.resourceVersion == str(stood)
    await store.close()


def test_a_running_platform_keeps_its_store(ma: Ma, config: Config, tmp_path: Path) -> None:
    config.run_path.mkdir()
    with record.lock(config.run_path):
        refused = ma("restore", str(tmp_path / "copy.db"))
    assert (refused.code, refused.err) == (1, "ma: the platform runs: stop it with `ma down`, then restore\n")


def test_a_copy_that_is_not_there_is_one_line(ma: Ma, config: Config, tmp_path: Path) -> None:
    refused = ma("restore", str(tmp_path / "none.db"))
    assert refused.code == 1
    assert refused.err.count("\n") == 1
    assert "there is no copy" in refused.err
    assert ma("backup", str(tmp_path / "copy.db")).code == 1


def test_a_database_that_is_not_there_is_one_line_without_its_password(
    ma: Ma, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    store = f"sqlite:///{tmp_path}/other.db"
    backup(make(store), tmp_path / "copy.db")
    monkeypatch.setenv("MA_STORE_URL", f"postgresql://ma:secret@127.0.0.1:{port}/ma")
    for refused in (ma("backup", str(tmp_path / "second.db")), ma("restore", str(tmp_path / "copy.db"))):
        assert refused.code == 3
        assert refused.err.count("\n") == 1
        assert "cannot be reached" in refused.err
        assert "secret" not in refused.err
    assert not list(tmp_path.glob("second.db*"))


def test_a_store_in_etcd_is_copied_by_etcd(ma: Ma, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MA_STORE_URL", "etcd://127.0.0.1:2379")
    for command in ("backup", "restore"):
        refused = ma(command, str(tmp_path / "copy.db"))
        assert refused.code == 1
        assert "etcdctl snapshot save" in refused.err


def test_a_store_moves_from_a_file_to_a_database(
    ma: Ma, config: Config, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(f"sqlite:///{config.store_path}")
    assert ma("backup", str(tmp_path / "copy.db")).code == 0
    monkeypatch.setenv("MA_STORE_URL", postgres_url)
    moved = ma("restore", str(tmp_path / "copy.db"))
    assert moved.code == 0, moved.err
    assert moved.out.startswith("1 objects as of revision 1;")
    again = ma("restore", str(tmp_path / "copy.db"))
    assert again.code == 2
    assert "add --yes to replace it" in again.err
    assert ma("restore", str(tmp_path / "copy.db"), "--yes").code == 0
    assert ma("backup", str(tmp_path / "back.db")).code == 0


def make(url: str) -> str:
    """Make a store with one object."""

    async def work() -> None:
        store = await open_store(url)
        await Resources(store).create(kinds()["Project"].new("shop", "shop"))
        await store.close()

    asyncio.run(work())
    return url
