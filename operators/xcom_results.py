"""What earlier steps of a run left, read from Airflow's XComs.  References only: no value is loaded here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from operators.authoring.graph import Graph
from operators.authoring.resolve import SKIPPED, Absent, Index
from operators.values.references import Reference

UNMAPPED = -1


class XComResults:
    """The results of a run as one task instance sees them.

    ti: Airflow's; index: the position of this instance in its loops; item: the entry that it is mapped over.
    """

    def __init__(self, graph: Graph, ti: Any, index: Index = (), item: Mapping[str, Any] | None = None) -> None:
        self._graph = graph
        self._ti = ti
        self._index = index
        self._item = item
        self._outputs: dict[str, Mapping[Index, Reference]] = {}
        self._listed: dict[str, Mapping[Index, Reference] | Absent] = {}

    def output(self, step: str, index: Index) -> Reference | Absent:
        """Return what one instance of a step returned; SKIPPED if it left nothing."""
        if not index:
            return _reference(self._pull(step, UNMAPPED))
        if index == self._index and self._graph.step(step).foreach == self._own_loop:
            # Steps of one loop are mapped over one list.
            return _reference(self._pull(step, self._ti.map_index))
        if step not in self._outputs:
            # Without map_indexes Airflow gives those of all instances, and a single one without a list.
            found = self._ti.xcom_pull(task_ids=step) or []
            self._outputs[step] = _by_index([found] if isinstance(found, dict) else filter(None, found))
        return self._outputs[step].get(index, SKIPPED)

    def items(self, loop: str) -> Mapping[Index, Reference] | Absent:
        """Return the items of a loop by the index of the instances that they are for, in order."""
        if self._item is not None and loop == self._own_loop:
            return _Items(self, loop, self._index, Reference.from_json(self._item))
        return self.listed(loop)

    def listed(self, loop: str) -> Mapping[Index, Reference] | Absent:
        """Return the items of a loop as its own task listed them."""
        if loop not in self._listed:
            found = self._pull(loop, UNMAPPED)
            self._listed[loop] = SKIPPED if found is None else _by_index(found)
        return self._listed[loop]

    @property
    def _own_loop(self) -> str:
        name = self._ti.task_id
        return next((step.foreach for step in self._graph.steps if step.name == name), "")

    def _pull(self, task_id: str, map_index: int) -> Any:
        return self._ti.xcom_pull(task_ids=task_id, map_indexes=map_index)


class _Items(Mapping[Index, Reference]):
    """The items of the loop that a task is in: its own is known, the others are read only when they are asked for."""

    def __init__(self, results: XComResults, loop: str, index: Index, own: Reference) -> None:
        self._results, self._loop, self._index, self._own = results, loop, index, own

    def __getitem__(self, index: Index) -> Reference:
        return self._own if index == self._index else self._all()[index]

    def __iter__(self) -> Iterator[Index]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> Mapping[Index, Reference]:
        found = self._results.listed(self._loop)
        return {} if isinstance(found, Absent) else found


def _by_index(entries: Any) -> dict[Index, Reference]:
    return {tuple(entry["index"]): Reference.from_json(entry) for entry in entries}


def _reference(found: Any) -> Reference | Absent:
    return SKIPPED if found is None else Reference.from_json(found)
