"""A DAG file of somebody who knows Airflow and no platform: all that is ours in it is a tag."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task, task_group


@dag(
    schedule=None,
    tags=["michelangelo:plain/delays", "nightly"],
    params={
        "rows": Param(3, type="integer", minimum=1, maximum=100),
        "wanted": Param("", type="string"),
        "sleep_s": Param(0, type="integer"),
    },
    default_args={"owner": "flights-team", "retries": 2, "retry_delay": timedelta(seconds=1)},
    description="Counts what was late.",
)
def late_flights() -> None:
    @task
    def load() -> list[int]:
        params = get_current_context()["params"]
        time.sleep(params["sleep_s"])
        return list(range(params["rows"]))

    @task_group
    def report(rows: Any) -> None:
        @task(retries=0)
        def check(rows: Any) -> int:
            wanted = get_current_context()["params"]["wanted"]
            if wanted and not Path(wanted).exists():
                raise FileNotFoundError(wanted)
            return len(rows)

        @task
        def publish(count: Any) -> dict[str, int]:
            return {"late": count}

        publish(check(rows))

    report(load())


late_flights()
