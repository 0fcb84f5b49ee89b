"""Program of MaterializeFeatures: writes a project's feature sources, applies its definitions, fills the online store.

Sources replace what an earlier run wrote, each file at once: a reader sees the old file or the new one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api.config import load
from operators.data.examples import write_sources
from operators.errors import UserError

DEFINITIONS = Path(__file__).resolve().parents[2] / "feature_repo"


def run(args: Mapping[str, Any]) -> dict[str, str]:
    """Args: run, module, feature_service, features_until (ISO instant, empty: now)."""
    until = instant(args.get("features_until"))
    from operators.hooks.feast import FeatureRepository

    repository = FeatureRepository(
        args["run"]["project"], definitions=definitions(args["run"]), home=load().features_path
    )
    count = _replace(args["module"], repository.sources)
    repository.apply()
    views = repository.materialize(args["feature_service"], until=until)
    print(f"{count} sources written; {views} views materialized until {until.isoformat()}")
    return {
        "features_uri": repository.sources.as_uri(),
        "feature_service": args["feature_service"],
        "materialized_until": until.isoformat(),
        "views": str(views),
    }


def definitions(run: Mapping[str, str]) -> Path:
    """Return the file with a project's feature definitions: its own `features.py`, or that of `feature_repo/`."""
    own = Path(run["root_dir"]) / "features.py" if run.get("root_dir") else None
    if own is not None and own.is_file():
        return own
    return DEFINITIONS / f"{run['project'].replace('-', '_')}.py"


def instant(text: str | None) -> datetime:
    """Return an instant of an ISO text; now if it is empty.  Raises UserError."""
    if not text:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"features_until must be an ISO 8601 instant such as 2013-12-30T21:00:00Z, not {text!r}"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _replace(module: str, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
        write_sources(module, Path(temporary))
        written = sorted(Path(temporary).iterdir())
        for path in written:
            os.replace(path, folder / path.name)
    return len(written)
