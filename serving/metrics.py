"""Counters of the inference server as Prometheus text.  Never on the network itself; a scrape changes nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator

BOUNDS_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Meter:
    """Counters of one deployment."""

    def __init__(self) -> None:
        self.codes: dict[int, int] = defaultdict(int)
        self.features: dict[str, int] = defaultdict(int)
        self.unknown_categories: dict[str, int] = defaultdict(int)
        self.seconds = 0.0
        self._buckets = [0] * (len(BOUNDS_S) + 1)

    def request(self, code: int, seconds: float) -> None:
        """Count one answer."""
        self.codes[code] += 1
        self.seconds += seconds
        self._buckets[bisect_left(BOUNDS_S, seconds)] += 1

    def cumulated(self) -> Iterator[tuple[str, int]]:
        """Yield the histogram as (upper bound, number of requests up to it)."""
        total = 0
        for bound, number in zip([*map(str, BOUNDS_S), "+Inf"], self._buckets, strict=True):
            total += number
            yield bound, total


class Metrics:
    """Counters of all deployments; "" counts requests for deployments that are not known."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}

    def of(self, deployment: str) -> Meter:
        """Return the counters of a deployment."""
        return self._meters.setdefault(deployment, Meter())

    def forget(self, deployment: str) -> None:
        """Drop the counters of a deployment that was deleted."""
        self._meters.pop(deployment, None)

    def text(self, revisions: Iterable[tuple[str, str]], *, dropped: int, join_errors: int) -> str:
        """Return the exposition.  revisions: deployment and the revision that answers."""
        meters = sorted(self._meters.items())
        lines = [*_head("requests_total", "counter", "Answers by HTTP status.")]
        for name, meter in meters:
            lines += [_line("requests_total", n, deployment=name, code=str(code)) for code, n in meter.codes.items()]
        lines += _head("request_seconds", "histogram", "Time from the complete request to its answer.")
        for name, meter in meters:
            lines += [_line("request_seconds_bucket", n, deployment=name, le=le) for le, n in meter.cumulated()]
            lines.append(_line("request_seconds_sum", meter.seconds, deployment=name))
            lines.append(_line("request_seconds_count", sum(meter.codes.values()), deployment=name))
        lines += _head("features_total", "counter", "Joined features by what the online store had.")
        for name, meter in meters:
            lines += [_line("features_total", n, deployment=name, status=s) for s, n in meter.features.items()]
        lines += _head("unknown_categories_total", "counter", "Values that were not in the training part.")
        for name, meter in meters:
            counted = meter.unknown_categories.items()
            lines += [_line("unknown_categories_total", n, deployment=name, input=key) for key, n in counted]
        lines += _head("current_revision", "gauge", "The revision that answers.")
        lines += [_line("current_revision", 1, deployment=name, revision=revision) for name, revision in revisions]
        lines += _head("log_dropped_rows_total", "counter", "Rows that the prediction log could not take.")
        lines.append(_line("log_dropped_rows_total", dropped))
        lines += _head("online_store_errors_total", "counter", "Reads that the online store refused.")
        lines.append(_line("online_store_errors_total", join_errors))
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP ma_serving_{name} {text}", f"# TYPE ma_serving_{name} {kind}"


def _line(name: str, value: float, **labels: str) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"ma_serving_{name}{{{shown}}} {value}" if shown else f"ma_serving_{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
