"""How people are told of events: settings `MA_NOTIFY_*`, as one frozen value.  Sends nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit

TLS_PORTS: Mapping[str, int] = {"starttls": 587, "tls": 465, "off": 25}
# RFC 5321's dot-atom, and a domain name; what else an address may be is not worth what it makes possible.
ADDRESS = re.compile(
    r"(?=.{3,254}\Z)(?P<local>(?=[^@]{1,64}@)[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+)*)"
    r"@(?P<domain>([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)\Z"
)
# A channel or a person, by name or by Slack's own id.
DESTINATION = re.compile(r"[#@]?\w[\w.-]{0,79}\Z")
LONGEST_STEP_S = 60.0
DAY_S = 86_400.0


@dataclass(frozen=True)
class NotifySettings:
    """Where messages go.  Empty texts switch a way off; `docs/notifications.md` explains each.

    smtp_tls: starttls, tls or off; slack_webhooks: URL by destination; slack_url: of all other destinations.
    link_url: where readers find Airflow's UI; step_s: for each answer of a server, and ten times that for the one that
    accepts a message; give_up_s: after the event.
    """

    smtp_host: str = ""
    smtp_port: int = 0
    smtp_user: str = ""
    smtp_password: str = field(default="", repr=False)
    smtp_tls: str = "starttls"
    mail_from: str = ""
    slack_url: str = field(default="", repr=False)
    slack_webhooks: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    link_url: str = ""
    step_s: float = 10.0
    give_up_s: float = DAY_S

    @property
    def port(self) -> int:
        """The mail server's port."""
        return self.smtp_port or TLS_PORTS[self.smtp_tls]

    def environ(self) -> dict[str, str]:
        """Return the variables from which `read` gives this value again."""
        return {
            "MA_NOTIFY_SMTP_HOST": self.smtp_host,
            "MA_NOTIFY_SMTP_PORT": str(self.smtp_port or ""),
            "MA_NOTIFY_SMTP_USER": self.smtp_user,
            "MA_NOTIFY_SMTP_PASSWORD": self.smtp_password,
            "MA_NOTIFY_SMTP_TLS": self.smtp_tls,
            "MA_NOTIFY_FROM": self.mail_from,
            "MA_NOTIFY_SLACK_URL": self.slack_url,
            "MA_NOTIFY_SLACK_WEBHOOKS": " ".join(f"{name}={url}" for name, url in self.slack_webhooks.items()),
            "MA_NOTIFY_LINK_URL": self.link_url,
            "MA_NOTIFY_STEP_S": str(self.step_s),
            "MA_NOTIFY_GIVE_UP_S": str(self.give_up_s),
        }


def read(environ: Mapping[str, str], faults: list[str]) -> NotifySettings:
    """Return the settings; `faults` gets a line for each variable that cannot be used.  No line holds a secret."""
    tls = environ.get("MA_NOTIFY_SMTP_TLS") or "starttls"
    if tls not in TLS_PORTS:
        faults.append(f"MA_NOTIFY_SMTP_TLS is starttls, tls or off, not {tls[:64]!r}")
        tls = "starttls"
    found = NotifySettings(
        smtp_host=environ.get("MA_NOTIFY_SMTP_HOST", ""),
        smtp_port=_port(environ.get("MA_NOTIFY_SMTP_PORT", ""), faults),
        smtp_user=environ.get("MA_NOTIFY_SMTP_USER", ""),
        smtp_password=environ.get("MA_NOTIFY_SMTP_PASSWORD", ""),
        smtp_tls=tls,
        mail_from=environ.get("MA_NOTIFY_FROM", ""),
        slack_url=_url("MA_NOTIFY_SLACK_URL", environ.get("MA_NOTIFY_SLACK_URL", ""), faults),
        slack_webhooks=_webhooks(environ.get("MA_NOTIFY_SLACK_WEBHOOKS", ""), faults),
        link_url=_url("MA_NOTIFY_LINK_URL", environ.get("MA_NOTIFY_LINK_URL", ""), faults),
        step_s=_seconds(environ, "MA_NOTIFY_STEP_S", 10.0, 0.1, LONGEST_STEP_S, faults),
        give_up_s=_seconds(environ, "MA_NOTIFY_GIVE_UP_S", DAY_S, 1, 30 * DAY_S, faults),
    )
    if found.smtp_host and ADDRESS.match(found.mail_from) is None:
        faults.append("MA_NOTIFY_FROM must be the address that mails come from, since MA_NOTIFY_SMTP_HOST is set")
    if bool(found.smtp_user) != bool(found.smtp_password):
        faults.append("MA_NOTIFY_SMTP_USER and MA_NOTIFY_SMTP_PASSWORD go together")
    if found.smtp_password and found.smtp_tls == "off" and found.smtp_host not in ("127.0.0.1", "::1", "localhost"):
        faults.append("MA_NOTIFY_SMTP_TLS is off: a password is not sent to another machine without TLS")
    return found


def _port(text: str, faults: list[str]) -> int:
    if not text:
        return 0
    if text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536:
        return int(text)
    faults.append(f"MA_NOTIFY_SMTP_PORT must be a port from 1 to 65535, not {text[:64]!r}")
    return 0


def _url(name: str, text: str, faults: list[str]) -> str:
    try:
        parts = urlsplit(text)
        fine = not text or (parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable())
    except ValueError:
        fine = False
    if not fine:
        faults.append(f"{name} must be a URL with http or https")
    return text if fine else ""


def _webhooks(text: str, faults: list[str]) -> Mapping[str, str]:
    found = {}
    for position, item in enumerate(text.split(), start=1):
        name, equals, url = item.partition("=")
        if not equals or DESTINATION.match(name) is None:
            faults.append(
                f"MA_NOTIFY_SLACK_WEBHOOKS item {position}: write #channel=https://…, with spaces between items"
            )
            continue
        if name in found:
            faults.append(f"MA_NOTIFY_SLACK_WEBHOOKS names {name} twice")
        found[name] = _url(f"MA_NOTIFY_SLACK_WEBHOOKS of {name}", url, faults)
    return MappingProxyType(found)


def _seconds(
    environ: Mapping[str, str], name: str, default: float, least: float, most: float, faults: list[str]
) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if least <= value <= most:
        return value
    faults.append(f"{name} must be from {least:g} to {most:g} seconds, not {text[:64]!r}")
    return default
