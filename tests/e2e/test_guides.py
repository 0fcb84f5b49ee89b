"""The guides to pipelines in Python on a real platform: files and commands as they are printed, in their order.

What needs no platform is run by `tests/operators/authoring/test_guide.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from api.gen.michelangelo.api.v2 import pipeline_run_pb2
from tests.e2e.conftest import Ma
from tests.e2e.flights_platform import eventually
from tests.e2e.guide import PATIENCE_S, Guide

SUCCEEDED = pipeline_run_pb2.PIPELINE_RUN_STATE_SUCCEEDED


@pytest.fixture
def api(ma: Ma) -> Iterator[Client]:
    """A client of the platform."""
    with Client.of(ma.config) as made:
        yield made


def test_the_first_pipeline_comes_to_airflow(ma: Ma, api: Client, tmp_path: Path) -> None:
    guide = Guide("pipelines.md")
    guide.begin_at("ma apply")
    told = guide.follow(ma.config, tmp_path)
    assert "Pipeline scores created" in told
    runs = api.list("PipelineRun", "games")
    assert sorted(run.spec.pipeline.name for run in runs) == ["", "scores"]
    assert {run.status.state for run in runs} == {SUCCEEDED}


def test_a_notebook_comes_to_a_schedule(ma: Ma, api: Client, tmp_path: Path) -> None:
    guide = Guide("from-notebook.md")
    guide.begin_at("ma apply")
    told = guide.follow(ma.config, tmp_path)
    assert len(re.findall(r"^\d{4}-\d\d-\d\dT0[45]:00Z$", told, re.MULTILINE)) == 2, "six in Berlin, in UTC"

    def backfilled() -> Any:
        runs = [run for run in api.list("PipelineRun", "bakery") if run.metadata.name.startswith("march-")]
        ended = len(runs) == 2 and all(run.status.HasField("end_time") for run in runs)
        return runs if ended else None

    runs = eventually(backfilled, "the runs of the first of March", timeout_s=PATIENCE_S)
    assert {run.status.state for run in runs} == {SUCCEEDED}
    assert {run.spec.input["kw_args"]["days"] for run in runs} == {90, 365}
    assert len(api.list("Revision", "bakery")) == 2
