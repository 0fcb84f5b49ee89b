"""TLS of the API server and of its clients, from PEM files.  TLS 1.2 at least; no file is ever written."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from api.config import TlsConfig

if TYPE_CHECKING:
    import grpc


def faults(config: TlsConfig) -> Iterator[str]:
    """Yield what is wrong with the files, each with its variable."""
    if config.key is not None and config.cert is None:
        yield "MA_TLS_KEY is given without MA_TLS_CERT"
    if config.client_ca is not None and config.cert is None:
        yield "MA_TLS_CLIENT_CA is given without MA_TLS_CERT: certificates of clients need TLS"
    if config.cert is not None:
        if config.key is None:
            yield "MA_TLS_CERT is given without MA_TLS_KEY"
        else:
            yield from _pair("MA_TLS_CERT", config.cert, "MA_TLS_KEY", config.key)
    if (config.client_cert is None) != (config.client_key is None):
        yield "MA_TLS_CLIENT_CERT and MA_TLS_CLIENT_KEY go together"
    elif config.client_cert is not None and config.client_key is not None:
        yield from _pair("MA_TLS_CLIENT_CERT", config.client_cert, "MA_TLS_CLIENT_KEY", config.client_key)
    for name, path in (("MA_TLS_CLIENT_CA", config.client_ca), ("MA_TLS_CA", config.ca)):
        if path is not None:
            try:
                ssl.create_default_context(cafile=str(path))
            except (OSError, ssl.SSLError) as error:
                yield f"{name} {path} holds no certificate: {_told(error)}"


def _pair(cert_name: str, cert: Path, key_name: str, key: Path) -> Iterator[str]:
    try:
        if key.stat().st_mode & 0o077:
            yield f"{key_name} {key} can be read by others: run chmod 600 on it"
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        yield f"{cert_name} {cert} and {key_name} {key} cannot be used together: {_told(error)}"


def _no_password() -> str:
    raise ValueError("the key has a password")


def _told(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is no PEM file"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def server_credentials(config: TlsConfig) -> grpc.ServerCredentials | None:
    """Return gRPC's credentials of the server, None without TLS.  A client CA makes every client show a certificate."""
    import grpc

    if config.cert is None or config.key is None:
        return None
    ca = config.client_ca.read_bytes() if config.client_ca is not None else None
    pair = (config.key.read_bytes(), config.cert.read_bytes())
    return grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=ca is not None)
