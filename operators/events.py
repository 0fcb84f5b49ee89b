"""`publish`: saying from any Python code that something happened.  Importing it loads neither gRPC nor Airflow.

Within a task of the platform the project and the run are known (MA_PIPELINE_RUN, as PROJECT/RUN): the chain of runs
that events begin is carried along, and ends.  Elsewhere the project is named, or stands in MA_NAMESPACE.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

RUN = "MA_PIPELINE_RUN"
NAMESPACE = "MA_NAMESPACE"

log = logging.getLogger(__name__)


def publish(
    name: str,
    payload: Any = None,
    key: str = "",
    *,
    project: str = "",
    source: str = "",
    subject: str = "",
    attributes: Mapping[str, str] | None = None,
    keep_s: float = 0,
    raises: bool = True,
) -> str:
    """Publish an event and return its name.

    name: such as `orders.loaded`; payload: any JSON, at most 48 KiB; key: published again with it, it is the same
    event, and nothing happens twice; keep_s: seven days if 0.  With `raises` off what goes wrong is logged, and the
    name is empty.  Raises `api.errors`, ValueError for a payload that is no JSON or an unknown project.
    """
    try:
        return _published(name, payload, key, project, source, subject, attributes, keep_s)
    except Exception as error:
        if raises:
            raise
        log.warning("event %s was not published: %s", name, error)
        return ""


def _published(
    name: str,
    payload: Any,
    key: str,
    project: str,
    source: str,
    subject: str,
    attributes: Mapping[str, str] | None,
    keep_s: float,
) -> str:
    from api.client import Client
    from api.config import load

    cause = os.environ.get(RUN, "")
    namespace = project or cause.partition("/")[0] or os.environ.get(NAMESPACE, "")
    if not namespace:
        raise ValueError(f"which project?  Give it as project=, or set {NAMESPACE}")
    with Client.of(load()) as api:
        answer = api.publish(
            name,
            payload,
            namespace=namespace,
            key=key,
            source=source,
            subject=subject,
            attributes=attributes,
            cause=cause,
            ttl_s=keep_s,
        )
    return str(answer.event)
