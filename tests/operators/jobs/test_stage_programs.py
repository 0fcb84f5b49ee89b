"""What the programs refuse, and how examples are split and measured."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from operators.data.examples import Examples, dtype_of, examples_of, write_sources
from operators.data.layout import folder_of, path_of, safe, written
from operators.errors import UserError
from operators.jobs import evaluate, train
from operators.jobs.materialize_features import definitions, instant
from operators.jobs.prepare_dataset import sampled, split

DAYS = pd.date_range("2026-01-01", periods=10, freq="12h", tz="UTC")
FRAME = pd.DataFrame({"event_timestamp": DAYS, "late": [0, 1] * 5})


def test_the_parts_follow_each_other_in_time_and_hold_every_row_once() -> None:
    parts = split(FRAME, "2026-01-02", "2026-01-03")
    assert [int(rows.sum()) for rows in parts.values()] == [4, 2, 4]
    assert (pd.DataFrame(parts).sum(axis=1) == 1).all()


@pytest.mark.parametrize(
    ("until", "validate", "said"),
    [
        ("2026-01-03", "2026-01-02", "before validate_until"),
        ("2026-01-03", "2026-01-03", "before"),
        ("soon", "2026-01-02", "train_until must be a date"),
        (None, "2026-01-02", "train_until"),
        ("2026-01-01", "", "validate_until"),
    ],
)
def test_dates_that_make_no_split_are_refused(until: str | None, validate: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        split(FRAME, until, validate)


def test_a_sample_is_the_same_for_the_same_examples_and_in_order_of_time() -> None:
    big = pd.concat([FRAME] * 50, ignore_index=True)
    once, again = sampled(big, 0.3), sampled(big, 0.3)
    pd.testing.assert_frame_equal(once, again)
    assert len(once) == 150
    assert once["event_timestamp"].is_monotonic_increasing


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.01, float("nan")])
def test_a_sample_that_is_no_part_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="sample_fraction"):
        sampled(FRAME, fraction)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (FRAME.drop(columns="late"), "no column late"),
        (FRAME.assign(late=2), "must be 0 or 1"),
        (FRAME.assign(event_timestamp=FRAME["event_timestamp"].dt.tz_localize(None)), "no time zone"),
        (FRAME.assign(event_timestamp=FRAME["event_timestamp"].where(FRAME.index > 1)), "missing in some rows"),
    ],
)
def test_examples_that_cannot_be_learned_from_are_refused(
    frame: pd.DataFrame, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type("module", (), {"examples": staticmethod(lambda: Examples(frame, label="late"))})
    monkeypatch.setitem(__import__("sys").modules, "given_examples", module)
    with pytest.raises(UserError, match=said):
        examples_of("given_examples")


def test_a_module_that_is_not_there_is_said_with_what_to_look_at() -> None:
    with pytest.raises(UserError, match="root_dir"):
        examples_of("no_such_module_anywhere")
    with pytest.raises(UserError, match="'module' is empty"):
        examples_of("")
    with pytest.raises(UserError, match="no function feature_sources"):
        write_sources("json", Path("/nowhere"))


def test_a_column_that_no_graph_reads_is_refused() -> None:
    assert dtype_of(FRAME["event_timestamp"]) == "timestamp"
    assert dtype_of(pd.Series([True])) == "bool"
    with pytest.raises(UserError, match="dtype"):
        dtype_of(pd.Series([1j], name="z"))


def test_an_instant_is_read_or_refused() -> None:
    assert instant("2013-12-30T21:00:00Z") == datetime(2013, 12, 30, 21, tzinfo=UTC)
    assert instant("2013-12-30T21:00:00") == datetime(2013, 12, 30, 21, tzinfo=UTC)
    with pytest.raises(UserError, match="features_until"):
        instant("yesterday")


def test_a_project_may_bring_its_own_definitions(tmp_path: Path) -> None:
    run = {"project": "my-shop", "root_dir": str(tmp_path)}
    assert definitions(run).name == "my_shop.py"
    (tmp_path / "features.py").touch()
    assert definitions(run) == tmp_path / "features.py"


def test_the_historical_rate_is_that_of_the_training_part() -> None:
    past = pd.DataFrame({"carrier": ["AA"] * 80 + ["UA"] * 80, "late": [1] * 80 + [0] * 80})
    rates = evaluate.historical_rate(past, pd.DataFrame({"carrier": ["AA", "UA", "XX"]}), ["carrier"], "late")
    np.testing.assert_allclose(rates, [0.9, 0.1, 0.5])


def test_a_baseline_of_an_unknown_column_is_refused() -> None:
    with pytest.raises(UserError, match="no column 'captain'"):
        evaluate.historical_rate(FRAME, FRAME, ["captain"], "late")


@pytest.mark.parametrize(
    ("given", "said"),
    [({"objective": "l2"}, "cannot be set"), ({"num_leaves": "many"}, "LightGBM refuses")],
)
def test_hyperparameters_that_cannot_work_are_the_users_fault(
    given: Mapping[str, Any], said: str, home: Path, run: Mapping[str, str], dataset_uri: str
) -> None:
    args = {"run": run, "dataset_uri": dataset_uri, "label": "late", "algorithm": "lightgbm", "seed": 1}
    with pytest.raises(UserError, match=said):
        train.run({**args, "hyperparameters": given})
    assert not folder_of(run, "model").exists()


def test_training_twice_with_a_seed_gives_the_same_model(home: Path, run: Mapping[str, str], dataset_uri: str) -> None:
    args = {"run": run, "dataset_uri": dataset_uri, "label": "late", "algorithm": "lightgbm", "seed": 3}
    first = path_of(train.run({**args, "hyperparameters": {"num_iterations": 20}})["model_uri"])
    text = (first / train.FULL / "model.txt").read_text()
    train.run({**args, "hyperparameters": {"num_iterations": 20}})
    assert (first / train.FULL / "model.txt").read_text() == text


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    def half() -> None:
        with written(tmp_path / "out") as temporary:
            (temporary / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert list(tmp_path.iterdir()) == []
    with written(tmp_path / "out") as temporary:
        (temporary / "whole").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]


def test_a_run_id_from_airflow_is_one_part_of_a_path_and_distinct() -> None:
    assert safe("ma__1__1") == "ma__1__1"
    names = {safe(name) for name in ("manual__2026-01-01T00:00:00+00:00", "manual__2026-01-01T00_00_00_00_00", "..")}
    assert len(names) == 3
    assert all("/" not in name and not name.startswith(".") for name in names)
