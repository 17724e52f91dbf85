"""Figures for Prometheus: what is asked, how long it takes, and what the answers are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from collections.abc import Callable

    from retigrade.grading import Grading

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Counters:
    """The figures of one server."""

    def __init__(self, *, waiting: Callable[[], float], held: Callable[[], float]) -> None:
        """waiting: the requests with photographs in memory; held: their bytes."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._seconds = Histogram(
            "retigrade_request_seconds", "Time of requests.", ["method", "route", "status"],
            buckets=_BUCKETS, registry=self._registry,
        )  # fmt: skip
        self._gradings = Counter(
            "retigrade_gradings", "Photographs graded.", ["status", "grade"], registry=self._registry
        )
        self._grading_seconds = Histogram(
            "retigrade_grading_seconds", "Time of grading one photograph.", buckets=_BUCKETS, registry=self._registry
        )
        for name, text, value in (
            ("retigrade_waiting_requests", "Requests with photographs that are not answered yet.", waiting),
            ("retigrade_waiting_bytes", "Bytes of their photographs.", held),
        ):
            Gauge(name, text, registry=self._registry).set_function(value)

    def count_request(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request; route: its pattern, not its address."""
        self._seconds.labels(method, route, str(status)).observe(seconds)

    def count_grading(self, grading: Grading) -> None:
        """Count a photograph that was graded."""
        grade = "" if grading.grade is None else str(int(grading.grade))
        self._gradings.labels(grading.status.value, grade).inc()
        self._grading_seconds.observe(grading.seconds)

    def text(self) -> bytes:
        """Return the figures in the exposition format."""
        return generate_latest(self._registry)
