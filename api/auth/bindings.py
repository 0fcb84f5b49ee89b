"""All bindings in memory, by whom they are for.  Fed by lists, changes and this server's own writes; reads no store.

A project's creator is its administrator: the annotation that says who it is counts as a binding, so that both come into
being in one effect and neither can be lost without the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from api.auth.rights import ADMIN, Held, held, name_of, names_of
from api.calls import Principal
from api.store.base import Key
from api.store.values import key_of

CREATOR = "michelangelo.platform/creator"
KINDS = ("Project", "RoleBinding")
MOST_HELD = 10_000
MODULUS = 2**256


class Bindings:
    """Who was given what.  What is older than what is known of an object is ignored, in whatever order it comes.

    revision: that of the newest change that gave or took a right; digest: stands for all that is given to anybody, the
    same for the same rights on every server.
    """

    def __init__(self) -> None:
        self.revision = 0
        # A sum, so that it changes by what changes, and is the same in whatever order all came.
        self._sum = 0
        self.digest = ""
        self._count(0)
        self._subjects: dict[Key, frozenset[str]] = {}
        self._grants: dict[str, dict[Key, int]] = {}
        self._versions: dict[Key, int] = {}
        self._held: dict[Principal, Held] = {}

    def put(self, resource: Any) -> None:
        """Take in a Project or a RoleBinding as it is now."""
        self._replace(resource, dict(granted(resource)))

    def remove(self, resource: Any, *, known: bool) -> None:
        """Take out one that is gone.  `known`: by a change, after which nothing older of it will come."""
        key = self._replace(resource, {})
        if known and self._versions.get(key, 0) <= int(resource.metadata.resourceVersion or 0):
            self._versions.pop(key, None)

    def replace(self, resources: Iterable[Any]) -> None:
        """Know these and nothing else."""
        for known in (self._subjects, self._grants, self._versions, self._held):
            known.clear()
        self._count(-self._sum)
        for resource in resources:
            self.put(resource)

    def held(self, principal: Principal) -> Held:
        """Return what a principal holds."""
        found = self._held.get(principal)
        if found is None:
            found = held(principal, self._of(principal))
            if len(self._held) >= MOST_HELD:
                self._held.clear()
            self._held[principal] = found
        return found

    def among(self, namespace: str) -> bool:
        """Whether there is any RoleBinding in a project."""
        return any(key.kind == "RoleBinding" and key.namespace == namespace for key in self._subjects)

    def everyone(self) -> Mapping[str, Iterable[tuple[str, int]]]:
        """Return all (project, role) pairs by subject."""
        return {name: [(key.namespace, role) for key, role in mine.items()] for name, mine in self._grants.items()}

    def _of(self, principal: Principal) -> Iterator[tuple[str, int]]:
        for name in names_of(principal):
            for key, role in self._grants.get(name, {}).items():
                yield key.namespace, role

    def _replace(self, resource: Any, roles: Mapping[str, int]) -> Key:
        key, before = key_of(resource), self._sum
        if self._newer(key, resource):
            self._drop(key)
            self._add(key, roles)
        if self._sum != before:
            self.revision = max(self.revision, self._versions[key])
        return key

    def _newer(self, key: Key, resource: Any) -> bool:
        version = int(resource.metadata.resourceVersion or 0)
        if version < self._versions.get(key, 0):
            return False
        self._versions[key] = version
        return True

    def _drop(self, key: Key) -> None:
        roles: dict[str, int] = {}
        for name in self._subjects.pop(key, frozenset()):
            mine = self._grants[name]
            roles[name] = mine.pop(key)
            if not mine:
                del self._grants[name]
        self._count(-_number(key, roles))
        self._held.clear()

    def _add(self, key: Key, roles: Mapping[str, int]) -> None:
        if roles:
            self._subjects[key] = frozenset(roles)
        for name, role in roles.items():
            self._grants.setdefault(name, {})[key] = role
        self._count(_number(key, roles))
        self._held.clear()

    def _count(self, number: int) -> None:
        self._sum = (self._sum + number) % MODULUS
        self.digest = f"{self._sum:064x}"[:16]


def _number(key: Key, roles: Mapping[str, int]) -> int:
    """Return the hash of one object's grants as a number, 0 for none."""
    if not roles:
        return 0
    given = json.dumps([str(key), sorted(roles.items())]).encode()
    return int.from_bytes(hashlib.sha256(given).digest())


def granted(resource: Any) -> Iterator[tuple[str, int]]:
    """Yield (subject, role) of what a RoleBinding, or a Project by its creator, gives in its namespace."""
    if resource.DESCRIPTOR.name == "Project":
        if creator := resource.metadata.annotations.get(CREATOR, ""):
            yield creator, ADMIN
    # One that waits for its finalizers is deleted: it gives nothing any more.
    elif not resource.metadata.HasField("deletionTimestamp"):
        for subject in resource.spec.subjects:
            yield name_of(subject), resource.spec.role
