"""The two sizes of a test: P in `make test`, C in `make robustness`."""

from __future__ import annotations

import pytest


def lanes(*, p: int, c: int, also: tuple[object, ...] = ()) -> list[object]:
    """Return parameters: a size for each lane, with `also` behind it."""
    return [
        pytest.param(*(p, *also), id="P"),
        pytest.param(*(c, *also), id="C", marks=pytest.mark.robustness),
    ]
