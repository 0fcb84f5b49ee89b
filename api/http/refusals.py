"""What only HTTP can refuse: routes, methods, media types, foreign pages.  Everything else comes from `api.errors`."""

from __future__ import annotations

from collections.abc import Iterable

from api.errors import DeadlineExceeded, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted
from api.validation import shown


class NoRoute(NotFound):
    """No such path."""

    reason = "NO_ROUTE"


class MethodNotAllowed(InvalidArgument):
    """The path exists, with other methods.  `allowed`: those."""

    http, reason = 405, "METHOD_NOT_ALLOWED"

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted({*allowed}))
        super().__init__(f"{shown(method)} is not possible here: use {self.allowed}")


class NotAcceptable(InvalidArgument):
    """None of the forms that the caller accepts can be given."""

    http, reason = 406, "NOT_ACCEPTABLE"


class Unsupported(InvalidArgument):
    """A body in a form that is not read."""

    http, reason = 415, "UNSUPPORTED_MEDIA_TYPE"


class TooLarge(ResourceExhausted):
    """More bytes than are read."""

    http, reason = 413, "TOO_LARGE"


class Foreign(PermissionDenied):
    """A page of another site, or a name that is not this server's."""

    reason = "FOREIGN_ORIGIN"


class HeadersTooLarge(ResourceExhausted):
    """More headers than are read."""

    http, reason = 431, "HEADERS_TOO_LARGE"


class SlowRequest(DeadlineExceeded):
    """A request whose bytes come too slowly."""

    http, reason = 408, "SLOW_REQUEST"
