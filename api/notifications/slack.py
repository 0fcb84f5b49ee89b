"""Slack by incoming webhooks.  A webhook's URL is a secret: it stands in no text, log or status."""

from __future__ import annotations

import hashlib
import ssl
from functools import cached_property
from typing import Any

import httpx

from api.notifications.texts import line
from api.notifications.ways import Undelivered
from api.notify_settings import NotifySettings

TOO_MANY, TOO_EARLY, TIMEOUT = 429, 425, 408
LONGEST_WAIT_S = 3600.0
READ_BYTES = 1000


def escaped(text: str) -> str:
    """Return a text in which nothing is a link, a mention or a channel.  Source: Slack, formatting text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def text_of(notice: Any) -> str:
    """Return what is shown."""
    spec = notice.spec
    lines = [f"*{_plain(spec.title)}*"]
    lines += [f"{escaped(fact.label)}: {_plain(fact.value)}" for fact in spec.facts]
    if spec.detail:
        lines.append("```\n" + escaped(spec.detail.replace("`", "'")) + "\n```")
    if spec.link:
        lines.append(escaped(spec.link))
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return one line without Slack's marks: a star or a backtick in a name is none."""
    return escaped(text.replace("*", "∗").replace("`", "'").replace("~", "∼"))


class Slack:
    """The webhooks of the settings."""

    name = "slack"

    def __init__(self, settings: NotifySettings) -> None:
        self._settings = settings

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def _url(self, address: str) -> str:
        hooks = self._settings.slack_webhooks
        bare = address.lstrip("#")
        return hooks.get(address) or hooks.get(bare) or hooks.get(f"#{bare}") or self._settings.slack_url

    def server(self, address: str) -> str:
        """Each webhook stands for itself."""
        return "slack:" + hashlib.sha256(self._url(address).encode()).hexdigest()[:12]

    async def send(self, notice: Any, address: str, message_id: str) -> None:
        """Send one message.  Raises Undelivered."""
        url = self._url(address)
        if not url:
            told = f"{address} has no webhook: set MA_NOTIFY_SLACK_WEBHOOKS or MA_NOTIFY_SLACK_URL for the API server"
            raise Undelivered("NotSetUp", told, all_of_them=True)
        sent: dict[str, Any] = {"text": text_of(notice), "unfurl_links": False}
        if url == self._settings.slack_url:
            # A webhook of an app has one channel and pays no heed; an older one, and what speaks like Slack, does.
            sent["channel"] = address
        try:
            async with (
                httpx.AsyncClient(verify=self._tls, timeout=self._settings.step_s) as client,
                client.stream("POST", url, json=sent, headers={"Idempotency-Key": message_id}) as answer,
            ):
                said = b""
                async for part in answer.aiter_bytes(READ_BYTES):
                    said = part
                    break
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            told = f"the webhook of {address} does not answer: {type(error).__name__}"
            raise Undelivered("ServerUnreachable", told, all_of_them=True) from None
        if not answer.is_success:
            raise self._refused(address, answer, line(said.decode("utf-8", "replace").replace(url, "…"), 100))

    def _refused(self, address: str, answer: httpx.Response, said: str) -> Undelivered:
        told = f"the webhook of {address} says {answer.status_code} {said}".rstrip()
        code = answer.status_code
        if 400 <= code < 500 and code not in (TOO_MANY, TOO_EARLY, TIMEOUT):
            return Undelivered("MessageRefused", told, for_good=True)
        try:
            retry_s = min(max(0.0, float(answer.headers.get("retry-after", ""))), LONGEST_WAIT_S)
        except ValueError:
            retry_s = 0.0
        return Undelivered("ServerRefused", told, all_of_them=True, retry_s=retry_s)
