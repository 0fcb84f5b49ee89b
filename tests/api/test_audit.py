"""The audit log: one record a call, in the transaction of its effect, in a chain that shows every change (G16)."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api import errors
from api.audit import Entry, Record, canonical, first_break, link, read
from api.audit_anchor import Anchor
from api.cli import audit_verifier
from api.cli.main import main
from api.kinds import kinds
from api.operations import Operation
from api.resources import Resources
from api.store.open import open_store
from tests.api.calling import PROJECT, Calling, Only, by, changed, family
from tests.api.running import Served

CALLS = 1_500
TAMPERS = 1_000
VERIFIER = Path(audit_verifier.__file__)
DENIED: dict[str, Collection[str]] = {
    "mallory": ["Create", "Update", "Delete", "DeleteCollection", "Get", "List", "Unmask"]
}


@pytest.fixture
async def calling(tmp_path: Path) -> AsyncIterator[Calling]:
    made = Calling(tmp_path / "store.db", Only(denied=DENIED | {"bob": ["Unmask"]}))
    await made.create(kinds()["Project"].new(PROJECT, PROJECT), by("root"))
    yield made
    await made.close()


async def test_a_record_tells_who_did_what_to_which_version(calling: Calling) -> None:
    call = by("alice")
    first = await calling.create(family("a"), call)
    second = await calling.update(changed(first, "a secret text"))
    await calling.call("Delete", "ModelFamily", namespace=PROJECT, name="a")
    created, updated, deleted = (await calling.records())[1:]
    assert (created.subject, created.verb, created.kind, created.namespace, created.name) == (
        "alice",
        "Create",
        "ModelFamily",
        PROJECT,
        "a",
    )
    assert (created.uid, created.request_id, created.outcome) == (first.metadata.uid, call.request_id, "OK")
    versions = [(entry.before, entry.after) for entry in (created, updated, deleted)]
    one, two = first.metadata.resourceVersion, second.metadata.resourceVersion
    assert versions == [("", one), (one, two), (two, "")]
    assert len({entry.digest for entry in (created, updated, deleted)}) == 3
    assert "secret" not in "".join(record.body.decode() for record in await calling.store.audit(0, 100))


async def failed(call: Any) -> str:
    try:
        await call
    except errors.ApiError as error:
        return error.code
    return "OK"


async def test_what_was_refused_and_what_changed_nothing_has_a_record_too(calling: Calling) -> None:
    first = await calling.create(family("a"))
    stale = changed(first, "stale")
    await calling.update(changed(first, "second"))
    before = len(await calling.records())
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("PERMISSION_DENIED", lambda: calling.create(family("b"), by("mallory"))),
        ("PERMISSION_DENIED", lambda: calling.get("ModelFamily", "a", by("mallory"))),
        ("PERMISSION_DENIED", lambda: calling.listed("ModelFamily", by("mallory"))),
        ("PERMISSION_DENIED", lambda: calling.call("Delete", "ModelFamily", by("mallory"), namespace="x", name="a")),
        ("INVALID_ARGUMENT", lambda: calling.create(family("Bad Name"))),
        ("INVALID_ARGUMENT", lambda: calling.create(family("\udcff"))),
        ("INVALID_ARGUMENT", lambda: calling.create(family("x" * 2**20))),
        ("INVALID_ARGUMENT", lambda: calling.create(family("b"), replace(by("alice"), misnamed=True))),
        ("ABORTED", lambda: calling.update(stale)),
        ("NOT_FOUND", lambda: calling.call("Delete", "ModelFamily", namespace=PROJECT, name="none")),
        ("OK", lambda: calling.write("Create", family("dry"), dry=True)),
        ("OK", lambda: calling.call("DeleteCollection", "ModelFamily", namespace=PROJECT, list_options={"limit": 1})),
        ("INVALID_ARGUMENT", lambda: calling.call("DeleteCollection", "ModelFamily")),
        ("OK", lambda: calling.get("Project", PROJECT)),
        ("NOT_FOUND", lambda: calling.get("ModelFamily", "none")),
    ]
    outcomes = []
    for expected, call in calls:
        try:
            outcome = await failed(call())
        except (UnicodeEncodeError, ValueError):
            # The client's own library refuses to make such a message.
            calls = [one for one in calls if one[1] is not call]
            continue
        assert outcome == expected
        outcomes.append(outcome)
    # Reads that are allowed, found or not, leave no record; a collection has one of its own and one for each object.
    expected_records = [expected for expected, _ in calls[:-2]]
    expected_records.insert(expected_records.index("OK") + 1, "OK")
    assert [entry.outcome for entry in (await calling.records())[before:]] == expected_records


async def test_a_collection_has_a_record_and_each_of_its_objects_another(calling: Calling) -> None:
    for name in "ab":
        await calling.create(family(name))
    call = by("alice")
    for _ in range(2):
        await calling.call("DeleteCollection", "ModelFamily", call, namespace=PROJECT)
    found = [entry for entry in await calling.records() if entry.verb == "DeleteCollection"]
    assert [(entry.name, entry.also, entry.request_id) for entry in found] == [
        ("a", 0, call.request_id),
        ("b", 0, call.request_id),
        ("", 2, call.request_id),
    ]


@pytest.mark.parametrize("count", [CALLS, pytest.param(10_000, marks=pytest.mark.robustness)])
async def test_every_call_has_one_record(calling: Calling, count: int) -> None:
    pick, expected = random.Random(20261121), Counter[str]()
    known: dict[str, Any] = {}
    seen = len(await calling.records())
    for _ in range(count):
        name, call = f"f-{pick.randrange(40)}", by(pick.choice(("alice", "alice", "alice", "mallory")))
        match pick.randrange(6):
            case 0:
                asked = ("Create", {"model_family": family(name)})
            case 1:
                asked = ("Create", {"model_family": family(name.upper())})
            case 2 if name in known:
                asked = ("Update", {"model_family": changed(known[name], str(pick.random()))})
            case 3 if name in known:
                asked = ("Update", {"model_family": known[name]})
            case 4:
                asked = ("Delete", {"namespace": PROJECT, "name": name})
            case _:
                asked = ("Create", {"model_family": family(name), "create_options": {"dryRun": ["All"]}})
        task = asyncio.ensure_future(_outcome(calling, call, *asked))
        if pick.random() < 0.1:
            # Its caller leaves before it has begun, or while it is under way.
            await asyncio.sleep(pick.choice((0, 0, 0.0005)))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await calling.operations.settled()
            expected[call.request_id] = -1
            seen += len(await calling.store.audit(seen, 10))
            continue
        expected[call.request_id] = 1
        outcome, answer = await task
        if answer is not None and asked[0] != "Delete" and "create_options" not in asked[1]:
            known[name] = answer.model_family
        (record,) = await calling.store.audit(seen, 10)
        assert json.loads(record.body)["outcome"] == outcome
        seen += 1
    found = Counter(entry.request_id for entry in await calling.records() if entry.subject != "root")
    for request_id, count in expected.items():
        assert found[request_id] == 1 if count == 1 else found[request_id] in (0, 1)
    assert set(found) <= set(expected)
    changes = [change for change in await calling.changes() if change.key.kind == "ModelFamily"]
    effects = [entry for entry in await calling.records() if entry.kind == "ModelFamily" and entry.digest]
    assert [entry.after or "deleted" for entry in effects] == [
        str(change.revision) if change.type.value != "DELETED" else "deleted" for change in changes
    ]


async def _outcome(calling: Calling, call: Any, verb: str, asked: dict[str, Any]) -> tuple[str, Any]:
    operation = Operation(kinds()["ModelFamily"], verb)
    try:
        return "OK", await calling.operations.call(call, operation, operation.request(**asked))
    except errors.ApiError as error:
        return error.code, None


async def test_a_full_store_lets_no_call_pass_without_a_record(calling: Calling) -> None:
    await calling.create(family("a"))
    before = await calling.changes()

    def full(db: Any, _: object) -> None:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")

    await calling.store._write(full)
    codes = Counter[str]()
    for number in range(400):
        codes[await failed(calling.create(family(f"f-{number}", "x" * 2_000)))] += 1
        codes[await failed(calling.get("ModelFamily", "a", by("mallory")))] += 1
    assert codes["RESOURCE_EXHAUSTED"] > 400
    assert codes["RESOURCE_EXHAUSTED"] + codes["OK"] + codes["PERMISSION_DENIED"] == 800
    written = len(await calling.changes()) - len(before)
    created = [entry for entry in await calling.records() if entry.verb == "Create" and entry.outcome == "OK"]
    assert written == len(created) - 2 == codes["OK"]


def chain(count: int) -> list[Record]:
    records, head = [], bytes(32)
    for number in range(1, count + 1):
        body = canonical(Entry(number, "alice", "Create", "ModelFamily", PROJECT, f"f-{number}", f"r-{number}"))
        head = link(head, body)
        records.append(Record(number, body, head))
    return records


def tampered(records: list[Record], pick: random.Random) -> list[Record]:
    """Return the log with one change: a bit, a record less, one more, two swapped.  Its end stays."""
    found, at = list(records), pick.randrange(len(records) - 1)
    match pick.randrange(6):
        case 0:
            part = pick.choice(("body", "head"))
            value = bytearray(getattr(found[at], part))
            value[pick.randrange(len(value))] ^= 1 << pick.randrange(8)
            found[at] = (
                replace(found[at], body=bytes(value)) if part == "body" else replace(found[at], head=bytes(value))
            )
        case 1:
            del found[at]
        case 2:
            del found[at]
            found = [replace(record, number=number) for number, record in enumerate(found, 1)]
        case 3:
            found.insert(at, replace(found[pick.randrange(len(found))], number=at + 1))
            found = [replace(record, number=number) for number, record in enumerate(found, 1)]
        case 4:
            found[at], found[at + 1] = replace(found[at + 1], number=at + 1), replace(found[at], number=at + 2)
        case _:
            found[at] = replace(found[at], number=found[at].number + pick.choice((-1, 1, 10**6)))
    return found


def test_a_thousand_tampers_are_all_detected() -> None:
    pick, records = random.Random(20261121), chain(60)
    rows = [(record.number, record.body, record.head) for record in records]
    assert audit_verifier.verify(rows, {}) == (60, "")
    for _ in range(TAMPERS):
        found = tampered(records, pick)
        if found == records:
            continue
        assert first_break(found) is not None
        assert audit_verifier.verify([(one.number, one.body, one.head) for one in found], {})[1]


def test_a_log_that_was_written_anew_or_cut_shows_by_its_anchor_only() -> None:
    records = chain(60)
    rows = [(record.number, record.body, record.head) for record in records]
    anchored = {20: records[19].head, 60: records[59].head}
    assert audit_verifier.verify(rows, anchored) == (60, "")
    assert audit_verifier.verify(rows[:59], {}) == (59, ""), "a cut tail is a whole log"
    assert "cut off" in audit_verifier.verify(rows[:59], anchored)[1]
    anew, head = [], bytes(32)
    for number, body, _ in rows:
        head = link(head, body.replace(b"alice", b"mallory") if number == 7 else body)
        anew.append((number, body.replace(b"alice", b"mallory") if number == 7 else body, head))
    assert audit_verifier.verify(anew, {}) == (60, "")
    assert "anew" in audit_verifier.verify(anew, anchored)[1]


async def test_the_anchor_follows_the_log_and_never_signs_a_broken_one(calling: Calling, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "heads.jsonl"
    anchor = Anchor(calling.store, path)
    assert await anchor.write()
    assert not await anchor.write(), "nothing was recorded since"
    await calling.create(family("a"))
    with path.open("a") as file:
        file.write('{"number": 1')  # a line that a crash cut
    assert await Anchor(calling.store, path).write()
    heads = audit_verifier.anchors(path)
    newest = (await calling.store.audit(0, 100))[-1]
    assert heads[newest.number] == newest.head
    await calling.create(family("b"))
    with closing(sqlite3.connect(calling.path)) as db, db:
        told = "UPDATE audit SET body = CAST(replace(body, 'alice', 'bobby') AS BLOB) WHERE number = ?"
        db.execute(told, (newest.number + 1,))
    assert not await Anchor(calling.store, path).write()
    assert audit_verifier.anchors(path) == heads


def verifier(*arguments: object) -> tuple[int, str]:
    """Run the verifier on its own, in an interpreter that finds nothing of the platform."""
    ended = subprocess.run(
        [sys.executable, "-I", "-S", VERIFIER, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


async def test_the_commands_show_and_verify_a_log(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MA_HOME", str(tmp_path))
    first = await calling.create(family("a"))
    await calling.update(changed(first, "second"))
    await failed(calling.create(family("b"), by("mallory")))
    heads, lines = tmp_path / "heads.jsonl", tmp_path / "lines.jsonl"
    await Anchor(calling.store, heads).write()
    assert main(["audit", "verify", "--head", str(heads)]) == 0
    assert "4 records hold; anchored up to record 4" in capsys.readouterr().out
    assert main(["audit", "list", "-o", "jsonl"]) == 0
    lines.write_text(capsys.readouterr().out)
    for log in (calling.path, lines):
        assert verifier(log, "--head", heads) == (0, "4 records hold; anchored up to record 4\n")
    assert main(["audit", "list", "--subject", "mallory", "-o", "json"]) == 0
    (denied,) = json.loads(capsys.readouterr().out)
    assert (denied["outcome"], denied["name"]) == ("PERMISSION_DENIED", "b")
    assert main(["audit", "list", "--verb", "Update", "-n", PROJECT, "--kind", "model-family", "--name", "a"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2
    assert "alice" in shown[1]
    assert main(["audit", "list", "--until", "2001-01-01"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["audit", "list", "--since", "yesterday"]) == 2
    assert main(["audit", "verify", "--file", str(tmp_path / "none")]) == 1
    capsys.readouterr()
    with closing(sqlite3.connect(calling.path)) as db, db:
        db.execute("DELETE FROM audit WHERE number = 4")
    assert main(["audit", "verify"]) == 0, "a cut tail is a whole log"
    assert main(["audit", "verify", "--head", str(heads)]) == 1
    assert "tail was cut off" in capsys.readouterr().err
    assert verifier(calling.path, "--head", heads)[0] == 1
    assert verifier(tmp_path / "none")[0] == 2


def test_the_verifier_is_short_and_needs_nothing() -> None:
    text = VERIFIER.read_text()
    assert len(text.splitlines()) <= 100
    assert "import api" not in text
    assert "from api" not in text


def test_the_log_of_a_postgresql_store_is_verified_by_the_same_command(
    postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fill() -> None:
        store = await open_store(postgres_url)
        resources = Resources(store)
        for name in ("a", "b"):
            await resources.of(by("alice")).create(kinds()["Project"].new(name, name))
        await Anchor(store, tmp_path / "heads").write()
        await store.close()

    asyncio.run(fill())
    monkeypatch.setenv("MA_STORE_URL", postgres_url)
    assert main(["audit", "verify", "--head", str(tmp_path / "heads")]) == 0
    assert "2 records hold" in capsys.readouterr().out
    assert main(["audit", "list", "--name", "b"]) == 0
    assert "Project/b/b" in capsys.readouterr().out


def test_a_write_whose_bytes_are_no_message_has_a_record(served: Served) -> None:
    served.refused(lambda: served.raw("Model", "Create", b"\xff"))
    served.refused(lambda: served.raw("Model", "Get", b"\xff"))
    found = [read(record.body) for record in served.run(served.store.audit(0, 1_000))]
    assert [(entry.verb, entry.kind, entry.outcome, entry.reason) for entry in found] == [
        ("Create", "Model", "INVALID_ARGUMENT", "BAD_MESSAGE")
    ]
