"""The HTTP/2 client wired back to back with h2 as server, which checks every frame."""

from __future__ import annotations

import pytest
from h2.events import PingAckReceived, RemoteSettingsChanged
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from pusher.protocol.hpack_prefix import Request, fixed_fields
from pusher.protocol.http2 import Http2Client
from pusher.protocol.http2_answers import Answer, Result
from tests.support.h2_far_end import H2Server, Received

ALERT = fixed_fields("api.example", (("apns-topic", "org.example.mail"), ("apns-priority", "10")))


def push(number: int = 0, body: bytes = b'{"aps":{}}') -> Request:
    return Request(f"/3/device/{number:08x}", body, ALERT, (("apns-id", str(number)),))


class Wire:
    """Client and server with what they say to each other in between."""

    def __init__(self, settings: dict[SettingCodes, int] | None = None, **options: int) -> None:
        self.client = Http2Client(**options)
        self.server = H2Server(settings)
        self.server.on_request = self.on_request
        self.results: dict[int, Result] = {}
        self.turn()

    def on_request(self, stream: int, request: Received) -> None:
        self.server.answer(stream, 200, apns_id=request.headers["apns-id"])

    def send(self, number: int = 0, body: bytes = b'{"aps":{}}') -> int:
        return self.client.send(push(number, body), lambda result: self.set(number, result))

    def set(self, number: int, result: Result) -> None:
        assert number not in self.results
        self.results[number] = result

    def turn(self) -> None:
        """Carry bytes until nobody has any more."""
        while True:
            ours = self.client.take()
            self.server.receive(ours)
            theirs = self.server.take()
            self.client.feed(theirs)
            if not ours and not theirs:
                return


def ok(number: int) -> Answer:
    return Answer(200, {"apns-id": str(number)})


@pytest.mark.parametrize("table_bytes", [0, 4096])
def test_requests_are_answered(table_bytes: int) -> None:
    wire = Wire(table_bytes=table_bytes)
    for round_ in range(20):
        for number in range(50):
            wire.send(round_ * 50 + number)
        wire.turn()
    assert wire.results == {number: ok(number) for number in range(1000)}
    assert wire.client.open_streams == 0
    first = wire.server.requests[1]
    assert first.is_whole
    assert bytes(first.body) == b'{"aps":{}}'
    assert first.headers == {
        ":method": "POST",
        ":scheme": "https",
        ":authority": "api.example",
        ":path": "/3/device/00000000",
        "apns-topic": "org.example.mail",
        "apns-priority": "10",
        "apns-id": "0",
    }


def test_there_is_no_room_before_the_servers_settings() -> None:
    client, server = Http2Client(), H2Server()
    assert client.room == 0
    server.receive(client.take())
    client.feed(server.take())
    assert client.is_ready
    assert client.room == 100  # what h2 allows


def test_everything_is_read_one_byte_at_a_time() -> None:
    client, server, results = Http2Client(), H2Server(), list[Result]()
    server.receive(client.take())
    for byte in server.take():
        client.feed(bytes((byte,)))
    for number in range(10):
        client.send(push(number), results.append)
    for byte in client.take():
        server.receive(bytes((byte,)))
    for stream in server.requests:
        server.answer(stream, 400, b'{"reason":"BadDeviceToken"}', apns_id="x")
    for byte in server.take():
        client.feed(bytes((byte,)))
    assert results == [Answer(400, {"apns-id": "x"}, b'{"reason":"BadDeviceToken"}')] * 10


@pytest.mark.parametrize("status", [200, 201, 204, 400, 404, 410, 413, 429, 500, 503])
@pytest.mark.parametrize("body", [b"", b'{"reason":"x"}'])
def test_any_status_comes_with_its_headers_and_body(status: int, body: bytes) -> None:
    wire = Wire()
    wire.server.on_request = lambda stream, request: wire.server.answer(
        stream, status, body, retry_after="7", location="/m/1"
    )
    for number in range(3):
        wire.send(number)
    wire.turn()
    expected = Answer(status, {"retry-after": "7", "location": "/m/1"}, body)
    assert wire.results == dict.fromkeys(range(3), expected)


def test_informational_answers_and_trailers_are_passed_over() -> None:
    wire = Wire()

    def answer(stream: int, request: Received) -> None:
        wire.server.h2.send_headers(stream, [(":status", "103"), ("link", "x")])
        wire.server.h2.send_headers(stream, [(":status", "200"), ("a", "b")])
        wire.server.h2.send_data(stream, b"{}")
        wire.server.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    wire.server.on_request = answer
    wire.send()
    wire.turn()
    assert wire.results == {0: Answer(200, {"a": "b"}, b"{}")}


def test_padding_is_taken_off() -> None:
    wire = Wire()

    def answer(stream: int, request: Received) -> None:
        wire.server.h2.send_headers(stream, [(":status", "200")])
        wire.server.h2.send_data(stream, b"{}", end_stream=True, pad_length=200)

    wire.server.on_request = answer
    wire.send()
    wire.turn()
    assert wire.results == {0: Answer(200, {}, b"{}")}


def test_a_long_header_list_comes_in_several_frames() -> None:
    wire = Wire()
    wire.server.h2.max_outbound_frame_size = 100
    long = {f"x{n}": "y" * 100 for n in range(20)}
    wire.server.on_request = lambda stream, request: wire.server.answer(stream, 429, b"", **long)
    wire.send()
    wire.turn()
    assert wire.results == {0: Answer(429, long)}


def test_the_servers_limit_of_streams_is_kept_as_it_moves() -> None:
    wire = Wire({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    wire.server.on_request = lambda stream, request: None
    assert wire.client.room == 1
    wire.send(0)
    wire.turn()
    assert wire.client.room == 0
    wire.server.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 3})
    wire.turn()
    assert wire.client.room == 2
    wire.send(1)
    wire.send(2)
    wire.server.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    wire.turn()
    assert wire.client.room == 0
    wire.server.answer(1)
    wire.server.answer(3)
    wire.turn()
    assert wire.client.room == 0
    wire.server.answer(5)
    wire.turn()
    assert wire.client.room == 1
    assert len(wire.results) == 3


def test_our_own_limit_holds_where_the_server_has_none() -> None:
    wire = Wire({SettingCodes.MAX_CONCURRENT_STREAMS: 2**31 - 1}, most_streams=7)
    assert wire.client.room == 7


def test_a_body_waits_for_the_stream_window_and_goes_in_parts() -> None:
    wire = Wire({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    wire.server.acknowledges = False
    wire.send(0, b"x" * 25)
    wire.send(1, b"y" * 5)  # not held up by the other
    wire.turn()
    assert bytes(wire.server.requests[1].body) == b"x" * 10
    assert wire.results == {1: ok(1)}
    wire.server.h2.increment_flow_control_window(10, 1)
    wire.turn()
    assert bytes(wire.server.requests[1].body) == b"x" * 20
    wire.server.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 15})  # 20 sent: 5 more
    wire.turn()
    assert bytes(wire.server.requests[1].body) == b"x" * 25
    assert wire.results[0] == ok(0)


def test_a_window_below_zero_must_come_up_again_first() -> None:
    wire = Wire({SettingCodes.INITIAL_WINDOW_SIZE: 20})
    wire.server.acknowledges = False
    wire.send(0, b"x" * 30)
    wire.turn()
    wire.server.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 5})
    wire.turn()
    wire.server.h2.increment_flow_control_window(15, 1)  # back to 0
    wire.turn()
    assert len(wire.server.requests[1].body) == 20
    wire.server.h2.increment_flow_control_window(10, 1)
    wire.turn()
    assert wire.results == {0: ok(0)}


def test_the_connection_window_stops_further_requests() -> None:
    wire = Wire({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
    wire.server.acknowledges = False
    wire.send(0, b"x" * 60_000)
    wire.send(1, b"y" * 6_000)
    wire.turn()
    assert len(wire.server.requests[3].body) == 65_535 - 60_000
    assert wire.client.room == 0
    wire.server.h2.increment_flow_control_window(70_000)
    wire.turn()
    assert wire.results == {0: ok(0), 1: ok(1)}
    assert wire.client.room


def test_thousands_of_pushes_fit_through_the_default_window() -> None:
    wire = Wire()
    sent = 0
    while len(wire.results) < 3000:
        while wire.client.room and sent < 3000:
            wire.send(sent, b"x" * 3000)
            sent += 1
        wire.turn()
    assert all(result == ok(number) for number, result in wire.results.items())


def test_large_frames_are_cut_to_what_the_server_takes() -> None:
    wire = Wire({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
    wire.send(0, b"x" * 50_000)
    wire.turn()
    assert wire.results == {0: ok(0)}
    assert len(wire.server.requests[1].body) == 50_000


def test_the_server_may_shrink_and_grow_our_header_table() -> None:
    wire = Wire()
    for number, size in enumerate((4096, 0, 100, 4096, 60, 4096)):
        wire.server.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
        wire.turn()
        for each in range(3):
            wire.send(number * 3 + each)
        wire.turn()
    assert wire.results == {number: ok(number) for number in range(18)}


def test_answers_as_long_as_we_keep_are_read_for_ever() -> None:
    wire = Wire()
    body = b"z" * 16_000
    wire.server.on_request = lambda stream, request: wire.server.answer(stream, 503, body)
    for number in range(300):  # almost 5 MB: the window must be widened all the time
        wire.send(number)
        wire.turn()
    assert wire.results == dict.fromkeys(range(300), Answer(503, {}, body))


def test_a_body_beyond_what_we_keep_is_cut_off() -> None:
    wire = Wire(most_body_bytes=100)
    wire.server.on_request = lambda stream, request: None
    wire.send()
    wire.turn()
    wire.server.h2.send_headers(1, [(":status", "503")])
    wire.server.h2.send_data(1, b"z" * 100)
    wire.turn()
    assert wire.results == {0: Answer(503, {}, b"z" * 100, is_whole=False)}
    assert wire.server.requests[1].reset_code == 8  # CANCEL
    assert wire.client.room == 100


def test_an_answer_before_the_whole_body_ends_the_stream() -> None:
    wire = Wire({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    wire.server.acknowledges = False
    wire.send(0, b"x" * 25)
    wire.turn()
    wire.server.answer(1, 413)
    wire.turn()
    assert wire.results == {0: Answer(413)}
    assert wire.server.requests[1].reset_code == 0  # NO_ERROR
    assert not wire.server.requests[1].is_whole


def test_pings_go_both_ways() -> None:
    wire = Wire()
    wire.server.h2.ping(b"12345678")
    wire.client.ping(b"abcdefgh")
    wire.turn()
    assert wire.client.pongs == 1
    assert [e.ping_data for e in wire.server.events if isinstance(e, PingAckReceived)] == [
        b"12345678"
    ]


def test_our_settings_are_what_we_need() -> None:
    events = [e for e in Wire().server.events if isinstance(e, RemoteSettingsChanged)]
    told = {name: change.new_value for name, change in events[0].changed_settings.items()}
    assert told == {
        SettingCodes.HEADER_TABLE_SIZE: 0,
        SettingCodes.ENABLE_PUSH: 0,
        SettingCodes.INITIAL_WINDOW_SIZE: 16_384,
        SettingCodes.MAX_HEADER_LIST_SIZE: 16_384,
    }


def test_requests_without_a_body_are_whole_at_once() -> None:
    wire = Wire()
    wire.send(0, b"")
    wire.turn()
    assert wire.results == {0: ok(0)}


def test_requests_may_be_sent_from_within_an_answer() -> None:
    wire = Wire()
    left = list(range(1, 200))

    def done(result: Result) -> None:
        wire.results[len(wire.results)] = result
        if left:
            wire.client.send(push(left.pop(0)), done)

    wire.client.send(push(0), done)
    wire.turn()
    assert len(wire.results) == 200


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_frames_may_be_split_anywhere(data: st.DataObject) -> None:
    client, server, results = Http2Client(), H2Server(), list[Result]()
    server.receive(client.take())
    client.feed(server.take())
    sizes = data.draw(st.lists(st.integers(0, 3000), min_size=1, max_size=30))
    for number, size in enumerate(sizes):
        client.send(push(number, b"x" * size), results.append)
    written = client.take()
    for piece in pieces(data, written):
        server.receive(piece)
    for stream, request in server.requests.items():
        server.answer(stream, 200 if len(request.body) % 2 else 410, bytes(request.body[:50]))
    for piece in pieces(data, server.take()):
        client.feed(piece)
    assert [(each.status, each.body) for each in results if isinstance(each, Answer)] == [
        (200 if size % 2 else 410, b"x" * min(size, 50)) for size in sizes
    ]


def pieces(data: st.DataObject, whole: bytes) -> list[bytes]:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=20)))
    return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
