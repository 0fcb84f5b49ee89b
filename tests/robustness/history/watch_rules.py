"""What a watch promises, one judge a promise: ordered, unique, reliable, atomic, resumable, bookmarkable.

A session is one stream from `since`.  It is held against what it had to send: the change log, filtered by its selector.
Source of the words: etcd's watch API guarantees.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

ADDED, MODIFIED, DELETED, BOOKMARK = "ADDED", "MODIFIED", "DELETED", "BOOKMARK"


@dataclass(frozen=True)
class Event:
    """One change, in the log or as a watcher saw it.  token: what tells one state of the object from another."""

    type: str
    revision: int
    key: str = ""
    token: str = ""


@dataclass
class Session:
    """One stream of a watcher.  expired: it ended because what follows is no longer kept."""

    since: int
    events: list[Event] = field(default_factory=list)
    expired: bool = False


@dataclass(frozen=True)
class Logged:
    """A change of the log.  selected: whether the object meets the selector after it."""

    event: Event
    selected: bool = True


def expected(log: Sequence[Logged]) -> list[Event]:
    """Return what a watcher of the selected objects must see of the whole log.

    What begins to be selected is ADDED, what is selected no longer is DELETED.
    """
    inside: set[str] = set()
    found: list[Event] = []
    for change in log:
        event = change.event
        stays = change.selected and event.type != DELETED
        if stays:
            seen_as = MODIFIED if event.key in inside else ADDED
            inside.add(event.key)
        elif event.key in inside:
            seen_as = DELETED
            inside.discard(event.key)
        else:
            continue
        found.append(Event(seen_as, event.revision, event.key, event.token))
    return found


def ordered(due: Sequence[Event], session: Session) -> list[str]:
    """Revisions never go back."""
    faults, newest = [], 0
    for event in session.events:
        if event.revision < newest:
            faults.append(f"{event.type} at {event.revision} came after {newest}")
        newest = max(newest, event.revision)
    return faults


def unique(due: Sequence[Event], session: Session) -> list[str]:
    """No change is sent twice."""
    faults, seen = [], set()
    for event in _changes(session):
        if (event.revision, event.key) in seen:
            faults.append(f"{event.key} at {event.revision} was sent twice")
        seen.add((event.revision, event.key))
    return faults


def reliable(due: Sequence[Event], session: Session) -> list[str]:
    """Between two changes that were sent nothing is missing, and nothing is sent that did not happen."""
    sent = _changes(session)
    if not sent:
        return []
    seen, first, last = {_place(event) for event in sent}, sent[0].revision, max(event.revision for event in sent)
    faults = [
        f"{event.key} at {event.revision} is missing"
        for event in due
        if first <= event.revision <= last and _place(event) not in seen
    ]
    true = set(due)
    return faults + [f"{event} did not happen" for event in sent if event not in true]


def atomic(due: Sequence[Event], session: Session) -> list[str]:
    """All changes of one revision stand together, and no bookmark between them."""
    faults = []
    needed: dict[int, set[str]] = {}
    for event in due:
        needed.setdefault(event.revision, set()).add(event.key)
    events, position = session.events, 0
    while position < len(events):
        revision, group = events[position].revision, set()
        if events[position].type == BOOKMARK:
            position += 1
            continue
        while position < len(events) and events[position].revision == revision and events[position].type != BOOKMARK:
            group.add(events[position].key)
            position += 1
        # The last of a stream that was cut may be in halves; the next session begins with all of it.
        if group < needed.get(revision, set()) and position < len(events):
            faults.append(f"revision {revision} was sent without {sorted(needed[revision] - group)}")
    return faults


def resumable(due: Sequence[Event], session: Session) -> list[str]:
    """A stream begins with the first change after `since`, or says that this is too old: before it sends another."""
    sent = _changes(session)
    faults = [
        f"{event.key} at {event.revision} is not after {session.since}"
        for event in sent[:1]
        if event.revision <= session.since
    ]
    first = next((event.revision for event in due if event.revision > session.since), None)
    if sent and first is not None and sent[0].revision > first:
        faults.append(f"after {session.since} the first change is {first}, but {sent[0].revision} was sent")
    return faults


def bookmarkable(due: Sequence[Event], session: Session) -> list[str]:
    """A bookmark says that everything up to its revision was sent."""
    faults: list[str] = []
    seen: set[tuple[int, str]] = set()
    told = session.since
    waiting = [event for event in due if event.revision > session.since]
    position = 0
    for event in session.events:
        if event.type != BOOKMARK:
            seen.add(_place(event))
            if event.revision <= told and told != session.since:
                faults.append(f"{event.key} at {event.revision} came after the bookmark {told}")
            continue
        while position < len(waiting) and waiting[position].revision <= event.revision:
            if _place(waiting[position]) not in seen:
                faults.append(
                    f"bookmark {event.revision} came before {waiting[position].key} at {waiting[position].revision}"
                )
            position += 1
        told = max(told, event.revision)
    return faults


Judge = Callable[[Sequence[Event], Session], list[str]]
JUDGES: dict[str, Judge] = {
    "ordered": ordered,
    "unique": unique,
    "reliable": reliable,
    "atomic": atomic,
    "resumable": resumable,
    "bookmarkable": bookmarkable,
}


def judged(due: Sequence[Event], sessions: Sequence[Session]) -> list[str]:
    """Return what all judges say of all streams of one watcher; `due`: what `expected` returned, in order.

    A judge looks at what was due from where a stream began to where it ended, and at nothing of a long log beside.
    """
    faults = []
    for number, session in enumerate(sessions):
        newest = max((event.revision for event in session.events), default=session.since)
        first, last = (bisect_right(due, revision, key=_revision) for revision in (session.since, newest))
        mine = due[first:last]
        for name, judge in JUDGES.items():
            faults += [f"session {number}, {name}: {fault}" for fault in judge(mine, session)]
    return faults


def missing(due: Sequence[Event], sessions: Sequence[Session], since: int, until: int) -> list[Event]:
    """Return the changes in (since, until] that no stream of a watcher brought: a list covers what was expired."""
    seen = {_place(event) for session in sessions for event in _changes(session)}
    return [event for event in due if since < event.revision <= until and _place(event) not in seen]


def _changes(session: Session) -> list[Event]:
    return [event for event in session.events if event.type != BOOKMARK]


def _revision(event: Event) -> int:
    return event.revision


def _place(event: Event) -> tuple[int, str]:
    return event.revision, event.key
