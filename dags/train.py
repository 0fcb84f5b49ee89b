"""The bare template `train` as an Airflow DAG: for ad-hoc runs, and where the API reads its parameters."""

from operators.templates.registry import template_dag

dag = template_dag("train")
