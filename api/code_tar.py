"""A user's Python files as one tar, named by the SHA-256 of its bytes: the same files, the same name.  Runs nothing.

What is packed is what a run imports, so it is refused rather than guessed: links that lead out of the folder, files
that look like secrets, folders that are too large.  A file `.maignore` leaves out what its patterns match.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MOST_BYTES = 16 * 1024 * 1024
MOST_FILES = 5_000
IGNORE_FILE = ".maignore"
IGNORED = (
    *(".git", ".hg", ".svn", ".ma", ".venv", "venv", ".tox", ".nox", "node_modules", ".idea", ".vscode"),
    *("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".ipynb_checkpoints"),
    *("*.pyc", "*.pyo", "*.egg-info", ".DS_Store", ".coverage"),
)
SECRETS = (
    *(".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "id_rsa*", "id_dsa*", "id_ecdsa*"),
    *("id_ed25519*", ".netrc", ".pypirc", ".pgpass", ".htpasswd", "credentials.json", "kubeconfig", ".aws", ".ssh"),
)
NO_SECRETS = (".env.example", ".env.sample", ".env.template", "*.pub")
LARGEST_TOLD = 3
BLOCK = 1024 * 1024


@dataclass(frozen=True)
class Refusal:
    """Why a file cannot be packed.  `path`: below the folder; `reason`: UPPER_SNAKE; `told`: with a way out."""

    path: str
    reason: str
    told: str


class CodeRefused(ValueError):
    """What cannot be packed, or a tar that is not what its name says.  `refusals`: each of them."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__("; ".join(f"{one.path}: {one.told}" for one in refusals))
        self.refusals = tuple(refusals)


@dataclass(frozen=True)
class Packed:
    """`data`: the tar; `digest`: SHA-256 of it, hexadecimal; `files`: paths below the folder, in order."""

    data: bytes
    digest: str
    files: tuple[str, ...]


def pack(folder: Path) -> Packed:
    """Return the files of a folder as a tar.  Raises CodeRefused with every fault; NotADirectoryError."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")
    root = folder.resolve()
    refusals: list[Refusal] = []
    found = sorted(_files(root, _ignored(root), refusals))
    sizes = {name: (root / name).stat().st_size for name in found}
    refusals += _too_much(sizes)
    if refusals:
        raise CodeRefused(refusals)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in found:
            _add(tar, root / name, name)
    return Packed(data.getvalue(), hashlib.sha256(data.getbuffer()).hexdigest(), tuple(found))


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """Add a file without what differs from machine to machine: owner, time, umask."""
    content = path.read_bytes()
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
    tar.addfile(member, io.BytesIO(content))


def _ignored(root: Path) -> tuple[str, ...]:
    try:
        lines = (root / IGNORE_FILE).read_text().splitlines()
    except FileNotFoundError:
        return IGNORED
    return (*IGNORED, *(line.strip().rstrip("/") for line in lines if line.strip() and not line.startswith("#")))


def _files(root: Path, ignored: Sequence[str], refusals: list[Refusal]) -> Iterator[str]:
    """Yield the paths to pack, relative to `root`; what must not be packed goes to `refusals`."""
    for at, folders, files in os.walk(root):
        here = Path(at).relative_to(root)
        for name in (*folders, *files):
            path = (here / name).as_posix()
            if _matches(path, ignored):
                if name in folders:
                    folders.remove(name)
            elif (refusal := _refused(root, path)) is not None:
                refusals.append(refusal)
                if name in folders:
                    folders.remove(name)
            elif name in files:
                yield path


def _matches(path: str, patterns: Sequence[str]) -> bool:
    name = PurePosixPath(path).name
    return any(fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _refused(root: Path, path: str) -> Refusal | None:
    whole = root / path
    if not path.isprintable():
        return Refusal(ascii(path), "BAD_NAME", "its name holds a character that is not printable: rename it")
    if _matches(path, SECRETS) and not _matches(path, NO_SECRETS):
        told = f"looks like a file of secrets: move it out of the folder, or name it in {IGNORE_FILE}"
        return Refusal(path, "SECRET_FILE", told)
    if whole.is_symlink() and not whole.resolve().is_relative_to(root):
        told = f"is a link that leads out of the folder: put the file here, or name the link in {IGNORE_FILE}"
        return Refusal(path, "LINK_LEAVES_FOLDER", told)
    if whole.is_symlink() and not whole.is_file():
        told = f"is a link to a folder or to nothing: put the files here, or name the link in {IGNORE_FILE}"
        return Refusal(path, "LINK_TO_FOLDER", told)
    if not whole.is_file() and not whole.is_dir():
        return Refusal(path, "NO_FILE", f"is neither a file nor a folder: name it in {IGNORE_FILE}")
    return None


def _too_much(sizes: dict[str, int]) -> list[Refusal]:
    whole = sum(sizes.values())
    if len(sizes) > MOST_FILES:
        told = f"holds {len(sizes)} files, at most {MOST_FILES} are packed: name what is no code in {IGNORE_FILE}"
        return [Refusal(".", "TOO_LARGE", told)]
    if whole > MOST_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST_TOLD]
        listed = ", ".join(f"{name} ({sizes[name]} bytes)" for name in largest)
        told = f"holds {whole} bytes, at most {MOST_BYTES} are packed; largest: {listed}: name data in {IGNORE_FILE}"
        return [Refusal(".", "TOO_LARGE", told)]
    return []


def unpack(tar: Path, digest: str, below: Path) -> Path:
    """Return the folder of a tar's files, `below`/`digest`: made once, whole or not at all, however many ask for it.

    Raises CodeRefused if the tar is not the one of that digest or holds anything but plain files; FileNotFoundError.
    """
    made = below / digest
    if made.is_dir():
        return made
    if digest_of(tar) != digest:
        raise CodeRefused([Refusal(tar.name, "DIGEST_DIFFERS", f"is not what it was packed as, {digest}: apply again")])
    below.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=below))
    try:
        _extract(tar, beside)
        beside.rename(made)
    except OSError:
        # Somebody else was first: a folder that holds files is never replaced.
        if not made.is_dir():
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return made


def code_path(artifacts: Path, namespace: str, digest: str, suffix: str = "tar") -> Path:
    """Return where the packed code of a project lies in the artifact store: nobody runs another project's."""
    return artifacts / "code" / namespace / f"{digest}.{suffix}"


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_tar(data: bytes) -> None:
    """Raise CodeRefused for bytes that `unpack` would refuse.  Writes nothing."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as opened:
            _members(opened)
    except (tarfile.TarError, ValueError, EOFError) as error:
        if isinstance(error, CodeRefused):
            raise
        raise CodeRefused([Refusal("the file", "NO_TAR", "is no tar: `ma pipeline apply` packs one")]) from None


def _extract(tar: Path, folder: Path) -> None:
    with tarfile.open(tar, "r:") as opened:
        for member in _members(opened):
            opened.extract(member, folder, filter="data")


def _members(opened: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return the files in a tar.  Raises CodeRefused if it holds anything else, or too much."""
    members = opened.getmembers()
    for member in members:
        if not _is_plain(member):
            told = "is no plain file below the folder: it was not packed by this platform"
            raise CodeRefused([Refusal(member.name, "NO_FILE", told)])
    if len(members) > MOST_FILES or sum(member.size for member in members) > MOST_BYTES:
        raise CodeRefused([Refusal(".", "TOO_LARGE", f"unpacks to more than {MOST_BYTES} bytes")])
    return members


def _is_plain(member: tarfile.TarInfo) -> bool:
    path = PurePosixPath(member.name)
    return member.isfile() and not path.is_absolute() and ".." not in path.parts
