"""Jobs on Ray.  `local`: a driver process with a Ray of its own, and the program as a Ray task.  Imports no Ray itself.

The driver is a job of the local engine, so that submitting, adopting and cancelling are the same.
"""

from __future__ import annotations

from operators.engines.local import LocalEngine


class RayEngine(LocalEngine):
    """Runs each job in a Ray instance of this machine."""

    module = "operators.jobs.run_on_ray"
