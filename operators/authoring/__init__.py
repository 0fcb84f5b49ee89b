"""Pipelines written in Python: a graph that runs in this process or as an Airflow DAG.  Imports no Airflow."""
