"""The metrics page: every name and label from the start, readable by Prometheus, never invented."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from pusher.dispatch import RESULTS, Dispatcher
from pusher.hub import Hub, HubCounts, HubSettings
from pusher.intake import Done, Intake
from pusher.loop_lag import LoopLag
from pusher.metrics import REASONS, STREAM_KEYS, Metrics
from pusher.protocol import mboxevent, notification
from pusher.protocol.mboxevent import CYRUS_EVENTS, RFC5423_EVENTS
from pusher.publisher import Publisher
from pusher.state.modseq import ModseqTable
from pusher.tap import Tap
from shared.jobqueue import NewJob

NOW = 1.8e9


class Queue:
    def submit(self, jobs: Sequence[NewJob], done: Done) -> None:
        raise AssertionError


class World:
    def __init__(self) -> None:
        self.hub = Hub(HubSettings())
        self.publisher = Publisher(
            ModseqTable(), self.hub, retry_seconds=1, most_per_account=9, wall=lambda: NOW
        )
        self.dispatcher = Dispatcher(self.publisher, Queue(), Tap(), wall=lambda: NOW)
        self.theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.intake = Intake(
            self.hub.reactor,
            self.dispatcher,
            stream=None,
            datagram=ours,
            max_bytes=1000,
            idle_seconds=30,
        )
        self.refusals: dict[int, int] = {}
        self.metrics = Metrics(
            intake=self.intake,
            dispatcher=self.dispatcher,
            publisher=self.publisher,
            reactor=self.hub.reactor,
            lag=LoopLag(),
            streams=lambda: vars(self.hub.counts) | {"open": len(self.hub), "behind": 0},
            handshakes=dict,
            refusals=lambda: self.refusals,
            writer=None,
            version="1.2.3",
        )

    def samples(self) -> dict[str, list[Sample]]:
        found: dict[str, list[Sample]] = {}
        for family in text_string_to_metric_families(self.metrics.page().decode()):
            assert family.documentation
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample)
        return found

    def values(self, name: str) -> dict[str, float]:
        return {
            next(iter(sample.labels.values()), ""): sample.value for sample in self.samples()[name]
        }


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.intake.close()
    world.theirs.close()
    world.hub.reactor.close()


LABELS = {
    "pusher_events_total": {*RFC5423_EVENTS, *CYRUS_EVENTS, "SIEVE", "MAIL", "IMIP", "other"},
    "pusher_event_results_total": set(RESULTS),
    "pusher_events_rejected_total": {*notification.REASONS, *mboxevent.REASONS, "no-account"},
    "pusher_streams_total": set(STREAM_KEYS),
    "pusher_handshakes_total": {"accepted", "opened", "timed_out", "vanished", "exhausted"},
}


@pytest.mark.parametrize("name", LABELS)
def test_every_label_is_there_at_zero(world: World, name: str) -> None:
    assert world.values(name) == dict.fromkeys(LABELS[name], 0)


def test_every_status_a_handshake_can_be_refused_with_is_there_at_zero(world: World) -> None:
    statuses = {"400", "401", "403", "404", "405", "408", "413", "429", "431", "503"}
    assert world.values("pusher_handshakes_refused_total") == dict.fromkeys(statuses, 0)
    world.refusals[418] = 2
    assert world.values("pusher_handshakes_refused_total")["418"] == 2


@pytest.mark.parametrize(
    "name",
    [
        "pusher_subscribers",
        "pusher_subscribers_behind",
        "pusher_intake_connections",
        "pusher_accounts",
        "pusher_accounts_forgotten_total",
        "pusher_resyncs_total",
        "pusher_replays_total",
        "pusher_loop_lag_max_seconds",
        "pusher_round_max_seconds",
        "pusher_event_lag_seconds_count",
    ],
)
def test_a_single_value_is_there_at_zero(world: World, name: str) -> None:
    assert [sample.value for sample in world.samples()[name]] == [0]


def test_names_say_what_they_count_and_whose_they_are(world: World) -> None:
    for name in world.samples():
        assert name.startswith("pusher_")
    assert world.values("pusher_build_info") == {"1.2.3": 1}


def test_everything_the_hub_counts_is_on_the_page() -> None:
    assert set(STREAM_KEYS) == set(vars(HubCounts()))
    assert set(REASONS) >= notification.REASONS | mboxevent.REASONS


def test_events_are_counted_by_type_and_never_by_a_name_from_outside(world: World) -> None:
    for message in (
        b'{"event":"MessageNew","uri":"imap://mail/user/alice"}',
        b'{"event":"Login","user":"alice"}',
        b'{"event":"Evil\\"} 1\\npusher_up 1"}',
        b"not json",
    ):
        world.dispatcher.take_event(message)
    counted = world.values("pusher_events_total")
    assert {name: count for name, count in counted.items() if count} == {
        "MessageNew": 1,
        "Login": 1,
        "other": 1,
    }
    assert world.values("pusher_event_results_total")["noted"] == 1
    assert world.values("pusher_event_results_total")["rests"] == 2
    assert world.values("pusher_events_rejected_total")["not-json"] == 1
    assert world.values("pusher_accounts") == {"": 1}


def test_the_lag_of_events_is_a_sample_and_counted_once(world: World) -> None:
    message = b'{"event":"Login","timestamp":"2027-01-15T07:59:59.5Z"}'
    for _ in range(2):
        world.dispatcher.tick()
        for _ in range(10):
            world.dispatcher.take_event(message)
    assert [sample.value for sample in world.samples()["pusher_event_lag_seconds_count"]] == [2]
    assert [sample.value for sample in world.samples()["pusher_event_lag_seconds_sum"]] == [1]


@pytest.mark.parametrize("timestamp", ["", "soon", "0001-01-01T00:00:00Z", "9" * 50, "2027-01-15"])
def test_an_odd_timestamp_does_no_harm(world: World, timestamp: str) -> None:
    world.dispatcher.take_event(b'{"event":"Login","timestamp":"%b"}' % timestamp.encode())
    assert world.values("pusher_events_total")["Login"] == 1
