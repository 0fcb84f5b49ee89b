"""Watch, Search and Apply by every sort of caller: what is not theirs is in no event, in no hit and is not written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.kinds import kinds
from tests.api.running import read
from tests.security.objects import NAME, OF_THE_SYSTEM, in_order, smallest
from tests.security.secured import Caller, Secured, known, refused

SERVICE = "/michelangelo.platform.v1.ResourceService/"
MINE, THEIRS = "mine", "theirs"
MEMBERS = ("viewer", "editor", "operator", "admin")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Two projects with an object of every kind; members of the first; a stranger without any role."""
    people = [known(name) for name in (*MEMBERS, "stranger")]
    made = Secured(tmp_path_factory.mktemp("platform"), [*people, known("late", expires=1)])
    for project in (MINE, THEIRS):
        made.owner.create(smallest("Project", project))
        for kind in in_order():
            if kind not in OF_THE_SYSTEM:
                made.owner.create(smallest(kind, project))
    for role in MEMBERS:
        made.owner.bind(MINE, role.upper(), f"user:{role}")
    yield made
    made.close()


def watched(caller: Caller, count: int, **fields: Any) -> list[wire.WatchEvent]:
    """Return the events of a watch up to its first bookmark, at most `count` responses."""
    stream: Any = caller.channel.unary_stream(
        SERVICE + "Watch", lambda message: message.SerializeToString(), wire.WatchResponse.FromString
    )
    request = wire.WatchRequest(allow_bookmarks=True, **fields)
    call = stream(request, metadata=caller.metadata, timeout=20)
    events: list[wire.WatchEvent] = []
    try:
        for _, answer in zip(range(count), call, strict=False):
            events += answer.events
            if any(event.type == wire.WatchEvent.BOOKMARK for event in answer.events):
                break
    finally:
        call.cancel()
    return [event for event in events if event.type != wire.WatchEvent.BOOKMARK]


def namespaces(events: list[wire.WatchEvent]) -> set[str]:
    found = set()
    for event in events:
        resource = kinds()[event.kind].message()
        assert event.object.Unpack(resource)
        found.add(resource.metadata.namespace)
    return found


@pytest.mark.parametrize("who", MEMBERS)
def test_a_watch_of_everything_shows_what_is_the_callers(secured: Secured, who: str) -> None:
    events = watched(secured.user(who), 1000, resource_version="0")
    assert namespaces(events) == {MINE}
    assert {event.kind for event in events} >= {kind for kind in kinds() if kind not in OF_THE_SYSTEM}
    assert THEIRS in namespaces(watched(secured.owner, 1000, resource_version="0"))


@pytest.mark.parametrize("who", [*MEMBERS, "stranger"])
@pytest.mark.parametrize("place", [THEIRS, "nowhere", "ma-system"])
def test_a_watch_of_anothers_project_is_one_of_none(secured: Secured, who: str, place: str) -> None:
    told = refused(watched, secured.user(who), 1000, kinds=["Model"], namespaces=[place], resource_version="0")
    assert (told.code, told.reason) == ("NOT_FOUND", "UNKNOWN_PROJECT")
    assert told.message == f"there is no Project '{place}': create it first"


@pytest.mark.parametrize("who", MEMBERS)
def test_a_watch_of_two_projects_takes_a_role_in_both(secured: Secured, who: str) -> None:
    both = refused(watched, secured.user(who), 1000, kinds=["Model"], namespaces=[MINE, THEIRS], resource_version="0")
    assert both.code == "NOT_FOUND"


def search(caller: Caller, **fields: Any) -> wire.SearchResponse:
    raw = caller.raw(SERVICE + "Search", wire.SearchRequest(**fields).SerializeToString())
    return wire.SearchResponse.FromString(raw)


@pytest.mark.parametrize("who", MEMBERS)
@pytest.mark.parametrize("fields", [{}, {"text": NAME}, {"kinds": ["Pipeline", "RoleBinding"]}, {"text": THEIRS}])
def test_a_search_finds_what_is_the_callers(secured: Secured, who: str, fields: Any) -> None:
    found = search(secured.user(who), limit=500, **fields)
    assert {hit.namespace for hit in found.hits} <= {MINE}
    # How much was looked at tells of others as little.
    everything = sum(1 for kind in kinds() if kind not in OF_THE_SYSTEM) + len(MEMBERS)
    assert found.scanned <= everything
    if "text" not in fields:
        assert found.hits


def test_a_search_in_anothers_project_is_one_in_none(secured: Secured) -> None:
    told = []
    for place in (THEIRS, "nowhere"):
        refusal = refused(search, secured.user("admin"), kinds=["Model"], namespaces=[place])
        told.append((refusal.code, refusal.reason, refusal.message.replace(place, "X")))
    assert told[0] == told[1]
    assert told[0][0] == "NOT_FOUND"


def test_a_page_of_a_search_is_for_its_reader(secured: Secured) -> None:
    token = search(secured.user("admin"), limit=1).next_page_token
    assert token
    assert search(secured.user("admin"), limit=1, page_token=token).hits
    assert refused(search, secured.user("viewer"), limit=1, page_token=token).code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("method", ["Watch", "Search", "Apply", "Plan"])
@pytest.mark.parametrize("who", ["", "late"])
def test_whoever_is_not_known_is_not_let_in(secured: Secured, method: str, who: str) -> None:
    caller = secured.user(who) if who else secured.nobody
    call, given = (watched, (caller, 1)) if method == "Watch" else (caller.raw, (SERVICE + method, b""))
    assert refused(call, *given).code == "UNAUTHENTICATED"


def applied(caller: Caller, resource: Any) -> str:
    request = wire.ApplyRequest(field_manager="test")
    request.object.Pack(resource)
    try:
        caller.raw(SERVICE + "Apply", request.SerializeToString())
    except grpc.RpcError as error:
        return read(error).code
    return "OK"


@pytest.mark.parametrize(
    ("who", "project", "wanted"),
    [
        ("viewer", MINE, "PERMISSION_DENIED"),
        ("editor", MINE, "OK"),
        ("editor", THEIRS, "NOT_FOUND"),
        ("admin", THEIRS, "NOT_FOUND"),
        ("stranger", MINE, "NOT_FOUND"),
    ],
)
@pytest.mark.parametrize("name", [NAME, "new"])
def test_apply_takes_the_rights_of_what_it_does(
    secured: Secured, who: str, project: str, wanted: str, name: str
) -> None:
    revision = secured.run(secured.resources.revision())
    new = smallest("ModelFamily", project, name)
    new.spec.description = f"by {who} as {name}"
    assert applied(secured.user(who), new) == wanted
    if wanted != "OK":
        assert secured.run(secured.resources.revision()) == revision


def test_apply_gives_no_right_that_the_caller_lacks(secured: Secured) -> None:
    new = smallest("RoleBinding", MINE, "applied")
    new.spec.role = 5
    new.spec.subjects[0].name = "editor"
    for who in ("viewer", "editor", "operator"):
        assert applied(secured.user(who), new) == "PERMISSION_DENIED"
    assert applied(secured.user("admin"), new) == "OK"
