"""A trigger that Airflow's own scheduling code carries out below a false time of day, and the runs that it started."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from api.client import Client
from api.instants import Schedule
from tests.api.running import Served
from tests.api.workloads import pipeline, trigger
from tests.dags.conftest import ROOT, airflow_environ
from tests.dags.manifests import trigger as manifest_of

BERLIN = "Europe/Berlin"
# A year takes half an hour alone, and three times that on a busy machine.
END_S = 7200.0


def lived(
    served: Served,
    home: Path,
    books: Mapping[str, str],
    program: str,
    start: datetime,
    end: datetime,
    *,
    cron: str,
    missed: str,
    clock: Path | None = None,
    **asked: Any,
) -> tuple[list[datetime], str]:
    """Return the instants of the runs that a trigger started in a time, and what the program printed at its end.

    books: variables that say where Airflow's migrated database is; program: a module beside this one; clock: the file
    of the time of day, by default in `home`; asked: what else the program is told.
    """
    project = served.project()
    served.create(pipeline(project))
    made = served.create(trigger(project, f"CRON_TZ={BERLIN} {cron}"))
    clock = clock or home / "clock"
    clock.write_text(f"{start:%Y-%m-%d %H:%M:%S}\n")
    described = {
        **manifest_of(made.metadata.name, pipeline="train"),
        "project": project,
        "namespace": project,
        "uid": made.metadata.uid,
        "cron": cron,
        "timezone": BERLIN,
        "missed": missed,
        "start": f"{start:%Y-%m-%dT%H:%M:%SZ}",
    }
    wanted = {"seed": 7, **asked, "manifest": described, "clock": str(clock), "end": end.timestamp()}
    done = subprocess.run(
        [sys.executable, "-m", f"tests.robustness.{program}", json.dumps(wanted)],
        env=faked(home, clock, served, books),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=END_S,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    with Client(served.address) as api:
        labels = [run.metadata.labels for run in api.list("PipelineRun", project)]
    stamps = sorted(label["pipelinerun.michelangelo/execution-timestamp"] for label in labels)
    instants = [datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) for stamp in stamps]
    return instants, done.stdout.splitlines()[-1]


def due(cron: str, start: datetime, end: datetime) -> list[datetime]:
    """Return the instants of a schedule after `start` and up to `end`."""
    found = Schedule(cron, None, BERLIN).after(int(start.timestamp()))
    instants: list[datetime] = []
    for second in found:
        if second > end.timestamp():
            return instants
        instants.append(datetime.fromtimestamp(second, UTC))
    raise AssertionError("a schedule goes on")


def faked(home: Path, clock: Path, served: Served, more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process whose time of day is what stands in a file."""
    found = find_spec("libfaketime")
    assert found is not None
    assert found.origin is not None
    library = Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    return airflow_environ(
        home,
        LD_PRELOAD=str(library),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        DONT_FAKE_MONOTONIC="1",
        TZ="UTC",
        AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
        MA_API_PORT=served.address.rpartition(":")[2],
        MA_API_HTTP_PORT="1",
        MA_HOME=str(home),
        **more,
    )
