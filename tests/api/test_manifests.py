"""Files that Airflow parses: whole, only written when they change, and never outside their folders."""

import ast
import json
import os
from pathlib import Path
from typing import Any

import pytest

from api.config import Config
from api.manifests import Manifests

PIPELINE = {"project": "flights", "name": "train", "params": {"rows": 1}}


def test_an_unchanged_manifest_is_not_written_again(tmp_path: Path) -> None:
    config = Config(home=tmp_path, projects_root=tmp_path)
    manifests = Manifests(config)
    assert manifests.write_pipeline(PIPELINE)
    path = config.manifests_path / "flights" / "train.json"
    before = path.stat()
    assert not manifests.write_pipeline(PIPELINE)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert manifests.write_pipeline({**PIPELINE, "params": {"rows": 2}})
    assert path.stat().st_ino != before.st_ino, "it is replaced, not written over"
    assert [file.name for file in path.parent.iterdir()] == ["train.json"]


def test_what_a_loss_of_power_left_of_a_file_is_written_anew(tmp_path: Path) -> None:
    config = Config(home=tmp_path, projects_root=tmp_path)
    manifests = Manifests(config)
    manifests.write_project("flights")
    manifests.write_pipeline(PIPELINE)
    paths = [config.dags_path / "flights.py", config.manifests_path / "flights" / "train.json"]
    whole = [path.read_bytes() for path in paths]
    for left in (b"", whole[0][:20], b"\0" * len(whole[0]), b"\xff\xfe"):
        for path in paths:
            path.write_bytes(left)
        assert manifests.write_project("flights")
        assert manifests.write_pipeline(PIPELINE)
        assert [path.read_bytes() for path in paths] == whole


def test_writing_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hold(descriptor: int) -> None:
        raise AssertionError("the loop would stand still as long as the disk does")

    for name in ("fsync", "fdatasync", "sync"):
        monkeypatch.setattr(os, name, hold)
    manifests = Manifests(Config(home=tmp_path, projects_root=tmp_path))
    assert manifests.write_project("flights")
    assert manifests.write_pipeline(PIPELINE)
    assert manifests.write_trigger({**PIPELINE, "pipeline": "train", "name": "nightly"})


def test_a_manifest_is_the_same_text_each_time_and_its_graph_as_its_author_wrote_it(tmp_path: Path) -> None:
    config = Config(home=tmp_path, projects_root=tmp_path)
    manifests = Manifests(config)
    graph: dict[str, Any] = {"params": {"properties": {"rows": {}, "date": {}, "model": {}}}}
    assert manifests.write_pipeline({**PIPELINE, "params": {"b": 1, "a": 2}, "graph": graph})
    assert not manifests.write_pipeline({"graph": graph, **PIPELINE, "params": {"a": 2, "b": 1}})
    written = json.loads((config.manifests_path / "flights" / "train.json").read_text())
    assert list(written["graph"]["params"]["properties"]) == ["rows", "date", "model"]


def test_a_project_file_is_python_that_names_its_project(tmp_path: Path) -> None:
    config = Config(home=tmp_path, projects_root=tmp_path)
    manifests = Manifests(config)
    assert manifests.write_project("my-flights.v2")
    assert not manifests.write_project("my-flights.v2")
    text = (config.dags_path / "my-flights.v2.py").read_text()
    ast.parse(text)
    assert 'dags_of_project("my-flights.v2")' in text


def test_removing_twice_is_no_error_and_leaves_nothing(tmp_path: Path) -> None:
    config = Config(home=tmp_path, projects_root=tmp_path)
    manifests = Manifests(config)
    manifests.write_project("flights")
    manifests.write_pipeline(PIPELINE)
    manifests.write_trigger({**PIPELINE, "pipeline": "train", "name": "nightly"})
    assert manifests.remove_trigger("flights", "train", "nightly")
    assert not manifests.remove_trigger("flights", "train", "nightly")
    assert manifests.remove_pipeline("flights", "train")
    assert not manifests.remove_pipeline("flights", "train")
    manifests.remove_project("flights")
    manifests.remove_project("flights")
    assert not list(tmp_path.rglob("*flights*"))
