"""A store with many objects, written before a server opens it: each label value finds the same few of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import uvloop

from api.auth import static
from api.auth.static import Known, TokensFile
from api.gen.michelangelo.platform.v1 import role_binding_pb2
from api.kinds import kinds
from api.resources import Resources
from api.store.sqlite import SqliteStore

HITS = 50
BUCKETS_ASKED = 100
IN_FLIGHT = 256


def fill(home: Path, project: str, count: int) -> None:
    """Write a project and `count` model families; `bucket=b0`, `b1` ... find `HITS` of them each."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    uvloop.run(_fill(home / "store.db", project, count))


async def _fill(path: Path, project: str, count: int) -> None:
    store = SqliteStore(path)
    resources = Resources(store)
    await resources.create(kinds()["Project"].new(project, project))
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            family = kinds()["ModelFamily"].new(project, f"family-{number:07}")
            family.metadata.labels["bucket"] = f"b{number % max(1, count // HITS)}"
            family.spec.description = "x" * 200
            await resources.create(family)

    await asyncio.gather(*itertools.starmap(some, itertools.repeat((), IN_FLIGHT)))
    await store.close()


def let_watch(home: Path, project: str, tokens: Sequence[str]) -> None:
    """Let a user of each token view a project; the tokens file is `tokens.json` of the home."""
    users = {f"watcher-{number}": token for number, token in enumerate(tokens)}
    static.write(
        home / "tokens.json", TokensFile(tuple(Known(name, static.digest(token)) for name, token in users.items()))
    )
    uvloop.run(_bind(home / "store.db", project, list(users)))


async def _bind(path: Path, project: str, users: Sequence[str]) -> None:
    store = SqliteStore(path)
    binding = kinds()["RoleBinding"].new(project, "watchers")
    binding.spec.role = role_binding_pb2.ROLE_VIEWER
    for user in users:
        binding.spec.subjects.add(kind=role_binding_pb2.SUBJECT_KIND_USER, name=user)
    await Resources(store).create(binding)
    await store.close()
