"""One server a test module, with a user of each role in one project and one of another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.secured import Secured, known

ROLES = ("viewer", "editor", "operator", "approver", "admin")
PEOPLE = [*ROLES, "stranger", "alice", "bob"]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A server with access on; nobody but its owner has a right yet."""
    people = [known(name) for name in PEOPLE]
    made = Secured(
        tmp_path_factory.mktemp("secured"),
        [*people, known("late", expires=1), known("robot", kind="service"), known("member", groups=["ml"])],
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def project(secured: Secured) -> str:
    """A project in which every role has its user."""
    made = secured.owner.project()
    for role in ROLES:
        secured.owner.bind(made, role.upper(), f"user:{role}")
    return made
