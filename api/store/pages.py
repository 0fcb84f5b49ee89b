"""Lists: pages that cost as much as they hold, however many objects there are.  Values are bound, never pasted.

A page begins after a position, not at an offset.  It is read from the index of one condition (`Plan.source`) in which
the objects stand in the order of the answer, or are few; every other condition is looked up object by object.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from api.kinds import Kind, Resource, kinds
from api.store import conditions, tokens
from api.store.base import LARGEST_PAGE, Page, Query
from api.store.conditions import Source, all_of
from api.store.database import Condition, Database
from api.store.tokens import Position
from api.store.values import fingerprint

# A gRPC client receives 4 MiB unless it was told otherwise; each object costs some bytes of the list around it.
PAGE_BYTES = 3_500_000
# Who asks for fewer objects than one can goes on with the next page; others wait while a large one is moved.
SHORT_PAGE_BYTES = 1_000_000
ROW_BYTES = 16
BODIES_AT_ONCE = 50
# A larger body is read by itself, if it still fits into the page.
LARGE_BODY_BYTES = 65_536
# How far is counted what follows a page of a list without conditions.
COUNTED = 1000
# Of so many namespaces, each is read in turn.
MOST_IN_TURN = 100

Parse = Callable[[str, bytes], Resource]
Row = tuple[Any, ...]


def select(db: Database, kind: str, query: Query, parse: Parse) -> Page:
    """Run a list: all pages of one list show the revision of its first page, or the token has expired.

    A page with a limit also ends where its objects would have more bytes than `page_bytes`.
    """
    revision, compacted, key = db.execute("SELECT revision, compacted, page_key FROM counter").fetchone()
    digest, position = fingerprint(kind, query), None
    if query.start:
        position = tokens.read(bytes(key), query.start, digest)
        revision = _unchanged_since(db, kind, position.revision, compacted)
    plan = Plan.of(db, kind, query)
    after = None if position is None else plan.values_at(db, position)
    if query.namespace and query.namespaces is not None and query.namespace not in query.namespaces:
        return Page([], revision, remaining=0)
    offset = query.offset if position is None else 0
    found = plan.rows(db, after, offset, query.limit + 1 if query.limit else None)
    rows = found[: query.limit] if query.limit else found
    bodies = list(_bodies(db, rows, page_bytes(query)))
    items = [parse(kind, body) for body in bodies]
    if len(bodies) == len(found):
        return Page(items, revision, remaining=0)
    last = rows[len(bodies) - 1]
    token = tokens.write(bytes(key), Position(revision, last[1], last[2]), digest)
    return Page(items, revision, token, plan.remaining(db, plan.values_of(db, last)))


def _unchanged_since(db: Database, kind: str, first: int, compacted: int) -> int:
    touched = db.execute("SELECT 1 FROM change WHERE kind = ? AND revision > ? LIMIT 1", (kind, first)).fetchone()
    # What was compacted may have been a change of this kind.
    if touched or first < compacted:
        raise tokens.expired(kind)
    return first


def page_bytes(query: Query) -> int | None:
    """Return the most bytes of a page, None for a list that is read whole.  One object may have more."""
    if not query.limit:
        return None
    return SHORT_PAGE_BYTES if query.limit < LARGEST_PAGE else PAGE_BYTES


def _bodies(db: Database, rows: Sequence[Row], most: int | None) -> Iterator[bytes]:
    """Yield the bytes of objects, in the order of their rows, while they fit into one page; at least one."""
    left, first = most or 0, True
    large = LARGE_BODY_BYTES if most is not None else sys.maxsize
    for start in range(0, len(rows), BODIES_AT_ONCE):
        some = [row[0] for row in rows[start : start + BODIES_AT_ONCE]]
        inside, bound = db.dialect.among("id", "id", some)
        columns = "id, length(body), CASE WHEN length(body) <= ? THEN body END"
        read = db.execute(f"SELECT {columns} FROM object WHERE {inside}", (large, *bound)).fetchall()  # noqa: S608
        found = {id_: (size, body) for id_, size, body in read}
        for id_ in some:
            size, body = found[id_]
            left -= size + ROW_BYTES
            if most is not None and left < 0 and not first:
                return
            if body is None:
                (body,) = db.execute("SELECT body FROM object WHERE id = ?", (id_,)).fetchone()
            yield bytes(body)
            first = False


@dataclass(frozen=True)
class Plan:
    """How a list is read."""

    query: Query
    kind: Kind
    source: Source

    @classmethod
    def of(cls, db: Database, kind: str, query: Query) -> Plan:
        """Choose where to begin, and turn the rest into conditions."""
        return cls(query, kinds()[kind], conditions.source(db, kind, query))

    def rows(self, db: Database, after: Sequence[Any] | None, offset: int, limit: int | None) -> list[Row]:
        """Return (id, namespace, name, values to sort by ...) of the objects after a position, in order."""
        allowed = self.query.namespaces
        if self.query.namespace or allowed is None or self.query.order or offset or len(allowed) > MOST_IN_TURN:
            return self._rows(db, self._allowed(db), after, offset, limit, alone=bool(self.query.namespace))
        found: list[Row] = []
        for namespace in sorted(allowed):
            if after is None or namespace >= after[0]:
                here: list[Condition] = [("s.namespace = ?", [namespace])]
                # In a namespace of its own the whole of what is before the position is left out.
                beyond = after if after is not None and namespace == after[0] else None
                found += self._rows(db, here, beyond, 0, None if limit is None else limit - len(found), alone=True)
            if limit is not None and len(found) == limit:
                break
        return found

    def _allowed(self, db: Database) -> list[Condition]:
        if self.query.namespace:
            return [("s.namespace = ?", [self.query.namespace])]
        if self.query.namespaces is None:
            return []
        return [db.dialect.among("s.namespace", "text", sorted(self.query.namespaces))]

    def _rows(
        self,
        db: Database,
        here: list[Condition],
        after: Sequence[Any] | None,
        offset: int,
        limit: int | None,
        *,
        alone: bool,
    ) -> list[Row]:
        statement, bound = self._select(here, after, alone=alone)
        if limit is not None:
            statement, bound = f"{statement} LIMIT ?", [*bound, limit]
        if offset:
            statement = f"{statement}{'' if limit is not None else ' LIMIT 9223372036854775807'} OFFSET ?"
            bound = [*bound, offset]
        return db.execute(statement, bound).fetchall()

    def _select(self, here: list[Condition], after: Sequence[Any] | None, *, alone: bool) -> Condition:
        """Return the statement that finds the objects of a list.  `alone`: `here` says which one namespace."""
        tables, joined = self.source.rows
        where, bound = all_of([*self.source.where, *here])
        tables, bound = f"FROM {tables} WHERE {where}", [*joined, *bound]
        if not self.query.order:
            if after is not None and alone:
                tables, bound = f"{tables} AND s.name > ?", [*bound, after[1]]
            elif after is not None:
                tables, bound = f"{tables} AND (s.namespace, s.name) > (?, ?)", [*bound, *after]
            named = f"{self.source.id}, s.namespace, s.name"
            return f"SELECT {named} {tables} ORDER BY s.namespace, s.name", bound
        values, more = self._values(self.source.id, "s.number" if self.source.sorted else "")
        inner = f"SELECT {self.source.id} AS id, s.namespace, s.name, {values} {tables}"
        bound = [*more, *bound]
        beyond, further = ("", []) if after is None else _after(self._columns(), after)
        # Absent values come first, and last when descending.
        ends = [f"{name} {'DESC NULLS LAST' if down else 'NULLS FIRST'}" for name, down in self._columns()[:-2]]
        if self.source.sorted:
            down = self.query.order[0][1]
            ends[0] = "c0 DESC" if down else "c0"
            if after is not None:
                # Says no more than `beyond`, but in words that an index understands.
                beyond, further = f"c0 {'<=' if down else '>='} ? AND {beyond}", [after[0], *further]
        columns = ", ".join(name for name, _ in self._columns()[:-2])
        return (
            f"SELECT id, namespace, name, {columns} FROM ({inner}) AS q{' WHERE ' if beyond else ''}{beyond}"  # noqa: S608
            f" ORDER BY {', '.join([*ends, 'namespace', 'name'])}",
            [*bound, *further],
        )

    def _values(self, row: str, first: str = "") -> Condition:
        """Return the columns c0, c1 ... by which the object with the id `row` is sorted.  `first`: where c0 stands."""
        parts = [conditions.value_of(self.kind, row, field) for field, _ in self.query.order]
        if first:
            parts[0] = first, []
        named = ", ".join(f"{of} AS c{number}" for number, (of, _) in enumerate(parts))
        return named, [value for _, bound in parts for value in bound]

    def _columns(self) -> list[tuple[str, bool]]:
        named = [(f"c{number}", down) for number, (_, down) in enumerate(self.query.order)]
        return [*named, ("namespace", False), ("name", False)]

    def values_at(self, db: Database, position: Position) -> Sequence[Any]:
        """Return the values by which the object at a position is sorted.  Raises Expired."""
        row = db.execute(
            "SELECT id FROM object WHERE kind = ? AND namespace = ? AND name = ?",
            (self.kind.name, position.namespace, position.name),
        ).fetchone()
        if row is None:
            raise tokens.expired(self.kind.name)
        return self.values_of(db, (row[0], position.namespace, position.name))

    def values_of(self, db: Database, row: Row) -> Sequence[Any]:
        """Return the values by which an object is sorted: those of the order, namespace and name."""
        plain = db.dialect.plain
        if not self.query.order:
            return row[1], row[2]
        if len(row) > 3:
            return [*map(plain, row[3:]), row[1], row[2]]
        values, bound = self._values("s.id")
        found = db.execute(f"SELECT {values} FROM object AS s WHERE s.id = ?", [*bound, row[0]]).fetchone()  # noqa: S608
        return [*map(plain, found), row[1], row[2]]

    def remaining(self, db: Database, after: Sequence[Any]) -> int | None:
        """Count what follows a position: all if asked, a few if nothing has to be looked up for it, else None."""
        query = self.query
        if not query.count and (query.labels or query.where is not None or query.namespaces is not None):
            return None
        statement, bound = self._select(self._allowed(db), after, alone=bool(query.namespace))
        if query.count:
            return int(db.execute(f"SELECT count(*) FROM ({statement}) AS r", bound).fetchone()[0])  # noqa: S608
        counted = db.execute(
            f"SELECT count(*) FROM ({statement} LIMIT ?) AS r",  # noqa: S608
            [*bound, COUNTED + 1],
        ).fetchone()[0]
        return int(counted) if counted <= COUNTED else None


def _after(columns: Sequence[tuple[str, bool]], values: Sequence[Any]) -> Condition:
    """Return the condition that an object comes after the one with `values`, absent ones first."""
    (name, descending), value = columns[0], values[0]
    parts: list[Condition] = []
    if value is None:
        equal: Condition = (f"{name} IS NULL", [])
        if not descending:
            parts.append((f"{name} IS NOT NULL", []))
    else:
        equal = (f"{name} = ?", [value])
        parts.append((f"({name} < ? OR {name} IS NULL)" if descending else f"{name} > ?", [value]))
    if len(columns) > 1:
        rest, bound = _after(columns[1:], values[1:])
        parts.append((f"({equal[0]} AND {rest})", [*equal[1], *bound]))
    return "(" + " OR ".join(part for part, _ in parts) + ")", [value for _, bound in parts for value in bound]
