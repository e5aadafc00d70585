"""A reader that behaves as a webmail page must: it reconnects, and starts over when told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from demo.daemon import Daemon
from demo.eventsource import Block, EventStream

NAMES = ("mailModSeq", "calendarModSeq", "contactsModSeq")


class Follower:
    """Follows the stream of `account` from a thread until closed, over any number of connections.

    `ask` is the mail server's own answer, which a page fetches when it is told to start over; `url`
    overrides where the stream is, for a proxy.
    """

    def __init__(
        self,
        pusher: Daemon,
        account: str,
        ask: Callable[[], Mapping[str, int]] | None = None,
        url: str | None = None,
    ) -> None:
        self.numbers = dict.fromkeys(NAMES, 0)
        self.resyncs = 0
        self.connections = 0
        #: What broke a rule of the stream; empty if all is well.
        self.complaints: list[str] = []
        self._url = url or pusher.events_url
        self._token = pusher.token(account)
        self._ask = ask
        self._last_id = "0"
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def has(self, counters: Mapping[str, int]) -> bool:
        """Tell whether it knows these numbers, and exactly these."""
        return all(self.numbers[name] == counters[name] for name in NAMES)

    def _follow(self) -> None:
        while not self._closing.wait(0.05):
            try:
                with EventStream(
                    self._url, token=self._token, last_event_id=self._last_id, within=2
                ) as stream:
                    if stream.status == 200:
                        self.connections += 1
                        self._read(stream)
            except OSError:
                continue

    def _read(self, stream: EventStream) -> None:
        while not self._closing.is_set():
            try:
                block = stream.next_block(0.2)
            except TimeoutError:
                continue
            self._take(block)

    def _take(self, block: Block) -> None:
        if block.event == "resync":
            self.resyncs += 1
            self.numbers = {name: int(block.json.get(name, 0)) for name in NAMES}
            for name, value in (self._ask() if self._ask else {}).items():
                if name in NAMES:
                    self.numbers[name] = max(self.numbers[name], value)
        elif block.event == "push":
            for name in NAMES:
                value = int(block.json[name])
                if value < self.numbers[name] and not self.resyncs:
                    self.complaints.append(f"{name} fell from {self.numbers[name]} to {value}")
                self.numbers[name] = max(self.numbers[name], value)
        if block.id is not None:
            self._last_id = block.id
