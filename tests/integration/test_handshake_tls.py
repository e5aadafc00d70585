"""TLS without a proxy: streams over it, slow and foreign clients cut."""

from __future__ import annotations

import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.support.hostile import (
    OK,
    TINY_BUFFER,
    Producer,
    event_request,
    get,
    metric,
    parse_answer,
    read_to_end,
)
from tests.support.pusher_process import PusherProcess

HANDSHAKE_SECONDS = 2.0


@dataclass
class Secure:
    """A pusher that speaks TLS, and the context of clients that trust it."""

    pusher: PusherProcess
    context: ssl.SSLContext

    def connect(self) -> ssl.SSLSocket:
        plain = socket.socket()
        plain.settimeout(5)
        # Small, so that a reader that does not read is soon noticed.
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TINY_BUFFER)
        try:
            plain.connect(("127.0.0.1", self.pusher.streams_port))
            return self.context.wrap_socket(plain, server_hostname="push.example.org")
        except BaseException:
            plain.close()
            raise

    def open(self, account: str) -> ssl.SSLSocket:
        connection = self.connect()
        token = self.pusher.token(account)
        connection.sendall(get("/events", {"Authorization": f"Bearer {token}"}))
        return connection


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("push.example.org")
    with (folder / "chain.pem").open("wb") as chain:
        for blob in certificate.cert_chain_pems:
            chain.write(blob.bytes())
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    settings = {
        "streams": {
            "tls_certificate_file": str(folder / "chain.pem"),
            "tls_key_file": str(folder / "key.pem"),
            "handshake_seconds": HANDSHAKE_SECONDS,
            "ping_seconds": 0.5,
            "stalled_seconds": 2,
        }
    }
    with PusherProcess(settings) as pusher:
        yield Secure(pusher, context)


def read_until(connection: socket.socket, wanted: bytes, within: float = 5.0) -> bytes:
    deadline = time.monotonic() + within
    received = b""
    while wanted not in received:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        data = connection.recv(65_536)
        assert data, received
        received += data
    return received


def test_stream_works_over_tls_with_events_and_pings(secure: Secure) -> None:
    with secure.open("ann") as stream, Producer(secure.pusher.stream_socket) as producer:
        assert stream.version() in ("TLSv1.2", "TLSv1.3")
        read_until(stream, b"\nid: ")
        read_until(stream, b":\n\n", within=3)
        for number in range(1, 200):
            assert producer.ask(event_request("ann", number)) == OK
        read_until(stream, b'"mailModSeq":199,')


def test_refusals_are_readable_over_tls(secure: Secure) -> None:
    with secure.connect() as connection:
        connection.sendall(get("/events"))
        received = read_until(connection, b'"detail"')
    assert parse_answer(received).status == 401


def test_stuck_tls_reader_is_cut_and_one_that_resumes_gets_the_final_state(secure: Secure) -> None:
    pusher = secure.pusher
    with secure.open("bob") as stuck, secure.open("bob") as other:
        read_until(stuck, b"\nid: ")
        read_until(other, b"\nid: ")
        number = 0
        with Producer(pusher.stream_socket) as producer:
            while metric(pusher, "pusher_subscribers_behind") < 2:
                for _ in range(20):
                    number += 1
                    assert producer.ask(event_request("bob", number)) == OK
                assert number < 5000, "the kernel takes everything in"
            name = 'pusher_streams_total{kind="cut_stalled"}'
            deadline = time.monotonic() + 2 + 4
            while metric(pusher, name) < 1:
                for _ in range(20):
                    number += 1
                    assert producer.ask(event_request("bob", number)) == OK
                read_until(other, b'"mailModSeq":%d,' % number)
                assert time.monotonic() < deadline, "the stuck one is still open"
        assert metric(pusher, name) == 1


def test_old_tls_is_refused(secure: Secure) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    address = ("127.0.0.1", secure.pusher.streams_port)
    with (
        socket.create_connection(address, 5) as plain,
        pytest.raises(ssl.SSLError) as caught,
        old.wrap_socket(plain),
    ):
        pass
    assert "PROTOCOL_VERSION" in (caught.value.reason or "")


def test_plain_http_on_the_tls_port_is_closed(secure: Secure) -> None:
    address = ("127.0.0.1", secure.pusher.streams_port)
    with socket.create_connection(address, 5) as plain:
        plain.sendall(get("/events"))
        assert b"200" not in read_to_end(plain, within=5)


def client_hello(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    machine = context.wrap_bio(incoming, outgoing, server_hostname="push.example.org")
    with pytest.raises(ssl.SSLWantReadError):
        machine.do_handshake()
    return outgoing.read()


def test_200_slow_tls_clients_are_closed_in_time_and_good_ones_served_meanwhile(
    secure: Secure,
) -> None:
    address = ("127.0.0.1", secure.pusher.streams_port)
    hello = client_hello(secure.context)
    with ExitStack() as stack:
        began = time.monotonic()
        left = [stack.enter_context(socket.create_connection(address, 5)) for _ in range(200)]
        for connection in left[50:100]:
            connection.sendall(hello[:100])
        for connection in left[100:150]:
            connection.sendall(hello)  # and never the rest of the handshake
        for connection in left[150:]:
            connection.sendall(b"\x16\x03\x01\x40\x00")
        with secure.open("ann") as stream:
            read_until(stream, b"\nid: ", within=1.5)
        for connection in left:
            read_to_end(connection, within=began + HANDSHAKE_SECONDS + 2 - time.monotonic())
        with secure.open("ann") as stream:
            read_until(stream, b"\nid: ")
