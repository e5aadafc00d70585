"""What the acceptor and the processes that hold streams say to each other, one packet each.

MessagePack arrays with a tag; the descriptor of a new stream travels beside its `Open`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pusher.protocol.numbers import Numbers
from pusher.protocol.profile import Profile, Shape, interned


class _Message(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    pass


class Open(_Message, frozen=True, tag="o"):
    """Make a stream of the descriptor that comes with this; `head` is what to send first."""

    account: str
    shape: str
    types: tuple[str, ...]
    mask: int
    closes_after_state: bool
    ping_seconds: int
    expires: float
    head: bytes

    def profile(self) -> Profile:
        """Return the reader's wishes, shared with all that are equal."""
        return interned(
            Profile(
                Shape(self.shape),
                self.types,
                self.mask,
                self.closes_after_state,
                self.ping_seconds,
            )
        )


class Tell(_Message, frozen=True, tag="t"):
    """Tell the streams of `account` what moved in `about` (its own numbers, or a sharer's)."""

    account: str
    about: str
    event_id: int
    values: list[int]
    mask: int

    def numbers(self) -> Numbers:
        """Return the numbers to tell."""
        return Numbers(self.event_id, self.values)


class Settings(_Message, frozen=True, tag="s"):
    """Go on with these settings."""

    ping_seconds: float
    stalled_seconds: float


class Drain(_Message, frozen=True, tag="d"):
    """Let readers that are behind catch up for so long, close all streams, and end."""

    seconds: float


class Report(_Message, frozen=True, tag="r"):
    """From a holder: accounts of streams that closed (one each), or its counts, or both."""

    closed: list[str]
    counts: dict[str, float]


Order = Open | Tell | Settings | Drain

#: Longest packet; heads are a few hundred bytes and reports are split.
MAX_PACKET_BYTES: Final = 65_536
#: Closed streams in one report: names are at most 1 kB.
MOST_CLOSED: Final = 48

encode: Final = msgspec.msgpack.Encoder().encode
decode_order: Final = msgspec.msgpack.Decoder(Order).decode
decode_report: Final = msgspec.msgpack.Decoder(Report).decode
