"""`ma auth` and the service behind it: it says what access would, to everybody, and who may, to administrators."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from api import errors
from api.cli.main import main
from api.client import Client
from api.kinds import kinds
from tests.security.conftest import ROLES
from tests.security.matrix import VERBS, verdict
from tests.security.objects import OF_THE_SYSTEM
from tests.security.secured import OWNER, Secured, token_of

Ma = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ma(secured: Secured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ma:
    """The command in the name of a user; returns code, output and errors."""
    monkeypatch.setenv("MA_API_PORT", secured.address.rsplit(":", 1)[1])
    monkeypatch.setenv("MA_HOME", str(secured.home))

    def run(token: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("MA_TOKEN", token)
        capsys.readouterr()
        code = main(arguments)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.mark.parametrize("who", [*ROLES, "stranger"])
def test_the_answer_is_what_the_call_would_meet(secured: Secured, project: str, who: str) -> None:
    """Compared with the table of the isolation matrix, which knows nothing of the server's."""
    with Client(secured.address, token=token_of(who)) as api:
        for kind in kinds():
            if kind in OF_THE_SYSTEM:
                continue
            for verb in VERBS:
                if verb.startswith("Delete") and kind in ("PipelineRun", "TriggerRun"):
                    continue
                told = api.can_i(verb, kind, project)
                assert told.allowed == (verdict(who, verb, kind, own=True) == "OK"), (kind, verb, told.reason)
                assert bool(told.reason) != told.allowed


def test_the_command_says_yes_or_no(ma: Ma, project: str) -> None:
    assert ma(token_of("editor"), "auth", "can-i", "create", "pipelines", "-n", project)[:2] == (0, "yes\n")
    code, out, _ = ma(token_of("viewer"), "auth", "can-i", "delete-collection", "pr", "-n", project)
    told = f"no: viewer may not DeleteCollection PipelineRun in '{project}': that needs the role editor\n"
    assert (code, out) == (1, told)
    code, out, _ = ma(token_of("stranger"), "auth", "can-i", "get", "models", "-n", project)
    assert (code, out) == (1, f"no: there is no Project '{project}': create it first\n")
    assert ma(token_of("editor"), "auth", "can-i", "devour", "models")[0] == 2
    assert ma("no-such-token", "auth", "can-i", "get", "models")[0] == 1


def test_everybody_learns_who_he_is(ma: Ma) -> None:
    assert ma(token_of("member"), "auth", "whoami")[:2] == (0, "member\n  ml\n")
    assert ma(token_of("robot"), "auth", "whoami")[:2] == (0, "service:robot\n")


def test_administrators_learn_who_may(secured: Secured, ma: Ma, project: str) -> None:
    secured.owner.bind(project, "EDITOR", "group:ml", "service:robot", name="more")
    code, out, _ = ma(token_of("admin"), "auth", "who-can", "create", "pipeline", "-n", project)
    assert code == 0
    assert out.split() == ["group:ml", "service:robot", "user:admin", "user:editor", "user:operator"]
    assert ma(OWNER, "auth", "who-can", "create", "cluster", "-n", "ma-system")[1].startswith("nobody but")
    for who in ("viewer", "editor", "operator", "stranger"):
        denied = pytest.raises((errors.PermissionDenied, errors.NotFound))
        with Client(secured.address, token=token_of(who)) as api, denied:
            api.who_can("Get", "Model", project)
