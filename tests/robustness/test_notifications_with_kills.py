"""The API server is killed while it tells people: everybody is told, and a message that comes again is the same one."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from api.gen.michelangelo.api.v2 import notification_pb2, pipeline_pb2, pipeline_run_pb2
from api.gen.michelangelo.platform.v1 import notice_pb2
from api.kinds import kinds
from api.resources import Resources
from api.store.sqlite import SqliteStore
from api.workflows import TEMPLATE_TYPE, typed
from tests.api.inboxes import HANG_UP, Hook, Mailbox, mail_server, webhook
from tests.patience import soon
from tests.robustness.killed_server import Connection, KilledServer

Wire = notification_pb2.Notification
PROJECT = "flights"
MAILS = ("ada@example.org", "team@example.org")
PASSWORD = "right-password"
# Sent by workers at once: so many may be accepted and not noted when a process dies.
AT_ONCE = 4


def settings(box: Mailbox, hook: Hook) -> dict[str, str]:
    """Return the variables of the server."""
    return {
        "MA_NOTIFY_SMTP_HOST": "127.0.0.1",
        "MA_NOTIFY_SMTP_PORT": str(box.port),
        "MA_NOTIFY_SMTP_TLS": "off",
        "MA_NOTIFY_SMTP_USER": "ma",
        "MA_NOTIFY_SMTP_PASSWORD": PASSWORD,
        "MA_NOTIFY_FROM": "ma@example.org",
        "MA_NOTIFY_SLACK_WEBHOOKS": f"#ml-alerts={hook.url}",
        "MA_NOTIFY_STEP_S": "2",
        "MA_LEASE_TTL_S": "1.5",
    }


def prepare(connection: Connection, runs: int) -> None:
    """Create runs that tell three receivers of their failure."""
    failed = Wire.EVENT_TYPE_PIPELINE_RUN_STATE_FAILED
    connection.call("Project", "Create", project=kinds()["Project"].new(PROJECT, PROJECT))
    pipeline = kinds()["Pipeline"].new(PROJECT, "train")
    pipeline.spec.manifest.type = pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_YAML
    pipeline.spec.manifest.file_path = "train"
    pipeline.spec.manifest.content.Pack(typed(TEMPLATE_TYPE, {}))
    pipeline.spec.notifications.add(
        notification_type=Wire.NOTIFICATION_TYPE_SLACK, event_types=[failed], slack_destinations=["#ml-alerts"]
    )
    connection.call("Pipeline", "Create", pipeline=pipeline)
    for number in range(runs):
        run = kinds()["PipelineRun"].new(PROJECT, f"run-{number}")
        run.spec.pipeline.name = "train"
        run.spec.notifications.add(
            notification_type=Wire.NOTIFICATION_TYPE_EMAIL, event_types=[failed], emails=list(MAILS)
        )
        connection.call("PipelineRun", "Create", pipeline_run=run)


async def fail_all(store_path: Path) -> None:
    """Write of every run that it failed, as a controller does."""
    store = SqliteStore(store_path)
    resources = Resources(store)
    for run in (await resources.list("PipelineRun")).items:
        run.status.state = pipeline_run_pb2.PIPELINE_RUN_STATE_FAILED
        run.status.error_message = "train: it was killed in a test"
        run.status.end_time.GetCurrentTime()
        await resources.update_status(run)
    await store.close()


def notices(server: KilledServer) -> list[Any]:
    """Return all notices."""
    connection = server.connect()
    try:
        return list(connection.call("Notice", "List", namespace=PROJECT).notice_list.items)
    finally:
        connection.close()


def begin(server: KilledServer, failpoints: str) -> None:
    """Start a life that may end before the server is ready."""
    try:
        server.start(failpoints)
    except AssertionError:
        if server.wait_for_death(0.1) is None:
            raise


@pytest.mark.parametrize(
    ("runs", "kills"),
    [pytest.param(4, 3, id="P"), pytest.param(60, 40, id="C", marks=pytest.mark.robustness)],
)
def test_a_server_that_is_killed_while_it_tells_tells_everybody(tmp_path: Path, runs: int, kills: int) -> None:
    rng = random.Random(7)
    with mail_server(login=True) as box, webhook() as hook:
        server = KilledServer(tmp_path, environ=settings(box, hook))
        with server:
            connection = server.connect()
            prepare(connection, runs)
            connection.close()
            server.kill()
            asyncio.run(fail_all(tmp_path / "store.db"))
            box.next_answers, hook.next_answers = ["451 later", HANG_UP], [503, HANG_UP]
            hung_up = 2
            for kill in range(kills):
                point = ("notify.after_send", "notify.before_send")[kill % 2]
                begin(server, f"{point}=kill@{rng.randint(1, 3)}")
                server.wait_for_death(soon(4.0) if kill < 2 else rng.uniform(0.1, 4.0))
                server.kill()
            server.start()
            deadline = time.monotonic() + soon(20.0)
            while not all(notice.status.state == notice_pb2.NOTICE_STATE_DELIVERED for notice in notices(server)):
                assert time.monotonic() < deadline, notices(server)
                time.sleep(0.1)
            found = notices(server)
            said = server.said()

    asked = {
        delivery.message_id: (notice.spec.subject.name, receiver.address)
        for notice in found
        for receiver, delivery in zip(notice.spec.receivers, notice.status.deliveries, strict=True)
    }
    came = Counter([message_id.strip("<>") for message_id in box.ids.elements()] + hook.keys)
    expected = {(f"run-{number}", address) for number in range(runs) for address in (*MAILS, "#ml-alerts")}
    assert sorted(asked.values()) == sorted(expected)
    assert set(came) == set(asked)
    again = came.total() - len(came)
    print(f"{len(came)} messages, {again} of them came again under the same id, {kills} kills")
    assert again <= AT_ONCE * kills + hung_up
    assert PASSWORD not in said
    assert "s3cr3t" not in said
