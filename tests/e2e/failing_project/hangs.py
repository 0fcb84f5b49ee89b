"""A project's module that says who it is and waits for ever."""

import os
import time
from pathlib import Path


def examples() -> None:
    place = Path(os.environ["MA_HOME"], "hangs.pid")
    place.with_suffix(".new").write_text(str(os.getpid()))
    place.with_suffix(".new").rename(place)
    while True:
        time.sleep(0.1)
