"""Runs DAGs of a folder in an Airflow with a database, one after another, and prints how their tasks ended.

python run_dags.py <folder> '[{"dag_id": ..., "conf": {...}, "manual": true, "at": ...}, ...]'
"""

import json
import sys
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.models.xcom import XComModel
from airflow.sdk.timezone import parse
from airflow.utils.session import create_session


def ended(dag: Any, asked: dict[str, Any]) -> dict[str, Any]:
    moment = None if asked.get("manual") else parse(asked.get("at", "2026-03-10T03:00:00Z"))
    run = dag.test(logical_date=moment, run_conf=asked.get("conf") or {})
    said = ("task_id", "map_index", "state", "try_number")
    tasks = [
        {**{name: getattr(ti, name) for name in said}, "label": ti.rendered_map_index}
        for ti in run.get_task_instances()
    ]
    with create_session() as session:
        rows = session.query(XComModel).filter(XComModel.dag_id == dag.dag_id, XComModel.run_id == run.run_id)
        xcoms = [{"task_id": x.task_id, "key": x.key, "value": XComModel.deserialize_value(x)} for x in rows]
    return {"state": run.state, "run_id": run.run_id, "tasks": tasks, "xcoms": xcoms}


def main(folder: str, asked: list[dict[str, Any]]) -> None:
    """Print how each run ended."""
    bag = DagBag(folder, bundle_name="dags-folder")
    print(f"\nENDED {json.dumps([ended(bag.dags[one['dag_id']], one) for one in asked], default=str)}")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
