"""`ma pipeline test`: runs a pipeline in this process and tells of each step.  Reaches no platform.

    python -m operators.authoring.try_out TARGET [-p NAME=VALUE]… [--values URL]

Steps go to standard error, what the pipeline returned to standard output.  A step that fails shows its own traceback.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from api.errors import InvalidArgument
from operators.authoring.errors import PipelineError
from operators.authoring.loading import found
from operators.authoring.local_run import FAILED, RETRYING, RUNNING, SKIP, SUCCEEDED, UPSTREAM_FAILED, Event, run_here
from operators.authoring.sources import users_own
from operators.errors import UserError

FAILED_RUN, USAGE = 1, 2
WORDS = {SUCCEEDED: "ok", SKIP: "skipped", FAILED: "failed", UPSTREAM_FAILED: "not run", RETRYING: "again"}
LONGEST_RESULT = 10_000


def given(settings: Sequence[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return NAME=VALUE texts as parameters: a text where the schema wants one, else YAML.  Raises UserError."""
    properties = schema.get("properties", {})
    read: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"-p {setting}: write NAME=VALUE")
        said = properties.get(name, {}).get("type")
        kinds = said if isinstance(said, list) else [said]
        read[name] = text if "string" in kinds and not (text == "null" and "null" in kinds) else _read(text)
    return read


def _read(text: str) -> Any:
    """Return a value as YAML has it; JSON, which is most of it, without loading the library."""
    try:
        return json.loads(text)
    except ValueError:
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text


def show(event: Event) -> None:
    """Print what happened to a step."""
    if event.state == RUNNING:
        return
    name = event.step + "".join(f"[{position}]" for position in event.index)
    told = event.digest[:19] if event.state == SUCCEEDED else event.message.splitlines()[0] if event.message else ""
    took = f"{event.seconds * 1000:.1f} ms" if event.seconds else ""
    print(f"{WORDS[event.state]:<8} {name:<32} {took:>10}  {told}".rstrip(), file=sys.stderr, flush=True)


def main(target: str, settings: Sequence[str], values_url: str = "") -> int:
    """Run the pipeline of `target` and return the exit code."""
    try:
        pipeline = found(target)
        values = None
        if values_url:
            from operators.values import values_at

            values = values_at(values_url)
        report = run_here(pipeline, given(settings, pipeline.params), values=values, on_event=show)
    except (PipelineError, UserError) as error:
        print(f"ma: {error}", file=sys.stderr)
        return USAGE
    except InvalidArgument as error:
        print(f"ma: these parameters are wrong ({error.reason})", file=sys.stderr)
        for fault in error.violations:
            print(f"  {fault.field}: {fault.description}", file=sys.stderr)
        return USAGE
    except Exception as error:
        return _raised(error)
    if report.error is not None:
        return _raised(report.error)
    print(_shown(report.result))
    return 0


def _raised(error: BaseException) -> int:
    sys.stdout.flush()
    traceback.print_exception(error.with_traceback(users_own(error.__traceback__)))
    return FAILED_RUN


def _shown(result: Any) -> str:
    try:
        text = json.dumps(result, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(result)
    return text if len(text) <= LONGEST_RESULT else text[:LONGEST_RESULT] + "…"


def _main(arguments: Sequence[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="ma pipeline test")
    parser.add_argument("target", nargs="?", default="pipeline.py", help="FILE, FILE:function or module:function")
    parser.add_argument("-p", "--param", action="append", default=[], metavar="NAME=VALUE", help="a parameter")
    parser.add_argument("--values", default="", metavar="URL", help="keep the steps' outputs there")
    asked = parser.parse_args(arguments)
    os.environ.pop("MA_TOKEN", None)
    return main(asked.target, asked.param, asked.values)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
