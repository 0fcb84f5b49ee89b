"""What a watch selects, and how a change looks through the selection.  Pure; reads labels and indexed fields only.

An object that comes to be selected is ADDED, one that ceases to be is DELETED, whatever happened to it in the store.
Source of the rule: Kubernetes' watch with selectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from api.kinds import Resource
from api.store.base import (
    Change,
    ChangeType,
    Criterion,
    Group,
    LabelRequirement,
    Operator,
    Scalar,
    labels_match,
)
from api.store.values import indexed

# (was selected, is selected) -> what the watcher is told.
SEEN = {
    (False, True): ChangeType.ADDED,
    (True, True): ChangeType.MODIFIED,
    (True, False): ChangeType.DELETED,
}


@dataclass(frozen=True)
class Selection:
    """Kinds with the namespaces (None: all) and field conditions of each, and labels.  Equal selections share work."""

    scopes: tuple[tuple[str, frozenset[str] | None], ...]
    labels: tuple[LabelRequirement, ...] = ()
    fields: tuple[tuple[str, Group], ...] = ()

    @classmethod
    def of(
        cls,
        scopes: Mapping[str, frozenset[str] | None],
        labels: tuple[LabelRequirement, ...] = (),
        fields: Mapping[str, Group] | None = None,
    ) -> Selection:
        """Return the selection of some kinds.  `fields`: by kind; a kind without an entry has no condition."""
        return cls(tuple(sorted(scopes.items(), key=lambda scope: scope[0])), labels, tuple((fields or {}).items()))

    @cached_property
    def _namespaces(self) -> Mapping[str, frozenset[str] | None]:
        return dict(self.scopes)

    @cached_property
    def _fields(self) -> Mapping[str, Group]:
        return dict(self.fields)

    def seen(self, change: Change) -> ChangeType | None:
        """Return what a watcher is told of a change, None if nothing."""
        kind = change.key.kind
        if kind not in self._namespaces:
            return None
        namespaces = self._namespaces[kind]
        if namespaces is not None and change.key.namespace not in namespaces:
            return None
        if not self.labels and kind not in self._fields:
            return change.type
        return SEEN.get((self._was(change), change.type is not ChangeType.DELETED and self.matches(change.resource)))

    def _was(self, change: Change) -> bool:
        if change.type is ChangeType.ADDED:
            return False
        if change.type is ChangeType.DELETED:
            return self.matches(change.resource)
        # Where the state before is not known, an exit too many does less harm than one too few.
        return change.previous is None or self.matches(change.previous)

    def matches(self, resource: Resource) -> bool:
        """Whether the labels and fields of an object are selected."""
        if not labels_match(self.labels, resource.metadata.labels):
            return False
        condition = self._fields.get(resource.DESCRIPTOR.name)
        return condition is None or holds(condition, indexed(resource))


def holds(node: Criterion | Group, values: Mapping[str, Scalar]) -> bool:
    """Tell whether indexed values meet a field selector: IN and NOT_IN, joined.

    A field without a value is in no set, as in the store's lists.
    """
    if isinstance(node, Group):
        found = (holds(term, values) for term in node.terms)
        return any(found) if node.any and node.terms else all(found)
    inside = node.field in values and values[node.field] in node.values
    if node.operator is Operator.IN:
        return inside
    if node.operator is Operator.NOT_IN:
        return not inside
    raise ValueError(f"{node.operator} is no operator of a field selector")
