"""From an error to what a person reads and the code a script gets.  Shows a stack only on request."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import typer

from api.cli import exits
from api.config import load
from api.errors import ApiError, Unauthenticated, Unavailable

# Typer carries its own copy of click; the public name of its family of usage errors is their youngest member.
USAGE_ERRORS = tuple(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def report(error: BaseException) -> int:
    """Print what went wrong to standard error and return the exit code."""
    code, lines = _read(error)
    if code == exits.CLOSED_PIPE:
        _drop_output()
        return code
    for line in lines:
        print(line, file=sys.stderr)
    if os.environ.get("MA_DEBUG") and code not in (exits.OK, exits.INTERRUPTED):
        traceback.print_exception(error)
    return code


def _read(error: BaseException) -> tuple[int, list[str]]:
    # Click turns a closed pipe into an exit of its own.
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        return exits.CLOSED_PIPE, []
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return exits.INTERRUPTED, ["interrupted"]
    if isinstance(error, exits.Failure):
        return error.code, [f"ma: {error.lines[0]}", *error.lines[1:]] if error.lines else []
    if isinstance(error, Unauthenticated):
        return exits.REFUSED, [*api_lines(error), *_token_lines()]
    if isinstance(error, ApiError):
        return exits.UNREACHABLE if isinstance(error, Unavailable) else exits.REFUSED, api_lines(error)
    if isinstance(error, typer.Exit):
        return error.exit_code, []
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else exits.REFUSED, []
    if isinstance(error, USAGE_ERRORS):
        return exits.USAGE, _usage(error)
    if isinstance(error, OSError) and error.filename:
        return exits.REFUSED, [f"ma: {error.filename}: {error.strerror}"]
    detail = " ".join(str(error).split())[:300]
    return exits.REFUSED, [f"ma: {type(error).__name__}: {detail} (--debug shows where)"]


def api_lines(error: ApiError) -> list[str]:
    """Return a refusal as lines: what, then each field."""
    fields = [f"  {violation.field}: {violation.description}" for violation in error.violations]
    reason = f" ({error.reason})" if error.reason not in ("", error.code) else ""
    # A message that only lists the fields is not repeated before them.
    listed = any(error.message.startswith(f"{one.field} {one.description}") for one in error.violations)
    return [f"ma: {'these fields are wrong' if listed else error.message}{reason}", *fields]


def _token_lines() -> list[str]:
    """Return where the token was looked for: what answers may be a platform with another home."""
    if os.environ.get("MA_TOKEN"):
        return ["  the token is that of MA_TOKEN"]
    try:
        config = load()
    except ValueError:
        return []
    said = "the token is that of" if config.token else "there is no token in"
    return [f"  {said} {config.token_path}: set MA_HOME to the home of the platform that answers, or MA_TOKEN"]


def _usage(error: Any) -> list[str]:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return [str(error.format_message())]
    return [f"ma: {error.format_message()}", *([f"see `{context.command_path} --help`"] if context else [])]


def _drop_output() -> None:
    """Keep the interpreter from writing to the closed pipe once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
