"""Outputs of steps that are kept and used again, and why one is or is not.  Knows no Airflow and runs no user code."""
