"""Online plane: answers predictions and records them.  Never trains, never imports Airflow, Feast or MLflow."""
