"""The final state always arrives: a model of a mail server, a lossy way, readers that come and go.

Events are lost, repeated and mixed up, pusher is restarted and killed. Whenever the last event of
each mailbox has got through, every page that is connected knows what the server knows, or has been
told to start over since.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pusher.handshake import StreamRequest
from pusher.protocol import sse
from pusher.protocol.mboxevent import decode_change
from pusher.protocol.numbers import Numbers
from pusher.protocol.profile import PAGE
from pusher.publisher import Publisher, publish_one_by_one
from pusher.state.modseq import ModseqTable
from pusher.state.routing import route

KINDS: Final = {"e": 2, "c": 3, "a": 4}  # where the counters have mail, calendar, contacts
FOLDERS: Final = {"e": 6, "c": 7, "a": 8}
OWNERS: Final = ("alice", "bob")


@dataclass
class Mailbox:
    owner: str
    name: str
    type: str
    acl: str
    modseq: int = 0
    #: The owner's counters after the last change of this mailbox.
    counters: list[int] = field(default_factory=list)

    @property
    def uri(self) -> str:
        path = f"user/{self.owner}/{self.name}" if self.name else f"user/{self.owner}"
        return f"imap://mail/{path};UIDVALIDITY=1"


@dataclass
class Event:
    mailbox: Mailbox
    message: bytes
    is_fresh: bool
    is_modseq: bool


class Server:
    """Counts as Cyrus does: one sequence per owner, specific events with the counters of before."""

    def __init__(self) -> None:
        self.counters = {owner: [9, *[0] * 11, 1000] for owner in OWNERS}
        self.lives = itertools.count(9, -1)
        self.mailboxes = [
            Mailbox(owner, name, kind, f"{owner}\tlrswipkxtecda\t")
            for owner in OWNERS
            for name, kind in (("", "e"), ("Work", "e"), ("#calendars/D", "c"), ("#addr/D", "a"))
        ]
        acl = "alice\tlrswipkxtecda\tbob\tlrs\t"
        self.mailboxes.append(Mailbox("alice", "Shared", "e", acl))
        self.shared = self.mailboxes[-1]
        for owner in OWNERS:
            self.reset(owner)

    def page(self, owner: str) -> tuple[int, ...]:
        return tuple(self.counters[owner][at] for at in KINDS.values())

    def change(self, mailbox: Mailbox, uids: int, specific_first: bool) -> list[Event]:
        counters = self.counters[mailbox.owner]
        before = list(counters)
        counters[1] += 1
        counters[KINDS[mailbox.type]] = mailbox.modseq = counters[1]
        mailbox.counters = list(counters)
        specific = self.event(mailbox, "FlagsSet", before, counters[1] if uids <= 2 else None)
        both = [self.event(mailbox, "MailboxModseq", counters), specific]
        return both[::-1] if specific_first else both

    def create(self, mailbox: Mailbox) -> list[Event]:
        counters = self.counters[mailbox.owner]
        counters[1] += 1
        counters[KINDS[mailbox.type]] = counters[FOLDERS[mailbox.type]] = counters[1]
        counters[12] += 7
        mailbox.counters = list(counters)
        return [self.event(mailbox, "MailboxCreate", counters)]

    def reset(self, owner: str) -> list[Event]:
        """A new account of the same name: numbers start again, far below the old ones."""
        start = next(self.lives) * 1000
        self.counters[owner] = [9, start, start, *[0] * 9, self.counters[owner][12] + 1000]
        for mailbox in self.mailboxes:
            if mailbox.owner == owner:
                mailbox.modseq, mailbox.counters = start, list(self.counters[owner])
        return [self.last_event(mailbox) for mailbox in self.mailboxes if mailbox.owner == owner]

    def last_event(self, mailbox: Mailbox) -> Event:
        return self.event(mailbox, "MailboxModseq", mailbox.counters)

    def event(
        self, mailbox: Mailbox, what: str, counters: list[int], modseq: int | None = None
    ) -> Event:
        told: dict[str, Any] = {"event": what, "uri": mailbox.uri}
        if modseq is not None:
            told["modseq"] = modseq
        told["vnd.cmu.mbtype"] = mailbox.type
        told["vnd.cmu.mailboxACL"] = mailbox.acl
        told["vnd.fastmail.counters"] = " ".join(map(str, counters))
        return Event(
            mailbox, json.dumps(told).encode(), what != "FlagsSet", what == "MailboxModseq"
        )


class Page:
    """A web page as it should be: loads everything at first and on resync, then believes us."""

    def __init__(self, server: Server, account: str) -> None:
        self.server, self.account = server, account
        self.last_event_id: str | None = None
        self.pushed: tuple[int, ...] = (0, 0, 0)
        self.load()

    def load(self) -> None:
        self.knows = self.server.page(self.account)
        self.knows_shared = self.server.shared.modseq

    def read(self, data: bytes) -> None:
        for block in data.decode().split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            if "id" in fields:
                self.last_event_id = fields["id"]
            if "event" in fields:
                self.take(fields["event"], json.loads(fields["data"]))

    def take(self, event: str, data: dict[str, Any]) -> None:
        match event:
            case "push":
                told = tuple(data[name] for name in ("mailModSeq", "calendarModSeq"))
                told += (data["contactsModSeq"],)
                assert all(new >= old for new, old in zip(told, self.pushed, strict=True))
                self.pushed = told
                self.knows = tuple(map(max, self.knows, told))
            case "resync":
                self.pushed = (0, 0, 0)
                self.load()
            case "shared":
                assert data["account"] == "alice"
                self.knows_shared = self.server.shared.modseq
            case _:
                raise AssertionError(event)


@dataclass
class Pages:
    """Gives streams to pages at once."""

    pages: dict[str, list[Page]] = field(default_factory=dict)
    opening: Page | None = None

    @property
    def accounts(self) -> dict[str, list[Page]]:
        return self.pages

    def streams_of(self, account: str) -> int:
        return len(self.pages.get(account, ()))

    def open(self, connection: socket.socket, request: StreamRequest, opening: bytes) -> None:
        page = cast(Page, connection)
        assert b"id: " in opening.split(b"\n\n")[0]
        self.pages.setdefault(request.account, []).append(page)
        page.read(opening)

    def publish_moved(self, moved: Mapping[str, int], table: ModseqTable) -> None:
        publish_one_by_one(self, moved, table)

    def publish(self, account: str, numbers: Numbers, mask: int, owner: str | None = None) -> None:
        for page in self.pages.get(account, ()):
            if owner is None:
                page.read(sse.change(PAGE, account, numbers, mask))
            else:
                page.read(sse.shared_change(PAGE, owner, numbers, mask))


class World:
    """The server, what is on its way, pusher, and the pages."""

    def __init__(self, max_accounts: int) -> None:
        self.now = 1_800_000_000.0
        self.server = Server()
        self.on_the_way: list[Event] = []
        self.pages: list[Page] = []
        self.saved: dict[str, bytes] = {}
        self.max_accounts = max_accounts
        self.start(gapless=True)

    def start(self, *, gapless: bool) -> None:
        self.now += 1
        self.table = ModseqTable(self.max_accounts)
        self.table.restore(self.saved.items(), gapless=gapless)
        if not gapless:
            self.saved = dict(self.table.records())
        self.outlet = Pages()
        self.publisher = Publisher(
            self.table,
            self.outlet,
            retry_seconds=1,
            most_per_account=1000,
            wall=lambda: self.now,
            jitter=lambda: 0.5,
        )

    def save(self) -> None:
        self.saved.update(self.table.take_unsaved(1000))

    def take(self, event: Event) -> None:
        self.now += 0.1
        if event.is_modseq and self.publisher.shortcut.take(event.message):
            return
        change = decode_change(event.message)
        self.publisher.change(route(change), change)

    def connect(self, page: Page) -> None:
        if self.is_connected(page):
            return
        request = StreamRequest(page.account, PAGE, 2e9, page.last_event_id, b"")
        self.publisher.open(cast(socket.socket, page), request)

    def is_connected(self, page: Page) -> bool:
        return page in self.outlet.pages.get(page.account, ())

    def disconnect(self, page: Page) -> None:
        if self.is_connected(page):
            pages = self.outlet.pages[page.account]
            pages.remove(page)
            if not pages:
                del self.outlet.pages[page.account]

    def settle(self, order: int) -> None:
        """The last event of every mailbox gets through, and every page comes back."""
        last = [self.server.last_event(mailbox) for mailbox in self.server.mailboxes]
        self.on_the_way.clear()
        for event in last[order % len(last) :] + last[: order % len(last)]:
            self.take(event)
            if order & 1:
                self.publisher.flush()
        self.publisher.flush()
        for page in self.pages:
            self.connect(page)
        for page in self.pages:
            assert page.knows == self.server.page(page.account)
            assert page.account == "alice" or page.knows_shared == self.server.shared.modseq

    def do(self, what: str, which: int, how: int) -> None:
        server = self.server
        mailbox = server.mailboxes[which % len(server.mailboxes)]
        match what:
            case "change":
                events = server.change(mailbox, uids=1 + how % 3, specific_first=bool(how & 4))
                self.send(events, how >> 3)
            case "create":
                self.send(server.create(mailbox), how)
            case "reset" if mailbox.owner in self.table:  # else nobody can know it had another life
                self.send(server.reset(mailbox.owner), how)
            case "deliver" if self.on_the_way:
                self.take(self.on_the_way.pop(which % min(8, len(self.on_the_way))))
                if how & 1:
                    self.publisher.flush()
            case "flush":
                self.publisher.flush()
            case "connect":
                self.pages.append(Page(server, OWNERS[which % 2]))
                self.connect(self.pages[-1])
            case "reconnect" if self.pages:
                self.connect(self.pages[which % len(self.pages)])
            case "disconnect" if self.pages:
                self.disconnect(self.pages[which % len(self.pages)])
            case "others":
                for number in range(how):
                    other = f"imap://mail/user/other{number}"
                    change = decode_change(b'{"event":"FlagsSet","uri":"%b"}' % other.encode())
                    self.publisher.change(route(change), change)
                    self.publisher.flush()
            case "save":
                self.save()
            case "restart":
                self.publisher.flush()
                self.save()
                if how & 1:
                    self.on_the_way.clear()
                self.start(gapless=not how & 1)
            case "crash":
                self.on_the_way = self.on_the_way[which:]
                self.start(gapless=False)
            case "settle":
                self.settle(how)

    def send(self, events: list[Event], luck: int) -> None:
        for event in events:
            self.on_the_way += [event] * (1, 1, 0, 2)[luck & 3]
            luck >>= 2


actions = st.tuples(
    st.sampled_from(
        ["change"] * 6
        + ["deliver"] * 8
        + ["disconnect", "reconnect", "connect", "settle"] * 2
        + ["create", "reset", "flush", "others", "save", "restart", "crash"]
    ),
    st.integers(0, 15),
    st.integers(0, 31),
)

#: bob's page must hear of a shared mailbox though a later event of its owner came first.
OVERTAKEN: Final = [("connect", 1, 0), ("change", 8, 0), ("change", 0, 0)]
#: The ids of a run whose numbers were never saved must not be given out again by the next.
KILLED_TWICE: Final = [
    *[("connect", 0, 0), ("settle", 0, 0), ("reset", 0, 0), ("save", 0, 0), ("crash", 0, 0)],
    *[("deliver", 0, 0), ("reconnect", 0, 0), ("change", 0, 0), ("crash", 0, 0)],
]
#: A good end must not make the next start forget that there was a gap before.
GAP_BEFORE_A_GOOD_END: Final = [
    *[("connect", 1, 0), ("settle", 0, 0), ("save", 0, 0), ("settle", 0, 0), ("reset", 0, 0)],
    *[("crash", 0, 0), ("restart", 0, 0)],
]


@settings(deadline=None, max_examples=1000)
@given(st.lists(actions, max_size=80), st.sampled_from([4, 1000]), st.integers(0, 31))
@example(OVERTAKEN, 1000, 0)
@example(KILLED_TWICE, 1000, 0)
@example(GAP_BEFORE_A_GOOD_END, 1000, 0)
def test_whatever_happens_every_page_ends_with_what_the_server_knows(
    history: list[tuple[str, int, int]], max_accounts: int, last: int
) -> None:
    world = World(max_accounts)
    for what, which, how in history:
        world.do(what, which, how)
    world.settle(last)
