"""Static tokens: the platform's own, and a file with the SHA-256 of those of other users.  Never writes a token down.

The file is JSON: `{"tokens": [{"name", "kind", "groups", "sha256", "created", "expires"}], "revoked": [{"jti"} or
{"user", "before"}]}`, times in seconds since 1970, an expiry of 0 never comes.  A changed file is read again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pwd
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from api.auth.base import ADMINS, Accepted, BadToken, is_name, service
from api.calls import Principal

LOOK_S = 1.0
LARGEST_BYTES = 16 * 1024 * 1024
KINDS = ("user", "service")


class TokensFileError(ValueError):
    """A tokens file that cannot be used."""


@dataclass(frozen=True)
class Known:
    """One token.  `sha256`: of the token, in hex; `created`, `expires`: seconds since 1970, 0 for never."""

    name: str
    sha256: str
    kind: str = "user"
    groups: tuple[str, ...] = ()
    created: int = 0
    expires: int = 0

    @property
    def principal(self) -> Principal:
        """Whose it is."""
        if self.kind == "service":
            return service(self.name)
        return Principal(self.name, frozenset(self.groups))


@dataclass(frozen=True)
class Revoked:
    """Signed tokens that are not accepted any more: the one of a `jti`, or all of a `user` issued up to `before`."""

    jti: str = ""
    user: str = ""
    before: int = 0


@dataclass(frozen=True)
class TokensFile:
    """What a tokens file says."""

    tokens: tuple[Known, ...] = ()
    revoked: tuple[Revoked, ...] = ()

    def text(self) -> str:
        """Return the file's text."""
        return json.dumps(
            {part: [asdict(one) for one in getattr(self, part)] for part in ("tokens", "revoked")}, indent=1
        )


def digest(token: str) -> str:
    """Return the SHA-256 of a token in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def read(path: Path) -> TokensFile:
    """Return what a file says; one that is not there says nothing.  Raises TokensFileError that names the fault."""
    try:
        found = path.stat()
        if found.st_mode & 0o022:
            raise TokensFileError(f"others may write {path}: run chmod 600 on it")
        if found.st_size > LARGEST_BYTES:
            raise TokensFileError(f"{path} is larger than {LARGEST_BYTES} bytes")
        given = json.loads(path.read_bytes())
        return TokensFile(
            tuple(_known(item, f"tokens[{at}]") for at, item in enumerate(given.get("tokens", []))),
            tuple(_revoked(item, f"revoked[{at}]") for at, item in enumerate(given.get("revoked", []))),
        )
    except (FileNotFoundError, NotADirectoryError):
        return TokensFile()
    except OSError as error:
        raise TokensFileError(f"{path} cannot be read: {error.strerror}") from error
    except TokensFileError as error:
        raise TokensFileError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise TokensFileError(f"{path} is no tokens file: {type(error).__name__}") from error


def _known(item: Any, at: str) -> Known:
    known = Known(
        name=item.get("name"),
        sha256=item.get("sha256"),
        kind=item.get("kind", "user"),
        groups=tuple(item.get("groups", ())),
        created=item.get("created", 0),
        expires=item.get("expires", 0),
    )
    for name in (known.name, *known.groups):
        if not isinstance(name, str) or not is_name(name):
            raise TokensFileError(f"{at}: names and groups are printable, not empty and not reserved")
    if known.kind not in KINDS:
        raise TokensFileError(f"{at}.kind is user or service")
    if not isinstance(known.sha256, str) or len(bytes.fromhex(known.sha256)) != hashlib.sha256().digest_size:
        raise TokensFileError(f"{at}.sha256 is no SHA-256 in hex")
    if known.sha256 in (digest(""), digest(known.name)):
        raise TokensFileError(f"{at}.sha256 is that of a token that anybody could guess")
    if not isinstance(known.created, int) or not isinstance(known.expires, int):
        raise TokensFileError(f"{at}: created and expires are seconds since 1970")
    return known


def _revoked(item: Any, at: str) -> Revoked:
    revoked = Revoked(item.get("jti", ""), item.get("user", ""), item.get("before", 0))
    if not isinstance(revoked.before, int) or not (revoked.jti or (revoked.user and revoked.before)):
        raise TokensFileError(f"{at} has a jti, or a user and a time before")
    return revoked


def write(path: Path, content: TokensFile) -> None:
    """Replace a tokens file, readable for its owner alone."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content.text() + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


@dataclass
class Book:
    """A tokens file that is read again when it changed, at most once in `LOOK_S`.

    One that became unreadable closes the door for its tokens: an old copy could let in who was thrown out.
    """

    path: Path
    clock: Callable[[], float] = time.monotonic
    _content: TokensFile = field(default_factory=TokensFile)
    _by_digest: Mapping[bytes, Known] = field(default_factory=dict)
    _seen: tuple[int, int, int] | None = None
    _looked: float = float("-inf")
    _fault: str = ""
    _version: int = 0

    @property
    def version(self) -> int:
        """Another number after each change of what the file says."""
        self._look()
        return self._version

    def find(self, token: str) -> Known | None:
        """Return the entry of a token, None if the file has none.  Raises BadToken while the file cannot be read."""
        self._look()
        if self._fault:
            raise BadToken(self._fault)
        wanted = hashlib.sha256(token.encode()).digest()
        known = self._by_digest.get(wanted)
        if known is None or not hmac.compare_digest(bytes.fromhex(known.sha256), wanted):
            return None
        return known

    def revokes(self, jti: str, user: str, issued: float) -> bool:
        """Whether a signed token was revoked; while the file cannot be read each of them counts as revoked."""
        self._look()
        if self._fault:
            return True
        return any(
            (one.jti and one.jti == jti) or (one.user and one.user == user and issued <= one.before)
            for one in self._content.revoked
        )

    def _look(self) -> None:
        now = self.clock()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        try:
            found = self.path.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            seen = (0, 0, 0)
        if seen == self._seen:
            return
        try:
            self._content, self._fault = read(self.path), ""
        except TokensFileError as error:
            self._content, self._fault = TokensFile(), str(error)
        self._by_digest = {bytes.fromhex(known.sha256): known for known in self._content.tokens}
        self._seen = seen
        self._version += 1


class FileTokens:
    """Checks tokens of a tokens file."""

    def __init__(self, book: Book, *, clock: Callable[[], float] = time.time) -> None:
        self._book = book
        self._clock = clock

    async def check(self, token: str) -> Accepted | None:
        """Return whose token it is."""
        version, known = self._book.version, self._book.find(token)
        if known is None:
            return None
        if self._expired(known):
            raise BadToken(f"the token of {known.name} expired at {known.expires}")
        return Accepted(known.principal, lambda: self._book.version == version and not self._expired(known))

    def _expired(self, known: Known) -> bool:
        return bool(known.expires) and self._clock() >= known.expires


class OwnToken:
    """Checks the platform's own token: it is that of the user who runs the platform, who may do everything."""

    def __init__(self, token: str, user: str = "") -> None:
        self._digest = hashlib.sha256(token.encode()).digest() if token else b""
        # It stays what it is for as long as the server runs.
        self._accepted = Accepted(Principal(user or os_user(), frozenset({ADMINS})), lambda: True)

    async def check(self, token: str) -> Accepted | None:
        """Return the user if it is the token."""
        given = hashlib.sha256(token.encode()).digest()
        return self._accepted if hmac.compare_digest(self._digest, given) else None


def kept(path: Path, make: Callable[[], str]) -> str:
    """Return a secret's text; write it first, for its owner alone, if there is none.  The first to link wins a race."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(make() + "\n")
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_text("ascii").strip()


def os_user() -> str:
    """Return the name of the user who runs this process."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
