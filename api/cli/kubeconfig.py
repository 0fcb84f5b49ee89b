"""What kubectl needs to know of the platform, as the file that it reads."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from api.cli import output
from api.cli.exits import Failure
from api.config import Config
from api.config import load as configured

NAME = "michelangelo"


def text(config: Config, namespace: str = "") -> str:
    """Return a kubeconfig with the platform's address, certificate and token.  Raises Failure."""
    authority = config.tls.ca or config.tls.cert or config.run_path / "tls.pem"
    cluster = {
        "server": f"https://{config.api_http_url.split('://', 1)[1]}",
        "certificate-authority-data": _encoded(authority),
    }
    user = {"token": config.own_token}
    if not config.own_token:
        raise Failure("there is no token: start the platform with `ma up`, or set MA_TOKEN")
    context = {"cluster": NAME, "user": NAME} | ({"namespace": namespace} if namespace else {})
    found: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": NAME, "user": user}],
        "contexts": [{"name": NAME, "context": context}],
        "current-context": NAME,
    }
    return output.as_yaml(found)


def show(namespace: str) -> None:
    """Print the file."""
    print(text(configured(), namespace))


def _encoded(path: Path) -> str:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError:
        raise Failure(f"{path} cannot be read: start the platform with `ma up` first, or set MA_TLS_CA") from None
