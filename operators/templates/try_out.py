"""`ma pipeline test -f`: runs the manifest of a template or of steps in this process, and tells of each step.

    python -m operators.templates.try_out MANIFEST --run NAME [-p NAME=VALUE]… [--report FILE]

What the stages keep is kept by the platform of MA_HOME; steps go to standard error, what the last one returned to
standard output.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from operators.authoring.try_out import FAILED_RUN, USAGE, given, show
from operators.engines.local import THREADS
from operators.errors import UserError


def main(manifest: Mapping[str, Any], run: str, settings: Sequence[str], report: Path | None = None) -> int:
    """Run a manifest and return the exit code."""
    from airflow.sdk.exceptions import ParamValidationError

    # What is of use in the log of a job is noise between steps.
    logging.getLogger("feast").setLevel(logging.WARNING)
    from operators.templates.here import Asked, run_here
    from operators.templates.params import over
    from operators.templates.project import build

    try:
        shown = [name for name in build(manifest).params if name != "ma"]
        values = given(settings, {"properties": {name: _schema(manifest, name) for name in shown}})
        over({name: _param(manifest, name) for name in shown}, values)
        ended = run_here(Asked(lambda: build(manifest), run, values), show)
    except (ParamValidationError, UserError, ValueError) as error:
        print(f"ma: {str(error).splitlines()[0]}", file=sys.stderr)
        return USAGE
    if report is not None:
        report.write_text(json.dumps(ended.steps(), indent=1))
    if ended.error is not None:
        return FAILED_RUN
    print(json.dumps(next(reversed(ended.outputs.values()), None), ensure_ascii=False))
    return 0


def _param(manifest: Mapping[str, Any], name: str) -> Any:
    from operators.templates.registry import TEMPLATES

    return TEMPLATES[manifest["template"]].params()[name]


def _schema(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = _param(manifest, name).schema
    return schema


def _main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="ma pipeline test")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--run", required=True)
    parser.add_argument("-p", "--param", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--report", type=Path)
    asked = parser.parse_args(arguments)
    # What the programs of stages need is in the platform's folder, as for every job.
    os.environ.pop("MA_TOKEN", None)
    os.environ.update(THREADS)
    return main(json.loads(asked.manifest.read_text()), asked.run, asked.param, asked.report)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
