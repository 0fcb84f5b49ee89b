"""Publishing by every role, and what the audit log says of it: one record a call, whatever became of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from api.broker.publishing import PUBLISH
from api.gen.michelangelo.platform.v1 import broker_service_pb2 as wire
from tests.security.matrix import EVERYBODY, verdict
from tests.security.objects import NAME, smallest
from tests.security.secured import Caller, Secured, known, refused

MINE, THEIRS = "mine", "theirs"
MEMBERS = ("viewer", "editor", "operator", "approver", "admin")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Two projects; members of the first in each role."""
    people = [known(name) for name in (*MEMBERS, "stranger")]
    made = Secured(tmp_path_factory.mktemp("publishing"), [*people, known("late", expires=1)])
    for project in (MINE, THEIRS):
        made.owner.create(smallest("Project", project))
        for kind in ("Pipeline", "PipelineRun"):
            made.owner.create(smallest(kind, project))
    for role in MEMBERS:
        made.owner.bind(MINE, role.upper(), f"user:{role}")
    yield made
    made.close()


def publish(caller: Caller, project: str, key: str, request_id: str = "", **fields: Any) -> wire.PublishResponse:
    request = wire.PublishRequest(namespace=project, name="orders.loaded", key=key, **fields)
    more = (("x-request-id", request_id),) if request_id else ()
    return wire.PublishResponse.FromString(caller.raw(PUBLISH, request.SerializeToString(), more))


@pytest.mark.parametrize("project", [MINE, THEIRS])
@pytest.mark.parametrize("who", EVERYBODY)
def test_who_may_create_events_may_publish(secured: Secured, who: str, project: str) -> None:
    caller = secured.nobody if who == "nobody" else secured.user(who)
    wanted = verdict(who, "Create", "Event", own=project == MINE)
    if wanted == "OK":
        assert publish(caller, project, f"by {who}").event
    else:
        assert refused(publish, caller, project, f"by {who}").code == wanted


def test_a_project_that_is_not_the_callers_is_none(secured: Secured) -> None:
    told = [refused(publish, secured.user("admin"), project, "x") for project in (THEIRS, "absent")]
    assert told[0].message.replace(THEIRS, "X") == told[1].message.replace("absent", "X")
    assert (told[0].code, told[0].reason) == (told[1].code, told[1].reason)


def test_a_run_of_another_project_is_no_cause(secured: Secured) -> None:
    told = []
    for name in (NAME, "absent"):
        refusal = refused(
            publish, secured.user("editor"), MINE, f"of {name}", cause={"namespace": THEIRS, "name": name}
        )
        told.append((refusal.code, refusal.reason, refusal.message.replace(name, "X")))
    assert told[0] == told[1]
    assert told[0][:2] == ("INVALID_ARGUMENT", "UNKNOWN_REFERENCE")
    assert publish(secured.user("editor"), MINE, "of mine", cause={"name": NAME}).event


def test_a_subscription_to_anothers_pipeline_needs_the_right_to_run_it(secured: Secured) -> None:
    new = smallest("Subscription", MINE, "across")
    new.spec.pipeline.namespace = THEIRS
    assert refused(secured.user("editor").create, new).reason == "UNKNOWN_REFERENCE"
    secured.owner.bind(THEIRS, "VIEWER", "user:editor")
    assert refused(secured.user("editor").create, new).code == "PERMISSION_DENIED"
    secured.owner.bind(THEIRS, "EDITOR", "user:editor")
    assert secured.user("editor").create(new).metadata.name == "across"


def test_each_call_has_one_record(secured: Secured) -> None:
    before = len(secured.audit())
    editor, named = secured.user("editor"), str(uuid.uuid4())
    publish(editor, MINE, "audited")
    publish(editor, MINE, "audited")
    first = publish(editor, MINE, "", request_id=named)
    assert publish(editor, MINE, "", request_id=named) == first, "the same call, the same answer"
    refused(publish, editor, MINE, "audited", source="editor", subject="other")
    refused(publish, secured.user("viewer"), MINE, "audited")
    found = [(record.verb, record.kind, record.outcome, record.reason) for record in secured.audit()[before:]]
    assert found == [
        ("Create", "Event", "OK", ""),
        ("Publish", "Event", "OK", "NO_EFFECT"),
        ("Create", "Event", "OK", ""),
        ("Publish", "Event", "ALREADY_EXISTS", "KEY_REUSED"),
        ("Publish", "Event", "PERMISSION_DENIED", "PERMISSION_DENIED"),
    ]
