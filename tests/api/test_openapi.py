"""The OpenAPI documents say what the server does: schemathesis sends what they allow and what they do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from api.http import discovery, openapi
from api.kinds import kinds
from tests.api.http_running import ROOT, HttpServed
from tests.robustness.results import told

CHECKOUT = Path(__file__).resolve().parents[2]
TOKEN = "schemathesis-0123456789"
# That every object of the right shape is accepted cannot be promised: names must be free, projects must exist.
LEFT_OUT = "positive_data_acceptance"
LEAST_REQUESTS = 20_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpServed]:
    made = HttpServed(tmp_path / "store.db", token=TOKEN)
    made.done("POST", f"{ROOT}/projects", {"metadata": {"name": "example"}})
    pipeline = {"metadata": {"name": "train"}, "spec": {"manifest": {"filePath": "train_and_deploy"}}}
    made.done("POST", f"{ROOT}/namespaces/example/pipelines", pipeline)
    yield made
    made.close()


def checked(server: HttpServed, folder: Path, *arguments: str, timeout_s: float) -> str:
    """Run schemathesis on a server; returns what it told.  It must find nothing."""
    program = str(Path(sys.executable).parent / "schemathesis")
    command = [program, "run", f"{server.url}/openapi.json", "--no-color", "-H", f"Authorization: Bearer {TOKEN}"]
    ended = subprocess.run(
        [*command, "--exclude-checks", LEFT_OUT, "--max-response-time", "5", "--seed", "1", *arguments],
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.api.openapi_hooks", "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    told = str(ended.stdout)
    assert ended.returncode == 0, told[-6000:] + str(ended.stderr)[-2000:]
    return told


def test_some_hundred_requests_find_nothing(server: HttpServed, tmp_path: Path) -> None:
    told = checked(server, tmp_path, "--phases", "examples,fuzzing,stateful", "-n", "1", timeout_s=100)
    assert "failed" not in told
    assert server.asked > 200


@pytest.mark.parametrize(("tag", "least"), [("RoleBinding", 500), ("platform", 100)])
def test_every_corner_of_a_kind_finds_nothing(server: HttpServed, tmp_path: Path, tag: str, least: int) -> None:
    checked(server, tmp_path, "--phases", "coverage", "--include-tag", tag, timeout_s=60)
    assert server.asked > least


@pytest.mark.robustness
def test_twenty_thousand_requests_find_nothing(server: HttpServed, tmp_path: Path) -> None:
    checked(server, tmp_path, "--phases", "examples,coverage,fuzzing,stateful", "-n", "5", timeout_s=3000)
    assert server.asked >= LEAST_REQUESTS
    told("G18", "schemathesis finds no server error and no answer beside the document", trials=server.asked)
    assert server.done("GET", f"{ROOT}/projects/example")["metadata"]["name"] == "example"


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)


@pytest.mark.parametrize("made", [openapi.document, lambda: openapi.group("michelangelo.api/v2")], ids=["3.1", "3.0"])
def test_every_reference_leads_somewhere(made: Any) -> None:
    document = made()
    for found in set(references(document)):
        here = document
        for part in found.removeprefix("#/").split("/"):
            here = here[part]
        assert here


def test_every_schema_is_one() -> None:
    document = openapi.document()
    jsonschema.Draft202012Validator.check_schema({"$defs": document["components"]["schemas"]})


def test_every_verb_of_every_kind_is_described() -> None:
    described = {
        operation["operationId"]
        for path in openapi.document()["paths"].values()
        for method, operation in path.items()
        if method != "parameters"
    }
    for kind in kinds().values():
        for verb in ("create", "read", "replace", "patch", "delete", "deleteCollection", "list"):
            assert f"{verb}Namespaced{kind.name}" in described
        assert f"list{kind.name}ForAllNamespaces" in described


def test_every_path_that_is_described_is_served(server: HttpServed) -> None:
    for path, described in openapi.document()["paths"].items():
        filled = re.sub(r"\{\w+\}", "example", path)
        for method in described:
            if method != "parameters":
                answer = server.send(method.upper(), f"{filled}?dryRun=All" if method == "delete" else filled)
                assert answer.status_code != 405, (method, path)
                assert "NO_ROUTE" not in answer.text, (method, path)


def test_what_is_stored_fits_its_schema(server: HttpServed) -> None:
    document = openapi.document()
    stored = server.done("GET", f"{ROOT}/namespaces/example/pipelines/train")
    schema = {"$ref": "#/components/schemas/michelangelo.api.v2.Pipeline", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(stored)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(stored | {"spec": {"typ": 1}})


def test_the_index_changes_with_its_documents(server: HttpServed) -> None:
    paths = server.done("GET", "/openapi/v3")["paths"]
    assert set(paths) == {"api/v1", *(f"apis/{name}" for name in discovery.group_versions())}
    for found in paths.values():
        assert re.search(r"\?hash=[0-9A-F]{32}$", found["serverRelativeURL"])
        assert server.done("GET", found["serverRelativeURL"])["openapi"] == "3.0.0"
