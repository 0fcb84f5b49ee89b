"""`ma backup` and `ma restore`: one file out, one file in, and no restore under a running platform."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.cli.platform import record
from api.config import Config
from api.kinds import kinds
from api.resources import Resources
from api.store.sqlite import SqliteStore

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


def test_a_store_in_a_database_is_not_copied_as_a_file(
    ma: Ma, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MA_STORE_URL", "postgresql://ma:secret@127.0.0.1/ma")
    for command in ("backup", "restore"):
        refused = ma(command, str(tmp_path / "copy.db"))
        assert refused.code == 1
        assert "pg_dump" in refused.err
        assert "secret" not in refused.err
