"""Watch, search, apply and plan by every role, on what is theirs and what is not: as the methods of a kind answer."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.kinds import kinds
from tests.api.running import Refusal, read
from tests.api.watching import SERVICE
from tests.security.matrix import EVERYBODY, MEMBERS, OUTSIDERS, verdict
from tests.security.objects import smallest
from tests.security.secured import Caller
from tests.security.test_isolation_matrix import IN_PROJECTS, MINE, THEIRS, World, world

__all__ = ["world"]
OK = "OK"


def watch(caller: Caller, **fields: Any) -> Refusal | None:
    """Return how a watch was refused, None if it opened."""
    method: Any = caller.channel.unary_stream(SERVICE + "Watch", None, wire.WatchResponse.FromString)
    call = method(wire.WatchRequest(**fields).SerializeToString(), timeout=20, metadata=caller.metadata)
    call.initial_metadata()
    if call.is_active():
        call.cancel()
        return None
    try:
        next(call)
    except grpc.RpcError as error:
        return None if error.code() is grpc.StatusCode.CANCELLED else read(error)
    raise AssertionError("a watch that is over has a refusal")


def search(caller: Caller, **fields: Any) -> wire.SearchResponse | Refusal:
    """Return the answer of a search, or how it was refused."""
    try:
        raw = caller.raw(SERVICE + "Search", wire.SearchRequest(**fields).SerializeToString())
    except grpc.RpcError as error:
        return read(error)
    return wire.SearchResponse.FromString(raw)


def apply(caller: Caller, resource: Any) -> Refusal | None:
    """Return how a dry apply was refused, None if it was not."""
    request = wire.ApplyRequest(field_manager="matrix", force=True, dry_run=True)
    request.object.Pack(resource)
    try:
        caller.raw(SERVICE + "Apply", request.SerializeToString())
    except grpc.RpcError as error:
        return read(error)
    return None


def plan(caller: Caller, resource: Any) -> Refusal | None:
    """Return how a plan was refused, None if it was not."""
    request = wire.PlanRequest()
    request.objects.add().Pack(resource)
    try:
        caller.raw(SERVICE + "Plan", request.SerializeToString())
    except grpc.RpcError as error:
        return read(error)
    return None


def code(told: object) -> str:
    return told.code if isinstance(told, Refusal) else OK


@pytest.mark.parametrize("kind", IN_PROJECTS)
def test_a_role_watches_searches_and_applies_in_its_project_and_nowhere_else(world: World, kind: str) -> None:
    revision, wrong = world.secured.run(world.secured.resources.revision()), []
    for project in (MINE, THEIRS):
        for who in EVERYBODY:
            caller, own = world.callers[who], project == MINE
            reads, writes = verdict(who, "List", kind, own=own), verdict(who, "Update", kind, own=own)
            found = {
                "Watch": (code(watch(caller, kinds=[kind], namespaces=[project])), reads),
                "Search": (code(search(caller, kinds=[kind], namespaces=[project])), reads),
                "Apply": (code(apply(caller, smallest(kind, project))), writes),
                "Plan": (code(plan(caller, smallest(kind, project))), writes),
            }
            wrong += [f"{who} {verb} in {project}: {got} not {due}" for verb, (got, due) in found.items() if got != due]
    assert wrong == []
    assert world.secured.run(world.secured.resources.revision()) == revision, "something was written"


def test_a_search_everywhere_shows_and_counts_what_is_the_callers_alone(world: World) -> None:
    for who in (*OUTSIDERS, *MEMBERS):
        answer = search(world.callers[who])
        if isinstance(answer, wire.SearchResponse):
            seen = {hit.namespace for hit in answer.hits}
            assert seen <= ({"third"} if who in OUTSIDERS else {MINE}), who
            assert answer.scanned == len(answer.hits)
        else:
            assert (who in OUTSIDERS, answer.code) == (True, "NOT_FOUND")
    everything = search(world.secured.owner, limit=500)
    assert isinstance(everything, wire.SearchResponse)
    assert {MINE, THEIRS} <= {hit.namespace for hit in everything.hits}
    assert {hit.kind for hit in everything.hits} >= set(IN_PROJECTS) - {kind for kind in kinds() if kind == "Hook"}


def test_what_is_hidden_answers_as_what_is_not_there(world: World) -> None:
    for who in (*OUTSIDERS, *MEMBERS):
        caller = world.callers[who]
        for ask in (
            lambda caller, project: watch(caller, kinds=["Pipeline"], namespaces=[project]),
            lambda caller, project: search(caller, kinds=["Pipeline"], namespaces=[project]),
            lambda caller, project: apply(caller, smallest("Pipeline", project)),
            lambda caller, project: plan(caller, smallest("Pipeline", project)),
        ):
            hidden, absent = ask(caller, THEIRS), ask(caller, "absent")
            assert isinstance(hidden, Refusal)
            assert isinstance(absent, Refusal)
            assert (hidden.code, hidden.reason) == (absent.code, absent.reason), who
            assert hidden.message.replace(THEIRS, "X") == absent.message.replace("absent", "X"), who
