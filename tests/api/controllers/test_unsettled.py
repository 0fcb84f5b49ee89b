"""What controllers find their work by is in the index of their kinds, and of those alone."""

from typing import Any

import pytest

from api.kinds import kinds
from api.server_fields import begin
from api.store.base import Criterion, Group
from api.store.values import LOOKED_AT, PENDING, indexed
from tests.api.controllers.conftest import World


def fields(term: Criterion | Group | None) -> set[str]:
    if isinstance(term, Group):
        return set[str]().union(*map(fields, term.terms))
    return set() if term is None else {term.field}


async def test_the_kinds_that_are_asked_for_what_nobody_looked_at_are_those(world: World) -> None:
    await world.ready()
    asked = {each.kind for each in world.controllers if PENDING in fields(each.unsettled)}
    assert asked == LOOKED_AT


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_what_nobody_looked_at_is_indexed_where_somebody_asks_for_it(kind: str) -> None:
    new: Any = kinds()[kind].new("shop", "one")
    begin(new)
    assert (PENDING in indexed(new)) == (kind in LOOKED_AT)
    new.metadata.labels["michelangelo/UpdateTimestamp"] = "1"
    assert PENDING not in indexed(new)
