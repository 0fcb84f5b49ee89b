"""What people see of pipelines in Python in Airflow's pages: the form, steps in loops, a failure, events.

`MA_SCREENSHOTS=docs/images pytest -m robustness tests/e2e/test_authored_pages.py` also writes the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from api.client import Client
from api.gen.michelangelo.api.v2 import pipeline_pb2
from tests.e2e.browsing import browser, opened, shoot
from tests.e2e.conftest import ROOT, Ma
from tests.e2e.flights_platform import eventually
from tests.e2e.guide import Guide

__all__ = ["browser"]
pytestmark = pytest.mark.robustness
PATIENCE_S = 900
SUBSCRIPTION = """\
apiVersion: michelangelo.platform/v1
kind: Subscription
metadata: {name: when-both, namespace: authored}
spec:
  pipeline: {name: sweep}
  within: 3600s
  events:
    - {name: weather.loaded}
    - {name: cities.checked}
"""


@pytest.fixture
def page(browser: Browser, ma: Ma) -> Iterator[Page]:
    """A page of Airflow's."""
    with opened(browser, ma.config) as page:
        yield page


def shown(ma: Ma, project: str, name: str) -> None:
    """Wait until Airflow has the DAG of a pipeline: a page that is opened before says that there is none, for good."""
    ready = pipeline_pb2.PIPELINE_STATE_READY
    with Client.of(ma.config) as api:
        eventually(lambda: api.get("Pipeline", project, name).status.state == ready, name, timeout_s=PATIENCE_S)


@pytest.fixture(scope="module")
def bakery(ma: Ma, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline of the guide from a notebook to a schedule, applied."""
    folder = tmp_path_factory.mktemp("bakery")
    Guide("from-notebook.md").write(folder)
    for words in (("apply", "-f", f"{folder}/project.yaml"), ("pipeline", "apply", "-f", f"{folder}/demand.yaml")):
        ended = ma(*words, timeout_s=PATIENCE_S)
        assert ended.code == 0, ended.err
    shown(ma, "bakery", "demand")
    return folder


@pytest.fixture(scope="module")
def sweep(ma: Ma) -> None:
    """The example of a loop within a loop, applied."""
    for words in (("apply", "-f"), ("pipeline", "apply", "-f")):
        file = "project.yaml" if words[0] == "apply" else "sweep/pipeline.yaml"
        ended = ma(*words, str(ROOT / "examples" / "authored" / file), timeout_s=PATIENCE_S)
        assert ended.code == 0, ended.err
    shown(ma, "authored", "sweep")


def ran(ma: Ma, project: str, pipeline: str, name: str, *settings: str) -> str:
    """Run a pipeline to its end and return its DAG run's page."""
    given = [word for setting in settings for word in ("--set", setting)]
    ma("pipeline", "run", pipeline, "-n", project, "--name", name, "--wait", *given, timeout_s=PATIENCE_S)
    with Client.of(ma.config) as api:
        status = api.get("PipelineRun", project, name).status
    return f"/dags/{status.workflow_id}/runs/{status.workflow_run_id}"


def test_the_form_asks_in_the_order_of_the_signature_and_says_what_for(ma: Ma, page: Page, bakery: Path) -> None:
    page.goto("/dags/bakery.demand")
    expect(page.get_by_text("weekdays").first).to_be_visible()
    page.get_by_role("button", name="Trigger").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("how many of the last days are kept for the test")).to_be_visible()
    text = dialog.inner_text()
    assert sorted(("Days", "Tested", "Seed"), key=text.index) == ["Days", "Tested", "Seed"]
    shoot(page, "airflow-parameters")


def test_a_failure_shows_its_line(ma: Ma, page: Page, bakery: Path) -> None:
    run = ran(ma, "bakery", "demand", "pages-failed", "days=-1")
    page.goto(f"{run}/tasks/sales")
    expect(page.get_by_text("out of bounds").first).to_be_visible()
    expect(page.get_by_text("demand.py").first).to_be_visible()


def test_loops_are_groups_and_instances_have_their_place(ma: Ma, page: Page, sweep: None) -> None:
    page.goto(ran(ma, "authored", "sweep", "pages-sweep", "count=4"))
    expect(page.get_by_text("PipelineRun authored/pages-sweep").first).to_be_visible()
    page.get_by_label("Graph").first.click()
    page.get_by_label("Expand all").first.click()
    expect(page.get_by_text("of_city.fit [7]").first).to_be_visible()
    expect(page.get_by_text("[3][0]").first).to_be_visible()
    shoot(page, "airflow-steps")


def test_events_are_assets_with_who_waits_for_them(ma: Ma, page: Page, sweep: None, tmp_path: Path) -> None:
    (tmp_path / "both.yaml").write_text(SUBSCRIPTION)
    assert ma("apply", "-f", f"{tmp_path}/both.yaml").code == 0
    assert ma("event", "publish", "weather.loaded", "-n", "authored", "--set", "rows=7").code == 0
    page.goto("/assets")
    expect(page.get_by_text("authored/weather.loaded").first).to_be_visible()
    page.get_by_text("authored/weather.loaded").first.click()
    page.get_by_role("button", name="1 Task").last.click()
    expect(page.get_by_text("when-both").first).to_be_visible()
