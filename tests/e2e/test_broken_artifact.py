"""A model that fails its checks is not rolled out: the old one answers all the while."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from api.gen.michelangelo.api.v2 import deployment_pb2
from api.kinds import kinds
from tests.e2e.flights_platform import PROJECT, Flights, eventually
from tests.e2e.test_flights import request

CLIENTS = 4


class Load:
    """Clients that ask all the time and count what is not an answer."""

    def __init__(self, flights: Flights) -> None:
        self._flights = flights
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        self.answered = 0
        self.failed: list[str] = []
        self.versions: set[str] = set()

    def _ask(self) -> None:
        import httpx

        url = f"{self._flights.config.serving_url}/v2/models/{PROJECT}.late/infer"
        with httpx.Client(timeout=10) as http:
            while not self._stop.is_set():
                try:
                    answer = http.post(url, json=request())
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                if answer.status_code != 200:
                    self.failed.append(answer.text)
                    continue
                self.answered += 1
                self.versions.add(answer.json()["model_version"])

    def more(self) -> None:
        """Wait for some more answers."""
        before = self.answered
        eventually(lambda: self.answered > before + 50, "50 answers")

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def copy_of(flights: Flights, name: str, folder: Path) -> Any:
    """Create Model `name` whose artifact is a copy, in `folder`, of the one that serves."""
    model = flights.api.get("Model", PROJECT, "late-1")
    shutil.copytree(model.spec.deployable_artifact_uri[0].removeprefix("file://"), folder)
    made = kinds()["Model"].new(PROJECT, name)
    made.spec.CopyFrom(model.spec)
    made.spec.deployable_artifact_uri[0] = folder.as_uri()
    return made


def desire(flights: Flights, revision: str) -> None:
    eventually(lambda: flights.api.find("Revision", PROJECT, revision), f"revision {revision}")
    found = flights.api.get("Deployment", PROJECT, "late")
    found.spec.desired_revision.name = revision
    flights.api.update(found)


def until_stage(flights: Flights, stage: Any, revision: str) -> Any:
    def reached() -> Any:
        found = flights.api.get("Deployment", PROJECT, "late")
        current = found.status.candidate_revision if stage != COMPLETE else found.status.current_revision
        return found if found.status.stage == stage and current.name == revision else None

    return eventually(reached, f"stage {stage} of {revision}", timeout_s=90)


FAILED = deployment_pb2.DEPLOYMENT_STAGE_ROLLOUT_FAILED
COMPLETE = deployment_pb2.DEPLOYMENT_STAGE_ROLLOUT_COMPLETE


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("flipped-byte", lambda folder: (folder / "model.onnx").write_bytes(b"x"), "DIGEST_MISMATCH"),
        ("no-manifest", lambda folder: (folder / "manifest.json").unlink(), "MALFORMED_ARTIFACT"),
        ("pickle", lambda folder: (folder / "model.pkl").write_bytes(b"cos\n"), "UNSAFE_FORMAT"),
        ("gone", shutil.rmtree, "ARTIFACT_NOT_FOUND"),
    ],
)
def test_a_broken_artifact_leaves_the_old_model_answering(
    flights: Flights, tmp_path: Path, name: str, damage: Any, reason: str
) -> None:
    serving = flights.api.get("Deployment", PROJECT, "late").status.current_revision.name
    model = copy_of(flights, name, tmp_path / "artifact")
    damage(tmp_path / "artifact")
    flights.api.create(model)
    with Load(flights) as load:
        load.more()
        desire(flights, name)
        found = until_stage(flights, FAILED, name)
        load.more()
    assert load.failed == []
    assert load.versions == {serving}
    assert found.status.state == deployment_pb2.DEPLOYMENT_STATE_HEALTHY
    assert found.status.current_revision.name == serving
    assert reason in {condition.reason for condition in found.status.conditions}
    assert found.status.message


def test_a_sound_model_takes_over_without_a_failed_request(flights: Flights, tmp_path: Path) -> None:
    serving = flights.api.get("Deployment", PROJECT, "late").status.current_revision.name
    flights.api.create(copy_of(flights, "sound", tmp_path / "artifact"))
    with Load(flights) as load:
        load.more()
        desire(flights, "sound")
        until_stage(flights, COMPLETE, "sound")
        load.more()
    desire(flights, serving)
    until_stage(flights, COMPLETE, serving)
    assert load.failed == []
    assert load.versions == {serving, "sound"}
