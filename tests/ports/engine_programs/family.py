"""Starts processes as real programs do, notes all their pids, and works until it is stopped or `until` exists.

The first child stays in the session; `group` has a process group of its own, `session` a session of its own.  With
`stubborn` nobody of them obeys SIGTERM.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SLEEPER = "import signal, sys, time; signal.signal(signal.SIGTERM, {}); print(flush=True); time.sleep(120)"


def run(args: Mapping[str, Any]) -> dict[str, str]:
    with Path(args["ran"]).open("a") as file:
        file.write("ran\n")
    obey = "signal.SIG_DFL"
    if args.get("stubborn"):
        obey = "signal.SIG_IGN"
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    children = [
        subprocess.Popen([sys.executable, "-c", SLEEPER.format(obey)], stdout=subprocess.PIPE, **ways)
        for ways in ({}, {"process_group": 0}, {"start_new_session": True})[: args.get("children", 0)]
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    pids = Path(args["pids"])
    pids.with_suffix(".new").write_text(" ".join(str(pid) for pid in (os.getpid(), *(c.pid for c in children))))
    pids.with_suffix(".new").rename(pids)
    while not Path(args["until"]).exists():
        time.sleep(0.02)
    return {"pid": str(os.getpid())}
