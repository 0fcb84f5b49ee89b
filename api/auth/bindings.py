"""All bindings in memory, by whom they are for.  Fed by lists, changes and this server's own writes; reads no store.

A project's creator is its administrator: the annotation that says who it is counts as a binding, so that both come into
being in one effect and neither can be lost without the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from api.auth.rights import ADMIN, Held, held, name_of, names_of
from api.calls import Principal
from api.store.base import Key
from api.store.values import key_of

CREATOR = "michelangelo.platform/creator"
KINDS = ("Project", "RoleBinding")
MOST_HELD = 10_000


class Bindings:
    """Who was given what.  What is older than what is known of an object is ignored, in whatever order it comes."""

    def __init__(self) -> None:
        self._subjects: dict[Key, frozenset[str]] = {}
        self._grants: dict[str, dict[Key, int]] = {}
        self._versions: dict[Key, int] = {}
        self._held: dict[Principal, Held] = {}

    def put(self, resource: Any) -> None:
        """Take in a Project or a RoleBinding as it is now."""
        key = key_of(resource)
        if self._newer(key, resource):
            self._drop(key)
            self._add(key, dict(granted(resource)))

    def remove(self, resource: Any, *, known: bool) -> None:
        """Take out one that is gone.  `known`: by a change, after which nothing older of it will come."""
        key = key_of(resource)
        if self._newer(key, resource):
            self._drop(key)
        if known and self._versions.get(key, 0) <= int(resource.metadata.resourceVersion or 0):
            self._versions.pop(key, None)

    def replace(self, resources: Iterable[Any]) -> None:
        """Know these and nothing else."""
        for known in (self._subjects, self._grants, self._versions, self._held):
            known.clear()
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

    def _newer(self, key: Key, resource: Any) -> bool:
        version = int(resource.metadata.resourceVersion or 0)
        if version < self._versions.get(key, 0):
            return False
        self._versions[key] = version
        return True

    def _drop(self, key: Key) -> None:
        for name in self._subjects.pop(key, frozenset()):
            mine = self._grants[name]
            del mine[key]
            if not mine:
                del self._grants[name]
        self._held.clear()

    def _add(self, key: Key, roles: Mapping[str, int]) -> None:
        if roles:
            self._subjects[key] = frozenset(roles)
        for name, role in roles.items():
            self._grants.setdefault(name, {})[key] = role
        self._held.clear()


def granted(resource: Any) -> Iterator[tuple[str, int]]:
    """Yield (subject, role) of what a RoleBinding, or a Project by its creator, gives in its namespace."""
    if resource.DESCRIPTOR.name == "Project":
        if creator := resource.metadata.annotations.get(CREATOR, ""):
            yield creator, ADMIN
    # One that waits for its finalizers is deleted: it gives nothing any more.
    elif not resource.metadata.HasField("deletionTimestamp"):
        for subject in resource.spec.subjects:
            yield name_of(subject), resource.spec.role
