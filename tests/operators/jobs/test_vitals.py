"""The curve of a process: what it uses since somebody looks, not before."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from operators.jobs.vitals import Curve


def test_what_a_process_did_before_is_not_in_its_curve() -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        busy_until = time.process_time() + 0.5
        while time.process_time() < busy_until:
            pass
        curve = Curve(os.getpid())
        curve.look()
        child.kill()
    ((_, resident_mib, percent),) = curve.rows()
    assert resident_mib > 1
    assert percent < 400, "half a second of work in a tenth of one is 500 %"
