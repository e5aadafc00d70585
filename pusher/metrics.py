"""Every metric of this process, read from the parts' plain counters when somebody asks.

The only file that knows metric names. Counting on the way of an event is an integer addition; label
sets are closed and every label is there from the start, so that zero can be told from nothing.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from pusher.dispatch import RESULTS, Dispatcher
from pusher.intake import Intake
from pusher.loop_lag import LoopLag
from pusher.protocol import mboxevent, notification
from pusher.publisher import Publisher
from pusher.reactor import Reactor
from shared.jobqueue import QueueWriter

REASONS: Final = tuple(sorted(notification.REASONS | mboxevent.REASONS | {"no-account"}))
STREAM_KEYS: Final = (
    "opened",
    "written",
    "pings",
    "stalled",
    "closed_by_reader",
    "cut_stalled",
    "cut_expired",
    "closed_after_state",
)

#: One reading of all processes that hold streams: the keys of STREAM_KEYS, and "open", "behind".
StreamCounts = Callable[[], Mapping[str, int]]


class Metrics:
    """The metrics page. `handshakes` gives counts by name, `refusals` by HTTP status."""

    def __init__(
        self,
        *,
        intake: Intake,
        dispatcher: Dispatcher,
        publisher: Publisher,
        reactor: Reactor,
        lag: LoopLag,
        streams: StreamCounts,
        handshakes: Callable[[], Mapping[str, int]],
        refusals: Callable[[], Mapping[int, int]],
        writer: QueueWriter | None,
        version: str,
    ) -> None:
        self._intake = intake
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._reactor = reactor
        self._lag = lag
        self._streams = streams
        self._handshakes = handshakes
        self._refusals = refusals
        self._writer = writer
        self._version = version
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._event_lag = Histogram(
            "pusher_event_lag_seconds",
            "From an event's own timestamp until it was taken; a sample of all events.",
            registry=self._registry,
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600),
        )

    def page(self) -> bytes:
        """Return the text that Prometheus reads."""
        lags, self._dispatcher.lags = self._dispatcher.lags, []
        for lag in lags:
            self._event_lag.observe(lag)
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Called by prometheus-client for each page."""
        yield from self._events()
        yield from self._stream_metrics()
        yield from self._state()
        yield from self._process()
        if self._writer is not None:
            yield from self._queue(self._writer)

    def _events(self) -> Iterator[Metric]:
        dispatcher, intake = self._dispatcher, self._intake
        yield _counter(
            "pusher_events", "Events taken, by type.", "type", dispatcher.events, dispatcher.events
        )
        yield _counter(
            "pusher_event_results",
            "What became of events.",
            "result",
            RESULTS,
            dispatcher.results,
        )
        yield _counter(
            "pusher_events_rejected",
            "Input that made no sense, by reason.",
            "reason",
            REASONS,
            dispatcher.rejected,
        )
        yield _counter(
            "pusher_intake",
            "What came in on the sockets, and producers cut off.",
            "kind",
            (
                "connections",
                "requests",
                "datagrams",
                "no-descriptors",
                "cut-half-request",
                "cut-bad-framing",
                "cut-replies-unread",
            ),
            intake.counts,
        )
        yield GaugeMetricFamily(
            "pusher_intake_connections", "Producers connected now.", value=len(intake)
        )

    def _stream_metrics(self) -> Iterator[Metric]:
        counts = self._streams()
        yield GaugeMetricFamily("pusher_subscribers", "Open streams.", value=counts["open"])
        yield GaugeMetricFamily(
            "pusher_subscribers_behind",
            "Streams whose reader does not keep up.",
            value=counts["behind"],
        )
        yield _counter(
            "pusher_streams",
            "What happened to streams, and blocks written to them.",
            "kind",
            STREAM_KEYS,
            counts,
        )
        handshakes = self._handshakes()
        yield _counter(
            "pusher_handshakes",
            "Connections on the streams listener.",
            "kind",
            ("accepted", "opened", "timed_out", "vanished", "exhausted"),
            handshakes,
        )
        family = CounterMetricFamily(
            "pusher_handshakes_refused", "Requests refused, by HTTP status.", labels=("status",)
        )
        refusals = self._refusals()
        for status in sorted({400, 401, 403, 404, 405, 408, 413, 429, 431, 503} | refusals.keys()):
            family.add_metric([str(status)], refusals.get(status, 0))
        yield family

    def _state(self) -> Iterator[Metric]:
        publisher = self._publisher
        yield GaugeMetricFamily(
            "pusher_accounts", "Accounts whose numbers are known.", value=len(publisher.table)
        )
        yield CounterMetricFamily(
            "pusher_accounts_forgotten",
            "Accounts forgotten to bound memory.",
            value=publisher.table.forgotten,
        )
        yield CounterMetricFamily(
            "pusher_resyncs", "Readers told to start over on reconnecting.", value=publisher.resyncs
        )
        yield CounterMetricFamily(
            "pusher_replays",
            "Readers told on reconnecting what they missed.",
            value=publisher.replayed,
        )

    def _process(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "pusher_loop_lag_max_seconds",
            "Longest time the loop was not served within the last minute or two.",
            value=self._lag.recent_seconds,
        )
        yield GaugeMetricFamily(
            "pusher_round_max_seconds",
            "Longest single round of the reactor since the start.",
            value=self._reactor.longest_round_seconds,
        )
        yield CounterMetricFamily(
            "pusher_internal_errors",
            "Callbacks that failed: bugs, one connection each.",
            value=self._reactor.failures,
        )
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield CounterMetricFamily(
            "pusher_cpu_seconds", "CPU time used.", value=usage.ru_utime + usage.ru_stime
        )
        yield GaugeMetricFamily(
            "pusher_memory_max_bytes", "Largest resident size so far.", value=usage.ru_maxrss * 1024
        )
        info = GaugeMetricFamily("pusher_build_info", "What is running.", labels=("version",))
        info.add_metric([self._version], 1)
        yield info

    def _queue(self, writer: QueueWriter) -> Iterator[Metric]:
        state = writer.state
        yield GaugeMetricFamily(
            "pusher_queue_backlog", "Jobs waiting for the disk.", value=state.backlog
        )
        yield CounterMetricFamily("pusher_queue_stored", "Jobs stored.", value=state.stored)
        yield CounterMetricFamily("pusher_queue_refused", "Jobs refused.", value=state.refused)
        yield GaugeMetricFamily(
            "pusher_queue_ok",
            "1 while the queue takes jobs.",
            value=int(state.running and not state.last_error),
        )


def _counter(
    name: str, text: str, label: str, labels: Iterable[str], values: Mapping[str, int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=(label,))
    for value in labels:
        family.add_metric([value], values.get(value, 0))
    return family
