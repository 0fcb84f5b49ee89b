"""Entries as CachedOutput resources of a project, through the API."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format

from api.client import Client
from api.errors import AlreadyExists, InvalidArgument, NotFound
from api.gen.michelangelo.api.v2 import cached_output_pb2 as wire
from api.kinds import kinds
from operators.cache.entries import MOST_COMPARED, Entry
from operators.cache.parts import Parts
from operators.values.references import Reference

LINE = "michelangelo.airflow/cached-step"
DAY_S = 86_400
NEWEST_FIRST = (("metadata.creation_timestamp", True),)


class CachedOutputs:
    """A project's.  A resource that is no entry of ours is none.  Raises what the API refuses."""

    def __init__(self, api: Client, project: str, values_url: str = "") -> None:
        self._api = api
        self._project = project
        self._values_url = values_url

    def find(self, line: str, key: str) -> Entry | None:
        """Return the entry of a step's key."""
        found = self._api.find("CachedOutput", self._project, _name(line, key))
        return None if found is None else entry_of(found)

    def of_line(self, line: str) -> Sequence[Entry]:
        """Return the newest entries of a step, the newest first."""
        found = self._api.list(
            "CachedOutput", self._project, selector=f"{LINE}={line}", limit=MOST_COMPARED, order=NEWEST_FIRST
        )
        entries = [entry for each in found[:MOST_COMPARED] if (entry := entry_of(each)) is not None]
        return sorted(entries, key=lambda entry: entry.made, reverse=True)

    def add(self, entry: Entry) -> None:
        """Keep an entry, in place of one with the same line and key."""
        new = self._resource(entry)
        try:
            self._create(new)
        except AlreadyExists:
            with contextlib.suppress(NotFound):
                self._api.delete("CachedOutput", self._project, new.metadata.name)
            # Another run may keep the same at the same time.
            with contextlib.suppress(AlreadyExists):
                self._create(new)

    def _create(self, new: Any) -> None:
        try:
            self._api.create(new)
        except InvalidArgument as error:
            if error.reason != "UNKNOWN_REFERENCE":
                raise
            # A run of Airflow's that is not known here, or no longer.
            new.spec.ClearField("source_pipeline_run")
            self._api.create(new)

    def _resource(self, entry: Entry) -> Any:
        new: Any = kinds()["CachedOutput"].new(self._project, _name(entry.line, entry.key))
        new.metadata.labels[LINE] = entry.line
        spec = new.spec
        spec.type = wire.CACHED_OUTPUT_TYPE_VARIABLE
        if self._values_url.startswith("s3://"):
            spec.storage_type = wire.STORAGE_TYPE_S3
        digest = entry.output.digest.removeprefix("sha256:")
        spec.storage_uri = f"{self._values_url}/sha256/{digest[:2]}/{digest[2:]}" if self._values_url else ""
        if entry.expires is not None:
            spec.ttl_in_days = max(1, math.ceil((entry.expires - entry.made).total_seconds() / DAY_S))
        if entry.run:
            spec.source_pipeline_run.name = entry.run
        spec.source_pipeline_run_step = entry.step
        spec.variable_spec.id = entry.key
        spec.variable_spec.type = wire.VARIABLE_TYPE_CUSTOM
        kept = {
            "output": entry.output.to_json(),
            "manifest": entry.manifest.to_json(),
            "parts": entry.parts.to_json(),
            "made": entry.made.isoformat(),
            "expires": "" if entry.expires is None else entry.expires.isoformat(),
        }
        spec.variable_spec.metadata.update(kept)
        return new


def entry_of(resource: Any) -> Entry | None:
    """Return the entry that a CachedOutput holds, None if it holds another thing."""
    spec = resource.spec
    kept = json_format.MessageToDict(spec.variable_spec.metadata)
    try:
        return Entry(
            key=spec.variable_spec.id,
            line=resource.metadata.labels[LINE],
            parts=Parts.from_json(kept["parts"]),
            manifest=Reference.from_json(kept["manifest"]),
            output=Reference.from_json(kept["output"]),
            made=_time(kept["made"]),
            expires=_time(kept["expires"]) if kept["expires"] else None,
            run=spec.source_pipeline_run.name,
            step=spec.source_pipeline_run_step,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _name(line: str, key: str) -> str:
    return f"cache-{line[:12]}-{key[:40]}"
