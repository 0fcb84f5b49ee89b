"""The address of the artifact store, `MA_ARTIFACTS`: a folder, or a URL that fsspec reaches.  Opens nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

OPTIONS = frozenset({"endpoint_override", "scheme", "region"})


def below(url: str, name: str) -> str:
    """Return the path or URL of what is called `name` below another; the options of a URL stay at its end."""
    path, mark, options = url.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{options}"


def read(environ: Mapping[str, str], faults: list[str]) -> str:
    """Return the address, empty for the default; `faults` gets a line if it cannot be used.  No line holds a key."""
    text = environ.get("MA_ARTIFACTS", "")
    if "://" not in text:
        return str(Path(text).absolute()) if text else ""
    try:
        parts = urlsplit(text)
        given = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        faults.append("MA_ARTIFACTS is no URL: s3://bucket/prefix, or the path of a folder")
        return ""
    if parts.scheme == "file":
        return text.removeprefix("file://")
    if not parts.netloc or parts.username or parts.password:
        faults.append("MA_ARTIFACTS must name a bucket, and no user: s3://bucket/prefix")
    elif parts.scheme == "s3" and not given.keys() <= OPTIONS:
        named = ", ".join(sorted(OPTIONS))
        faults.append(f"MA_ARTIFACTS takes the options {named}; keys are given as AWS_ACCESS_KEY_ID and so on")
    return text
