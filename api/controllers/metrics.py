"""What controllers count, for Prometheus.  Labels are kinds and codes, never names of objects or projects."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)

DEPTH = Gauge("ma_controller_queue_depth", "Objects that wait for their controller.", ["kind"])
RECONCILE = Histogram("ma_controller_reconcile_seconds", "One look at one object.", ["kind"], buckets=SECONDS)
FAILURES = Counter("ma_controller_failures_total", "Looks that failed, by the code of the error.", ["kind", "code"])
LEADING = Gauge("ma_controller_leading", "1 while the controllers of this process act, 0 while those of another do.")
TERMS = Counter("ma_controller_terms_total", "How often this process began to lead.")
