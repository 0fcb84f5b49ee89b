"""The resource store: one port (`base`), one adapter a file.  Knows bytes and indexes, never admission or Airflow."""
