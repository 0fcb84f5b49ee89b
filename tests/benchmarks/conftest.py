"""A result as a benchmark leaves it."""

import pytest

from benchmarks.measuring.figures import Figure, Goal
from benchmarks.measuring.machine import Machine
from benchmarks.measuring.results import Result


@pytest.fixture
def result() -> Result:
    return Result(
        name="serving",
        title="Online prediction",
        peer="`mlflow models serve` of the same model",
        command="python -m benchmarks serving",
        measured_at="2026-11-21T08:00:00+00:00",
        revision="abc1234",
        machine=Machine(2, "A Processor", 24.0, "3.11.9", "6.1"),
        load_before=(0.1, 0.2, 0.3),
        load_after=(1.0, 0.5, 0.4),
        figures=(
            Figure(
                "p50, 1 connection",
                "ms",
                (0.08, 0.09, 0.1, 0.09, 0.08),
                (2.0, 2.1, 1.9, 1.8, 2.0),
                goal=Goal("times", 20),
            ),
            Figure("answers", "/s", (9000.0,), (180.0,), better="higher"),
            Figure("more than the peer", "ms", (1.5,), goal=Goal("most", 1)),
        ),
        notes=("6 views are joined.",),
    )
