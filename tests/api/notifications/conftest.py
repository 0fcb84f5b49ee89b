"""A mail server, a webhook, and a platform that tells of events by them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from api.notifications import post_office
from api.notify_settings import NotifySettings
from tests.api.inboxes import Hook, Mailbox, mail_server, webhook
from tests.api.telling import Telling


@pytest.fixture
def box() -> Iterator[Mailbox]:
    """A mail server."""
    with mail_server() as served:
        yield served


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A webhook."""
    with webhook() as served:
        yield served


@pytest.fixture
async def telling(tmp_path: Path, box: Mailbox, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Telling]:
    """A platform that tells, and does not wait long."""
    monkeypatch.setattr(post_office, "FIRST_PAUSE_S", 0.2)
    monkeypatch.setattr(post_office, "ANSWERS", 4)
    settings = NotifySettings(
        smtp_host="127.0.0.1",
        smtp_port=box.port,
        smtp_tls="off",
        mail_from="ma@example.org",
        slack_webhooks={"#ml-alerts": hook.url},
        step_s=0.5,
    )
    made = Telling(tmp_path, settings)
    await made.begin()
    yield made
    await made.end()
    await made.store.close()
