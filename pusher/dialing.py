"""TLS connections to push services: verified and HTTP/2 agreed upon, or an error with a reason."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from shared.errors import MailboxPusherError

Dial = Callable[[], Awaitable[trio.abc.Stream]]


class ConnectError(MailboxPusherError):
    """No connection: `reason` is "unreachable", "timeout", "tls", "no-http2" or "no-settings".

    The last but one means that the service speaks HTTP/1.1 only, which time will not mend.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.is_lasting = reason in ("tls", "no-http2")


def tls_context(
    *, authorities: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return a context that verifies servers and asks for HTTP/2.

    `authorities` replaces the system's; `certificate` (with `key`, if that is another file) is
    what we show for ourselves. Raises OSError (ssl.SSLError included) for files that are no good.
    """
    context = ssl.create_default_context(cafile=authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def dialer(
    host: str,
    port: int,
    context: ssl.SSLContext,
    *,
    address: str | None = None,
    needs_alpn: bool = True,
) -> Dial:
    """Return what connects to `host`, which its certificate must name; raises ConnectError.

    `address` is where to connect to, if that was resolved and checked before. Without `needs_alpn`
    a server that does not take part in ALPN is taken to speak HTTP/2 (RFC 9113 §3.3 says it must).
    """
    return partial(_dial, host, port, context, address or host, needs_alpn)


async def _dial(
    host: str, port: int, context: ssl.SSLContext, address: str, needs_alpn: bool
) -> trio.abc.Stream:
    try:
        transport = await trio.open_tcp_stream(address, port)
    except OSError as error:
        raise ConnectError("unreachable", str(error)) from error
    stream = trio.SSLStream(transport, context, server_hostname=host, https_compatible=True)
    try:
        await stream.do_handshake()
        agreed = stream.selected_alpn_protocol()
        if agreed != "h2" and (agreed is not None or needs_alpn):
            raise ConnectError("no-http2", agreed or "no ALPN")
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise _handshake_error(error) from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def _handshake_error(error: trio.BrokenResourceError) -> ConnectError:
    """Tell what will fail again (a certificate, no common protocol) from what was cut off."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ConnectError("tls", cause.verify_message)
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        if cause.reason == "TLSV1_ALERT_NO_APPLICATION_PROTOCOL":
            return ConnectError("no-http2", "no ALPN in common")
        return ConnectError("tls", cause.reason or "")
    return ConnectError("unreachable", "cut off in the handshake")
