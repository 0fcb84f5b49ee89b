"""The curve of a process: what it uses since somebody looks, not before."""

from __future__ import annotations

import os
import time

from operators.jobs.vitals import Curve


def test_what_a_process_did_before_is_not_in_its_curve() -> None:
    busy_until = time.process_time() + 0.5
    while time.process_time() < busy_until:
        pass
    curve = Curve(os.getpid())
    curve.look()
    ((_, resident_mib, percent),) = curve.rows()
    assert resident_mib > 1
    assert percent < 400, "half a second of work in a tenth of one is 500 %"
