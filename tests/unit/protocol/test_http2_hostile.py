"""Whatever a server sends: one kind of error at most, an end, and bounded memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pusher.protocol.hpack_prefix import Request, fixed_fields
from pusher.protocol.http2 import Http2Client
from pusher.protocol.http2_answers import Result
from pusher.protocol.http2_frames import Http2Error, frame
from tests.support.h2_far_end import PlayedServer

FIXED = fixed_fields("api.example")
SETTINGS = PlayedServer().settings()

KINDS = st.one_of(st.integers(0, 10), st.integers(0, 255))
STREAMS = st.one_of(st.integers(0, 12), st.integers(0, 2**32 - 1))
BLOCKS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"\x88", b"\x88abc", b"\x8c", b"\x48\x03410", b"\x20\x88", b"\x48\x82\x64\x02"]
    ),
)
FRAMES = st.builds(frame, KINDS, st.integers(0, 255), STREAMS, BLOCKS)
LIKELY = st.builds(
    frame,
    st.sampled_from([0, 1, 1, 1, 3, 4, 6, 7, 8, 9]),
    st.sampled_from([0, 1, 4, 5, 5, 5, 8, 0x2D]),
    st.integers(0, 9),
    st.one_of(BLOCKS, st.sampled_from([bytes(4), bytes(8), b"\0\0\0\x07", b"\0\4\0\0\0\1"])),
)


class Started:
    """A client with four requests out, one in parts, and one more not written."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.client = Http2Client()
        self.client.take()
        self.client.feed(SETTINGS + frame(4, 0, 0, b"\0\4\0\0\0\x32"))
        for body in (b"", b"{}", b"x" * 90, b"{}"):
            self.client.send(Request("/", body, FIXED), self.results.append)
        self.client.take()
        self.client.send(Request("/", b"", FIXED), self.results.append)

    def feed(self, data: bytes) -> bool:
        try:
            self.client.feed(data)
        except Http2Error:
            return False
        return True


def feed_all(data: bytes, size: int) -> None:
    started = Started()
    for at in range(0, len(data), size):
        if not started.feed(data[at : at + size]):
            assert len(started.results) == 5
            break
    started.client.lost("closed")
    assert len(started.results) == 5


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(1, 400))
def test_random_bytes(data: bytes, size: int) -> None:
    feed_all(data, size)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(FRAMES, LIKELY, LIKELY), max_size=20), st.integers(1, 200))
def test_random_frames(frames: list[bytes], size: int) -> None:
    feed_all(b"".join(frames), size)


@settings(max_examples=200, deadline=None)
@given(st.lists(LIKELY, max_size=20), st.integers(1, 400))
def test_the_way_frames_are_split_makes_no_difference(frames: list[bytes], size: int) -> None:
    data = b"".join(frames)
    whole, parts = Started(), Started()
    ended = whole.feed(data)
    for at in range(0, len(data), size):
        if not parts.feed(data[at : at + size]):
            assert not ended
            break
    whole.client.lost("closed")
    parts.client.lost("closed")
    assert whole.results == parts.results


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_random_header_blocks(block: bytes) -> None:
    feed_all(frame(1, 5, 1, block) + frame(1, 4, 3, b"\x88" + block) + frame(0, 1, 3, b"x"), 1000)


FLOODS = {
    "PING": frame(6, 0, 0, bytes(8)),
    "SETTINGS": frame(4, 0, 0, b"\0\1\0\0\0\0"),
    "empty DATA": frame(1, 4, 1, b"\x88") + frame(0, 0, 1, b"") * 20,
    "small DATA": frame(1, 4, 1, b"\x88") + frame(0, 0, 1, b"x") * 20,
    "DATA on closed streams": frame(1, 5, 3, b"\x88") + frame(0, 0, 3, bytes(200)) * 5,
    "padding": frame(0, 8, 1, bytes((255,)) + bytes(255)),
    "103": frame(1, 4, 1, b"\x48\x03103"),
    "RST_STREAM": frame(3, 0, 1, bytes(4)),
    "WINDOW_UPDATE on a stream": frame(8, 0, 7, b"\0\0\0\0"),
    "PRIORITY": frame(2, 0, 1, bytes(5)),
    "unknown": frame(0xEE, 0, 1, bytes(100)),
    "GOAWAY": frame(7, 0, 0, bytes(8) + b"x" * 400),
    "CONTINUATION": frame(1, 0, 1, b"") + frame(9, 0, 1, b"x"),
}


@pytest.mark.parametrize("reads_us", [False, True])
@pytest.mark.parametrize("name", FLOODS)
def test_floods_take_no_memory(name: str, reads_us: bool) -> None:
    started = Started()
    tracemalloc.start()
    for _ in range(20_000):
        if not started.feed(FLOODS[name]):
            break
        if reads_us:
            started.client.take()
    used, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(used, peak) < 400_000


def test_a_long_frame_that_comes_byte_by_byte_is_kept_once() -> None:
    started = Started()
    for byte in frame(0xEE, 0, 0, bytes(16_384)) + frame(1, 5, 1, b"\x88"):
        started.feed(bytes((byte,)))
    assert len(started.results) == 1
