"""Secrets of an embedded platform: made once, kept in `$MA_HOME/run` for its owner alone, never printed."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from api.config import Config

JWT_BYTES = 96
FERNET_BYTES = 32


@dataclass(frozen=True)
class Keys:
    """`token`: guards internal HTTP routes; `jwt_secret` and `fernet_key`: Airflow's, base64."""

    token: str
    jwt_secret: str
    fernet_key: str


def ensure(config: Config) -> Keys:
    """Return the platform's keys, made on first use.  They stay the same until `$MA_HOME` is removed."""
    folder = config.run_path
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Keys(
        token=_kept(folder / "token", lambda: secrets.token_urlsafe(32)),
        jwt_secret=_kept(folder / "jwt_secret", lambda: _random(JWT_BYTES)),
        fernet_key=_kept(folder / "fernet_key", lambda: _random(FERNET_BYTES)),
    )


def _random(size: int) -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(size)).decode()


def _kept(path: Path, make: Callable[[], str]) -> str:
    """Return the file's text; write it first if there is none.  The one that links first wins a race."""
    if not path.exists():
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(make() + "\n")
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_text().strip()
