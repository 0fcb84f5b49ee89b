"""Groups of tests that one worker runs in turn: a file, or all that share the running platform.  The longest first.

`make test` runs two workers (pytest-xdist).  Sockets, folders and servers are each test's own, so that files may run
beside each other.  Servers that are not are started once per session, when the first test asks for one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.etcd_servers import etcd, etcd_url
from tests.servers import postgres, postgres_url

__all__ = ["etcd", "etcd_url", "postgres", "postgres_url"]

HERE = Path(__file__).resolve().parent
PLATFORM = "e2e"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put each test into its group, and the platform's group first.  Before xdist looks for groups."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: _group(item) != PLATFORM)


def _group(item: pytest.Item) -> str:
    inside = item.path.relative_to(HERE)
    return PLATFORM if inside.parts[0] == PLATFORM else inside.as_posix()
