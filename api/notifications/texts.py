"""What people are told of an event: one line, facts, the error, where to look.  Plain text; each way escapes it.

Names and errors come from users: what is told is cut short, and in one line where it stands in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from api.gen.michelangelo.api import typed_struct_pb2
from api.gen.michelangelo.platform.v1 import notice_pb2 as wire
from api.kinds import Resource
from api.messages.plain import plain
from api.notifications.events import NOUNS, Event

VERDICT = "michelangelo.platform.v1.Verdict"
# The text that Kubernetes' own times are told in, UTC.
TIME = "%Y-%m-%d %H:%M:%S UTC"
LONGEST_LINE = 200
LONGEST_DETAIL = 2000
# Control characters, separators of lines, and what turns the direction of text around.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def line(text: str, most: int = LONGEST_LINE) -> str:
    """Return a text as one printable line of at most `most` characters."""
    return _cut(" ".join(UNPRINTABLE.sub(" ", text).split()), most)


def block(text: str, most: int = LONGEST_DETAIL) -> str:
    """Return a text of some lines without anything that cannot be printed."""
    return _cut(UNPRINTABLE.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n")).strip(), most)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def describe(spec: wire.NoticeSpec, event: Event, resource: Resource, at: datetime, links: Mapping[str, str]) -> None:
    """Fill in what a notice says.  `links`: what stands for the first part of a link, by what it is here."""
    found: Any = resource
    name, project = found.metadata.name, found.metadata.namespace
    verdict = verdict_of(found)
    spec.title = line(
        f"{NOUNS[event.kind]} {name} of {project} {event.word}" + (f": {verdict[0]}" if verdict[0] else "")
    )
    for label, value in _facts(event, found, at, verdict):
        if value:
            spec.facts.add(label=label, value=line(value))
    spec.detail = block(found.status.error_message)
    spec.link = _link(getattr(found.status, "log_url", ""), links)


def _facts(event: Event, found: Any, at: datetime, verdict: tuple[str, str]) -> Iterator[tuple[str, str]]:
    yield "Project", found.metadata.namespace
    if event.kind == "Pipeline":
        yield "Revision", found.status.latest_revision.name
        yield "Owner", found.spec.owner.name
    else:
        yield "Pipeline", found.spec.pipeline.name or "given in the run itself"
        yield "Revision", found.spec.revision.name
        yield "Started by", found.spec.actor.name
    yield "Began", _time(found.metadata.creationTimestamp.seconds)
    yield "At", at.strftime(TIME)
    yield "Verdict", verdict[0]
    yield "Next", verdict[1]


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(TIME) if seconds else ""


def _link(link: str, links: Mapping[str, str]) -> str:
    for here, shown in links.items():
        if shown and link.startswith(here):
            return shown.rstrip("/") + link[len(here) :]
    return link


def verdict_of(resource: Resource) -> tuple[str, str]:
    """Return the class of a failed run and the command to type next, empty where nobody judged it."""
    found: Any = resource
    for detail in getattr(found.status, "details", ()):
        typed = typed_struct_pb2.TypedStruct()
        if detail.Unpack(typed) and typed.type_url.rpartition("/")[2] == VERDICT:
            said = plain(typed.value)
            if isinstance(said, dict):
                return _words(said.get("class")), line(str(said.get("next") or ""))
    return "", ""


def _words(value: object) -> str:
    """`OUT_OF_MEMORY` -> `out of memory`."""
    return line(str(value or "").replace("_", " ").lower())
