"""The public watch over real gRPC and a real store: what is told, to whom, from where, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from api.admission import LARGEST_BYTES
from api.events import Limits
from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.kinds import kinds
from tests.api.running import Served
from tests.api.watching import SERVICE, Stream, refused
from tests.api.workloads import pipeline, run

SMALL = Limits(bookmark_s=0.2, queue_events=40, queue_bytes=200_000, watches=3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with small limits of its watch."""
    made = Served(tmp_path_factory.mktemp("small") / "store.db", SMALL)
    yield made
    made.close()


def test_every_change_after_a_list_is_told_in_order_with_the_object(served: Served, project: str) -> None:
    since = served.list("Pipeline", project).metadata.resourceVersion
    with Stream(served, kinds=["Pipeline"], namespaces=[project], resource_version=since) as stream:
        made = served.create(pipeline(project))
        made.spec.manifest.file_path = "other"
        changed = served.update(made)
        served.delete("Pipeline", project, "train")
        events = stream.changes(3)
    assert [(event.type, event.kind) for event in events] == [
        ("ADDED", "Pipeline"),
        ("MODIFIED", "Pipeline"),
        ("DELETED", "Pipeline"),
    ]
    assert events[1].resource == changed
    assert [event.revision for event in events] == [int(event.resource.metadata.resourceVersion) for event in events]
    assert events[2].resource.spec == changed.spec
    assert events[0].revision < events[1].revision < events[2].revision


def test_without_a_version_it_begins_now(served: Served, project: str) -> None:
    served.create(pipeline(project, "before"))
    with Stream(served, namespaces=[project]) as stream:
        served.create(pipeline(project, "after"))
        assert [event.name for event in stream.changes(1)] == ["after"]


def test_changes_since_the_beginning_are_told_from_0(served: Served, project: str) -> None:
    with Stream(served, namespaces=[project], resource_version="0") as stream:
        assert [(event.kind, event.type) for event in stream.changes(1)] == [("Project", "ADDED")]


def test_kinds_and_projects_that_were_not_asked_for_are_not_told(served: Served, project: str) -> None:
    other = served.project()
    with Stream(served, kinds=["Pipeline", "ModelFamily"], namespaces=[project]) as stream:
        served.create(pipeline(other))
        served.create(kinds()["InferenceServer"].new(project, "server"))
        served.create(kinds()["ModelFamily"].new(project, "family"))
        served.create(pipeline(project))
        assert [(event.kind, event.name) for event in stream.changes(2)] == [
            ("ModelFamily", "family"),
            ("Pipeline", "train"),
        ]


def labelled(served: Served, resource: Any, **labels: str) -> Any:
    for key, value in labels.items():
        resource.metadata.labels[key] = value
    return served.update(resource)


def test_an_object_that_enters_or_leaves_a_label_selection_is_added_or_deleted(served: Served, project: str) -> None:
    with Stream(served, kinds=["Pipeline"], namespaces=[project], label_selector="stage=live,!hidden") as stream:
        one = served.create(pipeline(project, "one"))
        one = labelled(served, one, stage="live")
        one = labelled(served, one, team="risk")
        one = labelled(served, one, hidden="yes")
        one = labelled(served, one, team="fraud")
        del one.metadata.labels["hidden"]
        one = served.update(one)
        served.delete("Pipeline", project, "one")
        served.create(pipeline(project, "two"))
        served.delete("Pipeline", project, "two")
        events = stream.changes(5)
    assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    assert events[2].resource.metadata.labels["hidden"] == "yes", "the state that is not selected any more"
    assert events[2].revision == int(events[2].resource.metadata.resourceVersion)


def test_an_object_that_enters_or_leaves_a_field_selection_is_added_or_deleted(served: Served, project: str) -> None:
    with Stream(served, kinds=["ModelFamily"], namespaces=[project], field_selector="spec.name!=a") as stream:
        family = kinds()["ModelFamily"].new(project, "churn")
        family.spec.name = "a"
        family = served.create(family)
        for name in ("a", "b", "b", "c", "a", "a"):
            family.spec.name = name
            family.metadata.annotations["after"] = family.metadata.resourceVersion
            family = served.update(family)
        assert [event.type for event in stream.changes(4)] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]


def test_all_that_one_call_deletes_is_told(served: Served, project: str) -> None:
    owner = served.create(pipeline(project))
    owned = kinds()["ModelFamily"].new(project, "owned")
    owned.metadata.ownerReferences.add(apiVersion="v2", kind="Pipeline", name="train", uid=owner.metadata.uid)
    served.create(owned)
    with Stream(served, namespaces=[project]) as stream:
        served.delete("Pipeline", project, "train")
        assert [(event.kind, event.type) for event in stream.changes(2)] == [
            ("Pipeline", "DELETED"),
            ("ModelFamily", "DELETED"),
        ]


def test_a_status_is_told_as_every_change_is(served: Served, project: str) -> None:
    made = served.create(pipeline(project))
    with Stream(served, kinds=["Pipeline"], namespaces=[project]) as stream:
        made.status.error_message = "no template"
        served.run(served.resources.update_status(made))
        assert stream.changes(1)[0].resource.status.error_message == "no template"


def test_the_largest_object_arrives(served: Served, project: str) -> None:
    new = pipeline(project)
    new.metadata.annotations["large"] = "x" * (LARGEST_BYTES - 1000)
    with Stream(served, namespaces=[project]) as stream:
        served.create(new)
        assert len(stream.changes(1)[0].resource.metadata.annotations["large"]) == LARGEST_BYTES - 1000


def test_a_bookmark_comes_at_once_and_moves_on_with_what_is_not_selected(small: Served) -> None:
    project = small.project()
    with Stream(small, kinds=["ModelFamily"], namespaces=[project], allow_bookmarks=True) as stream:
        first = stream.until(lambda events: len(events) > 0)[0]
        assert (first.type, first.revision, first.resource) == ("BOOKMARK", small.log()[0], None)
        newest = int(small.create(pipeline(project)).metadata.resourceVersion)
        assert stream.reached(newest) == []
        assert stream.events[-1].type == "BOOKMARK"


def test_nothing_is_bookmarked_unasked(small: Served) -> None:
    project = small.project()
    with Stream(small, kinds=["Pipeline"], namespaces=[project], resource_version="0") as stream:
        with Stream(small, kinds=["ModelFamily"], namespaces=[project], allow_bookmarks=True) as beside:
            beside.until(lambda events: len(events) > 3, "bookmarks")
        assert stream.events == []


@pytest.mark.parametrize("pages", [1, 7])
def test_a_bookmark_means_that_everything_up_to_it_was_sent(small: Served, pages: int) -> None:
    project = small.project()
    since = small.log()[0]
    with Stream(small, namespaces=[project], allow_bookmarks=True, resource_version=str(since)) as stream:
        for number in range(pages * 30):
            small.create(pipeline(project, f"p{number}"))
        stream.reached(small.log()[0])
        stream.until(lambda events: events[-1].type == "BOOKMARK")
    seen: list[int] = []
    for event in stream.events:
        if event.type == "BOOKMARK":
            assert seen[-1:] == list(range(since + 1, event.revision + 1))[-1:]
        else:
            seen.append(event.revision)
    assert seen == list(range(since + 1, since + 1 + pages * 30))


@pytest.mark.parametrize(
    ("fields", "code", "reason", "told"),
    [
        ({"resource_version": "999999999"}, "INVALID_ARGUMENT", "RV_IN_FUTURE", "resource_version"),
        ({"resource_version": "-1"}, "INVALID_ARGUMENT", "BAD_RESOURCE_VERSION", "resource_version"),
        ({"resource_version": "yesterday"}, "INVALID_ARGUMENT", "BAD_RESOURCE_VERSION", "resource_version"),
        ({"resource_version": "9" * 30}, "INVALID_ARGUMENT", "BAD_RESOURCE_VERSION", "resource_version"),
        ({"kinds": ["Pipeline", "PipelinRun"]}, "INVALID_ARGUMENT", "UNKNOWN_KIND", "kinds[1]"),
        ({"label_selector": "a in (b"}, "INVALID_ARGUMENT", "BAD_FILTER", "label_selector"),
        ({"field_selector": "spec.nothing=1"}, "INVALID_ARGUMENT", "BAD_FILTER", "field_selector"),
        ({"field_selector": "metadata.name"}, "INVALID_ARGUMENT", "BAD_FILTER", "field_selector"),
        ({"namespaces": ["p"] * 1001}, "INVALID_ARGUMENT", "BAD_FILTER", "namespaces"),
        ({"namespaces": ["a\0b"]}, "INVALID_ARGUMENT", "BAD_TEXT", "namespaces[0]"),
    ],
)
def test_what_cannot_be_watched_is_refused_with_its_field(
    served: Served, fields: Any, code: str, reason: str, told: str
) -> None:
    refusal = refused(served, **fields)
    assert (refusal.code, refusal.reason, refusal.paths) == (code, reason, [told])
    assert told in refusal.message or any(told in path for path in refusal.paths)
    assert refusal.request_id


def test_the_next_call_works_after_300_watches_that_are_no_messages(served: Served, project: str) -> None:
    call: Any = served.channel.unary_stream(SERVICE + "Watch", request_serializer=None, response_deserializer=None)
    for _ in range(300):
        with pytest.raises(grpc.RpcError) as error:
            list(call(b"\xff\xff", timeout=5))
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with Stream(served, namespaces=[project]) as stream:
        served.create(pipeline(project))
        stream.changes(1)


def test_a_principal_has_so_many_watches_and_no_more(small: Served) -> None:
    streams = [Stream(small) for _ in range(SMALL.watches)]
    refusal = refused(small)
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_WATCHES")
    assert "close one" in refusal.message
    for stream in streams:
        stream.close()
    opened = [Stream(small) for _ in range(SMALL.watches)]
    for stream in opened:
        assert stream.refusal is None
        stream.close()


def test_a_consumer_that_never_reads_is_cut_and_told_where_to_go_on(small: Served) -> None:
    project = small.project()
    since = small.log()[0]
    # What is not asked for is not read: the connection's window fills, then the server's queue.
    window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536)]
    got: list[int] = []
    with grpc.insecure_channel(small.address, window) as channel:
        call: Any = channel.unary_stream(SERVICE + "Watch", None, wire.WatchResponse.FromString)
        never = call(wire.WatchRequest(namespaces=[project]).SerializeToString(), timeout=60)
        never.initial_metadata()
        for number in range(120):
            wide = pipeline(project, f"wide{number}")
            wide.metadata.annotations["large"] = "x" * 20_000
            small.create(wide)
        with pytest.raises(grpc.RpcError) as error:
            got.extend(int(event.resource_version) for response in never for event in response.events)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    told = error.value.details() or ""
    assert "too slow" in told
    assert f"last version sent is {got[-1]}:" in told
    assert got == list(range(since + 1, got[-1] + 1)), "nothing is left out before the cut"
    assert len(got) < 120
    with Stream(small, namespaces=[project], resource_version=str(got[-1])) as again:
        assert [event.revision for event in again.changes(120 - len(got))] == list(range(got[-1] + 1, since + 121))


def test_the_watch_can_be_found_and_its_health_asked(served: Served) -> None:
    name = "michelangelo.platform.v1.ResourceService"
    assert name in ProtoReflectionDescriptorDatabase(served.channel).get_services()
    stub: Any = health_pb2_grpc.HealthStub(served.channel)
    health = stub.Check(health_pb2.HealthCheckRequest(service=name))
    assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_a_server_that_stops_ends_its_watches_with_their_last_version(tmp_path: Path) -> None:
    stopping = Served(tmp_path / "store.db")
    project = stopping.project()
    with grpc.insecure_channel(stopping.address) as channel:
        stream = Stream(stopping, channel=channel, namespaces=[project], resource_version="0")
        revision = stream.changes(1)[0].revision
        quiet = Stream(stopping, channel=channel, kinds=["Model"])
        stopping.close()
        refusal = stream.ended()
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "SERVER_STOPPING")
        assert f"last version sent is {revision}:" in refusal.message
        assert quiet.ended().reason == "SERVER_STOPPING"


def test_a_run_is_told_with_its_own_message(served: Served, project: str) -> None:
    with Stream(served, kinds=["PipelineRun"]) as stream:
        served.create(pipeline(project))
        made = served.create(run(project))
        assert stream.changes(1)[0].resource == made
