"""Watch, search and apply show and touch what access allows, and record what it denies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from api import audit, platform
from api.calls import Call, Everybody, Principal
from api.errors import NotFound, PermissionDenied
from tests.api.running import Refusal, Served, read
from tests.api.test_apply import apply
from tests.api.test_search import find
from tests.api.watching import Stream, refused
from tests.api.workloads import pipeline


class OnlyIn(Everybody):
    """Access to some projects; in those of `reads` without writing."""

    def __init__(self) -> None:
        self.projects: frozenset[str] = frozenset()
        self.reads: frozenset[str] = frozenset()

    async def require(self, call: Call, verb: str, kind: str, namespace: str, name: str = "") -> None:
        """Allow what is allowed in a project."""
        if namespace in self.reads and verb not in ("List", "Watch"):
            raise PermissionDenied(f"you may not {verb} here")
        if namespace not in self.projects | self.reads:
            raise NotFound(f"there is no {kind} here")

    def allows(self, principal: Principal, verb: str, kind: str, namespace: str) -> bool:
        """Say nothing."""
        return False

    async def visible(self, call: Call, verb: str, kind: str) -> frozenset[str] | None:
        """Show the projects."""
        return self.projects | self.reads


@pytest.fixture(scope="module")
def rights() -> OnlyIn:
    return OnlyIn()


@pytest.fixture(scope="module")
def guarded(rights: OnlyIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("guarded") / "store.db", access=rights)
    yield made
    made.close()


@pytest.fixture
def mine(guarded: Served, rights: OnlyIn) -> str:
    project = guarded.project()
    rights.projects, rights.reads = frozenset({project}), frozenset()
    return project


def denials(served: Served) -> list[audit.Entry]:
    entries = [audit.read(record.body) for record in served.run(served.store.audit(0, 100_000))]
    return [entry for entry in entries if entry.outcome != "OK"]


def denied(call: Any) -> Refusal:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return read(error.value)


def test_a_watch_of_everything_tells_of_ones_own_projects_alone(guarded: Served, mine: str) -> None:
    other = guarded.project()
    with Stream(guarded, kinds=["Pipeline"]) as stream:
        guarded.create(pipeline(other))
        guarded.create(pipeline(mine))
        assert [event.resource.metadata.namespace for event in stream.changes(1)] == [mine]


def test_a_watch_of_anothers_project_is_refused_and_recorded(guarded: Served, mine: str) -> None:
    other = guarded.project()
    before = len(denials(guarded))
    refusal = refused(guarded, kinds=["Pipeline"], namespaces=[mine, other])
    assert refusal.code == "NOT_FOUND"
    (entry,) = denials(guarded)[before:]
    assert (entry.verb, entry.kind, entry.namespace, entry.outcome) == ("Watch", "Pipeline", other, "NOT_FOUND")
    assert entry.request_id == refusal.request_id
    assert refused(guarded, namespaces=[other]).code == "NOT_FOUND"


def test_who_may_see_nothing_is_refused(guarded: Served, mine: str, rights: OnlyIn) -> None:
    rights.projects = frozenset()
    assert refused(guarded).code == "NOT_FOUND"
    assert denied(lambda: find(guarded)).code == "NOT_FOUND"


def test_a_watch_ends_when_its_caller_may_see_more_or_nothing(
    guarded: Served, mine: str, rights: OnlyIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "RECHECK_S", 0.05)
    with Stream(guarded, kinds=["Pipeline"]) as stream:
        guarded.create(pipeline(mine, "seen"))
        stream.changes(1)
        rights.projects |= {guarded.project()}
        assert (stream.ended().code, stream.ended().reason) == ("OUT_OF_RANGE", "VIEW_CHANGED")
    with Stream(guarded, kinds=["Pipeline"], namespaces=[mine]) as stream:
        rights.projects = frozenset()
        assert stream.ended().code == "NOT_FOUND"


def test_a_search_finds_what_its_caller_may_list(guarded: Served, mine: str) -> None:
    other = guarded.project()
    for project in (mine, other):
        guarded.create(pipeline(project, "hidden-or-not"))
    assert {hit.namespace for hit in find(guarded, text="hidden-or-not").hits} == {mine}
    refusal = denied(lambda: find(guarded, kinds=["Pipeline"], namespaces=[other]))
    assert refusal.code == "NOT_FOUND"
    assert denials(guarded)[-1].verb == "List"


def test_an_apply_is_refused_where_its_caller_may_not_write_and_recorded(
    guarded: Served, mine: str, rights: OnlyIn
) -> None:
    assert apply(guarded, pipeline(mine))[1] == "CREATED"
    other = guarded.project()
    before = guarded.log()
    assert denied(lambda: apply(guarded, pipeline(other))).code == "NOT_FOUND"
    rights.reads = frozenset({other})
    refusal = denied(lambda: apply(guarded, pipeline(other)))
    assert (refusal.code, guarded.log()) == ("PERMISSION_DENIED", before)
    assert [(entry.verb, entry.namespace, entry.name, entry.outcome) for entry in denials(guarded)[-2:]] == [
        ("Apply", other, "train", "NOT_FOUND"),
        ("Apply", other, "train", "PERMISSION_DENIED"),
    ]


def test_each_apply_has_one_record(guarded: Served, mine: str) -> None:
    def count() -> int:
        return len(guarded.run(guarded.store.audit(0, 100_000)))

    before = count()
    new = pipeline(mine, "recorded")
    apply(guarded, new, "ci")
    apply(guarded, new, "ci")
    new.spec.description = "words"
    apply(guarded, new, "ci")
    with pytest.raises(grpc.RpcError):
        apply(guarded, new, "")
    new.spec.description = "others"
    with pytest.raises(grpc.RpcError):
        apply(guarded, new, "somebody")
    assert count() - before == 5
