"""Code that is sent to the server: parts, whole files by their content, who may, and what is removed again."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.blobs import opened
from api.calls import Call
from api.code_store import DAY_S, CodeStore
from api.code_sweep import CodeSweeper
from api.code_tar import MOST_FILES
from api.errors import Unavailable
from api.gen.michelangelo.platform.v1 import code_service_pb2 as wire
from api.kinds import kinds
from api.resources import Resources
from api.store.sqlite import SqliteStore
from api.uploads import LARGEST_PART, Uploads
from tests.security.matrix import EVERYBODY, verdict
from tests.security.objects import smallest
from tests.security.secured import Caller, Secured, known, refused

SERVICE = "/michelangelo.platform.v1.CodeService/"
MINE, THEIRS = "mine", "theirs"
MEMBERS = ("viewer", "editor", "operator", "approver", "admin")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("uploads"), [known(name) for name in (*MEMBERS, "stranger")])
    for project in (MINE, THEIRS):
        made.owner.create(smallest("Project", project))
    for role in MEMBERS:
        made.owner.bind(MINE, role.upper(), f"user:{role}")
    yield made
    made.close()


def tar_of(**files: bytes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def part(caller: Caller, data: bytes, project: str = MINE) -> str:
    request = wire.PutPartRequest(namespace=project, data=data)
    return wire.PutPartResponse.FromString(caller.raw(SERVICE + "PutPart", request.SerializeToString())).part


def put(caller: Caller, data: bytes, parts: list[str], project: str = MINE, **more: Any) -> wire.PutCodeResponse:
    fields: dict[str, Any] = {
        "namespace": project,
        "sha256": digest(data),
        "form": wire.PutCodeRequest.TAR,
        "parts": parts,
    } | more
    raw = caller.raw(SERVICE + "PutCode", wire.PutCodeRequest(**fields).SerializeToString())
    return wire.PutCodeResponse.FromString(raw)


def test_a_file_is_put_together_from_its_parts_and_stored_once(secured: Secured) -> None:
    data = tar_of(**{"flow.py": b"x" * 3_000_000})
    assert not put(secured.owner, data, []).stored
    parts = [part(secured.owner, data[at : at + LARGEST_PART]) for at in range(0, len(data), LARGEST_PART)]
    assert len(parts) == 2
    answer = put(secured.owner, data, parts)
    assert (answer.stored, answer.uri.endswith(f"/code/{MINE}/{digest(data)}.tar")) == (True, True)
    assert Path(answer.uri.removeprefix("file://")).read_bytes() == data
    assert put(secured.owner, data, []) == answer
    assert not put(secured.owner, data, [], project=THEIRS).stored, "projects share nothing"


def bad() -> Iterator[Any]:
    data = tar_of(**{"flow.py": b"1"})
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w") as tar:
        member = tarfile.TarInfo("../out")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(member)
    many = tar_of(**{f"{number}.py": b"" for number in range(MOST_FILES + 1)})
    unknown = f"1-{'0' * 64}-3"
    for name, whole, sent, more, reason, field in (
        ("another digest", data, [data], {"sha256": "0" * 64}, "DIGEST_DIFFERS", "sha256"),
        ("parts in another order", data, [data[512:], data[:512]], {}, "DIGEST_DIFFERS", "sha256"),
        ("no digest", data, [data], {"sha256": "../../etc"}, "INVALID_FIELDS", "sha256"),
        ("no form", data, [data], {"form": 0}, "INVALID_FIELDS", "form"),
        ("no tar", b"import os", [b"import os"], {}, "NO_TAR", "parts"),
        ("a link", link.getvalue(), [link.getvalue()], {}, "NO_FILE", "parts"),
        ("too many files", many, [many[:LARGEST_PART], many[LARGEST_PART:]], {}, "TOO_LARGE", "parts"),
        ("a part of nobody", data, [], {"parts": [unknown]}, "UNKNOWN_PART", "parts[0]"),
        ("no part", data, [], {"parts": ["../x"]}, "INVALID_FIELDS", "parts[0]"),
        ("too many parts", data, [], {"parts": [unknown] * 13}, "INVALID_FIELDS", "parts"),
        ("a large difference", data, [], {"form": 2, "parts": [f"1-{'0' * 64}-2000000"]}, "TOO_LARGE", "parts"),
    ):
        yield pytest.param(whole, sent, more, reason, field, id=name)


@pytest.mark.parametrize(("whole", "sent", "more", "reason", "field"), list(bad()))
def test_what_is_not_what_it_says_is_not_stored(
    secured: Secured, whole: bytes, sent: list[bytes], more: dict[str, Any], reason: str, field: str
) -> None:
    parts = [part(secured.owner, data) for data in sent]
    refusal = refused(put, secured.owner, whole, **{"parts": parts} | more)
    assert (refusal.reason, refusal.paths) == (reason, [field])
    assert not put(secured.owner, whole, []).stored


@pytest.mark.parametrize(("data", "reason"), [(b"", "MISSING_FIELD"), (b"x" * (LARGEST_PART + 1), "TOO_LARGE")])
def test_a_part_has_something_and_not_too_much(secured: Secured, data: bytes, reason: str) -> None:
    refusal = refused(part, secured.owner, data)
    assert (refusal.reason, refusal.paths) == (reason, ["data"])


@pytest.mark.parametrize("project", [MINE, THEIRS])
@pytest.mark.parametrize("who", EVERYBODY)
def test_who_may_make_pipelines_or_runs_brings_their_code(secured: Secured, who: str, project: str) -> None:
    caller = secured.nobody if who == "nobody" else secured.user(who)
    told = [verdict(who, "Create", kind, own=project == MINE) for kind in ("Pipeline", "PipelineRun")]
    wanted, data = "OK" if "OK" in told else told[0], tar_of(**{f"{who}.py": b""})
    for call, given in ((part, (data, project)), (put, (data, [], project))):
        if wanted == "OK":
            assert call(caller, *given)
        else:
            assert refused(call, caller, *given).code == wanted


def test_each_call_leaves_one_record(secured: Secured) -> None:
    before = len(secured.audit())
    data = tar_of(**{"audited.py": b""})
    put(secured.user("editor"), data, [part(secured.user("editor"), data)])
    refused(put, secured.user("viewer"), data, [])
    told = [(record.verb, record.outcome) for record in secured.audit()[before:]]
    assert told == [("PutPart", "OK"), ("PutCode", "OK"), ("PutCode", "PERMISSION_DENIED")]


async def test_code_goes_when_nothing_names_it_and_nobody_has_asked_for_it(tmp_path: Path) -> None:
    day = [100]
    store = CodeStore(str(tmp_path / "artifacts"), lambda: day[0] * DAY_S)
    resources = Resources(SqliteStore(tmp_path / "store.db"))
    sweeper = CodeSweeper(resources, store)
    await resources.create(kinds()["Project"].new(MINE, MINE))
    pipeline = kinds()["Pipeline"].new(MINE, "named")
    data = {name: tar_of(**{name: b""}) for name in ("named", "left", "asked")}
    for each in data.values():
        store.put(MINE, digest(each), each)
    pipeline.spec.manifest.uniflow_tar = store.uri(MINE, digest(data["named"]))
    await resources.create(pipeline)

    def there() -> set[str]:
        return {name for name, each in data.items() if store.has(MINE, digest(each))}

    assert await sweeper.sweep() == 0
    day[0] = 103
    assert (await sweeper.sweep(), there()) == (0, {"named", "left", "asked"})
    store.want(MINE, digest(data["asked"]))
    day[0] = 104
    assert (await sweeper.sweep(), there()) == (1, {"named", "asked"})
    await resources.delete("Pipeline", MINE, "named")
    for later in (105, 109, 113, 117):
        day[0] = later
        await sweeper.sweep()
    assert there() == set()
    assert store.names() == [], "no note is left"
    await resources.store.close()


async def test_what_somebody_asks_for_while_it_goes_is_put_back(tmp_path: Path) -> None:
    day, data = [100], tar_of(**{"flow.py": b"1"})

    class Raced(CodeStore):
        """A store in which an upload comes just after a file was removed, or just before."""

        def remove(self, name: str) -> None:
            if name.startswith(MINE) and early:
                self.want(MINE, digest(data))
            super().remove(name)

    resources = Resources(SqliteStore(tmp_path / "store.db"))
    for early in (True, False):
        store = Raced(str(tmp_path / str(early)), lambda: day[0] * DAY_S)
        store.put(MINE, digest(data), data)
        sweeper = CodeSweeper(resources, store)
        await sweeper.sweep()
        day[0] += 4
        assert await sweeper.sweep() == (0 if early else 1)
        assert store.has(MINE, digest(data)) == early
    await resources.store.close()


async def test_an_upload_finds_out_that_the_store_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    resources = Resources(SqliteStore(tmp_path / "store.db"))
    uploads = Uploads(resources, opened(str(tmp_path / "blobs")), str(tmp_path / "file" / "artifacts"))
    request = wire.PutCodeRequest(namespace=MINE, sha256="0" * 64, form=wire.PutCodeRequest.TAR)
    with pytest.raises(Unavailable) as refusal:
        await uploads.put_code(Call(), request)
    assert refusal.value.reason == "ARTIFACTS_UNAVAILABLE"
    await resources.store.close()


def test_the_service_is_none_where_there_is_no_place_for_code(served: Any) -> None:
    call = served.channel.unary_unary(SERVICE + "PutCode")
    with pytest.raises(grpc.RpcError) as error:
        call(b"", timeout=20)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
