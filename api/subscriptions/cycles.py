"""Circles of subscriptions: a pipeline whose runs would begin themselves again, for ever.  Pure.

Seen are events of the platform's own that a run always or possibly says, from what is known of them beforehand: their
name, source and pipeline.  What a task publishes is not known; such a circle ends at `event_values.DEEPEST`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from api.subscriptions.matching import holds, named
from api.subscriptions.values import MISSING, look_up

# What the end of a run says, by the state in which it ended.
ENDS = {
    "SUCCEEDED": "ma.run.succeeded",
    "FAILED": "ma.run.failed",
    "KILLED": "ma.run.killed",
    "SKIPPED": "ma.run.skipped",
}
DATASET = "ma.dataset.updated"
MODEL = "ma.model.registered"
SAID_BY_RUNS = (*ENDS.values(), DATASET)


def source_of(namespace: str, project: str, pipeline: str) -> str:
    """Return the source of what a pipeline's runs in `namespace` say.  `project`: the pipeline's."""
    return f"pipelines/{pipeline}" if project in ("", namespace) else f"pipelines/{project}/{pipeline}"


def target(subscription: Any) -> str:
    """Return the source of what the runs of a subscription say."""
    pipeline = subscription.spec.pipeline
    return source_of(subscription.metadata.namespace, pipeline.namespace, pipeline.name)


def feeds(source: str, match: Any) -> bool:
    """Whether a run of a pipeline may say what is waited for."""
    if match.source and not named(match.source, source):
        return False
    for name in SAID_BY_RUNS:
        state = next((state for state, own in ENDS.items() if own == name), "")
        known = {"name": name, "source": source, "data": {"pipeline": source.rsplit("/", 1)[-1]}}
        if state:
            known["data"]["state"] = state  # type: ignore[index]
        if named(match.name, name) and all(_possible(condition, known) for condition in match.conditions):
            return True
    return False


def _possible(condition: Any, known: Mapping[str, Any]) -> bool:
    value = look_up(known, condition.path)
    return value is MISSING or holds(condition, value)


def circle(new: Any, others: Iterable[Any]) -> Sequence[str]:
    """Return the pipelines of a circle that `new` closes, from its own to its own again; empty if it closes none.

    others: the other subscriptions of its project.
    """
    every = [new, *others]
    places = {target(each) for each in every}
    after: dict[str, list[str]] = {place: [] for place in places}
    for each in every:
        feeders = [{place for place in places if feeds(place, match)} for match in each.spec.events]
        # A set that also waits for what no run says does not complete itself.
        if all(feeders):
            for place in sorted(set().union(*feeders)):
                after[place].append(target(each))
    return _way(after, target(new))


def _way(after: Mapping[str, Sequence[str]], start: str) -> Sequence[str]:
    """Return a way from a place back to it."""
    came: dict[str, str] = {}
    waiting = [start]
    while waiting:
        here = waiting.pop(0)
        for following in after[here]:
            if following == start:
                way = [start, here]
                while way[-1] != start:
                    way.append(came[way[-1]])
                return list(reversed(way))
            if following not in came:
                came[following] = here
                waiting.append(following)
    return ()
