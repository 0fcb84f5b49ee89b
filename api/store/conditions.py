"""From a query to SQL conditions, and to the one by whose index a list is read.  Values are bound, never pasted.

The row of a list is `s`: an object, a label or a field value, each with kind, namespace and name.  A condition that is
not the source of the list looks up one object by its key, so that it costs the same in every store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from api.kinds import Kind, kinds
from api.store.base import Criterion, Group, LabelRequirement, Operator, Query, Scalar
from api.store.database import NEVER, Condition, Database
from api.store.schema import TEXT_LENGTH
from api.store.values import TEXTS, TIMES, is_text

COMPARISONS = {
    Operator.EQUAL: "=",
    Operator.GREATER_THAN: ">",
    Operator.GREATER_THAN_OR_EQUAL_TO: ">=",
    Operator.LESS_THAN: "<",
    Operator.LESS_THAN_OR_EQUAL_TO: "<=",
}
NEGATED = {Operator.NOT_EQUAL: Operator.EQUAL, Operator.NOT_IN: Operator.IN, Operator.IS_NULL: Operator.IS_NOT_NULL}
COLUMNS = {"metadata.namespace": "namespace", "metadata.name": "name"}
ALWAYS: Condition = ("1 = 1", [])
# So many objects are few: they may be read and sorted at every page.
FEW = 1000
MOST_PROBED = 8
LAST_CHARACTER = 0x10FFFF


@dataclass(frozen=True)
class Source:
    """Where the rows of a list come from.

    ordered: they stand by namespace and name; sorted: by their number, that of the first field of the query's order;
    tables: what stands behind FROM.
    """

    table: str
    where: tuple[Condition, ...]
    ordered: bool
    tables: Condition = ("", [])
    sorted: bool = False

    @property
    def id(self) -> str:
        """The column with the object's id."""
        return "s.id" if self.table == "object" else "s.object"

    @property
    def rows(self) -> Condition:
        """What stands behind FROM."""
        return self.tables if self.tables[0] else (f"{self.table} AS s", [])


def source(db: Database, kind: str, query: Query) -> Source:
    """Choose the condition to read a list by: the one that fewest objects meet, or else one that keeps the order."""
    terms = list(_terms(query))
    candidates = [(term, found) for term in terms if (found := _source(db, kind, term)) is not None]
    chosen, few = _choose(db, query, [found for _, found in candidates])
    if query.order and not few and (walked := _by_time(db, kind, query)) is not None:
        chosen = walked
    begun = next((term for term, found in candidates if found is chosen), None)
    first = chosen if chosen is not None else Source("object", (("s.kind = ?", [kind]),), True)
    rest = (_condition(db, first.id, term) for term in terms if term is not begun)
    return replace(first, where=(*first.where, *rest))


def _terms(query: Query) -> Iterator[LabelRequirement | Criterion | Group]:
    """Yield what must all hold."""
    yield from query.labels
    waiting: list[Criterion | Group] = [] if query.where is None else [query.where]
    while waiting:
        term = waiting.pop(0)
        if isinstance(term, Group) and (not term.any or len(term.terms) == 1):
            waiting = [*term.terms, *waiting]
        else:
            yield term


def _choose(db: Database, query: Query, candidates: Sequence[Source]) -> tuple[Source | None, bool]:
    """Return the best source, and whether it is known to have few objects."""
    if len(candidates) == 1 and candidates[0].ordered and not query.order:
        return candidates[0], False
    here: list[Condition] = [("s.namespace = ?", [query.namespace])] if query.namespace else []
    counted = [(_count(db, one, here), not one.ordered, n) for n, one in enumerate(candidates[:MOST_PROBED])]
    if not counted:
        return None, False
    count, unordered, number = min(counted)
    few = count <= FEW
    # Many that would have to be sorted: better look at the objects in their order, but for a list with another one.
    return None if unordered and not few and not query.order else candidates[number], few


def _by_time(db: Database, kind: str, query: Query) -> Source | None:
    """Return the objects by a time that all of them have, None if the list is not ordered so, or of few namespaces."""
    field = query.order[0][0]
    if field not in TIMES:
        return None
    if not query.namespace and query.namespaces is not None:
        here = [db.dialect.among("s.namespace", "text", sorted(query.namespaces))]
        if _count(db, Source("object", (("s.kind = ?", [kind]),), True), here) <= FEW:
            return None
    # The words of the index by namespace and time, or those of the index by time.
    named: Condition = (f"s.key || '' = '{field}'", []) if query.namespace else ("s.key = ?", [field])
    return Source("field", (("s.kind = ?", [kind]), named, ("s.number IS NOT NULL", [])), False, sorted=True)


def _count(db: Database, one: Source, here: Sequence[Condition]) -> int:
    """Return how many rows a source has in some namespaces, at most FEW + 1."""
    tables, joined = one.rows
    test, bound = all_of([*one.where, *here])
    statement = f"SELECT 1 FROM {tables} WHERE {test} LIMIT ?"  # noqa: S608
    bound = [*joined, *bound, FEW + 1]
    return int(db.execute(f"SELECT count(*) FROM ({statement}) AS p", bound).fetchone()[0])  # noqa: S608


def _source(db: Database, kind: str, term: LabelRequirement | Criterion | Group) -> Source | None:
    """Return a condition as a source, None if no index leads to its objects."""
    if isinstance(term, LabelRequirement):
        if term.operator not in ("in", "exists"):
            return None
        where: list[Condition] = [("s.kind = ?", [kind]), ("s.key = ?", [term.key])]
        if term.operator == "in":
            return _with_values(db, "label", kind, term.key, "value", term.values)
        return Source("label", tuple(where), False)
    if isinstance(term, Group) or term.operator in NEGATED:
        return None
    equal = term.operator in (Operator.EQUAL, Operator.IN) and len(term.values) == 1
    if term.field in TEXTS:
        if term.field == "metadata.namespace" or not equal:
            return None
        return Source("object", (("s.kind = ?", [kind]), _column(db, "s.name", term)), True)
    if term.operator is Operator.IS_NOT_NULL:
        column = "text" if is_text(kinds()[kind], term.field) else "number"
        present = f"s.{column} IS NOT NULL"
        return Source("field", (("s.kind = ?", [kind]), ("s.key = ?", [term.field]), (present, [])), False)
    where = [("s.kind = ?", [kind]), ("s.key = ?", [term.field])]
    if term.operator is Operator.IN:
        text = isinstance(next(iter(term.values), ""), str)
        if any(isinstance(value, str) is not text or len(str(value)) >= TEXT_LENGTH for value in term.values):
            return None
        return _with_values(db, "field", kind, term.field, "text" if text else "number", term.values)
    test = _prefix(term) if term.operator is Operator.LIKE else _test(db, "s", term)
    if test is None:
        return None
    where.append(test)
    if term.operator is Operator.LIKE:
        where.append(_test(db, "s", term))
    short = equal and not (isinstance(term.values[0], str) and len(term.values[0]) >= TEXT_LENGTH)
    return Source("field", tuple(where), short)


def _with_values(db: Database, table: str, kind: str, key: str, column: str, values: Sequence[Scalar]) -> Source:
    """Return the rows of a key that have one of some values."""
    plain = list(dict.fromkeys(value if isinstance(value, str) else _number(value) for value in values))
    if len(plain) > 1 and db.dialect.one_by_one is not None:
        return Source(table, (), False, db.dialect.one_by_one(table, kind, key, column, plain))
    among = db.dialect.among(f"s.{column}", "number" if column == "number" else "text", plain)
    return Source(table, (("s.kind = ?", [kind]), ("s.key = ?", [key]), among), len(plain) == 1)


def all_of(parts: Sequence[Condition]) -> Condition:
    """Return what holds when all parts do."""
    if not parts:
        return ALWAYS
    return " AND ".join(part for part, _ in parts), [value for _, bound in parts for value in bound]


def _prefix(term: Criterion) -> Condition | None:
    """Return the range of texts that begin as a pattern does, None if it begins with a wildcard."""
    pattern = str(term.values[0])
    beginning = pattern[: min([n for n, char in enumerate(pattern) if char in "%_"] or [len(pattern)])]
    beginning = beginning[: TEXT_LENGTH - 1]
    if not beginning or ord(beginning[-1]) == LAST_CHARACTER:
        return None
    following = ord(beginning[-1]) + 1
    # Surrogates are no characters.
    end = beginning[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)
    return "s.text >= ? AND s.text < ?", [beginning, end]


def _condition(db: Database, row: str, term: LabelRequirement | Criterion | Group) -> Condition:
    """Return what the object with the id `row` must meet."""
    if isinstance(term, LabelRequirement):
        return _label(db, row, term)
    if isinstance(term, Criterion):
        return _criterion(db, row, term)
    if not term.terms:
        return ALWAYS
    parts = [_condition(db, row, inner) for inner in term.terms]
    glue = " OR " if term.any else " AND "
    return "(" + glue.join(part for part, _ in parts) + ")", [value for _, bound in parts for value in bound]


def _label(db: Database, row: str, term: LabelRequirement) -> Condition:
    inside, bound = f"EXISTS (SELECT 1 FROM label AS l WHERE l.object = {row} AND l.key = ?", [term.key]  # noqa: S608
    negated = "NOT " if term.operator in ("absent", "notin") else ""
    if term.operator in ("exists", "absent"):
        return f"{negated}{inside})", [*bound]
    among, values = db.dialect.among("l.value", "text", term.values)
    return f"{negated}{inside} AND {among})", [*bound, *values]


def _criterion(db: Database, row: str, term: Criterion) -> Condition:
    opposite = NEGATED.get(term.operator)
    negated = opposite is not None
    plain = term if opposite is None else Criterion(term.field, opposite, term.values)
    if term.field in TEXTS:
        part, bound = _column(db, f"s.{COLUMNS[term.field]}", plain)
    else:
        test, values = ("", []) if plain.operator is Operator.IS_NOT_NULL else _test(db, "f", plain)
        part = f"EXISTS (SELECT 1 FROM field AS f WHERE f.object = {row} AND f.key = ?"  # noqa: S608
        part, bound = part + (f" AND {test})" if test else ")"), [term.field, *values]
    return f"{'NOT ' if negated else ''}({part})", bound


def _column(db: Database, column: str, term: Criterion) -> Condition:
    """Return a comparison of a column that holds a text in every row."""
    if term.operator is Operator.IS_NOT_NULL:
        return ALWAYS
    texts = [value for value in term.values if isinstance(value, str)]
    if term.operator is Operator.IN:
        return db.dialect.among(column, "text", texts)
    if not texts:
        return NEVER
    if term.operator is Operator.LIKE:
        return f"{column} {db.dialect.like}", [texts[0]]
    return f"{column} {COMPARISONS[term.operator]} ?", [texts[0]]


def _test(db: Database, row: str, term: Criterion) -> Condition:
    """Return a comparison of the value in a row of `field`.  A text is never equal to, or beyond, a number."""
    if term.operator is Operator.IN:
        return _among(db, row, term.values)
    value, sign = term.values[0], COMPARISONS.get(term.operator, "")
    if term.operator is Operator.LIKE:
        return f"coalesce({row}.whole, {row}.text) {db.dialect.like}", [value]
    if not isinstance(value, str):
        return f"{row}.number {sign} ?", [_number(value)]
    beginning = value[:TEXT_LENGTH]
    if len(value) < TEXT_LENGTH:
        return f"{row}.text {sign} ?", [value]
    # In the index stand beginnings: only among those that begin as `value` does, the whole texts tell.
    if term.operator is Operator.EQUAL:
        return f"({row}.text = ? AND {row}.whole = ?)", [beginning, value]
    return f"({row}.text {sign[0]} ? OR ({row}.text = ? AND {row}.whole {sign} ?))", [beginning, beginning, value]


def _among(db: Database, row: str, values: Sequence[Scalar]) -> Condition:
    texts = [value for value in values if isinstance(value, str)]
    long = [value for value in texts if len(value) >= TEXT_LENGTH]
    numbers = [_number(value) for value in values if not isinstance(value, str)]
    parts = [_test(db, row, Criterion("", Operator.EQUAL, (value,))) for value in long]
    if short := [value for value in texts if len(value) < TEXT_LENGTH]:
        parts.append(db.dialect.among(f"{row}.text", "text", short))
    if numbers:
        parts.append(db.dialect.among(f"{row}.number", "number", numbers))
    if not parts:
        return NEVER
    if len(parts) == 1:
        return parts[0]
    return "(" + " OR ".join(part for part, _ in parts) + ")", [value for _, bound in parts for value in bound]


def _number(value: Scalar) -> int | float:
    return int(value) if isinstance(value, bool) else value  # type: ignore[return-value]


def value_of(kind: Kind, row: str, field: str) -> Condition:
    """Return the expression for a field's value of the object with the id `row`, NULL where it has none."""
    if field in TEXTS:
        return f"s.{COLUMNS[field]}", []
    column = "coalesce(f.whole, f.text)" if is_text(kind, field) else "f.number"
    return f"(SELECT {column} FROM field AS f WHERE f.object = {row} AND f.key = ?)", [field]  # noqa: S608
