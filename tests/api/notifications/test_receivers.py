"""What an object may ask for, and how it is refused: reason, field and way out."""

from __future__ import annotations

from typing import Any

import pytest

from api.errors import InvalidArgument
from api.gen.michelangelo.api.v2 import pipeline_run_pb2
from api.store.values import key_of
from tests.api.inboxes import Mailbox
from tests.api.telling import Telling, Wire, mail_to, slack_to

FAILED = Wire.EVENT_TYPE_PIPELINE_RUN_STATE_FAILED
READY = Wire.EVENT_TYPE_PIPELINE_STATE_READY
ENDED = Wire.EVENT_TYPE_TRIGGER_RUN_STATE_FAILED
RUN, TRIGGER, PIPELINE = (
    Wire.RESOURCE_TYPE_PIPELINE_RUN,
    Wire.RESOURCE_TYPE_TRIGGER_RUN,
    Wire.RESOURCE_TYPE_PIPELINE,
)
ADA = "ada@example.org"


def of_type(number: int) -> Any:
    made = mail_to(ADA, events=(FAILED,))
    made.notification_type = number
    return made


def with_both() -> Any:
    made = mail_to(ADA, events=(FAILED,))
    made.slack_destinations.append("#ml-alerts")
    return made


REFUSED = {
    "no type": (of_type(0), "UNKNOWN_DESTINATION_TYPE", "notification_type", "NOTIFICATION_TYPE_EMAIL or"),
    "unknown type": (of_type(7), "UNKNOWN_DESTINATION_TYPE", "notification_type", "NOTIFICATION_TYPE_SLACK"),
    "nobody": (mail_to(events=(FAILED,)), "NO_RECEIVER", "emails", "nobody would be told"),
    "no channel": (slack_to(events=(FAILED,)), "NO_RECEIVER", "slack_destinations", "nobody would be told"),
    "both ways": (with_both(), "NO_RECEIVER", "slack_destinations", "an entry of its own"),
    "event of another kind": (mail_to(ADA, events=(READY,)), "BAD_EVENT_TYPE", "event_types[0]", "RUN_STATE_FAILED"),
    "event beside its type": (mail_to(ADA, events=(FAILED, ENDED)), "BAD_EVENT_TYPE", "event_types[1]", "is no event"),
    "no event": (mail_to(ADA, events=(0,)), "BAD_EVENT_TYPE", "event_types[0]", "is no event of a PipelineRun"),
    "unknown event": (mail_to(ADA, events=(77,)), "BAD_EVENT_TYPE", "event_types[0]", "take EVENT_TYPE"),
    "another kind": (mail_to(ADA, events=(FAILED,), about=PIPELINE), "BAD_EVENT_TYPE", "resource_type", "or left out"),
    "unknown kind": (mail_to(ADA, events=(FAILED,), about=9), "BAD_EVENT_TYPE", "resource_type", "left out"),
    "a URL": (
        slack_to("https://hooks.slack.com/s", events=(FAILED,)),
        "BAD_ADDRESS",
        "slack_destinations[0]",
        "secret",
    ),
    "a mention": (slack_to("<!channel>", events=(FAILED,)), "BAD_ADDRESS", "slack_destinations[0]", "#ml-alerts"),
    "too many": (
        mail_to(*(f"a{number}@example.org" for number in range(51)), events=(FAILED,)),
        "TOO_MANY_RECEIVERS",
        "",
        "mailing list",
    ),
}
BAD_ADDRESSES = [
    "",
    "ada",
    "ada@",
    "@example.org",
    "ada@example.org\r\nBcc: all@example.org",
    "ada@example.org\n",
    "Ada <ada@example.org>",
    "ada@example.org, bob@example.org",
    "ada@exa mple.org",
    "ada@-example.org",
    "ada..b@example.org",
    "ada@example..org",
    '"a b"@example.org',
    "ada@münchen.example",
    "ada\x00@example.org",
    f"{'a' * 65}@example.org",
    f"a@{'b' * 64}.org",
    f"a@{'b.' * 130}org",
]


async def refused(telling: Telling, kind: str, notification: Any) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as refusal:
        await telling.made(kind, "nightly", notification)
    return refusal.value


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_told_is_refused_with_a_way_out(telling: Telling, name: str) -> None:
    notification, reason, field, told = REFUSED[name]
    await telling.pipeline()

    refusal = await refused(telling, "PipelineRun", notification)

    (violation,) = refusal.violations
    path = f"spec.notifications[0].{field}" if field else "spec.notifications"
    assert (refusal.reason, violation.field) == (reason, path)
    assert told in violation.description


@pytest.mark.parametrize("address", BAD_ADDRESSES)
async def test_an_address_is_one_plain_address(telling: Telling, address: str) -> None:
    await telling.pipeline()

    refusal = await refused(telling, "PipelineRun", mail_to(ADA, address, events=(FAILED,)))

    assert refusal.reason == "BAD_ADDRESS"
    assert [violation.field for violation in refusal.violations] == ["spec.notifications[0].emails[1]"]
    assert "\n" not in refusal.violations[0].description


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [("Pipeline", (READY, FAILED, ENDED)), ("TriggerRun", (FAILED, ENDED)), ("PipelineRun", (FAILED,))],
)
async def test_an_object_asks_for_events_of_itself_and_of_what_is_made_of_it(
    telling: Telling, kind: str, allowed: tuple[int, ...]
) -> None:
    async def made(number: int, event: int) -> Any:
        asked = mail_to(ADA, events=(event,))
        if kind == "Pipeline":
            return await telling.pipeline(asked, name=f"train-{number}")
        return await telling.made(kind, f"nightly-{number}", asked)

    await telling.pipeline()
    for number, event in enumerate((READY, ENDED, FAILED)):
        if event in allowed:
            await made(number, event)
            continue
        with pytest.raises(InvalidArgument) as refusal:
            await made(number, event)
        assert refusal.value.reason == "BAD_EVENT_TYPE"


async def test_what_was_stored_before_there_were_rules_can_still_be_killed_and_tells_whom_it_can(
    telling: Telling, box: Mailbox
) -> None:
    await telling.pipeline()
    run = await telling.made("PipelineRun", "nightly", mail_to(ADA, events=(FAILED,)))
    stored: Any = await telling.store.get(key_of(run))
    stored.spec.notifications[0].emails.append("ada@example.org\r\nBcc: all@example.org")
    stored.spec.notifications[0].event_types.append(READY)
    await telling.overwrite(stored)

    found = await telling.resources.get("PipelineRun", "flights", "nightly")
    found.spec.kill = True
    found = await telling.resources.update(found)
    await telling.becomes(found, pipeline_run_pb2.PIPELINE_RUN_STATE_FAILED)
    await telling.ended(1)

    assert [str(mail["To"]) for mail in box.mails] == [ADA]


async def test_a_notice_of_anybody_else_is_never_sent(telling: Telling, box: Mailbox) -> None:
    await telling.pipeline()
    watched = await telling.made("PipelineRun", "nightly", mail_to(ADA, events=(FAILED,)))
    await telling.becomes(watched, pipeline_run_pb2.PIPELINE_RUN_STATE_FAILED)
    (notice,) = await telling.ended(1)

    forged = type(notice)()
    forged.CopyFrom(notice)
    forged.metadata.Clear()
    forged.metadata.namespace, forged.metadata.name = "flights", "forged"
    forged.spec.receivers[0].address = "victim@example.org"
    await telling.resources.create(forged)
    changed = await telling.resources.get("Notice", "flights", notice.metadata.name)
    changed.spec.receivers[0].address = "victim@example.org"
    with pytest.raises(InvalidArgument) as refusal:
        await telling.resources.update(changed)
    again = await telling.made("PipelineRun", "nightly-2", mail_to(ADA, events=(FAILED,)))
    await telling.becomes(again, pipeline_run_pb2.PIPELINE_RUN_STATE_FAILED)
    await telling.until(lambda: len(box.mails) == 2)

    assert refusal.value.reason == "IMMUTABLE_FIELD"
    assert [str(mail["To"]) for mail in box.mails] == [ADA, ADA]
