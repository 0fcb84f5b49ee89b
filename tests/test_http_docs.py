"""What docs/http.md shows works: its commands run, one after the other, against a server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.http import certificate
from tests.api import kubectl_tool
from tests.api.http_running import HttpServed
from tests.pages import blocks_in

# The first block says where the user's own server is.
BLOCKS = blocks_in("sh", "docs/http.md")[1:]
TOKEN = "docs-0123456789abcdef"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServed]:
    home = tmp_path_factory.mktemp("docs")
    made = HttpServed(home / "store.db", token=TOKEN, own=certificate.own(home / "run"))
    yield made
    made.close()


def test_every_command_works(server: HttpServed, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").symlink_to(kubectl_tool.installed())
    environ = {
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "MA_HOME": str(server.path.parent),
        "MA_API_HTTP_PORT": str(server.port),
        "MA_TOKEN": TOKEN,
        "API": server.url,
        "TOKEN": TOKEN,
    }
    told = ""
    for block in BLOCKS:
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, f"{block}\n{ended.stdout}{ended.stderr}"
        told += ended.stdout
    assert "project.michelangelo.api/shop created" in told
    assert "pipeline.michelangelo.api/train serverside-applied" in told
    assert '"owner":"ann"' in told
    assert '{"type":"ADDED","object":{"apiVersion":"michelangelo.api/v2","kind":"PipelineRun"' in told
    assert '"hits":[{' in told
