"""Control plane of Michelangelo on Airflow: holds intent, translates it into DAG runs, observes."""
