"""`ma status`: the components of this home's platform with what they use.  Reads only."""

from __future__ import annotations

import time

from api.cli import output
from api.cli.exits import OK, REFUSED
from api.cli.platform import record, sessions
from api.cli.platform.record import ComponentRecord, Record
from api.config import Config

HEADER = ("COMPONENT", "STATE", "PID", "UPTIME", "RESTARTS", "MEMORY")


def show(config: Config) -> int:
    """Print the table.  Returns 0 if every component is ready."""
    known = record.read(config.run_path)
    if not record.running(config.run_path):
        print(f"the platform of {config.home} is not running; `ma up` starts it")
        if known is not None and sessions.belonging(config.home, known.refs):
            print("processes of a killed one are left; `ma down` stops them")
        return REFUSED
    if known is None or not known.supervisor.alive():
        print("the platform is starting")
        return REFUSED
    rows, total = _rows(known)
    output.table(HEADER, rows)
    print(f"\n{known.phase}; {_mebibytes(total)} in all")
    print(f"Airflow {config.airflow_url}, API {config.api_address}, predictions {config.serving_url}")
    fine = known.phase == "ready" and all(part.state == "ready" for part in known.components.values())
    return OK if fine else REFUSED


def _rows(known: Record) -> tuple[list[list[str]], int]:
    rows, total = [], sessions.memory_bytes(known.supervisor.pid)
    for component in known.components.values():
        used = sessions.memory_bytes(component.pid) if component.pid else 0
        total += used
        rows.append(_row(component, used))
    return rows, total


def _row(component: ComponentRecord, used: int) -> list[str]:
    alive = component.ref.alive()
    uptime = output.duration(time.time() - component.started) if alive else "-"
    state = component.state if alive or component.state == "restarting" else "dead"
    pid = str(component.pid) if alive else "-"
    return [component.name, state, pid, uptime, str(component.restarts), _mebibytes(used)]


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
