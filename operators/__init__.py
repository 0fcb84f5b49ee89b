"""Lifecycle stages as Airflow operators, and what runs on engines for them.  Never serves requests."""
