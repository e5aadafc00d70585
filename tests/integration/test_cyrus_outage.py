"""pusher hangs, dies, comes back under deliveries: no mail is refused, pages end up right."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.waiting import wait_until
from tests.support.cyrus import ALICE, BOB, CyrusServer
from tests.support.follower import Follower
from tests.support.pusher_process import ActivatedPusher, PusherProcess

pytestmark = pytest.mark.real

HANG_SECONDS = 5.0
#: With nobody there a delivery takes as long as one without notifications.
PROMPT_SECONDS = 2.0


def max_dgram_queue() -> int:
    """How many datagrams the kernel keeps for a socket that nobody reads."""
    return int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 1


class Mailer:
    """Delivers mail to `to` from a thread, one after the other, until stopped."""

    def __init__(self, cyrus: CyrusServer, to: str) -> None:
        self.accepted = 0
        self.refused: list[Exception] = []
        self.slowest_seconds = 0.0
        self._cyrus = cyrus
        self._to = to
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._deliver)

    def __enter__(self) -> Mailer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_for_more(self, count: int) -> None:
        """Return when `count` more deliveries were accepted."""
        wanted = self.accepted + count
        wait_until(lambda: self.accepted >= wanted or self.refused, f"{count} deliveries", 20)

    def stop(self) -> None:
        """Let the delivery under way end, and start no other."""
        self._stopping.set()
        self._thread.join()

    def _deliver(self) -> None:
        while not self._stopping.wait(0.01):
            started = time.monotonic()
            try:
                self._cyrus.deliver(self._to)
            except Exception as error:
                self.refused.append(error)
                return
            self.accepted += 1
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)


@pytest.fixture(scope="module", params=["dlist", "datagram"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[CyrusServer, PusherProcess, str]]:
    with PusherProcess() as pusher:
        notify = {
            "dlist": f"dlist:{pusher.stream_socket}",
            "datagram": str(pusher.datagram_socket),
        }[request.param]
        with CyrusServer(notify) as cyrus:
            yield cyrus, pusher, request.param


def test_hang_of_pusher_delays_mail_and_refuses_none(
    place: tuple[CyrusServer, PusherProcess, str],
) -> None:
    cyrus, pusher, transport = place
    with (
        Follower(pusher, ALICE) as page,
        Mailer(cyrus, ALICE) as to_alice,
        Mailer(cyrus, BOB) as to_bob,
    ):
        wait_until(lambda: to_alice.accepted > 3 and page.connections, "the first deliveries")
        page.resyncs = 0  # it began with id 0, which says that it knows nothing
        pusher.suspend()
        hung_at = time.monotonic()
        before = to_alice.accepted
        wait_until(lambda: time.monotonic() - hung_at > HANG_SECONDS, "the hang", 60)
        meanwhile = to_alice.accepted - before
        pusher.resume()
        to_alice.wait_for_more(3)
        to_alice.stop()
        to_bob.stop()
        truth = cyrus.counters(ALICE)
        wait_until(lambda: page.has(truth), f"{page.numbers} to become {truth}")

    assert to_alice.refused == []
    assert to_bob.refused == []
    # Why a hang must not happen: Cyrus waits for the answer, or for room in the socket, for ever.
    assert to_alice.slowest_seconds > HANG_SECONDS - 1
    # The stream waits with the first event; datagrams with the one that finds the queue full.
    assert meanwhile <= (1 if transport == "dlist" else max_dgram_queue())
    assert page.complaints == []
    assert page.resyncs == 0, "a stream that stayed open has nothing to start over for"


def test_crash_of_pusher_is_harmless_for_mail_and_pages_end_up_right(
    place: tuple[CyrusServer, PusherProcess, str],
) -> None:
    cyrus, pusher, _ = place
    with Follower(pusher, ALICE) as page, Mailer(cyrus, ALICE) as to_alice:
        for _ in range(3):
            wait_until(lambda: page.connections and to_alice.accepted > 3, "deliveries")
            pusher.kill()
            to_alice.wait_for_more(5)
            page.connections = 0
            pusher.start()
        to_alice.stop()
        truth = cyrus.counters(ALICE)
        wait_until(lambda: page.has(truth), f"{page.numbers} to become {truth}")

    assert to_alice.refused == []
    assert to_alice.slowest_seconds < PROMPT_SECONDS


def test_page_is_told_to_ask_the_server_when_the_last_event_was_lost(
    place: tuple[CyrusServer, PusherProcess, str],
) -> None:
    cyrus, pusher, _ = place
    cyrus.deliver(ALICE)
    with Follower(pusher, ALICE, ask=cyrus.counters) as page:
        wait_until(lambda: page.has(cyrus.counters(ALICE)), "the page to be up to date")
        pusher.kill()
        cyrus.deliver(ALICE)  # nobody hears of it, and no later event will tell
        pusher.start()
        wait_until(lambda: page.has(cyrus.counters(ALICE)), "the page to be up to date again")
        assert page.resyncs >= 1


def test_orderly_restart_of_pusher_refuses_no_mail(
    place: tuple[CyrusServer, PusherProcess, str],
) -> None:
    cyrus, pusher, _ = place
    with Follower(pusher, ALICE) as page, Mailer(cyrus, ALICE) as to_alice:
        wait_until(lambda: page.connections and to_alice.accepted > 3, "deliveries")
        pusher.restart()
        to_alice.wait_for_more(3)
        to_alice.stop()
        truth = cyrus.counters(ALICE)
        wait_until(lambda: page.has(truth), f"{page.numbers} to become {truth}")
    assert to_alice.refused == []
    assert to_alice.slowest_seconds < PROMPT_SECONDS


@pytest.fixture(params=["dlist", "datagram"])
def lasting_place(request: pytest.FixtureRequest) -> Iterator[tuple[CyrusServer, ActivatedPusher]]:
    with ActivatedPusher() as pusher:
        notify = {
            "dlist": f"dlist:{pusher.stream_socket}",
            "datagram": str(pusher.datagram_socket),
        }[request.param]
        with CyrusServer(notify) as cyrus:
            yield cyrus, pusher


def test_restart_with_sockets_kept_loses_no_event(
    lasting_place: tuple[CyrusServer, ActivatedPusher],
) -> None:
    cyrus, pusher = lasting_place
    with Follower(pusher, ALICE) as page, Mailer(cyrus, ALICE) as to_alice:
        wait_until(lambda: page.connections and to_alice.accepted > 3, "deliveries")
        # The first numbers of an account are news to a reader that came before them.
        page.resyncs = 0
        for _ in range(2):
            page.connections = 0
            pusher.restart()
            wait_until(lambda: page.connections, "the page to come back")
            to_alice.wait_for_more(3)
        to_alice.stop()
        truth = cyrus.counters(ALICE)
        wait_until(lambda: page.has(truth), f"{page.numbers} to become {truth}")
    assert to_alice.refused == []
    assert page.resyncs == 0, "the sockets were never closed: nothing can have been missed"
    assert page.complaints == []
