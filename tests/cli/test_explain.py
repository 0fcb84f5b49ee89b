"""What `ma pipeline-run explain` says: 80 columns, whatever is in a verdict, and of runs that have none."""

import time
from typing import Any

import pytest

from api.cli import explain_text
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kinds import kinds
from api.verdicts import judging as verdicts

PLACE = verdicts.Place("flights", "train", "train-20260101-000000-abcd", "prepare", "prepare", replayable=True)
AT = {
    "file": "/a/very/long/path/" + "deep/" * 12 + "flights.py",
    "line": 31,
    "function": "examples",
    "source": ["  30 x = 1", "  31 " + "y" * 100, "  32 z"],
}
EVIDENCE: dict[str, Any] = {
    "began": {"memory": {"mib": 2000, "set_by": "cgroup memory.max"}},
    "ended": {"signal": "SIGKILL", "peak_mib": 1990.5},
    "curve": [[index / 10, 20 * index, index % 100] for index in range(100)],
    "exception": {"chain": [{"type": "ValueError", "bases": [], "message": "m" * 200, "frames": [AT]}], "at": AT},
    "log": ["w" * 300, "a\tb\x1b[31mred", "the end"],
}


def run(state: Any = wire.PIPELINE_RUN_STATE_FAILED) -> Any:
    made = kinds()["PipelineRun"].new("flights", PLACE.run)
    made.status.state = state
    made.metadata.creationTimestamp.seconds = int(time.time()) - 75
    return made


def shown(evidence: dict[str, Any], **more: Any) -> list[str]:
    verdict = verdicts.verdict(evidence, PLACE, **more).plain()
    lines = list(explain_text.failed(run(), verdict))
    assert all(len(line) <= explain_text.WIDTH for line in lines)
    assert all(line.isprintable() for line in lines)
    return lines


def test_a_verdict_of_every_part_fits() -> None:
    changed = {"part": "params", "name": "sample_fraction", "was": "0.1" * 40, "is": "(not set)"}
    lines = shown(EVIDENCE, differences=[changed], green="train-1")
    text = "\n".join(lines)
    assert lines[0] == f"{PLACE.run} FAILED in prepare: lost worker"
    assert "  >   31 yyy" in text
    assert set(explain_text.BLOCKS) <= set(text)
    assert "most 1,990 of 2,000 MiB" in text
    assert "the end" in text
    assert "  params      sample_fraction: 0.1" in text


def test_a_file_of_packed_code_is_named_as_its_author_knows_it_and_airflows_folds_are_left_out() -> None:
    at = {**AT, "file": f"/srv/.ma/code/{'0a' * 32}/flows/demand.py"}
    lines = shown({**EVIDENCE, "exception": {"chain": [], "at": at}, "log": ["::group::Pre", "so far", "::endgroup::"]})
    assert "  flows/demand.py:31 in examples" in lines
    assert "  so far" in lines
    assert not any("group::" in line for line in lines)


def test_a_command_that_is_broken_into_lines_is_still_one() -> None:
    told = verdicts.verdict({}, verdicts.Place("n" * 40, "p", "r" * 60, "s", "t" * 60)).plain()
    lines = list(explain_text.failed(run(), told))
    text = "\n".join(lines).replace(" \\\n", "")
    assert all(" ".join(command.split()) in " ".join(text.split()) for command in (told["next"], *told["also"]))


@pytest.mark.parametrize("evidence", [{}, {"message": "é" * 500}, {"exception": {"chain": []}}, {"curve": [[0, 0, 0]]}])
def test_little_evidence_is_shown_as_it_is(evidence: dict[str, Any]) -> None:
    assert "Next" in shown(evidence)


def test_where_a_job_stood_is_shown() -> None:
    frame = {"file": "/code/flow.py", "line": 9, "function": "waits", "text": "time.sleep(1)", "users": True}
    ended = {"signal": "SIGKILL", "limit": "timeout", "message": "it ran longer than its timeout of 5 s"}
    lines = shown({"ended": ended, "stack": [frame], "began": {"code": {}}})
    assert "  /code/flow.py:9 in waits: time.sleep(1)" in lines


def test_a_run_that_goes_on_says_what_it_does() -> None:
    going = run(wire.PIPELINE_RUN_STATE_RUNNING)
    step = going.status.steps.add(name="prepare", state=wire.PIPELINE_RUN_STEP_STATE_RUNNING)
    step.start_time.seconds = int(time.time()) - 60
    idle = {"curve": [[index, 20, 0] for index in range(9)], "log": ["waits for the lock"]}
    lines = list(explain_text.going(going, [{"step": "prepare", "evidence": idle}]))
    assert lines[0].startswith(f"{PLACE.run} RUNNING for 1m")
    assert lines[1].startswith("  prepare runs for ")
    assert "it waits, or is stuck" in " ".join(lines)
    assert "  waits for the lock" in lines
    busy = {"curve": [[index, 20, 90] for index in range(9)]}
    assert "stuck" not in " ".join(explain_text.going(going, [{"step": "prepare", "evidence": busy}]))


def test_a_run_that_waits_says_for_what_and_one_that_succeeded_nothing() -> None:
    waiting = run(wire.PIPELINE_RUN_STATE_PENDING)
    waiting.status.conditions.add(type="SourcePipeline", message="waits for its pipeline")
    assert "  SourcePipeline: waits for its pipeline" in list(explain_text.going(waiting, []))
    (line,) = explain_text.going(run(wire.PIPELINE_RUN_STATE_SUCCEEDED), [])
    assert line.endswith("SUCCEEDED: there is nothing to explain")
