"""Fields with the option `sensitive`: shown to who has the right, and then recorded; never in refusals or records."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from api import errors
from api import kinds as registry
from api.criteria import known_column
from api.gen.michelangelo.api import options_pb2 as options
from api.kinds import Kind, kinds, marked
from api.masking import ANNOTATION, masked
from tests.api.calling import PROJECT, Calling, Only, by, family

SECRET = "a word that nobody reads"


@pytest.fixture
def secretive(monkeypatch: pytest.MonkeyPatch) -> Kind:
    """The simplest kind, its description declared as sensitive."""
    kind = replace(kinds()["ModelFamily"], sensitive=("spec.description",))
    found = dict(kinds()) | {"ModelFamily": kind}
    monkeypatch.setattr(registry, "kinds", lambda: found)
    return kind


@pytest.fixture
async def calling(tmp_path: Path, secretive: Kind) -> AsyncIterator[Calling]:
    made = Calling(tmp_path / "store.db", Only(denied={"bob": ["Unmask"]}))
    await made.create(kinds()["Project"].new(PROJECT, PROJECT))
    await made.create(family("a", SECRET), by("root"))
    yield made
    await made.close()


async def got(calling: Calling, kind: Kind, subject: str, verb: str = "Get", **asked: Any) -> Any:
    answer = await calling.call(verb, kind, by(subject), **({"namespace": PROJECT, "name": "a"} | asked))
    return answer.model_family


async def listed(calling: Calling, kind: Kind, subject: str) -> Any:
    answer = await calling.call("List", kind, by(subject), namespace=PROJECT)
    return answer.model_family_list.items[0]


async def test_who_has_no_right_sees_none_of_it(calling: Calling, secretive: Kind) -> None:
    for found in (await got(calling, secretive, "bob"), await listed(calling, secretive, "bob")):
        assert SECRET.encode() not in found.SerializeToString()
        assert found.metadata.annotations[ANNOTATION] == "spec.description"
    for found in (await got(calling, secretive, "alice"), await listed(calling, secretive, "alice")):
        assert found.spec.description == SECRET
        assert ANNOTATION not in found.metadata.annotations


async def test_answers_of_writes_show_no_more(calling: Calling, secretive: Kind) -> None:
    call = by("bob")
    for _ in range(2):
        made = await calling.call("Create", secretive, call, model_family=family("b", SECRET))
        assert SECRET.encode() not in made.SerializeToString()
    assert (await got(calling, secretive, "alice", name="b")).spec.description == SECRET


async def test_what_was_not_shown_is_kept_by_an_update(calling: Calling, secretive: Kind) -> None:
    found = await got(calling, secretive, "bob")
    found.metadata.labels["team"] = "growth"
    answer = await calling.call("Update", secretive, by("bob"), model_family=found)
    assert not answer.model_family.spec.description
    stored = await got(calling, secretive, "alice")
    assert (stored.spec.description, stored.metadata.labels["team"]) == (SECRET, "growth")
    assert ANNOTATION not in stored.metadata.annotations
    found = await got(calling, secretive, "bob")
    found.spec.description = "another word"
    await calling.call("Update", secretive, by("bob"), model_family=found)
    assert (await got(calling, secretive, "alice")).spec.description == "another word"


async def test_a_read_that_showed_it_has_a_record_and_one_that_did_not_has_none(
    calling: Calling, secretive: Kind
) -> None:
    before = len(await calling.records())
    for subject in ("alice", "bob"):
        await got(calling, secretive, subject)
        await listed(calling, secretive, subject)
    found = (await calling.records())[before:]
    assert [(entry.subject, entry.verb, entry.reason) for entry in found] == [
        ("alice", "Get", "UNMASKED"),
        ("alice", "List", "UNMASKED"),
    ]


async def test_no_refusal_and_no_record_tells_it(calling: Calling, secretive: Kind) -> None:
    new = family("b")
    new.spec.description = f"{SECRET}\0"
    with pytest.raises(errors.InvalidArgument) as refused:
        await calling.call("Create", secretive, model_family=new)
    told = f"{refused.value.message}{refused.value.violations}"
    assert "spec.description" in told
    assert SECRET not in told
    assert SECRET not in "".join(record.body.decode() for record in await calling.store.audit(0, 100))


def test_nobody_filters_or_sorts_by_it() -> None:
    model = kinds()["Model"]
    assert known_column(model, "description", "list_options_ext.order_by[0].field")
    secretive = replace(model, sensitive=("spec.description",))
    with pytest.raises(errors.InvalidArgument, match="sensitive"):
        known_column(secretive, "description", "list_options_ext.order_by[0].field")


def described() -> Any:
    """Return the descriptor of a message with sensitive fields in all places where one can stand."""
    file = descriptor_pb2.FileDescriptorProto(
        name="michelangelo/test/secret.proto",
        package="michelangelo.test",
        dependency=["michelangelo/api/options.proto"],
        syntax="proto3",
    )
    inner, outer = file.message_type.add(name="Inner"), file.message_type.add(name="Outer")
    secret = inner.field.add(name="secret", number=1, type=9, label=1)
    secret.options.Extensions[options.sensitive] = True
    inner.field.add(name="plain", number=2, type=9, label=1)
    inner.field.add(name="again", number=3, type=11, label=1, type_name=".michelangelo.test.Inner")
    outer.field.add(name="one", number=1, type=11, label=1, type_name=".michelangelo.test.Inner")
    outer.field.add(name="many", number=2, type=11, label=3, type_name=".michelangelo.test.Inner")
    outer.field.add(name="open", number=3, type=9, label=1)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindMessageTypeByName("michelangelo.test.Outer")


def test_it_is_found_wherever_it_stands() -> None:
    assert list(marked(described(), options.sensitive)) == ["one.secret", "one.again", "many"]


def test_masking_clears_only_what_is_set() -> None:
    kind = replace(kinds()["ModelFamily"], sensitive=("spec.description", "spec.name"))
    found = masked(kind, family("a", SECRET))
    assert found.metadata.annotations[ANNOTATION] == "spec.description"
    assert not masked(kind, kinds()["ModelFamily"].new(PROJECT, "b")).metadata.annotations
