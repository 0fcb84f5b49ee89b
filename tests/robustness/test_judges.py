"""The judges themselves: each finds the fault it is there for, and finds none where there is none."""

from __future__ import annotations

import random
import time

import pytest

from tests.robustness.history import watch_rules as rules
from tests.robustness.history.recorder import OPEN, Operation, Outcome, Verb
from tests.robustness.history.watch_rules import Event, Logged, Session
from tests.robustness.history.wgl import linearizable, not_linearizable, revision_faults

CLIENTS = 8


def played(count: int, names: int, seed: int, *, stale: float = 0.0) -> list[Operation]:
    """Return a history that a perfect register would give, with some reads of an older state."""
    pick, clock = random.Random(seed), 0
    states: dict[str, list[str | None]] = {f"n{number}": [None] for number in range(names)}
    ready = [0] * CLIENTS
    found = []
    for number in range(count):
        client = pick.randrange(CLIENTS)
        sent = max(clock, ready[client]) + pick.randint(1, 50)
        clock = sent
        acts = sent + pick.randint(1, 40)
        answered = acts + pick.randint(1, 40)
        ready[client] = answered
        found.append((acts, client, sent, answered, number))
    found.sort()
    history = []
    for _, client, sent, answered, number in found:
        name = pick.choice(sorted(states))
        past, token = states[name], f"t{number}"
        one = Operation(client, Verb.READ, name, sent, answered_ns=answered, outcome=Outcome.DONE)
        roll = pick.random()
        if roll < 0.5:
            old = len(past) > 3 and pick.random() < stale
            one.read = past[-3] if old else past[-1]
        elif past[-1] is None:
            one.verb, one.wrote = Verb.CREATE, token
            past.append(token)
        elif roll < 0.9:
            one.verb, one.wrote = Verb.SWAP, token
            one.expected = past[-1] if pick.random() < 0.8 else "another"
            one.outcome = Outcome.DONE if one.expected == past[-1] else Outcome.REFUSED
            past += [token] if one.outcome is Outcome.DONE else []
        else:
            one.verb = Verb.DELETE
            past.append(None)
        if pick.random() < 0.01 and one.outcome is Outcome.DONE:
            one.outcome, one.answered_ns, one.read = Outcome.UNKNOWN, OPEN, None
        history.append(one)
    return history


def by_name(history: list[Operation]) -> dict[str, list[Operation]]:
    found: dict[str, list[Operation]] = {}
    for one in history:
        found.setdefault(one.name, []).append(one)
    return found


def test_a_linearizable_history_is_found_to_be_one_quickly() -> None:
    began = time.monotonic()
    assert not_linearizable(by_name(played(10_000, 100, seed=1))) == []
    assert time.monotonic() - began < 10


def test_stale_reads_are_found() -> None:
    caught = sum(bool(not_linearizable(by_name(played(2_000, 10, seed=seed, stale=0.02)))) for seed in range(10))
    # A stale read may be legal by chance: when it overlaps the write that it missed.
    assert caught >= 8


def test_a_lost_update_is_found() -> None:
    first = Operation(0, Verb.CREATE, "a", 0, wrote="x", answered_ns=10, outcome=Outcome.DONE)
    two = [
        Operation(client, Verb.SWAP, "a", 20, wrote=f"y{client}", expected="x", answered_ns=30, outcome=Outcome.DONE)
        for client in (1, 2)
    ]
    assert linearizable([first, two[0]])
    assert not linearizable([first, *two])


def test_a_write_without_an_answer_may_or_may_not_have_happened() -> None:
    write = Operation(0, Verb.CREATE, "a", 0, wrote="x")
    seen = Operation(1, Verb.READ, "a", 50, read="x", answered_ns=60, outcome=Outcome.DONE)
    unseen = Operation(1, Verb.READ, "a", 50, answered_ns=60, outcome=Outcome.DONE)
    again = Operation(1, Verb.READ, "a", 70, answered_ns=80, outcome=Outcome.DONE)
    assert linearizable([write, seen])
    assert linearizable([write, unseen])
    assert not linearizable([write, seen, again]), "what was seen does not go away"


def test_revisions_against_real_time_are_found() -> None:
    def write(sent: int, revision: int, token: str) -> Operation:
        return Operation(
            0, Verb.CREATE, token, sent, wrote=token, revision=revision, answered_ns=sent + 5, outcome=Outcome.DONE
        )

    assert revision_faults([write(0, 1, "a"), write(10, 2, "b"), write(12, 3, "c")]) == []
    assert len(revision_faults([write(0, 2, "a"), write(10, 1, "b")])) == 1
    assert len(revision_faults([write(0, 2, "a"), write(1, 2, "b")])) == 1


def change(revision: int, key: str, type_: str = rules.MODIFIED, *, selected: bool = True) -> Logged:
    return Logged(Event(type_, revision, key, f"{key}@{revision}"), selected)


LOG = [
    change(1, "a", rules.ADDED),
    change(2, "b", rules.ADDED, selected=False),
    change(3, "b"),
    change(4, "a", selected=False),
    change(5, "c", rules.ADDED),
    change(6, "b", rules.DELETED),
    change(7, "c"),
]
DUE = rules.expected(LOG)


def test_what_begins_and_ends_to_be_selected_is_added_and_deleted() -> None:
    assert [(event.type, event.revision) for event in DUE] == [
        (rules.ADDED, 1),
        (rules.ADDED, 3),
        (rules.DELETED, 4),
        (rules.ADDED, 5),
        (rules.DELETED, 6),
        (rules.MODIFIED, 7),
    ]


def mark(revision: int) -> Event:
    return Event(rules.BOOKMARK, revision)


def test_good_streams_are_found_good() -> None:
    for cut in range(len(DUE) + 1):
        assert rules.judged(DUE, [Session(0, DUE[:cut])]) == []
        marked = [*DUE[:cut], *([mark(DUE[cut - 1].revision)] if cut else [])]
        assert rules.judged(DUE, [Session(0, marked)]) == []
    assert rules.judged(DUE, [Session(3, DUE[2:])]) == []
    assert rules.judged(DUE, [Session(2, expired=True), Session(4, [*DUE[3:], mark(7)])]) == []
    assert rules.missing(DUE, [Session(0, DUE[:2]), Session(3, DUE[2:])], 0, 7) == []


@pytest.mark.parametrize(
    ("judge", "session"),
    [
        ("ordered", Session(0, [DUE[0], DUE[2], DUE[1]])),
        ("unique", Session(0, [DUE[0], DUE[1], DUE[1]])),
        ("unique", Session(0, [DUE[0], DUE[1], DUE[0]])),
        ("reliable", Session(0, [DUE[0], DUE[2], DUE[3]])),
        ("reliable", Session(0, [DUE[0], Event(rules.MODIFIED, 3, "b", "b@3")])),
        ("reliable", Session(0, [DUE[0], Event(rules.ADDED, 3, "b", "b@2")])),
        ("resumable", Session(0, DUE[1:])),
        ("resumable", Session(3, DUE[1:])),
        ("resumable", Session(0, DUE[1:2], expired=True)),
        ("bookmarkable", Session(0, [DUE[0], mark(3), *DUE[1:]])),
        ("bookmarkable", Session(0, [*DUE[:5], mark(7)])),
        ("bookmarkable", Session(0, [*DUE, mark(7), DUE[5]])),
    ],
)
def test_each_judge_finds_its_fault(judge: str, session: Session) -> None:
    due = [event for event in DUE if event.revision > session.since]
    assert rules.JUDGES[judge](due, session)
    assert any(f", {judge}: " in fault for fault in rules.judged(DUE, [session])) or session.since


def test_halves_of_a_revision_are_found() -> None:
    due = [Event(rules.ADDED, 1, "a", "x"), Event(rules.ADDED, 1, "b", "x"), Event(rules.ADDED, 2, "c", "x")]
    assert rules.atomic(due, Session(0, due)) == []
    assert rules.atomic(due, Session(0, [due[0], due[2]]))
    assert rules.atomic(due, Session(0, due[:1])) == [], "a stream that was cut begins again"


def test_a_change_that_no_stream_brought_is_missing() -> None:
    assert rules.missing(DUE, [Session(0, DUE[:2]), Session(4, DUE[3:])], 0, 7) == [DUE[2]]
