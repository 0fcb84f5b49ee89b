"""What a VALUE of a graph is while the pipeline runs: the same answer in every place.  Loads plain values, no tables.

A step that did not run is SKIPPED, and so is whatever is made of it, but for "last", which takes the last VALUE that
is not, and "each", which leaves out the instances that are.
"""

from __future__ import annotations

import enum
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from api.graphs import MOST_INSTANCES
from operators.authoring.graph import Graph, Loop, Step, Value
from operators.errors import UserError
from operators.values.references import Reference
from operators.values.store import Values, is_reference, referring
from operators.values.trees import REFERENCE

Index = tuple[int, ...]
"""Which instance of a step: a position for each loop around it, from the outermost."""


class Absent(enum.Enum):
    """SKIPPED: there is no value, because a step did not run."""

    SKIPPED = "SKIPPED"


SKIPPED = Absent.SKIPPED


class Results(Protocol):
    """What earlier steps of the run have left: in memory, or in Airflow's XComs."""

    def output(self, step: str, index: Index) -> Reference | Absent:
        """Return what one instance of a step returned."""
        ...

    def items(self, loop: str) -> Mapping[Index, Reference] | Absent:
        """Return the items of a loop by the index of the instances that they are for, in order."""
        ...


@dataclass(frozen=True)
class Skip:
    """A step does not run, and why."""

    message: str


@dataclass(frozen=True)
class Resolver:
    """Answers for one run.  `params`: complete, as JSON values."""

    graph: Graph
    params: Mapping[str, Any]
    results: Results
    values: Values
    _trees: dict[str, Any] = field(default_factory=dict)
    _groups: dict[str, Mapping[Index, Sequence[Index]]] = field(default_factory=dict)

    def inputs(self, step: Step, index: Index) -> dict[str, Any] | Skip:
        """Return the arguments of an instance as trees: plain JSON, and references to what is stored."""
        around = self.graph.around(step.foreach)
        for condition in step.when:
            if not self.holds(condition, around, index):
                return Skip("its condition does not hold")
        found = {name: self.tree(value, around, index) for name, value in step.inputs.items()}
        for name, tree in found.items():
            if tree is SKIPPED:
                return Skip(f"what it needs as {name!r} was skipped")
        return found

    def expand(self, loop: Loop) -> dict[Index, Reference] | Absent:
        """Return the items of a loop, each stored by itself.  Raises UserError for what has no items, or too many."""
        outer: Mapping[Index, Reference] | Absent = self.results.items(loop.within) if loop.within else {(): _NONE}
        if isinstance(outer, Absent):
            return SKIPPED
        around, skipped = self.graph.around(loop.within), 0
        found: dict[Index, Reference] = {}
        for index in outer:
            items = self._items(loop, around, index)
            if isinstance(items, Absent):
                skipped += 1
                continue
            for number, item in enumerate(items):
                if len(found) == MOST_INSTANCES:
                    raise UserError(f"the loop {loop.name!r} comes to more than {MOST_INSTANCES} items: map over fewer")
                found[(*index, number)] = self.values.put_tree(item)
        return SKIPPED if skipped and skipped == len(outer) else found

    def _items(self, loop: Loop, around: Sequence[str], index: Index) -> Iterator[Any] | list[Any] | Absent:
        if not all(self.holds(condition, around, index) for condition in loop.when):
            return SKIPPED
        form, content = next(iter(loop.over.items()))
        if form == "matrix":
            return self._matrix(loop, content, around, index)
        tree = self.tree(loop.over, around, index)
        return SKIPPED if tree is SKIPPED else self._listed(tree, f"the loop {loop.name!r}")

    def _matrix(
        self, loop: Loop, axes: Mapping[str, Value], around: Sequence[str], index: Index
    ) -> Iterator[Any] | Absent:
        trees = {name: self.tree(axis, around, index) for name, axis in axes.items()}
        if any(tree is SKIPPED for tree in trees.values()):
            return SKIPPED
        lists = {name: self._listed(tree, f"{name!r} of {loop.name!r}") for name, tree in trees.items()}
        count = math.prod(len(items) for items in lists.values())
        if count > MOST_INSTANCES:
            raise UserError(f"the loop {loop.name!r} comes to {count} items, at most {MOST_INSTANCES} are allowed")
        return (dict(zip(lists, combined, strict=True)) for combined in itertools.product(*lists.values()))

    def _listed(self, tree: Any, what: str) -> list[Any]:
        plain = self.plain(tree)
        if isinstance(plain, dict) and "$tuple" in plain:
            plain = plain["$tuple"]
        if not isinstance(plain, list):
            kind = plain[REFERENCE]["format"] if is_reference(plain) else type(plain).__name__
            raise UserError(f"{what} needs a list to go over, not {kind}: let a task return a list")
        return plain

    def holds(self, condition: Value, around: Sequence[str], index: Index) -> bool:
        """Whether a condition is true; one that is made of a skipped step is not."""
        tree = self.tree(condition, around, index)
        return tree is not SKIPPED and self.truth(tree)

    def truth(self, tree: Any) -> bool:
        """Whether Python takes a plain value for true.  Raises UserError for a table or an array."""
        plain = self.plain(tree)
        if is_reference(plain):
            raise UserError(f"a condition must be a plain value, not {plain[REFERENCE]['format']}: decide in a task")
        return bool(self.values.decode(plain))

    def plain(self, tree: Any) -> Any:
        """Return a tree; if it is a reference to a stored tree, that one.  Tables and the like stay references."""
        if not is_reference(tree):
            return tree
        reference = Reference.from_json(tree[REFERENCE])
        if reference.format != "json":
            return tree
        if reference.digest not in self._trees:
            self._trees[reference.digest] = self.values.tree(reference)
        return self._trees[reference.digest]

    def tree(self, value: Value, around: Sequence[str] = (), index: Index = ()) -> Any:
        """Return a VALUE, as seen from inside the loops `around`, as a tree, or SKIPPED."""
        form, content = next(iter(value.items()))
        return _FORMS[form](self, content, around, index)

    def _all(self, values: Sequence[Value], around: Sequence[str], index: Index) -> list[Any] | Absent:
        found = [self.tree(value, around, index) for value in values]
        return SKIPPED if any(tree is SKIPPED for tree in found) else found

    def _const(self, content: Any, around: Sequence[str], index: Index) -> Any:
        return self.values.encode(content)

    def _param(self, name: str, around: Sequence[str], index: Index) -> Any:
        return self.values.encode(self.params[name])

    def _step(self, name: str, around: Sequence[str], index: Index) -> Any:
        depth = len(self.graph.around(self.graph.step(name).foreach))
        found = self.results.output(name, index[:depth])
        return SKIPPED if isinstance(found, Absent) else referring(found)

    def _item(self, loop: str, around: Sequence[str], index: Index) -> Any:
        items = self.results.items(loop)
        if isinstance(items, Absent):
            return SKIPPED
        return referring(items[index[: len(self.graph.around(loop))]])

    def _each(self, content: Any, around: Sequence[str], index: Index) -> Any:
        loop, value = content
        inside = self.graph.around(loop)
        items = self.results.items(loop)
        if isinstance(items, Absent):
            return SKIPPED
        found = (self.tree(value, inside, one) for one in self._within(loop, items).get(index[: len(inside) - 1], ()))
        return [tree for tree in found if tree is not SKIPPED]

    def _within(self, loop: str, items: Mapping[Index, Reference]) -> Mapping[Index, Sequence[Index]]:
        """Return the instances of a loop by that of the loop around it."""
        if loop not in self._groups:
            groups: dict[Index, list[Index]] = {}
            for index in items:
                groups.setdefault(index[:-1], []).append(index)
            self._groups[loop] = groups
        return self._groups[loop]

    def _list(self, content: Sequence[Value], around: Sequence[str], index: Index) -> Any:
        return self._all(content, around, index)

    def _dict(self, content: Mapping[str, Value], around: Sequence[str], index: Index) -> Any:
        found = self._all(list(content.values()), around, index)
        if isinstance(found, Absent):
            return SKIPPED
        made = dict(zip(content, found, strict=True))
        return {"$dict": made} if any(key.startswith("$") for key in made) else made

    def _get(self, content: Any, around: Sequence[str], index: Index) -> Any:
        value, key = content
        tree = self.tree(value, around, index)
        if tree is SKIPPED:
            return SKIPPED
        plain = self.plain(tree)
        for tag in ("$dict", "$tuple"):
            plain = plain[tag] if isinstance(plain, dict) and tag in plain else plain
        if is_reference(plain):
            raise UserError(f"{key!r} cannot be read from {plain[REFERENCE]['format']}: let a task return it")
        try:
            return plain[key]
        except (KeyError, IndexError, TypeError) as error:
            shown = (
                f"it has {', '.join(map(repr, plain))}"[:200] if isinstance(plain, dict) else f"it is {plain!r}"[:200]
            )
            raise UserError(f"there is no {key!r} in the output that a step returned: {shown}") from error

    def _compare(self, content: Any, around: Sequence[str], index: Index) -> Any:
        sign, *operands = content
        found = self._all(operands, around, index)
        if isinstance(found, Absent):
            return SKIPPED
        left, right = (self.values.decode(self.plain(tree)) for tree in found)
        try:
            return bool(_COMPARISONS[sign](left, right))
        except TypeError as error:
            raise UserError(f"a condition compares what cannot be compared: {error}") from error

    def _not(self, content: Value, around: Sequence[str], index: Index) -> Any:
        tree = self.tree(content, around, index)
        return SKIPPED if tree is SKIPPED else not self.truth(tree)

    def _every(self, content: Sequence[Value], around: Sequence[str], index: Index) -> Any:
        found = self._all(content, around, index)
        return SKIPPED if isinstance(found, Absent) else all(self.truth(tree) for tree in found)

    def _any(self, content: Sequence[Value], around: Sequence[str], index: Index) -> Any:
        found = self._all(content, around, index)
        return SKIPPED if isinstance(found, Absent) else any(self.truth(tree) for tree in found)

    def _last(self, content: Sequence[Value], around: Sequence[str], index: Index) -> Any:
        for value in reversed(content):
            tree = self.tree(value, around, index)
            if tree is not SKIPPED:
                return tree
        return SKIPPED

    def _if(self, content: Sequence[Value], around: Sequence[str], index: Index) -> Any:
        condition = self.tree(content[0], around, index)
        if condition is SKIPPED:
            return SKIPPED
        chosen = content[1:2] if self.truth(condition) else content[2:3]
        return self.tree(chosen[0], around, index) if chosen else SKIPPED

    def _product(self, content: Mapping[str, Value], around: Sequence[str], index: Index) -> Any:
        raise UserError("a matrix can only be gone over: give it to foreach")


_NONE = Reference("", "")
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda left, right: left in right,
}
_FORMS: dict[str, Callable[[Resolver, Any, Sequence[str], Index], Any]] = {
    "const": Resolver._const,
    "param": Resolver._param,
    "step": Resolver._step,
    "item": Resolver._item,
    "each": Resolver._each,
    "list": Resolver._list,
    "dict": Resolver._dict,
    "get": Resolver._get,
    "compare": Resolver._compare,
    "not": Resolver._not,
    "all": Resolver._every,
    "any": Resolver._any,
    "last": Resolver._last,
    "if": Resolver._if,
    "matrix": Resolver._product,
}
