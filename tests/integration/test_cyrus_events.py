"""What a real Cyrus does reaches the pages of those concerned, with its own numbers; both sockets.

One Cyrus and one pusher per transport for all tests here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from imaplib import IMAP4

import pytest

from tests.support.cyrus import ALICE, BOB, CyrusServer
from tests.support.pusher_process import PusherProcess
from tests.support.streams import Block, EventStream, open_stream

pytestmark = pytest.mark.real

#: Names of JMAP and those of Cyrus' own counters, for every position both can name.
POSITIONS = {
    "Email": "mailModSeq",
    "CalendarEvent": "calendarModSeq",
    "ContactCard": "contactsModSeq",
    "Mailbox": "mailFoldersModSeq",
    "Calendar": "calendarFoldersModSeq",
}
BODY = b"From: a@b.example\r\nSubject: hi\r\n\r\nhello\r\n"


@dataclass
class Place:
    """A mail server and a pusher that hears of its events."""

    cyrus: CyrusServer
    pusher: PusherProcess

    def shows_the_servers_numbers(self, block: Block) -> bool:
        """Whether the block says what Cyrus itself has now."""
        truth = self.cyrus.counters(ALICE)
        return block.event == "push" and all(block.json[n] == truth[n] for n in block.json)


@pytest.fixture(scope="module", params=["dlist", "datagram"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with PusherProcess() as pusher:
        notify = {
            "dlist": f"dlist:{pusher.stream_socket}",
            "datagram": str(pusher.datagram_socket),
        }[request.param]
        with CyrusServer(notify) as cyrus:
            # The default calendars and address books are made on first sight.
            cyrus.put_event("first", "First")
            cyrus.put_card("first", "First")
            with cyrus.imap() as imap:
                imap.create("Work")
            cyrus.deliver(subject="first")
            with open_stream(pusher, ALICE, "/events?lastEventId=0") as page:
                here = Place(cyrus, pusher)
                page.wait_for(here.shows_the_servers_numbers)
            yield here


@pytest.fixture
def page(place: Place) -> Iterator[EventStream]:
    with open_stream(place.pusher, ALICE) as stream:
        stream.next_block()
        yield stream


@pytest.fixture
def bobs_page(place: Place) -> Iterator[EventStream]:
    with open_stream(place.pusher, BOB) as stream:
        stream.next_block()
        yield stream


def states_told_to_a_new_reader(place: Place) -> dict[str, int]:
    """What a JMAP reader that knows nothing is told at once."""
    with open_stream(place.pusher, ALICE, "/jmap/eventsource?types=*&lastEventId=0") as stream:
        block = stream.wait_for(lambda block: block.event == "state")
    return {name: int(state) for name, state in block.json["changed"][ALICE].items()}


def do_imap(place: Place, act: Callable[[IMAP4], object]) -> None:
    with place.cyrus.imap() as imap:
        imap.select("INBOX")
        act(imap)


OPERATIONS: dict[str, tuple[str, Callable[[Place], None]]] = {
    "LMTP delivery": ("mail", lambda place: place.cyrus.deliver()),
    "APPEND": ("mail", lambda place: do_imap(place, lambda m: m.append("INBOX", "", "", BODY))),
    "STORE": (
        "mail",
        lambda place: do_imap(place, lambda m: m.store("1", "+FLAGS", "(\\Flagged)")),
    ),
    "MOVE": ("mail", lambda place: do_imap(place, lambda m: m.uid("MOVE", "1", "Work"))),
    "EXPUNGE": (
        "mail",
        lambda place: do_imap(
            place, lambda m: (m.store("1", "+FLAGS", "(\\Deleted)"), m.expunge())
        ),
    ),
    "CREATE": ("mail", lambda place: do_imap(place, lambda m: m.create(f"F{time.time_ns()}"))),
    "CalDAV PUT": ("calendar", lambda place: place.cyrus.put_event("lunch", "Lunch")),
    "CardDAV PUT": ("contacts", lambda place: place.cyrus.put_card("carol", "Carol")),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_change_reaches_alice_with_the_servers_numbers_and_nobody_else(
    operation: str, place: Place, page: EventStream, bobs_page: EventStream
) -> None:
    kind, act = OPERATIONS[operation]
    before = place.cyrus.counters()
    act(place)
    after = place.cyrus.counters()

    assert after[f"{kind}ModSeq"] > before[f"{kind}ModSeq"], "the operation changed nothing"
    page.wait_for(place.shows_the_servers_numbers, within=5)
    told = states_told_to_a_new_reader(place)
    assert {name: told.get(name, 0) for name in POSITIONS} == {
        name: after[counter] for name, counter in POSITIONS.items()
    }
    assert bobs_page.quiet_for(0.2) == []


def test_folder_shared_with_bob_reaches_bob_until_it_is_not(
    place: Place, page: EventStream, bobs_page: EventStream
) -> None:
    with place.cyrus.imap() as imap:
        assert imap.setacl("Work", BOB, "lrs")[0] == "OK"
        imap.append("Work", "", "", BODY)
        truth = place.cyrus.counters(ALICE)
        block = bobs_page.wait_for(
            lambda block: (
                block.event == "shared"
                and block.json["numbers"]["mailModSeq"] == truth["mailModSeq"]
            )
        )
        assert block.json["account"] == ALICE
        page.wait_for(place.shows_the_servers_numbers)

        assert imap.deleteacl("Work", BOB)[0] == "OK"
        page.wait_for(place.shows_the_servers_numbers)
        bobs_page.quiet_for(0.3)  # what the change of rights itself told
        imap.append("Work", "", "", BODY)
        page.wait_for(place.shows_the_servers_numbers)
        assert bobs_page.quiet_for(0.3) == []


def test_calendar_alarm_of_cyrus_becomes_a_job(place: Place) -> None:
    from shared.jobqueue import JobQueue

    start = int(time.time()) + 3600
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(start))
    text = "\r\n".join(
        [
            "BEGIN:VCALENDAR",
            "VERSION:2.0",
            "PRODID:-//example//test//EN",
            "BEGIN:VEVENT",
            "UID:alarm",
            "DTSTAMP:20260101T000000Z",
            f"DTSTART:{moment}",
            "DURATION:PT1H",
            "SUMMARY:Wake up",
            "BEGIN:VALARM",
            "ACTION:EMAIL",
            "TRIGGER:-PT10M",
            "SUMMARY:Wake up",
            "DESCRIPTION:Wake up",
            f"ATTENDEE:mailto:{ALICE}",
            "END:VALARM",
            "END:VEVENT",
            "END:VCALENDAR",
            "",
        ]
    )
    path = f"/dav/calendars/user/{ALICE}/Default/alarm.ics"
    place.cyrus.put_dav(path, "text/calendar", text, ALICE)
    place.cyrus.run_as_cyrus("calalarmd", "-t", str(start))

    queue = JobQueue.open(place.pusher.folder / "run" / "queue.db", min_free_bytes=0)
    try:
        (job,) = queue.claim("test", ["calendar_alarm"], 10, 60.0, time.time())
    finally:
        queue.close()
    assert job.account == ALICE
    assert b"Wake up" in job.payload
