"""The point-in-time join against a join that looks at every row."""

import numpy as np
import pytest

from operators.features import asof


def brute(
    codes: asof.Int64,
    instants: asof.Int64,
    event_codes: asof.Int64,
    event_instants: asof.Int64,
    ttl_us: int,
    created: asof.Int64 | None,
) -> list[int]:
    found = []
    for code, moment in zip(event_codes, event_instants, strict=True):
        best = asof.NONE
        for row in range(len(codes)):
            known = codes[row] == code and instants[row] <= moment
            if not known or (ttl_us and moment - instants[row] > ttl_us):
                continue
            rank = (instants[row], created[row] if created is not None else 0, row)
            if best == asof.NONE or rank >= (instants[best], created[best] if created is not None else 0, best):
                best = row
        found.append(best)
    return found


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ttl_us", [0, 3, 10])
@pytest.mark.parametrize("with_created", [False, True])
def test_it_takes_the_row_that_looking_at_every_row_takes(seed: int, ttl_us: int, with_created: bool) -> None:
    random = np.random.default_rng(seed)
    codes, instants = random.integers(0, 4, 40), random.integers(0, 30, 40)
    created = random.integers(0, 3, 40) if with_created else None
    event_codes, event_instants = random.integers(-1, 6, 60), random.integers(-5, 40, 60)
    found = asof.rows(
        codes=codes,
        instants=instants,
        event_codes=event_codes,
        event_instants=event_instants,
        ttl_us=ttl_us,
        created=created,
    )
    assert found.tolist() == brute(codes, instants, event_codes, event_instants, ttl_us, created)


def test_without_source_rows_nothing_is_known() -> None:
    nothing = np.array([], np.int64)
    events = np.array([0, 1])
    assert asof.rows(
        codes=nothing, instants=nothing, event_codes=events, event_instants=events
    ).tolist() == [-1, -1]  # fmt: skip


def test_the_latest_row_of_each_entity_breaks_ties_by_creation() -> None:
    codes, instants = np.array([1, 0, 1, 0]), np.array([5, 2, 5, 1])
    assert asof.latest(codes, instants).tolist() == [1, 2]
    assert asof.latest(codes, instants, np.array([9, 0, 3, 0])).tolist() == [1, 0]
