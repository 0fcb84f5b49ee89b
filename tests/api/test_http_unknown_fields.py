"""What a client of a later release stored by gRPC stays when JSON replaces or patches the object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet

from api import unknown
from api.kinds import kinds
from api.workflows import TEMPLATE_TYPE, typed
from tests.api.http_running import ROOT, HttpServed

MERGE = {"content-type": "application/merge-patch+json"}
# A field that no message has, and its value on the wire.
NUMBER = 9_000
LATER = bytes((0xC2, 0xB2, 0x04, 5)) + b"later"
PARTS: dict[str, Callable[[Any], Any]] = {
    "object": lambda item: item,
    "metadata": lambda item: item.metadata,
    "spec": lambda item: item.spec,
    "a message": lambda item: item.spec.manifest,
    "an empty message": lambda item: item.spec.owner,
    "an item": lambda item: item.spec.notifications[0],
    "another item": lambda item: item.spec.notifications[1],
    "a value": lambda item: item.spec.manifest.trigger_map["nightly"],
    "below a value": lambda item: item.spec.manifest.trigger_map["nightly"].cron_schedule,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServed]:
    made = HttpServed(tmp_path_factory.mktemp("http") / "store.db")
    yield made
    made.close()


def of_a_later_release(project: str) -> Any:
    """Return a pipeline with a field in every part that this release does not know."""
    new = kinds()["Pipeline"].new(project, "train")
    new.spec.manifest.file_path = "train_and_deploy"
    new.spec.manifest.trigger_map["nightly"].cron_schedule.cron = "0 1 * * *"
    new.spec.owner.SetInParent()
    for address in ("a@example.com", "b@example.com"):
        new.spec.notifications.add(notification_type=1, emails=[address])
    for part in PARTS.values():
        part(new).MergeFromString(LATER)
    content = typed(TEMPLATE_TYPE, {"rows": 3})
    content.MergeFromString(LATER)
    new.spec.manifest.content.Pack(content)
    return new


def lost(item: Any) -> list[str]:
    """Return which parts have not exactly what the later release wrote."""
    found = [name for name, part in PARTS.items() if written(part(item)) != [b"later"]]
    content = typed(TEMPLATE_TYPE, {})
    assert item.spec.manifest.content.Unpack(content)
    return found if written(content) == [b"later"] else [*found, "what is packed"]


def written(message: Any) -> list[bytes]:
    fields: Any = UnknownFieldSet(message)
    return [field.data for field in fields if field.field_number == NUMBER]


@pytest.fixture
def path(server: HttpServed) -> str:
    project = server.project()
    assert lost(server.create(of_a_later_release(project))) == []
    return f"{ROOT}/namespaces/{project}/pipelines/train"


def stored(server: HttpServed, path: str) -> Any:
    return server.get("Pipeline", path.split("/")[5], "train")


def test_a_put_of_what_was_read_keeps_them(server: HttpServed, path: str) -> None:
    shown = server.done("GET", path)
    shown["spec"]["description"] = "replaced"
    server.done("PUT", path, shown)
    found = stored(server, path)
    assert found.spec.description == "replaced"
    assert lost(found) == []


def test_a_patch_keeps_them_each_time(server: HttpServed, path: str) -> None:
    for number in range(3):
        server.done("PATCH", path, {"spec": {"description": f"patched {number}"}}, headers=MERGE)
        server.done("PATCH", path, {"metadata": {"labels": {"n": str(number)}}}, headers=MERGE)
    found = stored(server, path)
    assert (found.spec.description, found.metadata.labels["n"]) == ("patched 2", "2")
    assert lost(found) == []


def test_a_put_that_changes_nothing_else_changes_nothing(server: HttpServed, path: str) -> None:
    before = stored(server, path)
    server.done("PUT", path, server.done("GET", path))
    assert stored(server, path) == before


def test_an_item_keeps_its_own_among_others(server: HttpServed, path: str) -> None:
    shown = server.done("GET", path)
    first, second = shown["spec"]["notifications"]
    shown["spec"]["notifications"] = [{**second, "emails": ["new@example.com"]}, second, first]
    server.done("PUT", path, shown)
    found = stored(server, path).spec.notifications
    assert [written(item) for item in found] == [[], [b"later"], [b"later"]]


def test_what_the_body_leaves_out_goes_with_its_own(server: HttpServed, path: str) -> None:
    server.done("PATCH", path, {"spec": {"owner": None, "notifications": None}}, headers=MERGE)
    found = stored(server, path)
    assert not found.spec.HasField("owner")
    assert not found.spec.notifications
    assert written(found.spec) == [b"later"]


def test_a_client_that_speaks_grpc_may_take_them_away(server: HttpServed, path: str) -> None:
    found = stored(server, path)
    found.DiscardUnknownFields()
    server.update(found)
    assert lost(stored(server, path)) == list(PARTS)


def test_bytes_of_a_type_that_nobody_knows_stay_as_they_are() -> None:
    old, new = kinds()["Pipeline"].new("p", "a"), kinds()["Pipeline"].new("p", "a")
    for one, value in ((old, b"\xff\xff"), (new, b"x")):
        one.spec.manifest.content.type_url = "type.example/opaque"
        one.spec.manifest.content.value = value
    old.spec.MergeFromString(LATER)
    unknown.keep(old, new)
    assert written(new.spec) == [b"later"]
    assert new.spec.manifest.content.value == b"x"
