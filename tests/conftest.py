"""Groups of tests that one worker runs in turn: a file, or all that share the running platform.  The longest first.

`make test` runs three workers (pytest-xdist), on two cores: most of what is long here waits for servers.  Sockets,
folders and servers are each test's own, so that files may run beside each other.  Servers that are not are started once
per session, when the first test asks for one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.etcd_servers import etcd, etcd_url
from tests.servers import postgres, postgres_url

__all__ = ["etcd", "etcd_url", "postgres", "postgres_url"]

PLATFORM = "tests/e2e"
# What starts a platform of its own, and takes long.
ALONE = "tests/e2e/test_demo.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the platform's tests first: they take longest."""
    first = {PLATFORM: 0, ALONE: 1}
    items.sort(key=lambda item: first.get(_group(item.nodeid), 2))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a worker one group after another."""
    from xdist.scheduler import LoadScopeScheduling

    scheduler: Any = LoadScopeScheduling(config, log)
    scheduler._split_scope = _group
    return scheduler


def _group(nodeid: str) -> str:
    path = Path(nodeid.split("::", 1)[0])
    shared = path.is_relative_to(PLATFORM) and path != Path(ALONE)
    return PLATFORM if shared else path.as_posix()
