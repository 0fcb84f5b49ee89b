"""What form of an answer a caller wants: JSON, or the table that kubectl prints."""

from __future__ import annotations

from functools import lru_cache

from api.http.refusals import NotAcceptable
from api.validation import shown

TABLE, JSON, DISCOVERY = "Table", "", "APIGroupDiscoveryList"
KNOWN = {
    ("Table", "meta.k8s.io", "v1"): TABLE,
    ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2"): DISCOVERY,
}
ANYTHING = ("application/json", "application/*", "*/*")


@lru_cache(maxsize=256)
def form(header: str) -> str:
    """Return TABLE, DISCOVERY or JSON: the first of what is accepted that can be given.  Raises NotAcceptable."""
    if not header.strip():
        return JSON
    for wanted in header.split(","):
        media, *parameters = (part.strip() for part in wanted.split(";"))
        if media.lower() not in ANYTHING:
            continue
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        if given.get("q", "1").strip() in ("0", "0.0", "0.00", "0.000"):
            continue
        if "as" not in given:
            return JSON
        found = KNOWN.get((given["as"], given.get("g", ""), given.get("v", "")))
        if found is not None:
            return found
    raise NotAcceptable(f"the header Accept is {shown(header)!r}: accept application/json")
