"""What people see in Airflow's pages: the pipeline with its tags and form, its trigger with the schedule.

`MA_SCREENSHOTS=docs/images` also writes the pictures of the documentation.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.e2e.flights_platform import PROJECT, Flights, eventually

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZE = {"width": 1440, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium of this machine."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("there is no Chromium on this machine")
        pytest.skip("there is no Chromium on this machine")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, flights: Flights) -> Iterator[Page]:
    """A page whose faults fail the test."""
    opened = browser.new_page(viewport=SIZE, base_url=flights.config.airflow_url)  # type: ignore[arg-type]
    opened.set_default_timeout(30_000)
    yield opened
    opened.close()


def shoot(page: Page, name: str) -> None:
    """Write a picture if the documentation is being made."""
    folder = os.environ.get("MA_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / f"{name}.png")


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
