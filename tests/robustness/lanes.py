"""The two sizes of a test: P in `make test`, C in `make robustness`."""

from __future__ import annotations

import pytest


def lanes(*, p: int | tuple[int, ...], c: int | tuple[int, ...], also: tuple[object, ...] = ()) -> list[object]:
    """Return parameters: a size for each lane, or several, with `also` behind them."""
    short, long = ((size,) if isinstance(size, int) else size for size in (p, c))
    return [
        pytest.param(*(*short, *also), id="P"),
        pytest.param(*(*long, *also), id="C", marks=pytest.mark.robustness),
    ]
