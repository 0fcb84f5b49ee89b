"""Programs that run on an engine.  They know neither Airflow nor the API server."""
