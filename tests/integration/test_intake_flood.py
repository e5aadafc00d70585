"""More events than anybody needs: the sender hardly waits, memory stays, the last state arrives."""

from __future__ import annotations

import time

from tests.support.hostile import (
    Crowd,
    DatagramSender,
    all_have,
    event_datagram,
    metric,
    resident_bytes,
)
from tests.support.pusher_process import PusherProcess

SECONDS = 5.0
ACCOUNTS = 50


def test_flood_of_datagrams_holds_the_sender_up_for_moments_only() -> None:
    with (
        PusherProcess() as pusher,
        Crowd(pusher.streams_port) as crowd,
        DatagramSender(pusher.datagram_socket) as sender,
    ):
        names = [f"user{number}" for number in range(ACCOUNTS)]
        for name in names:
            token = pusher.token(name)
            for _ in range(4):
                crowd.join(name, token)
        crowd.pump_until_open()
        memory = []
        began = time.monotonic()
        number = 0
        while time.monotonic() - began < SECONDS:
            number += 1
            for name in names:
                sender.send(event_datagram(name, number))
            if number % 20 == 0:
                crowd.read_some()
                memory.append(resident_bytes(pusher.pid))
        crowd.pump(all_have(crowd.readers, number), "the last state", within=5)
        sent = number * ACCOUNTS
        assert sent > 10_000
        sender.waits.sort()
        short = sum(1 for wait in sender.waits if wait < 0.05) / len(sender.waits)
        assert short > 0.999, f"one in {1 / (1 - short):.0f} waited for more than 50 ms"
        assert sender.waits[-1] < 1, f"the longest wait: {sender.waits[-1]:.2f} s"
        assert memory[-1] - memory[len(memory) // 2] < 8 << 20
        assert not any(reader.is_ended for reader in crowd.readers)
        assert metric(pusher, 'pusher_events_total{type="MailboxModseq"}') == sent
        print(f"{sent / SECONDS:.0f} events/s, longest wait {sender.waits[-1] * 1000:.1f} ms")
