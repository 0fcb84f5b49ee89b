"""Why a run failed: a class with its grounds, from the evidence it left, and the command to type next.  Pure.

A verdict says how sure it is: `CERTAIN` is shown by the evidence, `LIKELY` fits it best, `GUESS` has little to go by.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.verdicts.facts import Facts
from api.verdicts.rules import RULES, Certainty, Class, Rule

TYPE = "michelangelo.platform.v1.Verdict"
USERS = (Class.USER_CODE, Class.DATA)
USERS_RULES = ("variable-not-set", "secret-missing", "import", "not-provided")
LONGEST_SUMMARY = 300
TITLES: Mapping[Class, str] = {
    Class.USER_CODE: "user code",
    Class.DATA: "data",
    Class.ENVIRONMENT: "environment",
    Class.OUT_OF_MEMORY: "out of memory",
    Class.LOST_WORKER: "lost worker",
    Class.PLATFORM: "platform",
    Class.TIMEOUT: "timeout",
    Class.UPSTREAM: "upstream",
    Class.KILLED: "killed on request",
}


@dataclass(frozen=True)
class Place:
    """Which run failed, and where in it."""

    namespace: str
    pipeline: str
    run: str
    step: str = ""
    task: str = ""
    map_index: int = -1
    replayable: bool = False


@dataclass(frozen=True)
class Verdict:
    """`rule`: which one decided; `grounds`: why, each a line; `differences`: what changed since the last green run."""

    found: Class
    certainty: Certainty
    rule: str
    summary: str
    grounds: Sequence[str]
    next: str
    also: Sequence[str] = ()
    place: Place = field(default_factory=lambda: Place("", "", ""))
    differences: Sequence[Mapping[str, Any]] = ()
    green: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def users(self) -> bool:
        """Whether the user can mend it: else it is the system's."""
        return self.found in USERS or self.rule in USERS_RULES

    def plain(self) -> dict[str, Any]:
        """Return JSON: what `status.details` holds."""
        place = self.place
        return {
            "class": self.found.value,
            "title": TITLES[self.found],
            "certainty": self.certainty.value,
            "rule": self.rule,
            "summary": self.summary,
            "grounds": list(self.grounds),
            "step": place.step,
            "task": place.task,
            "next": self.next,
            "also": list(self.also),
            "lastGreenRun": self.green,
            "differences": [dict(one) for one in self.differences],
            "evidence": dict(self.evidence),
        }


def classify(evidence: Mapping[str, Any]) -> tuple[Rule, str, Facts]:
    """Return the first rule that holds, its ground, and the facts."""
    facts = Facts(evidence)
    for rule in RULES:
        if ground := rule.ground(facts):
            return rule, ground, facts
    raise AssertionError("the last rule holds always")


def verdict(
    evidence: Mapping[str, Any],
    place: Place,
    differences: Sequence[Mapping[str, Any]] = (),
    green: str = "",
) -> Verdict:
    """Return the verdict of the failure at `place`.  green: the last run that succeeded; differences: from it."""
    rule, ground, facts = classify(evidence)
    first, *also = commands(rule, facts, place)
    return Verdict(
        found=rule.found,
        certainty=rule.certainty,
        rule=rule.name,
        summary=_summary(facts, ground),
        grounds=[ground, *_further(facts, ground)],
        next=first,
        also=also,
        place=place,
        differences=differences,
        green=green,
        evidence=evidence,
    )


def _summary(facts: Facts, ground: str) -> str:
    text = facts.message or ground
    if not facts.message and facts.cause:
        text = f"{facts.cause.get('type')}: {facts.cause.get('message')}"
    return " ".join(text.split())[:LONGEST_SUMMARY]


def _further(facts: Facts, ground: str) -> list[str]:
    found = []
    if facts.place and str(facts.place.get("file")) not in ground:
        found.append(f"last line of the project's own code: {facts.place.get('file')}:{facts.place.get('line')}")
    if facts.memory[0] and facts.memory_text() not in ground:
        found.append(f"memory at most {facts.memory_text()}")
    if facts.signal and facts.signal not in ground:
        found.append(f"ended by {facts.signal}")
    return found


def commands(rule: Rule, facts: Facts, place: Place) -> list[str]:
    """Return what to type, the best first.  Each is a command as it stands."""
    where = f"{shlex.quote(place.run)} -n {shlex.quote(place.namespace)}"
    task = shlex.quote(place.task)
    logs = f"ma pipeline-run logs {where}" + (f" --step {task}" if place.task else "")
    mapped = f" --map-index {place.map_index}" if place.map_index >= 0 else ""
    replay = [f"ma pipeline-run replay {where} --task {task}{mapped} --pdb"] if place.replayable else []
    again = f"ma pipeline run {shlex.quote(place.pipeline)} -n {shlex.quote(place.namespace)} --wait"
    retry = [f"ma pipeline-run retry {where} --step {task}"] if place.task else [again]
    match rule.found:
        case Class.USER_CODE if facts.reason:
            return [f"ma describe pipeline {shlex.quote(place.pipeline)} -n {shlex.quote(place.namespace)}", again]
        case Class.USER_CODE | Class.DATA:
            return [*replay, logs]
        case Class.ENVIRONMENT:
            return [*_environment(rule, facts), logs, *retry]
        case Class.OUT_OF_MEMORY:
            return [logs, *retry]
        case Class.TIMEOUT:
            return [*replay, logs, *retry]
        case Class.PLATFORM:
            return ["ma status", logs, *retry]
        case Class.LOST_WORKER:
            return [*retry, logs]
        case Class.UPSTREAM:
            return [logs, again]
        case Class.KILLED:
            return [again, logs]


def _environment(rule: Rule, facts: Facts) -> list[str]:
    link = facts.link_of("ModuleNotFoundError", "ImportError")
    if rule.name == "import" and link and link.get("name"):
        return [f"python -m pip show {shlex.quote(str(link['name']).partition('.')[0])}"]
    if rule.name == "variable-not-set" and (unset := facts.link_of("KeyError")):
        return [f"printenv {shlex.quote(str(unset.get('message')).strip(chr(39)))}"]
    if rule.name == "disk-full":
        disk = facts.ended.get("disk")
        path = disk.get("path") if isinstance(disk, Mapping) else ""
        return [f"df -h {shlex.quote(str(path))}" if path else "df -h"]
    return []
