"""The feature store: a project's definitions in `feature_repo/`, applied, materialized and joined through Feast.

The only way to Feast.  The inference server reads the online store's file itself: importing Feast takes seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import io
import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from operators.errors import UserError
from operators.hooks.quick_import import quick_import

# Feast's SQLite store turns its naive UTC instants into epoch seconds as if they were local time.
os.environ["TZ"] = "UTC"
time.tzset()

with quick_import():
    from feast import Entity, FeatureService, FeatureStore, FeatureView, FileSource, RepoConfig
    from feast.errors import FeatureServiceNotFoundException

if TYPE_CHECKING:
    import pandas as pd

DEFINED: tuple[type[Any], ...] = (Entity, FileSource, FeatureView, FeatureService)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DTYPES = {
    "String": "string",
    "Float64": "double",
    "Float32": "double",
    "Int64": "long",
    "Bool": "bool",
    "UnixTimestamp": "timestamp",
}


class FeatureRepository:
    """The features of one project.

    definitions: Python file with Feast entities, sources, views and services.
    home: folder of the registry, the online store and the sources of all projects.
    """

    def __init__(self, project: str, *, definitions: Path, home: Path) -> None:
        self.project = feast_name(project)
        self.sources = home / "sources" / self.project
        self._definitions = definitions
        self._home = home
        home.mkdir(parents=True, exist_ok=True)
        self._store = FeatureStore(config=config(self.project, home=home, sources=self.sources))

    def apply(self) -> None:
        """Make the registry say what the definitions say; what they no longer define is deleted."""
        defined = _defined(self._definitions)
        with _locked(self._home):
            self._store.apply(defined, objects_to_delete=self._gone(defined), partial=False)

    def _gone(self, defined: Sequence[Any]) -> list[Any]:
        names = {(type(item), item.name) for item in defined}
        registered: list[Any] = [*self._store.list_feature_services(), *self._store.list_feature_views()]
        return [item for item in registered if (type(item), item.name) not in names]

    def materialize(self, service: str, *, until: datetime) -> int:
        """Fill the online store with the last value of each entity at `until`; return the number of views."""
        views = [view.name for view in self._views(service)]
        with _locked(self._home):
            _wal(self._home)
            # Feast prints progress bars and colours, which a task's log cannot show.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                self._store.materialize(EPOCH, until, feature_views=views)
        return len(views)

    def join(self, service: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Return `frame` with the features as they were known at its `event_timestamp`; rows and order are kept."""
        missing = sorted({key["input"] for view in self.describe(service) for key in view["join_keys"]} - set(frame))
        if missing:
            raise UserError(f"feature service {service!r} is joined by {', '.join(missing)}: the examples have none")
        found = self._store.get_historical_features(entity_df=frame, features=self._service(service))
        return found.to_df()

    def describe(self, service: str) -> list[dict[str, Any]]:
        """Return the views of a service as `features.json` holds them."""
        return [_described(view) for view in self._views(service)]

    def _service(self, name: str) -> FeatureService:
        try:
            return self._store.get_feature_service(name)
        except FeatureServiceNotFoundException:
            known = ", ".join(sorted(item.name for item in self._store.list_feature_services())) or "none"
            raise UserError(
                f"there is no feature service {name!r} in {self._definitions.name}; it has {known}"
            ) from None

    def _views(self, service: str) -> list[FeatureView]:
        projections = self._service(service).feature_view_projections
        views = []
        for projection in projections:
            view = self._store.get_feature_view(projection.name)
            views.append(view.with_projection(projection))
        return views


def feast_name(project: str) -> str:
    """Return Feast's name of a project: it knows letters, digits and underscores."""
    return project.replace("-", "_")


def config(project: str, *, home: Path, sources: Path) -> RepoConfig:
    """Return the configuration: registry and online store in `home`, sources in `sources`."""
    return RepoConfig(
        project=project,
        provider="local",
        registry={"registry_type": "file", "path": str(home / "registry.db"), "cache_ttl_seconds": 0},
        online_store={"type": "sqlite", "path": str(home / "online.db")},
        offline_store={"type": "operators.hooks.feast_offline.SortedOfflineStore", "sources": str(sources)},
        entity_key_serialization_version=3,
    )


def _defined(path: Path) -> list[Any]:
    if not path.is_file():
        raise UserError(f"{path.name}: there are no feature definitions for this project in feature_repo/")
    spec = importlib.util.spec_from_file_location(f"feature_repo_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [item for item in vars(module).values() if isinstance(item, DEFINED)]


def _described(view: FeatureView) -> dict[str, Any]:
    renamed = view.projection.join_key_map
    return {
        "view": view.name,
        "join_keys": [
            {"name": key.name, "input": renamed.get(key.name, key.name), "dtype": _dtype(key)}
            for key in view.entity_columns
        ],
        "features": [
            {"name": field.name, "input": field.name, "dtype": _dtype(field)} for field in view.projection.features
        ],
        "ttl_s": int(view.ttl.total_seconds()) if view.ttl else 0,
    }


def _dtype(field: Any) -> str:
    name = str(field.dtype)
    if name not in DTYPES:
        raise UserError(f"feature {field.name!r} has type {name}: use one of {', '.join(DTYPES)}")
    return DTYPES[name]


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One writer at a time: Feast rewrites the whole registry file."""
    with (home / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wal(home: Path) -> None:
    """Let the inference server read while values are written."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(home / "online.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
