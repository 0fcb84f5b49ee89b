"""What `ma token` does with the tokens file.  A token is printed once; the file holds hashes alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from api.auth.base import is_name
from api.auth.static import Known, TokensFile, TokensFileError, digest, read, write
from api.cli import output
from api.cli.context import configuration, say, warn
from api.cli.exits import CONFIGURATION, USAGE, Failure
from api.config import Config

TOKEN_BYTES = 32
ID_LENGTH = 12
DAY_S = 86_400


def create(name: str, *, groups: Sequence[str], service: bool, days: int) -> None:
    """Make a token, keep its hash and print it."""
    for given in (name, *groups):
        if not is_name(given):
            raise Failure(f"{given[:64]!r} cannot be a name: printable, not longer than 256, not system:…", code=USAGE)
    token, now = secrets.token_urlsafe(TOKEN_BYTES), int(time.time())
    known = Known(
        name=name,
        sha256=digest(token),
        kind="service" if service else "user",
        groups=tuple(groups),
        created=now,
        expires=now + days * DAY_S if days else 0,
    )
    config = configuration()
    with _changing(config) as content:
        write(config.tokens_path, replace(content, tokens=(*content.tokens, known)))
    say(token)
    warn(f"this is the token of {name}: keep it, it is not shown again.  `ma token revoke {_id(known)}` takes it back")


def show() -> None:
    """Print a table of the tokens."""
    known = _read(configuration()).tokens
    if not known:
        say("no tokens but the one of whoever runs the platform")
        return
    rows = [
        [_id(one), one.name, one.kind, ",".join(one.groups) or "-", _day(one.created), _expiry(one)] for one in known
    ]
    output.table(["ID", "NAME", "KIND", "GROUPS", "CREATED", "EXPIRES"], rows)


def revoke(which: str) -> None:
    """Remove the tokens of a name, or the one of an id."""
    config = configuration()
    with _changing(config) as content:
        kept = tuple(one for one in content.tokens if which not in (one.name, _id(one)))
        count = len(content.tokens) - len(kept)
        if not count:
            raise Failure(f"no token of {which[:64]!r}; `ma token list` shows all")
        write(config.tokens_path, replace(content, tokens=kept))
    say(f"{count} {'token' if count == 1 else 'tokens'} of {which} revoked")


def own(*, public_client: bool) -> None:
    """Print the configuration's token, alone or as the public client's file."""
    token = configuration().own_token
    if not token:
        raise Failure("there is no token yet: start the platform with `ma up`, or set MA_TOKEN", code=CONFIGURATION)
    if not public_client:
        say(token)
        return
    say("[metadata]")
    say(f'authorization = "Bearer {token}"')


def _read(config: Config) -> TokensFile:
    try:
        return read(config.tokens_path)
    except TokensFileError as error:
        raise Failure(f"MA_TOKENS_FILE: {error}", code=CONFIGURATION) from None


@contextlib.contextmanager
def _changing(config: Config) -> Iterator[TokensFile]:
    """Give what the file says while nobody else changes it."""
    folder = config.tokens_path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / f".{config.tokens_path.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _read(config)
    finally:
        os.close(lock)


def _id(known: Known) -> str:
    return known.sha256[:ID_LENGTH]


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds)) if seconds else "-"


def _expiry(known: Known) -> str:
    if not known.expires:
        return "never"
    return "expired" if known.expires <= time.time() else _day(known.expires)
