"""Who is to be told: what an object may ask for, and whom it names for an event.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from api.errors import FieldViolation
from api.gen.michelangelo.api.v2 import notification_pb2
from api.kinds import Resource
from api.notifications.events import BY_TYPE, RESOURCE_TYPES, Event
from api.notify_settings import ADDRESS, DESTINATION
from api.resources import Resources
from api.validation import shown

Wire = notification_pb2.Notification
EMAIL, SLACK = Wire.NOTIFICATION_TYPE_EMAIL, Wire.NOTIFICATION_TYPE_SLACK
# What an object may ask for: events of itself, and of what is made of it.
ABOUT = {
    "Pipeline": ("Pipeline", "PipelineRun", "TriggerRun"),
    "TriggerRun": ("TriggerRun", "PipelineRun"),
    "PipelineRun": ("PipelineRun",),
}
MOST_RECEIVERS = 50
MOST_ENTRIES = 100
BAD_EVENT = "BAD_EVENT_TYPE"


@dataclass(frozen=True)
class Receiver:
    """One address.  `type`: EMAIL or SLACK, the wire's number."""

    type: int
    address: str


async def admit_notifications(_: Resources, old: Resource | None, new: Resource) -> Sequence[FieldViolation]:
    """Somebody who can be told, of something that can happen; what is as it was is let be."""
    given: Any = new
    stored: Any = old
    if stored is not None and list(stored.spec.notifications) == list(given.spec.notifications):
        return ()
    found = [*entry_faults(given.spec.notifications, new.DESCRIPTOR.name, "spec.notifications")]
    if stored is None and new.DESCRIPTOR.name == "PipelineRun" and given.spec.HasField("pipeline_spec"):
        found += entry_faults(given.spec.pipeline_spec.notifications, "Pipeline", "spec.pipeline_spec.notifications")
    return found


def entry_faults(entries: Sequence[Any], kind: str, path: str) -> Iterator[FieldViolation]:
    """Yield the faults of notifications that stand in an object of `kind`, at `path`."""
    if len(entries) > MOST_ENTRIES:
        told = f"has {len(entries)} entries, at most {MOST_ENTRIES} are allowed"
        yield FieldViolation(path, told, reason="TOO_MANY_RECEIVERS")
        return
    told_of = {receiver for entry in entries for receiver in _named(entry)}
    if len(told_of) > MOST_RECEIVERS:
        told = f"names {len(told_of)} receivers, at most {MOST_RECEIVERS} are allowed: use a mailing list or a channel"
        yield FieldViolation(path, told, reason="TOO_MANY_RECEIVERS")
        return
    for position, entry in enumerate(entries):
        here = f"{path}[{position}]"
        yield from _events(entry, kind, here)
        yield from _addresses(entry, here)


def _events(entry: Any, kind: str, path: str) -> Iterator[FieldViolation]:
    of = RESOURCE_TYPES.get(entry.resource_type)
    allowed = ABOUT[kind]
    if entry.resource_type and of not in allowed:
        names = " or ".join(f"RESOURCE_TYPE_{_upper(name)}" for name in allowed)
        told = f"of a {kind} is {names}, or left out"
        yield FieldViolation(f"{path}.resource_type", told, _name(Wire.ResourceType, entry.resource_type), BAD_EVENT)
        return
    for number, asked in enumerate(entry.event_types):
        event = BY_TYPE.get(asked)
        about = (of,) if of is not None else allowed
        if event is None or event.kind not in about:
            known = ", ".join(Wire.EventType.Name(each) for each in _types_of(about))
            told = f"is no event of a {' or '.join(about)}: take {known}"
            yield FieldViolation(f"{path}.event_types[{number}]", told, _name(Wire.EventType, asked), BAD_EVENT)


def _types_of(about: Sequence[str]) -> list[Any]:
    return [event.type for event in BY_TYPE.values() if event.kind in about]


def _addresses(entry: Any, path: str) -> Iterator[FieldViolation]:
    ways = {EMAIL: ("emails", "slack_destinations"), SLACK: ("slack_destinations", "emails")}
    if entry.notification_type not in ways:
        told = "is NOTIFICATION_TYPE_EMAIL or NOTIFICATION_TYPE_SLACK"
        value = _name(Wire.NotificationType, entry.notification_type)
        yield FieldViolation(f"{path}.notification_type", told, value, "UNKNOWN_DESTINATION_TYPE")
        return
    used, other = ways[entry.notification_type]
    if not getattr(entry, used):
        yield FieldViolation(f"{path}.{used}", "is required: nobody would be told", reason="NO_RECEIVER")
    if getattr(entry, other):
        told = f"is not used with {Wire.NotificationType.Name(entry.notification_type)}: make it an entry of its own"
        yield FieldViolation(f"{path}.{other}", told, reason="NO_RECEIVER")
    for number, address in enumerate(entry.emails):
        if ADDRESS.match(address) is None:
            told = "is one plain address, such as team@example.org; a domain of other letters is written as xn--…"
            yield FieldViolation(f"{path}.emails[{number}]", told, shown(address), "BAD_ADDRESS")
    for number, name in enumerate(entry.slack_destinations):
        if "://" in name:
            told = "is a channel or a person; the URL of a webhook is a secret: set MA_NOTIFY_SLACK_WEBHOOKS"
            yield FieldViolation(f"{path}.slack_destinations[{number}]", told, reason="BAD_ADDRESS")
        elif DESTINATION.match(name) is None:
            told = "is a channel or a person, such as #ml-alerts or @ada"
            yield FieldViolation(f"{path}.slack_destinations[{number}]", told, shown(name), "BAD_ADDRESS")


def receivers(sources: Iterable[Sequence[Any]], event: Event) -> Sequence[Receiver]:
    """Return whom several lists of notifications name for an event, each once, in their order.

    What could not be stored today, but was, is left out.
    """
    found: dict[Receiver, None] = {}
    for entries in sources:
        for entry in entries:
            about = RESOURCE_TYPES.get(entry.resource_type, event.kind)
            if event.type in entry.event_types and about == event.kind:
                found |= dict.fromkeys(_named(entry))
    return list(found)


def _named(entry: Any) -> Iterator[Receiver]:
    """Yield whom an entry names.  Domains of addresses and names of channels are the same in any case of letters."""
    if entry.notification_type == EMAIL:
        for address in entry.emails:
            if (match := ADDRESS.match(address)) is not None:
                yield Receiver(EMAIL, f"{match['local']}@{match['domain'].lower()}")
    elif entry.notification_type == SLACK:
        yield from (Receiver(SLACK, name) for name in entry.slack_destinations if DESTINATION.match(name))


def _upper(kind: str) -> str:
    return next(
        Wire.ResourceType.Name(number).removeprefix("RESOURCE_TYPE_")  # type: ignore[arg-type]
        for number, name in RESOURCE_TYPES.items()
        if name == kind
    )


def _name(enum: Any, number: int) -> str:
    return str(enum.Name(number)) if number in enum.values() else str(number)
