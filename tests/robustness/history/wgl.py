"""Whether a history of one register is linearizable: Wing and Gong's search with Lowe's memory of what was tried.

The register is a name: absent, or the token written last.  Tokens are unique, so a state tells who wrote it.
Sources: Wing & Gong 1993; Lowe, "Testing for linearizability", 2017.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping

from tests.robustness.history.recorder import OPEN, Operation, Outcome, Verb

ABSENT = None
State = str | None


def step(state: State, one: Operation) -> tuple[bool, State]:
    """Return whether `one` may act on `state` with the outcome that was seen, and the state after it."""
    done = one.outcome is not Outcome.REFUSED
    if one.verb is Verb.READ:
        return one.outcome is Outcome.UNKNOWN or state == one.read, state
    possible = {
        Verb.CREATE: state is ABSENT,
        Verb.SWAP: state is not ABSENT and state == one.expected,
        Verb.DELETE: state is not ABSENT and one.expected in (None, state),
    }[one.verb]
    if possible != done:
        return False, state
    return True, (state if not done else one.wrote if one.verb is not Verb.DELETE else ABSENT)


def linearizable(operations: Iterable[Operation], initial: State = ABSENT, *, most: int = 2_000_000) -> bool:
    """Tell whether the operations on one name can be put in one order.  Raises RuntimeError after `most` steps."""
    known = sorted(operations, key=lambda one: one.sent_ns)
    known = [one for one in known if not (one.verb is Verb.READ and one.outcome is Outcome.UNKNOWN)]
    must = sum(1 << number for number, one in enumerate(known) if one.answered_ns != OPEN)
    # Depth first; a position is which operations have had their effect, and the state that they led to.
    seen: set[tuple[int, State]] = set()
    waiting: list[tuple[int, State]] = [(0, initial)]
    steps = 0
    while waiting:
        done, state = waiting.pop()
        if done & must == must:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        steps += 1
        if steps > most:
            raise RuntimeError(f"no verdict after {most} steps")
        waiting.extend(_following(known, done, state))
    return False


def _following(known: list[Operation], done: int, state: State) -> Iterable[tuple[int, State]]:
    """Yield what may act next: whatever was sent before the first answer among what has not acted yet."""
    first_answer = OPEN
    found: list[tuple[int, State]] = []
    start = (~done & (done + 1)).bit_length() - 1
    for number in range(start, len(known)):
        one = known[number]
        if one.sent_ns > first_answer:
            break
        if done >> number & 1:
            continue
        first_answer = min(first_answer, one.answered_ns)
        allowed, after = step(state, one)
        if allowed:
            found.append((done | 1 << number, after))
    # The oldest is tried first, as it is the likeliest.
    return reversed(found)


def not_linearizable(named: Mapping[str, list[Operation]]) -> list[str]:
    """Return the names whose history no order explains."""
    return [name for name, operations in sorted(named.items()) if not linearizable(operations)]


def revision_faults(operations: Iterable[Operation]) -> list[str]:
    """Return what contradicts that revisions follow real time: over the whole store, not one name alone.

    A write that was sent after another was answered has the higher revision; one revision has one token.
    """
    faults: list[str] = []
    writes = [one for one in operations if one.outcome is Outcome.DONE and one.revision and one.wrote is not None]
    tokens: dict[int, str | None] = {}
    for one in writes:
        if tokens.setdefault(one.revision, one.wrote) != one.wrote:
            faults.append(f"revision {one.revision} was given twice: {tokens[one.revision]} and {one.wrote}")
    by_answer = sorted(writes, key=lambda one: one.answered_ns)
    answers = [one.answered_ns for one in by_answer]
    highest: list[int] = []
    for one in by_answer:
        highest.append(max(one.revision, highest[-1] if highest else 0))
    for one in writes:
        before = bisect.bisect_left(answers, one.sent_ns)
        if before and highest[before - 1] >= one.revision:
            faults.append(
                f"{one.wrote} got revision {one.revision}, but {highest[before - 1]} had been answered before"
            )
    return faults
