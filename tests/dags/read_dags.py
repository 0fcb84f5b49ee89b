"""Reads folders of DAG files as Airflow's DAG processor does, and prints what it found as JSON.

python read_dags.py <folder>...
"""

import json
import sys
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization


def described(dag: Any) -> dict[str, Any]:
    serialized = DagSerialization.to_dict(dag)
    read: Any = DagSerialization.from_dict(json.loads(json.dumps(serialized)))
    return {
        "tags": sorted(read.tags),
        "description": read.description,
        "doc_md": read.doc_md,
        "max_active_runs": read.max_active_runs,
        "catchup": read.catchup,
        "schedule": read.timetable.summary,
        "params": {name: read.params.get_param(name).dump() for name in read.params},
        "tasks": {
            task.task_id: {
                "type": task.task_type,
                "downstream": sorted(task.downstream_task_ids),
                "retries": task.retries,
                "mapped": task.is_mapped,
            }
            for task in read.tasks
        },
    }


def main(folders: list[str]) -> None:
    """Print every DAG and every file that could not be read."""
    found: dict[str, Any] = {"dags": {}, "errors": {}}
    for folder in folders:
        bag = DagBag(folder, bundle_name="tests")
        found["errors"].update(bag.import_errors)
        found["dags"].update({name: described(dag) for name, dag in bag.dags.items()})
    found["modules"] = sorted({name.partition(".")[0] for name in sys.modules})
    print(f"\nFOUND {json.dumps(found)}")


if __name__ == "__main__":
    main(sys.argv[1:])
