"""The words of `ma pipeline-run explain`: at most 80 columns, what to type last.  Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.cli.output import duration
from api.messages import enums

WIDTH = 80
MOST_LOG = 8
BLOCKS = "▁▂▃▄▅▆▇█"
SURE = {"CERTAIN": "", "LIKELY": ", likely", "GUESS": ", a guess"}
LONGEST_CURVE = 36
IDLE_PERCENT = 5
IDLE_POINTS = 5
# Where a run's code was unpacked: its author knows the file below it.
UNPACKED = re.compile(r"\S*/code/[0-9a-f]{64}/")
# Airflow's folds in a log.
FOLDS = ("::group::", "::endgroup::")


def flat(steps: Any) -> Iterator[Any]:
    """Yield steps and what is below them."""
    for step in steps:
        yield step
        yield from flat(step.sub_steps)


def failed(run: Any, verdict: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a verdict."""
    step = f" in {verdict['step']}" if verdict.get("step") else ""
    state = enums.of(run.status, "state")
    yield from _wrapped(f"{run.metadata.name} {state}{step}: {verdict['title']}{SURE[verdict['certainty']]}", "")
    yield from _wrapped(str(verdict["summary"]), "  ")
    yield ""
    yield "Why"
    for ground in verdict["grounds"]:
        yield from _wrapped(ground, "  ")
    evidence = verdict.get("evidence") or {}
    yield from _place(evidence)
    yield from _curve(evidence)
    yield from _log(evidence)
    yield ""
    yield from _differences(verdict)
    yield ""
    yield "Next"
    yield from _command(verdict["next"])
    if verdict.get("also"):
        yield "or"
        for command in verdict["also"]:
            yield from _command(command)


def going(run: Any, working: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a run that has no verdict: it goes on, waits, or succeeded."""
    state = enums.of(run.status, "state")
    state = "PENDING" if state == "-" else state
    since = duration(time.time() - run.metadata.creationTimestamp.seconds)
    if state in ("SUCCEEDED", "SKIPPED"):
        yield from _wrapped(f"{run.metadata.name} {state}: there is nothing to explain", "")
        return
    yield from _wrapped(f"{run.metadata.name} {state} for {since}", "")
    for condition in run.status.conditions:
        if condition.message:
            yield from _wrapped(f"{condition.type}: {condition.message}", "  ")
    evidences = {one["step"]: one["evidence"] for one in working}
    for step in flat(run.status.steps):
        if enums.of(step, "state") == "RUNNING" and not step.sub_steps:
            took = duration(time.time() - step.start_time.seconds) if step.HasField("start_time") else "?"
            yield from _wrapped(f"{step.name} runs for {took}{_idle(evidences.get(step.name) or {})}", "  ")
            yield from _curve(evidences.get(step.name) or {})
            yield from _log(evidences.get(step.name) or {})


def _idle(evidence: Mapping[str, Any]) -> str:
    """Whether a job that goes on does nothing: it waits for something, or is stuck."""
    last = [row[2] for row in (evidence.get("curve") or [])[-IDLE_POINTS:]]
    return "; it uses no CPU: it waits, or is stuck" if len(last) == IDLE_POINTS and max(last) < IDLE_PERCENT else ""


def _place(evidence: Mapping[str, Any]) -> Iterator[str]:
    at = (evidence.get("exception") or {}).get("at")
    frames = [frame for frame in evidence.get("stack") or () if frame.get("users")]
    if at:
        yield ""
        yield from _wrapped(f"{at['file']}:{at['line']} in {at['function']}", "  ")
        for line in at.get("source") or ():
            number = line.split(maxsplit=1)[0]
            mark = ">" if number == str(at["line"]) else " "
            yield _cut(f"  {mark} {line}")
    elif frames:
        yield ""
        yield "Where it stood"
        for frame in frames[:4]:
            yield from _wrapped(f"{frame['file']}:{frame['line']} in {frame['function']}: {frame['text']}", "  ")


def _curve(evidence: Mapping[str, Any]) -> Iterator[str]:
    rows = [row for row in evidence.get("curve") or () if len(row) > 2]
    if not rows:
        return
    ended, began = evidence.get("ended") or {}, evidence.get("began") or {}
    limit = (began.get("memory") or {}).get("mib") or 0
    peak = max([row[1] for row in rows] + [ended.get("peak_mib") or 0])
    yield ""
    yield _cut(f"  memory {_blocks([row[1] for row in rows])} most {peak:,.0f} of {limit:,.0f} MiB")
    cpu = [row[2] for row in rows]
    yield _cut(f"  CPU    {_blocks(cpu)} most {max(cpu):,.0f} % in {duration(rows[-1][0])}")


def _blocks(values: Sequence[float]) -> str:
    """Return a curve as a line of blocks, each the most of its part."""
    step = max(len(values) / LONGEST_CURVE, 1.0)
    parts = [values[int(at * step) : max(int((at + 1) * step), int(at * step) + 1)] for at in range(LONGEST_CURVE)]
    most, top = [max(part) for part in parts if part], max([*values, 1])
    return "".join(BLOCKS[int(value / top * (len(BLOCKS) - 1))] for value in most)


def _log(evidence: Mapping[str, Any]) -> Iterator[str]:
    lines = [line for line in evidence.get("log") or () if not line.startswith(FOLDS)][-MOST_LOG:]
    if lines:
        yield ""
        yield "Its last lines"
        for line in lines:
            yield _cut("  " + "".join(char if char.isprintable() else " " for char in line))


def _differences(verdict: Mapping[str, Any]) -> Iterator[str]:
    green = verdict.get("lastGreenRun")
    if not green:
        yield "No earlier run of this pipeline succeeded: there is nothing to compare with"
        return
    found = verdict.get("differences") or ()
    if not found:
        yield from _wrapped(f"Nothing that was noted differs from the last green run, {green}", "")
        return
    yield from _wrapped(f"Different from the last green run, {green}", "")
    for one in found:
        yield from _wrapped(f"{one['part']:<12}{one['name']}: {one['was']} -> {one['is']}", "  ", " " * 14)


def _command(command: str) -> Iterator[str]:
    """Yield a command in lines that a shell reads as one."""
    line = " "
    for word in command.split(" "):
        if len(line) + len(word) + 3 > WIDTH and line.strip():
            yield f"{line} \\"
            line = "   "
        line += f" {word}"
    yield line


def _wrapped(text: str, indent: str, further: str = "") -> Iterator[str]:
    """Yield a text in lines: at spaces where it has some, else wherever a line is full."""
    left = "".join(char if char.isprintable() else " " for char in UNPACKED.sub("", text))
    lead = indent
    while left:
        room = WIDTH - len(lead)
        if len(left) <= room:
            yield lead + left
            return
        at = left.rfind(" ", room // 2, room + 1)
        at = at if at > 0 else room
        yield (lead + left[:at]).rstrip()
        left, lead = left[at:].lstrip(), further or indent + "  "


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
