"""The packed code of projects in the artifact store: a folder, or any store that fsspec reaches.  Runs nothing.

Each file is named by its SHA-256 below its project: nobody runs another project's code.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from api.artifact_urls import below
from api.blob_files import Files, LocalFiles, RemoteFiles
from api.code_tar import CodeRefused, Refusal, unpack

FOLDER = "code"
DAY_S = 86_400
# What is noted of files, beside the projects: no project's name has a capital letter.
WANTED, UNUSED = "WANTED", "UNUSED"


def files_at(url: str) -> Files:
    """Return the files below a path or a URL.  Raises ValueError for a URL that cannot be used."""
    if "://" in url and not url.startswith("file://"):
        return RemoteFiles(url)
    return LocalFiles(Path(url.removeprefix("file://")))


class CodeStore:
    """Packed code below the artifact store's `url`.  Methods raise OSError while it does not answer."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self._url = below(url, FOLDER)
        self._clock = clock

    def uri(self, project: str, digest: str, suffix: str = "tar") -> str:
        """Return where a file is; no options of the store, which may be secret."""
        place = below(self._url, f"{project}/{digest}.{suffix}")
        return place.partition("?")[0] if urlsplit(place).scheme else Path(place).absolute().as_uri()

    def put(self, project: str, digest: str, data: bytes, suffix: str = "tar") -> str:
        """Store a file and return its URI."""
        self._files().write(f"{project}/{digest}.{suffix}", data)
        return self.uri(project, digest, suffix)

    def has(self, project: str, digest: str, suffix: str = "tar") -> bool:
        """Whether a file is there."""
        return self._files().has(f"{project}/{digest}.{suffix}")

    def today(self) -> int:
        """Return the number of days since 1970."""
        return int(self._clock()) // DAY_S

    def want(self, project: str, digest: str, suffix: str = "tar") -> None:
        """Note that somebody is about to use a file: it is not removed in the next days, used or not."""
        self.note(WANTED, f"{project}/{digest}.{suffix}")

    def note(self, mark: str, name: str) -> None:
        """Note something of a file today."""
        self._files().write(f"{mark}/{self.today()}/{name}", b"")

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of all files and notes, `project/digest.suffix` and `MARK/day/project/digest.suffix`."""
        return list(self._files().names(prefix))

    def read(self, name: str) -> bytes:
        """Return a file by its name.  Raises FileNotFoundError."""
        return self._files().read(name)

    def write(self, name: str, data: bytes) -> None:
        """Store a file under its name."""
        self._files().write(name, data)

    def remove(self, name: str) -> None:
        """Remove a file or a note, if it is there."""
        self._files().remove(name)

    def unpacked(self, project: str, digest: str, folder: Path) -> Path:
        """Return the folder `folder`/`digest` with the files of a tar, made once however many ask for it.

        Raises FileNotFoundError if the tar is not stored, CodeRefused if it is not what its name says.
        """
        made = folder / digest
        if made.is_dir():
            return made
        data = self._files().read(f"{project}/{digest}.tar")
        if hashlib.sha256(data).hexdigest() != digest:
            told = f"is not what it was packed as, {digest}: apply again"
            raise CodeRefused([Refusal(f"{digest}.tar", "DIGEST_DIFFERS", told)])
        with tempfile.NamedTemporaryFile(suffix=".tar") as tar:
            tar.write(data)
            tar.flush()
            return unpack(Path(tar.name), digest, folder)

    def _files(self) -> Files:
        return files_at(self._url)
