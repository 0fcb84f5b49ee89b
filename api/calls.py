"""Who calls, and what it said about its call.  Values and the port of access; decides nothing."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Any, Protocol

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
LONGEST_ID = 128
MOST_WARNINGS = 10
ID_BYTES = 16
# What a transport reads of one request.
LARGEST_REQUEST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Principal:
    """Somebody who was authenticated.  `kind`: user, service or system; `via`: who acts in its name, if another."""

    subject: str
    groups: frozenset[str] = frozenset()
    kind: str = "user"
    via: str = ""


# The platform itself: controllers, and what they write.
SYSTEM = Principal("system:platform", kind="system")


def new_id() -> str:
    """Return a request id that nobody else has: a random UUID, in half of the time that `uuid.uuid4` takes."""
    digits = secrets.token_hex(ID_BYTES)
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


@dataclass(slots=True)
class Call:
    """One call.  `request_id`: printable, short; `repeatable`: a UUID of the client, so that a repeat has one effect.

    principal: the platform, until the entrance says who it is.
    source: grpc, http or controller; force: a write over whatever is stored, without naming its version; misnamed: the
    client gave an id that is no UUID; timeout_s: how long the caller waits, None if it did not say; warnings: what the
    caller is told beside the answer; asked: what the client sent, where the request was computed from it and from what
    is stored, as of a patch.
    """

    principal: Principal = SYSTEM
    request_id: str = field(default_factory=new_id)
    repeatable: bool = False
    source: str = "controller"
    force: bool = False
    misnamed: bool = False
    timeout_s: float | None = None
    warnings: list[str] = field(default_factory=list, compare=False)
    asked: bytes = b""

    def warn(self, text: str) -> None:
        """Tell the caller something beside the answer, at most ten things."""
        if text not in self.warnings and len(self.warnings) < MOST_WARNINGS:
            self.warnings.append(text)


def named(given: str | None, **rest: Any) -> Call:
    """Return a call by the request id that its client sent, if any.

    A UUID makes it repeatable.  Another text names a read, if it can be printed; a mutating call is refused for it.
    """
    if not given:
        return Call(**rest)
    if UUID.match(given):
        return Call(request_id=given.lower(), repeatable=True, **rest)
    if len(given) <= LONGEST_ID and given.isascii() and given.isprintable():
        return Call(request_id=given, misnamed=True, **rest)
    return Call(misnamed=True, **rest)


class Access(Protocol):
    """What a principal may do.  A verb is an RPC's: Create, Get, Update, Delete, DeleteCollection, List, Watch.

    Two more: Unmask shows `sensitive` fields, Finalize takes away another's finalizer.
    """

    @property
    def policy(self) -> str:
        """What it decides by now, as audit records say it: another text after any change of rights."""
        ...

    async def require(self, call: Call, verb: str, kind: str, namespace: str, name: str = "") -> None:
        """Return if it may.  Raises NotFound for what is not its to know, PermissionDenied for what it may not do."""
        ...

    def allows(self, principal: Principal, verb: str, kind: str, namespace: str) -> bool:
        """Whether `require` would return, where that takes no wait; False says nothing."""
        ...

    async def visible(self, call: Call, verb: str, kind: str) -> frozenset[str] | None:
        """Return the projects whose objects it may see, None for all."""
        ...

    async def admit(self, call: Call, old: Any | None, new: Any | None) -> None:
        """Return if it may make `new` of `old`; None is what is not there yet, or not any more.

        May fill in what access keeps in an object.  Raises PermissionDenied, FailedPrecondition.
        """
        ...

    def wrote(self, resource: Any, *, gone: bool = False) -> None:
        """Take in what was written, before its change comes back from the store.  `gone`: it was deleted."""
        ...


class Everybody:
    """Access without identities: everyone may do everything.  For a server that nobody else can reach, and tests."""

    policy = "off"

    async def require(self, call: Call, verb: str, kind: str, namespace: str, name: str = "") -> None:
        """Allow."""

    def allows(self, principal: Principal, verb: str, kind: str, namespace: str) -> bool:
        """Allow."""
        return True

    async def visible(self, call: Call, verb: str, kind: str) -> frozenset[str] | None:
        """Show all projects."""
        return None

    async def admit(self, call: Call, old: Any | None, new: Any | None) -> None:
        """Admit everything."""

    def wrote(self, resource: Any, *, gone: bool = False) -> None:
        """Nothing follows from it."""
