"""A process that holds streams for the acceptor: a hub at the other end of a socket pair.

Run as `python -m pusher.shard DESCRIPTOR`. It knows no events and no numbers of its own; when the
acceptor goes away, it ends, and its readers reconnect.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import sys
import time

import trio

from pusher.hub import TICK_SECONDS, Hub, HubSettings
from pusher.loop_lag import LoopLag
from pusher.protocol.shardwire import (
    MAX_PACKET_BYTES,
    MOST_CLOSED,
    Drain,
    Open,
    Order,
    Report,
    Settings,
    Tell,
    decode_order,
    encode,
)
from pusher.reactor import EPOLLIN, settle_garbage_collector

_REPORT_TICKS = 10
_ORDERS_PER_ROUND = 64
_DESCRIPTOR_BYTES = array.array("i").itemsize


class Holder:
    """The hub of this process and its line to the acceptor."""

    def __init__(self, channel: socket.socket) -> None:
        self.hub = Hub(HubSettings())
        self.hub.on_closed = self._note_closed
        self.lag = LoopLag()
        self._channel = channel
        self._closed: list[str] = []
        self._drain_seconds: float | None = None
        self._ended = trio.Event()
        channel.setblocking(False)
        # Last, as it brings new descriptors: see the reactor.
        self.hub.reactor.add(channel.fileno(), EPOLLIN, self._on_orders, last=True)

    async def run(self) -> None:
        """Serve until told to drain, or until the acceptor is gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.hub.reactor.run)
            nursery.start_soon(self._ticks)
            await self._ended.wait()
            if self._drain_seconds is not None:
                with trio.move_on_after(self._drain_seconds):
                    while self.hub.stalled:  # noqa: ASYNC110 - the hub knows no events
                        await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        self.hub.close_all()
        self._report()

    async def _ticks(self) -> None:
        count = 0
        while True:
            due = trio.current_time() + TICK_SECONDS
            await trio.sleep_until(due)
            self.lag.note(trio.current_time() - due, time.monotonic())
            self.hub.tick()
            count += 1
            if count % _REPORT_TICKS == 0 or self._closed:
                self._report()

    # --- the line to the acceptor ----------------------------------------------------------------

    def _on_orders(self, _descriptor: int, _events: int) -> None:
        for _ in range(_ORDERS_PER_ROUND):
            try:
                packet, descriptors = self._receive()
            except BlockingIOError:
                return
            except OSError:
                packet, descriptors = b"", []
            if not packet:
                self.hub.reactor.remove(self._channel.fileno())
                self._ended.set()
                return
            self._obey(decode_order(packet), descriptors)

    def _receive(self) -> tuple[bytes, list[int]]:
        packet, ancillary, _flags, _address = self._channel.recvmsg(
            MAX_PACKET_BYTES, socket.CMSG_SPACE(_DESCRIPTOR_BYTES), socket.MSG_CMSG_CLOEXEC
        )
        descriptors = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) // _DESCRIPTOR_BYTES * _DESCRIPTOR_BYTES])
        return packet, list(descriptors)

    def _obey(self, order: Order, descriptors: list[int]) -> None:
        match order:
            case Tell():
                owner = None if order.about == order.account else order.about
                self.hub.publish(order.account, order.numbers(), order.mask, owner)
            case Open():
                if not descriptors:  # this process has none left
                    self._note_closed(order.account)
                for descriptor in descriptors:
                    self.hub.attach(
                        descriptor, order.account, order.profile(), order.expires, order.head
                    )
            case Settings():
                self.hub.settings.ping_seconds = order.ping_seconds
                self.hub.settings.stalled_seconds = order.stalled_seconds
            case Drain():
                self._drain_seconds = order.seconds
                self._ended.set()

    def _note_closed(self, account: str) -> None:
        self._closed.append(account)

    def _report(self) -> None:
        """Send what closed and what was counted; what does not fit now goes next time."""
        counts: dict[str, float] = {
            **vars(self.hub.counts),
            "open": len(self.hub),
            "behind": self.hub.stalled,
            "lag": self.lag.recent_seconds,
        }
        while True:
            closed = self._closed[:MOST_CLOSED]
            try:
                self._channel.send(encode(Report(closed, counts)))
            except OSError:
                return
            del self._closed[: len(closed)]
            if not self._closed:
                return


def main() -> None:
    """Run with the descriptor of the channel as the only argument."""
    # The acceptor decides when to end; a signal to the whole group must not cut readers off.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(channel.fileno(), False)
    settle_garbage_collector()
    with contextlib.suppress(KeyboardInterrupt):
        trio.run(_serve, channel)


async def _serve(channel: socket.socket) -> None:
    await Holder(channel).run()


if __name__ == "__main__":
    main()
