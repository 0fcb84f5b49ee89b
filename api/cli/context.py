"""What every command needs: the configuration, a client, and a way to speak.  Reads nothing but the environment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from api.cli.exits import CONFIGURATION, Failure
from api.config import Config, load

if TYPE_CHECKING:
    from api.client import Client

ANSWER_S = 5.0


def configuration() -> Config:
    """Return the configuration.  Raises Failure that names every wrong variable."""
    try:
        return load()
    except ValueError as error:
        raise Failure(*str(error).split("; "), code=CONFIGURATION) from None


def client() -> Client:
    """Return a client of the configured API server."""
    from api.client import Client

    return Client.of(configuration(), timeout_s=ANSWER_S, warn=warn)


def say(line: str = "") -> None:
    """Print a line at once."""
    print(line, flush=True)


def warn(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr, flush=True)
