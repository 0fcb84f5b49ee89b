"""Operations over a real store, without a transport: calls by anybody, in the test's own loop."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api import audit
from api.admitters import ADMITTERS
from api.calls import Call, Everybody, Principal
from api.errors import PermissionDenied
from api.external import External
from api.hooks import NO_HOOKS, Hooks
from api.kinds import Kind, kinds
from api.operations import Operation, Operations
from api.resources import Admitter, Resources
from api.store.base import Change
from api.store.sqlite import SqliteStore

PROJECT = "shop"


@dataclass
class Only(Everybody):
    """Everybody may do everything but some verbs, by subject."""

    denied: dict[str, Collection[str]] = field(default_factory=dict)

    async def require(self, call: Call, verb: str, kind: str, namespace: str, name: str = "") -> None:
        """Refuse the denied verbs."""
        if verb in self.denied.get(call.principal.subject, ()):
            raise PermissionDenied(f"{call.principal.subject} may not {verb}")

    def allows(self, principal: Principal, verb: str, kind: str, namespace: str) -> bool:
        """Say nothing."""
        return False


class Calling:
    """A store, its resources and operations.  Close it."""

    def __init__(
        self,
        path: Path,
        access: Only | None = None,
        *,
        external: External | None = None,
        hooks: Hooks = NO_HOOKS,
        admitters: Mapping[str, Sequence[Admitter]] = ADMITTERS,
    ) -> None:
        self.path = path
        self.store = SqliteStore(path)
        self.resources = Resources(self.store, admitters, external=external, hooks=hooks)
        self.operations = Operations(self.resources, access or Only())

    async def close(self) -> None:
        await self.operations.settled()
        await self.store.close()

    async def call(self, verb: str, kind: str | Kind, call: Call | None = None, **fields: Any) -> Any:
        """Call one operation; returns its answer.  Raises `api.errors`."""
        operation = Operation(kinds()[kind] if isinstance(kind, str) else kind, verb)
        return await self.operations.call(call or by("alice"), operation, operation.request(**fields))

    async def write(self, verb: str, resource: Any, call: Call | None = None, *, dry: bool = False) -> Any:
        """Create or update an object; returns it as it is stored."""
        kind = kinds()[resource.DESCRIPTOR.name]
        fields: dict[str, Any] = {kind.singular: resource}
        if dry:
            fields[f"{verb.lower()}_options"] = {"dryRun": ["All"]}
        return getattr(await self.call(verb, kind.name, call, **fields), kind.singular)

    async def create(self, resource: Any, call: Call | None = None) -> Any:
        return await self.write("Create", resource, call)

    async def update(self, resource: Any, call: Call | None = None) -> Any:
        return await self.write("Update", resource, call)

    async def get(self, kind: str, name: str, call: Call | None = None) -> Any:
        found = await self.call("Get", kind, call, namespace=PROJECT, name=name)
        return getattr(found, kinds()[kind].singular)

    async def listed(self, kind: str, call: Call | None = None) -> list[Any]:
        found = await self.call("List", kind, call, namespace=PROJECT)
        return list(getattr(found, f"{kinds()[kind].singular}_list").items)

    async def records(self) -> list[audit.Entry]:
        """Return the audit log; its chain must hold."""
        found = await self.store.audit(0, 1_000_000)
        assert audit.first_break(found) is None
        return [audit.read(record.body) for record in found]

    async def changes(self, since: int = 0) -> list[Change]:
        """Return the change log."""
        newest, found = await self.store.revision(), []
        if since < newest:
            log: Any = self.resources.watch(None, since)
            async with aclosing(log):
                async for change in log:
                    found.append(change)
                    if change.revision >= newest:
                        break
        return found


def by(subject: str, request_id: str = "", **rest: Any) -> Call:
    """Return a call of a user; with a request id of its own choice, or one that is new and its own too."""
    return Call(Principal(subject), request_id or str(uuid.uuid4()), repeatable=True, source="test", **rest)


def family(name: str, description: str = "first") -> Any:
    """Return a new object of the simplest kind."""
    new = kinds()["ModelFamily"].new(PROJECT, name)
    new.spec.description = description
    return new


def changed(item: Any, description: str) -> Any:
    """Return an object with another description."""
    new = type(item).FromString(item.SerializeToString())
    new.spec.description = description
    return new
