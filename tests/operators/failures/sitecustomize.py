"""Makes the programs of this folder jobs: with the folder in PYTHONPATH, `operators.jobs` finds them too."""

from pathlib import Path

import operators.jobs

operators.jobs.__path__.append(str(Path(__file__).parent))
