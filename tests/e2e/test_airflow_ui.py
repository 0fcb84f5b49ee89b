"""What people see in Airflow's pages: the pipeline with its tags and form, its trigger with the schedule.

`MA_SCREENSHOTS=docs/images` also writes the pictures of the documentation.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browsing import browser, opened, shoot
from tests.e2e.flights_platform import PROJECT, Flights, eventually

__all__ = ["browser"]


@pytest.fixture
def page(browser: Browser, flights: Flights) -> Iterator[Page]:
    """A page of Airflow's."""
    with opened(browser, flights.config) as page:
        yield page


def test_the_pipeline_is_a_dag_with_its_tags(page: Page, flights: Flights) -> None:
    page.goto(f"/dags?tags=project:{PROJECT}")
    expect(page.get_by_text(f"{PROJECT}.train", exact=True).first).to_be_visible()
    for tag in ("pipeline", f"project:{PROJECT}", "trigger"):
        expect(page.get_by_text(tag, exact=True).first).to_be_visible()
    shoot(page, "airflow-dags")
    page.goto(f"/dags/{PROJECT}.train")
    expect(page.get_by_text("register_model").first).to_be_visible()
    expect(page.get_by_text("flights-team").first).to_be_visible()
    shoot(page, "airflow-pipeline")


def test_the_trigger_is_a_dag_with_the_schedule(page: Page, flights: Flights) -> None:
    page.goto(f"/dags/{PROJECT}.train.nightly")
    expect(page.get_by_text("0 3 * * *").first).to_be_visible()
    shoot(page, "airflow-trigger")


def test_a_run_triggered_in_the_form_is_a_pipeline_run(page: Page, flights: Flights) -> None:
    before = {run.metadata.name for run in flights.api.list("PipelineRun", PROJECT)}
    page.goto(f"/dags/{PROJECT}.train")
    page.get_by_role("button", name="Trigger").first.click()
    dialog = page.get_by_role("dialog")
    for section, titles in {"Model": ("Algorithm", "Least AUC"), "Data": ("Module", "Train until")}.items():
        dialog.get_by_role("button", name=section, exact=True).click()
        for title in titles:
            expect(dialog.get_by_text(title).first).to_be_visible()
    shoot(page, "airflow-form")
    dialog.get_by_role("button", name="Trigger").last.click()

    def started() -> Any:
        names = {run.metadata.name for run in flights.api.list("PipelineRun", PROJECT)} - before
        return names.pop() if names else None

    name = eventually(started, "a PipelineRun of the form's run", timeout_s=90)
    assert name in flights.ma("get", "pipelineruns", "-n", PROJECT).out
    assert flights.ma("pipeline-run", "kill", name, "-n", PROJECT).code == 0
    flights.until_ended(name, timeout_s=120)
