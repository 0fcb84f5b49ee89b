"""Secrets of an embedded platform: made once, kept in `$MA_HOME/run` for its owner alone, never printed."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass

from api.auth.static import kept
from api.config import Config

JWT_BYTES = 96
FERNET_BYTES = 32


@dataclass(frozen=True)
class Keys:
    """`token`: of the user who runs the platform; `jwt_secret` and `fernet_key`: Airflow's, base64."""

    token: str
    jwt_secret: str
    fernet_key: str


def ensure(config: Config) -> Keys:
    """Return the platform's keys, made on first use.  They stay the same until `$MA_HOME` is removed."""
    folder = config.run_path
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Keys(
        token=kept(folder / "token", lambda: secrets.token_urlsafe(32)),
        jwt_secret=kept(folder / "jwt_secret", lambda: _random(JWT_BYTES)),
        fernet_key=kept(folder / "fernet_key", lambda: _random(FERNET_BYTES)),
    )


def _random(size: int) -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(size)).decode()
