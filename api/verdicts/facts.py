"""What rules of a verdict ask of the evidence of a failure.  Pure; decides nothing.

Evidence comes from jobs, from Airflow's logs and from other machines: whatever its shape, asking raises nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

NEAR_LIMIT = 0.9
DISK_FULL = re.compile(r"No space left on device|[Dd]isk quota exceeded|database or disk is full")
DISK_ERRNOS = (28, 122)


class Facts:
    """The evidence of one failure."""

    def __init__(self, evidence: Mapping[str, Any]) -> None:
        self._evidence = evidence
        self.chain = [link for link in _list(_map(evidence.get("exception")).get("chain")) if isinstance(link, Mapping)]
        self.ended = _map(evidence.get("ended"))
        self.began = _map(evidence.get("began"))
        self.signal = str(self.ended.get("signal") or "")
        self.message = str(evidence.get("message") or "")
        self.kind = str(evidence.get("kind") or "")
        self.reason = str(evidence.get("reason") or "")
        self.asked = bool(evidence.get("asked"))
        self.upstream = [str(name) for name in _list(evidence.get("upstream"))]
        self.log = [str(line) for line in _list(evidence.get("log"))]
        self.events = [event for event in _list(evidence.get("events")) if isinstance(event, Mapping)]

    @property
    def cause(self) -> Mapping[str, Any]:
        """The first cause of the exception, empty without one."""
        return self.chain[-1] if self.chain else {}

    @property
    def place(self) -> Mapping[str, Any]:
        """The last line of the user's own code: of the exception, else where it stood when it was killed."""
        at = _map(_map(self._evidence.get("exception")).get("at"))
        return at or next((frame for frame in self.stack if frame.get("users")), {})

    @property
    def stack(self) -> list[Mapping[str, Any]]:
        """Where the process stood when a signal came, innermost first."""
        return [frame for frame in _list(self._evidence.get("stack")) if isinstance(frame, Mapping)]

    def link_of(self, *names: str) -> Mapping[str, Any] | None:
        """Return the exception of the chain that is of one of these types or below one, the first cause first.

        A name that ends with a dot stands for all types of a package.  Of what Airflow logged the bare name is known.
        """
        for link in reversed(self.chain):
            for kind in (str(link.get("type")), *map(str, _list(link.get("bases")))):
                if any(_matches(kind, name, bare="bases" not in link) for name in names):
                    return link
        return None

    def raised_in(self, link: Mapping[str, Any]) -> str:
        """Return the file in which an exception was raised, empty if it is not known."""
        frames = _list(link.get("frames"))
        return str(_map(frames[-1]).get("file") or "") if frames else ""

    def own_module(self, name: str) -> bool:
        """Whether a module is a file of the user's project."""
        files = _map(_map(self.began.get("code")).get("files"))
        path = name.replace(".", "/")
        return any(file in (f"{path}.py", f"{path}/__init__.py") for file in files)

    @property
    def disk_full(self) -> str:
        """What said that a disk is full, empty if nothing did."""
        for link in reversed(self.chain):
            message = str(link.get("message") or "")
            if link.get("errno") in DISK_ERRNOS or DISK_FULL.search(message):
                return message
        if self.chain:
            return ""
        return next((line for line in reversed(self.log) if DISK_FULL.search(line)), "")

    def oom_kills(self, where: str) -> int:
        """Return by how much the kernel's counter rose while the job ran: of its `cgroup`, of the `machine`."""
        return _whole(_map(self.ended.get("oom_kills")).get(where))

    @property
    def memory(self) -> tuple[float, float, str]:
        """(most MiB in use, MiB allowed, who allows them); 0 for what is not known."""
        limit = _map(self.began.get("memory"))
        curve = [row for row in _list(self._evidence.get("curve")) if isinstance(row, Sequence) and len(row) > 1]
        peaks = [_number(row[1]) for row in curve]
        peaks += [_number(self._evidence.get("peak_mib")), _number(self.ended.get("peak_mib"))]
        return max(peaks, default=0.0), _number(limit.get("mib")), str(limit.get("set_by") or "")

    @property
    def memory_share(self) -> float:
        """How much of its limit was in use at most, from 0 to 1; 0 if it is not known."""
        peak, limit, _ = self.memory
        return peak / limit if limit else 0.0

    def memory_text(self) -> str:
        """Return `1,024 of 2,048 MiB (cgroup memory.max)`."""
        peak, limit, set_by = self.memory
        return f"{peak:,.0f} of {limit:,.0f} MiB ({set_by})" if limit else f"{peak:,.0f} MiB"

    def event(self, *names: str) -> str:
        """Return what Airflow noted under one of these names, empty if it did not."""
        for event in self.events:
            if event.get("event") in names:
                return " ".join(str(event.get("extra") or event["event"]).split())
        return ""

    def said(self, *texts: str) -> str:
        """Return the last line of the log that holds one of these texts, empty if none does."""
        return next((line for line in reversed(self.log) if any(text in line for text in texts)), "")


def _matches(kind: str, name: str, *, bare: bool) -> bool:
    if name.endswith("."):
        return kind.startswith(name)
    return kind == name or (bare and kind == name.rpartition(".")[2])


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _whole(value: Any) -> int:
    return int(_number(value))
