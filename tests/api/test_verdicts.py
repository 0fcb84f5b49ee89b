"""The rules of verdicts, one by one, and what a verdict says beside its class. The evidence is made up."""

import json
import shlex
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli.main import app
from api.verdicts import judging as verdicts
from api.verdicts import rules as verdict_rules
from api.verdicts.facts import Facts
from api.verdicts.rules import RULES, Certainty, Class

PLACE = verdicts.Place("flights", "train", "train-1", "train", "train", replayable=True)
BEGAN = {
    "memory": {"mib": 1000, "set_by": "cgroup memory.max"},
    "code": {"files": {"flights.py": "1", "own/__init__.py": "2"}},
}
FLIGHTS = {"file": "/code/flights.py", "line": 7, "function": "examples", "text": "frame['x']"}


def link(kind: str, message: str = "", *bases: str, file: str = "/code/flights.py", **more: Any) -> dict[str, Any]:
    frame = {"file": file, "line": 7, "function": "examples", "text": ""}
    return {"type": kind, "bases": list(bases), "message": message, "frames": [frame], **more}


def raised(*chain: dict[str, Any], at: Any = None) -> dict[str, Any]:
    return {"began": BEGAN, "exception": {"chain": list(chain), **({"at": at} if at else {})}, "ended": {"code": 1}}


def killed(number: str = "SIGKILL", **more: Any) -> dict[str, Any]:
    return {"began": BEGAN, "ended": {"signal": number, "peak_mib": 100, **more}}


CASES: dict[str, dict[str, Any]] = {
    "killed-on-request": {"asked": True},
    "marked-in-airflow": {"reason": "ExternallyChanged", "message": "marked failed in Airflow"},
    "timeout-kept": killed(limit="timeout", message="it ran longer than its timeout of 5 s"),
    "memory-limit-kept": killed(limit="memory", message="it used 300 MiB, its limit is 200 MiB"),
    "memory-error": raised(link("numpy._core._exceptions._ArrayMemoryError", "", "MemoryError"), at=FLIGHTS),
    "ray-memory": raised(link("ray.exceptions.OutOfMemoryError", "node", "ray.exceptions.RayError")),
    "gpu-memory": raised(link("RuntimeError", "CUDA out of memory. Tried to allocate 2 GiB"), at=FLIGHTS),
    "kernel-killed-it": killed(oom_kills={"cgroup": 1, "machine": 1}),
    "kernel-killed-somebody": killed(oom_kills={"cgroup": 0, "machine": 2}),
    "near-its-limit": {**killed(), "curve": [[1, 950, 80]]},
    "kernel-killed-a-worker": {
        **raised(link("ray.exceptions.WorkerCrashedError")),
        "ended": {"code": 1, "oom_kills": {"cgroup": 1}},
    },
    "ray-worker-lost": raised(link("ray.exceptions.ActorDiedError", "", "ray.exceptions.RayActorError")),
    "stopped": killed("SIGTERM", asked=True),
    "interrupted": raised(link("KeyboardInterrupt"), at=FLIGHTS),
    "killed": killed(oom_kills={"cgroup": 0, "machine": 0}),
    "asked-to-end": killed("SIGTERM"),
    "native-crash": killed("SIGSEGV"),
    "disk-full": raised(link("OSError", "[Errno 28] No space left on device", errno=28), at=FLIGHTS),
    "variable-not-set": raised(link("KeyError", "'TOKEN'", file="<frozen os>"), at=FLIGHTS),
    "not-provided": raised(
        link("operators.errors.NotProvided", "the environment of x==1 cannot be built", "operators.errors.UserError")
    ),
    "secret-missing": raised(link("airflow.sdk.exceptions.AirflowNotFoundException", "The conn_id `s3` isn't defined")),
    "own-import": raised(link("ImportError", "cannot import name 'x' from 'own'", name="own"), at=FLIGHTS),
    "import": raised(link("ModuleNotFoundError", "No module named 'torch'", "ImportError", name="torch"), at=FLIGHTS),
    "airflow-timeout": raised(link("airflow.sdk.exceptions.AirflowTaskTimeout", "Timeout, PID: 1"), at=FLIGHTS),
    "run-timeout": {"reason": "Expired", "message": "older than its time to live"},
    "call-timeout": raised(link("httpx.ReadTimeout", "", "httpx.TimeoutException"), at=FLIGHTS),
    "network": raised(link("ConnectionRefusedError", "", "ConnectionError", "OSError"), at=FLIGHTS),
    "permission": raised(link("PermissionError", "[Errno 13]", "OSError", errno=13), at=FLIGHTS),
    "platform-error": raised(link("api.errors.Unavailable", "no answer", "api.errors.ApiError")),
    "input-gone": raised(link("operators.errors.InputGone", "gone", "operators.errors.UserError")),
    "data-error": raised(link("pandas.errors.ParserError", "bad line", "ValueError"), at=FLIGHTS),
    "data-library": raised(link("KeyError", "'delay'", file="pandas/_libs/index.pyx"), at=FLIGHTS),
    "missing-file": raised(link("FileNotFoundError", "rows.csv", "OSError", errno=2), at=FLIGHTS),
    "wrong-input": raised(link("operators.errors.UserError", "module 'x' has no function y()")),
    "users-line": raised(link("ZeroDivisionError", "division by zero", "ArithmeticError"), at=FLIGHTS),
    "raised-elsewhere": raised(link("AssertionError", "", file="/platform/api/x.py")),
    "refused": {"reason": "Refused", "message": "rows must be at least 1"},
    "gone": {"reason": "PipelineGone", "message": "its pipeline was deleted"},
    "engine": {"reason": "EngineRunLost", "message": "the DAG run was deleted in Airflow"},
    "heartbeat": {"events": [{"event": "heartbeat timeout", "extra": "did not emit heartbeat"}], "log": ["x"]},
    "state-mismatch": {"events": [{"event": "state mismatch", "extra": "finished with state failed"}]},
    "airflow-saw-it-die": {"log": ["Process terminated by signal. Likely out of memory error (OOM)."]},
    "own-exit": {"began": BEGAN, "ended": {"code": 7}},
    "vanished": {"began": BEGAN},
    "after-another": {"upstream": ["prepare"]},
    "said-user": {"kind": "user", "message": "no rows after the split"},
    "said-system": {"kind": "system", "message": "something"},
    "nothing-known": {},
}


def test_every_rule_has_a_case_and_a_name_of_its_own() -> None:
    assert [rule.name for rule in RULES] == list(dict.fromkeys(rule.name for rule in RULES))
    assert {rule.name for rule in RULES} == set(CASES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_decides_its_case(rule: verdict_rules.Rule) -> None:
    found = verdicts.verdict(CASES[rule.name], PLACE)
    assert (found.rule, found.found, found.certainty) == (rule.name, rule.found, rule.certainty)
    assert found.grounds[0], "a verdict says why"
    json.dumps(found.plain())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_what_a_verdict_says_to_type_is_a_command_that_there_is(rule: verdict_rules.Rule) -> None:
    plain = verdicts.verdict(CASES[rule.name], PLACE).plain()
    for command in (plain["next"], *plain["also"]):
        program, *words = shlex.split(command)
        if program != "ma":
            assert program in ("df", "python", "printenv")
            continue
        options = [word for word in words if word.startswith("--")]
        told = CliRunner().invoke(app, [*words[: 2 if words[0].startswith("pipeline") else 1], "--help"])
        assert told.exit_code == 0, command
        assert all(option in told.output for option in options), (command, told.output)


def test_a_cause_outweighs_what_was_raised_for_it() -> None:
    wrapped = raised(
        link("operators.errors.UserError", "module 'flights' cannot be imported"),
        link("ModuleNotFoundError", "No module named 'torch'", "ImportError", name="torch"),
    )
    found = verdicts.verdict(wrapped, PLACE)
    assert (found.found, found.next) == (Class.ENVIRONMENT, "python -m pip show torch")
    assert found.users, "whoever wrote the project can install it"


def test_a_kill_far_from_the_limit_is_no_lack_of_memory() -> None:
    found = verdicts.verdict(killed(), PLACE)
    assert found.found is Class.LOST_WORKER
    assert "100 of 1,000 MiB (cgroup memory.max)" in found.grounds[0]


def test_what_only_fits_is_not_called_certain() -> None:
    assert verdicts.verdict(CASES["near-its-limit"], PLACE).certainty is Certainty.LIKELY
    assert verdicts.verdict(CASES["kernel-killed-somebody"], PLACE).certainty is Certainty.LIKELY
    assert verdicts.verdict({}, PLACE).certainty is Certainty.GUESS


def test_names_in_airflows_log_have_no_package() -> None:
    bare = {"type": "TaskDeferralTimeout", "message": "Trigger timeout", "frames": []}
    assert verdicts.verdict({"exception": {"chain": [bare]}}, PLACE).found is Class.TIMEOUT
    other = {**bare, "bases": []}
    assert Facts({"exception": {"chain": [other]}}).link_of("other.package.TaskDeferralTimeout") is None


@pytest.mark.parametrize(
    "evidence",
    [
        {"exception": "text", "ended": [], "began": 1, "curve": [1, [2], "x"], "log": {}, "events": [3]},
        {"exception": {"chain": [None, {"type": 3, "bases": 5, "frames": [7], "message": None}]}},
        {"ended": {"signal": 9, "oom_kills": {"cgroup": "many"}}, "began": {"memory": {"mib": True}}},
    ],
)
def test_evidence_of_any_shape_gets_a_verdict(evidence: dict[str, Any]) -> None:
    assert verdicts.verdict(evidence, PLACE).plain()["class"]


def test_names_in_a_command_are_quoted() -> None:
    found = verdicts.verdict({}, verdicts.Place("flights", "train", "a; rm -rf ~", "t", "$(id)"))
    assert shlex.split(found.also[0])[3] == "a; rm -rf ~"
    assert shlex.split(found.also[0])[-1] == "$(id)"
