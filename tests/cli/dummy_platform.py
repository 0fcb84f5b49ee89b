"""`ma up` with components that are a few lines of Python, for tests: argv is a JSON list of [name, program].

Everything but the components and Airflow's database is the real thing.
"""

import json
import sys

from api.cli.main import main
from api.cli.platform import components, database
from api.cli.platform.components import Component

CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
JOB = CHILD.replace(")])", ")], start_new_session=True)").replace("'])", "'], start_new_session=True)")
SLEEP = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
PROGRAMS = {"sleep": SLEEP, "forks": CHILD + SLEEP, "job": JOB + SLEEP, "stubborn": STUBBORN}


def start(named: dict[str, str], *arguments: str) -> int:
    """Run `ma` with components of these programs; a name of `PROGRAMS` or the program itself."""
    made = tuple(
        Component(name, (sys.executable, "-c", PROGRAMS.get(program, program)), lambda _: True)
        for name, program in named.items()
    )
    components.all_of = lambda config: made
    database.needs_migration = lambda config: False
    return main(arguments)


if __name__ == "__main__":
    sys.exit(start(json.loads(sys.argv[1]), *sys.argv[2:]))
