"""What keeps pages of other sites away from a server on loopback, and what every answer says to a browser.

A name that somebody else's DNS points to 127.0.0.1 is still a foreign name: such a page may neither read nor write.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from api.http.refusals import Foreign, HeadersTooLarge
from api.validation import shown

MOST_HEADERS = 100
LARGEST_HEADERS = 96 * 1024
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
SAME_SITE = ("", "same-origin", "none")
HEADERS: Sequence[tuple[bytes, bytes]] = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


def checked(raw: Sequence[tuple[bytes, bytes]], hosts: Collection[str] | None = LOOPBACK) -> list[tuple[str, str]]:
    """Return the headers of a request that may be answered.  Raises HeadersTooLarge, Foreign."""
    if len(raw) > MOST_HEADERS or sum(len(name) + len(value) for name, value in raw) > LARGEST_HEADERS:
        raise HeadersTooLarge(f"there are more than {MOST_HEADERS} headers or {LARGEST_HEADERS} bytes of them")
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
    check(headers, hosts)
    return headers


def check(headers: Sequence[tuple[str, str]], hosts: Collection[str] | None = LOOPBACK) -> None:
    """Refuse a request to a foreign name or from a foreign page.  `hosts`: the names of this server, None for any.

    Raises Foreign.
    """
    given = [value for name, value in headers if name == "host"]
    host = given[0].strip().lower() if len(given) == 1 else ""
    if hosts is not None and _name(host) not in hosts:
        raise Foreign(f"this server is not {shown(host)!r}: use the address that it was started with")
    for name, value in headers:
        if name == "origin" and value.strip().lower() not in (f"http://{host}", f"https://{host}"):
            raise Foreign(f"a page of {shown(value)!r} may not call this server")
        if name == "sec-fetch-site" and value.strip().lower() not in SAME_SITE:
            raise Foreign("a page of another site may not call this server")


def _name(host: str) -> str:
    """Return a host without its port; empty if the port is none."""
    name, colon, port = host.rpartition(":")
    if host.endswith("]") or not colon:
        return host
    return name if port.isascii() and port.isdigit() else ""
