"""TLS to push services on loopback: what is accepted, and what each refusal is called."""

from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from pusher.dialing import ConnectError, dialer, tls_context

pytestmark = pytest.mark.trio


class TlsServer:
    """Shakes hands as told, then keeps the connection."""

    def __init__(self, authority: trustme.CA, name: str, alpn: list[str] | None) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(self.context)
        self.asks_for: str | None = None
        if alpn is not None:
            self.context.set_alpn_protocols(alpn)
        self.shown: object = None

    async def serve(self, transport: trio.abc.Stream) -> None:
        stream = trio.SSLStream(transport, self.context, server_side=True, https_compatible=True)
        try:
            await stream.do_handshake()
            self.shown = stream.getpeercert()
            await stream.receive_some()
        except trio.BrokenResourceError:
            pass
        await trio.aclose_forcefully(stream)


async def listen(nursery: trio.Nursery, server: TlsServer) -> int:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(partial(trio.serve_listeners, server.serve, listeners))
    return int(listeners[0].socket.getsockname()[1])


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def trusting(authority: trustme.CA, folder: Path) -> ssl.SSLContext:
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return tls_context(authorities=folder / "ca.pem")


@pytest.mark.parametrize(
    ("name", "alpn", "needs_alpn", "reason"),
    [
        ("localhost", ["h2"], True, None),
        ("localhost", ["http/1.1", "h2"], True, None),
        ("localhost", None, False, None),
        ("localhost", None, True, "no-http2"),
        ("localhost", ["http/1.1"], True, "no-http2"),
        ("other.example", ["h2"], True, "tls"),
    ],
)
async def test_the_server_must_be_itself_and_speak_http2(
    nursery: trio.Nursery,
    authority: trustme.CA,
    tmp_path: Path,
    name: str,
    alpn: list[str] | None,
    needs_alpn: bool,
    reason: str | None,
) -> None:
    port = await listen(nursery, TlsServer(authority, name, alpn))
    dial = dialer("localhost", port, trusting(authority, tmp_path), needs_alpn=needs_alpn)
    if reason is None:
        await (await dial()).aclose()
    else:
        with pytest.raises(ConnectError) as caught:
            await dial()
        assert (caught.value.reason, caught.value.is_lasting) == (reason, True)
    nursery.cancel_scope.cancel()


async def test_an_unknown_authority_is_refused(
    nursery: trio.Nursery, authority: trustme.CA
) -> None:
    port = await listen(nursery, TlsServer(authority, "localhost", ["h2"]))
    with pytest.raises(ConnectError, match=r"tls: .*certificate"):
        await dialer("localhost", port, tls_context())()
    nursery.cancel_scope.cancel()


async def test_the_checked_address_is_the_one_connected_to(
    nursery: trio.Nursery, authority: trustme.CA, tmp_path: Path
) -> None:
    port = await listen(nursery, TlsServer(authority, "push.invalid", ["h2"]))
    context = trusting(authority, tmp_path)
    await (await dialer("push.invalid", port, context, address="127.0.0.1")()).aclose()
    nursery.cancel_scope.cancel()


async def test_our_certificate_is_shown(
    nursery: trio.Nursery, authority: trustme.CA, tmp_path: Path
) -> None:
    server = TlsServer(authority, "localhost", ["h2"])
    server.context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server.context)
    port = await listen(nursery, server)
    ours = authority.issue_cert("team@example.org", common_name="org.example.mail")
    ours.private_key_and_cert_chain_pem.write_to_path(tmp_path / "ours.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = tls_context(authorities=tmp_path / "ca.pem", certificate=tmp_path / "ours.pem")
    stream = await dialer("localhost", port, context)()
    await stream.send_all(b"x")
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert "org.example.mail" in str(server.shown)
    await stream.aclose()
    nursery.cancel_scope.cancel()


async def test_nobody_there_is_unreachable(authority: trustme.CA, tmp_path: Path) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    for host in ("127.0.0.1", "nowhere.invalid"):
        with pytest.raises(ConnectError) as caught:
            await dialer(host, port, trusting(authority, tmp_path))()
        assert (caught.value.reason, caught.value.is_lasting) == ("unreachable", False)


async def test_a_server_that_hangs_up_in_the_handshake_is_unreachable(
    nursery: trio.Nursery, authority: trustme.CA, tmp_path: Path
) -> None:
    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.aclose()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(partial(trio.serve_listeners, hang_up, listeners))
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(ConnectError) as caught:
        await dialer("localhost", port, trusting(authority, tmp_path))()
    assert (caught.value.reason, caught.value.is_lasting) == ("unreachable", False)
    nursery.cancel_scope.cancel()


async def test_a_server_without_tls_gets_no_plain_text(
    nursery: trio.Nursery, authority: trustme.CA, tmp_path: Path
) -> None:
    read: list[bytes] = []

    async def plain(stream: trio.abc.Stream) -> None:
        read.append(bytes(await stream.receive_some()))
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(partial(trio.serve_listeners, plain, listeners))
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(ConnectError, match="tls"):
        await dialer("localhost", port, trusting(authority, tmp_path))()
    assert read[0][:1] == b"\x16"  # a TLS handshake record
    nursery.cancel_scope.cancel()


async def test_files_that_are_no_good_are_told(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(OSError, match=r"(?i)certificate|PEM"):
        tls_context(authorities=tmp_path / "bad.pem")
    with pytest.raises(FileNotFoundError):
        tls_context(certificate=tmp_path / "absent.pem")
