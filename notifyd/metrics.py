"""Every metric of this process, read from the parts' plain counters when somebody asks.

The only file that knows metric names; label sets are closed and there from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from notifyd.handlers import KINDS
from notifyd.recipients import Recipients
from notifyd.worker import RESULTS, Worker
from shared.errors import QueueError
from shared.jobqueue import STATES, QueueView

_UNREADABLE: Final = -1.0


class Metrics:
    """The metrics page; reading it looks into the queue. `wall` is seconds since the epoch."""

    def __init__(
        self,
        worker: Worker,
        recipients: Recipients,
        queue: QueueView,
        *,
        wall: Callable[[], float],
        version: str,
    ) -> None:
        self._worker = worker
        self._recipients = recipients
        self._queue = queue
        self._wall = wall
        self._version = version
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def page(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Called by prometheus-client for each page."""
        yield from self._work()
        yield from self._waiting()
        build = GaugeMetricFamily("notifyd_build_info", "Version.", labels=["version"])
        build.add_metric([self._version], 1)
        yield build

    def _work(self) -> Iterator[Metric]:
        jobs = CounterMetricFamily(
            "notifyd_jobs", "Attempts, by what became of the job.", labels=["kind", "result"]
        )
        busy = GaugeMetricFamily("notifyd_jobs_busy", "Jobs being worked on.", labels=["kind"])
        down = GaugeMetricFamily(
            "notifyd_service_down", "1 while a kind's service cannot be reached.", labels=["kind"]
        )
        for kind, lane in self._worker.lanes.items():
            for result in RESULTS:
                jobs.add_metric([kind, result], self._worker.results[kind, result])
            busy.add_metric([kind], len(lane.busy))
            down.add_metric([kind], float(bool(lane.down)))
        yield from (jobs, busy, down)
        yield CounterMetricFamily(
            "notifyd_store_fallbacks",
            "Accounts taken for unknown because the store gave no answer.",
            value=self._recipients.fallbacks,
        )

    def _waiting(self) -> Iterator[Metric]:
        stored = GaugeMetricFamily("jobqueue_jobs", "Stored jobs.", labels=["kind", "state"])
        lag = GaugeMetricFamily(
            "jobqueue_lag_seconds", "How long the most overdue job has been waiting."
        )
        try:
            counts, lag_seconds = self._queue.counts(), self._queue.lag_seconds(self._wall())
        except QueueError:
            counts, lag_seconds = {}, _UNREADABLE
        for kind in KINDS:
            for state in STATES:
                stored.add_metric([kind, state], counts.get((kind, state), 0))
        lag.add_metric([], lag_seconds)
        yield from (stored, lag)
