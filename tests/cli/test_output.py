"""Tables, durations and predictions as people see them."""

import os
import shutil
import sys

import pytest

from api.cli import airflow_env, keys, output, predict
from api.cli.report import tables
from api.config import Config
from api.gen.michelangelo.api.v2 import evaluation_report_pb2, pipeline_run_pb2
from api.messages import enums

ROWS = [["a", "x" * 200, "1"], ["bb", "y", "22"]]


def test_a_pipe_gets_everything(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["N", "TEXT", "C"], ROWS)
    assert "x" * 200 in capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_gets_rows_that_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: os.terminal_size((columns, 24)))
    output.table(["N", "TEXT", "C"], ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert "~" in lines[1]


def test_a_stored_text_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["A"], [["red \x1b[31m\nnext\r\x07"]])
    assert not set("\x1b\r\x07") & set(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (0.44, "0.4s"), (12.9, "12s"), (185, "3m05s"), (7800, "2h10m"), (356400, "4d03h"), (-3, "0.0s")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_enums_lose_their_prefix() -> None:
    run = pipeline_run_pb2.PipelineRun()
    assert enums.of(run.status, "state") == "-"
    run.status.state = pipeline_run_pb2.PIPELINE_RUN_STATE_RUNNING
    assert enums.of(run.status, "state") == "RUNNING"


def test_a_report_shows_its_tables_and_scalars() -> None:
    report = evaluation_report_pb2.EvaluationReport()
    table = report.spec.charts.add().table
    table.column_names.extend(["model", "AUC"])
    row = table.rows.add()
    row.values.add(str_value="baseline")
    row.values.add(number=0.62)
    report.spec.charts.add().scalar.scalar_name = "rows"
    assert list(tables(report)) == [
        (["model", "AUC"], [["baseline", "0.62"]]),
        (("METRIC", "VALUE"), [("rows", "0")]),
    ]


def test_flat_values_become_a_request_of_one_row() -> None:
    request = predict.request_of(
        {"carrier": "AA", "distance": 500, "rate": 0.5}, at="2013-11-01T10:00:00Z", explain=True
    )
    assert request == {
        "inputs": [
            {"name": "carrier", "datatype": "BYTES", "shape": [1], "data": ["AA"]},
            {"name": "distance", "datatype": "INT64", "shape": [1], "data": [500]},
            {"name": "rate", "datatype": "FP64", "shape": [1], "data": [0.5]},
        ],
        "parameters": {"event_timestamp": "2013-11-01T10:00:00Z", "explain_features": True},
    }


def test_a_request_of_the_protocol_is_sent_as_it_is() -> None:
    given = {"id": "1", "inputs": [{"name": "a", "datatype": "FP32", "shape": [1], "data": [1]}]}
    assert predict.request_of(given) == given


def test_an_answer_shows_the_features_that_were_joined(capsys: pytest.CaptureFixture[str]) -> None:
    predict.show(
        {
            "outputs": [{"name": "probability", "data": [0.25]}],
            "parameters": {
                "features": [
                    {
                        "view": "carrier_delays",
                        "feature": "delay_7d",
                        "value": 12.5,
                        "entity": {"carrier": "AA"},
                        "age_s": 3600,
                        "status": "PRESENT",
                    },
                    {"view": "weather", "feature": "wind", "value": None, "entity": {}, "status": "NOT_FOUND"},
                ]
            },
        }
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "probability: 0.25"
    assert lines[3].split() == ["carrier_delays", "delay_7d", "12.5", "AA", "1h00m", "PRESENT"]
    assert lines[4].split()[-1] == "NOT_FOUND"


def test_airflow_listens_on_loopback_and_keeps_its_secrets(config: Config) -> None:
    made = keys.ensure(config)
    assert keys.ensure(config) == made
    settings = airflow_env.airflow(config, made)
    assert settings["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert len(settings["AIRFLOW__API_AUTH__JWT_SECRET"]) >= 64
    assert settings["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"{config.airflow_url}/execution/"


def test_a_users_own_airflow_variables_do_not_reach_the_embedded_one(config: Config) -> None:
    inherited = {"AIRFLOW_HOME": "/elsewhere", "AIRFLOW__CORE__PARALLELISM": "99", "HOME": "/home/me"}
    environ = airflow_env.environment(config, keys.ensure(config), inherited=inherited)
    assert environ["AIRFLOW_HOME"] == str(config.airflow_home)
    assert environ["AIRFLOW__CORE__PARALLELISM"] != "99"
    assert environ["HOME"] == "/home/me"
    assert environ["MA_TOKEN"]
