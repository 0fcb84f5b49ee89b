"""Who calls, and what it said about its call.  Values and the port of access; decides nothing."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Principal:
    """Somebody who was authenticated.  `kind`: user, service or system; `via`: who acts in its name, if another."""

    subject: str
    groups: frozenset[str] = frozenset()
    kind: str = "user"
    via: str = ""


# The platform itself: controllers, and what they write.
SYSTEM = Principal("system:platform", kind="system")


@dataclass(frozen=True)
class Call:
    """One call.  `request_id`: a UUID; `repeatable`: the client chose it, so that a repeat has one effect.

    source: grpc, http or controller; force: a write over whatever is stored, without naming its version.
    """

    principal: Principal = SYSTEM
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    repeatable: bool = False
    source: str = "controller"
    force: bool = False


class Access(Protocol):
    """What a principal may do.  A verb is an RPC's: Create, Get, Update, Delete, DeleteCollection, List, Watch."""

    async def require(self, call: Call, verb: str, kind: str, namespace: str, name: str = "") -> None:
        """Return if it may.  Raises NotFound for what is not its to know, PermissionDenied for what it may not do."""
        ...

    async def visible(self, call: Call, verb: str, kind: str) -> frozenset[str] | None:
        """Return the projects whose objects it may see, None for all."""
        ...


class Everybody:
    """Access without identities: everyone may do everything.  For a server that nobody else can reach, and tests."""

    async def require(self, call: Call, verb: str, kind: str, namespace: str, name: str = "") -> None:
        """Allow."""

    async def visible(self, call: Call, verb: str, kind: str) -> frozenset[str] | None:
        """Show all projects."""
        return None
