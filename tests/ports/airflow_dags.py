"""DAGs that the contract of Airflow's REST API is tested with.  Parsed by Airflow; imported by nobody."""

import time

from airflow.sdk import DAG, Param, get_current_context, task

with DAG(
    "contract.quick",
    schedule=None,
    params={"count": Param(1, type="integer", minimum=1), "ma": Param({}, type="object")},
    tags=["contract", "spec:1"],
):

    @task
    def give() -> dict[str, str]:
        get_current_context()["ti"].xcom_push("inputs", {"count": "1"})
        return {"dataset_uri": "file:///d"}

    give()

with DAG("contract.slow", schedule=None, params={"ma": Param({}, type="object")}, tags=["contract"]):

    @task
    def sleep() -> None:
        time.sleep(600)

    @task
    def after() -> None: ...

    sleep() >> after()
