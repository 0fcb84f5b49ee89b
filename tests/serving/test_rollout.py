"""A rollout switches at once or not at all: a revision that fails a check never answers, and the old one goes on."""

import json
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from operators.features.artifact import load
from tests.serving import artifacts
from tests.serving.conftest import Stage
from tests.serving.running import ID, TOKEN, Server, request

Damage = Callable[[Path], object]


def rewritten(name: str, change: Callable[[Any], Any]) -> Damage:
    """Change a JSON file and write a manifest that agrees with it."""

    def damage(folder: Path) -> None:
        content = dict(load(folder.as_uri()).files)
        content[name] = json.dumps(change(json.loads(content[name]))).encode()
        artifacts.write(folder, content)

    return damage


def replaced(name: str, new: bytes) -> Damage:
    """Change a file and write a manifest that agrees with it."""
    return lambda folder: artifacts.write(folder, {**load(folder.as_uri()).files, name: new})


def golden(found: Any) -> Any:
    found["expected"][3] += 0.01
    return found


def without_column(found: Any) -> Any:
    del found["columns"]["distance"]
    return found


def without_rows(found: Any) -> Any:
    return {**found, "expected": [], "columns": {name: [] for name in found["columns"]}}


def other_key(found: Any) -> Any:
    found["views"][0]["join_keys"][0]["input"] = "airport"
    return found


def without_view(found: Any) -> Any:
    return {**found, "views": found["views"][1:]}


def without_distance(found: Any) -> Any:
    return {**found, "inputs": [item for item in found["inputs"] if item["name"] != "distance"]}


def tampered(folder: Path) -> None:
    path = folder / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


BROKEN: list[tuple[str, Damage, str, str]] = [
    ("one bit", tampered, "DIGEST_MISMATCH", "model.onnx"),
    ("missing", lambda folder: (folder / "graph.json").unlink(), "MALFORMED_ARTIFACT", "missing graph.json"),
    ("extra", lambda f: (f / "run.py").write_text("1"), "MALFORMED_ARTIFACT", "run.py"),
    ("pickle", lambda f: (f / "a.pkl").write_bytes(pickle.dumps(1)), "UNSAFE_FORMAT", "a.pkl"),
    ("no manifest", lambda f: (f / "manifest.json").unlink(), "MALFORMED_ARTIFACT", "manifest.json"),
    ("golden", rewritten("golden.json", golden), "GOLDEN_MISMATCH", "1 of 24 golden rows differ"),
    ("golden column", rewritten("golden.json", without_column), "MALFORMED_ARTIFACT", "distance"),
    ("golden rows", rewritten("golden.json", without_rows), "MALFORMED_ARTIFACT", "no rows"),
    ("no onnx", replaced("model.onnx", b"not a model"), "MALFORMED_ARTIFACT", "model.onnx cannot be loaded"),
    ("pickled onnx", replaced("model.onnx", pickle.dumps({"a": 1})), "MALFORMED_ARTIFACT", "model.onnx"),
    ("no graph", replaced("graph.json", b"[]"), "MALFORMED_ARTIFACT", "graph"),
    ("no json", replaced("features.json", b"{"), "MALFORMED_ARTIFACT", "features.json is not JSON"),
    ("unknown key", rewritten("features.json", other_key), "MALFORMED_ARTIFACT", "airport"),
    ("feature that is not joined", rewritten("features.json", without_view), "MALFORMED_ARTIFACT", "temp"),
    ("input that nobody sends", rewritten("signature.json", without_distance), "MALFORMED_ARTIFACT", "distance"),
    ("signature", replaced("signature.json", b'{"inputs": 7}'), "MALFORMED_ARTIFACT", "signature.json"),
]


def test_broken_artifacts_fail_and_the_old_revision_goes_on(own_server: Server, stage: Stage, tmp_path: Path) -> None:
    own_server.deploy(stage.first, "one", 1)
    before = own_server.infer(request()).document["outputs"]
    for number, (title, damage, reason, text) in enumerate(BROKEN, 2):
        folder = tmp_path / f"broken{number}"
        artifacts.write(folder, load(stage.second).files)
        damage(folder)
        found = own_server.deploy(folder.as_uri(), f"broken-{number}", number)
        assert (found["state"], found["reason"]) == ("FAILED", reason), title
        assert text in found["message"], title
        assert str(tmp_path) not in found["message"]
        assert found["current"]["revision"] == "one"
        assert found["candidate"]["revision"] == f"broken-{number}"
        assert own_server.infer(request()).document["outputs"] == before
    assert own_server.deploy(stage.second, "two", 100)["state"] == "READY"
    assert own_server.infer(request()).document["model_version"] == "two"


def test_nothing_at_the_address_fails(own_server: Server, tmp_path: Path) -> None:
    found = own_server.deploy((tmp_path / "nowhere").as_uri(), "one", 1)
    assert (found["state"], found["reason"], found["current"]) == ("FAILED", "ARTIFACT_NOT_FOUND", None)
    assert own_server.infer(request()).status == 503


def test_a_failed_revision_is_tried_again_by_a_newer_generation(
    own_server: Server, stage: Stage, tmp_path: Path
) -> None:
    folder = tmp_path / "late"
    assert own_server.deploy(folder.as_uri(), "one", 1)["state"] == "FAILED"
    artifacts.write(folder, load(stage.first).files)
    assert own_server.deploy(folder.as_uri(), "one", 1)["state"] == "FAILED", "the same wish changes nothing"
    assert own_server.deploy(folder.as_uri(), "one", 2)["state"] == "READY"


def test_the_wish_for_what_answers_gives_up_a_failed_candidate(own_server: Server, stage: Stage) -> None:
    own_server.deploy(stage.first, "one", 1)
    assert own_server.deploy("file:///nowhere", "two", 2)["state"] == "FAILED"
    found = own_server.deploy(stage.first, "one", 3)
    assert (found["state"], found["current"]["revision"], found["candidate"]) == ("READY", "one", None)
    assert (found["reason"], found["message"], found["generation"]) == ("", "", 3)


def test_an_older_wish_is_refused(own_server: Server, stage: Stage) -> None:
    own_server.deploy(stage.second, "two", 5)
    found = own_server.put(stage.first, "one", 4)
    assert (found.status, found.document["reason"]) == (409, "STALE_GENERATION")
    assert own_server.state()["current"]["revision"] == "two"


def test_a_deleted_deployment_is_gone_and_deleting_it_again_is_no_error(own_server: Server, stage: Stage) -> None:
    own_server.deploy(stage.first, "one", 7)
    for _ in range(2):
        assert own_server.call("DELETE", f"/admin/deployments/{ID}", token=TOKEN).status == 204
        assert own_server.infer(request()).status == 404
    assert own_server.deploy(stage.first, "one", 1)["state"] == "READY", "its generations begin anew"


@pytest.mark.parametrize("swaps", [6])
def test_a_swap_under_load_fails_no_request_and_goes_forward_only(own_server: Server, stage: Stage, swaps: int) -> None:
    own_server.deploy(stage.first, "0", 1)
    ending = threading.Event()
    seen: list[list[int]] = [[] for _ in range(4)]
    wrong: list[bytes] = []

    def ask(mine: list[int]) -> None:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", own_server.port, timeout=10)
        body = json.dumps(request())
        while not ending.is_set():
            connection.request("POST", f"/v2/models/{ID}/infer", body)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status == 200:
                mine.append(int(json.loads(content)["model_version"]))
            else:
                wrong.append(content)
        connection.close()

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    for number in range(1, swaps + 1):
        time.sleep(0.1)
        uri = stage.second if number % 2 else stage.first
        assert own_server.deploy(uri, str(number), number + 1)["state"] == "READY"
    time.sleep(0.1)
    ending.set()
    for thread in threads:
        thread.join(timeout=10)
    assert wrong == []
    for mine in seen:
        assert len(mine) > 50
        assert mine == sorted(mine)
        assert set(mine) == set(range(swaps + 1))
