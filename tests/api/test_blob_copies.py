"""Large fields go with a copy of the store: those of a folder in it, those elsewhere by name; nothing damaged does."""

from __future__ import annotations

import functools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api import blob_copies
from api.audit import Entry
from api.blob_files import LocalFiles
from api.blobs import Blobs
from api.errors import DataLoss, FailedPrecondition
from api.external import External
from api.kinds import kinds
from api.store.backup import backup, restore
from tests.api.calling import PROJECT, Calling
from tests.api.test_external_fields import model, pipeline

BY = Entry(time_us=1, subject="somebody", verb="Restore", kind="Store", namespace="", name="copy.db", request_id="r")


class Platform(Calling):
    """A store with a folder of large fields beside it."""

    def __init__(self, home: Path) -> None:
        self.home, self.blobs = home, home / "blobs"
        home.mkdir(exist_ok=True)
        super().__init__(home / "store.db", external=External(Blobs(LocalFiles(self.blobs))), admitters={})

    @property
    def url(self) -> str:
        """The store's URL."""
        return f"sqlite:///{self.path}"

    def copy(self, file: Path) -> int:
        """Copy store and large fields."""
        return backup(self.url, file, functools.partial(blob_copies.keep, url=str(self.blobs)))

    def files(self) -> list[Path]:
        """Where the large fields are."""
        return sorted(path for path in self.blobs.rglob("*") if path.is_file())


def put_back(home: Path, file: Path, revision: int | None = None) -> None:
    """Put both back where nobody uses them."""
    home.mkdir(exist_ok=True)
    also = functools.partial(blob_copies.give_back, url=str(home / "blobs"))
    restore(file, f"sqlite:///{home}/store.db", BY, revision, also=also)


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    made = Platform(tmp_path / "home")
    await made.create(kinds()["Project"].new(PROJECT, PROJECT))
    yield made
    await made.close()


async def test_a_folder_of_large_fields_comes_back_with_the_store(platform: Platform, tmp_path: Path) -> None:
    first = await platform.create(pipeline("p", 2_000))
    stood = await platform.store.revision()
    second = pipeline("p", 3_000, "y")
    second.metadata.resourceVersion = first.metadata.resourceVersion
    await platform.call("Update", "Pipeline", pipeline=second)
    platform.copy(tmp_path / "copy.db")
    await platform.close()
    # The machine is lost; another one gets the copy.
    shutil.rmtree(platform.home)
    for revision, value in ((None, b"y" * 3_000), (stood, b"x" * 2_000)):
        put_back(platform.home, tmp_path / "copy.db", revision)
        again = Platform(platform.home)
        assert (await again.get("Pipeline", "p")).spec.manifest.content.value == value
        await again.close()
    assert all(path.stat().st_mode & 0o077 == 0 for path in platform.files())
    assert len(platform.files()) == 2


async def test_a_value_that_is_gone_or_another_is_not_copied(platform: Platform, tmp_path: Path) -> None:
    await platform.create(model("m", 200))
    (path,) = platform.files()
    whole = path.read_bytes()
    for damage in (lambda: path.write_bytes(whole[:-1] + b"?"), path.unlink):
        damage()
        with pytest.raises(DataLoss, match="--without-blobs") as refused:
            platform.copy(tmp_path / "copy.db")
        assert refused.value.reason == "BLOB_MISSING"
        assert path.name in refused.value.message
        assert not (tmp_path / "copy.db").exists()
    backup(platform.url, tmp_path / "copy.db")


async def test_what_a_copy_does_not_hold_must_be_where_it_is_put_back(platform: Platform, tmp_path: Path) -> None:
    await platform.create(model("m", 200))
    backup(platform.url, tmp_path / "copy.db")
    await platform.close()
    put_back(platform.home, tmp_path / "copy.db")
    (path,) = platform.files()
    path.unlink()
    before = platform.path.read_bytes()
    with pytest.raises(FailedPrecondition, match="MA_BLOBS") as refused:
        put_back(platform.home, tmp_path / "copy.db")
    assert path.name in refused.value.message
    assert platform.path.read_bytes() == before
    restore(tmp_path / "copy.db", platform.url, BY)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/a?region=us-east-1&access_key=k&secret_key=geheim", "s3://bucket/a?region=us-east-1"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("ftp://user:geheim@host/a", "ftp://host/a"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert blob_copies.without_secrets(url) == shown
