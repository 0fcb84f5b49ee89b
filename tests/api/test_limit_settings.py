"""The settings `MA_LIMIT_*`: what is a limit, and what is said of what is none."""

from __future__ import annotations

from dataclasses import fields

import pytest

from api.config import ConfigurationError, load
from api.limits import BOUNDS, LimitsConfig


def test_limits_survive_the_way_to_a_child_process() -> None:
    changed = LimitsConfig(**{name: type(getattr(LimitsConfig(), name))(most) for name, (_, most) in BOUNDS.items()})
    assert {field.name for field in fields(LimitsConfig)} == set(BOUNDS)
    assert load(changed.environ()).limits == changed
    assert load({}).limits == LimitsConfig()
    assert load({"MA_LIMIT_CALLS": "4"}).limits.calls_per_caller == 4


@pytest.mark.parametrize(
    "text", ["x", "-1", "1e3", "nan", "inf", "0x10", "１０", "1_000", " 5", "9" * 400, "1.5.2", "."]
)
def test_what_is_no_limit_is_named(text: str) -> None:
    environ = {f"MA_LIMIT_{name.upper()}": text for name in BOUNDS}
    with pytest.raises(ConfigurationError) as error:
        load(environ)
    assert [fault.split()[0] for fault in error.value.faults] == list(environ)
    assert all(" from " in fault and len(fault) < 200 for fault in error.value.faults)


def test_a_share_that_is_more_than_the_whole_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="MA_LIMIT_WATCHES_PER_CALLER 50 is more than MA_LIMIT_WATCHES 9"):
        load({"MA_LIMIT_WATCHES": "9", "MA_LIMIT_WATCHES_PER_CALLER": "50"})
