"""From what a mail server sent to what a page was told: byte for byte where that is published."""

from __future__ import annotations

import base64
import json
import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from pusher.dispatch import Dispatcher
from pusher.handshake import StreamRequest
from pusher.intake import Done
from pusher.protocol import sse
from pusher.protocol.counters import Counters, parse
from pusher.protocol.framing import StreamFraming
from pusher.protocol.imapurl import parse as parse_uri
from pusher.protocol.mboxevent import decode
from pusher.protocol.notification import Notification, decode_datagram
from pusher.protocol.numbers import DELIVERY, NAMES, Numbers
from pusher.publisher import Publisher, publish_one_by_one
from pusher.state.modseq import ModseqTable
from pusher.state.routing import route
from pusher.tap import Happening, Tap
from shared.errors import QueueError
from shared.jobqueue import NewJob

DATA = Path(__file__).parents[1] / "data"
CAPTURES = sorted([*DATA.glob("mboxevents/*.dgram"), *DATA.glob("mboxevents/*.dlist")])
SESSION = [
    json.loads(line) for line in (DATA / "session-x-dlist.jsonl").read_text("utf-8").splitlines()
]


class Pages:
    """Nobody is connected, except who is asked for."""

    def __init__(self, *connected: str) -> None:
        self.accounts = set(connected)
        self.told: defaultdict[str, list[Numbers]] = defaultdict(list)

    def streams_of(self, account: str) -> int:
        return int(account in self.accounts)

    def open(self, connection: socket.socket, request: StreamRequest, opening: bytes) -> None:
        raise AssertionError

    def publish_moved(self, moved: Mapping[str, int], table: ModseqTable) -> None:
        publish_one_by_one(self, moved, table)

    def publish(self, account: str, numbers: Numbers, mask: int, owner: str | None = None) -> None:
        if owner is None:
            self.told[account].append(numbers)


class Queue:
    def __init__(self) -> None:
        self.jobs: list[NewJob] = []

    def submit(self, jobs: Sequence[NewJob], done: Done) -> None:
        self.jobs += jobs
        done(None)


class World:
    def __init__(self, *connected: str) -> None:
        self.outlet = Pages(*connected)
        self.table = ModseqTable()
        self.publisher = Publisher(
            self.table, self.outlet, retry_seconds=1, most_per_account=9, wall=lambda: 1.8e9
        )
        self.queue, self.tap = Queue(), Tap()
        self.dispatcher = Dispatcher(self.publisher, self.queue, self.tap, wall=lambda: 1.8e9)

    def take(self, notification: Notification) -> list[QueueError | None]:
        answers: list[QueueError | None] = []
        if self.dispatcher.is_slow(notification):
            self.dispatcher.keep(notification, answers.append)
        else:
            self.dispatcher.take(notification)
        self.publisher.flush()
        return answers


def read(path: Path) -> Notification:
    data = path.read_bytes()
    if path.suffix == ".dgram":
        return decode_datagram(data)
    (item,) = StreamFraming().feed(data)
    assert isinstance(item, Notification)
    return item


def session() -> list[Notification]:
    items = []
    for line in SESSION:
        (item,) = StreamFraming().feed(base64.b64decode(line["raw_b64"]))
        assert isinstance(item, Notification)
        items.append(item)
    return items


# --- the published example ---------------------------------------------------------------------


def test_the_event_published_in_2014_gives_the_published_update() -> None:
    event = decode((DATA / "fastmail-2014.json").read_bytes())
    # User and folder were blanked by the publisher, so the account comes from outside.
    goes = route(event)._replace(account="robn@fastmail.fm", rests="")
    world = World("robn@fastmail.fm")
    assert world.publisher.change(goes, event)
    world.publisher.flush()
    (numbers,) = world.outlet.told["robn@fastmail.fm"]
    assert sse.push(Numbers(1760138, numbers.values)) == (  # the id is the sender's own
        b"event: push\n"
        b"id: 1760138\n"
        b'data: {"mailModSeq":1777287,"calendarModSeq":1761500,"contactsModSeq":1758760}\n\n'
    )
    assert numbers.values[DELIVERY] == 1777287


def test_the_blanked_event_concerns_no_account_and_harms_none() -> None:
    world = World()
    world.dispatcher.take_event((DATA / "fastmail-2014.json").read_bytes())
    assert len(world.table) == 0


# --- captures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
@pytest.mark.parametrize("is_watched", [False, True], ids=["", "watched"])
def test_every_capture_goes_through(path: Path, is_watched: bool) -> None:
    world, seen = World(), list[Happening]()
    if is_watched:
        world.tap.add(seen.append)
    notification = read(path)
    answers = world.take(notification)
    assert answers == ([None] if world.dispatcher.is_slow(notification) else [])
    assert not +world.dispatcher.rejected
    assert sum(world.dispatcher.events.values()) == 1
    assert world.dispatcher.events["other"] == 0
    assert len(seen) == (1 if is_watched else 0)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_watching_changes_nothing(path: Path) -> None:
    quiet, watched = World(), World()
    watched.tap.add(lambda _happening: None)
    for world in (quiet, watched):
        world.dispatcher._wants_sample = False
        world.take(read(path))
    assert quiet.table.records() == watched.table.records()
    assert quiet.dispatcher.results == watched.dispatcher.results
    assert quiet.queue.jobs == watched.queue.jobs


# --- a whole session ---------------------------------------------------------------------------


def truth() -> dict[str, dict[str, int]]:
    """The greatest of every counter that the session's events name, by owner."""
    greatest: dict[str, dict[str, int]] = {}
    for notification in session():
        if notification.class_ != "EVENT":
            continue
        event = decode(notification.message)
        owner = parse_uri(event.uri or "").owner
        told = parse(event.counters or "")
        if owner is None or told is None:
            continue
        known = greatest.setdefault(owner, dict.fromkeys(NAMES[:11], 0))
        for name, number in zip(NAMES, told, strict=False):
            if name in known:
                known[name] = max(known[name], number)
    return greatest


def test_the_session_names_several_accounts() -> None:
    assert len(truth()) >= 2
    assert len(Counters._fields) == 12


@pytest.mark.parametrize("repeated", [1, 2])
def test_a_session_replayed_ends_with_the_greatest_counters_of_every_account(
    repeated: int,
) -> None:
    world = World(*truth())
    for notification in session():
        for _ in range(repeated):
            world.take(notification)
    for account, numbers in truth().items():
        known = world.table.numbers(account)
        assert known is not None
        assert dict(zip(NAMES[:11], known.values, strict=False)) == numbers
        assert list(world.outlet.told[account][-1].values) == list(known.values)


def test_readers_of_the_session_see_numbers_and_ids_rise_only() -> None:
    world = World(*truth())
    for notification in session():
        world.take(notification)
    for told in world.outlet.told.values():
        ids = [numbers.id for numbers in told]
        assert ids == sorted(set(ids))
        for before, after in pairwise(told):
            assert all(new >= old for new, old in zip(after.values, before.values, strict=True))


def test_a_session_told_backwards_ends_with_the_same_numbers() -> None:
    # All within a minute: nothing of it can pass for a backup that was restored.
    world = World()
    for notification in reversed(session()):
        world.take(notification)
    for account, numbers in truth().items():
        known = world.table.numbers(account)
        assert known is not None
        values = dict(zip(NAMES, known.values, strict=True))
        assert {name: values[name] for name in numbers} == numbers
