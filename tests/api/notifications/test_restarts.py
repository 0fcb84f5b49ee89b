"""A server that stops, or was away for long, tells of what happened meanwhile, and of nothing twice."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC
from typing import Any

import pytest

from api.errors import Expired
from api.gen.michelangelo.api.v2 import pipeline_run_pb2
from api.gen.michelangelo.platform.v1 import notice_pb2
from api.notifications.herald import NAME, Herald
from api.notifications.keeping import KEPT, Keeping
from tests.api.inboxes import HANG, Mailbox
from tests.api.telling import Telling, Wire, mail_to
from tests.patience import soon

FAILED = Wire.EVENT_TYPE_PIPELINE_RUN_STATE_FAILED
SUCCEEDED = Wire.EVENT_TYPE_PIPELINE_RUN_STATE_SUCCEEDED
RUN_FAILED = pipeline_run_pb2.PIPELINE_RUN_STATE_FAILED
RUN_SUCCEEDED = pipeline_run_pb2.PIPELINE_RUN_STATE_SUCCEEDED
RUNNING = pipeline_run_pb2.PIPELINE_RUN_STATE_RUNNING
ASKED = mail_to("ada@example.org", events=(FAILED, SUCCEEDED))


async def test_all_that_happened_while_nobody_led_is_told_even_if_it_is_over(telling: Telling, box: Mailbox) -> None:
    await telling.pipeline()
    run = await telling.made("PipelineRun", "nightly", ASKED)
    await telling.end()

    failed = await telling.becomes(run, RUN_FAILED)
    failed.status.state = RUNNING
    failed.status.ClearField("end_time")
    await telling.resources.update_status(failed)
    await telling.becomes(run, RUN_SUCCEEDED)
    await telling.begin()
    await telling.ended(2)

    subjects = sorted(str(mail["Subject"]) for mail in box.mails)
    assert subjects == ["Run nightly of flights failed", "Run nightly of flights succeeded"]


async def test_changes_that_are_read_again_are_not_told_again(telling: Telling, box: Mailbox) -> None:
    await telling.pipeline()
    run = await telling.made("PipelineRun", "nightly", ASKED)
    await telling.becomes(run, RUN_FAILED)
    await telling.ended(1)
    await telling.end()

    state = await telling.resources.get("Hook", "ma-system", NAME)
    state.status.position = 1
    await telling.resources.update_status(state)
    await telling.begin()
    other = await telling.made("PipelineRun", "other", ASKED)
    await telling.becomes(other, RUN_FAILED)
    await telling.ended(2)

    assert sorted(box.ids.values()) == [1, 1]


async def test_a_notice_without_its_messages_is_finished_by_whoever_reads_the_change_again(
    telling: Telling, box: Mailbox
) -> None:
    """As a crash leaves it between its two writes; meanwhile somebody else is to be told."""
    await telling.pipeline()
    run = await telling.made("PipelineRun", "nightly", ASKED)
    await telling.becomes(run, RUN_FAILED)
    (notice,) = await telling.ended(1)
    await telling.end()
    box.mails.clear()

    notice.status.Clear()
    await telling.resources.update_status(notice)
    found = await telling.resources.get("PipelineRun", "flights", "nightly")
    found.spec.notifications[0].emails[0] = "bob@example.org"
    await telling.resources.update(found)
    state = await telling.resources.get("Hook", "ma-system", NAME)
    state.status.position = 1
    await telling.resources.update_status(state)
    await telling.begin()
    await telling.ended(1)

    assert len(box.mails) == 1


async def test_what_the_log_no_longer_holds_is_told_from_where_things_stand(
    telling: Telling, box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await telling.pipeline()
    told = await telling.made("PipelineRun", "told", ASKED)
    await telling.becomes(told, RUN_FAILED)
    await telling.ended(1)
    await telling.end()
    missed = await telling.made("PipelineRun", "missed", ASKED)
    await telling.becomes(missed, RUN_SUCCEEDED)

    follow, fails = Herald._follow, [True]

    async def too_old(self: Herald, state: Any) -> None:
        if fails.pop() if fails else False:
            raise Expired("older than what is kept")
        await follow(self, state)

    monkeypatch.setattr(Herald, "_follow", too_old)
    await telling.begin()
    await telling.ended(2)

    assert sorted(notice.spec.subject.name for notice in await telling.notices()) == ["missed", "told"]
    assert sorted(box.ids.values()) == [1, 1]


async def test_what_a_server_accepts_while_the_platform_stops_is_noted(telling: Telling, box: Mailbox) -> None:
    box.answer_after_s = 0.5
    await telling.pipeline()
    run = await telling.made("PipelineRun", "nightly", ASKED)
    await telling.becomes(run, RUN_FAILED)
    await telling.until(lambda: box.tries == 1)

    await telling.end()
    (notice,) = await telling.notices()

    assert notice.status.deliveries[0].state == notice_pb2.DELIVERY_STATE_ACCEPTED
    await telling.begin()
    await telling.ended(1)
    assert len(box.mails) == 1


async def test_a_server_that_hangs_keeps_nobody_else_waiting(telling: Telling, box: Mailbox) -> None:
    """Mails hang; what goes by another way arrives, and no controller waits for either."""
    box.next_answers = [HANG] * 100
    await telling.pipeline()
    for number in range(12):
        run = await telling.made("PipelineRun", f"run-{number}", ASKED)
        began = time.monotonic()
        await telling.becomes(run, RUN_FAILED)
        assert time.monotonic() - began < soon(0.5)
    await telling.until(lambda: box.tries >= 1)

    tries = box.tries
    await asyncio.sleep(0.5)

    # Two at once, and then it rests: not each of the twelve.
    assert box.tries <= max(tries, 2)


async def test_old_notices_are_removed_and_those_under_way_are_not(telling: Telling, box: Mailbox) -> None:
    await telling.pipeline()
    done = await telling.made("PipelineRun", "done", ASKED)
    await telling.becomes(done, RUN_FAILED)
    (notice,) = await telling.ended(1)
    box.says_to = {"ada@example.org": "451 later"}
    waits = await telling.made("PipelineRun", "waits", ASKED)
    await telling.becomes(waits, RUN_FAILED)
    await telling.until(lambda: box.tries == 2)

    made = notice.status.deliveries[0].end_time.ToDatetime(UTC)
    keeping = Keeping(telling.resources)
    assert await keeping.sweep(made + KEPT / 2) == 0
    assert await keeping.sweep(made + 2 * KEPT) == 1

    assert [notice.spec.subject.name for notice in await telling.notices()] == ["waits"]
