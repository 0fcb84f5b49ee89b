"""Instants as microseconds since 1970 UTC, from and to ISO 8601.  Never guesses a time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FIRST_US = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
LAST_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND


def parse(text: str) -> int:
    """Return the microseconds of an ISO 8601 text with a zone.  Raises ValueError that says what is wrong."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no ISO 8601 instant such as 2013-12-31T15:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text[:40]!r} has no time zone: end it in Z or +01:00")
    return (moment - EPOCH) // MICROSECOND


def checked(instant_us: int) -> int:
    """Return `instant_us`.  Raises ValueError if it is in no year from 1 to 9999."""
    if not FIRST_US <= instant_us <= LAST_US:
        raise ValueError(f"{instant_us} microseconds since 1970 are in no year from 1 to 9999")
    return instant_us


def text(instant_us: int) -> str:
    """Return ISO 8601 in UTC."""
    return (EPOCH + instant_us * MICROSECOND).isoformat().replace("+00:00", "Z")
