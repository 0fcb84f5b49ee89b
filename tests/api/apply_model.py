"""Server-side apply as a table of fields: what it means, without trees, messages or merging.

A document is a dict from paths to values; a path is a tuple of parts that read as one text when joined.  The item of a
list by names stands under its own path, with the value ITEM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str, ...]
Document = Mapping[Path, Any]
ITEM = "there is such an item"
APPLY, UPDATE = "Apply", "Update"


def below(path: Path, above: Path) -> bool:
    """Whether a path stands somewhere below another one."""
    return len(path) > len(above) and path[: len(above)] == above


def clash(one: Path, value: Any, other: Path, other_value: Any) -> bool:
    """Whether two fields cannot both be there: one is a value where the other has a part."""
    return (below(one, other) and other_value != ITEM) or (below(other, one) and value != ITEM)


@dataclass
class Model:
    """One object.  `owned`: by (manager, operation) the paths it holds."""

    live: dict[Path, Any] = field(default_factory=dict)
    owned: dict[tuple[str, str], set[Path]] = field(default_factory=dict)

    def conflicts(self, manager: str, wanted: Document) -> set[tuple[Path, str]]:
        """Return the fields of others that would change, each with who holds it."""
        return {
            (path, other)
            for (other, _), paths in self.owned.items()
            if other != manager
            for path in paths
            if path in self.live and self._changes(path, wanted)
        }

    def _changes(self, path: Path, wanted: Document) -> bool:
        value = self.live[path]
        if path in wanted and wanted[path] != value:
            return True
        return any(clash(path, value, other, wanted[other]) for other in wanted)

    def apply(self, manager: str, wanted: Document, *, force: bool) -> set[tuple[Path, str]]:
        """Declare a document; returns the conflicts, and then nothing has happened."""
        found = self.conflicts(manager, wanted)
        if found and not force:
            return found
        for path, other in found:
            for operation in (APPLY, UPDATE):
                self.owned.get((other, operation), set()).discard(path)
        self.live = {
            path: value
            for path, value in self.live.items()
            if not any(clash(path, value, other, wanted[other]) for other in wanted)
        }
        self.live.update(wanted)
        before = self.owned.get((manager, APPLY), set())
        self.owned[manager, APPLY] = set(wanted)
        own = self.owned.get((manager, UPDATE), set())
        own -= {path for path in own if path in wanted or path not in self.live}
        for path in sorted(before - set(wanted), key=len):
            self._abandon(path)
        self._tidy()
        return set()

    def _abandon(self, path: Path) -> None:
        """Take a field away that nobody holds, and with an item all of it."""
        if path not in self.live or any(
            held == path or below(held, path) for paths in self.owned.values() for held in paths
        ):
            return
        if path[-1] == ".name" and self.live.get(path[:-1]) == ITEM:
            return
        self.live = {other: value for other, value in self.live.items() if other != path and not below(other, path)}

    def update(self, manager: str, after: Document) -> None:
        """Replace the document without declaring anything: what changed is the writer's from now on."""
        changed = {path for path, value in after.items() if path not in self.live or self.live[path] != value}
        if any(self.owned.values()):
            for paths in self.owned.values():
                paths -= {path for path in paths if path in self.live and after.get(path) != self.live[path]}
            self.owned.setdefault((manager, UPDATE), set()).update(changed)
        self.live = dict(after)
        self._tidy()

    def _tidy(self) -> None:
        self.owned = {owner: paths for owner, paths in self.owned.items() if paths}


def joined(path: Path) -> str:
    """Return a path as refusals write it."""
    return "".join(path)


def fields(config: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Yield the fields of a pipeline's configuration as the tests write it."""
    for key, value in config.get("labels", {}).items():
        yield ("metadata.labels", f"[{key}]"), value
    for name in ("description", "notifications"):
        if config.get(name):
            yield (f"spec.{name}",), config[name]
    for name, value in config.get("owner", {}).items():
        yield ("spec.owner", f".{name}"), value
    for name, task in config.get("tasks", {}).items():
        item = ("spec.manifest", ".task_specs", f"[{name}]")
        yield item, ITEM
        yield (*item, ".name"), name
        for part, value in task.items():
            yield (*item, f".{part}"), value
    for name, given in config.get("params", {}).items():
        here = ("spec.manifest", ".params_map", f"[{name}]")
        for key, value in given.get("environ", {}).items():
            yield (*here, ".environ", f"[{key}]"), value
        yield from _json((*here, ".workflow_config"), given.get("config", {}))


def _json(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _json((*path, f".{key}"), inner)
        else:
            yield (*path, f".{key}"), inner
