"""A disk that does not take the snapshot is said, and keeps no page from its numbers."""

from __future__ import annotations

import json

from demo import wire
from demo.sources import Recorded
from tests.support.pusher_process import PusherProcess
from tests.support.streams import open_stream


class HalfReadyPusher(PusherProcess):
    """Started as soon as it lives."""

    def _is_ready(self) -> bool:
        try:
            return self.get("/healthz")[0] == 200
        except OSError:
            return False


def test_pusher_starts_and_serves_without_a_usable_snapshot() -> None:
    # A file where the folder should be: as good as a full disk, also for root.
    with HalfReadyPusher({"state": {"snapshot": "config.toml/state"}}) as pusher:
        status, body = pusher.get("/readyz")
        assert status == 503
        assert "snapshot" in json.loads(body)["reasons"][0]
        server = Recorded(
            lambda fields: wire.send_datagram(pusher.datagram_socket, wire.datagram(fields))
        )
        with open_stream(pusher, "alice@example.org") as stream:
            stream.next_block()
            server.do("deliver")
            block = stream.wait_for(lambda block: block.event == "push")
            assert block.json["mailModSeq"] == server.numbers()["mail"]
