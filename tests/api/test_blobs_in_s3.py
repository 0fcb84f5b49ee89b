"""External fields in a real S3 server: the same as in a folder."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from api import blob_copies, errors
from api.blob_sweep import Sweeper
from api.blobs import Blobs, opened
from api.external import External, refs_of
from api.kinds import kinds
from api.store.backup import backup, restore
from tests.api.calling import PROJECT, Calling
from tests.api.test_blob_copies import BY
from tests.api.test_external_fields import model
from tests.free_ports import free_ports

START_S = 60.0
KEYS = {"accessKey": "test-access", "secretKey": "test-secret"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the S3 protocol with one bucket, and the blob store's URL in it."""
    folder = tmp_path_factory.mktemp("s3")
    identity = {"name": "test", "credentials": [KEYS], "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "ids.json").write_text(json.dumps({"identities": [identity]}))
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    ports = free_ports(len(names) + 2)
    options = [f"-{name}={port}" for name, port in zip((*names, "s3.port", "s3.port.grpc"), ports, strict=True)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                Path(sys.executable).with_name("weed"),
                "server",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-dir={folder}",
                "-master.volumeSizeLimitMB=64",
                "-volume.max=3",
                "-s3",
                f"-s3.config={folder / 'ids.json'}",
                *options,
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    options_of_url = f"endpoint_override=127.0.0.1:{ports[-2]}&scheme=http&region=us-east-1"
    keys = f"access_key={KEYS['accessKey']}&secret_key={KEYS['secretKey']}"
    url = f"s3://resources/blobs?{options_of_url}&{keys}"
    try:
        _make_bucket(ports[-2], server, folder / "log")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _make_bucket(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    from pyarrow.fs import S3FileSystem

    deadline = time.monotonic() + START_S
    while True:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            S3FileSystem(
                access_key=KEYS["accessKey"],
                secret_key=KEYS["secretKey"],
                endpoint_override=f"127.0.0.1:{port}",
                scheme="http",
                region="us-east-1",
                allow_bucket_creation=True,
                connect_timeout=1,
                request_timeout=10,
            ).create_dir("resources")
            return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)


@pytest.fixture
async def stored(tmp_path: Path, address: str) -> AsyncIterator[Calling]:
    made = Calling(tmp_path / "store.db", external=External(opened(address)))
    await made.create(kinds()["Project"].new(PROJECT, PROJECT))
    yield made
    await made.close()


async def test_a_large_field_is_kept_in_s3(stored: Calling, address: str) -> None:
    made = await stored.create(model("m", 200))
    fresh = Calling(stored.path, external=External(opened(address)))
    assert await fresh.get("Model", "m") == made
    assert not (await fresh.listed("Model"))[0].spec.HasField("input_schema")
    (name,) = await opened(address).names(PROJECT)
    assert name.startswith(f"{PROJECT}/")
    await fresh.close()


async def test_what_s3_lost_or_changed_is_told(stored: Calling, address: str) -> None:
    await stored.create(model("lost", 300))
    blobs = opened(address)
    held = set(await blobs.names(PROJECT))
    await stored.create(model("changed", 400))
    (name,) = set(await blobs.names(PROJECT)) - held
    blobs._files.write(name, b"something else")
    fresh = Calling(stored.path, external=External(opened(address)))
    with pytest.raises(errors.DataLoss) as refused:
        await fresh.get("Model", "changed")
    assert refused.value.reason == "BLOB_DAMAGED"
    await blobs.remove(name)
    with pytest.raises(errors.DataLoss) as refused:
        await fresh.get("Model", "changed")
    assert refused.value.reason == "BLOB_MISSING"
    assert await fresh.get("Model", "lost")
    await fresh.close()


async def test_the_sweep_finds_its_way_in_s3(stored: Calling, address: str) -> None:
    later = Blobs(opened(address)._files, clock=lambda: time.time() + 30 * 86_400)
    left = f"{PROJECT}/17/{'a' * 64}"
    await later.mark(left)
    await stored.create(model("m", 500))
    await Sweeper(stored.resources, later).sweep()
    assert left in await later.names()
    much_later = Blobs(later._files, clock=lambda: time.time() + 60 * 86_400)
    assert await Sweeper(stored.resources, much_later).sweep() >= 1
    names = await later.names()
    assert left not in names
    assert await Calling.get(stored, "Model", "m")


async def test_a_server_that_is_away_is_unavailable(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    away = opened(
        f"s3://resources/blobs?endpoint_override=127.0.0.1:{port}&scheme=http&region=x&access_key=a&secret_key=b"
    )
    calling = Calling(tmp_path / "store.db", external=External(away))
    await calling.create(kinds()["Project"].new(PROJECT, PROJECT))
    began = time.monotonic()
    with pytest.raises(errors.Unavailable) as refused:
        await calling.create(model("m", 200))
    assert refused.value.reason == "BLOBS_UNAVAILABLE"
    assert "secret" not in refused.value.message
    assert time.monotonic() - began < 20
    assert not await calling.listed("Model")
    await calling.close()


@pytest.mark.parametrize("url", ["s3://", "s3://bucket?acces_key=x", "nothing://x/y"])
def test_a_url_that_is_none_is_told(url: str) -> None:
    with pytest.raises(ValueError, match="blob store"):
        opened(url)


async def test_a_copy_names_the_bucket_that_it_depends_on(stored: Calling, address: str, tmp_path: Path) -> None:
    made = await stored.create(model("kept", 600))
    keep = functools.partial(blob_copies.keep, url=address)
    give_back = functools.partial(blob_copies.give_back, url=address)
    backup(f"sqlite:///{stored.path}", tmp_path / "copy.db", keep)
    restore(tmp_path / "copy.db", f"sqlite:///{tmp_path}/again.db", BY, also=give_back)
    again = Calling(tmp_path / "again.db", external=External(opened(address)))
    assert (await again.get("Model", "kept")).spec == made.spec
    await again.close()
    # What the bucket lost is told by both; the copy says which bucket it was, and no keys.
    light = next(item for item in await stored.listed("Model") if item.metadata.name == "kept")
    (ref,) = refs_of(light).values()
    await opened(address).remove(ref.name(PROJECT))
    with pytest.raises(errors.DataLoss, match=ref.digest):
        backup(f"sqlite:///{stored.path}", tmp_path / "second.db", keep)
    with pytest.raises(errors.FailedPrecondition, match="set MA_BLOBS to s3://resources/blobs") as refused:
        restore(tmp_path / "copy.db", f"sqlite:///{tmp_path}/third.db", BY, also=give_back)
    assert KEYS["secretKey"] not in refused.value.message
    assert KEYS["secretKey"].encode() not in (tmp_path / "copy.db").read_bytes()
    assert not (tmp_path / "third.db").exists()
