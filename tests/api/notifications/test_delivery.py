"""Messages arrive, once for each event and receiver, whatever the receivers do."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from api.gen.michelangelo.api.v2 import pipeline_pb2, pipeline_run_pb2, trigger_run_pb2
from api.gen.michelangelo.platform.v1 import notice_pb2
from api.notifications.events import EVENTS, Event
from tests.api.inboxes import HANG, HANG_UP, Hook, Mailbox
from tests.api.telling import PUBLIC, Telling, Wire, mail_to, slack_to
from tests.patience import soon

FAILED = Wire.EVENT_TYPE_PIPELINE_RUN_STATE_FAILED
SUCCEEDED = Wire.EVENT_TYPE_PIPELINE_RUN_STATE_SUCCEEDED
RUN_FAILED = pipeline_run_pb2.PIPELINE_RUN_STATE_FAILED
RUN_SUCCEEDED = pipeline_run_pb2.PIPELINE_RUN_STATE_SUCCEEDED
RUNNING = pipeline_run_pb2.PIPELINE_RUN_STATE_RUNNING
READY, ERROR = pipeline_pb2.PIPELINE_STATE_READY, pipeline_pb2.PIPELINE_STATE_ERROR
BUILDING = pipeline_pb2.PIPELINE_STATE_BUILDING
ALL = tuple(event.type for event in EVENTS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: Wire.EventType.Name(event.type))
async def test_each_of_the_nine_events_arrives_by_both_ways(
    telling: Telling, box: Mailbox, hook: Hook, event: Event
) -> None:
    asked = [mail_to("ada@example.org", events=(event.type,)), slack_to("#ml-alerts", events=(event.type,))]
    pipeline = await telling.pipeline(*(asked if event.kind == "Pipeline" else ()))
    subject = pipeline if event.kind == "Pipeline" else await telling.made(event.kind, "nightly", *asked)

    await telling.becomes(subject, event.state, "rows: the table is empty")
    (notice,) = await telling.ended(1)

    assert notice.status.state == notice_pb2.NOTICE_STATE_DELIVERED
    (mail,), (message,) = box.mails, hook.messages
    name = subject.metadata.name
    assert mail["Subject"].endswith(f"{name} of flights {event.word}")
    assert (mail["To"], mail["From"]) == ("ada@example.org", "Michelangelo <ma@example.org>")
    assert "rows: the table is empty" in mail.get_content()
    assert f"{name} of flights {event.word}" in message["text"]
    assert "rows: the table is empty" in message["text"]


async def test_a_run_tells_whom_its_trigger_and_its_pipeline_name_too_each_once(telling: Telling, box: Mailbox) -> None:
    about_runs = Wire.RESOURCE_TYPE_PIPELINE_RUN
    await telling.pipeline(
        mail_to("team@example.org", "Ada@Example.org", events=(FAILED,), about=about_runs),
        mail_to("others@example.org", events=(SUCCEEDED,), about=about_runs),
        mail_to("builds@example.org", events=ALL[-2:], about=Wire.RESOURCE_TYPE_PIPELINE),
    )
    await telling.made("TriggerRun", "nightly", mail_to("night@example.org", events=(FAILED,), about=about_runs))
    run = await telling.made("PipelineRun", "nightly-1", mail_to("Ada@example.org", events=(FAILED, SUCCEEDED)))
    run.metadata.labels["pipelinerun.michelangelo/triggered-by"] = "nightly"
    run = await telling.resources.update(run)

    await telling.becomes(run, RUN_FAILED, "train: out of memory")
    await telling.ended(1)

    told = sorted(str(mail["To"]) for mail in box.mails)
    assert told == ["Ada@example.org", "night@example.org", "team@example.org"]


async def test_a_message_says_what_where_and_why(telling: Telling, box: Mailbox) -> None:
    await telling.pipeline()
    run = await telling.made("PipelineRun", "nightly", mail_to("ada@example.org", events=(FAILED,)))

    link = "http://127.0.0.1:8080/dags/flights.train/runs/ma__1"
    failed = await telling.becomes(run, RUN_FAILED, "train: KeyError: 'rows'", log_url=link)
    await telling.ended(1)

    text = box.mails[0].get_content()
    ended = failed.status.end_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")
    for told in ("Pipeline:", "train", "Started by:", "ada", ended, "train: KeyError: 'rows'"):
        assert told in text
    assert f"{PUBLIC}/dags/flights.train/runs/ma__1" in text
    assert "127.0.0.1" not in text


async def test_what_is_written_again_is_told_once_and_what_happens_again_is_told_again(
    telling: Telling, box: Mailbox
) -> None:
    await telling.pipeline()
    run = await telling.made("PipelineRun", "nightly", mail_to("ada@example.org", events=(FAILED,)))

    failed = await telling.becomes(run, RUN_FAILED, "first")
    failed.status.error_message = "first, said better"
    await telling.resources.update_status(failed)
    await telling.ended(1)
    failed.status.ClearField("end_time")
    failed.status.state = RUNNING
    await telling.resources.update_status(failed)
    await telling.becomes(run, RUN_FAILED, "second")
    await telling.ended(2)

    assert ["first" in mail.get_content() for mail in box.mails] == [True, False]
    assert set(box.ids.values()) == {1}
    assert len(box.ids) == 2


async def test_a_pipeline_that_is_built_again_from_the_same_spec_is_told_once(telling: Telling, box: Mailbox) -> None:
    events = (Wire.EVENT_TYPE_PIPELINE_STATE_READY, Wire.EVENT_TYPE_PIPELINE_STATE_ERROR)
    pipeline = await telling.pipeline(mail_to("ada@example.org", events=events))

    for state, build in ((READY, "a"), (BUILDING, "a"), (READY, "a"), (READY, "b"), (ERROR, "b"), (READY, "b")):
        await telling.becomes(pipeline, state, build_id=build)
    await telling.ended(4)

    subjects = [str(mail["Subject"]).rpartition(" of flights ")[2] for mail in box.mails]
    assert sorted(subjects) == ["cannot be built", "is ready", "is ready", "is ready"]


async def test_nobody_is_told_of_what_nobody_asked_for(telling: Telling, box: Mailbox, hook: Hook) -> None:
    await telling.pipeline(mail_to("ada@example.org", events=()))
    run = await telling.made("PipelineRun", "nightly", slack_to("#ml-alerts", events=(SUCCEEDED,)))
    watched = await telling.made("PipelineRun", "other", slack_to("#ml-alerts", events=(FAILED,)))

    await telling.becomes(run, RUN_FAILED)
    await telling.becomes(watched, RUN_FAILED)
    (notice,) = await telling.ended(1)

    assert notice.spec.subject.name == "other"
    assert box.mails == []


async def test_each_receiver_has_a_fate_of_its_own(telling: Telling, box: Mailbox) -> None:
    box.says_to = {"gone@example.org": "550 no such user here"}
    await telling.pipeline()
    asked = mail_to("gone@example.org", "ada@example.org", events=(FAILED,))
    run = await telling.made("PipelineRun", "nightly", asked)

    await telling.becomes(run, RUN_FAILED)
    (notice,) = await telling.ended(1)

    assert [str(mail["To"]) for mail in box.mails] == ["ada@example.org"]
    assert notice.status.state == notice_pb2.NOTICE_STATE_UNDELIVERABLE
    (condition,) = notice.status.conditions
    assert (condition.type, condition.reason) == ("Delivered", "GivenUp")
    assert condition.message == "gone@example.org: the mail server says 550 no such user here"
    dead, accepted = notice.status.deliveries
    assert (dead.state, dead.attempts) == (notice_pb2.DELIVERY_STATE_DEAD, 1)
    assert accepted.state == notice_pb2.DELIVERY_STATE_ACCEPTED


@pytest.mark.parametrize("answer", ["451 not now", "421 closing", HANG, HANG_UP], ids=lambda answer: answer[:7])
async def test_a_mail_server_that_fails_is_asked_again_for_the_same_message(
    telling: Telling, box: Mailbox, answer: str
) -> None:
    box.next_answers = [answer]
    await telling.pipeline()
    run = await telling.made("PipelineRun", "nightly", mail_to("ada@example.org", events=(FAILED,)))

    await telling.becomes(run, RUN_FAILED)
    (notice,) = await telling.ended(1, promised_s=8.0)

    assert notice.status.state == notice_pb2.NOTICE_STATE_DELIVERED
    assert notice.status.deliveries[0].attempts == 2
    # Kept but not confirmed: it comes twice, and is known by its id and its date.
    assert len(box.ids) == 1
    assert len(box.mails) == (2 if answer == HANG_UP else 1)
    assert len({(mail["Date"], mail.get_content()) for mail in box.mails}) == 1


@pytest.mark.parametrize("answer", [500, 429, HANG, HANG_UP])
async def test_a_webhook_that_fails_is_asked_again_with_the_same_key(
    telling: Telling, hook: Hook, answer: int | str
) -> None:
    hook.next_answers, hook.retry_after = [answer], "1"
    await telling.pipeline()
    run = await telling.made("PipelineRun", "nightly", slack_to("#ml-alerts", events=(FAILED,)))

    await telling.becomes(run, RUN_FAILED)
    (notice,) = await telling.ended(1, promised_s=8.0)

    assert notice.status.deliveries[0].attempts == 2
    assert set(hook.keys) == {notice.status.deliveries[0].message_id}


async def test_a_webhook_that_is_gone_is_given_up_and_its_url_is_told_nobody(
    telling: Telling, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.next_answers = [500, 404]
    await telling.pipeline()
    run = await telling.made("PipelineRun", "nightly", slack_to("#ml-alerts", "#nowhere", events=(FAILED,)))

    # The level that the server sets; a client of HTTP would log each request with its URL.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with caplog.at_level(logging.INFO):
        await telling.becomes(run, RUN_FAILED)
        notice = await _until_given_up(telling, 0)

    dead, waiting = notice.status.deliveries
    assert dead.message == "the webhook of #ml-alerts says 404 channel_not_found"
    assert (waiting.reason, waiting.HasField("end_time")) == ("NotSetUp", False)
    assert "MA_NOTIFY_SLACK_WEBHOOKS" in waiting.message
    assert "s3cr3t" not in f"{notice}{caplog.text}{telling.settings}"


async def _until_given_up(telling: Telling, number: int) -> Any:
    deadline = time.monotonic() + soon(6.0)
    while True:
        for notice in await telling.notices():
            if notice.status.deliveries and notice.status.deliveries[number].state == notice_pb2.DELIVERY_STATE_DEAD:
                return notice
        assert time.monotonic() < deadline, await telling.notices()
        await asyncio.sleep(0.02)


async def test_a_trigger_that_ends_is_told_of_once_however_often_its_spec_changes(
    telling: Telling, box: Mailbox
) -> None:
    await telling.pipeline()
    killed = Wire.EVENT_TYPE_TRIGGER_RUN_STATE_KILLED
    trigger = await telling.made("TriggerRun", "nightly", mail_to("ada@example.org", events=(killed,)))

    ended = await telling.becomes(trigger, trigger_run_pb2.TRIGGER_RUN_STATE_KILLED)
    ended.metadata.labels["team"] = "growth"
    await telling.resources.update(ended)
    await telling.ended(1)

    assert len(box.mails) == 1
