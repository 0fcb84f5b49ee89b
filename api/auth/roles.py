"""Access by roles: bindings in memory, decided in microseconds, followed through the store's changes.

What a caller has no role for does not exist for it: the answer is the one for a missing object, and it is given before
the object is looked for.  A refusal looks into the store itself first, so that a right that was given a moment ago, by
another server, counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from api.admission import SYSTEM_NAMESPACE, references
from api.auth.base import ADMINS
from api.auth.bindings import CREATOR, KINDS, Bindings, granted
from api.auth.rights import ACROSS, USES, Held, digest, held, names_of, needed, role_name
from api.calls import Call, Principal
from api.errors import (
    ApiError,
    Expired,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from api.gen.michelangelo.api.v2 import trigger_run_pb2
from api.gen.michelangelo.platform.v1 import role_binding_pb2 as wire
from api.kinds import Resource
from api.resources import Resources
from api.store.base import ChangeType, Key, Query
from api.validation import shown

AGAIN_S = 0.2
LONGEST_AGAIN_S = 5.0
TRIGGER_ENDED = (
    trigger_run_pb2.TRIGGER_RUN_STATE_KILLED,
    trigger_run_pb2.TRIGGER_RUN_STATE_SUCCEEDED,
    trigger_run_pb2.TRIGGER_RUN_STATE_FAILED,
)

# What a write without a project is refused with: the reason that admission gives for it.
WITHOUT_PROJECT = {
    "Create": ("metadata.namespace", "BAD_NAME"),
    "Update": ("metadata.namespace", "BAD_NAME"),
    "DeleteCollection": ("namespace", "MISSING_FIELD"),
}

log = logging.getLogger(__name__)


class RoleAccess:
    """The rights of everybody.  Use as an async context manager: it loads and follows the bindings.

    creators: groups whose members may create projects, empty for every user; seen: whether a user was ever here.
    """

    def __init__(
        self,
        resources: Resources,
        *,
        creators: Iterable[str] = (),
        seen: Callable[[str], bool] = lambda user: True,
    ) -> None:
        self._resources = resources
        self._creators = frozenset(creators)
        self._rules = digest(self._creators)
        self._seen = seen
        self._bindings = Bindings()
        self._since = 0
        # Whether what another server takes away is known here within its watch's delay.
        self._followed = False
        self._follower: asyncio.Task[None] | None = None

    @property
    def policy(self) -> str:
        """What is decided by now: digests of the rules and of all bindings, and the revision of their newest change."""
        return f"{self._rules}.{self._bindings.digest}@{self._bindings.revision}"

    async def require(self, call: Call, verb: str, kind: str, namespace: str, name: str = "") -> None:
        """Return if the caller may.  Raises NotFound for what is not its to know, PermissionDenied."""
        principal = call.principal
        if verb == "Approve" and (principal.kind != "user" or principal.via):
            raise PermissionDenied(f"{shown(principal.subject)} may not approve: a person does, in its own name")
        if principal.kind == "system" or (await self._held(principal)).has(verb, kind, namespace):
            return
        if kind == "Project" and verb == "Create" and self._may_create(principal):
            return
        # Its answer holds what the caller may see.
        if not namespace and verb in ACROSS:
            return
        # Of these a refusal is an everyday answer, and one that is late by a moment does no harm.
        soft = verb in ("Unmask", "Finalize")
        now = await (self._held(principal) if soft else self._stored(principal, namespace))
        if not now.has(verb, kind, namespace):
            raise _refusal(principal, now, verb, Key(kind, namespace, name))

    def allows(self, principal: Principal, verb: str, kind: str, namespace: str) -> bool:
        """Whether a role that is known here gives the right."""
        return self._followed and self._bindings.held(principal).has(verb, kind, namespace)

    async def visible(self, call: Call, verb: str, kind: str) -> frozenset[str] | None:
        """Return the projects whose objects the caller may see, None for all."""
        if call.principal.kind == "system":
            return None
        mine = await self._held(call.principal)
        if mine.has(verb, kind, ""):
            return None
        # The least role sees all kinds: there is no project in which it holds another.
        return mine.visible

    async def admit(self, call: Call, old: Resource | None, new: Resource | None) -> None:
        """Return if the caller may make `new` of `old`; None is what is not there yet, or not any more.

        Fills in what access itself keeps in an object.  Raises PermissionDenied, FailedPrecondition.
        """
        principal = call.principal
        if principal.kind == "system":
            return
        either = new if new is not None else old
        assert either is not None, "a write has an object"
        kind, namespace = either.DESCRIPTOR.name, either.metadata.namespace
        if _stops(kind, old, new):
            await self.require(call, "Kill", kind, namespace, either.metadata.name)
        if new is None:
            return
        if kind == "Project":
            await self._keep_creator(principal, old, new)
        if kind == "RoleBinding":
            self._warn(call, new)
        await self._check_uses(call, old, new)

    def wrote(self, resource: Resource, *, gone: bool = False) -> None:
        """Take in what this server wrote, before its changes come back."""
        if resource.DESCRIPTOR.name in KINDS:
            if gone:
                self._bindings.remove(resource, known=False)
            else:
                self._bindings.put(resource)

    def who_can(self, verb: str, kind: str, namespace: str) -> list[str]:
        """Return the subjects that may, as `user:alice`, by name."""
        bit = 1 << needed(verb, kind)
        return sorted(
            name
            for name, grants in self._bindings.everyone().items()
            if held(Principal(""), grants).in_project(namespace) & bit
        )

    def _may_create(self, principal: Principal) -> bool:
        if self._creators:
            return bool(self._creators & principal.groups)
        return principal.kind == "user"

    async def _keep_creator(self, principal: Principal, old: Resource | None, new: Resource) -> None:
        """Note who created a project.  An administrator of it may change that; leaving it out changes nothing."""
        noted = new.metadata.annotations
        if old is not None:
            if CREATOR not in noted and CREATOR in old.metadata.annotations:
                noted[CREATOR] = old.metadata.annotations[CREATOR]
            return
        noted.pop(CREATOR, None)
        if ADMINS not in principal.groups:
            noted[CREATOR] = next(iter(names_of(principal)))
        name = new.metadata.namespace
        left = await self._resources.list("RoleBinding", Query(namespace=name, limit=1))
        if left.items and await self._resources.find(Key("Project", name, name)) is None:
            raise FailedPrecondition(
                "what is left of an earlier project of this name is still being removed: try again, or take another",
                reason="PROJECT_NOT_EMPTY",
            )

    def _warn(self, call: Call, new: Resource) -> None:
        for position, subject in enumerate(new.spec.subjects):
            if subject.kind == wire.SUBJECT_KIND_USER and not self._seen(subject.name):
                call.warn(f"spec.subjects[{position}].name: {shown(subject.name)!r} has not been here yet")

    async def _check_uses(self, call: Call, old: Resource | None, new: Resource) -> None:
        """Refuse a new reference to another project's object that would act there without the right to."""
        before = {key for _, key in references(old)} if old is not None else set()
        for path, key in references(new):
            if key.namespace == new.metadata.namespace or key in before or key.kind not in USES:
                continue
            verb, kind = USES[key.kind]
            mine = await self._held(call.principal)
            # One that is not visible is a missing referee like any other: admission says so.
            if mine.has("Get", key.kind, key.namespace) and not mine.has(verb, kind, key.namespace):
                told = f"uses a {key.kind} of {key.namespace!r}: that needs the role {_role(verb, kind)} there"
                raise PermissionDenied(f"{path} {told}", violations=[FieldViolation(path, told, shown(key.name))])

    async def _stored(self, principal: Principal, namespace: str) -> Held:
        """Return what the store says that a principal holds in a project, and everywhere."""
        found: list[tuple[str, int]] = []
        names = frozenset(names_of(principal))
        places = {namespace, SYSTEM_NAMESPACE} - {""}
        resources = [item for place in places for item in await self._in(place)]
        for resource in resources:
            self._bindings.put(resource)
            found += [(resource.metadata.namespace, role) for name, role in granted(resource) if name in names]
        return held(principal, found)

    async def _in(self, namespace: str) -> list[Any]:
        project = await self._resources.find(Key("Project", namespace, namespace))
        bound = await self._resources.list("RoleBinding", Query(namespace=namespace))
        return [*([project] if project is not None else []), *bound.items]

    async def __aenter__(self) -> RoleAccess:
        await self._load()
        self._followed = True
        self._follower = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)

    async def _held(self, principal: Principal) -> Held:
        """Return what a principal holds; from the store itself while nobody knows what was taken since."""
        if not self._followed:
            await self._load()
        return self._bindings.held(principal)

    async def _load(self) -> None:
        pages = {kind: await self._resources.list(kind) for kind in KINDS}
        self._bindings.replace([item for page in pages.values() for item in page.items])
        self._since = self._bindings.revision = min(page.revision for page in pages.values())

    async def _follow(self) -> None:
        pause_s = AGAIN_S
        while True:
            try:
                if not self._followed:
                    await self._load()
                    self._followed = True
                async for change in self._resources.watch(KINDS, self._since):
                    if change.type is ChangeType.DELETED:
                        self._bindings.remove(change.resource, known=True)
                    else:
                        self._bindings.put(change.resource)
                    pause_s = AGAIN_S
            except Expired:
                log.info("bindings are read again: their changes are no longer kept")
            except Exception:
                log.warning("bindings cannot be followed", exc_info=True)
            self._followed = False
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_AGAIN_S)


def _refusal(principal: Principal, held: Held, verb: str, key: Key) -> ApiError:
    if key.kind and not key.namespace and verb in WITHOUT_PROJECT:
        field, reason = WITHOUT_PROJECT[verb]
        violation = FieldViolation(field, "is required: nothing lives without a project")
        return InvalidArgument(f"{field} {violation.description}", reason=reason, violations=[violation])
    if key.kind == "Project" and verb == "Create":
        return PermissionDenied(f"{shown(principal.subject)} may not create projects: ask an administrator for one")
    if key.kind and not held.in_project(key.namespace):
        if key.name and verb not in ("Create", "List", "Watch"):
            return NotFound(f"there is no {key.kind} {shown(key.name)!r} in {shown(key.namespace)!r}")
        return NotFound(f"there is no Project {shown(key.namespace)!r}: create it first", reason="UNKNOWN_PROJECT")
    what = f"{verb} {key.kind}".strip()
    where = f" in {key.namespace!r}" if key.namespace else ""
    told = f"{shown(principal.subject)} may not {what}{where}: that needs the role {_role(verb, key.kind)}"
    # A role is given by those who hold it, and only an administrator holds all of them.
    granting = key.kind == "RoleBinding" and verb in ("Create", "Update")
    return PermissionDenied(told, reason="ESCALATION" if granting else "")


def _role(verb: str, kind: str) -> str:
    return role_name(needed(verb, kind))


def _stops(kind: str, old: Resource | None, new: Resource | None) -> bool:
    """Whether a write stops what runs: a kill that was not asked for before, or the deletion of what has not ended."""
    if old is None or kind not in ("PipelineRun", "TriggerRun"):
        return False
    if kind == "PipelineRun":
        return not old.status.HasField("end_time") if new is None else bool(new.spec.kill and not old.spec.kill)
    return old.status.state not in TRIGGER_ENDED if new is None else _ends(new) and not _ends(old)


def _ends(trigger: Any) -> bool:
    return bool(trigger.spec.kill) or trigger.spec.action == trigger_run_pb2.TRIGGER_RUN_ACTION_KILL
