"""Every way a request or a connection can end: answered, never processed, or fate unknown."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from pusher.protocol.hpack_prefix import Request, fixed_fields
from pusher.protocol.http2 import Http2Client
from pusher.protocol.http2_answers import Answer, FateUnknown, NeverProcessed, Result
from pusher.protocol.http2_frames import ErrorCode, Http2Error
from tests.support.h2_far_end import PlayedServer

FIXED = fixed_fields("api.example")
GONE = FateUnknown("closed")


class Play:
    """A client with `count` requests sent, and the server's pen."""

    def __init__(self, count: int = 0, settings: dict[int, int] | None = None, **options: int):
        self.client = Http2Client(**options)
        self.server = PlayedServer()
        self.server.read(self.client.take())
        self.client.feed(self.server.settings(settings))
        self.results: dict[int, Result] = {}
        for _ in range(count):
            self.send()
        self.written = self.server.read(self.client.take())

    def send(self, body: bytes = b"{}") -> None:
        streams: list[int] = []

        def done(result: Result) -> None:
            assert streams[0] not in self.results
            self.results[streams[0]] = result

        streams.append(self.client.send(Request("/", body, FIXED), done))

    def feed(self, *frames: Frame | bytes) -> None:
        data = b"".join(f if isinstance(f, bytes) else f.serialize() for f in frames)
        self.client.feed(data)

    def replies(self) -> list[Frame]:
        return self.server.read(self.client.take())


# --- GOAWAY --------------------------------------------------------------------------------------


def test_after_goaway_accepted_requests_are_still_answered() -> None:
    play = Play(4)
    play.feed(GoAwayFrame(last_stream_id=3))
    assert play.results == {5: NeverProcessed("goaway"), 7: NeverProcessed("goaway")}
    assert play.client.is_closing
    assert play.client.room == 0
    play.feed(play.server.answer(1), play.server.answer(3, 410))
    assert play.results[1] == Answer(200)
    assert play.results[3] == Answer(410)
    assert play.client.open_streams == 0


def test_a_first_goaway_that_names_no_stream_is_followed_by_one_that_does() -> None:
    play = Play(3)
    play.feed(GoAwayFrame(last_stream_id=2**31 - 1))
    assert play.results == {}
    assert play.client.room == 0
    play.feed(play.server.answer(1), GoAwayFrame(last_stream_id=3))
    assert play.results == {1: Answer(200), 5: NeverProcessed("goaway")}
    play.client.lost("closed")
    assert play.results[3] == GONE


def test_the_last_stream_of_a_goaway_never_rises() -> None:
    play = Play(3)
    play.feed(GoAwayFrame(last_stream_id=1), GoAwayFrame(last_stream_id=5))
    assert play.client.goaway is not None
    assert play.client.goaway.last_stream == 1
    assert play.results == {3: NeverProcessed("goaway"), 5: NeverProcessed("goaway")}


def test_what_a_goaway_says_is_kept_for_the_log() -> None:
    play = Play(1)
    reason = b'{"reason":"BadCertificate"}\xff' + b"x" * 300
    play.feed(GoAwayFrame(last_stream_id=0, error_code=0xB, additional_data=reason))
    assert play.client.goaway is not None
    assert play.client.goaway.code == "enhance-your-calm"
    assert play.client.goaway.detail.startswith('{"reason":"BadCertificate"}\ufffd')
    assert len(play.client.goaway.detail) == 200


def test_answers_and_goaway_in_one_read_are_told_apart() -> None:
    play = Play(5)
    play.feed(
        play.server.answer(1), GoAwayFrame(last_stream_id=5), play.server.answer(5), b"\0\0\4"
    )
    assert play.results == {
        1: Answer(200),
        5: Answer(200),
        7: NeverProcessed("goaway"),
        9: NeverProcessed("goaway"),
    }


# --- the end of the connection -------------------------------------------------------------------


def test_a_lost_connection_tells_sent_from_never_sent() -> None:
    play = Play(2)
    play.send()
    play.client.lost("closed")
    assert play.results == {1: GONE, 3: GONE, 5: NeverProcessed("not-sent")}
    assert play.client.take() == b""  # what was never processed must not be sent after all


def test_a_status_that_came_counts_though_the_answer_broke_off() -> None:
    play = Play(3)
    play.feed(play.server.headers(1, 200), play.server.headers(3, 410), DataFrame(3, b'{"rea'))
    play.client.lost("closed")
    assert play.results == {
        1: Answer(200, is_whole=False),
        3: Answer(410, body=b'{"rea', is_whole=False),
        5: GONE,
    }


def test_nothing_comes_after_the_end() -> None:
    play = Play(1)
    play.client.lost("closed")
    play.client.lost("again")
    play.feed(play.server.answer(1))
    play.client.cancel(1, "deadline")
    assert play.results == {1: GONE}


def test_a_cancelled_request_frees_its_stream_and_ignores_its_answer() -> None:
    play = Play(2, {SettingsFrame.MAX_CONCURRENT_STREAMS: 2})
    play.feed(play.server.headers(3, 503))
    play.client.cancel(1, "deadline")
    play.client.cancel(3, "deadline")
    play.client.cancel(99, "deadline")
    assert play.results == {1: FateUnknown("deadline"), 3: Answer(503, is_whole=False)}
    replies = [(f.stream_id, f.error_code) for f in play.replies() if isinstance(f, RstStreamFrame)]
    assert replies == [(1, ErrorCode.CANCEL), (3, ErrorCode.CANCEL)]
    assert play.client.room == 2
    play.feed(play.server.headers(1, 200), DataFrame(1, b"late"), RstStreamFrame(1, 0))
    assert len(play.results) == 2


def test_stream_ids_run_out_before_they_are_too_large() -> None:
    play = Play(last_stream=5)
    for _ in range(3):
        assert play.client.room
        play.send()
    assert play.client.room == 0
    assert play.client.is_closing
    play.replies()
    play.feed(play.server.answer(5), play.server.answer(3), play.server.answer(1))
    assert play.results == dict.fromkeys((1, 3, 5), Answer(200))


def test_closing_says_goaway_and_nothing_else() -> None:
    play = Play(1)
    play.send()
    play.client.close("idle")
    assert play.results == {1: FateUnknown("idle"), 3: NeverProcessed("not-sent")}
    assert [type(each) for each in play.replies()] == [GoAwayFrame]
    assert play.client.room == 0
    play.client.close("again")
    assert play.replies() == []


# --- the end of a stream -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (ErrorCode.REFUSED_STREAM, NeverProcessed("refused-stream")),
        (ErrorCode.NO_ERROR, FateUnknown("reset-no-error")),
        (ErrorCode.PROTOCOL_ERROR, FateUnknown("reset-protocol-error")),
        (ErrorCode.INTERNAL_ERROR, FateUnknown("reset-internal-error")),
        (ErrorCode.CANCEL, FateUnknown("reset-cancel")),
        (ErrorCode.ENHANCE_YOUR_CALM, FateUnknown("reset-enhance-your-calm")),
        (ErrorCode.HTTP_1_1_REQUIRED, FateUnknown("reset-http-1-1-required")),
        (0xFFFF, FateUnknown("reset-unknown-code")),
    ],
)
def test_a_reset_says_whether_the_request_was_processed(code: int, result: Result) -> None:
    play = Play(2)
    play.feed(RstStreamFrame(1, error_code=code), play.server.answer(3))
    assert play.results == {1: result, 3: Answer(200)}


def test_a_reset_after_the_status_does_not_hide_it() -> None:
    play = Play(1)
    play.feed(play.server.headers(1, 400), RstStreamFrame(1, error_code=7))
    assert play.results == {1: Answer(400, is_whole=False)}


MALFORMED: dict[str, Callable[[PlayedServer], list[Frame | bytes]]] = {
    "no status": lambda s: [block(s, [("a", "b")])],
    "status not first": lambda s: [block(s, [("a", "b"), (":status", "200")])],
    "two statuses": lambda s: [block(s, [(":status", "200"), (":status", "200")])],
    "another pseudo-header": lambda s: [block(s, [(":path", "/")])],
    "no number": lambda s: [block(s, [(":status", "2x0")])],
    "too long": lambda s: [block(s, [(":status", "2000")])],
    "too small": lambda s: [block(s, [(":status", "099")])],
    "informational at the end": lambda s: [s.answer(1, 100)],
    "body first": lambda s: [DataFrame(1, b"x")],
    "stream window increment 0": lambda s: [WindowUpdateFrame(1, 0)],
    "trailers in the middle": lambda s: [s.headers(1, 103), s.headers(1), s.headers(1)],
}


def block(server: PlayedServer, fields: list[tuple[str, str]]) -> Frame:
    flags = ["END_HEADERS", "END_STREAM"]
    return HeadersFrame(1, data=server.block(fields), flags=flags)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_answer_ends_its_stream_only(name: str) -> None:
    play = Play(2)
    frames: list[Frame | bytes] = []
    for frame in MALFORMED[name](play.server):
        is_zero = isinstance(frame, WindowUpdateFrame)
        frames.append(b"\0\0\4\x08\0\0\0\0\1" + bytes(4) if is_zero else frame)
    play.feed(*frames, play.server.answer(3))
    assert play.results[3] == Answer(200)
    first = play.results[1]
    assert isinstance(first, FateUnknown) or (isinstance(first, Answer) and not first.is_whole)
    assert [(f.stream_id, type(f)) for f in play.replies()] == [(1, RstStreamFrame)]


def test_a_stream_window_that_overflows_ends_its_stream_only() -> None:
    play = Play(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1})
    play.send(b"long")
    play.send(b"")
    play.replies()
    play.feed(WindowUpdateFrame(1, 2**31 - 1), WindowUpdateFrame(1, 2**31 - 1))
    play.feed(play.server.answer(3))
    assert play.results[3] == Answer(200)


# --- a server that breaks the protocol -----------------------------------------------------------


def raw(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


#: (what the server sends, what it is told). Streams 1 and 3 are open, 5 is not written yet.
ERRORS: dict[str, tuple[bytes, ErrorCode]] = {
    "frame too long": (raw(0, 0, 1, bytes(16_385)), ErrorCode.FRAME_SIZE_ERROR),
    "DATA on 0": (raw(0, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "DATA on an idle stream": (raw(0, 0, 5, b"x"), ErrorCode.PROTOCOL_ERROR),
    "DATA on a server stream": (raw(0, 0, 2, b"x"), ErrorCode.PROTOCOL_ERROR),
    "DATA padded over its end": (raw(0, 8, 1, b"\x05abc"), ErrorCode.PROTOCOL_ERROR),
    "DATA padded, empty": (raw(0, 8, 1, b""), ErrorCode.FRAME_SIZE_ERROR),
    "HEADERS on 0": (raw(1, 5, 0, b"\x88"), ErrorCode.PROTOCOL_ERROR),
    "HEADERS on an idle stream": (raw(1, 5, 5, b"\x88"), ErrorCode.PROTOCOL_ERROR),
    "HEADERS padded over its end": (raw(1, 13, 1, b"\x09\x88"), ErrorCode.PROTOCOL_ERROR),
    "HEADERS with priority, short": (raw(1, 0x25, 1, b"\x88"), ErrorCode.PROTOCOL_ERROR),
    "HEADERS of nonsense": (raw(1, 5, 1, b"\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
    "HEADERS with a table we refused": (
        raw(1, 5, 1, b"\x3f\xe1\x1f\x88"),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "HEADERS of a table entry": (raw(1, 5, 1, b"\xbe"), ErrorCode.COMPRESSION_ERROR),
    "PRIORITY short": (raw(2, 0, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
    "PRIORITY on 0": (raw(2, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on 0": (raw(3, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (raw(3, 0, 5, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM long": (raw(3, 0, 1, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (raw(4, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS of 5 bytes": (raw(4, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS acknowledged with more": (raw(4, 1, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS with push": (raw(4, 0, 0, b"\0\2\0\0\0\1"), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS with a huge window": (raw(4, 0, 0, b"\0\4\x80\0\0\0"), ErrorCode.FLOW_CONTROL_ERROR),
    "SETTINGS with small frames": (raw(4, 0, 0, b"\0\5\0\0\x3f\xff"), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS with huge frames": (raw(4, 0, 0, b"\0\5\1\0\0\0"), ErrorCode.PROTOCOL_ERROR),
    "PUSH_PROMISE": (PushPromiseFrame(1, 2, b"\x82").serialize(), ErrorCode.PROTOCOL_ERROR),
    "PING on a stream": (raw(6, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "PING short": (raw(6, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (raw(7, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "GOAWAY short": (raw(7, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE short": (raw(8, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of 0": (raw(8, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE on an idle stream": (raw(8, 0, 7, b"\0\0\0\1"), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE over the end": (raw(8, 0, 0, b"\x7f\xff\xff\xff"), ErrorCode.FLOW_CONTROL_ERROR),
    "CONTINUATION of nothing": (raw(9, 4, 1, b"\x88"), ErrorCode.PROTOCOL_ERROR),
    "HEADERS interrupted": (raw(1, 1, 1, b"") + raw(6, 0, 0, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "HEADERS interrupted by an answer": (
        raw(1, 1, 1, b"") + raw(1, 5, 3, b"\x88"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "HEADERS interrupted by an unknown frame": (
        raw(1, 1, 1, b"") + raw(0xEE, 0, 0, b""),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "CONTINUATION on another stream": (
        raw(1, 1, 1, b"") + raw(9, 4, 3, b"\x88"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "CONTINUATION without end": (
        raw(1, 1, 1, b"") + raw(9, 0, 1, b"") * 100,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "CONTINUATION of too much": (
        raw(1, 1, 1, b"") + raw(9, 0, 1, bytes(16_000)) * 3,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a header list too long": (
        raw(1, 5, 1, b"\x88" * 0 + b"\x48\x03999" + (b"\0\x01a\x7f\x11" + b"b" * 144) * 100),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "PINGs without end": (raw(6, 0, 0, bytes(8)) * 5000, ErrorCode.ENHANCE_YOUR_CALM),
    "SETTINGS without end": (raw(4, 0, 0, b"") * 5000, ErrorCode.ENHANCE_YOUR_CALM),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_server_that_breaks_the_protocol_is_told_and_left(name: str) -> None:
    play = Play(2)
    play.send()
    bad, code = ERRORS[name]
    with pytest.raises(Http2Error) as caught:
        play.client.feed(bad)
    assert caught.value.code == code
    reason = caught.value.reason
    assert play.results == {
        1: FateUnknown(reason),
        3: FateUnknown(reason),
        5: NeverProcessed("not-sent"),
    }
    (goaway,) = play.replies()
    assert isinstance(goaway, GoAwayFrame)
    assert goaway.error_code == code
    assert play.client.room == 0


def test_nothing_is_said_to_a_server_before_the_preface() -> None:
    client = Http2Client()
    client.close("cancelled")
    assert client.take() == b""


def test_the_first_frame_must_be_settings() -> None:
    for first in (PingFrame(0, bytes(8)), SettingsFrame(0, flags=["ACK"]), raw(0xEE, 0, 0, b"")):
        client = Http2Client()
        with pytest.raises(Http2Error, match="no-settings-first"):
            client.feed(first if isinstance(first, bytes) else first.serialize())
    with pytest.raises(Http2Error):
        Http2Client().feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_an_initial_window_that_overflows_a_stream_ends_the_connection() -> None:
    play = Play(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    play.send(b"long")
    play.replies()
    play.client._bodies.window = 0
    play.feed(WindowUpdateFrame(1, 2**31 - 1))
    with pytest.raises(Http2Error, match="setting-window"):
        play.feed(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1}))


def test_more_data_than_the_window_allows_ends_the_connection() -> None:
    play = Play(1)
    play.client._inbound._taken = 1 << 20  # as if none had been given back
    with pytest.raises(Http2Error, match="receive-window"):
        play.feed(DataFrame(1, b"x"))


# --- what is to be ignored -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        raw(0xEE, 0xFF, 1, b"whatever"),
        raw(0xA, 0, 0, b"\0\0h2=alt"),  # ALTSVC
        raw(0x10, 0, 0, bytes(4) + b"u=1"),  # PRIORITY_UPDATE
        PriorityFrame(99, depends_on=1).serialize(),
        SettingsFrame(0, settings={0x99: 1, 8: 1}).serialize(),
        SettingsFrame(0, flags=["ACK"]).serialize(),
        WindowUpdateFrame(1, 2**31 - 1).serialize() * 2,  # its body has gone already
        raw(8, 0, 0x80000001, b"\x80\0\0\1"),  # reserved bits
    ],
)
def test_frames_that_mean_nothing_to_us_are_passed_over(frame: bytes) -> None:
    play = Play(2)
    play.feed(play.server.answer(1), frame, play.server.answer(3))
    assert play.results == {1: Answer(200), 3: Answer(200)}


def test_flags_that_change_the_layout_are_understood() -> None:
    play = Play(4)
    block = play.server.block([(":status", "404"), ("a", "b")])
    padded = HeadersFrame(1, data=block, flags=["END_HEADERS", "END_STREAM", "PADDED", "PRIORITY"])
    padded.pad_length, padded.depends_on = 30, 3
    split = HeadersFrame(3, data=block[:1], flags=["END_STREAM"])
    rest = ContinuationFrame(3, data=block[1:], flags=["END_HEADERS"])
    reserved = raw(1, 5, 0x80000005, b"\x88")
    data = DataFrame(7, b"{}", flags=["END_STREAM", "PADDED"])
    data.pad_length = 255
    play.feed(padded, split, rest, reserved, play.server.headers(7), data)
    assert play.results == {
        1: Answer(404, {"a": "b"}),
        3: Answer(404, {"a": "b"}),
        5: Answer(200),
        7: Answer(200, body=b"{}"),
    }


def test_a_server_that_indexes_before_it_knows_our_table_is_understood() -> None:
    """Its answers come before it has acknowledged our SETTINGS; later ones must not use a table."""
    client, server, results = Http2Client(), PlayedServer(), list[Result]()
    server.encoder.header_table_size = 4096
    server.read(client.take())
    client.feed(SettingsFrame(0).serialize())
    for _ in range(2):
        client.send(Request("/", b"", FIXED), results.append)
    client.take()
    client.feed(server.answer(1, 200, apns_id="x") + server.answer(3, 200, apns_id="x"))
    assert results == [Answer(200, {"apns-id": "x"})] * 2
    client.feed(SettingsFrame(0, flags=["ACK"]).serialize())
    client.send(Request("/", b"", FIXED), results.append)
    client.take()
    server.encoder.header_table_size = 0
    client.feed(server.answer(5, 200, apns_id="x"))
    assert results == [Answer(200, {"apns-id": "x"})] * 3


def test_the_fields_of_a_200_that_make_no_sense_are_left_out() -> None:
    play = Play(1)
    play.feed(raw(1, 5, 1, b"\x88\xff\xff\xff"))
    (answer,) = play.results.values()
    assert isinstance(answer, Answer)
    assert (answer.status, answer.headers) == (200, {})


def test_repeated_fields_are_joined() -> None:
    play = Play(1)
    fields = [(":status", "401"), ("www-authenticate", "a"), ("www-authenticate", "b")]
    play.feed(block(play.server, fields))
    assert play.results == {1: Answer(401, {"www-authenticate": "a, b"})}
