"""The point-in-time join on plain arrays: for each event, the last row that was known then.  Knows no feature store.

Cost O(E log S) for E events and S source rows, after one sort of the source.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

NONE = -1


def latest(codes: Int64, instants: Int64, created: Int64 | None = None) -> Int64:
    """Return the row of each entity's last instant, in order of `codes`; ties go to the last created, then the last."""
    order = _order(codes, instants, created)
    ordered = codes[order]
    return order[np.append(ordered[1:] != ordered[:-1], True)] if len(order) else order


def rows(
    *,
    codes: Int64,
    instants: Int64,
    event_codes: Int64,
    event_instants: Int64,
    ttl_us: int = 0,
    created: Int64 | None = None,
) -> Int64:
    """Return for each event the source row to take, `NONE` if nothing was known.

    codes, event_codes: number of the entity, from 0; events of an entity without rows have any other number.
    instants, event_instants: int64 microseconds.  A row counts from its instant on, that instant included.
    ttl_us: a row counts for so long, that age included; 0 for ever.
    created: breaks ties of (entity, instant); without it the last row of the source wins.
    """
    if not len(codes):
        return np.full(len(event_codes), NONE, np.int64)
    order = _order(codes, instants, created)
    known = np.unique(instants)
    span = len(known) + 1
    keys = codes[order] * span + known.searchsorted(instants[order])
    wanted = event_codes * span + known.searchsorted(event_instants, side="right") - 1
    place = keys.searchsorted(wanted, side="right") - 1
    found = order[np.maximum(place, 0)]
    fits = (place >= 0) & (codes[found] == event_codes) & (instants[found] <= event_instants)
    if ttl_us:
        fits &= event_instants - instants[found] <= ttl_us
    return np.where(fits, found, NONE)


def _order(codes: Int64, instants: Int64, created: Int64 | None) -> Int64:
    keys = (instants, codes) if created is None else (created, instants, codes)
    return np.lexsort(keys).astype(np.int64, copy=False)
