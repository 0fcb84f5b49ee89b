"""Every RPC of every kind, by every role, on what is theirs and what is not, wherever an id can stand.

The calls are made from the descriptors, over gRPC with a connection for each caller, on a real store; what should come
of them is computed by `matrix.py`.  What exists and is not the caller's must answer as what does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from api.admission import references
from api.kinds import IDENTIFIER, kinds, reference_kind
from tests.api.running import Refusal, read, request_of
from tests.security.matrix import EVERYBODY, MEMBERS, OUTSIDERS, UNKNOWN, VERBS, verdict
from tests.security.objects import NAME, OF_THE_SYSTEM, SYSTEM, in_order, smallest
from tests.security.secured import Caller, Secured, known

MINE, THEIRS, NOWHERE = "mine", "theirs", "nowhere"
IN_PROJECTS = [kind for kind in kinds() if kind not in OF_THE_SYSTEM]
DRY = {"dryRun": ["All"]}


@dataclass(frozen=True)
class World:
    """A server with two projects that hold an object of every kind, and a caller of every sort."""

    secured: Secured
    callers: Mapping[str, Caller]

    def stored(self, kind: str, project: str) -> Any:
        """Return the object of a kind in a project."""
        namespace = SYSTEM if kind in OF_THE_SYSTEM else project
        return self.secured.owner.get(kind, namespace, project if kind == "Project" else NAME)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Both projects, and members of the first in each role; the stranger is a member of a third."""
    people = [known(name) for name in (*OUTSIDERS, *MEMBERS)]
    secured = Secured(tmp_path_factory.mktemp("matrix"), [*people, known("late", expires=1)])
    owner = secured.owner
    for project in (MINE, THEIRS, "third"):
        owner.create(smallest("Project", project))
    for kind in in_order():
        for project in (MINE, THEIRS)[: 1 if kind in OF_THE_SYSTEM else 2]:
            owner.create(smallest(kind, project))
    for role in MEMBERS:
        owner.bind(MINE, role.upper(), f"user:{role}")
    owner.bind("third", "ADMIN", "user:stranger")
    callers = {name: secured.user(name) for name in ("late", *OUTSIDERS, *MEMBERS)}
    yield World(secured, {**callers, "nobody": secured.nobody})
    secured.close()


def answer(call: Callable[..., object], *given: Any, **more: Any) -> Refusal | None:
    """Return how a call was refused, None if it was not."""
    try:
        call(*given, **more)
    except grpc.RpcError as error:
        return read(error)
    return None


def request(world: World, kind: str, verb: str, project: str, *, new: bool = True) -> Any:
    """Return a request on the object of a project, or one for another object of a new name; a dry run where it can."""
    single = kinds()[kind].singular
    name = project if kind == "Project" else NAME
    if verb == "Create":
        made = smallest(kind, project, "another" if new else NAME)
        return request_of(kind, verb, **{single: made, "create_options": DRY})
    if verb == "Update":
        changed = world.stored(kind, project)
        changed.metadata.labels["changed"] = "yes"
        return request_of(kind, verb, **{single: changed, "update_options": DRY})
    if verb == "DeleteCollection":
        return request_of(kind, verb, namespace=project, delete_options=DRY)
    if verb == "List":
        return request_of(kind, verb, namespace=project)
    more = {"delete_options": DRY} if verb == "Delete" else {}
    return request_of(kind, verb, namespace=project, name=name, **more)


@pytest.mark.parametrize("kind", IN_PROJECTS)
def test_a_role_does_in_its_project_what_is_written_and_nothing_in_another(world: World, kind: str) -> None:
    revision = world.secured.run(world.secured.resources.revision())
    wrong = []
    for verb in VERBS:
        for project in (MINE, THEIRS):
            asked = request(world, kind, verb, project)
            for who in EVERYBODY:
                wanted = verdict(who, verb, kind, own=project == MINE)
                told = answer(world.callers[who].call, kind, verb, asked)
                if (told.code if told else "OK") != wanted:
                    wrong.append(f"{who} {verb} in {project}: {told}, not {wanted}")
    assert wrong == []
    assert world.secured.run(world.secured.resources.revision()) == revision, "something was written"


@pytest.mark.parametrize("kind", sorted(OF_THE_SYSTEM))
def test_what_belongs_to_the_system_is_for_those_of_the_system(world: World, kind: str) -> None:
    for verb in VERBS:
        asked = request(world, kind, verb, SYSTEM)
        for who in EVERYBODY:
            told = answer(world.callers[who].call, kind, verb, asked)
            assert told is not None
            assert told.code == ("UNAUTHENTICATED" if who in UNKNOWN else "NOT_FOUND"), (who, verb)
        assert answer(world.secured.owner.call, kind, verb, asked) is None, verb


@pytest.mark.parametrize("kind", IN_PROJECTS)
def test_what_is_not_the_callers_answers_as_what_is_not_there(world: World, kind: str) -> None:
    """Same status, reason, text and fields, but for the name that the caller itself sent."""
    for verb in VERBS:
        if (verb, kind) == ("Create", "Project"):
            continue
        hidden = request(world, kind, verb, THEIRS)
        absent = type(hidden).FromString(_renamed(hidden.SerializeToString(), hidden))
        for who in (*OUTSIDERS, *MEMBERS):
            first, second = (answer(world.callers[who].call, kind, verb, asked) for asked in (hidden, absent))
            assert first is not None
            assert second is not None
            assert _plain(first) == _plain(second), (who, verb)


def _renamed(raw: bytes, request: Any) -> bytes:
    """Return the bytes of a request with the project's name replaced by one of equal length that does not exist."""
    assert THEIRS.encode() in raw, request
    return raw.replace(THEIRS.encode(), b"absent")


def _plain(told: Refusal) -> tuple[object, ...]:
    text = told.message.replace(THEIRS, "X").replace("absent", "X")
    fields = [(path, words.replace(THEIRS, "X").replace("absent", "X")) for path, words in told.fields]
    return told.code, told.reason, text, fields


@pytest.mark.parametrize("kind", list(kinds()))
def test_a_list_without_a_project_shows_what_is_the_callers(world: World, kind: str) -> None:
    for who in (*OUTSIDERS, *MEMBERS):
        page = world.callers[who].list(kind)
        seen = {item.metadata.namespace for item in page.items}
        own = {"third"} if who in OUTSIDERS else {MINE}
        assert seen <= own, who
        assert page.metadata.remainingItemCount == 0
        if who in MEMBERS and kind in IN_PROJECTS:
            assert seen == own, who
    assert len({item.metadata.namespace for item in world.secured.owner.list(kind).items}) >= 1


SELECTORS: tuple[dict[str, Any], ...] = (
    {"list_options": {"fieldSelector": f"metadata.namespace={THEIRS}"}},
    {"list_options": {"fieldSelector": f"metadata.namespace!={MINE}"}},
    {"list_options": {"labelSelector": "secret=yes"}},
    {"list_options": {"labelSelector": "secret in (yes,no)"}},
    {"list_options": {"labelSelector": "secret"}},
    {"list_options_ext": {"order_by": [{"field": "metadata.namespace", "dir": 2}]}},
    {"list_options_ext": {"pagination": {"offset": 0, "limit": 1000}}},
)


@pytest.mark.parametrize("selector", SELECTORS, ids=str)
def test_no_selector_shows_what_is_not_the_callers(world: World, selector: dict[str, Any]) -> None:
    for kind in IN_PROJECTS:
        for who in (*OUTSIDERS, *MEMBERS):
            page = world.callers[who].list(kind, **selector)
            assert THEIRS not in {item.metadata.namespace for item in page.items}, (who, kind)
            assert page.metadata.remainingItemCount == 0


def test_a_continue_token_is_for_its_reader_alone(world: World) -> None:
    one = {"limit": 1}
    page = getattr(world.secured.owner.list("Pipeline", list_options=one).metadata, "continue")
    own = getattr(world.callers["editor"].list("RoleBinding", MINE, list_options=one).metadata, "continue")
    assert page
    assert own
    for who in (*OUTSIDERS, *MEMBERS):
        told = answer(world.callers[who].list, "Pipeline", list_options={**one, "continue": page})
        assert told is not None
        assert (told.code, told.reason) == ("INVALID_ARGUMENT", "BAD_TOKEN"), who
        told = answer(world.callers[who].list, "RoleBinding", MINE, list_options={**one, "continue": own})
        wanted = {"editor": None, "stranger": "NOT_FOUND"}.get(who, "INVALID_ARGUMENT")
        assert (told.code if told else None) == wanted, who


def fields_that_refer(kind: str) -> list[tuple[str, str]]:
    """Return the paths of single references in a kind's spec, with the kinds they name."""
    spec: Any = kinds()[kind].message.DESCRIPTOR.fields_by_name["spec"].message_type
    return [
        (field.name, reference_kind(field))
        for field in spec.fields
        if field.message_type is not None
        and field.message_type.full_name == IDENTIFIER
        and not field.is_repeated
        and reference_kind(field) in kinds()
    ]


REFERRING = [(kind, *found) for kind in IN_PROJECTS for found in fields_that_refer(kind)]


@pytest.mark.parametrize(("kind", "field", "target"), REFERRING)
def test_a_reference_to_what_is_not_the_callers_is_one_to_nothing(
    world: World, kind: str, field: str, target: str
) -> None:
    for who in ("operator", "admin"):
        told = []
        for namespace, name in ((THEIRS, NAME), (NOWHERE, NAME), (THEIRS, "absent")):
            new = smallest(kind, MINE, "refers")
            getattr(new.spec, field).namespace, getattr(new.spec, field).name = namespace, name
            assert references(new)
            refusal = answer(world.callers[who].create, new)
            assert refusal is not None
            text = re.sub("theirs|nowhere", "X", refusal.message).replace("absent", NAME)
            told.append((refusal.code, refusal.reason, text))
        assert told[0][:2] == ("INVALID_ARGUMENT", "UNKNOWN_REFERENCE"), (who, target)
        assert len(set(told)) == 1, told


@pytest.mark.parametrize("kind", IN_PROJECTS)
def test_an_owner_in_another_project_is_none(world: World, kind: str) -> None:
    if kind in ("Notice", "Project", "RoleBinding"):
        return
    theirs = world.stored(kind, THEIRS)
    told = []
    for uid in (theirs.metadata.uid, "00000000-0000-4000-8000-000000000000"):
        new = smallest(kind, MINE, "owned")
        new.metadata.ownerReferences.add(kind=kind, name=NAME, uid=uid, apiVersion=kinds()[kind].group_version)
        refusal = answer(world.callers["operator"].create, new)
        assert refusal is not None
        told.append((refusal.code, refusal.reason, refusal.message.replace(uid, "UID")))
    assert told[0][:2] == ("INVALID_ARGUMENT", "BAD_OWNER")
    assert told[0] == told[1]


def test_a_taken_name_tells_nothing_of_what_has_it(world: World) -> None:
    told = answer(world.callers["admin"].create, smallest("Project", THEIRS))
    asked = request(world, "Project", "Create", THEIRS, new=False)
    dry = answer(world.callers["admin"].call, "Project", "Create", asked)
    uid = world.stored("Project", THEIRS).metadata.uid
    for refusal in (told, dry):
        assert refusal is not None
        assert refusal.code == "ALREADY_EXISTS"
        assert uid not in str(refusal)
    mine = answer(world.callers["viewer"].create, smallest("Project", MINE))
    assert mine is not None
    assert world.stored("Project", MINE).metadata.uid in mine.message
