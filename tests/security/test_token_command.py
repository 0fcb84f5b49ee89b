"""`ma token`: what it prints once, what it keeps, and that a running server follows it."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.auth.static import digest
from api.cli.main import main
from tests.security.secured import OWNER, Secured, eventually, outcome

Ma = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ma(secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ma:
    """The command with a tokens file of its own; returns code, output and errors."""
    monkeypatch.setenv("MA_HOME", str(tmp_path))
    monkeypatch.setenv("MA_TOKENS_FILE", str(tmp_path / "run" / "tokens.json"))
    monkeypatch.setenv("MA_TOKEN", OWNER)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def kept(tmp_path: Path) -> list[dict[str, Any]]:
    tokens: list[dict[str, Any]] = json.loads((tmp_path / "run" / "tokens.json").read_text())["tokens"]
    return tokens


def test_a_token_is_printed_once_and_kept_as_a_hash(ma: Ma, tmp_path: Path) -> None:
    code, out, err = ma("token", "create", "carol", "-g", "ml", "-g", "ads", "--days", "7")
    token = out.strip()
    assert (code, len(token) >= 40) == (0, True)
    assert token not in err
    (entry,) = kept(tmp_path)
    assert (entry["name"], entry["groups"], entry["sha256"]) == ("carol", ["ml", "ads"], digest(token))
    assert entry["expires"] - entry["created"] == 7 * 86_400
    path = tmp_path / "run" / "tokens.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert token not in path.read_text()
    listed = ma("token", "list")[1]
    assert "carol" in listed
    assert token not in listed


def test_tokens_of_a_name_or_of_an_id_are_taken_back(ma: Ma, tmp_path: Path) -> None:
    for _ in range(2):
        ma("token", "create", "carol")
    ma("token", "create", "robot", "--service", "--days", "0")
    assert [entry["kind"] for entry in kept(tmp_path)] == ["user", "user", "service"]
    first = kept(tmp_path)[0]["sha256"]
    assert ma("token", "revoke", first[:12])[:2] == (0, f"1 token of {first[:12]} revoked\n")
    assert ma("token", "revoke", "carol")[0] == 0
    assert [entry["name"] for entry in kept(tmp_path)] == ["robot"]
    code, _, err = ma("token", "revoke", "carol")
    assert (code, err) == (1, "ma: no token of 'carol'; `ma token list` shows all\n")


@pytest.mark.parametrize("name", ["", "system:admins", "service:x", "a\nb", "x" * 257])
def test_a_name_that_nobody_may_have_gets_no_token(ma: Ma, name: str) -> None:
    assert ma("token", "create", name)[0] == 2
    assert ma("token", "create", "carol", "-g", name)[0] == 2


def test_a_file_that_cannot_be_read_is_not_written_over(ma: Ma, tmp_path: Path) -> None:
    ma("token", "create", "carol")
    path = tmp_path / "run" / "tokens.json"
    path.write_text("{")
    code, _, err = ma("token", "create", "dave")
    assert code == 78
    assert "is no tokens file" in err
    assert path.read_text() == "{"


def test_the_own_token_is_printed_as_the_public_client_reads_it(ma: Ma, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ma("token", "print")[1].strip() == OWNER
    assert tomllib.loads(ma("token", "print", "--public-client")[1]) == {
        "metadata": {"authorization": f"Bearer {OWNER}"}
    }
    monkeypatch.setenv("MA_TOKEN", "")
    assert ma("token", "print")[0] == 78


def test_a_running_server_follows(ma: Ma, secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_file = secured.tokens_file.read_bytes()
    monkeypatch.setenv("MA_TOKENS_FILE", str(secured.tokens_file))
    token = ma("token", "create", "erin")[1].strip()
    erin = secured.caller(token)
    began = time.monotonic()
    eventually(lambda: outcome(erin.list, "Project") == "OK")
    ma("token", "revoke", "erin")
    eventually(lambda: outcome(erin.list, "Project") == "UNAUTHENTICATED")
    assert time.monotonic() - began < 5
    assert secured.tokens_file.read_bytes() != kept_file
