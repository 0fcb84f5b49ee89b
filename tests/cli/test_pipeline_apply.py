"""Code of pipelines in Python on its way to a server that shares no folder with the client."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from api.client import Client
from api.code_store import CodeStore
from api.config import Config
from tests.cli.conftest import Ma, use

PROJECT = "apiVersion: michelangelo.api/v2\nkind: Project\nmetadata: {name: far}\n"
PIPELINE = """\
apiVersion: michelangelo.api/v2
kind: Pipeline
metadata: {name: count, namespace: far}
spec:
  manifest: {type: PIPELINE_MANIFEST_TYPE_UNIFLOW, filePath: flow, uniflowFunction: count}
"""
FLOW = """\
from operators import pipeline, task


@task
def one(rows: int) -> int:
    return rows + 1


@pipeline(name="count")
def count(rows: int = 1) -> int:
    return one(rows)
"""


@pytest.fixture
def here(served: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
    """The configuration of a client with a home of its own, in which no platform has ever been."""
    made = replace(served, home=tmp_path / "client", projects_root=tmp_path)
    use(made, monkeypatch)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of code, under git."""
    made = tmp_path / "code"
    made.mkdir()
    for name, text in {"project.yaml": PROJECT, "count.yaml": PIPELINE, "flow.py": FLOW}.items():
        (made / name).write_text(text)
    git = ("git", "-C", str(made), "-c", "user.name=a", "-c", "user.email=a@example.com")
    for arguments in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        subprocess.run((*git, *arguments), check=True, stdin=subprocess.DEVNULL)
    return made


def test_the_server_gets_the_code_and_the_client_keeps_none(
    ma: Ma, here: Config, served: Config, folder: Path, tmp_path: Path
) -> None:
    assert ma("apply", "-f", str(folder / "project.yaml")).code == 0
    store, command = CodeStore(served.artifacts_url), ("pipeline", "apply", "-f", str(folder / "count.yaml"))
    assert ma(*command, "--dry-run").code == 0
    assert not [name for name in store.names("far") if name.endswith(".tar")], "a dry run stores nothing"
    ended = ma(*command)
    assert ended.code == 0, ended.err
    with Client.of(served) as api:
        manifest = api.get("Pipeline", "far", "count").spec.manifest
        digest = manifest.uniflow_tar.rpartition("/")[2].removesuffix(".tar")
        assert manifest.uniflow_tar == store.uri("far", digest)
        unpacked = store.unpacked("far", digest, tmp_path / "unpacked")
        assert (unpacked / "flow.py").read_text() == FLOW
        assert not here.artifacts_path.exists()
        assert ma(*command).out.splitlines()[-1] == "Pipeline count unchanged"

        (folder / "flow.py").write_text(FLOW.replace("+ 1", "+ 2"))
        ended = ma("pipeline", "dev-run", "-f", str(folder / "count.yaml"), "--detach")
        assert ended.code == 0, ended.err
        spec = api.get("PipelineRun", "far", ended.out.splitlines()[-1]).spec
        assert spec.pipeline_spec.manifest.uniflow_tar != manifest.uniflow_tar
        difference = store.read(f"far/{spec.local_diff.rpartition('/')[2]}").decode()
        assert "+    return rows + 2" in difference
        assert not here.artifacts_path.exists()
